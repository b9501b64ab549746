"""Long payloads when the connection, or their sender, ends in the midst of one."""

from __future__ import annotations

import gc
import itertools
import logging
import select
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ConnectionLost, Gap, GapReason, Hub, Notify, PubSub, SendUncertain
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.conftest import BROUGHT, connect_with
from tests.system.test_hub_server_faults import text, until

MakeProxy = Callable[[TemporaryServer], Proxy]
Receive = Callable[[float], Any]
"""Returns the next event, or None if none comes within so many seconds."""

LONG = "é日本€🐘x" * 4000
"""56,000 bytes, in 15 frames."""

ON_THE_WIRE = 56_000 + 15 * (len("pgpubsub/1 0123456789abcdef 15/15 ") + len("A....----a\0\0"))
"""Bytes of its messages in the protocol, nearly."""

CUTS = [1, 30, 4008, 4009, 4020, 6000, ON_THE_WIRE // 2, ON_THE_WIRE - 40]

_names = itertools.count(1)


@pytest.fixture
def proxy(session_server: TemporaryServer, make_proxy: MakeProxy) -> Proxy:
    return make_proxy(session_server)


@pytest.fixture
def sender(session_server: TemporaryServer) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(session_server.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(params=["PubSub", "Hub"])
def receive(request: pytest.FixtureRequest, session_server: TemporaryServer, proxy: Proxy) -> Iterator[Receive]:
    """Somebody listens to "a" by way of the proxy."""
    if request.param == "PubSub":
        with pgpubsub.connect(proxy.dsn()) as pubsub:
            pubsub.listen("a")
            yield lambda seconds: pubsub.get_event(seconds, yield_gaps=True)
        return
    with Hub(proxy.dsn(), notify_conninfo=session_server.dsn()) as hub, hub.subscribe("a") as events:

        def get(seconds: float) -> Notify | Gap | None:
            try:
                return events.get(seconds)
            except TimeoutError:
                return None

        yield get


def chunk(index: int, count: int, part: str, name: str | None = None) -> str:
    return f"pgpubsub/1 {name or f'{next(_names):016x}'} {index}/{count} {part}"


# -- the connection ends


@pytest.mark.parametrize("count", CUTS)
def test_a_message_that_was_cut_off_is_never_delivered_in_part(
    session_server: TemporaryServer, proxy: Proxy, receive: Receive, count: int
) -> None:
    with pgpubsub.connect(session_server.dsn()) as sender:
        sender.notify("a", LONG)
        assert text(receive(20)) == LONG
        proxy.cut_after(count)
        before = datetime.now(UTC)
        sender.notify("a", LONG)
        gap = receive(20)
        assert isinstance(gap, Gap), "nothing of it may be delivered"
        assert (gap.reason, gap.channels, gap.count) == (GapReason.CONNECTION_LOST, ("a",), None)
        assert before - timedelta(seconds=20) <= gap.since <= datetime.now(UTC)
        for _ in range(2):
            sender.notify("a", LONG)
            assert text(receive(20)) == LONG
        assert receive(0.05) is None


def test_the_end_of_one_message_is_not_joined_with_the_beginning_of_another(
    proxy: Proxy, receive: Receive, sender: psycopg.Connection[Any]
) -> None:
    """Not even if it has the same name, on a new connection."""
    name = "0123456789abcdef"
    sender.execute("SELECT pg_notify('a', %s), pg_notify('b', '')", [chunk(1, 2, "torn", name)])
    assert receive(0.2) is None
    proxy.reset()
    gap = receive(20)
    assert isinstance(gap, Gap)
    assert gap.reason is GapReason.CONNECTION_LOST
    sender.execute("SELECT pg_notify('a', %s), pg_notify('a', 'end')", [chunk(2, 2, "torn", name)])
    gap = receive(20)
    assert isinstance(gap, Gap)
    assert gap.reason is GapReason.INCOMPLETE
    assert text(receive(20)) == "end"


def test_the_gap_reaches_back_to_before_what_was_cut_off(
    proxy: Proxy, receive: Receive, sender: psycopg.Connection[Any]
) -> None:
    """Whatever was heard after the beginning of a message that has no end; and no further than that."""
    assert receive(0.3) is None
    sender.execute("SELECT pg_notify('a', 'whole')")
    assert text(receive(20)) == "whole"
    whole = datetime.now(UTC)
    name = f"{next(_names):016x}"
    sender.execute("SELECT pg_notify('a', %s)", [chunk(1, 3, "cut", name)])
    assert receive(0.2) is None
    begun = datetime.now(UTC)
    sender.execute("SELECT pg_notify('a', %s)", [chunk(2, 3, "cut", name)])
    assert receive(0.2) is None  # the connection is seen to be healthy
    proxy.reset()
    gap = receive(20)
    assert isinstance(gap, Gap)
    assert gap.reason is GapReason.CONNECTION_LOST
    assert whole - timedelta(seconds=0.1) <= gap.since <= begun


def test_the_gap_of_a_hub_reaches_back_although_a_statement_has_succeeded_since(
    session_server: TemporaryServer, proxy: Proxy, sender: psycopg.Connection[Any]
) -> None:
    with Hub(proxy.dsn(), notify_conninfo=session_server.dsn()) as hub, hub.subscribe("a") as events:
        received = hub.stats().received
        sender.execute("SELECT pg_notify('a', %s)", [chunk(1, 2, "cut")])
        until(lambda: hub.stats().received > received)
        begun = datetime.now(UTC)
        time.sleep(0.1)
        with hub.subscribe("b"):
            proxy.reset()
            gap = events.get(20)
        assert isinstance(gap, Gap)
        assert gap.since <= begun


@pytest.mark.parametrize("read_by", ["get_event", "notify"])
def test_the_gap_of_a_pubsub_reaches_back_to_before_the_first_chunk_arrived(
    proxy: Proxy, sender: psycopg.Connection[Any], read_by: str
) -> None:
    """Even if the program was late to look, or looked only when it sent something."""
    with pgpubsub.connect(proxy.dsn()) as pubsub:
        pubsub.listen("a")
        assert pubsub.get_event(yield_gaps=True) is None
        sender.execute("SELECT pg_notify('a', %s)", [chunk(1, 2, "cut")])
        assert select.select([pubsub], [], [], 20)[0]
        arrived = datetime.now(UTC)
        time.sleep(0.2)
        if read_by == "get_event":
            assert pubsub.get_event(yield_gaps=True) is None
            proxy.reset()
        else:
            proxy.cut_before(b"ours")
            with pytest.raises(SendUncertain):
                pubsub.notify("b", "ours")
        gap = pubsub.get_event(20, yield_gaps=True)
        assert isinstance(gap, Gap)
        assert gap.since <= arrived


def test_a_message_that_is_whole_again_does_not_make_later_gaps_longer(
    proxy: Proxy, receive: Receive, sender: psycopg.Connection[Any]
) -> None:
    name = "0123456789abcdef"
    sender.execute("SELECT pg_notify('a', %s)", [chunk(1, 2, "in two ", name)])
    assert receive(0.2) is None
    sender.execute("SELECT pg_notify('a', %s)", [chunk(2, 2, "transactions", name)])
    assert text(receive(20)) == "in two transactions"
    sender.execute("SELECT pg_notify('a', 'later')")
    whole = datetime.now(UTC)
    assert text(receive(20)) == "later"
    proxy.reset()
    gap = receive(20)
    assert isinstance(gap, Gap)
    assert gap.since >= whole - timedelta(seconds=0.1)


@pytest.mark.parametrize("kind", BROUGHT)
def test_a_brought_connection_that_is_cut_delivers_no_part(
    kind: str, session_server: TemporaryServer, proxy: Proxy
) -> None:
    with pgpubsub.connect(session_server.dsn()) as sender, PubSub(connect_with(kind, proxy.dsn())) as pubsub:
        pubsub.listen("a")
        proxy.cut_after(ON_THE_WIRE // 2)
        sender.notify("a", LONG)
        with pytest.raises(ConnectionLost):
            pubsub.get_event(20, yield_gaps=True)


@pytest.mark.parametrize("wait", [0, 0.05])
def test_resets_under_load_tear_nothing(
    session_server: TemporaryServer, proxy: Proxy, receive: Receive, wait: float
) -> None:
    """Each message arrives whole and in order, or a gap stands where it is missing."""
    texts = [f"{number} {'é' * (9000 if number % 2 else 3)}" for number in range(120)]

    def load() -> None:
        with pgpubsub.connect(session_server.dsn()) as sender:
            for number, payload in enumerate(texts):
                sender.notify("a", payload)
                if number % 20 == 10:
                    time.sleep(wait)
                    proxy.reset()
                    time.sleep(0.15)  # so that it comes back now and then
            while not received_end.wait(0.2):
                sender.notify("a", "end")

    received_end = threading.Event()
    expected = gaps = 0
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        explained = False
        while True:
            event = receive(20)
            if isinstance(event, Gap):
                assert event.reason is GapReason.CONNECTION_LOST
                gaps, explained = gaps + 1, True
                continue
            payload = text(event)
            if payload == "end":
                break
            number = texts.index(payload)
            assert number == expected or (number > expected and explained), "lost without a gap, or out of order"
            expected, explained = number + 1, False
        received_end.set()
        loading.result()
    assert gaps
    assert expected == len(texts) or explained


# -- the sender ends


def test_of_a_sender_who_was_terminated_nothing_arrives(
    session_server: TemporaryServer, receive: Receive, sender: psycopg.Connection[Any]
) -> None:
    """In the midst of the statement that sends, and between that and the end of the transaction."""
    name = f"{next(_names):016x}"
    for statement in (
        "SELECT pg_notify('a', chunk), pg_sleep(20) FROM unnest(%s::text[]) AS chunk",
        "SELECT pg_notify('a', chunk) FROM unnest(%s::text[]) AS chunk",
    ):
        victim = psycopg.connect(session_server.dsn())
        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(victim.execute, statement, [[chunk(index, 3, "part", name) for index in (1, 2, 3)]])
            if "sleep" not in statement:
                sending.result()
            else:
                query = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = %s"
                until(lambda: sender.execute(query, [victim.info.backend_pid]).fetchone() is not None)  # noqa: B023
            sender.execute("SELECT pg_terminate_backend(%s, 20000)", [victim.info.backend_pid])
            sending.exception()
        victim.close()
        sender.execute("SELECT pg_notify('a', 'after')")
        assert text(receive(20)) == "after"


@pytest.mark.parametrize("fault", ["cut_before", "break_after"])
def test_a_sender_whose_connection_breaks_sends_all_or_nothing(
    session_server: TemporaryServer, proxy: Proxy, make_proxy: MakeProxy, receive: Receive, fault: str
) -> None:
    outgoing = make_proxy(session_server)
    payload = LONG + "here!" + LONG
    with (
        Hub(session_server.dsn(), notify_conninfo=outgoing.dsn()) as hub,
        pgpubsub.connect(outgoing.dsn()) as pubsub,
    ):
        for notify in (hub.notify, pubsub.notify):
            getattr(outgoing, fault)(b"here!")
            with pytest.raises(SendUncertain):
                notify("a", payload)
            with psycopg.connect(session_server.dsn(), autocommit=True) as sender:
                left = "SELECT FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
                until(lambda: sender.execute(left).fetchone() is None)  # noqa: B023
                sender.execute("SELECT pg_notify('a', 'end')")
            received = [text(receive(20))]
            while received[-1] != "end":
                received.append(text(receive(20)))
            assert received in (["end"], [payload, "end"])


# -- memory


@pytest.mark.parametrize("form", ["never completed", "too long", "empty chunks"])
def test_garbage_takes_no_memory(
    session_server: TemporaryServer, sender: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture, form: str
) -> None:
    """Beginnings of messages, and a message without end, that somebody sends who may."""

    caplog.set_level(logging.CRITICAL, logger="pgpubsub.gap")  # which are kept for the report

    def garbage(round_: int) -> list[str]:
        if form == "never completed":
            return [chunk(1, 999_999_999, "x" * 7000) for _ in range(500)]
        part = "" if form == "empty chunks" else "x" * 7000
        return [chunk(round_ * 500 + n + 1, 999_999_999, part, "f" * 16) for n in range(500)]

    with (
        pgpubsub.connect(session_server.dsn(), max_payload=100_000) as pubsub,
        Hub(session_server.dsn(), max_payload=100_000) as hub,
        hub.subscribe("a") as events,
    ):
        pubsub.listen("a")

        def round_trip(number: int) -> int:
            sender.execute("SELECT pg_notify('a', c) FROM unnest(%s::text[]) AS c", [garbage(number)])
            for event in pubsub.get_events(20, yield_gaps=True) if form == "never completed" else pubsub.get_events(0):
                assert isinstance(event, Gap)
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        tracemalloc.start()
        try:
            round_trip(0)
            small = round_trip(1)
            for number in range(2, 9):
                large = round_trip(number)
        finally:
            tracemalloc.stop()
        assert large - small < 500_000, "of 24,500,000 bytes"
        sender.execute("SELECT pg_notify('a', 'end')")
        for get in (lambda: pubsub.get_event(20), lambda: events.get(20)):
            while isinstance(event := get(), Gap):
                pass
            assert text(event) == "end"
