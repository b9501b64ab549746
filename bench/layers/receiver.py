"""A process that receives: a task for each channel, which does what consumers do, and notes when something came.

Channels are entered one after the other, each only when a message to the one before has come.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from time import monotonic_ns
from typing import Any

from bench.child import Pipe
from bench.layers.post import GROUP, PATIENCE, Arrival, Received, distinct, message
from bench.layers.ways import Settings, open_layer

__all__ = ["receive"]

ENTERING = -1
"""In place of the number of a turn."""

AGAIN = 1.0
"""Seconds after which a message to a new channel is sent again."""

LOOK = 0.01
"""Seconds between two looks whether all has come; when it came is known exactly."""


def receive(settings: Settings, channels: int, pipe: Pipe) -> None:
    """Enter so many channels and tell their names; then tell of each turn, when asked, what came."""
    with suppress(EOFError):  # this is the end
        asyncio.run(_receive(settings, channels, pipe))


async def _receive(settings: Settings, channels: int, pipe: Pipe) -> None:
    consumers = _Consumers(open_layer(settings))
    pipe.send([await consumers.enter(place) for place in range(channels)])
    while True:
        turn, expected = await asyncio.to_thread(pipe.recv)
        pipe.send(await consumers.received(turn, expected))


class _Consumers:
    def __init__(self, layer: Any) -> None:
        self._layer = layer
        self._arrivals: defaultdict[int, list[Arrival]] = defaultdict(list)
        self._errors: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def enter(self, place: int) -> str:
        channel: str = await self._layer.new_channel()
        self._tasks.append(asyncio.get_running_loop().create_task(self._consume(place, channel)))
        await self._layer.group_add(GROUP, channel)
        while not any(arrival.place == place for arrival in self._arrivals[ENTERING]):
            await self._layer.send(channel, message(ENTERING, place))
            with suppress(TimeoutError):
                async with asyncio.timeout(AGAIN):
                    while not any(arrival.place == place for arrival in self._arrivals[ENTERING]):
                        await asyncio.sleep(LOOK)
        return channel

    async def _consume(self, place: int, channel: str) -> None:
        while True:
            try:
                got = await self._layer.receive(channel)
            except Exception as error:
                self._errors.append(repr(error))
                await asyncio.sleep(LOOK)
                continue
            self._arrivals[got["turn"]].append(Arrival(place, got["number"], got["sent"], monotonic_ns()))

    async def received(self, turn: int, expected: int) -> Received:
        """As many as are expected, or what has come when nothing came for a while; and what was raised so far."""
        found = self._arrivals[turn]
        loop = asyncio.get_running_loop()
        before, since = len(found), loop.time()
        while len(found) < expected and loop.time() < since + PATIENCE:
            await asyncio.sleep(LOOK)
            if len(found) > before:
                before, since = len(found), loop.time()
        errors, self._errors = self._errors, []
        return Received(distinct(self._arrivals.pop(turn, [])), errors)
