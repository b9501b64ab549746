"""Retention: what a stream keeps, who removes the rest, and what readers are told that had not got it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import BEGINNING, END, Entry, Gap, GapReason, Hub, UnsupportedConnection
from pgpubsub.streams import UNCHANGED, retention, trim
from tests.contract.faces import PATIENCE, AnyHub
from tests.contract.owners import OWNERS, connected
from tests.contract.sending import wait_until, words
from tests.contract.streams import (
    KINDS,
    AnyReader,
    AnyStream,
    all_payloads,
    everything,
    following,
    identifier,
    install,
    open_stream,
    payloads_of,
)

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def keep(admin: Admin, stream: AnyStream, **settings: Any) -> None:
    """Change what a stream keeps."""
    pgpubsub.streams.create(admin, stream.name, **settings)


def keep_few(admin: Admin, stream: AnyStream, count: int = 1) -> int:
    """Remove all but so many."""
    keep(admin, stream, max_entries=count)
    return trim(admin, stream.name)


def settings_of(admin: Admin, name: str) -> tuple[Any, ...] | None:
    query = "SELECT wake, max_age, max_entries, keep_unconsumed FROM pgpubsub.stream WHERE name = %s"
    return admin.execute(query, [name]).fetchone()


def age(admin: Admin, name: str, seconds: float, *payloads: str) -> None:
    """Let these entries be so much older."""
    query = (
        "UPDATE pgpubsub.entry SET appended_at = appended_at - make_interval(secs => %s)"
        " WHERE stream = pgpubsub.stream_id(%s) AND payload = ANY (%s)"
    )
    admin.execute(query, [seconds, name, list(payloads)])


def next_gap(reader: AnyReader) -> Gap:
    event = reader.get(PATIENCE)
    assert isinstance(event, Gap), event
    return event


def all_events(stream: AnyStream, after: Any = BEGINNING) -> list[Any]:
    """Payloads, and the reasons of gaps, of what there is."""
    with stream.read(after) as reader:
        stream.append("the end")
        found: list[Any] = []
        while not found or found[-1] != "the end":
            event = reader.get(PATIENCE)
            found.append(str(event.reason) if isinstance(event, Gap) else event.payload)
    return found[:-1]


# -- settings


def test_a_stream_keeps_everything_unless_it_is_told_otherwise(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel)
    assert settings_of(admin, channel) == ("notify", None, None, False)
    pgpubsub.append(admin, channel, "17")
    age(admin, channel, 1e9, "17")
    assert trim(admin, channel) == 0
    assert payloads_of(admin, channel) == ["17"]


def test_what_is_left_out_stays_as_it_is(installed: str, admin: Admin, channel: str) -> None:
    create = partial(pgpubsub.streams.create, admin, channel)
    create(wake="poll", max_age=90)
    create(max_entries=5)
    assert settings_of(admin, channel) == ("poll", timedelta(seconds=90), 5, False)
    create(keep_unconsumed=True, max_age=timedelta(days=2, microseconds=3))
    assert settings_of(admin, channel) == ("poll", timedelta(days=2, microseconds=3), 5, True)
    create(wake="notify", max_age=None, keep_unconsumed=False)
    create()
    create(max_entries=UNCHANGED)
    assert settings_of(admin, channel) == ("notify", None, 5, False)
    create(max_entries=None)
    assert settings_of(admin, channel) == ("notify", None, None, False)


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"max_age": 0}, ValueError, "max_age is a positive number of seconds, not 0"),
        ({"max_age": timedelta(seconds=-1)}, ValueError, "max_age is a positive number"),
        ({"max_age": timedelta.max}, ValueError, "max_age is up to a hundred years"),
        ({"max_age": float("inf")}, ValueError, "max_age is up to a hundred years"),
        ({"max_age": 1e-9}, ValueError, "and at least a microsecond"),
        ({"max_age": float("nan")}, ValueError, "max_age is a positive number"),
        ({"max_age": "1 day"}, TypeError, "max_age is a number of seconds, not '1 day'"),
        ({"max_age": True}, TypeError, "max_age is a number of seconds"),
        ({"max_entries": 0}, ValueError, "max_entries is a positive number up to 10\\^15, not 0"),
        ({"max_entries": -1}, ValueError, "max_entries is a positive number"),
        ({"max_entries": 10**16}, ValueError, "max_entries is a positive number"),
        ({"max_entries": 1.5}, TypeError, "max_entries is a number of entries, not 1.5"),
        ({"max_entries": True}, TypeError, "max_entries is a number of entries"),
        ({"keep_unconsumed": None}, TypeError, "keep_unconsumed is True or False, not None"),
        ({"keep_unconsumed": 1}, TypeError, "keep_unconsumed is True or False, not 1"),
        ({"wake": None}, ValueError, "wake is 'notify' or 'poll', not None"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changed(
    installed: str, admin: Admin, channel: str, settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        pgpubsub.streams.create(admin, channel, **settings)
    assert settings_of(admin, channel) is None


@pytest.mark.parametrize("autocommit", [False, True], ids=["in a transaction", "in autocommit mode"])
@pytest.mark.parametrize("kind", OWNERS)
def test_it_is_set_and_trimmed_over_any_connection(
    installed: str, admin: Admin, channel: str, kind: str, autocommit: bool
) -> None:
    trim(admin)
    for number in range(5):
        pgpubsub.append(admin, channel, str(number))
    with connected(kind, installed, autocommit=autocommit) as owner:
        run = runner_of(owner.notify)

        def work() -> int:
            if run is None:
                pgpubsub.streams.create(owner.conn, channel, max_entries=2)
                return trim(owner.conn, channel) + trim(owner.conn)
            run(pgpubsub.streams.create_async(owner.conn, channel, max_entries=2))
            return int(
                run(pgpubsub.streams.trim_async(owner.conn, channel)) + run(pgpubsub.streams.trim_async(owner.conn))
            )

        if autocommit:
            assert work() == 3
        else:
            with suppress(ZeroDivisionError), owner.transaction():
                assert work() == 3
                raise ZeroDivisionError  # which rolls it back
            assert payloads_of(admin, channel) == list("01234")
            with owner.transaction():
                assert work() == 3
    assert payloads_of(admin, channel) == list("34")


def runner_of(notify: Callable[..., None]) -> Callable[[Any], Any] | None:
    """How an asynchronous owner runs a coroutine."""
    if not getattr(notify, "__closure__", None):
        return None
    variables = dict(zip(notify.__code__.co_freevars, notify.__closure__ or (), strict=True))
    run: Callable[[Any], Any] = variables["runner"].cell_contents.run
    return run


def test_the_wrong_kind_of_connection_is_told_what_to_do(installed: str, admin: Admin) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(installed) as connection:
            with pytest.raises(UnsupportedConnection, match=r"use await pgpubsub.streams.trim_async\(\)"):
                trim(connection)
        with pytest.raises(UnsupportedConnection, match=r"use pgpubsub.streams.trim\(\)"):
            await pgpubsub.streams.trim_async(admin)

    asyncio.run(main())
    with pytest.raises(ValueError, match="the name of a stream"):
        trim(admin, "")


def test_a_schema_may_have_any_name(dsn: str, admin: Admin, channel: str) -> None:
    schema = f'{channel} {{0}} 100% %s "'
    try:
        install(dsn, schema)
        pgpubsub.streams.create(admin, "orders", max_entries=1, schema=schema)
        for text in words(3):
            pgpubsub.append(admin, "orders", text, schema=schema)
        assert trim(admin, schema=schema) == 2
        assert trim(admin, "orders", schema=schema) == 0
        install(dsn, schema)
        assert payloads_of(admin, "orders", schema) == words(3)[2:]
    finally:
        admin.execute(f"DROP SCHEMA IF EXISTS {identifier(schema)} CASCADE")


# -- what is removed


def test_what_is_older_than_the_age_goes(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_age=60)
    for text in "abcd":
        pgpubsub.append(admin, channel, text)
    age(admin, channel, 61, "a", "b")
    age(admin, channel, 50, "c")
    assert trim(admin, channel) == 2
    assert payloads_of(admin, channel) == ["c", "d"]
    age(admin, channel, 11, "c", "d")
    assert trim(admin, channel) == 1


def test_what_is_more_than_the_number_goes(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=3)
    for text in "abc":
        pgpubsub.append(admin, channel, text)
    assert trim(admin, channel) == 0
    for text in "de":
        pgpubsub.append(admin, channel, text)
    assert trim(admin, channel) == 2
    assert payloads_of(admin, channel) == ["c", "d", "e"]


def test_with_both_whatever_either_allows(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=3, max_age=60)
    for text in "abcde":
        pgpubsub.append(admin, channel, text)
    age(admin, channel, 61, "a")
    assert trim(admin, channel) == 2
    age(admin, channel, 61, "c", "d")
    assert trim(admin, channel) == 2
    assert payloads_of(admin, channel) == ["e"]


def test_many_are_counted_little_by_little_and_exactly_when_that_is_done(
    installed: str, admin: Admin, channel: str
) -> None:
    def insert(count: int) -> None:
        admin.execute(
            "INSERT INTO pgpubsub.entry (stream, payload) SELECT pgpubsub.stream_id(%s), number"
            " FROM generate_series(1, %s) AS number",
            [channel, count],
        )

    def count() -> int:
        return len(payloads_of(admin, channel))

    def step() -> Any:
        return admin.execute("SELECT pgpubsub.trim(%s, 100)", [channel]).fetchone()

    pgpubsub.streams.create(admin, channel, max_entries=25_000)
    insert(24_000)
    assert [step(), step(), step(), step()] == [(None,), (None,), (0,), (0,)]
    insert(2_000)
    assert trim(admin, channel) == 0, "that is less than a tenth more"
    insert(1_000)
    assert [step(), step(), step()] == [(None,), (None,), (100,)]
    assert trim(admin, channel) == 1_900
    assert count() == 25_000
    insert(3_000)
    pgpubsub.streams.create(admin, channel, max_entries=28_000)
    assert trim(admin, channel) == 0, "what was counted for another number does not count"
    pgpubsub.streams.create(admin, channel, max_age=3600, max_entries=None)
    assert trim(admin, channel) == 0
    pgpubsub.streams.create(admin, channel, max_entries=26_500)
    assert trim(admin, channel) == 1_500
    admin.execute("DELETE FROM pgpubsub.entry WHERE stream = pgpubsub.stream_id(%s)", [channel])
    assert trim(admin, channel) == 0
    insert(26_500)
    assert trim(admin, channel) == 0
    assert count() == 26_500


def test_one_call_of_the_function_removes_a_batch_the_oldest_first(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=1)
    for text in words(12):
        pgpubsub.append(admin, channel, text)
    removed = []
    for left in (7, 2, 1, 1):
        removed += [admin.execute("SELECT pgpubsub.trim(%s, 5)", [channel]).fetchone()]
        assert payloads_of(admin, channel) == words(12)[-left:]
    assert removed == [(5,), (5,), (1,), (0,)]
    assert admin.execute("SELECT pgpubsub.trim(%s, 5)", ["nobody's"]).fetchone() == (0,)


def test_without_a_name_all_streams_are_trimmed(installed: str, admin: Admin, channel: str) -> None:
    names = [f"{channel} {number}" for number in range(3)]
    for name in names:
        for text in words(3):
            pgpubsub.append(admin, name, text)
    trim(admin)
    pgpubsub.streams.create(admin, names[0], max_entries=1)
    pgpubsub.streams.create(admin, names[2], max_age=0.000001)
    assert trim(admin) == 5
    assert [payloads_of(admin, name) for name in names] == [words(3)[2:], words(3), []]


# -- among others


def test_what_an_open_transaction_could_still_come_before_stays(installed: str, admin: Admin, channel: str) -> None:
    """So that nothing below what was removed is appended afterwards."""
    pgpubsub.streams.create(admin, channel, max_age=0.000001)
    with psycopg.connect(installed) as writing:
        pgpubsub.append(admin, channel, "before")
        pgpubsub.append(writing, channel, "under way")
        pgpubsub.append(admin, channel, "after")
        assert trim(admin, channel) == 1
        assert payloads_of(admin, channel) == ["after"]
        writing.commit()
        assert payloads_of(admin, channel) == ["under way", "after"]
        assert trim(admin, channel) == 2


def test_who_only_reads_holds_nothing_up(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=1)
    with psycopg.connect(installed) as reading:
        reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for text in words(3):
            pgpubsub.append(admin, channel, text)
        assert payloads_of(reading, channel) == words(3)
        assert trim(admin, channel) == 2
        assert payloads_of(reading, channel) == words(3)


def test_nobody_waits_for_who_trims(
    stream: AnyStream, new_hub: NewHub, installed: str, admin: Admin, channel: str
) -> None:
    for text in words(5):
        stream.append(text)
    keep(admin, stream, max_entries=2)
    admin.execute("SET lock_timeout = '2s'")
    with psycopg.connect(installed) as trimming:
        assert trim(trimming, channel) == 3
        with stream.read() as reader:
            assert following(reader, 5) == words(5)  # as yet
            stream.append("a hub's")
            pgpubsub.append(admin, channel, "a transaction's")
            stream.append("once", idempotency_key="1")
            stream.append("once", idempotency_key="1")
            assert following(reader, 3) == ["a hub's", "a transaction's", "once"]
            keep(admin, stream, max_entries=1)
            assert trim(admin, channel) == 0, "somebody is at it"
            trimming.commit()
            assert trim(admin, channel) == 4
            stream.append("after")
            assert following(reader, 1) == ["after"]


def test_nor_does_who_trims_wait_for_anybody(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=1)
    for text in words(4):
        pgpubsub.append(admin, channel, text)
    admin.execute("SET lock_timeout = '2s'")
    with psycopg.connect(installed) as other:
        query = "SELECT FROM pgpubsub.entry WHERE stream = pgpubsub.stream_id(%s) AND payload = %s FOR UPDATE"
        other.execute(query, [channel, words(4)[1]])
        assert trim(admin, channel) == 2
        other.rollback()
    assert payloads_of(admin, channel) == [words(4)[1], words(4)[3]]
    assert trim(admin, channel) == 1, "what was left behind"


# -- what readers are told


def test_a_reader_that_was_away_gets_a_gap_and_goes_on_with_what_is_left(
    stream: AnyStream, new_hub: NewHub, admin: Admin
) -> None:
    ids = [stream.append(text) for text in words(6)]
    position = everything(stream)[1].position
    assert keep_few(admin, stream, 2) == 4
    with new_hub() as hub, open_stream(hub, stream.name).read(position) as reader:
        assert reader.position == position
        gap = next_gap(reader)
        assert (gap.reason, gap.channels, gap.count) == (GapReason.TRIMMED, (stream.name,), None)
        assert "retention has removed entries" in gap.detail
        entry = reader.get(PATIENCE)
        assert entry.id == ids[4]
        assert following(reader, 1) == [words(6)[5]]
        stream.append("later")
        assert following(reader, 1) == ["later"]
    assert all_payloads(stream, entry.position) == [words(6)[5], "later"]


def test_until_it_has_got_an_entry_it_stands_where_it_stood(stream: AnyStream, admin: Admin) -> None:
    for text in words(4):
        stream.append(text)
    position = everything(stream)[0].position
    keep_few(admin, stream)
    for _ in range(2):
        with stream.read(position) as reader:
            assert next_gap(reader).reason is GapReason.TRIMMED
    assert all_events(stream, position) == ["trimmed", words(4)[3]]


def test_who_missed_nothing_is_not_told(stream: AnyStream, admin: Admin) -> None:
    for text in words(6):
        stream.append(text)
    positions = [entry.position for entry in everything(stream)]
    assert keep_few(admin, stream, 3) == 3
    for number in (2, 3, 4, 5):
        assert all_payloads(stream, positions[number]) == words(6)[number + 1 :]
    assert all_payloads(stream) == words(6)[3:], "it begins at the oldest there is"
    for number in (0, 1):
        assert all_events(stream, positions[number])[:2] == ["trimmed", words(6)[3]]


def test_in_the_midst_of_a_batch_it_is_exact_too(stream: AnyStream, admin: Admin) -> None:
    """All of these are of one transaction."""
    stream.append_many(words(6))
    positions = [entry.position for entry in everything(stream)]
    assert keep_few(admin, stream, 3) == 3
    for number in (2, 3, 4, 5):
        assert all_payloads(stream, positions[number]) == words(6)[number + 1 :]
    assert all_events(stream, positions[1]) == ["trimmed", *words(6)[3:]]


def test_transactions_that_appended_nothing_do_not_count(stream: AnyStream, installed: str, admin: Admin) -> None:
    """Though they were open when the position was taken, so that it is not known to cover them."""
    with psycopg.connect(installed) as idle, psycopg.connect(installed) as busy:
        idle.execute("SELECT pg_current_xact_id()")
        pgpubsub.append(busy, f"{stream.name} 2", "17")
        stream.append("a")
        (entry,) = everything(stream)
        busy.commit()
        idle.rollback()
    keep(admin, stream, max_age=0.000001)
    assert trim(admin, stream.name) == 1
    assert all_payloads(stream, entry.position) == []
    stream.append("b")
    assert all_payloads(stream, entry.position) == ["b"]


def test_and_those_that_did_do(stream: AnyStream, installed: str, admin: Admin) -> None:
    with psycopg.connect(installed) as busy:
        pgpubsub.append(busy, stream.name, "late")
        stream.append("a")
        (entry,) = everything(stream)
        busy.commit()
    keep(admin, stream, max_age=0.000001)
    assert trim(admin, stream.name) == 2
    assert all_events(stream, entry.position) == ["trimmed"]


def test_a_reader_that_is_slow_is_told_where_entries_are_missing(
    new_hub: NewHub, stream: AnyStream, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads page by page, and what it has read before is its own."""
    monkeypatch.setattr("pgpubsub.streams.steps.ROWS", 10)
    monkeypatch.setattr("pgpubsub.streams.inbox.FEW", 0)
    stream.append_many(words(100))
    with new_hub() as hub, open_stream(hub, stream.name).read() as reader:
        found = following(reader, 5)
        assert keep_few(admin, stream, 7) == 93
        while not isinstance(event := reader.get(PATIENCE), Gap):
            found.append(event.payload)
        assert event.reason is GapReason.TRIMMED
        assert found == words(100)[: len(found)]
        assert len(found) < 50
        assert following(reader, 7) == words(100)[93:]
        stream.append("later")
        assert following(reader, 1) == ["later"]


def test_a_reader_that_waits_is_told_though_nothing_is_left_to_wake_it(
    new_hub: NewHub, stream: AnyStream, admin: Admin
) -> None:
    """Entries come and go between two looks of its: it is told of neither."""
    keep(admin, stream, max_age=0.000001, wake="poll")
    found = []
    with new_hub() as hub, open_stream(hub, stream.name, poll_interval=0.5).read() as reader:
        stream.append("looked")  # so it has begun
        assert following(reader, 1) == ["looked"]
        while GapReason.TRIMMED not in found:  # it may be quicker
            pgpubsub.append(admin, stream.name, "17")
            trim(admin, stream.name)
            event = reader.get(PATIENCE)
            found.append(event.payload if isinstance(event, Entry) else event.reason)
        with pytest.raises(TimeoutError):
            reader.get(1.5)  # and it is told once
        keep(admin, stream, max_age=None)
        stream.append("later")
        assert following(reader, 1) == ["later"]


def test_what_comes_and_goes_before_its_first_entry_counts_too(stream: AnyStream, admin: Admin) -> None:
    for after in (BEGINNING, END):
        with stream.read(after) as reader:
            stream.append("looked")  # so it has
            assert following(reader, 1) == ["looked"]
        keep(admin, stream, max_age=0.000001)
        trim(admin, stream.name)
    with stream.read(END) as reader:
        position = reader.position
    stream.append("a")
    stream.append("b")
    assert all_payloads(stream, position) == ["a", "b"]
    trim(admin, stream.name)
    assert all_events(stream, position) == ["trimmed"]


def test_the_end_of_a_stream_that_nothing_was_ever_in_is_a_place_too(stream: AnyStream, admin: Admin) -> None:
    with stream.read(END) as reader:
        position = reader.position
    stream.append("a")
    keep(admin, stream, max_age=0.000001)
    trim(admin, stream.name)
    assert all_events(stream, position) == ["trimmed"]


def test_who_knows_all_that_was_removed_is_not_told_of_another_history(stream: AnyStream, admin: Admin) -> None:
    """Though its newest entry is not there any more."""
    for text in words(3):
        stream.append(text)
    old, _, last = [entry.position for entry in everything(stream)]
    keep(admin, stream, max_age=0.000001)
    assert trim(admin, stream.name) == 3
    assert all_payloads(stream, last) == []
    keep(admin, stream, max_age=None)
    stream.append("a")
    assert all_payloads(stream, last) == ["a"]
    assert all_events(stream, old) == ["trimmed", "a"]


def test_a_live_reader_goes_on_over_a_new_connection(new_hub: NewHub, stream: AnyStream, admin: Admin) -> None:
    """Which looks for its newest entry, in vain."""
    with new_hub() as hub, open_stream(hub, stream.name).read() as reader:
        stream.append_many(words(3))
        assert following(reader, 3) == words(3)
        keep(admin, stream, max_age=0.000001)
        assert trim(admin, stream.name) == 3
        keep(admin, stream, max_age=None)
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub%'")
        wait_until(lambda: _appends(stream, "a"))
        assert following(reader, 1) == ["a"]


def _appends(stream: AnyStream, text: str) -> bool:
    stream.append(text, idempotency_key=text)
    return True


def test_a_deletion_of_ones_own_is_still_another_history(stream: AnyStream, admin: Admin) -> None:
    stream.append_many(words(3))
    keep_few(admin, stream)
    (entry,) = everything(stream)
    stream.append("a")
    newest = everything(stream)[-1]
    admin.execute("DELETE FROM pgpubsub.entry WHERE id = %s", [newest.id])
    assert all_events(stream, newest.position)[0] == "rewound"
    assert entry.payload == words(3)[2]


# -- groups


@pytest.fixture
def group_hub(installed: str) -> Iterator[Hub]:
    with Hub(installed) as hub:
        yield hub


def handle(hub: Hub, name: str, group: str, count: int | None = None) -> list[str]:
    """Handle entries, all or so many."""
    found = []
    with hub.stream(name).consume(group, follow=False) as consumer:
        for delivery in consumer:
            with delivery:
                found.append(delivery.payload)
            if len(found) == count:
                break
    wait_until(lambda: not any(one.members for one in hub.stream(name).groups()))  # it leaves by itself
    return found


def test_what_a_group_has_not_handled_stays(group_hub: Hub, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=1, keep_unconsumed=True)
    for text in words(9):
        pgpubsub.append(admin, channel, text, key="a")
    assert handle(group_hub, channel, "quick") == words(9)
    assert handle(group_hub, channel, "slow", 2) == words(9)[:2]
    removed = trim(admin, channel)
    assert removed in (2, 3, 4), "what it was about to handle may have been parked"
    assert payloads_of(admin, channel) == words(9)[removed:]
    assert trim(admin, channel) == 0
    assert handle(group_hub, channel, "slow") == words(9)[2:]
    assert trim(admin, channel) == 8 - removed, "so many are kept in any case"
    assert payloads_of(admin, channel) == words(9)[8:]


def test_what_is_in_hand_stays(group_hub: Hub, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_age=0.000001, keep_unconsumed=True)
    for text in words(4):
        pgpubsub.append(admin, channel, text, key="a")
    with group_hub.stream(channel).consume("g") as consumer:
        with consumer.get(PATIENCE) as delivery:
            assert delivery.payload == words(4)[0]
            assert trim(admin, channel) == 0
            assert payloads_of(admin, channel) == words(4)
        with consumer.get(PATIENCE):
            wait_until(lambda: trim(admin, channel) == 1)
            assert payloads_of(admin, channel) == words(4)[1:]


def test_what_was_set_aside_does_not_hold_the_others_up(group_hub: Hub, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_age=0.000001, keep_unconsumed=True)
    for text in words(3):
        pgpubsub.append(admin, channel, text, key=text)
    with group_hub.stream(channel).consume("g", attempts=1, follow=False) as consumer:
        for delivery in consumer:
            with suppress(ZeroDivisionError), delivery:
                raise ZeroDivisionError
    assert trim(admin, channel) == 3


def test_without_groups_nothing_is_kept_for_them(installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, max_age=0.000001, keep_unconsumed=True)
    pgpubsub.append(admin, channel, "17")
    assert trim(admin, channel) == 1


def test_a_group_goes_on_with_what_is_left_and_is_told(group_hub: Hub, admin: Admin, channel: str) -> None:
    for text in words(9):
        pgpubsub.append(admin, channel, text, key="a")
    assert handle(group_hub, channel, "g", 1) == words(9)[:1]
    pgpubsub.streams.create(admin, channel, max_entries=2)
    assert trim(admin, channel) == 7
    gaps: list[Gap] = []
    found: list[str] = []
    group_hub.stream(channel).process("g", lambda entry: found.append(entry.payload), follow=False, on_gap=gaps.append)
    assert found[-2:] == words(9)[7:]
    assert [gap.reason for gap in gaps] == ["trimmed"]


def test_a_group_that_found_little_in_a_short_while_is_told_all_the_same(
    group_hub: Hub, admin: Admin, channel: str
) -> None:
    """Most of its slots have had nothing yet."""
    gaps: list[Gap] = []
    found: list[str] = []

    def run() -> None:
        handler = lambda entry: found.append(entry.payload)  # noqa: E731
        group_hub.stream(channel).process("g", handler, follow=False, on_gap=gaps.append)

    pgpubsub.append(admin, channel, "first")
    run()
    for text in words(9):
        pgpubsub.append(admin, channel, text)
    pgpubsub.streams.create(admin, channel, max_entries=2)
    assert trim(admin, channel) == 8
    run()
    assert sorted(found) == sorted(["first", *words(9)[7:]])
    assert {gap.reason for gap in gaps} == {"trimmed"}


def test_a_new_group_that_begins_where_entries_were_removed_is_told_once(
    group_hub: Hub, admin: Admin, channel: str
) -> None:
    for text in words(9):
        pgpubsub.append(admin, channel, text)
    with group_hub.stream(channel).read(follow=False) as reader:
        first = reader.get(PATIENCE)
        assert isinstance(first, Entry)
    pgpubsub.streams.create(admin, channel, max_entries=2)
    assert trim(admin, channel) == 7
    gaps: list[Gap] = []
    found: list[str] = []
    group_hub.stream(channel).process(
        "g", lambda entry: found.append(entry.payload), follow=False, start=first.position, on_gap=gaps.append
    )
    assert sorted(found) == sorted(words(9)[7:])
    assert [gap.reason for gap in gaps] == ["trimmed"]


def test_a_group_is_set_back_to_where_entries_were_removed_and_is_told(
    group_hub: Hub, admin: Admin, channel: str
) -> None:
    for text in words(9):
        pgpubsub.append(admin, channel, text)
    stream = group_hub.stream(channel)
    with stream.read(follow=False) as reader:
        first = reader.get(PATIENCE)
        assert isinstance(first, Entry)
    assert sorted(handle(group_hub, channel, "g")) == sorted(words(9))
    pgpubsub.streams.create(admin, channel, max_entries=2)
    assert trim(admin, channel) == 7
    stream.seek("g", first.position)
    gaps: list[Gap] = []
    found: list[str] = []
    stream.process("g", lambda entry: found.append(entry.payload), follow=False, on_gap=gaps.append)
    assert sorted(found) == sorted(words(9)[7:])
    assert [gap.reason for gap in gaps] == ["trimmed"]


# -- hubs


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch, admin: Admin, installed: str) -> None:
    """Hubs trim several times a second."""
    monkeypatch.setattr(retention, "INTERVAL", 0.05)
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "PAUSE", 0.0)
    admin.execute("DELETE FROM pgpubsub.trimming")


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("by", ["appending", "reading"])
def test_a_hub_trims_by_itself(new_hub: NewHub, installed: str, admin: Admin, channel: str, by: str) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=3)
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        if by == "reading":
            with stream.read() as reader:
                for text in words(9):
                    pgpubsub.append(admin, channel, text)
                assert following(reader, 9) == words(9)
                wait_until(lambda: payloads_of(admin, channel) == words(9)[6:])
                assert reader.get_nowait() is None
        else:
            for text in words(9):
                stream.append(text)
            wait_until(lambda: payloads_of(admin, channel) == words(9)[6:])


@pytest.mark.usefixtures("often")
def test_of_several_hubs_one_trims(new_hub: NewHub, installed: str, admin: Admin, channel: str) -> None:
    admin.execute("INSERT INTO pgpubsub.trimming (at) VALUES (clock_timestamp() + interval '1 hour')")  # a wrong clock
    pgpubsub.streams.create(admin, channel, max_entries=1)

    def claim() -> list[Any]:
        return admin.execute("SELECT pgpubsub.streams_to_trim(3600)").fetchall()

    row: Any = admin.execute("SELECT pgpubsub.stream_id(%s)", [channel]).fetchone()
    assert row in claim()
    assert claim() == []
    with psycopg.connect(installed) as other:
        other.execute("SELECT pgpubsub.streams_to_trim(0)")
        assert admin.execute("SELECT pgpubsub.streams_to_trim(0)").fetchall() == []  # and does not wait


@pytest.mark.usefixtures("often")
def test_a_hub_whose_role_may_not_trim_says_so_once_and_works(
    new_hub: NewHub, installed: str, admin: Admin, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    grants = [
        "USAGE ON SCHEMA pgpubsub TO {}",
        "SELECT ON ALL TABLES IN SCHEMA pgpubsub TO {}",
        "USAGE ON SEQUENCE pgpubsub.entry_id TO {}",
        "INSERT ON pgpubsub.stream, pgpubsub.entry TO {}",
    ]
    role = identifier(channel)
    admin.execute(f"CREATE ROLE {role} LOGIN")
    for grant in grants:
        admin.execute("GRANT " + grant.format(role))
    pgpubsub.streams.create(admin, channel, max_entries=1)
    caplog.set_level(logging.INFO, "pgpubsub.streams")
    rounds: list[object] = []
    try:
        conninfo = psycopg.conninfo.make_conninfo(installed, user=channel)
        with pytest.MonkeyPatch.context() as patch, new_hub(conninfo) as hub:
            tried = retention.Trimmer._tell

            def note(*args: Any) -> None:
                tried(*args)
                rounds.append(args)

            patch.setattr(retention.Trimmer, "_tell", note)
            stream = open_stream(hub, channel)
            stream.append_many(words(3))
            with stream.read() as reader:
                assert following(reader, 3) == words(3)
                wait_until(lambda: len(rounds) > 3)
                stream.append("more")
                assert following(reader, 1) == ["more"]
        told = [record for record in caplog.records if "cannot be trimmed" in record.message]
        assert [(record.levelname, "may not trim" in record.message) for record in told] == [("INFO", True)]
    finally:
        admin.execute(f"DROP OWNED BY {role}")
        admin.execute(f"DROP ROLE {role}")


@pytest.mark.usefixtures("often")
def test_a_connection_that_breaks_harms_nobody(
    new_hub: NewHub, installed: str, admin: Admin, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    pgpubsub.streams.create(admin, channel, max_entries=1)
    failures = iter([pgpubsub.ConnectionLost("it broke"), RuntimeError("a fault"), None])
    seen: list[object] = []

    async def fail_at_first(self: Any, session: Any, stream: int, go_on: Any = retention.Trimmer._trim) -> None:
        error = next(failures, None)
        seen.append(error)
        if error is not None:
            raise error
        await go_on(self, session, stream)

    with pytest.MonkeyPatch.context() as patch, new_hub() as hub:
        patch.setattr(retention.Trimmer, "_trim", fail_at_first)
        stream = open_stream(hub, channel)
        stream.append_many(words(3))
        wait_until(lambda: payloads_of(admin, channel) == words(3)[2:])
    assert len(seen) >= 3
    assert [record.message for record in caplog.records if "it broke" in record.message]


def test_installing_once_more_keeps_settings_and_what_was_removed(
    installed: str, stream: AnyStream, admin: Admin
) -> None:
    for text in words(3):
        stream.append(text)
    position = everything(stream)[0].position
    keep_few(admin, stream)
    install(installed)
    assert settings_of(admin, stream.name) == ("notify", None, 1, False)
    assert all_events(stream, position)[0] == "trimmed"


def test_an_upgrade_adds_what_is_missing_and_does_not_wait_for_long(dsn: str, admin: Admin, channel: str) -> None:
    schema = f"{channel} old"
    of = identifier(schema)
    try:
        install(dsn, schema)
        admin.execute(f"ALTER TABLE {of}.stream DROP COLUMN max_age, DROP COLUMN max_entries, DROP keep_unconsumed")
        admin.execute(f"DROP TABLE {of}.trimmed CASCADE")
        with psycopg.connect(dsn) as writing:
            pgpubsub.append(writing, "orders", "17", schema=schema)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                install(dsn, schema)
        install(dsn, schema)
        pgpubsub.streams.create(admin, "orders", max_entries=1, schema=schema)
        assert trim(admin, schema=schema) == 0
    finally:
        admin.execute(f"DROP SCHEMA {of} CASCADE")
