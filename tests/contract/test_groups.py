"""What consumers of a group get: every entry of the stream, shared among them, until it is handled or set aside."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import BEGINNING, END, LeaseLost, PositionError, PubSubError, SubscriptionClosed, Undecodable
from tests.contract.faces import PATIENCE, AnyHub, Worker
from tests.contract.groups import administer, consume, handle, info, process, rows_of
from tests.contract.sending import wait_until, words
from tests.contract.streams import KINDS, AnyStream, everything, open_stream

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def payloads(events: Any) -> list[Any]:
    return [event.payload for event in events]


def fail_one(consumer: Any, error: BaseException) -> Any:
    """Have the next delivery fail."""
    delivery = consumer.get(PATIENCE)
    with delivery:
        _raise(error)
    return delivery


def _raise(error: BaseException) -> None:
    raise error


# -- handling


def test_each_entry_is_handled_once_and_the_group_remembers(stream: AnyStream) -> None:
    stream.append_many(words(5))
    found = []
    for delivery in consume(stream, "billing", follow=False):
        with delivery:
            found.append((delivery.payload, delivery.attempt))
    assert found == [(word, 1) for word in words(5)]
    assert list(consume(stream, "billing", follow=False)) == []
    stream.append("more")
    with consume(stream, "billing") as consumer:
        assert handle(consumer, 1) == ["more"]


def test_groups_do_not_take_anything_from_each_other(stream: AnyStream) -> None:
    stream.append_many(words(3))
    for group in ("billing", "shipping", "Bücher 'n\" %s"):
        with consume(stream, group) as consumer:
            assert handle(consumer, 3) == words(3)
    assert [one.name for one in administer(stream, "groups")] == sorted(["billing", "shipping", "Bücher 'n\" %s"])


def test_a_consumer_waits_for_what_is_appended(stream: AnyStream) -> None:
    with consume(stream, "billing") as consumer:
        assert consumer.get_nowait() is None
        with pytest.raises(TimeoutError):
            consumer.get(0.05)
        worker = Worker(lambda: handle(consumer, 2))
        stream.append_many(["a", "b"])
        assert worker.outcome() == ["a", "b"]


def test_a_delivery_has_what_the_entry_has(stream: AnyStream) -> None:
    id = stream.append("17", "customer 4", {"trace": "abc"})
    stream.append(b"\0\xff")
    with consume(stream, "billing") as consumer:
        with consumer.get(PATIENCE) as delivery:
            assert (delivery.id, delivery.key, delivery.payload, delivery.headers) == (
                id,
                "customer 4",
                "17",
                {"trace": "abc"},
            )
            assert delivery.entry.appended_at == delivery.appended_at
            with pytest.raises(PubSubError, match="the group keeps its place"):
                _ = delivery.entry.position
        assert handle(consumer, 1) == [b"\0\xff"]


@pytest.mark.parametrize(("start", "expected"), [(BEGINNING, ["old", "new"]), (END, ["new"])])
def test_a_new_group_begins_where_it_is_told(stream: AnyStream, start: Any, expected: list[str]) -> None:
    stream.append("old")
    with consume(stream, "billing", start=start) as consumer:
        stream.append("new")
        assert handle(consumer, len(expected)) == expected
    with consume(stream, "billing", start=BEGINNING) as consumer:  # it is not new any more
        assert consumer.get_nowait() is None
        stream.append("newer")
        assert handle(consumer, 1) == ["newer"]


def test_a_new_group_may_begin_at_a_position(stream: AnyStream) -> None:
    stream.append_many(words(5))
    position = everything(stream)[2].position
    with consume(stream, "billing", start=position) as consumer:
        assert handle(consumer, 2) == words(5)[3:]


def test_entries_of_open_transactions_hold_up_nothing_and_are_not_missed(stream: AnyStream, installed: str) -> None:
    with consume(stream, "billing") as consumer, psycopg.connect(installed) as late:
        pgpubsub.append(late, stream.name, "late")
        stream.append_many(words(3))
        assert handle(consumer, 3) == words(3)
        late.commit()
        assert handle(consumer, 1) == ["late"]


def test_what_is_appended_by_a_handler_in_its_transaction_is_handled_too(stream: AnyStream) -> None:
    stream.append("0")
    with consume(stream, "counting") as consumer:
        for number in range(5):
            delivery = consumer.get(PATIENCE)
            assert delivery.payload == str(number)
            with delivery.transaction() as conn:
                conn.execute("SELECT pgpubsub.append(%s, %s)", [stream.name, str(number + 1)])


# -- failing


def test_what_fails_comes_again_and_counts_its_attempts(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", backoff=0) as consumer:
        for attempt in (1, 2, 3):
            assert fail_one(consumer, ValueError("not yet")).attempt == attempt
        with consumer.get(PATIENCE) as delivery:
            assert delivery.attempt == 4
    wait_until(lambda: info_of_nothing(info(stream, "billing")))


def info_of_nothing(one: Any) -> bool:
    return (one.lag, one.lag_seconds, one.members, one.held_up, one.dead) == (0, 0, (), (), 0)


def test_what_failed_waits_as_long_as_it_is_told(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", backoff=lambda attempts: 1000.0 * attempts) as consumer:
        fail_one(consumer, ValueError("no"))
        (held,) = info(stream, "billing").held_up
        assert timedelta(seconds=990) < held.due_at - datetime.now(UTC) < timedelta(seconds=1010)
        assert (held.attempts, held.error, held.behind) == (1, "ValueError: no", 0)
        assert info(stream, "billing").lag == 1


def test_what_failed_holds_up_its_key_and_no_other(stream: AnyStream) -> None:
    stream.append("1", "a")
    with consume(stream, "billing", backoff=1000) as consumer:
        fail_one(consumer, ValueError("no"))
        stream.append("2", "a")
        stream.append("3", "b")
        stream.append("4")
        stream.append("5", "a")
        assert handle(consumer, 2) == ["3", "4"]
        wait_until(lambda: [(held.key, held.behind) for held in info(stream, "billing").held_up] == [("a", 2)])
        assert consumer.get_nowait() is None


def test_what_failed_is_handled_before_what_is_behind_it(stream: AnyStream) -> None:
    stream.append_many(["1", "2", "3"], key="a")
    order = []

    def handler(entry: Any) -> None:
        order.append(entry.payload)
        if len(order) < 4:
            raise ValueError("no")

    process(stream, "billing", handler, backoff=0, follow=False)
    assert order == ["1", "1", "1", "1", "2", "3"]


def test_what_fails_too_often_is_set_aside_and_frees_its_key(stream: AnyStream) -> None:
    stream.append_many(["bad", "good"], key="a")
    found = []

    def handler(entry: Any) -> None:
        found.append(entry.payload)
        if entry.payload == "bad":
            raise ValueError("bad \0")

    process(stream, "billing", handler, attempts=3, backoff=0, follow=False)
    assert found == ["bad"] * 3 + ["good"]
    (letter,) = administer(stream, "dead", "billing")
    assert (letter.entry.payload, letter.attempts, letter.error) == ("bad", 3, "ValueError: bad ")
    assert letter.entry.key == "a"
    assert info(stream, "billing").dead == 1
    assert info(stream, "billing").lag == 0


def test_an_error_that_the_database_cannot_spell_is_stored_with_escapes(
    new_hub_of: Callable[..., AnyHub], hub_kind: str, dsn: str, latin1: str
) -> None:
    its = psycopg.conninfo.make_conninfo(dsn, dbname=latin1)
    with psycopg.connect(its) as conn:
        pgpubsub.streams.install(conn)
    stream = open_stream(new_hub_of(hub_kind, its), hub_kind)
    stream.append("bad")
    process(stream, "billing", lambda entry: _raise(ValueError("é →")), attempts=1, follow=False)
    (letter,) = administer(stream, "dead", "billing")
    assert letter.error == "ValueError: é \\u2192"


def test_a_failure_can_be_said_without_an_exception(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", attempts=1) as consumer:
        consumer.get(PATIENCE).fail("out of stock")
        wait_until(lambda: info(stream, "billing").dead == 1)
    assert administer(stream, "dead", "billing")[0].error == "out of stock"


def test_what_was_settled_cannot_be_settled_again(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing") as consumer:
        delivery = consumer.get(PATIENCE)
        delivery.acknowledge()
        with pytest.raises(PubSubError, match="acknowledged, or has failed, before"):
            delivery.acknowledge()
        with pytest.raises(PubSubError, match="acknowledged, or has failed, before"):
            delivery.fail("no")


def test_an_interruption_goes_on_and_the_entry_comes_again(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", backoff=0) as consumer:
        with pytest.raises(KeyboardInterrupt):
            fail_one(consumer, KeyboardInterrupt())
        assert consumer.get(PATIENCE).attempt == 2


# -- dead letters


def test_dead_letters_are_sent_again_or_forgotten(stream: AnyStream) -> None:
    stream.append_many(words(4))
    with consume(stream, "billing", attempts=1) as consumer:
        for _ in range(4):
            fail_one(consumer, ValueError("no"))
        ids = [letter.entry.id for letter in administer(stream, "dead", "billing")]
        assert len(ids) == 4
        assert len(administer(stream, "dead", "billing", limit=2)) == 2
        assert administer(stream, "discard", "billing", ids[:1]) == 1
        assert administer(stream, "redrive", "billing", ids[1:2]) == 1
        with consumer.get(PATIENCE) as delivery:
            assert (delivery.id, delivery.attempt) == (ids[1], 1)
        assert administer(stream, "redrive", "billing") == 2
        assert sorted(handle(consumer, 2)) == sorted(words(4)[2:])
        assert administer(stream, "dead", "billing") == []
        assert administer(stream, "redrive", "billing") == administer(stream, "discard", "billing") == 0


@pytest.mark.parametrize("call", ["redrive", "discard"])
@pytest.mark.parametrize(
    ("ids", "error", "match"),
    [
        ("17", TypeError, r"ids are those of entries, such as \[17\], or None for all dead letters, not '17'"),
        (b"17", TypeError, "ids are those of entries"),
        (17, TypeError, "ids are those of entries"),
        (["17"], TypeError, "the id of an entry is a number, not '17'"),
        ([None], TypeError, "the id of an entry is a number, not None"),
        ([True], TypeError, "the id of an entry is a number, not True"),
        ([1.5], TypeError, "the id of an entry is a number, not 1.5"),
        ([2**63], ValueError, "the id of an entry is a number from 1 to 9223372036854775807, not 9223372036854775808"),
        ([-1], ValueError, "the id of an entry is a number from 1"),
    ],
)
def test_what_is_no_id_sends_nothing_again_and_forgets_nothing(
    stream: AnyStream, call: str, ids: Any, error: Any, match: str
) -> None:
    stream.append("a")
    with consume(stream, "billing", attempts=1) as consumer:
        consumer.get(PATIENCE).fail("no")
    with pytest.raises(error, match=match):
        administer(stream, call, "billing", ids)
    assert info(stream, "billing").dead == 1


@pytest.mark.parametrize(
    ("limit", "error"), [(0, ValueError), (2**63, ValueError), (None, TypeError), ("5", TypeError)]
)
def test_a_number_of_dead_letters_is_one(stream: AnyStream, limit: Any, error: Any) -> None:
    with pytest.raises(error, match="limit is a number"):
        administer(stream, "dead", "billing", limit=limit)


def test_what_is_set_aside_again_meanwhile_is_not_sent_again_by_the_same_call(stream: AnyStream, admin: Admin) -> None:
    """More than one statement sends at a time."""
    stream.append_many(words(1100))
    process(stream, "billing", lambda entry: _raise(ValueError("no")), attempts=1, concurrency=8, follow=False)
    with consume(stream, "billing", attempts=1) as consumer:
        worker = Worker(lambda: [fail_one(consumer, ValueError("no")) for _ in range(1100)])
        assert administer(stream, "redrive", "billing") == 1100
        assert len(worker.outcome()) == 1100
        assert consumer.get_nowait() is None


# -- batches


def test_a_batch_has_what_there_is_and_no_more_than_is_asked_for(stream: AnyStream) -> None:
    stream.append_many(words(25))
    found = []
    for batch in consume(stream, "billing", batch=10, follow=False):
        with batch:
            assert 1 <= len(batch) <= 10
            found += [entry.payload for entry in batch]
            assert [entry.id for entry in batch] == sorted(entry.id for entry in batch)
    assert sorted(found) == sorted(words(25))


def test_only_the_culprit_of_a_batch_is_set_aside(stream: AnyStream) -> None:
    stream.append_many(map(str, range(100)), key=lambda value: str(int(value) % 10))
    handled: Counter[str] = Counter()
    sizes = []

    def handler(entries: Any) -> None:
        sizes.append(len(entries))
        if "57" in payloads(entries):
            raise ValueError("57")
        handled.update(payloads(entries))

    process(stream, "billing", handler, batch=100, attempts=2, backoff=0, follow=False)
    assert sizes[0] == 100
    assert max(sizes[1:]) <= 10
    assert handled == Counter(str(number) for number in range(100) if number != 57)
    assert [letter.entry.payload for letter in administer(stream, "dead", "billing")] == ["57"]


def test_a_batch_that_may_be_tried_once_has_its_culprit_found_all_the_same(stream: AnyStream) -> None:
    stream.append_many(words(7))
    handled = []

    def handler(entries: Any) -> None:
        if words(7)[3] in payloads(entries):
            raise ValueError("no")
        handled.extend(payloads(entries))

    process(stream, "billing", handler, batch=5, attempts=1, follow=False)
    assert sorted(handled) == sorted(set(words(7)) - {words(7)[3]})
    assert [letter.entry.payload for letter in administer(stream, "dead", "billing")] == [words(7)[3]]


def test_keys_stay_in_order_in_batches_too(stream: AnyStream) -> None:
    stream.append_many(map(str, range(300)), key=lambda value: str(int(value) % 7))
    seen: dict[int, list[int]] = {}

    def handler(entries: Any) -> None:
        if len(entries) > 1 and len(seen) % 3 == 1:
            raise ValueError("at times")
        for entry in entries:
            seen.setdefault(int(entry.payload) % 7, []).append(int(entry.payload))

    process(stream, "billing", handler, batch=20, attempts=9, backoff=0, follow=False, concurrency=3)
    assert {key: sorted(numbers) for key, numbers in seen.items()} == seen
    assert sorted(number for numbers in seen.values() for number in numbers) == list(range(300))


# -- transactions


@pytest.fixture
def effects(admin: Admin, channel: str) -> str:
    """A table for effects."""
    name = channel.replace(" ", "_").lower()
    admin.execute(f"CREATE TABLE {name} (payload text)")
    return name


def stored(admin: Admin, effects: str) -> list[str]:
    return sorted(payload for (payload,) in admin.execute(f"SELECT payload FROM {effects}").fetchall())


def test_effects_and_the_acknowledgement_are_committed_together(stream: AnyStream, admin: Admin, effects: str) -> None:
    stream.append_many(words(25))
    for batch in consume(stream, "billing", batch=10, follow=False):
        with batch.transaction() as conn:
            for entry in batch:
                conn.execute(f"INSERT INTO {effects} VALUES (%s)", [entry.payload])
    assert stored(admin, effects) == sorted(words(25))
    wait_until(lambda: info_of_nothing(info(stream, "billing")))
    assert rows_of(admin, "acknowledged") == []


@pytest.mark.parametrize("how", ["acknowledge", "acknowledge here", "fail"])
def test_within_a_transaction_nothing_else_is_to_be_said(
    stream: AnyStream, admin: Admin, effects: str, how: str
) -> None:
    stream.append("a")
    for delivery in consume(stream, "billing", follow=False):
        with delivery.transaction() as conn:
            conn.execute(f"INSERT INTO {effects} VALUES (%s)", [delivery.payload])
            ways: dict[str, Callable[[], None]] = {
                "acknowledge": delivery.acknowledge,
                "acknowledge here": partial(delivery.acknowledge, getattr(conn, "conn", conn)),
                "fail": partial(delivery.fail, "no"),
            }
            with pytest.raises(PubSubError, match="leaving the block of transaction.. acknowledges it"):
                ways[how]()
            with pytest.raises(PubSubError, match="leaving the block"), delivery.transaction():
                pass
    assert stored(admin, effects) == ["a"]


def test_effects_of_what_fails_are_rolled_back(stream: AnyStream, admin: Admin, effects: str) -> None:
    stream.append_many(words(5))
    for batch in consume(stream, "billing", batch=5, attempts=2, backoff=0, follow=False):
        with batch.transaction() as conn:
            for entry in batch:
                conn.execute(f"INSERT INTO {effects} VALUES (%s)", [entry.payload])
                assert entry.payload != words(5)[2], "not this one"
    assert stored(admin, effects) == sorted(set(words(5)) - {words(5)[2]})
    (letter,) = administer(stream, "dead", "billing")
    assert letter.error.startswith("AssertionError: not this one")


def test_a_commit_that_fails_is_a_failure(stream: AnyStream, admin: Admin, effects: str) -> None:
    admin.execute(f"ALTER TABLE {effects} ADD UNIQUE (payload) DEFERRABLE INITIALLY DEFERRED")
    admin.execute(f"INSERT INTO {effects} VALUES ('a')")
    stream.append("a")
    for delivery in consume(stream, "billing", attempts=2, backoff=0, follow=False):
        with delivery.transaction() as conn:
            conn.execute(f"INSERT INTO {effects} VALUES (%s)", [delivery.payload])
    (letter,) = administer(stream, "dead", "billing")
    assert "duplicate key value" in letter.error
    assert letter.attempts == 2


def test_the_users_own_transaction_acknowledges_when_it_is_committed(
    stream: AnyStream, installed: str, admin: Admin, effects: str
) -> None:
    stream.append_many(["rolled back", "committed"])
    with consume(stream, "billing", backoff=0) as consumer, OwnConnection(stream, installed) as conn:
        undone, delivery = consumer.get(PATIENCE), consumer.get(PATIENCE)
        undone.acknowledge(conn.raw)
        conn.rollback()
        assert delivery.payload == "committed"
        conn.execute(f"INSERT INTO {effects} VALUES (%s)", [delivery.payload])
        delivery.acknowledge(conn.raw)
        conn.commit()
        again = consumer.get(PATIENCE)
        assert (again.payload, again.attempt) == ("rolled back", 2)
        again.acknowledge()
        assert consumer.get_nowait() is None
        wait_until(lambda: info(stream, "billing").lag == 0)
    assert stored(admin, effects) == ["committed"]
    assert rows_of(admin, "acknowledged") == []


def test_an_exception_after_an_acknowledgement_in_a_transaction_goes_no_further(
    stream: AnyStream, installed: str
) -> None:
    stream.append("a")
    with consume(stream, "billing", attempts=1) as consumer, OwnConnection(stream, installed) as conn:
        with consumer.get(PATIENCE) as delivery:
            delivery.acknowledge(conn.raw)
            _raise(ValueError("too late"))
        conn.rollback()
        wait_until(lambda: info(stream, "billing").dead == 1)
    assert administer(stream, "dead", "billing")[0].error == "ValueError: too late"


class OwnConnection:
    """A connection of the user's, of the kind that goes with the stream's face."""

    def __init__(self, stream: AnyStream, dsn: str) -> None:
        self.loop = getattr(stream, "loop", None)
        self.raw: Any = (
            psycopg.connect(dsn) if self.loop is None else self.loop.run(psycopg.AsyncConnection.connect(dsn))
        )

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *args: object) -> None:
        self._do("close")

    def _do(self, name: str, *args: Any) -> None:
        result = getattr(self.raw, name)(*args)
        if self.loop is not None:
            self.loop.run(result)

    def execute(self, *args: Any) -> None:
        self._do("execute", *args)

    def commit(self) -> None:
        self._do("commit")

    def rollback(self) -> None:
        self._do("rollback")


def test_a_serializable_transaction_acknowledges_too(stream: AnyStream, installed: str) -> None:
    """It sees nothing of what members write all the time."""
    stream.append_many(words(20))
    with consume(stream, "billing", lease=0.3) as consumer, OwnConnection(stream, installed) as conn:
        for word in words(20):
            conn.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            conn.execute("SELECT count(*) FROM pg_class")
            delivery = consumer.get(PATIENCE)
            assert delivery.payload == word
            delivery.acknowledge(conn.raw)
            conn.commit()


# -- several consumers


def test_members_share_the_keys_and_each_key_stays_in_order(new_hub: NewHub, installed: str, channel: str) -> None:
    stream = open_stream(new_hub(installed), channel)
    seen: dict[str, list[str]] = {}
    members: dict[int, set[str]] = {}
    lock = threading.Lock()

    def member(number: int, consumer: Any) -> None:
        for delivery in consumer:
            with delivery, lock:
                seen.setdefault(delivery.key, []).append(delivery.payload)
                members.setdefault(number, set()).add(delivery.key)

    with ExitStack() as stack:
        consumers = [
            stack.enter_context(consume(open_stream(new_hub(installed), channel), "billing")) for _ in range(3)
        ]
        wait_until(lambda: sorted(one.slots for one in info(stream, "billing").members) == [10, 11, 11])
        workers = [Worker(partial(member, number, consumer)) for number, consumer in enumerate(consumers)]
        values = [f"{key} {number}" for number in range(20) for key in range(40)]
        stream.append_many(values, key=lambda value: value.split()[0])
        wait_until(lambda: info(stream, "billing").lag == 0)
    assert [worker.outcome() for worker in workers] == [None, None, None]
    assert seen == {str(key): [f"{key} {number}" for number in range(20)] for key in range(40)}
    assert sum(map(len, members.values())) == 40
    assert len(members) == 3


def test_shares_move_when_members_come_and_go(new_hub: NewHub, installed: str, channel: str) -> None:
    streams = [open_stream(new_hub(installed), channel) for _ in range(2)]
    with consume(streams[0], "billing", lease=1000) as first:
        assert [one.slots for one in info(streams[0], "billing").members] == [32]
        with consume(streams[1], "billing", lease=1000):
            wait_until(lambda: [one.slots for one in info(streams[0], "billing").members] == [16, 16])
        wait_until(lambda: [one.slots for one in info(streams[0], "billing").members] == [32])
        streams[1].append_many(words(40))
        assert handle(first, 40) == words(40)


def test_what_is_in_hand_of_a_consumer_that_leaves_comes_again_at_once(
    new_hub: NewHub, installed: str, channel: str
) -> None:
    streams = [open_stream(new_hub(installed), channel) for _ in range(2)]
    streams[0].append_many(words(3))
    with consume(streams[0], "billing", lease=1000, backoff=1000) as leaving:
        delivery = leaving.get(PATIENCE)
    wait_until(lambda: info(streams[1], "billing").members == ())
    with pytest.raises(LeaseLost):
        delivery.acknowledge()
    with consume(streams[1], "billing") as staying:
        found = {}
        for _ in range(3):
            with staying.get(PATIENCE) as one:
                found[one.payload] = one.attempt
        assert found == dict.fromkeys(words(3)[1:], 1) | {words(3)[0]: 2}


def test_what_was_ready_and_not_taken_does_not_count_as_an_attempt(stream: AnyStream) -> None:
    stream.append_many(words(4))
    with consume(stream, "billing") as consumer:
        with consumer.get(PATIENCE):
            pass  # and the next is made ready
        wait_until(lambda: len(getattr(consumer, "inner", consumer)._inbox.buffer) == 1)
    with consume(stream, "billing") as consumer:
        found = [consumer.get(PATIENCE).attempt for _ in range(3)]
        assert found == [1, 1, 1]


def test_concurrent_handlers_work_on_different_keys_at_the_same_time(stream: AnyStream) -> None:
    stream.append_many([f"{number % 4} {number}" for number in range(40)], key=lambda value: value.split()[0])
    lock, together = threading.Lock(), threading.Barrier(4)
    running: Counter[str] = Counter()
    order: dict[str, list[int]] = {}

    def handler(entry: Any) -> None:
        with lock:
            running[entry.key] += 1
            assert running[entry.key] == 1
        together.wait(PATIENCE)
        with lock:
            order.setdefault(entry.key, []).append(int(entry.payload.split()[1]))
            running[entry.key] -= 1

    process(stream, "billing", handler, concurrency=4, follow=False)
    assert order == {str(key): list(range(key, 40, 4)) for key in range(4)}


def test_a_slow_handler_holds_up_its_key_alone(stream: AnyStream) -> None:
    stream.append("slow", "a")
    with consume(stream, "billing") as consumer:
        slow = consumer.get(PATIENCE)
        stream.append_many([f"a{number}" for number in range(10)], key="a")
        stream.append_many([f"b{number}" for number in range(100)], key=lambda value: value)
        assert handle(consumer, 100) == [f"b{number}" for number in range(100)]
        assert consumer.get_nowait() is None
        slow.acknowledge()
        assert handle(consumer, 10) == [f"a{number}" for number in range(10)]


# -- what can be said of groups


@pytest.mark.parametrize("what", ["beginning", "end", "position", "time"])
def test_a_group_goes_on_where_it_is_told(stream: AnyStream, admin: Admin, what: str) -> None:
    stream.append_many(words(3))
    later = admin.execute("SELECT clock_timestamp()").fetchone()
    assert later is not None
    stream.append_many(["x", "y"])
    with consume(stream, "billing", backoff=1000) as consumer:
        fail_one(consumer, ValueError("it waits"))
        assert handle(consumer, 3) == [*words(3)[1:], "x"]
        to = {"beginning": BEGINNING, "end": END, "position": everything(stream)[2].position, "time": later[0]}[what]
        expected = {"beginning": [*words(3), "x", "y"], "end": [], "position": ["x", "y"], "time": ["x", "y"]}[what]
        (before,) = info(stream, "billing").members
        administer(stream, "seek", "billing", to)
        assert info(stream, "billing").lag == len(expected)
        wait_until(lambda: [one.slots for one in info(stream, "billing").members if one != before] == [32])
        stream.append("new")
        assert handle(consumer, len(expected) + 1) == [*expected, "new"]


def test_a_dead_letter_that_is_read_again_and_sent_again_is_in_one_hand_at_a_time(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", attempts=1) as consumer:
        fail_one(consumer, ValueError("no"))
    administer(stream, "seek", "billing", BEGINNING)
    with consume(stream, "billing") as consumer:
        first = consumer.get(PATIENCE)
        assert administer(stream, "redrive", "billing") == 1
        stream.append("b")
        assert handle(consumer, 1) == ["b"]
        with pytest.raises(TimeoutError):
            consumer.get(0.5)
        first.acknowledge()
        assert handle(consumer, 1) == ["a"]
    assert info(stream, "billing").lag == 0


def test_a_group_cannot_go_where_there_is_nothing(stream: AnyStream) -> None:
    stream.append("a")
    for name, *to in [("seek", END), ("dead",), ("redrive",), ("discard",), ("drop_group",)]:
        with pytest.raises(PubSubError, match="has no group 'billing'"):
            administer(stream, str(name), "billing", *to)
    with pytest.raises(PositionError):
        administer(stream, "seek", "billing", "nonsense")
    with pytest.raises(ValueError, match="no time zone"):
        administer(stream, "seek", "billing", datetime(2026, 1, 1))


def test_a_group_that_is_dropped_is_forgotten_and_consumers_begin_it_anew(stream: AnyStream) -> None:
    stream.append_many(words(4))
    with consume(stream, "billing", attempts=1) as consumer:
        consumer.get(PATIENCE).fail("set aside")
        in_hand = consumer.get(PATIENCE)
        handle(consumer, 1)
        administer(stream, "drop_group", "billing")
        with pytest.raises(LeaseLost):
            wait_until(lambda: in_hand.acknowledge())
        assert handle(consumer, 4) == words(4)
        assert info(stream, "billing").dead == 0
    administer(stream, "drop_group", "billing")
    assert administer(stream, "groups") == []


def test_what_is_behind_is_known(stream: AnyStream, admin: Admin) -> None:
    stream.append_many(words(10))
    with consume(stream, "billing") as consumer:
        handle(consumer, 3)
        one = info(stream, "billing")
        assert one.lag == 7
        assert one.lag_seconds > 0
        (member,) = one.members
        assert member.slots == 32
        handle(consumer, 7)
        assert info(stream, "billing").lag == 0
        assert info(stream, "billing").lag_seconds == 0


def test_what_is_in_hand_is_known_with_who_has_it(stream: AnyStream) -> None:
    first, behind, other = stream.append("a", "key"), stream.append("b", "key"), stream.append("c")
    with consume(stream, "billing", backoff=0) as consumer:
        deliveries = [consumer.get(PATIENCE) for _ in range(2)]
        (member,) = info(stream, "billing").members
        assert member.in_hand == (first, other)
        deliveries[0].fail("once")
        again = consumer.get(PATIENCE)
        (member,) = info(stream, "billing").members
        assert member.in_hand == (first, other)
        again.acknowledge()
        deliveries[1].acknowledge()
        last = consumer.get(PATIENCE)
        (member,) = info(stream, "billing").members
        assert member.in_hand == (behind,) == (last.id,)


# -- types, and what is wrong


def test_an_entry_that_cannot_be_decoded_is_set_aside(hub: AnyHub, stream: AnyStream) -> None:
    stream.append("seventeen")
    stream.append("18")
    numbers = open_stream(hub, stream.name, int)
    handled = []
    process(numbers, "billing", lambda entry: handled.append(entry.payload), attempts=2, backoff=0, follow=False)
    assert handled == [18]
    (letter,) = administer(numbers, "dead", "billing")
    assert isinstance(letter.entry, Undecodable)
    assert letter.entry.raw == "seventeen"


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"group": ""}, ValueError, "the name of a group is text of 1 to 1000 bytes, and this one is empty"),
        ({"group": 5}, TypeError, "the name of a group is a str"),
        ({"batch": 0}, ValueError, "batch is a number from 1 to 100000, not 0"),
        ({"batch": "5"}, TypeError, "batch is a number"),
        ({"attempts": 0}, ValueError, "attempts is a number from 1"),
        ({"lease": 0}, ValueError, "lease is a positive number of seconds"),
        ({"lease": 86401}, ValueError, "lease is at most a day"),
        ({"backoff": -1}, ValueError, "backoff is a positive number of seconds"),
        ({"backoff": "1 s"}, TypeError, "backoff is a number of seconds"),
        ({"start": "nowhere"}, PositionError, "'nowhere' is not a position"),
    ],
)
def test_what_cannot_be_is_refused_at_once(stream: AnyStream, options: Any, error: Any, match: str) -> None:
    with pytest.raises(error, match=match):
        consume(stream, **{"group": "billing", **options})


def test_a_consumer_that_was_not_entered_says_what_to_do(stream: AnyStream) -> None:
    with pytest.raises(
        SubscriptionClosed, match=r"the consumer is not open: .* `with stream.consume\(...\) as consumer`"
    ):
        consume(stream, "billing").get_nowait()


def test_a_consumer_that_was_closed_hands_out_nothing(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing") as consumer:
        consumer.close()
        with pytest.raises(SubscriptionClosed):
            consumer.get(PATIENCE)
        consumer.close()


# -- what is left behind


def test_a_delivery_that_is_dropped_without_a_word_has_failed(
    stream: AnyStream, caplog: pytest.LogCaptureFixture
) -> None:
    """Which is said once, with the cure."""
    id = stream.append("a")
    with consume(stream, "billing", backoff=0) as consumer:
        for _ in range(2):
            consumer.get(PATIENCE)
            gc.collect()
        with consumer.get(PATIENCE) as again:
            assert again.attempt == 3
    (told,) = [record for record in caplog.records if record.name == "pgpubsub.groups"]
    assert told.getMessage().startswith(f"entry {id} was dropped, neither acknowledged nor failed, and comes again")
    assert "`with delivery:`" in told.getMessage()


def test_a_consumer_that_nobody_has_any_more_leaves(stream: AnyStream) -> None:
    stream.append("a")
    consume(stream, "billing").__enter__()
    gc.collect()
    wait_until(lambda: info(stream, "billing").members == ())


def test_a_loop_that_is_left_leaves_the_group(stream: AnyStream) -> None:
    stream.append_many(words(3))
    for delivery in consume(stream, "billing"):
        with delivery:
            break
    gc.collect()
    wait_until(lambda: info(stream, "billing").members == ())
    assert info(stream, "billing").lag == 2


def test_a_child_takes_nothing_from_a_consumer_of_its_parent(installed: str, channel: str) -> None:
    program = """
import gc, os, signal, sys
from pgpubsub import ConcurrentUse, Hub
dsn, name = sys.argv[1:]

with Hub(dsn) as hub:
    stream = hub.stream(name)
    stream.append_many(["1", "2", "3"])
    with stream.consume("billing") as consumer:
        with consumer.get(20).transaction() as conn:
            pid = conn.execute("SELECT pg_backend_pid()").fetchone()
        child = os.fork()
        if not child:
            signal.alarm(20)
            for call in (lambda: consumer.get(1), lambda: stream.consume("billing").__enter__(), stream.groups):
                try:
                    call()
                except ConcurrentUse:
                    continue
                os._exit(1)
            del consumer, stream
            gc.collect()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with consumer.get(20).transaction() as conn:
            assert conn.execute("SELECT pg_backend_pid()").fetchone() == pid
        with consumer.get(20) as delivery:
            assert delivery.payload == "3"
"""
    command = [sys.executable, "-W", "error", "-c", program, installed, channel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
