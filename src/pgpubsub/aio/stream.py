"""Streams, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Generic, TypeVar, Unpack, overload

from pgpubsub.aio.consumer import AsyncBatch, AsyncConsumer, AsyncDelivery
from pgpubsub.aio.reader import AsyncReader
from pgpubsub.aio.receiving import IN_A_ROW
from pgpubsub.core.headers import Headers
from pgpubsub.core.position import BEGINNING, Start
from pgpubsub.events import Entry, Undecodable
from pgpubsub.groups.administration import Groups
from pgpubsub.groups.service import GroupOptions, check_concurrency, settings
from pgpubsub.groups.status import DeadLetter, GroupInfo
from pgpubsub.hubs.engine import Engine
from pgpubsub.streams.description import Description
from pgpubsub.streams.service import Streams

__all__ = ["AsyncStream"]

T = TypeVar("T")


class AsyncStream(Generic[T]):
    """A stream, as `AsyncHub.stream` returns it: append to it, and read it."""

    def __init__(self, engine: Engine, streams: Streams, description: Description[T]) -> None:
        self._engine = engine
        self._streams = streams
        self._description = description
        self._groups = Groups(engine, streams, description)

    def __repr__(self) -> str:
        return f"<AsyncStream {self.name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._description.name

    async def append(
        self, value: T, key: str | None = None, headers: Headers | None = None, *, idempotency_key: str | None = None
    ) -> int:
        """Append an entry, and return its id; it is committed when this returns.

        Appends that come at the same time go out together, in one statement, each with an outcome of its own.

        Args:
            value: the payload: text or bytes, or what the stream's type says. Up to the hub's `max_payload`.
            key: what it is about: entries with the same key belong together.
            headers: beside the payload; names and JSON values.
            idempotency_key: of up to 1,000 bytes. An entry of this stream with the same one is not stored again: its id
                is returned. So an append whose fate is unknown is repeated, here and by you.

        Raises:
            PayloadError, PayloadTooLarge: it cannot be stored. TypeError: something is of another type.
            SendTimeout: it could not be appended for `send_timeout` seconds. It was not, and will not be.
            SendUncertain: the connection broke meanwhile, so that it was appended, or was not.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because the role may not append.

        >>> import asyncio, pgpubsub
        >>> async def main():
        ...     async with pgpubsub.AsyncHub(dsn) as hub:
        ...         orders = hub.stream("orders of the day")
        ...         id = await orders.append("17", key="customer 4")
        ...         async with orders.read(after=pgpubsub.BEGINNING) as entries:
        ...             entry = await entries.get()
        ...         return entry.id == id, entry.key, entry.payload
        >>> asyncio.run(main())
        (True, 'customer 4', '17')
        """
        entry = self._description.entry(value, key, headers, idempotency_key)
        return (await self._streams.append(self._description.schema, (entry,)))[0]

    async def append_many(
        self,
        values: Iterable[T],
        *,
        key: str | Callable[[T], str | None] | None = None,
        headers: Headers | Callable[[T], Headers | None] | None = None,
    ) -> list[int]:
        """Append entries in one transaction, in order: all of them or, if this raises, none. Returns their ids.

        Args:
            values: the payloads; 256 MiB at most.
            key, headers: for all, or functions that return those of each value.

        Raises:
            as `append`. What is wrong with a value is raised before anything is sent.
        """
        entries = []
        for entry in self._description.entries(values, key, headers):
            entries.append(entry)
            if len(entries) % IN_A_ROW == 0:
                await asyncio.sleep(0)
        if not entries:
            await asyncio.sleep(0)
            return []
        return list(await self._streams.append(self._description.schema, entries, many=True))

    @overload
    def read(
        self: AsyncStream[str | bytes], after: str | Start = BEGINNING, *, follow: bool = True
    ) -> AsyncReader[Entry[Any] | Undecodable]: ...
    @overload
    def read(self, after: str | Start = BEGINNING, *, follow: bool = True) -> AsyncReader[Entry[T] | Undecodable]: ...
    def read(self, after: str | Start = BEGINNING, *, follow: bool = True) -> AsyncReader[Any]:
        """A reader of the entries, to be entered with `async with`.

        It gets every committed entry once; what could be seen when another was appended comes before that; and nobody's
        open transaction delays others.

        Args:
            after: `BEGINNING`, for the oldest entry; `END`, for what is committed after the reader is entered; or the
                `position` of an entry, or of a reader, from whatever process, to go on behind it.
            follow: whether to wait for more at the end. If not, the iteration ends there.

        Raises:
            PositionError: `after` is not a position of this stream.
        """
        return AsyncReader(self._streams, self._description, self._description.start(after), follow)

    @overload
    def consume(
        self: AsyncStream[str | bytes], group: str, *, batch: None = None, **options: Unpack[GroupOptions]
    ) -> AsyncConsumer[AsyncDelivery[Any]]: ...
    @overload
    def consume(
        self, group: str, *, batch: None = None, **options: Unpack[GroupOptions]
    ) -> AsyncConsumer[AsyncDelivery[T]]: ...
    @overload
    def consume(self, group: str, *, batch: int, **options: Unpack[GroupOptions]) -> AsyncConsumer[AsyncBatch[T]]: ...
    def consume(self, group: str, *, batch: int | None = None, **options: Unpack[GroupOptions]) -> AsyncConsumer[Any]:
        """Share the entries with all who consume as the same group: each entry is handled by one of them.

        Entries with one key are handled in order, one at a time; others at the same time, by whichever member has
        them. Iterate over what is returned and handle each delivery in an `async with` block: leaving that
        acknowledges the entry. If an exception leaves it, the entry comes again, later and later, and after `attempts`
        it is set aside: see `dead`.

        Args:
            group: any text of up to 1,000 bytes. A group comes into being with its first member, and stays.
            batch: how many entries to hand out together, at most. If their handling fails, they come again in smaller
                batches, until the one to blame is alone.
            follow: whether to wait for more at the end. If not, the iteration ends there.
            attempts: after so many, an entry is set aside. One that was in hand when its member died counts.
            backoff: seconds from one attempt to the next, or a function that returns them, given how many there were.
                By default about 1, 2, 4 and so on, up to 300.
            lease: seconds after which others take over from a member that shows no sign of life.
            start: where a group that is new begins: `BEGINNING`, `END`, or a reader's position.
            on_gap: called with a `Gap` where something may have been missed, as when retention has removed entries that
                the group had not handled. It is logged too. It must only take notes.

        Raises:
            TypeError, ValueError: an argument is not possible.
            PositionError: `start` is not a position of this stream.

        >>> import asyncio, pgpubsub
        >>> async def main():
        ...     async with pgpubsub.AsyncHub(dsn) as hub:
        ...         invoices = hub.stream("invoices of the day")
        ...         await invoices.append_many(["17", "18"])
        ...         async for delivery in invoices.consume("billing", follow=False):
        ...             async with delivery:
        ...                 print(delivery.payload)
        >>> asyncio.run(main())
        17
        18
        """
        given = settings("consume", self._description, group, batch, options)
        return AsyncConsumer(self._engine, self._streams, self._description, given, batches=batch is not None)

    @overload
    async def process(
        self: AsyncStream[str | bytes],
        group: str,
        handler: Callable[[Entry[Any]], Any],
        *,
        concurrency: int = 1,
        batch: None = None,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    @overload
    async def process(
        self,
        group: str,
        handler: Callable[[Entry[T]], Any],
        *,
        concurrency: int = 1,
        batch: None = None,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    @overload
    async def process(
        self,
        group: str,
        handler: Callable[[list[Any]], Any],
        *,
        concurrency: int = 1,
        batch: int,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    async def process(
        self,
        group: str,
        handler: Callable[[Any], Any],
        *,
        concurrency: int = 1,
        batch: int | None = None,
        **options: Unpack[GroupOptions],
    ) -> None:
        """Have `handler` called for each entry, as `consume` hands them out. When it returns, the entry is
        acknowledged; when it raises, that comes again.

        This goes on until the task is cancelled, the hub closed or the process told to end (SIGTERM, in the main
        thread): then what is in hand is finished first, unless it is told once more.

        Args:
            group: as for `consume`.
            handler: gets an entry, or with `batch` a list of them. A coroutine function, or one that may block, which
                is called in a thread.
            concurrency: how many are handled at the same time, at most.
            batch, follow, attempts, backoff, lease, start, on_gap: as for `consume`.

        Raises:
            TypeError: `handler` is no function, or has `yield` in it. And what `consume` raises.
        """
        given = settings("process", self._description, group, batch, options)
        check_concurrency(concurrency)
        consumer = AsyncConsumer[Any](self._engine, self._streams, self._description, given, batches=batch is not None)
        await consumer._process(handler, concurrency)

    async def groups(self) -> list[GroupInfo]:
        """The groups that consume this stream: how far behind, who takes part, what is held up and what was set aside.

        It counts what is not settled, so it takes a second for a few million entries.
        """
        return await self._groups.all()

    async def dead(self, group: str, *, limit: int = 1000) -> list[DeadLetter[T]]:
        """The dead letters of a group, the oldest first: entries that failed as often as its consumers allow.

        Args:
            group: its name.
            limit: how many to return at most.

        Raises:
            TypeError, ValueError: `limit` is no such number.
            PubSubError: there is no such group.
        """
        return await self._groups.dead(group, limit)

    async def redrive(self, group: str, ids: Iterable[int] | None = None) -> int:
        """Let dead letters be handed out again, as if they never had been. Returns how many there were.

        Args:
            group: its name.
            ids: of the entries; None: all dead letters of the group.

        Raises:
            TypeError, ValueError: `ids` are none.
            PubSubError: there is no such group.
        """
        return await self._groups.redrive(group, ids)

    async def discard(self, group: str, ids: Iterable[int] | None = None) -> int:
        """Forget dead letters. Returns how many there were. Arguments and errors are as for `redrive`."""
        return await self._groups.discard(group, ids)

    async def seek(self, group: str, to: str | Start | datetime) -> None:
        """Let a group go on elsewhere. What its consumers have in hand is lost to them (`LeaseLost`), and what waits to
        be handed out again is forgotten; dead letters stay.

        Args:
            group: its name.
            to: `BEGINNING`, `END`, a reader's position, or a time (aware): the first entry that was appended then.

        Raises:
            PositionError: it is no position of this stream. ValueError: the time has no time zone.
            PubSubError: there is no such group.
        """
        await self._groups.seek(group, to)

    async def drop_group(self, group: str) -> None:
        """Forget a group: its place, what waits in it, and its dead letters. (A group of which nobody is a member any
        more keeps entries where `keep_unconsumed` is set.) Consumers that are still there begin it anew.

        Raises:
            PubSubError: there is no such group.
        """
        await self._groups.drop(group)
