"""Hubs when the network between them and the server fails, or something stands there that should not."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from pgpubsub import Gap, GapReason, Hub, HubStatus, Notify, Observation
from pgpubsub.drivers.psycopg3_dial import SESSION_SETTINGS
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.streams import backends
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.standby import Standby, restart_as_standby
from tests.system.test_hub_server_faults import QUICK, backend, text, until

MakeProxy = Callable[[TemporaryServer], Proxy]
MakePgBouncer = Callable[[TemporaryServer, PoolMode], PgBouncer]
MakeStandby = Callable[[TemporaryServer], Standby]


@pytest.fixture
def proxy(session_server: TemporaryServer, make_proxy: MakeProxy) -> Proxy:
    return make_proxy(session_server)


def reason(event: Notify | Gap | None) -> GapReason:
    """The reason of what has to be a gap."""
    assert isinstance(event, Gap), event
    return event.reason


def terminate_listening(server: TemporaryServer, application_name: str) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        query = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = %s"
        assert admin.execute(query, (application_name,)).fetchone() == (True,)


# -- half-open connections


def test_a_half_open_listening_connection_is_found_and_replaced(session_server: TemporaryServer, proxy: Proxy) -> None:
    with (
        Hub(proxy.dsn(connect_timeout=2), notify_conninfo=session_server.dsn(), **QUICK) as hub,
        hub.subscribe("a") as events,
    ):
        proxy.deafen()
        hub.notify("a", "lost")
        until(lambda: not hub.state.live)
        proxy.hear()
        assert reason(events.get(timeout=30)) is GapReason.HEARTBEAT
        hub.notify("a", "heard")
        assert text(events.get(timeout=30)) == "heard"


@pytest.mark.parametrize("direction", ["to_client", "to_server", "both"])
def test_a_deaf_network_is_found_although_no_heartbeat_can_be_sent(proxy: Proxy, direction: Any) -> None:
    with Hub(proxy.dsn(connect_timeout=1), **QUICK) as hub, hub.subscribe("a") as events:
        proxy.deafen(direction)
        until(lambda: not hub.state.live)
        assert events.get_nowait() is None
        proxy.hear()
        assert reason(events.get(timeout=30)) is GapReason.HEARTBEAT
        hub.notify("a", "heard")
        assert text(events.get(timeout=30)) == "heard"


def test_a_subscription_that_was_asked_for_on_a_deaf_connection_begins_on_the_next(
    session_server: TemporaryServer, proxy: Proxy
) -> None:
    with Hub(proxy.dsn(connect_timeout=2), heartbeat=None, heartbeat_timeout=0.3) as hub, ThreadPoolExecutor(1) as pool:
        proxy.deafen("to_client")
        events = hub.subscribe("a")
        entering = pool.submit(events.__enter__)
        until(lambda: not hub.state.live)
        assert not entering.done()
        proxy.hear()
        entering.result(timeout=30)
        with psycopg.connect(session_server.dsn(), autocommit=True) as sender:
            sender.execute("NOTIFY a, 'heard'")
        assert text(events.get(timeout=30)) == "heard"  # and no gap: nothing was ever lost of it
        events.close()


def test_a_slow_network_makes_nobody_look_dead(proxy: Proxy) -> None:
    seen: list[Observation] = []
    with Hub(proxy.dsn(), heartbeat=0.2, heartbeat_timeout=5, observe=seen.append) as hub, hub.subscribe("a") as events:
        proxy.delay = 0.15
        hub.notify("a", "late")
        assert text(events.get(timeout=30)) == "late"
        until(lambda: sum(one.name == "heartbeat" and (one.seconds or 0) > 0.3 for one in seen) >= 3)
        assert hub.stats().reconnects == 0


def test_a_program_that_stood_still_is_not_mistaken_for_a_dead_connection(session_server: TemporaryServer) -> None:
    """Its loop is blocked for longer than all time-outs, with the heartbeat under way or already there."""
    blocked = threading.Event()

    def block(observation: Observation) -> None:
        if observation.name == "heartbeat" and not blocked.is_set():
            blocked.set()
            threading.Event().wait(3 * QUICK["heartbeat_timeout"] + QUICK["heartbeat"])

    with Hub(session_server.dsn(), **QUICK, observe=block) as hub, hub.subscribe("a") as events:
        until(blocked.is_set)
        hub.notify("a", "1")
        assert text(events.get(timeout=30)) == "1"
        assert hub.stats().reconnects == 0


# -- connections that break


def test_a_reset_while_sending_is_uncertain_and_nothing_is_sent_twice(
    session_server: TemporaryServer, proxy: Proxy
) -> None:
    with (
        Hub(session_server.dsn(), notify_conninfo=proxy.dsn()) as hub,
        hub.subscribe("a") as events,
    ):
        for number in range(5):
            proxy.break_after(f"payload {number}".encode())
            with pytest.raises(pgpubsub.SendUncertain, match="NOTIFY 'a' may or may not have been sent, and is not"):
                hub.notify("a", f"payload {number}")
            hub.notify("a", f"certain {number}")
        with psycopg.connect(session_server.dsn(), autocommit=True) as admin:
            until(lambda: len(backends(admin, "notify")) == 1)  # what the server has read it may do later
        hub.notify("a", "the end")
        received = [text(events.get(timeout=30))]
        while received[-1] != "the end":
            received.append(text(events.get(timeout=30)))
        certain = [one for one in received if "payload" not in one]
        assert certain == [*(f"certain {number}" for number in range(5)), "the end"]
        assert set(Counter(received).values()) == {1}
        assert hub.stats().reconnects == 0


def test_a_reset_while_listening_is_asked_for_loses_no_subscription(
    session_server: TemporaryServer, proxy: Proxy
) -> None:
    with Hub(proxy.dsn(), notify_conninfo=session_server.dsn()) as hub, hub.subscribe("first") as first:
        for fault in (proxy.break_after, proxy.cut_before):
            fault(b'LISTEN "second"')
            with hub.subscribe("second") as second:
                assert reason(first.get(timeout=30)) is GapReason.CONNECTION_LOST
                hub.notify("second", "here")
                assert text(second.get(timeout=30)) == "here"
                assert second.get_nowait() is None


@pytest.mark.parametrize("count", [0, 1, 4, 5, 9, 10, 11, 12, 40, 54, 55, 56, 57, 100])
def test_a_connection_cut_anywhere_in_a_message_garbles_nothing(
    session_server: TemporaryServer, proxy: Proxy, count: int
) -> None:
    whole = [f"{number} {'x' * 40}" for number in range(3)]
    with (
        Hub(proxy.dsn(), notify_conninfo=session_server.dsn()) as hub,
        hub.subscribe("a") as events,
    ):
        proxy.cut_after(count)
        for payload in whole:
            hub.notify("a", payload)
        received = []
        while not isinstance(event := events.get(timeout=30), Gap):
            received.append(event.payload)
        assert [payload for payload in whole if payload in received] == received
        hub.notify("a", "end")
        while text(events.get(timeout=30)) != "end":
            pass


def test_whatever_is_missing_lies_before_a_gap(session_server: TemporaryServer, proxy: Proxy) -> None:
    """Resets without end, under load: each message was received, in order, or a gap came after it was sent."""
    stop = threading.Event()
    seen: list[Observation] = []

    def load() -> int:
        number = 0
        with psycopg.connect(session_server.dsn(), autocommit=True) as sender:
            while not stop.is_set():
                sender.execute("SELECT pg_notify('a', %s)", (str(number),))
                number += 1
            sender.execute("SELECT pg_notify('a', 'end')")
        return number

    with (
        Hub(proxy.dsn(), notify_conninfo=session_server.dsn(), observe=seen.append) as hub,
        hub.subscribe("a", capacity=10**6) as events,
        ThreadPoolExecutor(1) as pool,
    ):
        loading = pool.submit(load)
        for breaks in range(1, 7):
            proxy.reset()
            until(lambda breaks=breaks: sum(one.name == "gap" for one in seen) >= breaks)  # type: ignore[misc]
            depth = events.stats().depth  # nobody takes anything yet
            until(lambda depth=depth: events.stats().depth > depth)  # type: ignore[misc]  # else two gaps become one
        stop.set()
        loading.result(timeout=30)
        expected = gaps = unexplained = 0
        while True:
            event = events.get(timeout=30)
            if isinstance(event, Gap):
                gaps += 1
                unexplained = 0
            elif event.payload == "end":
                break
            else:
                number = int(event.payload)
                assert number >= expected, "twice, or out of order"
                assert number == expected or not unexplained, "something is missing, and no gap stands there"
                unexplained, expected = 1, number + 1
        assert gaps == 6


# -- time-outs of the server


def test_an_idle_hub_survives_the_servers_idle_session_timeout(server: TemporaryServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET idle_session_timeout = '100ms'")
        admin.execute("SELECT pg_reload_conf()")
        admin.execute("SET idle_session_timeout = 0")
        with (
            psycopg.connect(server.dsn(), autocommit=True) as victim,
            Hub(server.dsn()) as hub,
            hub.subscribe("a") as events,
        ):
            ours = {backend(admin, "listen"), backend(admin, "notify")}
            query = "SELECT FROM pg_stat_activity WHERE pid = %s"
            until(lambda: admin.execute(query, (victim.info.backend_pid,)).fetchone() is None)  # others do not
            assert ours == {backend(admin, "listen"), backend(admin, "notify")}
            hub.notify("a", "1")
            assert text(events.get(timeout=30)) == "1"
            assert hub.stats().gaps == 0


def test_the_session_that_listens_has_bounds_that_the_administrator_may_set(session_server: TemporaryServer) -> None:
    with psycopg.connect(session_server.dsn(options="-c tcp_keepalives_count=7"), autocommit=True) as connection:
        connection.execute(SESSION_SETTINGS)

        def show(name: str) -> str:
            row = connection.execute(f"SHOW {name}").fetchone()
            assert row is not None
            return str(row[0])

        assert show("idle_session_timeout") == "0"
        assert show("tcp_user_timeout") == "30000"
        assert show("tcp_keepalives_idle") == "30"
        assert show("tcp_keepalives_interval") == "10"
        assert show("tcp_keepalives_count") == "7"


# -- poolers, standbys, other databases


def test_a_session_pool_is_as_good_as_a_connection(
    session_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(session_server, "session")
    seen: list[Observation] = []
    with Hub(pooler.dsn(), **QUICK, observe=seen.append) as hub, hub.subscribe("a") as events:
        hub.notify("a", "1")
        assert text(events.get(timeout=30)) == "1"
        until(lambda: sum(one.name == "heartbeat" for one in seen) >= 3)
        terminate_listening(session_server, listening_name(session_server))
        assert reason(events.get(timeout=30)) is GapReason.CONNECTION_LOST


def listening_name(server: TemporaryServer) -> str:
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        row = admin.execute(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen%'"
        ).fetchone()
        assert row is not None
        return str(row[0])


@pytest.mark.parametrize("heartbeat", [10.0, None])
def test_a_transaction_pool_is_refused_with_advice(
    session_server: TemporaryServer, make_pgbouncer: MakePgBouncer, heartbeat: float | None
) -> None:
    pooler = make_pgbouncer(session_server, "transaction")
    hub = Hub(pooler.dsn(), heartbeat=heartbeat, heartbeat_timeout=0.5)
    with pytest.raises(pgpubsub.UnusableDeployment, match="a pooler stands between.*session mode.*notify_conninfo"):
        hub.__enter__()
    lazy = Hub(pooler.dsn(), heartbeat=heartbeat, heartbeat_timeout=0.5, wait_for_primary=True)
    with pytest.raises(pgpubsub.UnusableDeployment):
        lazy.subscribe("a").__enter__()
    with pytest.raises(pgpubsub.UnusableDeployment):
        lazy.notify("a")
    assert lazy.state.status is HubStatus.FAILED
    lazy.close()


def test_sending_goes_through_a_transaction_pool(
    session_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(session_server, "transaction")
    there = conninfo_to_dict(pooler.dsn())
    keywords: dict[str, Any] = {**QUICK, "dbname": "postgres", "user": "postgres"}
    with (
        Hub(session_server.dsn(), notify_conninfo=f"host={there['host']} port={there['port']}", **keywords) as hub,
        hub.subscribe("a") as events,
    ):
        for number in range(100):
            hub.notify("a", str(number))
        assert [text(events.get(timeout=30)) for _ in range(100)] == [str(number) for number in range(100)]


def test_a_transaction_pool_that_appears_later_is_retried_and_reported(
    session_server: TemporaryServer, make_pgbouncer: MakePgBouncer
) -> None:
    pooler = make_pgbouncer(session_server, "transaction")
    where = [session_server.dsn(application_name="moving")]
    with Hub(lambda: where[0], **QUICK) as hub, hub.subscribe("a") as events:
        where[0] = pooler.dsn()
        terminate_listening(session_server, "moving")
        until(lambda: isinstance(hub.state.error, pgpubsub.UnusableDeployment))
        assert hub.state.status is HubStatus.CONNECTING
        assert events.get_nowait() is None, "a gap although nothing is live"
        where[0] = session_server.dsn()
        assert isinstance(events.get(timeout=30), Gap)
        hub.wait_until_live(timeout=30)
        hub.notify("a", "1")
        assert text(events.get(timeout=30)) == "1"
        assert hub.stats().gaps == 1


def test_two_databases_are_refused(session_server: TemporaryServer) -> None:
    hub = Hub(session_server.dsn(), notify_conninfo=session_server.dsn(dbname="template1"), heartbeat_timeout=0.3)
    with pytest.raises(pgpubsub.UnusableDeployment, match="the same database of the same server"):
        hub.__enter__()


def test_a_standby_is_refused_with_advice(session_server: TemporaryServer, make_standby: MakeStandby) -> None:
    standby = make_standby(session_server)
    for hub in (Hub(standby.dsn()), Hub(session_server.dsn(), notify_conninfo=standby.dsn())):
        with pytest.raises(pgpubsub.ServerInRecovery, match="standby.*target_session_attrs=read-write"):
            hub.__enter__()
    lazy = Hub(standby.dsn())
    with pytest.raises(pgpubsub.ServerInRecovery):
        lazy.wait_until_live(timeout=30)
    lazy.close()


def test_a_standby_is_waited_for_by_those_who_want_that(
    session_server: TemporaryServer, make_standby: MakeStandby
) -> None:
    standby = make_standby(session_server)
    with closing(Hub(standby.dsn(), wait_for_primary=True)) as hub:
        with pytest.raises(pgpubsub.NotLive):
            hub.wait_until_live(timeout=0.1)
        until(lambda: isinstance(hub.state.error, pgpubsub.ServerInRecovery))
        with pytest.raises(pgpubsub.NotLive, match="standby"):
            hub.wait_until_live(timeout=0.1)
        standby.promote()
        hub.wait_until_live(timeout=60)
        hub.notify("a", "1")


def test_entering_waits_for_a_primary_where_that_is_wanted(
    session_server: TemporaryServer, make_standby: MakeStandby
) -> None:
    standby = make_standby(session_server)
    with pytest.raises(pgpubsub.NotLive, match="after 0.1 s"):
        Hub(standby.dsn(), wait_for_primary=True, send_timeout=0.1).__enter__()
    nowhere = session_server.dsn(port=1)
    with pytest.raises(pgpubsub.NotLive, match="port 1 failed|PGSQL.1. failed"):  # also where it is the sending one's
        Hub(session_server.dsn(), notify_conninfo=nowhere, wait_for_primary=True, send_timeout=1).__enter__()
    refused = threading.Event()

    def note(observation: Observation) -> None:
        if observation.name == "connect_failed":
            refused.set()

    def enter() -> None:
        with Hub(standby.dsn(), wait_for_primary=True, observe=note, **QUICK) as hub:
            hub.notify("a", "1")

    with ThreadPoolExecutor(1) as pool:
        entering = pool.submit(enter)
        assert refused.wait(30)
        assert not entering.done()
        standby.promote()
        entering.result(60)


def test_a_failover_is_followed(server: TemporaryServer, make_standby: MakeStandby) -> None:
    standby = make_standby(server)
    hosts: dict[str, Any] = {"host": "127.0.0.1,127.0.0.1", "port": f"{server.port},{standby.server.port}"}
    with (
        Hub(user="postgres", dbname="postgres", target_session_attrs="read-write", **hosts) as hub,
        hub.subscribe("a") as events,
    ):
        server.stop("immediate")
        standby.promote()
        assert reason(events.get(timeout=60)) is GapReason.CONNECTION_LOST
        hub.notify("a", "on the new primary")
        assert text(events.get(timeout=30)) == "on the new primary"


def test_a_server_that_comes_back_as_a_standby_is_retried_and_reported(server: TemporaryServer) -> None:
    with Hub(server.dsn()) as hub, hub.subscribe("a") as events:
        restart_as_standby(server)
        until(lambda: isinstance(hub.state.error, pgpubsub.ServerInRecovery))
        assert events.get_nowait() is None
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            assert admin.execute("SELECT pg_promote()").fetchone() == (True,)
        assert isinstance(events.get(timeout=60), Gap)
        assert hub.state.live


# -- heartbeats of many


def test_idle_hubs_share_their_heartbeats(session_server: TemporaryServer) -> None:
    own = [0] * 8

    def observer(index: int) -> Callable[[Observation], None]:
        def observe(observation: Observation) -> None:
            own[index] += observation.name == "heartbeat"

        return observe

    hubs = [Hub(session_server.dsn(), heartbeat=0.5, observe=observer(index)) for index in range(len(own))]
    try:
        for hub in hubs:
            hub.wait_until_live(timeout=30)
        first = sum(own)
        received = hubs[0].stats().received
        until(lambda: hubs[0].stats().received >= received + 10)
        beats = hubs[0].stats().received - received
        assert sum(own) - first <= beats + 1, "each heartbeat is heard by all"
        assert all(hub.stats().reconnects == 0 for hub in hubs)
        assert beats <= 20
    finally:
        for hub in hubs:
            hub.close()
