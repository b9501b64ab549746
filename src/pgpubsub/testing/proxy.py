"""A TCP proxy before a PostgreSQL server that makes the faults of a network, for tests.

A thread of its own does all the work, and whatever a method is asked for has taken effect when it returns. It shares
the process: it stands still in a call that waits for an answer and keeps the global interpreter lock meanwhile.

It does not promise to be the network: the operating system acknowledges what the proxy does not forward. So TCP
keepalives and `tcp_user_timeout` notice nothing of a deaf proxy, which is the fault that only a heartbeat finds.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgpubsub.testing.forwarding import Address, CountTrap, Direction, Faults, Link, PatternTrap, Trap
from pgpubsub.testing.supervisor import hold_port

__all__ = ["Proxy"]

T = TypeVar("T")

HERE = "127.0.0.1"


class Proxy:
    """Forwards bytes between its clients and a server until told otherwise.

    Args:
        dsn: where the server is, with a single `host`, which may be the directory of a Unix socket. Everything else in
            it is handed on by `Proxy.dsn()`.

    >>> with Proxy(dsn) as proxy, pgpubsub.connect(proxy.dsn()) as pubsub:
    ...     pubsub.listen("channel")
    ...     proxy.reset()
    ...     pubsub.get_event(20, yield_gaps=True).reason
    <GapReason.CONNECTION_LOST: 'connection_lost'>

    `cut_after`, `cut_before` and `break_after` concern one connection, the first that comes to that point, and only
    what is forwarded from the call on. One of them at a time is in force for each direction, the latest.
    """

    def __init__(self, dsn: str) -> None:
        self._parameters = conninfo_to_dict(dsn)
        self._addresses = _addresses(self._parameters)
        self._faults = Faults()
        self._deaf: set[Direction] = set()  # what new connections begin with
        self._links: set[Link] = set()
        self._listening: socket.socket | None = None
        self._port_holder = hold_port()
        self.port: int = self._port_holder.getsockname()[1]
        self._loop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pgpubsub-proxy", daemon=True)
        self._thread.start()
        self.accept()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def dsn(self, **keywords: str | int | None) -> str:
        """The server's connection string, by way of the proxy; `keywords` are libpq's."""
        here: dict[str, Any] = {"host": HERE, "hostaddr": None, "port": self.port}
        return make_conninfo(**{**self._parameters, **here, **keywords})

    @property
    def connections(self) -> int:
        """How many clients are connected, as far as the proxy knows: while it is deaf it does not see them leave."""
        return self._do(self._count())

    @property
    def delay(self) -> float:
        """Seconds that each piece waits before it is forwarded, 0 by default. What comes in the meantime waits behind
        it and is one piece. A new value goes for what is waiting too."""
        return self._faults.delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._do(self._set_delay(seconds))

    def deafen(self, direction: Literal["to_client", "to_server", "both"] = "both") -> None:
        """Half open: all stays connected, nothing is forwarded, and neither end is told that the other has gone.

        New connections are accepted and treated alike; they do not reach the server unless `direction` is "to_client".
        """
        self._do(self._deafen({"to_client", "to_server"} if direction == "both" else {direction}))

    def hear(self, *, resume: bool = False) -> None:
        """End deafness for new connections. Those from before stay deaf for good, as after a real partition that has
        outlasted them; `resume=True` lets them go on with all that was sent to them, and nothing is missing."""
        self._do(self._hear(resume))

    def refuse(self) -> None:
        """Refuse new connections. The present ones stay."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Accept new connections again, on the same port."""
        self._do(self._accept())

    def reset(self) -> None:
        """Break all connections with a TCP reset, at both ends, which discards what is under way."""
        self._do(self._reset())

    def cut_after(self, count: int) -> None:
        """End a connection as soon as its client has got `count` more bytes; with 0, as soon as anything comes.

        The client reads exactly those, the last message perhaps in part, and then the end of the stream.
        """
        if count < 0:
            raise ValueError(f"count is a number of bytes, 0 or more, not {count}")
        self._do(self._set_trap("to_client", CountTrap(count)))

    def cut_before(self, pattern: bytes) -> None:
        """Reset a connection when its client sends `pattern`; the server gets what was before it and not this."""
        self._do(self._set_trap("to_server", PatternTrap(pattern, forward=False)))

    def break_after(self, pattern: bytes) -> None:
        """Reset a connection when its client sends `pattern`, and before it hears the answer.

        The server gets it, with all that came in one piece (of up to 64 KiB), and does what it was told.
        """
        self._do(self._set_trap("to_server", PatternTrap(pattern, forward=True)))

    def spare(self) -> bool:
        """Take back `cut_after`, `cut_before` and `break_after`. Returns whether any of them had not struck."""
        return self._do(self._spare())

    def close(self) -> None:
        """Reset all connections and refuse new ones, for good. May be repeated."""
        if not self._loop.is_closed():
            self._do(self._refuse())
            self._do(self._reset())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._port_holder.close()

    # -- in the thread

    def _do(self, operation: Coroutine[Any, Any, T]) -> T:
        """Have the thread do it, and wait until it has."""

        async def do() -> T:
            self._take_in()  # who has connected before is concerned too
            result = await operation
            self._faults.on_changed()
            return result

        if self._loop.is_closed():
            operation.close()
            raise RuntimeError("the proxy is closed")
        return asyncio.run_coroutine_threadsafe(do(), self._loop).result()

    def _take_in(self) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            while self._listening is not None:
                client, _ = self._listening.accept()
                link = Link(client, self._addresses, self._faults, self._deaf)
                self._links.add(link)
                link.task.add_done_callback(lambda _, link=link: self._links.discard(link))  # type: ignore[misc]

    async def _count(self) -> int:
        return sum(link.connected for link in self._links)

    async def _set_delay(self, seconds: float) -> None:
        self._faults.delay = seconds

    async def _set_trap(self, direction: Direction, trap: Trap) -> None:
        self._faults.traps[direction] = trap

    async def _spare(self) -> bool:
        spared = bool(self._faults.traps)
        self._faults.traps.clear()
        return spared

    async def _deafen(self, directions: set[Direction]) -> None:
        for deaf in [self._deaf, *(link.deaf for link in self._links)]:
            deaf |= directions

    async def _hear(self, resume: bool) -> None:
        for deaf in [self._deaf, *(link.deaf for link in self._links if resume)]:
            deaf.clear()

    async def _refuse(self) -> None:
        if self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    async def _accept(self) -> None:
        if self._listening is None:
            self._listening = socket.create_server((HERE, self.port))
            self._listening.setblocking(False)
            self._loop.add_reader(self._listening, self._take_in)

    async def _reset(self) -> None:
        links = list(self._links)
        for link in links:
            link.task.cancel()
        await asyncio.gather(*(link.task for link in links), return_exceptions=True)
        for link in links:
            link.reset()  # whose task had not begun


def _addresses(parameters: Mapping[str, Any]) -> list[Address]:
    host, port = (
        str(parameters.get("hostaddr") or parameters.get("host") or "localhost"),
        parameters.get("port", "5432"),
    )
    if "," in host:
        raise ValueError(f"a proxy stands before one server, not before {host}")
    if host.startswith("/"):
        return [(socket.AF_UNIX, f"{host}/.s.PGSQL.{port}")]
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]
