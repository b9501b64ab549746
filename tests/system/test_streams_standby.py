"""Streams read from hot standbys: as complete and causal as on the primary, however far behind they are."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import Entry, Hub
from pgpubsub.streams.session import Session
from pgpubsub.testing import TemporaryServer
from tests.system.commits import be_synchronous
from tests.system.standby import Standby
from tests.system.streams import (
    SECONDS,
    SEED,
    Follower,
    Writers,
    append,
    connect,
    one,
    payloads,
    read_all,
    until,
)

MakeStandby = Callable[..., Standby]

QUICK: dict[str, Any] = {"poll_interval": 0.05}


class Stumbling:
    """A standby stops replaying every now and then."""

    def __init__(self, standby: Standby) -> None:
        self._standby = standby
        self._random = random.Random(SEED)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._random.uniform(0, 0.3)):
            self._standby.pause()
            self._end.wait(self._random.uniform(0, 0.3))
            self._standby.resume()


def followers_of(
    stack: ExitStack, primary: str, standby: str, streams: tuple[str, ...], count: int = 2
) -> dict[str, list[Follower]]:
    return {
        stream: [
            stack.enter_context(
                Follower(
                    primary,
                    stream,
                    kind="AsyncHub" if number else "Hub",
                    stops=number * 30,
                    seed=SEED,
                    read_conninfo=standby,
                    **QUICK,
                )
            )
            for number in range(count)
        ]
        for stream in streams
    }


@pytest.mark.timeout(SECONDS + 120)
def test_a_standby_has_everything_once_and_in_order_while_writers_write(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    print(f"PGPUBSUB_STREAMS_SEED={SEED}")
    standby, streams = make_stream_standby(), ("first", "quiet")
    with ExitStack() as stack, connect(stream_server.dsn()) as admin, psycopg.connect(stream_server.dsn()) as long:
        for stream in streams:
            pgpubsub.append(long, stream, "open all along")
        followers = followers_of(stack, stream_server.dsn(), standby.dsn(), streams)
        writers = Writers(stream_server.dsn(), streams, ("quiet",), seed=SEED, count=16)
        with writers, Stumbling(standby):
            writers.write_for(SECONDS)
        print(writers.told)
        for stream, some in followers.items():
            for follower in some:
                follower.until(len(writers.committed(stream)))
                writers.check(stream, follower.events, admin)
        with Follower(stream_server.dsn(), "first", after=pgpubsub.END, read_conninfo=standby.dsn(), **QUICK) as late:
            long.commit()
            late.until(1)
            assert late.payloads == ["open all along"], "END was before it"
        for stream, some in followers.items():
            for follower in some:
                follower.until(len(writers.committed(stream)) + 1)
                assert follower.payloads[-1] == "open all along"


def test_many_readers_of_a_standby_share_their_connections(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement may go over another of them, and only the first over each asks about all transactions."""
    standby = make_stream_standby()
    asked: list[bool] = []
    rows = Session.rows

    async def note(self: Session, statement: str, parameters: Any = None) -> Any:
        if parameters and "known" in parameters:
            asked.append(parameters["start"] is None)
        return await rows(self, statement, parameters)

    monkeypatch.setattr(Session, "rows", note)
    with Hub(stream_server.dsn()) as hub, ExitStack() as stack:
        some = [hub.stream("s", read_conninfo=standby.dsn(), **QUICK) for _ in range(12)]
        readers = [stack.enter_context(stream.read()) for stream in some]
        for number in range(5):
            some[0].append(str(number))
            assert payloads([reader.get(timeout=20) for reader in readers]) == [str(number)] * len(readers)
        until(lambda: len(asked) > 300)
        assert 1 < reading_backends(standby) <= 4
        assert sum(asked) <= len(readers) * 4


def reading_backends(standby: Standby) -> int:
    with connect(standby.dsn()) as admin:
        return int(one(admin, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub read%%'"))


def test_a_token_goes_to_a_standby_that_lags_and_back(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    standby = make_stream_standby()
    with connect(stream_server.dsn()) as admin:
        append(admin, "s", "1", "2")
        standby.catch_up()
        standby.pause()
        append(admin, "s", "3", "4")
        here = read_all(stream_server.dsn(), "s")
        token = here[2].position  # type: ignore[union-attr]  # in the midst of a transaction
        with Hub(stream_server.dsn()) as hub:
            stream = hub.stream("s", read_conninfo=standby.dsn(), **QUICK)
            with stream.read(after=token) as waiting, pytest.raises(TimeoutError):
                waiting.get(timeout=0.3)
        with Follower(
            stream_server.dsn(), "s", after=pgpubsub.BEGINNING, read_conninfo=standby.dsn(), **QUICK
        ) as behind:
            behind.until(2)
            old = behind.tokens[0]
            assert payloads(read_all(stream_server.dsn(), "s", old)) == ["2", "3", "4"]
            standby.resume()
            behind.until(4)
            assert behind.payloads == ["1", "2", "3", "4"]
            for token in [*behind.tokens, *(event.position for event in here if isinstance(event, Entry))]:
                assert payloads(read_all(stream_server.dsn(), "s", token)) == payloads(
                    read_all(stream_server.dsn(), "s", token, read_conninfo=standby.dsn())
                )
            assert payloads(read_all(stream_server.dsn(), "s", behind.tokens[2])) == ["4"]


def test_a_standby_that_has_part_of_a_batch_is_asked_again_at_leisure(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry with the highest transaction id is there, and another one of the same batch is not."""
    standby = make_stream_standby()
    asked = 0
    rows = Session.rows

    async def count(self: Session, *arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return await rows(self, *arguments)

    with connect(stream_server.dsn()) as admin, psycopg.connect(stream_server.dsn()) as other:
        pgpubsub.append(other, "s", "first")
        pgpubsub.append(other, "s", "second")
        append(admin, "s", "newest")
        standby.catch_up()
        standby.pause()
        other.commit()
        batch = read_all(stream_server.dsn(), "s")
        assert payloads(batch) == ["first", "second", "newest"]
        token = batch[0].position  # type: ignore[union-attr]
        monkeypatch.setattr(Session, "rows", count)
        with Follower(stream_server.dsn(), "s", after=token, read_conninfo=standby.dsn(), **QUICK) as follower:
            begun = monotonic()
            until(lambda: monotonic() > begun + 1)  # in which it looks twenty times
            assert asked < 100
            assert follower.events == []
            standby.resume()
            follower.until(2)
            assert follower.payloads == ["second", "newest"]


def test_a_promotion_in_the_midst_loses_nothing(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    standby, streams = make_stream_standby(), ("first", "quiet")
    hosts = f"host=127.0.0.1,127.0.0.1 port={stream_server.port},{standby.server.port} user=postgres dbname=postgres"
    primary = f"{hosts} target_session_attrs=read-write"
    with ExitStack() as stack, connect(stream_server.dsn()) as admin:
        be_synchronous(admin)
        with psycopg.connect(stream_server.dsn()) as preparing:
            pgpubsub.append(preparing, "quiet", "prepared")
            preparing.execute("PREPARE TRANSACTION 'open'")
        with Writers(stream_server.dsn(), streams, ("quiet",), seed=SEED, count=8) as writers:
            followers = followers_of(stack, primary, standby.dsn(), streams)
            writers.write_for(1)
        for stream, some in followers.items():
            for follower in some:
                follower.until(len(writers.committed(stream)) // 2)
        stream_server.stop("immediate")
        standby.promote()
        with connect(standby.dsn()) as admin:
            for stream in streams:
                append(admin, stream, "on the new primary")
            for stream, some in followers.items():
                there = [*writers.committed(stream), "on the new primary"]
                for follower in some:
                    follower.until(len(there))
                    assert sorted(follower.payloads) == sorted(there), "the prepared one is not committed"
            admin.execute("COMMIT PREPARED 'open'")
            for follower in followers["quiet"]:
                follower.until(len(there) + 1)
                assert follower.payloads[-1] == "prepared"


def test_standbys_of_different_lag_behind_one_address(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    quick, slow = make_stream_standby(), make_stream_standby()
    turn = iter(range(10**6))

    def address() -> str:
        return (quick, slow)[next(turn) % 2].dsn()

    with ExitStack() as stack, Hub(stream_server.dsn()) as hub, connect(stream_server.dsn()) as admin:
        stream = hub.stream("s", read_conninfo=address, **QUICK)
        readers = [stack.enter_context(stream.read()) for _ in range(8)]
        got: list[list[Any]] = [[] for _ in readers]
        for number in range(10):
            append(admin, "s", str(number))
            if number % 5 == 2:
                slow.pause()
            if number % 5 == 4:
                slow.resume()
                for reader, events in zip(readers, got, strict=True):
                    while len(events) <= number:
                        events.append(reader.get(timeout=60))
                with connect(quick.dsn()) as there:
                    there.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name LIKE 'pgpubsub read%'"
                    )
        assert [payloads(events) for events in got] == [[str(number) for number in range(10)]] * len(got)


def test_what_retention_has_removed_is_missing_there_too_and_it_is_said(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    """A standby that has not got as far knows nothing of it yet, and still has the entries."""
    standby = make_stream_standby()
    primary = stream_server.dsn()
    with connect(primary) as admin, Hub(primary) as hub:
        stream = hub.stream("first", read_conninfo=standby.dsn(), **QUICK)
        append(admin, "first", "a", "b")
        append(admin, "first", "c")
        with stream.read() as reader:
            entries: list[Any] = [reader.get(60) for _ in range(3)]
            assert payloads(entries) == ["a", "b", "c"]
            standby.pause()
            pgpubsub.streams.create(admin, "first", max_age=0.000001)
            assert pgpubsub.streams.trim(admin, "first") == 3
            pgpubsub.streams.create(admin, "first", max_age=None)
            append(admin, "first", "d")
            with stream.read(entries[0].position) as other:
                assert payloads([other.get(60), other.get(60)]) == ["b", "c"]
                standby.resume()
                assert payloads([other.get(60)]) == ["d"]
            assert payloads([reader.get(60)]) == ["d"]
        for number, expected in ((0, ["trimmed", "d"]), (1, ["trimmed", "d"]), (2, ["d"])):
            with stream.read(entries[number].position) as again:
                assert payloads([again.get(60) for _ in expected]) == expected
        with hub.stream("first").read(entries[2].position) as again:
            assert payloads([again.get(60)]) == ["d"]
        pgpubsub.streams.create(admin, "first", max_age=0.000001)
        assert pgpubsub.streams.trim(admin, "first") == 1
        until(lambda: read_all(primary, "first", read_conninfo=standby.dsn(), **QUICK) == [])
        with stream.read(pgpubsub.END) as again:
            append(admin, "first", "e")
            assert payloads([again.get(60)]) == ["e"]
