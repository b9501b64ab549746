"""What becomes of entries that hubs append: together, alone, once, or perhaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
import pgpubsub.streams
from pgpubsub import (
    AsyncHub,
    Closed,
    Observation,
    PayloadError,
    PayloadTooLarge,
    SendTimeout,
    SendUncertain,
    ServerInRecovery,
    ServerRefused,
    Undecodable,
)
from pgpubsub.core.position import stream_id
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import ASYNC_KINDS, PATIENCE, AnyHub, Covered, Worker, together
from tests.contract.groups import consume
from tests.contract.sending import Gate, wait_until, words
from tests.contract.streams import (
    KINDS,
    AnyStream,
    all_payloads,
    backends,
    begin_append,
    begin_appends,
    entries_of,
    entries_stored,
    everything,
    following,
    identifier,
    install,
    open_stream,
    payloads_of,
    transactions_of,
)
from tests.system.commits import held_up_commits, is_held_up

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ASYNC = pytest.mark.parametrize("hub_kind", ASYNC_KINDS)


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def gated(gate: Gate, new_hub: NewHub, installed: str) -> Iterator[AnyHub]:
    """A hub that is live and appends through the gate, over a connection that is open."""
    with gate.hub(new_hub, installed) as hub:
        open_stream(hub, "to open the connection").append("")
        yield hub


@pytest.fixture
def orders(gated: AnyHub, channel: str) -> AnyStream:
    return open_stream(gated, channel)


# -- one by one


def test_an_append_is_committed_when_it_returns_its_id(stream: AnyStream, admin: Admin) -> None:
    ids = [stream.append(text) for text in words(5)]
    rows = entries_of(admin, stream.name)
    assert [row["id"] for row in rows] == ids == sorted(set(ids))
    assert [row["payload"] for row in rows] == words(5)
    assert all(type(id) is int for id in ids)


def test_what_is_appended_comes_back_as_what_it_was(stream: AnyStream) -> None:
    values: list[Any] = [
        "",
        "text",
        "日本 \U0001f418 \x01\n",
        b"",
        b"bytes",
        bytes(range(256)),
        bytearray(b"array"),
        memoryview(b"view"),
    ]
    for value in values:
        stream.append(value)
    stream.append_many(values)
    expected = [value if isinstance(value, str) else bytes(value) for value in values]
    assert all_payloads(stream) == expected * 2
    assert [type(payload) for payload in all_payloads(stream)] == [type(payload) for payload in expected * 2]


def test_so_do_key_and_headers(stream: AnyStream) -> None:
    headers: list[Any] = [None, {}, {"é": "日本", "n": [1, 2.5, None, True, {"a": {}}]}, {"%s": "%(a)s \\u0000 \\"}]
    for number, given in enumerate(headers):
        stream.append("", key=[None, "", "日本 %s", "a"][number], headers=given)
    entries = everything(stream)
    assert [entry.key for entry in entries] == [None, "", "日本 %s", "a"]
    assert [entry.headers for entry in entries] == headers
    assert all(entry.appended_at.tzinfo is not None for entry in entries)


def test_a_payload_may_have_16_mib_and_no_more(stream: AnyStream) -> None:
    size = 16 << 20
    stream.append("x" * size)
    stream.append(b"\0" * size)
    assert [len(payload) for payload in all_payloads(stream)] == [size, size]
    for too_long in ("x" * (size + 1), b"x" * (size + 1), "é" * (size // 2) + "x"):
        for call in (partial(stream.append, too_long), partial(stream.append_many, ["good", too_long])):
            with pytest.raises(PayloadTooLarge, match="max_payload is 16777216") as caught:
                call()
            assert (caught.value.size, caught.value.limit) == (size + 1, size)
    assert len(everything(stream)) == 2


def test_the_limit_is_the_hubs(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub(max_payload=10) as hub:
        stream = open_stream(hub, channel)
        stream.append("é" * 5)
        with pytest.raises(PayloadTooLarge, match="has 11 bytes and max_payload is 10"):
            stream.append("é" * 5 + "x")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("a\0",), PayloadError, "the payload for stream .* contains NUL"),
        (("\ud800",), PayloadError, "the payload for stream .* contains .*surrogate"),
        (("a", "\0"), PayloadError, "the key for stream .* contains NUL"),
        (("a", "\udfff"), PayloadError, "the key for stream .* contains .*surrogate"),
        (("a", 17), TypeError, "the key for stream .* is a str, not int"),
        (("a", b"a"), TypeError, "the key for stream .* is a str, not bytes"),
        (("a", None, {"a": "\0"}), PayloadError, "a header for stream .* contains NUL"),
        (("a", None, {"a": "\ud800"}), PayloadError, "a header for stream .* contains .*surrogate"),
        (("a", None, {"a": float("nan")}), PayloadError, "are no JSON"),
        (("a", None, {"a": b""}), PayloadError, "are no JSON"),
        (("a", None, {1: "a"}), TypeError, "are a mapping from names to JSON values"),
        (("a", None, []), TypeError, "are a mapping from names to JSON values"),
        ((17,), TypeError, "the payload for stream .* is a str or bytes, not int; give the stream a type"),
        ((None,), TypeError, "is a str or bytes, not NoneType"),
    ],
)
def test_what_cannot_be_stored_is_told_before_anything_is_sent(
    stream: AnyStream, admin: Admin, arguments: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        stream.append(*arguments)
    value, key, headers = (*arguments, None, None)[:3]
    with pytest.raises(error, match=words):
        stream.append_many(["good", value], key=key, headers=headers)
    assert entries_stored(admin, stream.name) == 0


@pytest.mark.parametrize(
    ("key", "error"), [("", None), ("x" * 1000, None), ("x" * 1001, PayloadError), ("\0", PayloadError), (1, TypeError)]
)
def test_an_idempotency_key_is_text_of_up_to_1000_bytes(
    stream: AnyStream, key: Any, error: type[Exception] | None
) -> None:
    if error is None:
        assert stream.append("a", idempotency_key=key) == stream.append("a", idempotency_key=key)
    else:
        with pytest.raises(error, match="the idempotency key for stream"):
            stream.append("a", idempotency_key=key)


@pytest.mark.parametrize("name", ["日本 %s :a $1 \"'", "x" * 1000, "é" * 500, " "])
def test_a_stream_may_have_any_name(hub: AnyHub, installed: str, name: str) -> None:
    stream = open_stream(hub, name)
    assert stream.name == name
    id = stream.append("a")
    assert everything(stream)[-1].id == id


@pytest.mark.parametrize(
    ("name", "error"),
    [("", ValueError), ("x" * 1001, ValueError), ("\0", ValueError), ("\ud800", ValueError), (None, TypeError)],
)
def test_not_what_is_no_name(hub: AnyHub, admin: Admin, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="the name of a stream is"):
        open_stream(hub, name)
    with pytest.raises(error, match="the name of a stream is"):
        pgpubsub.streams.create(admin, name)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"poll_interval": 0}, ValueError, "poll_interval is a positive number"),
        ({"poll_interval": "1"}, TypeError, "poll_interval is a number"),
        ({"poll_interval": True}, TypeError, "poll_interval is a number"),
        ({"schema": ""}, ValueError, "the name of a schema"),
        ({"read_conninfo": "nonsense"}, pgpubsub.ConninfoError, "nonsense"),
        ({"read_conninfo": 17}, TypeError, "read_conninfo is a str"),
        ({"encode": str}, TypeError, "give both encode= and decode=, or neither"),
    ],
)
def test_options_that_are_not_possible_are_refused(
    hub: AnyHub, options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        open_stream(hub, "orders", **options)


# -- types


@dataclass
class Order:
    id: int
    note: str = ""


def test_a_stream_that_somebody_else_has_begun_in_vain_gets_its_name(
    stream: AnyStream, installed: str, admin: Admin
) -> None:
    """Who appended meanwhile left that to them."""
    with psycopg.connect(installed) as other:
        pgpubsub.append(other, stream.name, "in vain")
        stream.append("1")
        other.rollback()
    stream.append_many(["2", "3"])
    found = admin.execute("SELECT id FROM pgpubsub.stream WHERE name = %s", [stream.name]).fetchall()
    assert found == [(stream_id(stream.name),)]
    assert payloads_of(admin, stream.name) == ["1", "2", "3"]


def test_a_stream_may_have_a_type(hub: AnyHub, installed: str, channel: str, admin: Admin) -> None:
    orders = open_stream(hub, channel, Order)
    orders.append(Order(17), "a", {"b": 1})
    orders.append_many([Order(18, "é"), Order(19)], key=lambda order: str(order.id), headers=lambda order: None)
    entries = everything(orders)
    assert [(entry.payload, entry.key, entry.headers) for entry in entries] == [
        (Order(17), "a", {"b": 1}),
        (Order(18, "é"), "18", None),
        (Order(19), "19", None),
    ]
    assert [type(entry.payload) for entry in entries] == [Order] * 3
    for wrong in (17, {"id": "seventeen"}, Order("x")):  # type: ignore[arg-type]
        for call in (partial(orders.append, wrong), partial(orders.append_many, [Order(1), wrong])):
            with pytest.raises(PayloadError, match="does not fit its type, .*Order"):
                call()
    assert entries_stored(admin, channel) == 3
    numbers = open_stream(hub, f"{channel} numbers", list[int])
    numbers.append([1, 2])
    assert all_payloads(numbers) == [[1, 2]]


def test_it_may_have_a_codec_of_ones_own(hub: AnyHub, installed: str, channel: str, admin: Admin) -> None:
    stream = open_stream(hub, channel, encode=lambda value: f"<{value}>", decode=lambda text: int(text[1:-1]))
    stream.append(17)
    assert payloads_of(admin, channel) == ["<17>"]
    assert all_payloads(stream) == [17]


def test_what_does_not_fit_comes_as_undecodable_with_its_place(
    hub: AnyHub, installed: str, channel: str, admin: Admin
) -> None:
    for value in ('{"id": 1}', "nonsense", b"\xff", '{"id": 4}'):
        pgpubsub.append(admin, channel, value, "its key")
    orders = open_stream(hub, channel, Order)
    events = everything(orders)
    assert [type(event).__name__ for event in events] == ["Entry", "Undecodable", "Undecodable", "Entry"]
    for event, raw in zip(events[1:3], ("nonsense", "\udcff"), strict=True):
        assert isinstance(event, Undecodable)
        assert event.raw == raw
        assert isinstance(event.event, pgpubsub.Entry)
        assert event.event.key == "its key"
        with pytest.raises(type(event.error)):
            assert event.payload
    with orders.read(events[2].event.position) as reader:
        assert following(reader, 1) == [Order(4)]
    with orders.read() as reader:  # and the reader's own position is behind what it has handed over
        for number, event in enumerate(events):
            assert reader.get(PATIENCE) == event or isinstance(event, Undecodable)
            assert (
                all_payloads(open_stream(hub, channel), reader.position)
                == [
                    '{"id": 1}',
                    "nonsense",
                    b"\xff",
                    '{"id": 4}',
                ][number + 1 :]
            )


# -- many in one transaction


def test_append_many_stores_them_in_one_transaction_and_in_order(stream: AnyStream, admin: Admin) -> None:
    ids = stream.append_many(text for text in words(2500))
    rows = entries_of(admin, stream.name)
    assert [row["id"] for row in rows] == ids
    assert [row["payload"] for row in rows] == words(2500)
    assert transactions_of(admin, stream.name) == 1


def test_with_a_key_and_headers_for_all_or_for_each(stream: AnyStream) -> None:
    stream.append_many(["a", "b"], key="k", headers={"h": 1})
    stream.append_many(["a", "b"], key=str.upper, headers=lambda value: {"of": value} if value == "b" else None)
    assert [(entry.key, entry.headers) for entry in everything(stream)] == [
        ("k", {"h": 1}),
        ("k", {"h": 1}),
        ("A", None),
        ("B", {"of": "b"}),
    ]


def test_append_many_of_nothing_does_nothing(stream: AnyStream, admin: Admin) -> None:
    assert stream.append_many([]) == []
    assert entries_stored(admin, stream.name) == 0


def test_what_goes_wrong_while_they_are_made_leaves_nothing_behind(stream: AnyStream, admin: Admin) -> None:
    def values() -> Iterator[str]:
        yield "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stream.append_many(values())
    with pytest.raises(ZeroDivisionError):
        stream.append_many(["a", "b"], key=lambda value: str(1 / (value == "a")))
    with pytest.raises(TypeError):
        stream.append_many(17)  # type: ignore[arg-type]
    assert entries_stored(admin, stream.name) == 0


def test_more_than_one_transaction_carries_is_refused(stream: AnyStream, admin: Admin) -> None:
    payload = "x" * (16 << 20)
    with pytest.raises(PayloadTooLarge, match="append them in several calls"):
        stream.append_many([payload] * 17)
    assert entries_stored(admin, stream.name) == 0


def test_what_the_server_refuses_of_many_undoes_them_all(new_hub: NewHub, dsn: str, latin1: str, channel: str) -> None:
    there = make_conninfo(dsn, dbname=latin1)
    install(there)
    with new_hub(there) as hub, psycopg.connect(there) as admin:
        stream = open_stream(hub, channel)
        with pytest.raises(ServerRefused, match="22P05|encoding"):
            stream.append_many(["a", "日本", "b"])
        assert entries_stored(admin, channel) == 0
        assert len(stream.append_many(["a", "b"])) == 2


# -- together


def test_what_waits_goes_out_together(gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin) -> None:
    with gate.shut():
        workers = begin_appends(gated, orders, words(200))
    ids = [worker.outcome() for worker in workers]
    rows = entries_of(admin, orders.name)
    assert {row["id"]: row["payload"] for row in rows} == dict(zip(ids, words(200), strict=True))
    assert transactions_of(admin, orders.name) <= 3
    assert gated.stats().appended == 201


def test_streams_share_a_statement(gated: AnyHub, gate: Gate, channel: str, admin: Admin) -> None:
    streams = [open_stream(gated, f"{channel} {number}") for number in range(20)]
    with gate.shut():
        workers = [begin_append(gated, partial(stream.append, "a")) for stream in streams]
    ids = [worker.outcome() for worker in workers]
    rows = [entries_of(admin, stream.name) for stream in streams]
    assert [[row["id"] for row in its_rows] for its_rows in rows] == [[id] for id in ids]
    assert len({its_rows[0]["xid"] for its_rows in rows}) <= 2


def test_threads_or_tasks_that_append_for_long_get_ids_in_their_own_order(stream: AnyStream, admin: Admin) -> None:
    def append(caller: int) -> list[int]:
        return [stream.append(f"{caller} {number}") for number in range(20)]

    outcomes = together([partial(append, caller) for caller in range(16)])
    assert all(ids == sorted(ids) for ids in outcomes)
    assert sorted(id for ids in outcomes for id in ids) == [row["id"] for row in entries_of(admin, stream.name)]
    assert transactions_of(admin, stream.name) < 320


@ASYNC
def test_a_thousand_tasks_append(new_hub: NewHub, installed: str, channel: str, admin: Admin) -> None:
    async def main(hub: AsyncHub) -> list[int]:
        stream = hub.stream(channel)
        return await asyncio.gather(*[stream.append(str(number)) for number in range(3000)])

    with new_hub() as hub:
        assert isinstance(hub, Covered)
        ids = hub.loop.run(main(hub.hub))
    assert ids == sorted(ids)  # in the order in which the tasks were made
    assert payloads_of(admin, channel) == [str(number) for number in range(3000)]
    assert transactions_of(admin, channel) <= 6


@pytest.mark.parametrize("position", [1, 25, 51])
def test_of_many_the_one_that_the_server_refuses_fails_alone(
    new_hub: NewHub, dsn: str, latin1: str, channel: str, position: int
) -> None:
    """It has no letters for the text: in the payload, the key, a header, or the stream's name."""
    there = make_conninfo(dsn, dbname=latin1)
    install(there)
    with Gate(there) as gate, gate.hub(new_hub, there) as hub, psycopg.connect(there, autocommit=True) as admin:
        stream = open_stream(hub, channel)
        stream.append("to open the connection")
        bad: list[Callable[[], object]] = [
            partial(stream.append, "日本"),
            partial(stream.append, "a", "日本"),
            partial(stream.append, "a", None, {"a": "日本"}),
            partial(open_stream(hub, f"日本 {channel}").append, "a"),
            partial(stream.append_many, ["1", "日本", "2"]),
        ]
        calls: list[Callable[[], object]] = [partial(stream.append, text) for text in words(52)]
        calls[position:position] = bad
        with gate.shut():
            workers = [begin_append(hub, call) for call in calls]
        outcomes = [worker.outcome() for worker in workers]
        for error in outcomes[position : position + len(bad)]:
            assert isinstance(error, ServerRefused), error
            assert error.sqlstate == "22P05"
            assert error.__cause__ is not None
        assert all(isinstance(outcome, int) for outcome in outcomes[:position] + outcomes[position + len(bad) :])
        assert sorted(payloads_of(admin, channel)) == sorted(["to open the connection", *words(52)])
        assert hub.stats().appended == 53


def test_the_one_that_the_connection_cannot_express_fails_alone(
    gate: Gate, new_hub: NewHub, installed: str, channel: str, admin: Admin
) -> None:
    with gate.hub(new_hub, installed, client_encoding="LATIN1") as hub:
        stream = open_stream(hub, channel)
        stream.append("é")
        with gate.shut():
            workers = begin_appends(hub, stream, ["a", "日本", "b"])
        first, bad, last = [worker.outcome() for worker in workers]
        assert isinstance(bad, PayloadError)
        assert "client_encoding" in str(bad)
        assert (type(first), type(last)) == (int, int)
    assert payloads_of(admin, channel) == ["é", "a", "b"]


# -- the lock for NOTIFY


@pytest.fixture
def elsewhere(session_server: TemporaryServer) -> Iterator[str]:
    """A server whose commits may be made to wait for a standby that does not come."""
    dsn = session_server.dsn()
    install(dsn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("ALTER DATABASE postgres SET synchronous_commit = local")
        with held_up_commits(dsn):
            yield dsn
        admin.execute("ALTER DATABASE postgres RESET synchronous_commit")


@contextmanager
def notify_lock_held(dsn: str) -> Iterator[None]:
    """Somebody is held up in the commit of a transaction with a notification."""
    with psycopg.connect(dsn) as holder, psycopg.connect(dsn, autocommit=True) as admin:
        holder.execute("SET synchronous_commit = on")
        holder.commit()
        holder.execute("SELECT pg_logical_emit_message(true, 'something', 'to wait for')")
        holder.execute("SELECT pg_notify('something', '')")
        worker = Worker(holder.commit)
        wait_until(lambda: is_held_up(admin, holder))
        try:
            yield
            assert worker.busy
        finally:
            admin.execute("SELECT pg_cancel_backend(%s)", [holder.info.backend_pid])
            worker.outcome()


def test_an_append_does_not_wait_for_the_lock_on_notify_nor_does_its_reader(
    new_hub: NewHub, elsewhere: str, channel: str
) -> None:
    with new_hub(elsewhere, heartbeat=None) as hub:
        stream = open_stream(hub, channel, poll_interval=0.2)
        with stream.read() as reader:
            with notify_lock_held(elsewhere):
                for text in words(3):
                    stream.append(text)
                    assert following(reader, 1) == [text]  # by the poll, since no hint gets through
            stream.append("after")
            assert following(reader, 1) == ["after"]


# -- idempotency


def test_with_an_idempotency_key_it_is_stored_once(hub: AnyHub, stream: AnyStream, admin: Admin) -> None:
    first = stream.append("17", idempotency_key="a")
    assert stream.append("other", "key", {}, idempotency_key="a") == first
    assert stream.append("18", idempotency_key="b") != first
    assert stream.append("17") != first
    assert open_stream(hub, f"{stream.name} 2").append("17", idempotency_key="a") != first
    assert pgpubsub.append(admin, stream.name, "17", idempotency_key="a") == first
    assert payloads_of(admin, stream.name) == ["17", "18", "17"]


def test_however_many_append_it_at_once(new_hub: NewHub, installed: str, channel: str, admin: Admin) -> None:
    with new_hub() as first, new_hub() as second, new_hub() as third:
        calls = [
            partial(open_stream(hub, channel).append, "a", idempotency_key=str(number % 10))
            for number in range(60)
            for hub in (first, second, third)
        ]
        outcomes = together(calls)
    rows = {row["idempotency_key"]: row["id"] for row in entries_of(admin, channel)}
    assert outcomes == [rows[call.keywords["idempotency_key"]] for call in calls]
    assert len(rows) == entries_stored(admin, channel) == 10


def test_in_one_statement_too(gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin) -> None:
    orders.append("0", idempotency_key="0")
    with gate.shut():
        workers = [
            begin_append(gated, partial(orders.append, str(number), idempotency_key=str(number % 5)))
            for number in range(250)
        ]
    ids = [worker.outcome() for worker in workers]
    rows = {row["idempotency_key"]: row["id"] for row in entries_of(admin, orders.name)}
    assert ids == [rows[str(number % 5)] for number in range(250)]
    assert len(rows) == 5


@pytest.mark.parametrize("commit", [True, False], ids=["that commits", "that rolls back"])
def test_one_whose_key_another_transaction_has_waits_for_it_and_others_do_not(
    hub: AnyHub, stream: AnyStream, installed: str, admin: Admin, commit: bool
) -> None:
    with psycopg.connect(installed) as other:
        theirs = pgpubsub.append(other, stream.name, "theirs", idempotency_key="a")
        worker = begin_append(hub, partial(stream.append, "ours", idempotency_key="a"))
        for number in range(5):
            stream.append("no key")
            stream.append("another key", idempotency_key=str(number))
        assert worker.busy
        (other.commit if commit else other.rollback)()
        id = worker.outcome()
    assert (id == theirs) is commit
    stored = payloads_of(admin, stream.name)
    assert len(stored) == 11
    assert stored.count("theirs" if commit else "ours") == 1


def test_it_waits_in_vain_for_send_timeout(new_hub: NewHub, installed: str, channel: str, admin: Admin) -> None:
    with new_hub(send_timeout=0.3) as hub, psycopg.connect(installed) as other:
        pgpubsub.append(other, channel, "theirs", idempotency_key="a")
        with pytest.raises(SendTimeout, match="could not be sent within 0.3 s"):
            open_stream(hub, channel).append("ours", idempotency_key="a")
        other.rollback()
        hub.close()
    assert entries_stored(admin, channel) == 0


def test_it_waits_in_vain_when_the_hub_is_closed(new_hub: NewHub, installed: str, channel: str, admin: Admin) -> None:
    with new_hub() as hub, psycopg.connect(installed) as other:
        pgpubsub.append(other, channel, "theirs", idempotency_key="a")
        worker = begin_append(hub, partial(open_stream(hub, channel).append, "ours", idempotency_key="a"))
        wait_until(lambda: backends(admin, "append") != [])
        hub.close(0)
        assert isinstance(worker.outcome(), Closed | SendUncertain), worker.outcome()
        other.rollback()
    assert entries_stored(admin, channel) == 0


@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_it_is_not_troubled_by_what_the_role_has_for_its_transactions(
    new_hub: NewHub, installed: str, channel: str, level: str
) -> None:
    conninfo = make_conninfo(installed, options=f"-c default_transaction_isolation={level}")

    def append(hub: AnyHub) -> list[int]:
        stream = open_stream(hub, channel)
        return [stream.append("a", idempotency_key=str(number)) for number in range(60)]

    with new_hub(conninfo) as first, new_hub(conninfo) as second:
        outcomes = together([partial(append, hub) for hub in (first, second) * 3])
    assert all(outcome == outcomes[0] for outcome in outcomes), outcomes


# -- connections that break


def test_what_was_in_flight_when_the_connection_broke_is_uncertain(
    gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin
) -> None:
    gate.deafen("to_client")
    workers = begin_appends(gated, orders, words(3))
    wait_until(lambda: entries_stored(admin, orders.name) > 0)
    gate.hear()
    gate.reset()
    first, *others = [worker.outcome() for worker in workers]
    assert isinstance(first, SendUncertain)
    assert "the append to stream" in str(first)
    assert all(isinstance(other, int | SendUncertain) for other in others)
    stored = payloads_of(admin, orders.name)
    assert len(stored) == len(set(stored)), "nothing is repeated"
    assert orders.append("after") > 0


def test_with_an_idempotency_key_it_is_repeated_and_stored_once(
    gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin
) -> None:
    gate.deafen("to_client")
    worker = begin_append(gated, partial(orders.append, "a", idempotency_key="a"))
    others = [begin_append(gated, partial(orders.append, "b", idempotency_key=str(number))) for number in range(5)]
    wait_until(lambda: entries_stored(admin, orders.name) == 1)
    gate.hear()
    gate.reset()
    ids = [worker.outcome(), *[other.outcome() for other in others]]
    rows = entries_of(admin, orders.name)
    assert sorted(ids) == [row["id"] for row in rows]
    assert [row["payload"] for row in rows] == ["a", *["b"] * 5]
    assert gated.stats().appended == 7


def test_it_is_repeated_when_it_had_not_arrived_either(
    gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin
) -> None:
    gate.deafen("to_server")
    worker = begin_append(gated, partial(orders.append, "a", idempotency_key="a"))
    gate.hear()
    gate.reset()
    id = worker.outcome()
    assert [row["id"] for row in entries_of(admin, orders.name)] == [id]


def test_after_an_outage_that_is_too_long_it_is_uncertain_with_a_key_too(
    gate: Gate, new_hub: NewHub, installed: str, channel: str
) -> None:
    with gate.hub(new_hub, installed, send_timeout=0.5) as hub:
        stream = open_stream(hub, channel)
        stream.append("")
        gate.deafen("to_client")
        worker = begin_append(hub, partial(stream.append, "a", idempotency_key="a"))
        gate.refuse()
        gate.hear()
        gate.reset()
        late = worker.outcome()
        assert isinstance(late, SendUncertain)
        assert "will not be repeated any more" in str(late)
        with pytest.raises(SendTimeout, match="could not be sent within 0.5 s, and will not be"):
            stream.append("b")
        gate.accept()
        wait_until(lambda: isinstance(outcome_of(partial(stream.append, "c")), int))


def test_the_server_ends_the_connection_and_the_next_append_goes_over_another(stream: AnyStream, admin: Admin) -> None:
    stream.append("a")
    for pid in backends(admin, "append"):
        admin.execute("SELECT pg_terminate_backend(%s)", [pid])
    outcomes = [Worker(partial(stream.append, "b", idempotency_key="b")).outcome() for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [int] * 3
    assert payloads_of(admin, stream.name) == ["a", "b"]


# -- called off


@ASYNC
def test_what_is_cancelled_before_it_is_in_flight_is_not_stored(
    gated: Covered, gate: Gate, channel: str, admin: Admin
) -> None:
    async def main() -> list[Any]:
        stream = gated.hub.stream(channel)
        first = asyncio.create_task(stream.append("first"))
        await asyncio.sleep(0)
        others = [asyncio.create_task(stream.append(f"{number}")) for number in range(10)]
        await asyncio.sleep(0)
        for task in others[::2]:
            task.cancel()
        await asyncio.sleep(0)
        return [first, *others]

    with gate.shut():
        tasks = gated.loop.run(main())

    async def outcomes() -> list[Any]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = gated.loop.run(outcomes())
    assert [type(one) for one in found] == [int, *[asyncio.CancelledError, int] * 5]
    assert payloads_of(admin, channel) == ["first", "1", "3", "5", "7", "9"]


@ASYNC
def test_what_is_cancelled_later_may_be_stored_and_the_others_are(
    gated: Covered, gate: Gate, channel: str, admin: Admin
) -> None:
    async def begin() -> list[asyncio.Task[int]]:
        stream = gated.hub.stream(channel)
        tasks = [asyncio.create_task(stream.append(f"{number}")) for number in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        return tasks

    async def outcomes(tasks: list[asyncio.Task[int]]) -> list[Any]:
        return await asyncio.gather(*tasks, return_exceptions=True)

    with gate.shut():
        tasks = gated.loop.run(begin())
    found = gated.loop.run(outcomes(tasks))
    assert [type(one) for one in found] == [asyncio.CancelledError, int, int]
    assert payloads_of(admin, channel)[-2:] == ["1", "2"]


# -- the end


def test_what_waits_is_stored_before_the_hub_closes(gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin) -> None:
    with gate.shut():
        workers = begin_appends(gated, orders, words(20))
        closing = Worker(partial(gated.close, 20))
        wait_until(lambda: isinstance(outcome_of(gated.subscribe().__enter__), Closed))
    assert closing.outcome() is None
    assert [type(worker.outcome()) for worker in workers] == [int] * 20
    assert sorted(payloads_of(admin, orders.name)) == sorted(words(20))


def outcome_of(call: Callable[[], object]) -> object:
    return Worker(call).outcome()


def test_closing_without_patience_tells_each_what_became_of_it(
    gated: AnyHub, gate: Gate, orders: AnyStream, admin: Admin
) -> None:
    gate.deafen()
    first, *others = begin_appends(gated, orders, words(5))
    gated.close(0)
    assert isinstance(first.outcome(), SendUncertain)
    assert [type(worker.outcome()) for worker in others] == [Closed] * 4
    gate.hear(resume=True)
    assert set(payloads_of(admin, orders.name)) <= {"good 0"}


def test_a_closed_hub_appends_nothing(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub() as hub:
        stream = open_stream(hub, channel)
    for call in (partial(stream.append, "a"), partial(stream.append_many, ["a"]), stream.read().__enter__):
        with pytest.raises(Closed):
            call()


# -- what is told about it


def test_appends_are_counted_and_observed(new_hub: NewHub, dsn: str, latin1: str, channel: str) -> None:
    there = make_conninfo(dsn, dbname=latin1)
    install(there)
    seen: list[Observation] = []
    with new_hub(there, observe=seen.append) as hub:
        assert hub.stats().appended == 0
        stream = open_stream(hub, channel)
        stream.append("a")
        stream.append_many(["b", "c"])
        stream.append("d", idempotency_key="d")
        with pytest.raises(ServerRefused):
            stream.append("日本")
        stats = hub.stats()
        assert (stats.appended, stats.sent) == (4, 0)
    appends = [one for one in seen if one.name.startswith("append")]
    assert [(one.name, one.channels) for one in appends] == [("appended", (channel,))] * 3 + [
        ("append_failed", (channel,))
    ]
    assert all(one.seconds is not None and 0 <= one.seconds < PATIENCE for one in appends)
    assert appends[-1].detail != ""
    assert not [one for one in seen if one.name in ("sent", "send_failed")], "hints are nobody's"


def test_a_primary_that_is_read_only_by_default_is_no_standby(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub(installed, options="-c default_transaction_read_only=on") as hub:
        stream = open_stream(hub, channel)
        assert everything(stream) == []
        for use in (partial(stream.append, "a"), consume(stream, "billing").__enter__):
            with pytest.raises(ServerRefused, match="is a primary, and default_transaction_read_only is on") as caught:
                use()
            assert not isinstance(caught.value, ServerInRecovery)
        assert hub.state.live


def test_a_connection_for_appends_is_made_when_it_is_needed(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub(user=new_user(installed, channel)) as hub, psycopg.connect(installed, autocommit=True) as admin:
        query = "SELECT application_name FROM pg_stat_activity WHERE usename = %s"
        name = f"user {channel}"

        def roles() -> list[str]:
            return sorted(row[0].split()[1] for row in admin.execute(query, [name]).fetchall())

        assert roles() == ["listen", "notify"]
        open_stream(hub, channel).append("a")
        assert roles() == ["append", "listen", "notify"]


def new_user(dsn: str, channel: str) -> str:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE ROLE {identifier(f'user {channel}')} LOGIN SUPERUSER")
    return f"user {channel}"
