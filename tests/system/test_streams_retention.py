"""Streams that are trimmed while many write and read: nothing that a reader has not got is removed in silence."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from functools import partial
from time import sleep
from typing import Self

import pytest

import pgpubsub.streams
from pgpubsub.testing import TemporaryServer
from tests.system.streams import SECONDS, SEED, Follower, Kind, Writers, connect, until

STREAMS = ("first", "second")


class Trimming:
    """Trims all the time, in two threads that get in each other's way, and puts an upper bound to what is kept."""

    def __init__(self, dsn: str) -> None:
        self.removed = 0
        self._dsn = dsn
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(2)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        with connect(self._dsn) as conn:
            while not self._end.wait(0.01):
                self.removed += pgpubsub.streams.trim(conn)


class Sluggish(Follower):
    """Is slow to take what there is, every now and then."""

    slow = 0.02

    def _take(self, event: object, position: str) -> None:
        if self._random.random() < self.slow:
            sleep(self._random.uniform(0, 0.6))
        super()._take(event, position)


def has_all(follower: Follower) -> bool:
    return "the end" in follower.payloads or follower.error is not None


def told(follower: Follower) -> str:
    return f"the end, but {follower.payloads[-3:]} with {follower.readers} readers, {follower.error!r}"


class Brisk(Sluggish):
    """Is not."""

    slow = 0.0


@pytest.mark.timeout(SECONDS + 120)
def test_readers_are_told_exactly_where_they_missed_something(
    stream_server: TemporaryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"PGPUBSUB_STREAMS_SEED={SEED}")
    monkeypatch.setattr("pgpubsub.streams.steps.ROWS", 40)
    monkeypatch.setattr("pgpubsub.streams.inbox.FEW", 5)
    dsn = stream_server.dsn()
    kinds: tuple[Kind, ...] = ("Hub", "AsyncHub")
    with ExitStack() as stack, connect(dsn) as admin:
        pgpubsub.streams.create(admin, "first", max_entries=60)
        pgpubsub.streams.create(admin, "second", max_age=0.3)
        kinds_of: tuple[type[Sluggish], ...] = (Brisk, Sluggish)
        followers = {
            stream: [
                stack.enter_context(kind_of(dsn, stream, kind=kind, stops=stops, seed=SEED + stops, poll_interval=0.2))
                for kind_of in kinds_of
                for kind, stops in zip(kinds, (0, 100), strict=True)
            ]
            for stream in STREAMS
        }
        with Trimming(dsn) as trimming, Writers(dsn, STREAMS, seed=SEED) as writers:
            writers.write_for(SECONDS)
        assert trimming.removed > 100
        pgpubsub.streams.create(admin, "second", max_age=None)  # or the hubs go on with it
        last = {stream: pgpubsub.append(admin, stream, "the end") for stream in STREAMS}
        gaps = 0
        for stream, some in followers.items():
            committed = {fact.id for fact in writers.committed(stream).values()} | {last[stream]}
            for follower in some:
                until(partial(has_all, follower), partial(told, follower))
                found = [entry.id for entry in follower.entries]
                assert len(found) == len(set(found)), "delivered twice"
                assert set(found) <= committed
                assert set(follower.gaps) <= {"trimmed"}
                print(stream, len(committed), len(found), len(follower.gaps))
                if committed - set(found):
                    assert follower.gaps, "lost in silence"
                else:
                    assert not follower.gaps, "a false alarm"
                gaps += len(follower.gaps)
        assert gaps > 0
