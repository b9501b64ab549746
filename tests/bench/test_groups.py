"""The clock of the part about groups runs while members handle, and not while they begin."""

from time import sleep
from typing import Any

from bench.groups.crew import Post
from bench.groups.ways import BY_HAND, Way
from bench.groups.yard import Yard
from bench.peers import tables
from pgpubsub.testing import TemporaryServer

BEGINS = 1.0
"""Seconds that the member below takes for its first entry."""


def begin_slowly(post: Post) -> None:
    begun = False

    def handle(connection: Any, batch: int, handler: Any) -> int:
        nonlocal begun
        number = tables.lock_rows(connection, batch, handler)
        if number and not begun:
            begun = True
            sleep(BEGINS)
        return number

    tables.work(post, handle=handle)


def nothing(*_: object) -> Any:
    raise AssertionError("it is not called here")


def test_what_a_member_does_at_first_is_not_in_its_rate() -> None:
    way = Way(BY_HAND, begin_slowly, nothing, nothing)
    with TemporaryServer(tcp=True) as server:
        yard = Yard(server.dsn(), 1)
        try:
            yard.start()
            dsn = yard.dsn("slow")
            assert 100 / yard.turn(way, dsn, 1, 100, 100, clear=True) < BEGINS
        finally:
            yard.close()
