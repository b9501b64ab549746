"""A connection of our own that is lost: it comes back, and says what may be missing."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ConnectionLost, Gap, GapReason, Notify, PubSub, SendUncertain
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.conftest import BROUGHT, connect_with
from tests.contract.test_handler import in_thread
from tests.contract.test_pubsub import terminate
from tests.system.standby import restart_as_standby

CLOCKS = timedelta(milliseconds=50)
"""By which a time may be told too early: two clocks are read one after the other, and others work in between."""


def lose(pubsub: PubSub, admin: psycopg.Connection[Any]) -> None:
    terminate(admin, pubsub.backend_pid)


def next_gap(pubsub: PubSub, seconds: float = 20) -> Gap:
    event = pubsub.get_event(seconds, yield_gaps=True)
    assert isinstance(event, Gap), event
    return event


def test_a_terminated_backend_is_replaced_and_one_gap_tells(
    dsn: str, admin: psycopg.Connection[Any], new_channel: Callable[[], str]
) -> None:
    one, other = sorted([new_channel(), new_channel()])
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(one)
        pubsub.listen(other)
        before, old_pid = datetime.now(UTC), pubsub.backend_pid
        pubsub.get_events()
        admin.execute("SELECT pg_notify(%s, 'before')", [one])
        assert select.select([pubsub], [], [], 20)[0]  # a backend that is told both at once sends nothing and ends
        lose(pubsub, admin)
        assert pubsub.get_event(20, yield_gaps=True) == Notify(admin.info.backend_pid, one, "before")
        assert pubsub.backend_pid == old_pid
        gap = next_gap(pubsub)
        assert (gap.reason, gap.channels, gap.count) == (GapReason.CONNECTION_LOST, (one, other), None)
        assert before - CLOCKS <= gap.since <= datetime.now(UTC)
        assert "terminating connection due to administrator command" in gap.detail
        admin.execute("SELECT pg_notify(%s, 'after')", [other])
        assert pubsub.get_event(20, yield_gaps=True) == Notify(admin.info.backend_pid, other, "after")
        assert pubsub.gaps == 1
        assert pubsub.backend_pid == pubsub.conn.get_backend_pid() != old_pid
        pubsub.notify(one, "ours")
        assert pubsub.get_event(20) == (pubsub.backend_pid, one, "ours")


def test_a_gap_comes_when_the_channels_are_live_and_not_before(
    dsn: str, admin: psycopg.Connection[Any], channel: str
) -> None:
    """Whatever is sent once the gap was seen arrives, every time."""
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        for number in range(6):  # the delays grow
            lose(pubsub, admin)
            next_gap(pubsub)
            admin.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
            event = pubsub.get_event(20, yield_gaps=True)
            assert isinstance(event, Notify)
            assert event.payload == str(number)
        assert pubsub.gaps == 6


@pytest.mark.parametrize("method", ["get_event", "get_events", "events"])
def test_a_gap_that_nobody_asked_for_is_logged_and_counted(
    dsn: str, admin: psycopg.Connection[Any], channel: str, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        lose(pubsub, admin)
        sent = in_thread(lambda: notify_after(admin, channel, lambda: pubsub.gaps == 1))
        if method == "events":
            event = next(iter(pubsub.events()))
        else:
            result: Any = getattr(pubsub, method)(20)
            event = result[0] if method == "get_events" else result
        assert event.payload == "after"
        sent.join()
    warnings = [record for record in caplog.records if record.name == "pgpubsub.gap"]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert channel in warnings[0].getMessage()


def notify_after(admin: psycopg.Connection[Any], channel: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        threading.Event().wait(0.001)
    admin.execute("SELECT pg_notify(%s, 'after')", [channel])


def test_gaps_are_yielded_where_they_are_asked_for(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        events = pubsub.events(yield_gaps=True)
        lose(pubsub, admin)
        assert isinstance(next(events), Gap)
        lose(pubsub, admin)
        assert [type(event) for event in pubsub.get_events(20, yield_gaps=True)] == [Gap]


def test_whoever_listened_to_nothing_missed_nothing(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        lose(pubsub, admin)
        pubsub.listen(channel)
        pubsub.notify(channel, "x")
        assert [type(event) for event in pubsub.get_events(20, yield_gaps=True)] == [Notify]
        assert pubsub.gaps == 0


def test_a_restarted_server_is_found_again(server: TemporaryServer, channel: str) -> None:
    with pgpubsub.connect(server.dsn()) as pubsub:
        pubsub.listen(channel)
        for mode in ("fast", "immediate"):
            server.restart(mode)
            next_gap(pubsub)
            pubsub.notify(channel, "x")
            assert len(pubsub.get_events(20)) == 1


def test_a_reset_connection_is_replaced(
    server: TemporaryServer, make_proxy: Callable[[TemporaryServer], Proxy], channel: str
) -> None:
    proxy = make_proxy(server)
    with pgpubsub.connect(proxy.dsn()) as pubsub:
        pubsub.listen(channel)
        for _ in range(3):
            proxy.reset()
            next_gap(pubsub)
        assert pubsub.gaps == 3


def test_timeouts_hold_while_the_server_is_away(server: TemporaryServer, channel: str) -> None:
    with pgpubsub.connect(server.dsn()) as pubsub:
        pubsub.listen(channel)
        server.stop()
        started = time.monotonic()
        assert pubsub.get_event(0.5, yield_gaps=True) is None
        events = pubsub.events(select_timeout=0.3, yield_timeouts=True, yield_gaps=True)
        assert [next(events), next(events)] == [None, None]
        assert 1.1 <= time.monotonic() - started < 5
        assert pubsub.fileno() == -1
        server.start()
        assert isinstance(next(event for event in events if event is not None), Gap)


def test_timeouts_hold_while_nobody_answers(
    server: TemporaryServer, make_proxy: Callable[[TemporaryServer], Proxy], channel: str
) -> None:
    """The attempt to connect goes on from call to call, however short each of them waits."""
    proxy = make_proxy(server)
    with pgpubsub.connect(proxy.dsn(connect_timeout=2)) as pubsub:
        pubsub.listen(channel)
        proxy.deafen()
        proxy.reset()
        started = time.monotonic()
        assert pubsub.get_event(0.3, yield_gaps=True) is None
        assert pubsub.get_event(yield_gaps=True) is None
        assert 0.3 <= time.monotonic() - started < 2
        proxy.hear()
        gap = None
        while gap is None:
            gap = pubsub.get_event(0.01, yield_gaps=True)
            assert time.monotonic() - started < 30
        assert isinstance(gap, Gap)


def test_a_frozen_server_does_not_hold_up_the_caller(server: TemporaryServer, channel: str) -> None:
    with pgpubsub.connect(server.dsn(connect_timeout=2)) as pubsub:
        pubsub.listen(channel)
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            lose(pubsub, admin)
        os.kill(server.pid, signal.SIGSTOP)
        started = time.monotonic()
        assert pubsub.get_event(0.3, yield_gaps=True) is None
        assert time.monotonic() - started < 5
        os.kill(server.pid, signal.SIGCONT)
        next_gap(pubsub)


def test_a_pure_poller_recovers_too(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        lose(pubsub, admin)
        deadline = time.monotonic() + 20
        event = None
        while event is None:
            started = time.monotonic()
            event = pubsub.get_event(yield_gaps=True)
            assert time.monotonic() - started < 10
            assert started < deadline
        assert isinstance(event, Gap)


def test_a_pure_sender_recovers_too(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    admin.execute(f'LISTEN "{channel}"')
    with pgpubsub.connect(dsn) as pubsub:
        lose(pubsub, admin)
        pubsub.notify(channel, "x")
    assert [notify.payload for notify in admin.notifies(timeout=5, stop_after=1)] == ["x"]


def test_while_the_server_is_away_sending_and_listening_say_so(server: TemporaryServer, channel: str) -> None:
    with pgpubsub.connect(server.dsn()) as pubsub:
        pubsub.listen(channel)
        server.stop()
        for _ in range(2):
            with pytest.raises(ConnectionLost, match=r"not connected to PostgreSQL, next attempt in \d+\.\d s: "):
                pubsub.notify(channel, "x")
            with pytest.raises(ConnectionLost, match="not connected"):
                pubsub.listen("another")
        assert pubsub.channels == {channel}
        with pytest.raises(ConnectionLost, match="refused"):
            pubsub.notify(channel)
        pubsub.unlisten(channel)
        assert pubsub.channels == frozenset()
        server.start()
        deadline = time.monotonic() + 20
        while True:
            try:
                pubsub.listen("another")
                break
            except ConnectionLost:
                assert time.monotonic() < deadline
                pubsub.get_event(0.05)
        pubsub.notify("another", "x")
        assert [type(event) for event in pubsub.get_events(5, yield_gaps=True)] == [Notify]


def test_a_send_that_breaks_in_flight_raises_and_is_not_repeated(
    server: TemporaryServer, make_proxy: Callable[[TemporaryServer], Proxy], channel: str
) -> None:
    proxy = make_proxy(server)
    with pgpubsub.connect(server.dsn()) as receiver, pgpubsub.connect(proxy.dsn()) as sender:
        receiver.listen(channel)
        proxy.break_after(b"in flight")
        with pytest.raises(SendUncertain, match="may or may not have been sent, and is not repeated") as caught:
            sender.notify(channel, "in flight")
        assert isinstance(caught.value, ConnectionLost)
        sender.notify(channel, "the next one")
        payloads: list[str] = []
        while len(payloads) < 2:
            payloads += [event.payload for event in receiver.get_events(20)]
        assert sorted(payloads) == ["in flight", "the next one"]


def test_attempts_come_at_growing_intervals(
    server: TemporaryServer, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pgpubsub.connect(server.dsn()) as pubsub:
        pubsub.listen(channel)
        server.stop()
        assert pubsub.get_event(2) is None
        failures = [record for record in caplog.records if "reconnection failed" in record.getMessage()]
        assert 4 <= len(failures) <= 7  # at about 0, 0.08, 0.2, 0.5, 1.1 seconds


def test_without_reconnection_a_loss_is_final(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with pgpubsub.connect(dsn, reconnect=False) as pubsub:
        pubsub.listen(channel)
        lose(pubsub, admin)
        for _ in range(3):
            with pytest.raises(ConnectionLost, match="terminating connection due to administrator command"):
                pubsub.get_event(20)
        with pytest.raises(ConnectionLost):
            pubsub.notify(channel)
        with pytest.raises(ConnectionLost):
            pubsub.fileno()


@pytest.mark.parametrize("driver", BROUGHT)
def test_any_driver_reconnects_when_it_is_told_how(
    dsn: str, admin: psycopg.Connection[Any], channel: str, driver: str
) -> None:
    def open_connection() -> Any:
        return connect_with(driver, dsn)

    with PubSub(open_connection(), reopen=open_connection) as pubsub:
        pubsub.listen(channel)
        old_pid = pubsub.backend_pid
        lose(pubsub, admin)
        next_gap(pubsub)
        assert pubsub.backend_pid != old_pid
        pubsub.notify(channel, "x")
        assert pubsub.get_event(5) == (pubsub.backend_pid, channel, "x")


def test_the_descriptor_follows_the_reconnection(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        lose(pubsub, admin)
        assert select.select([pubsub], [], [], 20)[0] == [pubsub]
        next_gap(pubsub)
        admin.execute("SELECT pg_notify(%s, 'x')", [channel])
        assert select.select([pubsub], [], [], 20)[0] == [pubsub]
        assert len(pubsub.get_events()) == 1


def test_a_server_that_comes_back_as_a_standby_is_tried_until_it_is_promoted(
    server: TemporaryServer, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pgpubsub.connect(server.dsn()) as pubsub:
        pubsub.listen(channel)
        restart_as_standby(server)
        assert pubsub.get_event(0.5, yield_gaps=True) is None
        assert any("in recovery" in record.getMessage() for record in caplog.records)
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        next_gap(pubsub)


def test_closing_ends_an_attempt_to_reconnect(
    server: TemporaryServer, make_proxy: Callable[[TemporaryServer], Proxy], channel: str
) -> None:
    proxy = make_proxy(server)
    pubsub = pgpubsub.connect(proxy.dsn())
    pubsub.listen(channel)
    proxy.deafen()
    proxy.reset()
    thread = in_thread(lambda: list(pubsub.events()))
    while pubsub.fileno() != -1:
        threading.Event().wait(0.001)
    pubsub.close()
    thread.join(5)
    assert not thread.is_alive()


def test_a_loss_that_only_the_driver_has_noticed_has_no_descriptor(
    dsn: str, admin: psycopg.Connection[Any], channel: str
) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(channel)
        lose(pubsub, admin)
        with pytest.raises(psycopg.OperationalError):
            pubsub.conn.execute("SELECT 1")
        assert pubsub.fileno() == -1
        next_gap(pubsub)
        assert pubsub.fileno() >= 0
