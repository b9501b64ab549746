"""Where it is sent: a database, and one who listens there, in a process of its own, and counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from select import select

import psycopg

from bench.child import Pipe, child
from bench.contestants import Publisher
from bench.ground import CHANNEL, Ground, database
from bench.hub import turns

__all__ = ["PAYLOAD_SIZE", "Audience", "audience", "publish"]

PAYLOAD_SIZE = 40

PATIENCE = 60
"""Seconds that the listener may take for what has been sent to it."""

END = f"{CHANNEL}_end"
"""The channel on which the listener is asked for the number of those that it has."""


class Audience:
    """See the module."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._stack = ExitStack()

    def start(self) -> None:
        """Return when somebody listens."""
        self.dsn = self._stack.enter_context(database(self._server, "sending"))
        self._pipe = self._stack.enter_context(child(_listen, self.dsn))
        assert self._pipe.recv() == "listening"
        self._connection = self._stack.enter_context(psycopg.connect(self.dsn, autocommit=True))

    def close(self) -> None:
        """End it."""
        self._stack.close()

    def expect(self, count: int) -> None:
        """Wait until the listener has everything. Raise unless `count` have come since the last time."""
        self._connection.execute(f"NOTIFY {END}".encode())
        if not self._pipe.poll(PATIENCE):
            raise TimeoutError(f"the listener still reads after {PATIENCE} s")
        arrived = self._pipe.recv()
        assert arrived == count, f"{count} notifications were sent and {arrived} arrived"


def audience(ground: Ground) -> Audience:
    """The one audience, through all rounds."""
    return ground.keep([_on(ground.dsn)])[0]


def publish(make: Callable[[], Publisher], ground: Ground) -> list[int]:
    """`hub.turns.publish` before the audience."""
    listeners, effort = audience(ground), ground.effort
    took = turns.publish(make, replace(ground, dsn=listeners.dsn), PAYLOAD_SIZE)
    listeners.expect(effort.warm_up_samples + effort.samples)
    return took


@cache
def _on(server: str) -> Callable[[], Audience]:
    return partial(Audience, server)


def _listen(dsn: str, pipe: Pipe) -> None:
    count, end = 0, END.encode()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"LISTEN {CHANNEL}; LISTEN {END}".encode())
        pgconn = connection.pgconn
        pgconn.notify_handler = None
        pipe.send("listening")
        while True:
            select((pgconn.socket,), (), ())
            pgconn.consume_input()
            while record := pgconn.notifies():
                if record.relname == end:
                    pipe.send(count)
                    count = 0
                else:
                    count += 1
