"""What `Hub` and `AsyncHub` do from their first attempt to connect to their end, and what they tell about it."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgpubsub import (
    Closed,
    ConcurrentUse,
    ConnectionFailed,
    ConninfoError,
    Gap,
    Hub,
    HubStatus,
    Notify,
    NotLive,
    Observation,
    PayloadError,
    PayloadTooLarge,
    PubSub,
    SendTimeout,
    SendUncertain,
    UnusableDeployment,
)
from pgpubsub.hubs import addresses
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import AnyHub, Worker, listening_pid, payloads, take, together
from tests.contract.test_handler import eventually
from tests.contract.test_pubsub import terminate
from tests.system.commits import held_up_commits, is_held_up

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

SLOW = pytest.mark.parametrize("hub_kind", ["Hub", "AsyncHub on uvloop"])
"""Where the faces hardly differ and most of the time is waited."""


@pytest.fixture
def nobody(dsn: str) -> Iterator[str]:
    """Where nobody listens, and nobody will."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield make_conninfo(dsn, host="127.0.0.1", port=reserved.getsockname()[1])


class Switch:
    """A function for a connection string that leads to a server, or nowhere."""

    def __init__(self, dsn: str, nobody: str) -> None:
        self.there, self.nowhere = dsn, nobody
        self.on = True
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        return self.there if self.on else self.nowhere

    async def called_in_a_loop(self) -> str:
        return self()


@pytest.fixture
def switch(dsn: str, nobody: str) -> Switch:
    return Switch(dsn, nobody)


def backends(admin: Admin) -> dict[int, str]:
    """The backends of this process's hubs, and their application's name."""
    like = [f"pgpubsub %{os.getpid()}@%"]
    rows = admin.execute("SELECT pid, application_name FROM pg_stat_activity WHERE application_name LIKE %s", like)
    return dict(rows.fetchall())


def terminate_all(admin: Admin) -> None:
    """End them all at once: a hub that has lost one closes others itself."""
    ended = admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s) AS pid", [list(backends(admin))]).fetchall()
    assert all(it for (it,) in ended)


def cut_off(hub: AnyHub, admin: Admin, switch: Switch) -> None:
    """From here on the hub has no connections, knows it, and cannot make any."""
    switch.on = False
    terminate_all(admin)
    eventually(lambda: not (state := hub.state).live and state.sending_error is not None)


# -- the beginning


def test_its_state_tells_its_life(new_hub: NewHub, admin: Admin) -> None:
    hub = new_hub()
    assert is_in(hub, HubStatus.IDLE)
    assert (hub.state.error, hub.state.sending_error) == (None, None)
    before = datetime.now(UTC)
    with hub:
        assert is_in(hub, HubStatus.LIVE)
        assert (hub.state.error, hub.state.sending_error) == (None, None)
        assert before <= hub.state.since <= datetime.now(UTC)
        since = hub.state.since
        terminate(admin, listening_pid(admin))
        eventually(lambda: (state := hub.state).live and state.since > since)
        assert hub.stats().reconnects == 1
        assert f"live since {hub.state.since.isoformat(' ', 'seconds')}" in repr(hub)
    assert is_in(hub, HubStatus.CLOSED)
    assert "closed since" in repr(hub)


def is_in(hub: AnyHub, status: HubStatus) -> bool:
    state = hub.state
    return state.status is status and state.live is (status is HubStatus.LIVE)


@pytest.mark.parametrize("first", ["subscribe", "notify", "wait_until_live"])
def test_it_connects_when_it_is_first_used(new_hub: NewHub, channel: str, first: str) -> None:
    hub = new_hub()
    if first == "notify":
        hub.notify(channel)
    elif first == "wait_until_live":
        hub.wait_until_live(20)
        assert hub.state.live
    with hub.subscribe(channel) as events:
        hub.notify(channel, "x")
        assert payloads(take(events, 1)) == ["x"]
    hub.wait_until_live(20)
    hub.close()
    assert hub.state.status is HubStatus.CLOSED


def test_entering_returns_when_notifications_arrive(new_hub: NewHub, admin: Admin) -> None:
    with new_hub() as hub:
        assert hub.state.live
        assert hub.stats().received >= 1
        assert hub.stats().heartbeat_seconds is not None
        assert len(backends(admin)) >= 2
    eventually(lambda: not backends(admin))


def test_entered_twice_it_is_the_same(hub: AnyHub, channel: str) -> None:
    with hub as again:
        assert again is hub
        assert hub.state.live
    with pytest.raises(Closed):
        hub.notify(channel)


def test_nobody_there_is_an_error_at_once(new_hub: NewHub, nobody: str, channel: str) -> None:
    begun = time.monotonic()
    hub = new_hub(nobody)
    with pytest.raises(ConnectionFailed, match="refused") as caught, hub:
        pass
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert time.monotonic() - begun < 5
    assert hub.state.status is HubStatus.CLOSED
    with pytest.raises(Closed):
        hub.notify(channel)


def test_a_wrong_database_is_an_error_at_once(new_hub: NewHub) -> None:
    with pytest.raises(ConnectionFailed, match='database "nowhere" does not exist'), new_hub(dbname="nowhere"):
        pass


def test_sending_has_to_be_possible_too(new_hub: NewHub, nobody: str) -> None:
    with pytest.raises(ConnectionFailed, match="refused"), new_hub(notify_conninfo=nobody):
        pass


@SLOW
def test_two_databases_are_no_deployment(new_hub: NewHub, dsn: str) -> None:
    hub = new_hub(notify_conninfo=make_conninfo(dsn, dbname="template1"), heartbeat_timeout=0.3)
    with pytest.raises(UnusableDeployment, match="same database"):
        hub.wait_until_live(20)
    assert hub.state.status is HubStatus.FAILED
    for call in (lambda: hub.notify("x"), hub.subscribe("x").__enter__, hub.wait_until_live, hub.__enter__):
        with pytest.raises(UnusableDeployment):
            call()


def test_waiting_for_a_server_that_is_not_there_says_why(new_hub: NewHub, nobody: str) -> None:
    hub = new_hub(nobody)
    with pytest.raises(NotLive, match="not live after 0.1 s: cannot connect to PostgreSQL.*refused"):
        hub.wait_until_live(0.1)
    with pytest.raises(TimeoutError):
        hub.wait_until_live(0)
    assert hub.state.status is HubStatus.CONNECTING
    assert isinstance(hub.state.error, ConnectionFailed)
    assert isinstance(hub.state.sending_error, ConnectionFailed)
    assert "refused" in str(hub.state)


def test_waiting_lasts_until_the_server_is_there(new_hub: NewHub, switch: Switch, channel: str) -> None:
    switch.on = False
    hub = new_hub(switch)
    waiting = [Worker(lambda: hub.wait_until_live(20)), Worker(hub.wait_until_live)]
    with hub.subscribe() as events:
        adding = Worker(lambda: events.add(channel))
        sending = Worker(lambda: hub.notify(channel, "patience"))
        eventually(lambda: switch.calls >= 3)
        assert all(worker.busy for worker in (*waiting, adding, sending))
        switch.on = True
        assert [worker.outcome() for worker in (*waiting, adding, sending)] == [None] * 4
        assert hub.state.live
        hub.notify(channel, "live")
        while payloads(take(events, 1)) != ["live"]:
            pass


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_impossible_timeouts_are_errors_at_once(hub: AnyHub, channel: str, timeout: Any) -> None:
    for call in (hub.wait_until_live, hub.close):
        with pytest.raises((ValueError, TypeError), match="a timeout"):
            call(timeout)
    with hub.subscribe(channel) as events:
        hub.notify(channel, "unharmed")
        assert payloads(take(events, 1)) == ["unharmed"]


@pytest.mark.parametrize("name", ["heartbeat", "heartbeat_timeout", "send_timeout", "give_up_after"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_are_positive(new_hub: NewHub, name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is a positive number of seconds, not {seconds}"):
        new_hub(**{name: seconds})


@pytest.mark.parametrize("name", ["heartbeat_timeout", "send_timeout"])
def test_some_times_cannot_be_left_out(new_hub: NewHub, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} is a number of seconds, not None"):
        new_hub(**{name: None})


def test_connection_strings_are_checked_when_it_is_made(new_hub: NewHub, dsn: str) -> None:
    for keywords in ({"conninfo": "nonsense"}, {"notify_conninfo": "nonsense"}, {"no_such_keyword": 1}):
        with pytest.raises(ConninfoError):
            new_hub(**{"conninfo": dsn, **keywords})
    with pytest.raises(TypeError):
        new_hub(5)


# -- where it connects to


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_function_for_the_connection_string_is_called_for_each_attempt(
    new_hub: NewHub, switch: Switch, admin: Admin, channel: str, asynchronous: bool
) -> None:
    switch.on = False
    hub = new_hub(switch.called_in_a_loop if asynchronous else switch)
    assert switch.calls == 0
    with pytest.raises(NotLive):
        hub.wait_until_live(0)
    eventually(lambda: switch.calls >= 4)  # twice for each of its connections
    switch.on = True
    with hub.subscribe(channel) as events:
        eventually(lambda: (state := hub.state).live and state.sending_error is None)
        seen = switch.calls
        terminate(admin, listening_pid(admin))
        assert isinstance(events.get(20), Gap)
        assert switch.calls == seen + 1


def test_a_plain_function_may_take_its_time(new_hub: NewHub, dsn: str, channel: str) -> None:
    """It runs in a thread, so that nothing else waits for it."""
    go_on, threads = threading.Event(), []

    def slow() -> str:
        threads.append(threading.current_thread())
        assert go_on.wait(20)
        return dsn

    hub = new_hub(slow)
    entering = Worker(hub.__enter__)
    eventually(lambda: len(threads) == 2)
    assert hub.state.status is HubStatus.CONNECTING
    with pytest.raises(NotLive):
        hub.wait_until_live(0)
    go_on.set()
    assert entering.outcome() is hub


def test_a_function_that_fails_is_named_as_the_cause(new_hub: NewHub) -> None:
    def fail() -> str:
        raise KeyError("no password today")

    async def fail_later() -> str:
        return fail()

    for function in (fail, fail_later):
        with pytest.raises(ConnectionFailed, match="function.*for the connection string failed.*no password today"):
            new_hub(function).__enter__()
        hub = new_hub(function)
        with pytest.raises(NotLive, match="no password today"):
            hub.wait_until_live(0.1)
    with pytest.raises(ConnectionFailed, match="returned NoneType, not str"):
        new_hub(lambda: None).__enter__()
    with pytest.raises(ConninfoError):
        new_hub(lambda: "nonsense").__enter__()


def test_a_function_that_fails_once_is_called_again(new_hub: NewHub, dsn: str, channel: str) -> None:
    failures = [OSError("not yet"), OSError("not yet"), OSError("not yet")]

    def conninfo() -> str:
        if failures:
            raise failures.pop()
        return dsn

    hub = new_hub(conninfo)
    hub.wait_until_live(20)
    hub.notify(channel)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, asyncio.CancelledError])
def test_a_function_that_wants_to_end_the_program_has_failed(
    new_hub: NewHub, dsn: str, admin: Admin, channel: str, kind: type[BaseException], asynchronous: bool
) -> None:
    """It runs below the hub, which goes on: those who wait for it would wait for ever."""
    failures: list[BaseException] = []
    failed = []

    def conninfo() -> str:
        if failures:
            failed.append(failures.pop())
            raise failed[-1]
        return dsn

    async def conninfo_later() -> str:
        return conninfo()

    with new_hub(conninfo_later if asynchronous else conninfo) as hub, hub.subscribe(channel) as events:
        failures.append(kind("no token"))
        terminate(admin, listening_pid(admin))
        assert isinstance(events.get(20), Gap)
        assert len(failed) == 1


def test_a_function_that_hangs_is_waited_for_and_not_called_anew(
    new_hub: NewHub, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "PATIENCE", 0.01)
    go_on, calls, failures = threading.Event(), [], []

    def hanging() -> str:
        calls.append(threading.current_thread())
        assert go_on.wait(20)
        return dsn

    hub = new_hub(hanging, observe=lambda what: failures.append(what) if what.name == "connect_failed" else None)
    with pytest.raises(NotLive):
        hub.wait_until_live(0)
    eventually(lambda: len(failures) >= 8)
    assert len(calls) == 2  # one for each of its connections
    monkeypatch.setattr(addresses, "PATIENCE", 20.0)
    go_on.set()
    hub.wait_until_live(20)


def test_both_backends_tell_what_they_are(hub: AnyHub, admin: Admin) -> None:
    who = f"{os.getpid()}@{socket.gethostname()}"
    eventually(
        lambda: sorted(backends(admin).values()) == [f"pgpubsub listen {who}"[:63], f"pgpubsub notify {who}"[:63]]
    )


def test_keywords_are_those_of_libpq(new_hub: NewHub, dsn: str, admin: Admin) -> None:
    name = f"mine {os.getpid()}"
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = 'template1'"
    with new_hub(dsn, application_name=name, database="template1"):
        assert admin.execute(query, [name]).fetchone() == (2,)


def test_sending_may_go_another_way(new_hub: NewHub, dsn: str, admin: Admin, channel: str) -> None:
    """What is said in `notify_conninfo` counts, and keywords stand in for the rest of it."""
    names = [f"listens {os.getpid()}", f"sends {os.getpid()}"]
    query = "SELECT application_name, pid FROM pg_stat_activity WHERE application_name = ANY (%s)"
    elsewhere = {name: value for name, value in conninfo_to_dict(dsn).items() if name != "dbname"}
    sends = make_conninfo("", **elsewhere, application_name=names[1])
    for conninfo in (sends, lambda: sends):
        hub = new_hub(dsn, notify_conninfo=conninfo, application_name=names[0], dbname="template1")
        with hub, hub.subscribe(channel) as events:
            hub.notify(channel, "x")
            pids = dict(admin.execute(query, [names]).fetchall())
            assert pids.keys() == set(names)
            assert events.get(10) == Notify(pids[names[1]], channel, "x")
        eventually(lambda: not admin.execute(query, [names]).fetchall())


# -- sending


def test_it_is_committed_when_notify_returns(hub: AnyHub, other: PubSub, channel: str) -> None:
    other.listen(channel)
    for number in range(50):
        hub.notify(channel, str(number))
        event = other.get_event(5)
        assert event is not None
        assert event.payload == str(number)
    assert hub.stats().sent == 50


def test_what_many_send_at_once_all_arrives(hub: AnyHub, channel: str) -> None:
    def send(sender: int) -> None:
        for number in range(20):
            hub.notify(channel, f"{sender} {number}")

    with hub.subscribe(channel) as events:
        assert together([partial(send, sender) for sender in range(20)]) == [None] * 20
        received = payloads(take(events, 400))
    assert hub.stats().sent == 400
    for sender in range(20):
        assert [text for text in received if text.split()[0] == str(sender)] == [f"{sender} {n}" for n in range(20)]


@pytest.mark.parametrize("hub_kind", ["Hub"])
def test_without_a_server_nothing_is_sent_in_time(new_hub: NewHub, switch: Switch, admin: Admin, channel: str) -> None:
    seen: list[Observation] = []
    with new_hub(switch, send_timeout=1.0, observe=seen.append) as hub, hub.subscribe(channel) as events:
        cut_off(hub, admin, switch)
        begun = time.monotonic()
        *unsent, unentered, unadded = together(
            [
                *[partial(hub.notify, channel, "never")] * 5,
                hub.subscribe("another").__enter__,
                partial(events.add, "another"),
            ]
        )
        assert time.monotonic() - begun < 10
        for outcome in unsent:
            assert isinstance(outcome, SendTimeout)
            assert re.match(f"NOTIFY '{channel}' could not be sent within 1 s.*refused", str(outcome))
        assert [one.detail for one in seen if one.name == "send_failed"] == [str(outcome) for outcome in unsent]
        for outcome in (unentered, unadded):
            assert isinstance(outcome, NotLive)
            assert isinstance(outcome, TimeoutError)
            assert re.match("could not listen to 'another' within 1 s.*refused", str(outcome))
        assert events.channels == {channel}
        assert len(hub.stats().subscriptions) == 1
        assert hub.stats().sent == 0


@SLOW
def test_what_is_sent_during_an_outage_goes_out_after_it(
    new_hub: NewHub, switch: Switch, admin: Admin, channel: str
) -> None:
    with new_hub(switch) as hub, hub.subscribe(channel):
        cut_off(hub, admin, switch)
        sending = [Worker(partial(hub.notify, channel, str(number))) for number in range(10)]
        entering = Worker(hub.subscribe("another").__enter__)
        switch.on = True
        assert [worker.outcome() for worker in sending] == [None] * 10
        entering.outcome().close()
        assert hub.stats().sent == 10


@contextmanager
def nobody_can_commit_a_notification(dsn: str) -> Iterator[None]:
    """Somebody holds the lock that every NOTIFY needs for its commit: a transaction that waits for a standby."""
    with psycopg.connect(dsn, autocommit=True) as admin, psycopg.connect(dsn) as holder:
        with held_up_commits(dsn):
            holder.execute("SELECT pg_notify('holder', ''), pg_logical_emit_message(true, '', '')")
            committing = Worker(holder.commit)
            eventually(lambda: is_held_up(admin, holder))
            yield
        assert committing.outcome() is None


def waiting_for(admin: Admin, event: str) -> list[int]:
    rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = %s", [event]).fetchall()
    return [row[0] for row in rows]


@SLOW
def test_what_was_in_flight_when_the_connection_ended_is_uncertain(
    new_hub: NewHub, session_server: TemporaryServer, channel: str
) -> None:
    """It is not repeated. What waited behind it was not sent, and is sent later."""
    dsn = session_server.dsn()
    with (
        psycopg.connect(dsn, autocommit=True) as admin,
        new_hub(dsn) as hub,
        hub.subscribe(channel) as events,
    ):
        with nobody_can_commit_a_notification(dsn):
            in_flight = Worker(partial(hub.notify, channel, "in flight"))
            eventually(lambda: waiting_for(admin, "object"))  # the lock's kind
            waiting = [Worker(partial(hub.notify, channel, "behind it")) for _ in range(3)]
            terminate(admin, waiting_for(admin, "object")[0])
            outcome = in_flight.outcome()
            assert isinstance(outcome, SendUncertain)
            assert f"NOTIFY '{channel}'" in str(outcome)
        assert [worker.outcome() for worker in waiting] == [None] * 3
        hub.notify(channel, "the next")
        assert payloads(take(events, 4)) == ["behind it"] * 3 + ["the next"]
        assert hub.stats().sent == 4


def test_payloads_may_be_limited_further(new_hub: NewHub, channel: str) -> None:
    with new_hub(max_payload=10) as hub, hub.subscribe(channel) as events:
        hub.notify(channel, "0123456789")
        hub.notify(channel, "é" * 5)
        for payload in ("x" * 11, "é" * 6, "x" * 8000):
            with pytest.raises(PayloadTooLarge, match="max_payload is 10; set that higher here") as caught:
                hub.notify(channel, payload)
            assert (caught.value.size, caught.value.limit) == (len(payload.encode()), 10)
            assert isinstance(caught.value, PayloadError)
        hub.notify(channel)
        assert payloads(take(events, 3)) == ["0123456789", "é" * 5, ""]


# -- what it tells


def test_an_observer_is_told_what_happens(new_hub: NewHub, admin: Admin, channel: str) -> None:
    seen: list[Observation] = []

    def of(name: str) -> list[Observation]:
        return [one for one in seen if one.name == name]

    with new_hub(observe=seen.append) as hub, hub.subscribe(channel) as events:
        (live,) = of("live")
        assert live.seconds is not None
        assert live.seconds >= 0
        (beat,) = of("heartbeat")
        assert beat.seconds == hub.stats().heartbeat_seconds
        hub.notify(channel)
        (sent,) = of("sent")
        assert sent.channels == (channel,)
        assert sent.seconds is not None
        assert payloads(take(events, 1)) == [""]
        terminate_all(admin)
        gap = events.get(20)
        assert isinstance(gap, Gap)
        eventually(lambda: len(of("lost")) == 2)
        losses = sorted(one.detail for one in of("lost"))
        assert [loss.split(":")[0] for loss in losses] == ["listening", "sending"]
        assert "terminating connection" in losses[0]
        assert [(one.channels, one.detail) for one in of("gap")] == [((channel,), gap.detail)]
        assert len(of("live")) == 2
        assert len(of("sent")) == 1


def test_an_observer_is_told_of_attempts_that_failed(new_hub: NewHub, nobody: str) -> None:
    seen: list[Observation] = []
    hub = new_hub(nobody, observe=seen.append)
    with pytest.raises(NotLive):
        hub.wait_until_live(0)
    eventually(lambda: {one.detail.split(":")[0] for one in seen} == {"listening", "sending"})
    assert {one.name for one in seen} == {"connect_failed"}
    assert all("refused" in one.detail for one in seen)


def test_an_observer_is_told_of_a_subscriber_that_was_too_slow(new_hub: NewHub, admin: Admin, channel: str) -> None:
    seen: list[Observation] = []
    with new_hub(observe=seen.append) as hub, hub.subscribe(channel, capacity=1, overflow="close"):
        admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(1, 3) i", [channel])
        eventually(lambda: [one.channels for one in seen if one.name == "too_slow"] == [(channel,)])


def test_an_observer_that_fails_does_no_harm(
    new_hub: NewHub, admin: Admin, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(observation: Observation) -> None:
        raise ZeroDivisionError(observation.name)

    with new_hub(observe=fail) as hub, hub.subscribe(channel) as events:
        hub.notify(channel, "1")
        assert payloads(take(events, 1)) == ["1"]
        terminate(admin, listening_pid(admin))
        assert isinstance(events.get(20), Gap)
        hub.notify(channel, "2")
        assert payloads(take(events, 1)) == ["2"]
    logged = [record for record in caplog.records if record.name == "pgpubsub.hub"]
    assert "the hub's observer failed" in logged[0].message
    assert logged[0].exc_info is not None


def test_an_observer_that_waits_for_the_hub_is_told_that_it_would_wait_for_ever(
    new_hub_of: Callable[..., Any], channel: str
) -> None:
    """An observer of `AsyncHub` cannot wait, so that this is about `Hub` alone."""
    outcomes: dict[str, list[BaseException | None]] = {}
    states: list[HubStatus] = []

    def call_back(observation: Observation) -> None:
        calls: dict[str, Callable[[], object]] = {
            "notify": partial(hub.notify, channel),
            "enter": hub.subscribe(channel).__enter__,
            "wait_until_live": partial(hub.wait_until_live, 5),
            "get": partial(silent.get, 5),
            "next": partial(next, silent),
            "add": partial(events.add, channel),
            "remove": partial(events.remove, channel),
        }
        for name, call in calls.items():
            try:
                call()
            except Exception as error:
                outcomes.setdefault(name, []).append(error)
            else:
                outcomes.setdefault(name, []).append(None)
        states.append(hub.state.status)
        assert len(hub.stats().subscriptions) == 2

    hub: Hub = new_hub_of("Hub", observe=lambda observation: observer(observation))
    observer: Callable[[Observation], None] = lambda observation: None  # noqa: E731
    with hub, hub.subscribe(channel) as events, hub.subscribe() as silent:
        observer = call_back
        hub.notify(channel, "x")
        observer = lambda observation: None  # noqa: E731
        assert payloads(take(events, 1)) == ["x"]
    assert states == [HubStatus.LIVE]
    assert len(outcomes) == 7
    for errors in outcomes.values():
        assert [type(error) for error in errors] == [ConcurrentUse]
        assert "its observer must only take notes" in str(errors[0])


def test_an_observer_may_close_the_hub(new_hub_of: Callable[..., Any], channel: str) -> None:
    hub: Hub = new_hub_of("Hub", observe=lambda observation: hub.close() if observation.name == "sent" else None)
    with hub, hub.subscribe(channel) as events:
        try:
            hub.notify(channel)
        except Closed:
            pass
        assert [event[1] for event in events if isinstance(event, tuple)] in ([], [channel])
    eventually(lambda: hub.state.status is HubStatus.CLOSED)


# -- the end


def test_closing_may_be_repeated(new_hub: NewHub, channel: str) -> None:
    with new_hub() as hub, hub.subscribe(channel) as events:
        assert together([hub.close] * 5) == [None] * 5
        hub.close()
        assert hub.state.status is HubStatus.CLOSED
        for call in (
            lambda: hub.notify(channel),
            hub.subscribe(channel).__enter__,
            hub.wait_until_live,
            hub.__enter__,
            lambda: events.add("another"),
        ):
            with pytest.raises(Closed):
                call()
        assert list(events) == []
    hub.close()


def test_closed_before_its_first_use_it_stays_closed(new_hub: NewHub, channel: str) -> None:
    hub = new_hub()
    hub.close()
    assert hub.state.status is HubStatus.CLOSED
    for call in (lambda: hub.notify(channel), hub.subscribe(channel).__enter__, hub.__enter__, hub.wait_until_live):
        with pytest.raises(Closed):
            call()
    hub.close()


def test_an_exception_leaves_it_closed(new_hub: NewHub, admin: Admin) -> None:
    with pytest.raises(ZeroDivisionError), new_hub() as hub:
        raise ZeroDivisionError
    assert hub.state.status is HubStatus.CLOSED
    eventually(lambda: not backends(admin))


def test_what_is_being_sent_is_sent_before_it_closes(hub: AnyHub, other: PubSub, channel: str) -> None:
    """Whoever was told that it was sent knows it, whoever was told that it was not knows that too."""
    other.listen(channel)
    sent, unsure = [], []

    def send(sender: int) -> None:
        for number in range(100_000):
            text = f"{sender} {number}"
            try:
                hub.notify(channel, text)
            except SendUncertain:
                unsure.append(text)
            except Closed:
                return
            else:
                sent.append(text)

    workers = [Worker(partial(send, sender)) for sender in range(10)]
    eventually(lambda: len(sent) >= 100)
    hub.close()
    assert [worker.outcome() for worker in workers] == [None] * 10
    other.notify(channel, "the end")
    received: list[str] = []
    while "the end" not in received:
        received += [event.payload for event in other.get_events(10)]
    assert unsure == []
    assert sorted([*sent, "the end"]) == sorted(received)


@SLOW
def test_closing_does_not_wait_for_what_cannot_be_sent(
    new_hub: NewHub, switch: Switch, admin: Admin, channel: str
) -> None:
    with new_hub(switch) as hub, hub.subscribe(channel) as events:
        cut_off(hub, admin, switch)
        calls = [Worker(lambda: hub.notify(channel)), Worker(hub.subscribe("another").__enter__)]
        calls += [Worker(lambda: list(events)), Worker(lambda: events.add("another"))]
        eventually(lambda: len(hub.stats().subscriptions) == 2)
        begun = time.monotonic()
        hub.close(0.1)
        assert time.monotonic() - begun < 4
        outcomes = [worker.outcome() for worker in calls]
        assert outcomes[2] == []
        assert [isinstance(outcome, Closed) for outcome in outcomes] == [True, True, False, True]


def test_closing_ends_the_attempts_to_connect(new_hub: NewHub, nobody: str) -> None:
    hub = new_hub(nobody)
    waiting = Worker(hub.wait_until_live)
    eventually(lambda: hub.state.error is not None)
    hub.close()
    assert isinstance(waiting.outcome(), Closed)


def test_a_hub_that_was_forgotten_ends_all_the_same(dsn: str, admin: Admin, channel: str) -> None:
    hub = Hub(dsn)
    hub.notify(channel)
    hub.wait_until_live(20)
    assert len(backends(admin)) == 2
    hubs = [hub]
    del hub
    with pytest.warns(ResourceWarning, match="<Hub live since .* was not closed"):
        hubs.clear()
    eventually(lambda: not backends(admin))
