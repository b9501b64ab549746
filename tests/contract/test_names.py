"""A program may use ever new channels: what was once the name of one is not remembered for ever."""

from __future__ import annotations

import gc

from pgpubsub import Hub
from pgpubsub.drivers.psycopg3_loop import Psycopg3LoopConnection

ROUNDS, CHANNELS = 8, 200


def test_names_of_channels_that_were_left_do_not_pile_up(dsn: str) -> None:
    with Hub(dsn) as hub:
        for number in range(ROUNDS):
            names = [f"of round {number}: {channel}" for channel in range(CHANNELS)]
            with hub.subscribe(*names) as events:
                hub.notify_many([(name, "") for name in names])
                assert [events.get(5).channel for _ in names] == names  # type: ignore[union-attr]
        assert most_names() < ROUNDS * CHANNELS / 2


def most_names() -> int:
    """That a connection remembers."""
    return max(len(its._wire._channels) for its in gc.get_objects() if type(its) is Psycopg3LoopConnection)
