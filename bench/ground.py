"""Where the turns take place, and how much is measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, cast

import psycopg
from psycopg.conninfo import make_conninfo

from bench.sender import Sender

__all__ = ["AS_IT_IS", "CHANNEL", "QUEUE", "SLOW", "Effort", "Ground", "Lasting", "database"]

CHANNEL = "bench_channel"

SLOW, AS_IT_IS = "1ms", "disk"
"""Disks: one that takes a millisecond for each flush, and that of this machine."""

QUEUE = "bench"
"""The name of everybody's stream, queue or task."""


class Lasting(Protocol):
    """Something that stays through all rounds."""

    def start(self) -> None:
        """Begin."""

    def close(self) -> None:
        """End; it may not have begun."""


L = TypeVar("L", bound=Lasting)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 20
    burst: int = 1000
    throughput_turns: int = 2
    """Turns of each contestant in each round."""
    drained_bursts: int = 3
    """In a turn."""
    flowing_bursts: int = 5
    flooding_bursts: int = 20
    latency_turns: int = 8
    samples: int = 25
    """In a turn."""
    warm_up_samples: int = 10
    subscribers: int = 1000
    """To whom one message goes."""
    messages: int = 5
    """To all of them, in a round."""
    entered: int = 1000
    """Subscriptions that are entered at once."""
    held: int = 10_000
    """Subscriptions whose memory is measured; a tenth as many readers."""
    hubs: int = 20
    """Hubs likewise."""
    idle_seconds: float = 33.0
    """With a heartbeat after 10 to 12 s, so that there are two or three."""
    long_rounds: int = 2
    """How many of the rounds include what takes long: idleness and memory."""
    sending_rounds: int = 8
    """How many of the rounds include sending."""
    calling_tasks: int = 256
    """Tasks that send at once."""
    calling_threads: int = 64
    """Threads likewise."""
    calling_seconds: float = 0.2
    """How long they do."""
    most_connections: int = 16
    """In a pool."""
    many: int = 100_000
    """Notifications in one transaction."""
    streamed: int = 1_000_000
    """Notifications in a row without an end."""
    typed: int = 10_000
    """Notifications on a channel that has a type."""
    large: int = 1 << 20
    """Bytes of a long payload."""
    stream_rounds: int = 3
    """How many of the rounds include streams."""
    disks: Sequence[str] = (SLOW, AS_IT_IS)
    """That streams are appended to."""
    appending_tasks: Mapping[int, Sequence[int]] = field(
        default_factory=lambda: {1: (16,), 16: (16,), 256: (16, 64), 2000: (64,)}
    )
    """Tasks that append at once, and the numbers of connections that others try for them."""
    appending_threads: Mapping[int, Sequence[int]] = field(default_factory=lambda: {16: (16,), 256: (16, 64)})
    """Threads likewise."""
    arriving: Mapping[int, float] = field(default_factory=lambda: {100: 1.0, 5000: 0.5})
    """Appends per second, and for how many seconds."""
    stored: int = 1_000_000
    """Entries in a long stream."""
    stored_too: tuple[int, ...] = ()
    """In longer ones."""
    hour_seconds: float = 360.0
    """How long the hour takes in which tables grow."""
    serving_rounds: int = 2
    """How many of the rounds include the web gateway."""
    served_bursts: Mapping[int, int] = field(default_factory=lambda: {100: 2500, 1000: 300, 10_000: 30})
    """Messages without a pause, by the number of clients that get each."""
    served_steadily: tuple[int, ...] = (100, 1000, 5000)
    """Clients to whom messages go at a steady rate."""
    served_seconds: float = 4.0
    """For how long they do."""


@dataclass(frozen=True)
class Ground:
    """Where it takes place."""

    dsn: str
    sender: Sender
    effort: Effort
    to_the_end: ExitStack
    """Closed after the last round."""
    _kept: dict[object, Any] = field(default_factory=dict)

    def keep(self, makes: Sequence[Callable[[], L]]) -> list[L]:
        """What they make, started when first asked for, all at the same time, and closed after the last round."""
        new = {make: make() for make in makes if make not in self._kept}
        for make, lasting in new.items():
            self._kept[make] = lasting
            self.to_the_end.callback(lasting.close)
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda lasting: lasting.start(), new.values()))
        return [cast(L, self._kept[make]) for make in makes]

    def database(self, name: str) -> AbstractContextManager[str]:
        """See the function."""
        return database(self.dsn, name)


@contextmanager
def database(server: str, name: str) -> Iterator[str]:
    """The DSN of a new database, where nobody is woken by others' notifications. `server` is the DSN of another."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield make_conninfo(server, dbname=name)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
