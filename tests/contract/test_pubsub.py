"""What `PubSub` does, whoever made its connection."""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgpubsub
from pgpubsub import (
    ChannelNameError,
    Closed,
    ConnectionLost,
    ConnectionUnusable,
    Notify,
    PayloadError,
    PayloadTooLarge,
    PubSub,
    ServerRefused,
)
from tests.contract.conftest import run_on

ODD_NAMES = [
    "UPPER",
    "two words",
    'quo"te',
    "it's",
    "a-b",
    "a;b",
    '"; DROP TABLE users; --',
    "%s",
    "$1",
    "日本語のチャンネル",
    "naïve",
    "x" * 63,
    "é" * 31,
    "\U0001f418",
    "back\\slash",
    "tab\tnew\nline",
    "1",
    " ",
]


def test_the_classic_session(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    assert pubsub.get_event() is None
    pubsub.notify(channel, "message 1")
    pubsub.notify(channel, "message 2")
    first = pubsub.get_event()
    assert first == (pubsub.backend_pid, channel, "message 1")
    assert repr(first) == f"Notify({pubsub.backend_pid}, {channel!r}, 'message 1')"
    pid, name, payload = pubsub.get_event() or (0, "", "")
    assert (pid, name, payload) == (pubsub.backend_pid, channel, "message 2")
    assert pubsub.get_event() is None


def test_hundreds_of_notifications_come_back_in_order(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    for number in range(300):
        pubsub.notify(channel, str(number))
        if number % 3 == 2:
            assert [event.payload for event in pubsub.get_events()] == [str(number - 2), str(number - 1), str(number)]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_any_text_is_a_name_and_no_other_is_the_same(pubsub: PubSub, other: PubSub, name: str) -> None:
    pubsub.listen(name)
    assert pubsub.channels == {name}
    pubsub.notify(name, name)
    other.notify(name, "foreign")
    other.notify(name.swapcase() + " "[: 63 - len(name.encode())], "not for us")
    assert [event.channel for event in (pubsub.get_event(5), pubsub.get_event(5)) if event] == [name, name]
    pubsub.unlisten(name)
    assert pubsub.channels == frozenset()
    pubsub.notify(name)
    assert pubsub.get_event() is None


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=15),
    payload=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=500),
)
def test_random_names_and_payloads_come_back_as_they_were(pubsub: PubSub, name: str, payload: str) -> None:
    pubsub.listen(name)
    pubsub.notify(name, payload)
    assert pubsub.get_event() == (pubsub.backend_pid, name, payload)
    pubsub.unlisten(name)


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "nul\0"])
@pytest.mark.parametrize("method", ["listen", "unlisten", "notify"])
def test_an_impossible_name_is_refused_before_anything_is_sent(pubsub: PubSub, method: str, name: str) -> None:
    with pytest.raises(ChannelNameError):
        getattr(pubsub, method)(name)
    assert pubsub.channels == frozenset()


@pytest.mark.parametrize("thing", [None, 5, b"bytes", {"a": 1}])
def test_a_payload_that_is_not_text_is_a_type_error(pubsub: PubSub, thing: Any) -> None:
    with pytest.raises(TypeError, match="the payload for channel 'c' is a str"):
        pubsub.notify("c", thing)


def test_a_payload_of_max_payload_bytes_arrives_and_a_longer_one_is_an_error(
    connect_raw: Callable[[str], Any], kind: str, dsn: str, channel: str
) -> None:
    limit = 100_000
    if kind == "connect()":
        pubsub = pgpubsub.connect(dsn, max_payload=limit)
    else:
        pubsub = PubSub(connect_raw(kind), max_payload=limit)
    with pubsub:
        pubsub.listen(channel)
        for payload in ("x" * 7999, "é" * 3999, "x" * 8000, "é" * 4000, "x" * limit, "é" * (limit // 2)):
            pubsub.notify(channel, payload)
            assert pubsub.get_event() == (pubsub.backend_pid, channel, payload)
        for payload in ("x" * (limit + 1), "é" * (limit // 2) + "x"):
            with pytest.raises(PayloadTooLarge, match="100001 bytes and max_payload is 100000") as caught:
                pubsub.notify(channel, payload)
            assert (caught.value.size, caught.value.limit) == (limit + 1, limit)
        assert pubsub.get_event() is None


def test_a_payload_that_is_not_text_for_the_server_is_an_error(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    with pytest.raises(PayloadError, match="NUL"):
        pubsub.notify(channel, "a\0b")
    assert pubsub.get_event() is None


def test_a_payload_is_optional(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    pubsub.notify(channel)
    assert pubsub.get_event() == (pubsub.backend_pid, channel, "")


def test_the_sender_is_known_by_its_pid(pubsub: PubSub, other: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    other.notify(channel, "x")
    event = pubsub.get_event(5)
    assert event is not None
    assert event.pid == other.backend_pid != pubsub.backend_pid


def test_listening_twice_is_listening_once(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    pubsub.listen(channel)
    pubsub.notify(channel, "x")
    assert len(pubsub.get_events()) == 1
    pubsub.unlisten(channel)
    pubsub.notify(channel, "x")
    assert pubsub.get_events() == []


def test_listen_repairs_what_somebody_unlistened_behind_our_back(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    run_on(pubsub.conn, "UNLISTEN *")
    pubsub.listen(channel)
    pubsub.notify(channel, "x")
    assert len(pubsub.get_events()) == 1


def test_nothing_comes_of_a_channel_once_it_is_unlistened(pubsub: PubSub, new_channel: Callable[[], str]) -> None:
    gone, kept = new_channel(), new_channel()
    pubsub.listen(gone)
    pubsub.listen(kept)
    pubsub.notify(gone, "arrived but not taken")
    pubsub.notify(kept, "arrived")
    assert pubsub.fileno() >= 0
    pubsub.unlisten(gone)
    assert [event.channel for event in pubsub.get_events()] == [kept]


def test_unlisten_star_unlistens_everything(pubsub: PubSub, new_channel: Callable[[], str]) -> None:
    ours, foreign = new_channel(), new_channel()
    pubsub.listen(ours)
    run_on(pubsub.conn, f'LISTEN "{foreign}"')
    pubsub.unlisten("*")
    pubsub.notify(ours)
    pubsub.notify(foreign)
    assert pubsub.get_events() == []
    assert pubsub.channels == frozenset()


def test_unlistening_what_is_not_listened_to_is_fine(pubsub: PubSub, channel: str) -> None:
    pubsub.unlisten(channel)
    pubsub.unlisten("*")
    run_on(pubsub.conn, f'LISTEN "{channel}"')
    pubsub.unlisten(channel)
    pubsub.notify(channel)
    assert pubsub.get_event() is None


def test_what_the_user_listened_to_with_a_statement_arrives_in_order(
    pubsub: PubSub, new_channel: Callable[[], str]
) -> None:
    ours, theirs = new_channel(), new_channel()
    pubsub.listen(ours)
    run_on(pubsub.conn, f'LISTEN "{theirs}"')
    for channel in (ours, theirs, ours):
        pubsub.notify(channel)
    assert [event.channel for event in pubsub.get_events()] == [ours, theirs, ours]


def test_what_arrived_with_a_statement_of_the_user_is_seen_at_once(pubsub: PubSub, other: PubSub, channel: str) -> None:
    """It does not make the socket readable again, so whoever waits for that waits in vain."""
    pubsub.listen(channel)
    other.notify(channel, "1")
    other.notify(channel, "2")
    run_on(pubsub.conn, "SELECT pg_sleep(0.05)")
    started = time.monotonic()
    assert [event.payload for event in (pubsub.get_event(30), pubsub.get_event(30)) if event] == ["1", "2"]
    assert time.monotonic() - started < 10


def test_what_had_arrived_before_the_connection_was_brought_is_delivered(
    kind: str, connect_raw: Callable[[str], Any], other: PubSub, channel: str
) -> None:
    if kind == "connect()":
        kind = "psycopg3"
    conn = connect_raw(kind)
    run_on(conn, f'LISTEN "{channel}"')
    other.notify(channel, "early")
    run_on(conn, "SELECT pg_sleep(0.05)")
    with PubSub(conn) as pubsub:
        assert [event.payload for event in pubsub.get_events()] == ["early"]


def test_a_burst_arrives_whole_and_in_order(pubsub: PubSub, admin: psycopg.Connection[Any], channel: str) -> None:
    pubsub.listen(channel)
    admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(0, 9999) i", [channel])
    events = pubsub.events()
    assert [next(events).payload for _ in range(10_000)] == [str(i) for i in range(10_000)]


def test_get_events_returns_all_that_has_arrived(pubsub: PubSub, admin: psycopg.Connection[Any], channel: str) -> None:
    pubsub.listen(channel)
    admin.execute("SELECT pg_notify(%s, lpad(i::text, 1000, '.')) FROM generate_series(1, 200) i", [channel])
    run_on(pubsub.conn, "SELECT pg_sleep(0.1)")
    assert len(pubsub.get_events()) == 200


def test_leaving_an_iteration_loses_nothing(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    for number in range(5):
        pubsub.notify(channel, str(number))
    for event in pubsub.events():
        assert event.payload == "0"
        break
    assert [event.payload for event in pubsub.get_events()] == ["1", "2", "3", "4"]


def test_timeouts_are_yielded_where_they_are_asked_for(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    events = pubsub.events(select_timeout=0.02, yield_timeouts=True)
    assert [next(events), next(events)] == [None, None]
    pubsub.notify(channel, "x")
    assert next(events) == (pubsub.backend_pid, channel, "x")


def test_a_wait_ends_in_time(pubsub: PubSub) -> None:
    started = time.monotonic()
    assert pubsub.get_event(0.2) is None
    assert pubsub.get_events(0.2) == []
    assert 0.4 <= time.monotonic() - started < 10


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_an_impossible_timeout_is_an_error_at_once(pubsub: PubSub, timeout: float) -> None:
    for method in (pubsub.get_event, pubsub.get_events, pubsub.events):
        with pytest.raises(ValueError, match="a timeout cannot be"):
            method(timeout)


def test_a_timeout_that_is_no_number_is_a_type_error(pubsub: PubSub) -> None:
    with pytest.raises(TypeError, match="a timeout is a number of seconds or None"):
        pubsub.get_event("5")  # type: ignore[call-overload]


def test_the_descriptor_becomes_readable(pubsub: PubSub, other: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    assert select.select([pubsub], [], [], 0)[0] == []
    other.notify(channel, "x")
    assert select.select([pubsub], [], [], 10)[0] == [pubsub]
    assert len(pubsub.get_events()) == 1


def test_everything_says_that_it_is_closed(pubsub: PubSub, channel: str) -> None:
    with pubsub:
        pubsub.listen(channel)
    pubsub.close()
    for method in (pubsub.get_event, pubsub.get_events, pubsub.fileno, lambda: pubsub.listen("x")):
        with pytest.raises(Closed):
            method()
    with pytest.raises(Closed):
        pubsub.notify("x")
    assert list(pubsub.events()) == []
    assert "closed" in repr(pubsub)


def test_waiting_inside_a_transaction_would_be_in_vain(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    run_on(pubsub.conn, "BEGIN")
    with pytest.raises(ConnectionUnusable, match="inside an open transaction.*commit or roll back"):
        pubsub.get_event(5)
    with pytest.raises(ConnectionUnusable, match="LISTEN would be undone"):
        pubsub.listen("another")
    with pytest.raises(ConnectionUnusable, match="UNLISTEN would be undone"):
        pubsub.unlisten(channel)
    assert pubsub.get_event() is None
    pubsub.notify(channel, "sent with the transaction")
    assert pubsub.get_event() is None
    run_on(pubsub.conn, "COMMIT")
    assert [event.payload for event in pubsub.get_events(5)] == ["sent with the transaction"]


def test_what_the_server_refuses_says_what_and_why(pubsub: PubSub, channel: str) -> None:
    run_on(pubsub.conn, "BEGIN")
    with pytest.raises(Exception, match="division by zero"):
        run_on(pubsub.conn, "SELECT 1/0")
    with pytest.raises(ServerRefused, match=f"the server refused NOTIFY '{channel}'.*aborted") as caught:
        pubsub.notify(channel, "x")
    assert caught.value.sqlstate == "25P02"
    assert caught.value.__cause__ is not None
    run_on(pubsub.conn, "ROLLBACK")
    pubsub.listen(channel)
    pubsub.notify(channel, "x")
    assert len(pubsub.get_events()) == 1


def test_a_connection_that_was_brought_is_not_replaced(
    kind: str, pubsub: PubSub, admin: psycopg.Connection[Any], channel: str
) -> None:
    if kind == "connect()":
        return  # tests/system has what it does
    pubsub.listen(channel)
    pubsub.notify(channel, "before")
    pid = pubsub.backend_pid
    terminate(admin, pid)
    assert pubsub.get_events(5) == [Notify(pid, channel, "before")]
    for attempt in range(3):
        for wait in (
            lambda: pubsub.get_event(),
            lambda: pubsub.get_event(5),
            lambda: pubsub.get_events(5),
            lambda: next(iter(pubsub.events())),
            lambda: pubsub.fileno(),
        ):
            with pytest.raises(ConnectionLost) as caught:
                wait()
            assert attempt or caught.value.__cause__ is not None or kind.startswith("pg.")
    with pytest.raises(ConnectionLost):
        pubsub.notify(channel, "x")
    with pytest.raises(ConnectionLost):
        pubsub.listen("another")
    assert pubsub.channels == {channel}
    pubsub.unlisten(channel)
    assert pubsub.backend_pid == pid
    assert pubsub.gaps == 0


def test_a_connection_that_its_user_closed_is_lost(kind: str, pubsub: PubSub, channel: str) -> None:
    if kind == "connect()":
        return  # it would reconnect
    pubsub.listen(channel)
    pubsub.conn.close()
    with pytest.raises(ConnectionLost):
        pubsub.get_event(5)
    with pytest.raises(ConnectionLost):
        pubsub.notify(channel, "x")


def terminate(admin: psycopg.Connection[Any], pid: int) -> None:
    """End a backend and wait until it is gone (the manual, "Server Signaling Functions": the second argument)."""
    assert admin.execute("SELECT pg_terminate_backend(%s, 10000)", [pid]).fetchone() == (True,)
