"""The sender, a process of its own: what it spends is not counted as the receiver's, and it does not wait for
the receiver's interpreter lock."""

from __future__ import annotations

from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from time import monotonic_ns, sleep
from types import TracebackType
from typing import Self

import psycopg

__all__ = ["PAYLOAD_SIZE", "Bursts", "Sender", "Stamp", "payload"]

PAYLOAD_SIZE = 100

PAUSE = 0.0003
"""Seconds in which the receiver goes to sleep before a `Stamp` is sent."""

BURST = "SELECT pg_notify(%s, {}) FROM generate_series(1, %s) i"
TEXT = "lpad(i::text, %s, 'x')"
QUOTED = "to_json(lpad(i::text, %s - 2, 'x'))::text"
STAMP = "SELECT pg_notify(%s, %s)"


def payload(number: int, length: int = PAYLOAD_SIZE) -> str:
    """What notification `number` of a burst carries, counted from 1."""
    return str(number).rjust(length, "x")


@dataclass(frozen=True)
class Bursts:
    """Send `size` notifications in one statement, `times` over, without a pause, with payloads of `length` bytes.
    `quoted`: two of which are quotes, so that it is JSON."""

    channel: str
    size: int
    times: int = 1
    length: int = PAYLOAD_SIZE
    quoted: bool = False


@dataclass(frozen=True)
class Stamp:
    """Send one notification, after `pause` seconds, that carries the time: `time.monotonic_ns()`."""

    channel: str
    pause: float = PAUSE


Order = Bursts | Stamp


class Sender:
    """The process, seen from the one that measures. It ends with it."""

    def __init__(self, dsn: str) -> None:
        context = get_context("spawn")
        self._pipe, other_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(dsn, other_end), daemon=True)
        self._process.start()
        other_end.close()
        self.pid = int(self._pipe.recv())
        """Process id of its server backend, which its notifications bear."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe.close()
        self._process.join()

    def begin(self, order: Order) -> None:
        """Have it start, and return at once."""
        self._pipe.send(order)

    def finish(self) -> int:
        """Wait until the server has committed the last of it; return the nanoseconds that its last call took."""
        return int(self._pipe.recv())

    def run(self, order: Order) -> int:
        """Both."""
        self.begin(order)
        return self.finish()


def _serve(dsn: str, pipe: Connection[int, Order]) -> None:
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=0) as connection:
        pipe.send(connection.info.backend_pid)
        try:
            while True:
                pipe.send(_obey(connection, pipe.recv()))
        except (EOFError, KeyboardInterrupt, OSError):  # whoever measures has gone or was interrupted
            pass


def _obey(connection: psycopg.Connection[tuple[object, ...]], order: Order) -> int:
    start = 0
    if isinstance(order, Stamp):
        sleep(order.pause)
        start = monotonic_ns()
        connection.execute(STAMP, (order.channel, str(start)))
    else:
        statement = BURST.format(QUOTED if order.quoted else TEXT).encode()
        for _ in range(order.times):
            start = monotonic_ns()
            connection.execute(statement, (order.channel, order.length, order.size))
    return monotonic_ns() - start
