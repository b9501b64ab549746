"""One connection through a `Proxy`: its two directions, and the faults that they meet."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Literal, Protocol

__all__ = ["Address", "CountTrap", "Direction", "Faults", "Link", "PatternTrap", "Trap"]

Direction = Literal["to_client", "to_server"]
Address = tuple[socket.AddressFamily, Any]

PIECE = 65536
"""Bytes taken at a time."""

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class CutShort(Exception):
    """The client has got its last byte."""


class Unanswered(Exception):
    """The server has got its last byte, and the client shall not hear what it says to that."""


class Trap(Protocol):
    """Waits for the connection at which its moment comes, and is then used up."""

    def spring(self, link: Link, data: bytes) -> tuple[bytes, Exception] | None:
        """What of `data` is forwarded still, and how the connection ends; `None` when the moment has not come."""


class CountTrap:
    """After so many bytes."""

    def __init__(self, count: int) -> None:
        self._left: defaultdict[Link, int] = defaultdict(lambda: count)

    def spring(self, link: Link, data: bytes) -> tuple[bytes, Exception] | None:
        left = self._left[link]
        self._left[link] -= len(data)
        return (data[:left], CutShort()) if len(data) >= left else None


class PatternTrap:
    """At certain bytes, which may come in several pieces."""

    def __init__(self, pattern: bytes, *, forward: bool) -> None:
        self._pattern = pattern
        self._forward = forward
        self._tails: defaultdict[Link, bytes] = defaultdict(bytes)

    def spring(self, link: Link, data: bytes) -> tuple[bytes, Exception] | None:
        tail = self._tails[link]
        place = (tail + data).find(self._pattern)
        if place < 0:
            self._tails[link] = (tail + data)[-len(self._pattern) :]
            return None
        if self._forward:
            return data, Unanswered()
        return data[: max(0, place - len(tail))], ConnectionAbortedError()


class Faults:
    """What all connections of a proxy have to look out for. Used in the thread of its loop only."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.traps: dict[Direction, Trap] = {}
        self._changed = asyncio.Event()

    def on_changed(self) -> None:
        """Have everybody who waits look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until_changed(self, deadline: float | None) -> None:
        """Returns at the deadline at the latest, in the loop's time."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._changed.wait()

    def spring_trap(self, direction: Direction, link: Link, data: bytes) -> tuple[bytes, Exception | None]:
        trap = self.traps.get(direction)
        sprung = trap.spring(link, data) if trap else None
        if sprung is None:
            return data, None
        del self.traps[direction]
        return sprung


class Link:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(
        self,
        client: socket.socket,
        addresses: Iterable[Address],
        faults: Faults,
        deaf: Iterable[Direction],
    ) -> None:
        self.deaf = set(deaf)
        self._client = _prepared(client)
        self._server: socket.socket | None = None
        self._faults = faults
        self._loop = asyncio.get_running_loop()
        self.task = self._loop.create_task(self._run(addresses))

    @property
    def connected(self) -> bool:
        """Whether the client is connected, as far as we know."""
        return self._client.fileno() >= 0

    def reset(self) -> None:
        """Send a TCP reset to those who are still connected. The task has to have ended, or be about to."""
        _reset(self._client)
        if self._server is not None:
            _reset(self._server)

    async def _run(self, addresses: Iterable[Address]) -> None:
        try:
            await self._until_open("to_server")
            server = await self._connect(addresses)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._forward("to_client", server, self._client))
                both.create_task(self._forward("to_server", self._client, server))
            self._client.close()
            server.close()
        except* CutShort:
            self._end_stream()
        except* Unanswered:
            await self._hear_the_server_out()
        except* OSError:
            pass
        finally:
            self.reset()

    async def _connect(self, addresses: Iterable[Address]) -> socket.socket:
        for family, address in addresses:
            self._server = _prepared(socket.socket(family))
            try:
                await self._loop.sock_connect(self._server, address)
            except OSError:
                self._server.close()
            else:
                return self._server
        raise ConnectionRefusedError

    async def _forward(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        """Until the source ends its stream. Through a deaf direction nobody hears of that, nor of a failure."""
        data = b"more"
        while data:
            try:
                data = await self._loop.sock_recv(source, PIECE)
            except OSError:
                await self._until_open(direction)
                raise
            arrived = self._loop.time()
            await self._until_open(direction, arrived)
            allowed, ending = self._faults.spring_trap(direction, self, data)
            if isinstance(ending, Unanswered):
                self.deaf.add("to_client")
            try:
                if data:
                    await self._send(direction, sink, allowed, arrived)
                else:
                    sink.shutdown(socket.SHUT_WR)
            except OSError:
                await self._until_open("to_client" if direction == "to_server" else "to_server")
                raise
            if ending:
                raise ending

    async def _send(self, direction: Direction, sink: socket.socket, data: bytes, arrived: float) -> None:
        while data:
            try:
                data = data[sink.send(data) :]
            except BlockingIOError:
                await self._until_writable(sink)
                await self._until_open(direction, arrived)

    async def _until_open(self, direction: Direction, arrived: float = 0.0) -> None:
        """Wait until what came at `arrived`, in the loop's time, may go on."""
        while (deaf := direction in self.deaf) or self._loop.time() < arrived + self._faults.delay:
            await self._faults.until_changed(None if deaf else arrived + self._faults.delay)

    async def _until_writable(self, sink: socket.socket) -> None:
        writable = asyncio.Event()
        self._loop.add_writer(sink, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(sink)

    def _end_stream(self) -> None:
        with suppress(OSError):  # there is nothing more
            while self._client.recv(PIECE):
                pass  # closing with something unread would be a reset, which may overtake what the client is to read
        self._client.close()

    async def _hear_the_server_out(self) -> None:
        """Reset the client; the server has time to do what it was told and sees an orderly end."""
        _reset(self._client)
        assert self._server is not None
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(self._server, PIECE):
                pass


def _prepared(end: socket.socket) -> socket.socket:
    end.setblocking(False)
    if end.family != socket.AF_UNIX:
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return end


def _reset(end: socket.socket) -> None:
    if end.fileno() >= 0:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        end.close()
