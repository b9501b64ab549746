"""Where the processes of each channel layer are, through all rounds: one that sends, and four that receive."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Any

from bench.child import Pipe, child
from bench.ground import Ground, database
from bench.layers.post import Arrival, Order, Received, Sent
from bench.layers.receiver import receive
from bench.layers.sender import send
from bench.layers.server import redis
from bench.layers.ways import Way

__all__ = ["CHANNELS", "RECEIVERS", "Stage", "Turn", "yard"]

RECEIVERS = 4
CHANNELS = 100
"""Of all receivers together."""

LONGEST = 60
"""Seconds that a process may take for anything."""


@dataclass(frozen=True)
class Turn:
    """What became of what was sent."""

    sent: Sent
    expected: int
    """Messages that should arrive, in all channels together, whether or not the channel layer took them."""
    arrivals: list[Arrival]


class Stage:
    """The processes of one channel layer."""

    def __init__(self, name: str, sender: Pipe, receivers: list[Pipe], channels: list[list[str]]) -> None:
        self._name = name
        self._sender = sender
        self._receivers = receivers
        self._channels = channels
        self._turns = count()

    def to_one(self, **order: Any) -> Turn:
        """Send to one channel of one process."""
        return self._turn(Order(next(self._turns), channel=self._channels[0][0], **order), self._receivers[:1], 1)

    def to_group(self, **order: Any) -> Turn:
        """Send to the group of all channels."""
        return self._turn(Order(next(self._turns), **order), self._receivers, CHANNELS // RECEIVERS)

    def _turn(self, order: Order, receivers: list[Pipe], times: int) -> Turn:
        self._sender.send(order)
        sent: Sent = _reply(self._sender)
        for pipe in receivers:
            pipe.send((order.turn, sent.count * times))
        all_received: list[Received] = [_reply(pipe) for pipe in receivers]
        arrivals = [arrival for received in all_received for arrival in received.arrivals]
        errors = [*sent.errors, *(error for received in all_received for error in received.errors)]
        for error, number in Counter(errors).items():
            print(f"{self._name}, {number} times: {error}", file=sys.stderr)
        return Turn(sent, sent.tried * times * len(receivers), arrivals)


def _reply(pipe: Pipe) -> Any:
    if not pipe.poll(LONGEST):
        raise TimeoutError(f"a process has not answered within {LONGEST} s")
    return pipe.recv()


class Yard:
    """See the module."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._stack = ExitStack()
        self._stages: dict[Way, Stage] = {}
        self._redis: int | None = None

    def start(self) -> None:
        """Nothing is there until somebody asks for it."""

    def close(self) -> None:
        self._stack.close()

    def database(self, name: str) -> str:
        return self._stack.enter_context(database(self._server, name))

    def redis(self) -> int:
        if self._redis is None:
            self._redis = self._stack.enter_context(redis())
        return self._redis

    def stage(self, way: Way) -> Stage:
        """That of a channel layer, which has been used a little."""
        if way not in self._stages:
            self._stages[way] = stage = self._open(way)
            stage.to_one(seconds=0.2, tasks=50)
            stage.to_group(seconds=0.2)
        return self._stages[way]

    def _open(self, way: Way) -> Stage:
        settings, enter = way(self), self._stack.enter_context
        receivers = [enter(child(receive, settings, CHANNELS // RECEIVERS)) for _ in range(RECEIVERS)]
        sender = enter(child(send, settings))
        name = settings["CHANNEL_LAYERS"]["default"]["BACKEND"]
        return Stage(name, sender, receivers, [_reply(pipe) for pipe in receivers])


def yard(ground: Ground) -> Yard:
    """The one there is."""
    return ground.keep([_yard(ground.dsn)])[0]


@cache
def _yard(server: str) -> Callable[[], Yard]:
    return partial(Yard, server)
