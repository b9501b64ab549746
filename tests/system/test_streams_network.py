"""Streams when the network fails, the server is frozen or restarted, or a pooler stands between."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from time import monotonic
from typing import Any, Literal

import psycopg
import pytest

import pgpubsub
from pgpubsub import Hub
from pgpubsub.groups import membership
from pgpubsub.streams import source
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.faces import PATIENCE, Worker
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.processes import with_children
from tests.system.standby import restart_as_standby
from tests.system.streams import (
    SEED,
    Follower,
    Kind,
    Writers,
    append,
    connect,
    one,
    payloads,
    read_all,
    save,
    set_back,
    stored,
    until,
)
from tests.system.test_hub_server_faults import frozen

QUICK: dict[str, Any] = {"poll_interval": 0.1}

MakePgBouncer = Callable[[TemporaryServer, PoolMode], PgBouncer]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is given up after a second, and not a minute."""
    monkeypatch.setattr(source, "ANSWER", 1.0)


def reading_pids(server: TemporaryServer) -> list[int]:
    with connect(server.dsn()) as admin:
        found = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub read%'")
        return [pid for (pid,) in found]


@pytest.mark.parametrize("kind", ["Hub", "AsyncHub"])
def test_connections_that_break_lose_nothing(stream_server: TemporaryServer, kind: Kind) -> None:
    """In the midst of an answer, before and after a question, and all of a sudden."""
    with (
        Proxy(stream_server.dsn()) as proxy,
        connect(stream_server.dsn()) as admin,
        Follower(stream_server.dsn(), "s", kind=kind, read_conninfo=proxy.dsn(), **QUICK) as live,
        Follower(stream_server.dsn(), "s", kind=kind, stops=20, read_conninfo=proxy.dsn(), **QUICK) as restless,
    ):
        faults: list[Callable[[], object]] = [
            proxy.reset,
            lambda: proxy.cut_after(0),
            lambda: proxy.cut_after(200),
            lambda: proxy.cut_after(3000),
            lambda: proxy.cut_before(b"pg_snapshot_xip"),
            lambda: proxy.break_after(b"pg_snapshot_xip"),
        ]
        count = 0
        for fault in faults * 2:
            fault()
            for _ in range(20):
                append(admin, "s", str(count))
                count += 1
            live.until(count)
        restless.until(count)
        assert live.payloads == restless.payloads == [str(number) for number in range(count)]


def test_reading_connections_that_fall_silent_are_given_up(stream_server: TemporaryServer, impatient: None) -> None:
    """Half open ones, in either direction or both, and those of backends that are frozen."""
    with ExitStack() as stack:
        admin = stack.enter_context(connect(stream_server.dsn()))
        follow = partial(Follower, stream_server.dsn(), "s", poll_interval=0.1)
        frozen_ones = [stack.enter_context(follow()), stack.enter_context(follow(kind="AsyncHub"))]
        pids = reading_pids(stream_server)
        proxies = [stack.enter_context(Proxy(stream_server.dsn(connect_timeout=1))) for _ in range(3)]
        half_open = [stack.enter_context(follow(read_conninfo=proxy.dsn())) for proxy in proxies]
        append(admin, "s", "0")
        for follower in [*frozen_ones, *half_open]:
            follower.until(1)
        directions: list[Literal["to_client", "to_server", "both"]] = ["to_client", "to_server", "both"]
        for proxy, direction in zip(proxies, directions, strict=True):
            proxy.deafen(direction)
        with frozen(*pids):
            append(admin, "s", "1")
            for proxy in proxies:
                proxy.hear()  # for those that come now
            append(admin, "s", "2")
            for follower in [*frozen_ones, *half_open]:
                follower.until(3)
        append(admin, "s", "3")
        for follower in [*frozen_ones, *half_open]:
            follower.until(4)
            assert follower.payloads == ["0", "1", "2", "3"]


def test_readers_go_on_at_once_when_the_way_to_the_server_was_lost(stream_server: TemporaryServer) -> None:
    """Without a word, and there is a new one: the connections from before are of no use, whatever they do."""
    with (
        Proxy(stream_server.dsn(connect_timeout=2)) as proxy,
        connect(stream_server.dsn()) as admin,
        ExitStack() as stack,
    ):
        hub = {"heartbeat": 0.5, "heartbeat_timeout": 0.5}
        followers = [
            stack.enter_context(Follower(proxy.dsn(), "s", hub=hub, kind=kind, poll_interval=60))
            for kind in ("Hub", "AsyncHub")
            for _ in range(2)
        ]
        append(admin, "s", "0")
        for follower in followers:
            follower.until(1)
        proxy.deafen()
        proxy.hear()  # for those that come now
        append(admin, "s", "1")
        begun = monotonic()
        for follower in followers:
            follower.until(2)
        assert monotonic() - begun < source.ANSWER / 2


@contextmanager
def slow_pages(admin: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Each takes that long, on a server that lives."""
    with admin.transaction():
        admin.execute("ALTER TABLE pgpubsub.trimmed RENAME TO trimmed_at_once")
        admin.execute(f"""
            CREATE VIEW pgpubsub.trimmed AS
            SELECT known.* FROM pg_sleep({seconds}) LEFT JOIN pgpubsub.trimmed_at_once AS known ON true""")
    try:
        yield
    finally:
        with admin.transaction():
            admin.execute("DROP VIEW pgpubsub.trimmed")
            admin.execute("ALTER TABLE pgpubsub.trimmed_at_once RENAME TO trimmed")


def test_slow_pages_come_to_their_end_although_the_hub_loses_its_connection_all_the_time(
    stream_server: TemporaryServer,
) -> None:
    """What waits may wait in vain then, and is asked anew, but not again and again."""
    seconds = 3
    with connect(stream_server.dsn()) as admin:
        append(admin, "s", "0")
        with slow_pages(admin, seconds), Follower(stream_server.dsn(), "s", poll_interval=60) as live:
            begun = monotonic()
            while not live.events:
                admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
                assert monotonic() - begun < 5 * seconds, "it comes to nothing"
                threading.Event().wait(0.1)  # for the hub to come back
            assert live.payloads == ["0"]


@pytest.mark.since_postgresql(17)
def test_a_page_whose_connection_the_server_ends_is_asked_for_again(stream_server: TemporaryServer) -> None:
    """Whatever it has against it: here, a limit of transactions."""
    with connect(stream_server.dsn()) as admin:
        append(admin, "s", "0")
        admin.execute("CREATE ROLE hasty SUPERUSER LOGIN")
        admin.execute("ALTER ROLE hasty SET transaction_timeout = '1s'")
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'hasty'"
        try:
            with (
                slow_pages(admin, 2),
                Follower(stream_server.dsn(), "s", read_conninfo=stream_server.dsn(user="hasty")) as live,
            ):
                until(lambda: one(admin, sessions) > 0)
                admin.execute("ALTER ROLE hasty RESET transaction_timeout")
                until(lambda: one(admin, sessions) == 0, "its end")
                live.until(1)
                assert live.payloads == ["0"]
        finally:
            until(lambda: one(admin, sessions) == 0)
            admin.execute("DROP ROLE hasty")


def test_a_member_of_a_group_goes_on_at_once_when_the_way_to_the_server_was_lost(
    stream_server: TemporaryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its connection had nothing to do just then, so that nobody broke it off."""
    monkeypatch.setattr(membership, "PROOF", 1.0)
    with (
        Proxy(stream_server.dsn(connect_timeout=2)) as proxy,
        connect(stream_server.dsn()) as admin,
        Hub(proxy.dsn(), heartbeat=0.5, heartbeat_timeout=0.5) as hub,
        hub.stream("s").consume("billing", lease=60) as consumer,
    ):
        for number in range(5):  # at different times of what it does by itself
            append(admin, "s", f"{number}, before")
            with consumer.get(timeout=PATIENCE):
                pass
            proxy.deafen()
            proxy.hear()  # for those that come now
            append(admin, "s", f"{number}, after")
            begun = monotonic()
            with consumer.get(timeout=2 * membership.ANSWER) as delivery:
                assert delivery.payload == f"{number}, after"
            assert monotonic() - begun < membership.ANSWER / 2


def test_a_frozen_server_is_waited_for(stream_server: TemporaryServer, impatient: None) -> None:
    with (
        connect(stream_server.dsn()) as admin,
        Follower(stream_server.dsn(), "s", hub={"connect_timeout": 2}, **QUICK) as live,
        Hub(stream_server.dsn(connect_timeout=2), send_timeout=60) as hub,
    ):
        stream = hub.stream("s")
        stream.append("0")
        live.until(1)
        with frozen(*with_children(stream_server.pid)):
            appending = Worker(lambda: stream.append("1", idempotency_key="1"))
            begun = monotonic()
            until(lambda: monotonic() > begun + 1.5)  # readers have given up to wait for an answer
            assert live.payloads == ["0"]
        assert isinstance(appending.outcome(), int)
        append(admin, "s", "2")
        live.until(3)
        assert live.payloads == ["0", "1", "2"]


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_restarts_while_hubs_read_and_append(
    stream_server: TemporaryServer, mode: Literal["fast", "immediate"]
) -> None:
    """Each append is repeated, by an idempotency key, until it is certain."""
    dsn = stream_server.dsn()
    end = threading.Event()
    appended: list[list[str]] = [[] for _ in range(4)]

    def append_all_along(hub: Hub, number: int) -> None:
        stream, count = hub.stream("s"), 0
        while not end.is_set():
            text = f"{number}.{count}"
            try:
                stream.append(text, idempotency_key=text)
            except (pgpubsub.SendUncertain, pgpubsub.SendTimeout):
                continue
            appended[number].append(text)
            count += 1

    with (
        Hub(dsn) as hub,
        Follower(dsn, "s", **QUICK) as live,
        Follower(dsn, "s", kind="AsyncHub", stops=30, seed=SEED, **QUICK) as restless,
    ):
        workers = [Worker(lambda number=number: append_all_along(hub, number)) for number in range(4)]  # type: ignore[misc]
        for round_ in range(2):
            until(lambda: all(len(texts) > 20 * (round_ + 1) for texts in appended))  # noqa: B023
            stream_server.restart(mode)
            count = len(appended[0])
            until(lambda: len(appended[0]) > count)  # noqa: B023
        end.set()
        assert [worker.outcome() for worker in workers] == [None] * 4
        with connect(dsn) as admin:
            there = stored(admin, "s")
        assert sorted(there) == sorted(text for texts in appended for text in texts)
        for follower in (live, restless):
            follower.until(len(there))
            assert sorted(follower.payloads) == sorted(there)
            for texts in appended:
                assert [text for text in follower.payloads if text in set(texts)] == texts


def test_a_first_append_in_the_middle_of_a_failover_is_not_the_end_of_the_hub(stream_server: TemporaryServer) -> None:
    seen: list[pgpubsub.Observation] = []
    with Hub(stream_server.dsn(), observe=seen.append) as hub:
        restart_as_standby(stream_server)
        until(lambda: isinstance(hub.state.error, pgpubsub.ServerInRecovery))
        waiting = Worker(lambda: hub.stream("s").append("1"))
        until(lambda: ("appending", "connect_failed") in [(one.link, one.name) for one in seen])
        with connect(stream_server.dsn()) as admin:
            admin.execute("SELECT pg_promote()")
            outcome = waiting.outcome()
            assert not isinstance(outcome, Exception), outcome
            assert stored(admin, "s") == ["1"]


@contextmanager
def in_the_midst_of_reading(hub: Hub, server: TemporaryServer, conninfo: str) -> Iterator[None]:
    """The server is frozen while readers of the hub wait for it."""
    readers = [hub.stream("s", read_conninfo=conninfo, **QUICK).read() for _ in range(3)]
    for reader in readers:
        reader.__enter__()
    stop, cont = signal.SIGSTOP, signal.SIGCONT
    pids = with_children(server.pid)
    for pid in pids:
        os.kill(pid, stop)
    try:
        threading.Event().wait(0.5)  # they look meanwhile, and get no answer
        yield
    finally:
        for pid in pids:
            os.kill(pid, cont)


def test_a_hub_is_closed_although_the_server_is_frozen(stream_server: TemporaryServer) -> None:
    before = set(reading_pids(stream_server))
    hub = Hub(stream_server.dsn())
    hub.wait_until_live()
    hub.stream("s").append("0")
    with in_the_midst_of_reading(hub, stream_server, stream_server.dsn()):
        begun = monotonic()
        hub.close(1)
        assert monotonic() - begun < 20
    until(lambda: before.issuperset(reading_pids(stream_server)))


# -- PgBouncer


def test_a_transaction_pool_is_read_from_and_appended_to(
    stream_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(stream_server, "transaction")
    streams = ("s", "quiet")
    with connect(stream_server.dsn()) as admin:
        follow = partial(Follower, stream_server.dsn(), seed=SEED, poll_interval=0.1, read_conninfo=pooler.dsn())
        followers = [follow("s"), follow("s", kind="AsyncHub", stops=30), follow("quiet", stops=50)]
        with (
            followers[0],
            followers[1],
            followers[2],
            Writers(
                stream_server.dsn(),
                streams,
                ("quiet",),
                seed=SEED,
                count=12,
                hub={"notify_conninfo": pooler.dsn()},
            ) as writers,
        ):
            writers.write_for(1.5)
            for stream, follower in zip(("s", "s", "quiet"), followers, strict=True):
                follower.until(len(writers.committed(stream)))
                writers.check(stream, follower.events, admin)


def test_a_role_writes_times_in_a_style_of_its_own_behind_a_pool_too(
    stream_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    with connect(stream_server.dsn()) as admin:
        admin.execute("ALTER ROLE postgres SET datestyle = 'SQL, DMY'")
        pooler = make_pgbouncer(stream_server, "transaction")
        with Follower(stream_server.dsn(), "s", read_conninfo=pooler.dsn(), poll_interval=0.1) as live:
            append(admin, "s", "0")
            live.until(1)
        with psycopg.connect(pooler.dsn(), autocommit=True) as other:
            assert one(other, "SHOW datestyle") == "SQL, DMY"
        admin.execute("ALTER ROLE postgres RESET datestyle")


def test_why_reading_was_interrupted_is_told_behind_a_pool_too(
    stream_server: TemporaryServer, make_pgbouncer: MakePgBouncer, caplog: pytest.LogCaptureFixture
) -> None:
    pooler = make_pgbouncer(stream_server, "transaction")
    with (
        connect(stream_server.dsn()) as admin,
        slow_pages(admin, 0.5),
        Follower(stream_server.dsn(), "s", read_conninfo=pooler.dsn(), poll_interval=0.1) as live,
    ):
        until(
            lambda: one(
                admin,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE state = 'active' AND query ~ 'trimmed' AND pid <> pg_backend_pid()",
            )
        )
        append(admin, "s", "0")
        live.until(1)
    told = [
        record.getMessage()
        for record in caplog.records
        if record.levelname == "WARNING" and "stream" in record.__dict__
    ]
    assert told
    assert all("administrator command" in one or "server conn crashed" in one for one in told), told


def test_a_pool_does_not_hide_that_the_server_was_set_back(
    stream_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    """The reader's connection stays: it is the pool's that is replaced."""
    pooler = make_pgbouncer(stream_server, "transaction")
    with connect(stream_server.dsn()) as admin:
        append(admin, "s", "0")
    copy = save(stream_server)
    with Follower(stream_server.dsn(), "s", read_conninfo=pooler.dsn(), poll_interval=10) as live:
        live.until(1)
        with connect(stream_server.dsn()) as admin:
            for number in range(1, 5):
                append(admin, "s", str(number))
        live.until(5)
        set_back(stream_server, copy)
        with connect(stream_server.dsn()) as admin:
            news = [f"new {number}" for number in range(12)]
            for text in news:
                append(admin, "s", text)
        live.until(5 + 1 + 12)
        assert live.payloads == ["0", "1", "2", "3", "4", "rewound", *news]
        assert payloads(read_all(stream_server.dsn(), "s", read_conninfo=pooler.dsn())) == ["0", *news]
