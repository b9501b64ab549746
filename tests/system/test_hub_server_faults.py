"""Hubs when the server, or one of its backends, is terminated, stopped, frozen or full."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import Gap, GapReason, Hub, HubStatus, Notify, Observation, Subscription
from pgpubsub.testing import TemporaryServer
from tests.system.commits import held_up_commits, is_held_up
from tests.system.processes import with_children

QUICK: dict[str, Any] = {"heartbeat": 0.2, "heartbeat_timeout": 0.4}


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for a condition, with a deadline."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come"
        sleep(0.005)  # between two looks


def text(event: Notify | Gap | None) -> str:
    """The payload of what has to be a notification."""
    assert isinstance(event, Notify), event
    return event.payload


def backend(admin: psycopg.Connection[Any], role: str) -> int:
    """The hub's backend that listens or sends ("listen", "notify")."""
    row = admin.execute(
        "SELECT pid FROM pg_stat_activity WHERE application_name LIKE %s", (f"pgpubsub {role} %",)
    ).fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.fixture
def admin(server: TemporaryServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        yield connection


def test_a_terminated_session_is_replaced_and_each_subscriber_told_once(
    server: TemporaryServer, admin: psycopg.Connection[Any]
) -> None:
    with (
        Hub(server.dsn()) as hub,
        hub.subscribe("a", "b") as two,
        hub.subscribe("a") as one,
        hub.subscribe() as none,
    ):
        for number in range(3):
            admin.execute("SELECT pg_terminate_backend(%s)", (backend(admin, "listen"),))
            for events, channels in ((two, ("a", "b")), (one, ("a",))):
                gap = events.get(timeout=30)
                assert isinstance(gap, Gap)
                assert (gap.reason, gap.channels, gap.count) == (GapReason.CONNECTION_LOST, channels, None)
                assert "administrator" in gap.detail
            hub.notify("a", str(number))
            assert [text(events.get(timeout=30)) for events in (two, one)] == [str(number)] * 2
        assert none.get_nowait() is None
        assert hub.stats().reconnects == 3


def test_the_gap_comes_first_although_others_leave(server: TemporaryServer, admin: psycopg.Connection[Any]) -> None:
    """While they do, there is always something else to tell the server."""
    over = threading.Event()

    def leave(events: Subscription) -> None:
        for number in range(4000):
            if over.wait(0.002):
                break
            events.remove(f"b {number}")

    def send() -> int:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            for number in itertools.count():
                if over.is_set():
                    return number
                conn.execute("SELECT pg_notify('a', %s)", [str(number)])
        raise AssertionError

    others = [f"b {number}" for number in range(4000)]
    with (
        Hub(server.dsn()) as hub,
        hub.subscribe("a", capacity=10**6) as events,
        hub.subscribe(*others) as leaving,
        ThreadPoolExecutor(2) as pool,
    ):
        sending, left = pool.submit(send), pool.submit(leave, leaving)
        try:
            for number in range(5):
                admin.execute("SELECT pg_terminate_backend(%s)", (backend(admin, "listen"),))
                until(lambda: hub.stats().reconnects > number)  # noqa: B023
                received = hub.stats().received
                until(lambda: hub.stats().received > received)  # noqa: B023  # else two gaps become one
        finally:
            over.set()
        left.result()
        last, told, gaps = -1, False, 0
        while last < sending.result() - 1:
            event = events.get(timeout=30)
            if isinstance(event, Gap):
                told, gaps = True, gaps + 1
                continue
            assert told or int(event.payload) == last + 1, "something is missing, and it was not told before"
            last, told = int(event.payload), False
        assert gaps == 5


def test_who_subscribes_during_an_outage_waits_and_has_lost_nothing(server: TemporaryServer) -> None:
    with Hub(server.dsn()) as hub, hub.subscribe("a") as before, ThreadPoolExecutor(2) as pool:
        server.stop()
        until(lambda: not hub.state.live)
        assert "connect" in str(hub.state)
        late = hub.subscribe("a")
        entering = pool.submit(late.__enter__)
        sending = pool.submit(hub.notify, "b", "sent when there is a server again")
        server.start()
        entering.result(timeout=30)
        sending.result(timeout=30)
        assert isinstance(before.get(timeout=30), Gap)
        hub.notify("a", "now")
        for events in (late, before):
            assert text(events.get(timeout=30)) == "now"
        late.close()


def test_without_a_server_what_waits_ends_in_time_and_says_why(server: TemporaryServer) -> None:
    with Hub(server.dsn(), send_timeout=0.3) as hub:
        server.stop()
        until(lambda: not (state := hub.state).live and state.sending_error)
        with pytest.raises(pgpubsub.SendTimeout, match="0.3 s, and will not be: cannot connect"):
            hub.notify("a")
        with pytest.raises(pgpubsub.NotLive, match="could not listen to 'a' within 0.3 s: cannot connect"):
            hub.subscribe("a").__enter__()
        assert hub.stats().subscriptions == ()


def send_for_ever(hub: Hub) -> None:
    while True:
        hub.notify("b")


def test_giving_up_ends_every_iteration_with_an_error(server: TemporaryServer) -> None:
    with Hub(server.dsn(), give_up_after=0.3) as hub, hub.subscribe("a") as events, ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(events.get)
        sending = pool.submit(send_for_ever, hub)
        server.stop()
        for one in (waiting, sending):
            with pytest.raises(pgpubsub.ConnectionLost):
                one.result(timeout=30)
        with pytest.raises(pgpubsub.GaveUp, match="after 0.3 s"):
            next(events)
        with pytest.raises(pgpubsub.GaveUp):
            hub.wait_until_live()
        assert hub.state.status is HubStatus.FAILED


def test_a_frozen_listening_backend_is_found_by_the_heartbeat(
    server: TemporaryServer, admin: psycopg.Connection[Any]
) -> None:
    with Hub(server.dsn(), **QUICK) as hub, hub.subscribe("a") as events:
        with frozen(backend(admin, "listen")):
            gap = events.get(timeout=30)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.HEARTBEAT
            hub.notify("a", "on the new session")
            assert text(events.get(timeout=30)) == "on the new session"
        assert hub.state.live


def test_a_frozen_server_is_found_although_no_heartbeat_can_be_sent(server: TemporaryServer) -> None:
    with Hub(server.dsn(), **QUICK, connect_timeout=2) as hub, hub.subscribe("a") as events:
        with frozen(*with_children(server.pid)):
            until(lambda: not hub.state.live)
            assert events.get_nowait() is None, "a gap before the channels are live again"
        gap = events.get(timeout=30)
        assert isinstance(gap, Gap)
        assert gap.reason is GapReason.HEARTBEAT


def test_a_frozen_sending_backend_costs_the_receiving_side_nothing(
    server: TemporaryServer, admin: psycopg.Connection[Any]
) -> None:
    with Hub(server.dsn(), **QUICK, send_timeout=1.5) as hub, hub.subscribe("a") as events:
        with frozen(backend(admin, "notify")):
            with pytest.raises(
                (pgpubsub.SendUncertain, pgpubsub.SendTimeout), match="sent.*no answer.*1.5 s"
            ) as caught:
                hub.notify("a", "uncertain")
            hub.notify("a", "certain")
            assert text(events.get(timeout=30)) == "certain"
        assert hub.stats().reconnects == 0
        # It was only late, and is not sent twice; or a heartbeat was under way when it froze, and it never went out.
        if isinstance(caught.value, pgpubsub.SendUncertain):
            assert text(events.get(timeout=30)) == "uncertain"
        assert events.get_nowait() is None


def test_a_commit_that_waits_for_a_standby_makes_nobody_look_dead(
    server: TemporaryServer, admin: psycopg.Connection[Any]
) -> None:
    """Whoever waits for a standby holds the lock that every NOTIFY needs."""
    admin.execute("CREATE TABLE t ()")
    seen: list[Observation] = []
    with (
        Hub(server.dsn(), **QUICK, observe=seen.append) as hub,
        hub.subscribe("a") as events,
        psycopg.connect(server.dsn()) as writer,
        ThreadPoolExecutor(1) as pool,
    ):
        with held_up_commits(server.dsn()):
            writer.execute("INSERT INTO t DEFAULT VALUES")
            writer.execute("SELECT pg_notify('a', 'from the writer')")
            pool.submit(writer.commit)
            until(lambda: is_held_up(admin, writer))
            until(lambda: waiting_for_lock(admin, backend(admin, "notify")))
            begun = monotonic()
            until(lambda: monotonic() > begun + 3 * (0.2 * 1.2 + 2 * 0.4))  # what three heartbeats may take
            assert hub.state.live
            assert hub.stats().reconnects == 0
        assert text(events.get(timeout=30)) == "from the writer"
        assert not [one for one in seen if one.name in ("lost", "gap")]


def waiting_for_lock(admin: psycopg.Connection[Any], pid: int) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    return admin.execute(query, (pid,)).fetchone() is not None


def fill(hub: Hub) -> None:
    """Send more than a queue of 64 pages holds."""
    for number in range(1000):
        hub.notify("a", f"{number} {'x' * 7000}")


@pytest.mark.since_postgresql(17)
def test_a_full_notification_queue_is_an_error_of_the_sender_and_of_nobody_else(small_queue: TemporaryServer) -> None:
    dsn = small_queue.dsn()
    with (
        psycopg.connect(dsn) as culprit,
        psycopg.connect(dsn, autocommit=True) as admin,
        Hub(dsn) as hub,
        hub.subscribe("a") as events,
    ):
        culprit.execute("LISTEN a")
        culprit.commit()
        culprit.execute("SELECT 1")  # in a transaction, where it gets nothing and holds up the queue
        with pytest.raises(pgpubsub.ServerRefused) as refused:
            fill(hub)
        assert refused.value.sqlstate == "54000"
        sent = hub.stats().sent
        culprit.rollback()
        until(lambda: usage(admin) == 0)  # which also lets the server forget what everybody has read
        hub.notify("a", "-1")
        received = [events.get(timeout=30) for _ in range(sent + 1)]
        assert [int(text(event).split()[0]) for event in received] == [*range(sent), -1]
        assert hub.stats().reconnects == 0


def usage(admin: psycopg.Connection[Any]) -> float:
    """How full the server's notification queue is, from 0 to 1."""
    row = admin.execute("SELECT pg_notification_queue_usage()").fetchone()
    assert row is not None
    return float(row[0])


def drain(events: Subscription) -> list[Notify | Gap]:
    taken = []
    while (event := events.get_nowait()) is not None:
        taken.append(event)
    return taken


def test_a_subscriber_that_does_not_read_holds_up_neither_the_server_nor_anybody_else(
    server: TemporaryServer, admin: psycopg.Connection[Any]
) -> None:
    batches, batch = 40, 2000
    with (
        Hub(server.dsn()) as hub,
        hub.subscribe("a", capacity=100) as idle,
        hub.subscribe("a", capacity=100, overflow="drop_oldest") as idle_too,
        hub.subscribe("a", capacity=batches * batch) as reader,
    ):
        for number in range(batches):
            admin.execute(
                "SELECT count(pg_notify('a', n || repeat('x', 500))) FROM generate_series(%s::int, %s::int) n",
                (number * batch, (number + 1) * batch - 1),
            )
        received = [reader.get(timeout=30) for _ in range(batches * batch)]
        assert [int(text(event).rstrip("x")) for event in received] == [*range(batches * batch)]
        assert usage(admin) < 0.001
        for events in (idle, idle_too):
            gap, *kept = drain(events)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.OVERFLOW
            assert gap.count is not None
            assert gap.count + len(kept) == batches * batch
            assert 1 <= len(kept) <= 100
            assert [int(text(event).rstrip("x")) for event in kept] == [*range(gap.count, batches * batch)]


def test_two_thousand_subscribers_come_and_go_under_load(server: TemporaryServer) -> None:
    """Everybody who is there gets everything, and the server listens to nothing in the end."""
    stop = threading.Event()

    def load() -> int:
        number = 0
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            while not stop.is_set():
                connection.execute("SELECT pg_notify('all', %s)", (str(number),))
                number += 1
        return number

    def visit(number: int) -> None:
        channel = f"own {number % 300}"  # several share one, and some come while another leaves
        with hub.subscribe(channel, "all") as events:
            hub.notify(channel, str(number))
            while True:
                event = events.get(timeout=30)
                assert isinstance(event, Notify), event
                if event.channel == channel and event.payload == str(number):
                    return

    with Hub(server.dsn()) as hub, hub.subscribe("all", capacity=10**6) as always, ThreadPoolExecutor(60) as pool:
        sending = pool.submit(load)
        try:
            for visitor in [pool.submit(visit, number) for number in range(2000)]:
                visitor.result(timeout=60)
        finally:
            stop.set()
        received = [always.get(timeout=30) for _ in range(sending.result())]
        assert [text(event) for event in received] == [*map(str, range(len(received)))]
        until(lambda: len(hub.stats().subscriptions) == 1)  # closing one does not wait for the hub
        stats = hub.stats()
        assert (stats.gaps, stats.dropped, stats.reconnects) == (0, 0, 0)
