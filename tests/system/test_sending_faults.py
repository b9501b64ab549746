"""What senders are told while the server and the network fail, and that it is true."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import psycopg
import pytest

from pgpubsub import Hub, Observation, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import AnyHub, Worker
from tests.contract.sending import Foreign, Gate, begin_all, sending_pids
from tests.system.commits import held_up_commits, is_held_up
from tests.system.test_hub_server_faults import until, usage, waiting_for_lock


@pytest.fixture
def gate(session_server: TemporaryServer) -> Iterator[Gate]:
    with Gate(session_server.dsn()) as gate:
        yield gate


@pytest.fixture
def foreign(session_server: TemporaryServer) -> Iterator[Foreign]:
    with Foreign(session_server.dsn(), "a") as foreign:
        yield foreign


def cut_off(hub: AnyHub, gate: Gate, server: TemporaryServer) -> None:
    """From here on nothing can be sent, and the hub knows it."""
    gate.refuse()
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for pid in sending_pids(admin):
            admin.execute("SELECT pg_terminate_backend(%s, 20000)", [pid])
    until(lambda: hub.state.sending_error)


# -- outages


def test_what_waits_during_an_outage_goes_out_in_order_after_it(
    new_hub: Callable[..., AnyHub], gate: Gate, foreign: Foreign, session_server: TemporaryServer
) -> None:
    texts = [str(number) for number in range(50)]
    with gate.hub(new_hub, session_server.dsn()) as hub:
        cut_off(hub, gate, session_server)
        workers = begin_all(hub, "a", texts)
        gate.accept()
        assert [worker.outcome() for worker in workers] == [None] * 50
        hub.notify("a", "end")
        assert foreign.until("end") == [*texts, "end"]
        assert hub.stats().sent == 51
        assert hub.state.live
        assert hub.stats().reconnects == 0


def test_who_waits_for_too_long_is_told_why_and_what_comes_after_the_outage_is_sent(
    new_hub: Callable[..., AnyHub], gate: Gate, foreign: Foreign, session_server: TemporaryServer
) -> None:
    seen: list[Observation] = []
    with gate.hub(new_hub, session_server.dsn(), send_timeout=0.5, observe=seen.append) as hub:
        cut_off(hub, gate, session_server)
        early = begin_all(hub, "a", ["1", "2"])
        outcomes = [worker.outcome() for worker in early]
        gate.accept()
        until(lambda: hub.state.sending_error is None)
        assert hub.notify_many([("a", "3"), ("b", "4"), ("a", "5")]) == 3
        for outcome in outcomes:
            assert isinstance(outcome, SendTimeout)
            assert str(outcome).startswith("NOTIFY 'a' could not be sent within 0.5 s, and will not be: cannot connect")
            assert "refused" in str(outcome)
            assert outcome.__cause__ is not None
        hub.notify("a", "end")
        assert foreign.until("end") == ["3", "5", "end"]
        assert hub.stats().sent == 4
    told = [(one.name, one.channels, one.detail) for one in seen if one.name.startswith("sen")]
    assert told == [
        *[("send_failed", ("a",), str(outcome)) for outcome in outcomes],
        ("sent", ("a", "b"), ""),
        ("sent", ("a",), ""),
    ]
    failed, sent = [[one.seconds for one in seen if one.name == name] for name in ("send_failed", "sent")]
    assert all(seconds is not None and 0.5 <= seconds < 20 for seconds in failed)
    assert all(seconds is not None and 0 <= seconds < 0.5 for seconds in sent)


def test_without_a_first_connection_the_reason_is_that_there_is_none(
    new_hub: Callable[..., AnyHub], gate: Gate, session_server: TemporaryServer
) -> None:
    """Nobody answers, and nobody has said so yet."""
    gate.deafen()
    hub = new_hub(session_server.dsn(), notify_conninfo=gate.dsn(), send_timeout=0.3)
    with pytest.raises(
        SendTimeout, match="NOTIFY 'a' could not be sent within 0.3 s, and will not be: still connecting"
    ):
        hub.notify("a", "1")


def test_closing_waits_for_the_end_of_an_outage(
    new_hub: Callable[..., AnyHub], gate: Gate, foreign: Foreign, session_server: TemporaryServer
) -> None:
    texts = [str(number) for number in range(10)]
    with gate.hub(new_hub, session_server.dsn()) as hub:
        cut_off(hub, gate, session_server)
        workers = begin_all(hub, "a", texts)
        closing = Worker(partial(hub.close, 20))
        gate.accept()
        assert closing.outcome() is None
    assert [worker.outcome() for worker in workers] == [None] * 10
    foreign.look()
    assert foreign.payloads == texts


def test_what_was_in_flight_when_the_connection_broke_is_not_repeated(
    new_hub: Callable[..., AnyHub], gate: Gate, foreign: Foreign, session_server: TemporaryServer
) -> None:
    """The server got it, or it did not: nobody is told that it was sent, or that it was not."""
    with gate.hub(new_hub, session_server.dsn()) as hub:
        gate.break_after(b"committed")
        with pytest.raises(SendUncertain, match="NOTIFY 'a' may or may not have been sent, and is not repeated"):
            hub.notify("a", "committed")
        gate.cut_before(b"gone")
        with pytest.raises(SendUncertain, match="NOTIFY 'a' and 1 more may or may not"):
            hub.notify_many([("a", "gone"), ("a", "with it")])
        progress: list[int] = []
        gate.cut_before(b"1500")
        with pytest.raises(SendUncertain) as caught:
            hub.notify_stream((("a", str(number)) for number in range(5000)), on_progress=progress.append)
        assert caught.value.__notes__ == ["1000 notifications had been sent before."]
        assert progress == [1000]
        hub.notify("a", "end")
        assert foreign.until("end") == ["committed", *[str(number) for number in range(1000)], "end"]
        assert hub.stats().sent == 1001


# -- a full queue


@pytest.mark.since_postgresql(17)
def test_one_that_does_not_fit_into_the_servers_queue_tells_everybody_the_truth(
    new_hub: Callable[..., AnyHub], small_queue: TemporaryServer
) -> None:
    """The server leaves its queue full of what it has refused, until those who listen are woken or have gone: nobody
    can wake them with a notification, and so nothing can be sent in this cluster before they connect anew."""
    dsn = small_queue.dsn()
    with (
        Gate(dsn) as gate,
        gate.hub(new_hub, dsn) as hub,
        Foreign(dsn, "a") as foreign,
        psycopg.connect(dsn, autocommit=True) as admin,
    ):
        hub.notify("a", "before")
        with gate.shut():
            workers = begin_all(hub, "a", ["first", "1", "2", "huge " * 200_000, "3"])
        first, *others = [worker.outcome() for worker in workers]
        assert first is None
        for other in others:
            assert isinstance(other, ServerRefused)
            assert other.sqlstate == "54000"
        assert usage(admin) == 1
        assert foreign.until("first") == ["before", "first"]
        query = "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE query LIKE 'LISTEN%%' OR pid = %s"
        admin.execute(query, [foreign.pid])
        until(lambda: usage(admin) == 0)
        hub.wait_until_live(30)
        with hub.subscribe("a") as events:
            hub.notify("a", "after")
            assert events.get(20)[2] == "after"  # type: ignore[index]
        assert hub.stats().sent == 3


# -- a server that is held up


def test_what_was_given_up_while_the_server_was_held_up_is_not_sent_when_it_goes_on(
    server: TemporaryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's commit waits for a standby, and holds the lock that every NOTIFY needs."""
    monkeypatch.setattr("pgpubsub.drivers.psycopg3_dial.CHECK_INTERVAL", "100ms")
    dsn = server.dsn()
    with (
        psycopg.connect(dsn, autocommit=True) as admin,
        psycopg.connect(dsn) as writer,
        Foreign(dsn, "a") as foreign,
        Hub(dsn, heartbeat=None, send_timeout=0.5) as hub,
    ):
        admin.execute("CREATE TABLE t ()")
        with held_up_commits(dsn):
            writer.execute("INSERT INTO t DEFAULT VALUES")
            writer.execute("SELECT pg_notify('a', 'from the writer')")
            commit = Worker(writer.commit)
            until(lambda: is_held_up(admin, writer))
            for text in ("1", "2", "3"):
                hub.wait_until_live(30)
                until(lambda: hub.state.sending_error is None)
                with pytest.raises(SendUncertain):
                    hub.notify("a", text)
            until(lambda: not any(waiting_for_lock(admin, pid) for pid in sending_pids(admin)))
        assert commit.outcome() is None
        until(lambda: hub.state.sending_error is None)
        hub.notify("a", "end")
        assert foreign.until("end") == ["from the writer", "end"]


@pytest.mark.since_postgresql(17)
def test_of_equal_calls_that_fill_the_queue_those_that_were_told_so_are_delivered(
    new_hub: Callable[..., AnyHub], small_queue: TemporaryServer
) -> None:
    """They share round trips. That the queue is full turns out when each of them is committed."""
    dsn = small_queue.dsn()
    text = "x" * 7000
    with new_hub(dsn) as hub, hub.subscribe("a", capacity=1000) as events, psycopg.connect(dsn) as stalled:
        stalled.execute("LISTEN a")
        stalled.commit()
        stalled.execute("SELECT 1")  # in a transaction, so that the queue has to keep everything for it
        outcomes = [worker.outcome() for worker in [Worker(partial(hub.notify, "a", text)) for _ in range(120)]]
        sent = outcomes.count(None)
        assert 0 < sent < 120
        assert {outcome.sqlstate for outcome in outcomes if outcome is not None} == {"54000"}
        assert [events.get(30) for _ in range(sent)]
        assert events.get_nowait() is None
