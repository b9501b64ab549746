"""The process that sends. A channel that is full is tried again a little later, as the specification has it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from time import monotonic_ns
from typing import Any

from bench.child import Pipe
from bench.layers.post import GROUP, PATIENCE, Order, Sent, message
from bench.layers.ways import Settings, open_layer

__all__ = ["send"]

LATER = 0.005
"""Seconds."""


def send(settings: Settings, pipe: Pipe) -> None:
    """Carry out one order after the other."""
    with suppress(EOFError):  # this is the end
        asyncio.run(_send(settings, pipe))


async def _send(settings: Settings, pipe: Pipe) -> None:
    layer = open_layer(settings)
    while True:
        order = await asyncio.to_thread(pipe.recv)
        pipe.send(await _Sending(layer, order).carry_out())


class _Sending:
    def __init__(self, layer: Any, order: Order) -> None:
        self._layer = layer
        self._order = order
        self._numbers = count()
        self._sent = Sent(monotonic_ns())

    async def carry_out(self) -> Sent:
        order = self._order
        works = [self._at_a_rate(order.rate)] if order.rate else [self._again_and_again() for _ in range(order.tasks)]
        try:
            async with asyncio.timeout(order.seconds + PATIENCE):
                await asyncio.gather(*works)
        except TimeoutError:
            self._sent.errors.append(f"sending took more than {PATIENCE:g} s longer than it was to")
        return self._sent

    async def _again_and_again(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._order.seconds
        while loop.time() < end:
            await self._one()

    async def _at_a_rate(self, rate: int) -> None:
        loop = asyncio.get_running_loop()
        start, tasks = loop.time(), []
        for index in range(round(rate * self._order.seconds)):
            if (pause := start + index / rate - loop.time()) > 0:
                await asyncio.sleep(pause)
            tasks.append(loop.create_task(self._one()))
        await asyncio.gather(*tasks)

    async def _one(self) -> None:
        from channels.exceptions import ChannelFull

        self._sent.tried += 1
        what = message(self._order.turn, next(self._numbers))
        while True:
            try:
                if self._order.channel is None:
                    await self._layer.group_send(GROUP, what)
                else:
                    await self._layer.send(self._order.channel, what)
            except ChannelFull:
                await asyncio.sleep(LATER)
            except Exception as error:
                self._sent.errors.append(repr(error))
                return
            else:
                self._sent.count += 1
                return
