"""Streams with many writers at the same time, and readers that stop and resume: complete, causal, unblocked.

A failure names its seed, although threads and servers repeat nothing exactly; PGPUBSUB_STREAMS_SECONDS=120 has the
writers write for longer.
"""

from __future__ import annotations

from contextlib import ExitStack

import psycopg
import pytest

import pgpubsub
from pgpubsub.testing import TemporaryServer
from tests.system.streams import SECONDS, SEED, Follower, Kind, Writers, connect, until

STREAMS = ("first", "second", "quiet")


@pytest.mark.timeout(SECONDS + 120)
def test_readers_that_stop_and_resume_get_everything_once_and_in_order(stream_server: TemporaryServer) -> None:
    dsn = stream_server.dsn()
    print(f"PGPUBSUB_STREAMS_SEED={SEED}")
    followers: dict[str, list[Follower]] = {}
    kinds: tuple[Kind, ...] = ("Hub", "AsyncHub")
    with ExitStack() as stack, connect(dsn) as admin, psycopg.connect(dsn) as open_all_along:
        for stream in STREAMS:
            pgpubsub.append(open_all_along, stream, "open all along")
        for number, stream in enumerate(STREAMS):
            followers[stream] = [
                stack.enter_context(
                    Follower(dsn, stream, kind=kind, stops=stops, seed=SEED + number, poll_interval=0.2)
                )
                for kind, stops in ((kinds[number % 2], 200), (kinds[(number + 1) % 2], 30), ("AsyncHub", 0))
            ]
        with Writers(dsn, STREAMS, ("quiet",), seed=SEED) as writers:
            writers.write_for(SECONDS)
        print(writers.told)
        for stream, some in followers.items():
            for follower in some:
                follower.until(len(writers.committed(stream)))
                writers.check(stream, follower.events, admin)
        late = [stack.enter_context(Follower(dsn, stream, after=pgpubsub.END)) for stream in STREAMS]
        open_all_along.commit()
        for stream, some in followers.items():
            for follower in some:
                follower.until(len(writers.committed(stream)) + 1)
                assert follower.payloads[-1] == "open all along"
        for follower in late:
            follower.until(1)
            assert follower.payloads == ["open all along"], "END was before it"
        restless = [follower for some in followers.values() for follower in some[:2]]
        until(lambda: all(follower.readers > 5 for follower in restless))
        for stream, some in followers.items():
            assert [len(follower.events) for follower in some] == [len(writers.committed(stream)) + 1] * len(some)
