"""Consumers over every face, made alike, so that the same cases run for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import psycopg

from pgpubsub import AsyncConsumer, Gap, GroupInfo, Stream
from tests.contract.faces import PATIENCE, LoopInThread
from tests.contract.streams import AnyStream, CoveredStream

__all__ = ["CoveredInHand", "administer", "consume", "handle", "info", "process", "rows_of"]


class CoveredInHand:
    """An `AsyncDelivery` or `AsyncBatch`, as if it were blocking."""

    def __init__(self, inner: Any, loop: LoopInThread) -> None:
        self.inner = inner
        self.loop = loop

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)

    def __repr__(self) -> str:
        return repr(self.inner)

    def __enter__(self) -> Self:
        self.loop.run(self.inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return bool(self.loop.run(self.inner.__aexit__(kind, error, traceback)))

    def acknowledge(self, *args: Any) -> None:
        self.loop.run(self.inner.acknowledge(*args))

    def fail(self, error: Any) -> None:
        self.loop.run(self.inner.fail(error))

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        context = self.inner.transaction()
        conn = self.loop.run(context.__aenter__())
        try:
            yield _CoveredConnection(conn, self.loop)
        except BaseException as error:
            if not self.loop.run(context.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.loop.run(context.__aexit__(None, None, None))


class _CoveredConnection:
    def __init__(self, conn: psycopg.AsyncConnection[Any], loop: LoopInThread) -> None:
        self.conn = conn
        self.loop = loop

    def execute(self, *args: Any) -> None:
        self.loop.run(self.conn.execute(*args))


class CoveredConsumer:
    """An `AsyncConsumer`, as if it were blocking."""

    def __init__(self, inner: AsyncConsumer[Any], loop: LoopInThread) -> None:
        self.inner = inner
        self.loop = loop

    def __enter__(self) -> Self:
        self.loop.run(self.inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.loop.run(self.inner.__aexit__(kind, error, traceback))

    def __repr__(self) -> str:
        return repr(self.inner)

    def __iter__(self) -> Iterator[Any]:
        events = aiter(self.inner)
        try:
            while True:
                try:
                    yield self._cover(self.loop.run(_next(events)))
                except StopAsyncIteration:
                    return
        finally:
            if hasattr(events, "aclose"):
                self.loop.run(events.aclose())

    def _cover(self, event: Any) -> Any:
        return event if event is None or isinstance(event, Gap) else CoveredInHand(event, self.loop)

    def get(self, timeout: float | None = None) -> Any:
        return self._cover(self.loop.run(self.inner.get(timeout)))

    def get_nowait(self) -> Any:
        return self._cover(self.loop.call(self.inner.get_nowait))

    def close(self) -> None:
        self.loop.call(self.inner.close)


async def _next(events: Any) -> Any:
    return await anext(events)


def consume(stream: AnyStream, group: str, **options: Any) -> Any:
    """A consumer of a stream of whatever face."""
    if isinstance(stream, CoveredStream):
        return CoveredConsumer(stream.stream.consume(group, **options), stream.loop)
    assert isinstance(stream, Stream)
    return stream.consume(group, **options)


def process(stream: AnyStream, group: str, handler: Callable[[Any], Any], **options: Any) -> None:
    """Process a stream of whatever face."""
    administer(stream, "process", group, handler, **options)


def administer(stream: AnyStream, name: str, *args: Any, **options: Any) -> Any:
    """Call a method of a stream of whatever face."""
    if isinstance(stream, CoveredStream):
        return stream.loop.run(getattr(stream.stream, name)(*args, **options))
    return getattr(stream, name)(*args, **options)


def info(stream: AnyStream, group: str) -> GroupInfo:
    """How a group stands."""
    (found,) = [one for one in administer(stream, "groups") if one.name == group]
    assert isinstance(found, GroupInfo)
    return found


def handle(consumer: Any, count: int, seconds: float = PATIENCE) -> list[Any]:
    """The payloads of the next entries, which are acknowledged."""
    found = []
    for _ in range(count):
        delivery = consumer.get(seconds)
        with delivery:
            found.append(delivery.payload)
    return found


def rows_of(admin: psycopg.Connection[Any], table: str) -> list[Any]:
    """What a table has."""
    query: Any = f"SELECT * FROM pgpubsub.{table}"
    return admin.execute(query).fetchall()
