"""What streams must withstand: users who give up, entries that nobody foresaw, and others' locks, rules and haste."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
from pgpubsub import (
    BEGINNING,
    END,
    AsyncHub,
    Closed,
    Entry,
    Hub,
    PayloadTooLarge,
    ServerRefused,
    StreamsNotInstalled,
    SubscriptionClosed,
    Undecodable,
)
from pgpubsub.core.pages import Pages
from pgpubsub.core.position import Anchor, Covered, Position
from pgpubsub.core.reading import Batch
from pgpubsub.streams.service import Streams
from pgpubsub.streams.session import Session
from pgpubsub.streams.statements import Statements
from tests.contract.faces import PATIENCE, AnyHub, Worker
from tests.contract.faces import Covered as CoveredHub
from tests.contract.interruptions import PACKAGE, interrupt
from tests.contract.sending import wait_until, words
from tests.contract.streams import (
    KINDS,
    all_payloads,
    backends,
    everything,
    following,
    identifier,
    install,
    new_role,
    open_stream,
    payloads_of,
)

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

NEVER = 3600.0
"""Seconds from one poll to the next, where only hints are to wake a reader."""


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def schema(dsn: str, admin: Admin, channel: str) -> Iterator[str]:
    """One of the test's own, where streams are installed."""
    install(dsn, channel)
    yield channel
    admin.execute(f"DROP SCHEMA {identifier(channel)} CASCADE")


@pytest.fixture
def role(admin: Admin, channel: str) -> Iterator[str]:
    """The name of a role, which the test makes."""
    name = f"role of {channel}"
    yield name
    admin.execute(f"DROP OWNED BY {identifier(name)}")
    admin.execute(f"DROP ROLE {identifier(name)}")


class Asked(list[tuple[str, int]]):
    """The statements that read, and how many rows each returned."""

    @property
    def rows(self) -> int:
        return sum(count for _, count in self)

    def pages(self, schema: str = "pgpubsub") -> int:
        return sum(statement == Statements(schema).page for statement, _ in self)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What is asked from now on."""
    found = Asked()
    ask = Session.rows

    async def rows(session: Session, statement: str, parameters: Any = None) -> list[Any]:
        answer = await ask(session, statement, parameters)
        found.append((statement, len(answer)))
        return answer

    monkeypatch.setattr(Session, "rows", rows)
    return found


def streams_of(hub: AnyHub) -> Streams:
    if isinstance(hub, CoveredHub):
        return hub.hub._streams
    assert isinstance(hub, Hub)
    return hub._streams


def insert(admin: Admin, name: str, count: int, payload: str = "x", schema: str = "pgpubsub") -> None:
    """Entries of somebody who tells nobody."""
    of = identifier(schema)
    admin.execute(
        f"INSERT INTO {of}.entry (stream, payload) SELECT {of}.stream_id(%s), %s FROM generate_series(1, %s)",
        [name, payload, count],
    )


def waiting_for_locks(admin: Admin, role: str) -> int:
    """How many of the hub's connections wait for somebody's lock."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (%s) AND wait_event_type = 'Lock'"
    row = admin.execute(query, [backends(admin, role)]).fetchone()
    assert row is not None
    return int(row[0])


# -- those who give up


def test_tasks_that_are_cancelled_while_they_enter_a_reader_all_end_and_leave_nothing_behind(
    new_hub_of: NewHub, installed: str, channel: str
) -> None:
    async def main(hub: AsyncHub) -> None:
        stream = hub.stream(channel)
        await stream.append_many(words(3000))

        async def follow(after: Any) -> None:
            async with stream.read(after) as reader:
                async for _ in reader:
                    pass

        loop = asyncio.get_running_loop()
        for _ in range(20):
            tasks = [asyncio.create_task(follow(random.choice((BEGINNING, END)))) for _ in range(25)]
            for task in tasks:
                loop.call_later(random.random() * 0.02, task.cancel)
            _, pending = await asyncio.wait(tasks, timeout=5)
            assert not pending, "a cancellation got lost"
            assert all(task.cancelled() for task in tasks)
        async with asyncio.timeout(PATIENCE):
            while hub._streams._tasks:
                await asyncio.wait(hub._streams._tasks)
        assert not hub._streams._readers
        assert not hub._engine.mailboxes
        source = hub._streams._sources[None]
        assert not source._lent
        assert all(session.idle for session in source._idle)
        async with asyncio.timeout(PATIENCE), stream.read(follow=False) as reader:
            assert len([event async for event in reader]) == 3000

    with new_hub_of("AsyncHub on asyncio") as hub:
        assert isinstance(hub, CoveredHub)
        hub.loop.run(main(hub.hub))


@pytest.mark.parametrize("after", [BEGINNING, END], ids=["from the beginning", "from the end"])
@pytest.mark.parametrize("what", ["hub", "reader"])
def test_what_is_closed_while_a_reader_is_entered_ends_that_and_leaves_nothing_behind(
    new_hub: NewHub, dsn: str, schema: str, channel: str, admin: Admin, what: str, after: Any
) -> None:
    before = {role: len(backends(admin, role)) for role in ("listen", "notify", "append", "read")}
    hub = new_hub()
    with hub:
        stream = open_stream(hub, channel, schema=schema)
        stream.append("a")
        reader = stream.read(after)
        with psycopg.connect(dsn) as other:
            other.execute(f"LOCK TABLE {identifier(schema)}.version, {identifier(schema)}.entry")
            entering = Worker(reader.__enter__)
            wait_until(lambda: waiting_for_locks(admin, "read") > 0)
            (reader if what == "reader" else hub).close()
            error = entering.outcome()
            assert isinstance(error, SubscriptionClosed if what == "reader" else Closed), error
        streams = streams_of(hub)
        wait_until(lambda: not streams._tasks and not streams._readers)
        if what == "reader":  # and the hub is as good as ever
            assert all_payloads(stream) == ["a"]
    wait_until(lambda: {role: len(backends(admin, role)) for role in before} == before)


@pytest.mark.parametrize("kind", [BaseException, KeyboardInterrupt])
def test_an_interruption_while_an_entry_is_taken_leaves_it_where_it_is(kind: type[BaseException]) -> None:
    place = Position(UUID(int=1), 7, 1, Covered(90), Anchor(9, 0), Covered(100))
    events: list[Any] = [
        Entry(id, None, "", None, datetime(2026, 1, 1, tzinfo=UTC), Batch(place, place, None)) for id in (1, 2, 3)
    ]
    events[1] = Undecodable(events[1], ValueError("wrong"))

    def interrupted() -> None:
        raise kind

    def scenario(moment: int) -> bool:
        calls = []
        pages = Pages(1, 100, lambda: calls.append(len(pages)))
        pages.put(events, 0)
        pages.take()
        position = pages.position
        try:
            happened = interrupt(pages.take, moment, interrupted, (PACKAGE, __file__))
        except kind:
            assert (len(pages), pages.delivered, pages.position) == (2, 1, position)
            happened = True
        else:
            assert len(pages) == 1
            return False
        assert [pages.take(), pages.take()] == events[1:]
        return happened

    moments = 1
    while scenario(moments):
        moments += 1
    assert moments > 3


# -- how much is read, and kept


def test_an_old_transaction_that_commits_late_costs_what_is_due_and_not_all_that_is_stored(
    hub: AnyHub, installed: str, channel: str, admin: Admin, asked: Asked
) -> None:
    stream = open_stream(hub, channel, poll_interval=NEVER)
    with psycopg.connect(installed) as old:
        pgpubsub.append(old, channel, "old")  # the lowest id
        insert(admin, channel, 50_000)
        with stream.read(END) as reader:
            stream.append("first")
            assert following(reader, 1) == ["first"]
            asked.clear()
            insert(admin, channel, 2500, "new")
            old.commit()
            assert following(reader, 2501) == ["old", *["new"] * 2500]
    assert asked.rows < 12_000, "pages in which little is due are few"
    assert len(asked) < 15


def test_a_transaction_that_was_rolled_back_needs_no_page(
    hub: AnyHub, installed: str, channel: str, admin: Admin, asked: Asked
) -> None:
    """Though the position says that it was open, and entries of it may lie anywhere."""
    stream = open_stream(hub, channel)
    insert(admin, channel, 5000)
    with psycopg.connect(installed) as other:
        other.execute("SELECT pg_current_xact_id()")
        stream.append("last")
        position = everything(stream)[-1].position
        other.rollback()
    assert asked.pages() > 1
    asked.clear()
    assert everything(stream, position) == []
    assert asked.pages() == 0
    assert 0 < len(asked) < 10


def test_long_entries_that_nobody_takes_are_left_with_the_server(
    hub: AnyHub, installed: str, channel: str, admin: Admin
) -> None:
    size, count = 2 << 20, 60
    insert(admin, channel, count, "x" * size)
    with open_stream(hub, channel).read() as reader:
        ((inner,),) = streams_of(hub)._readers.values()
        buffer: Any = inner._sink.buffer  # type: ignore[attr-defined]  # which is its mailbox
        taken: list[str] = []

        def read_enough() -> bool:
            return len(buffer) > 0 and (not inner._hungry.is_set() or len(taken) + len(buffer) == count)

        while len(taken) < count:
            wait_until(read_enough)
            assert len(buffer) * size <= 24 << 20
            taken += following(reader, len(buffer))
        assert {len(payload) for payload in taken} == {size}
        stream = open_stream(hub, channel)
        stream.append("last")
        assert following(reader, 1) == ["last"]


def test_what_is_appended_together_is_measured_in_bytes(
    hub: AnyHub, installed: str, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With keys and headers."""
    monkeypatch.setattr("pgpubsub.streams.description.LARGEST", 1000)
    stream = open_stream(hub, channel)
    letters = "\U0001f600" * 100
    with pytest.raises(PayloadTooLarge, match="over 1000 bytes together"):
        stream.append_many([letters] * 3)
    with pytest.raises(PayloadTooLarge):
        stream.append_many(["a", "b"], key=letters, headers={"h": letters})
    assert len(stream.append_many([letters] * 2)) == 2
    assert all_payloads(stream) == [letters] * 2


# -- entries that nobody foresaw


def test_entries_from_the_future_are_told_of_until_they_are_repaired(
    new_hub: NewHub, schema: str, channel: str, admin: Admin
) -> None:
    """Such as those of another server, that were copied past the trigger."""
    of = identifier(schema)
    with new_hub() as hub:
        stream = open_stream(hub, channel, schema=schema, poll_interval=0.1)
        stream.append("native")
        with stream.read() as reader:
            assert following(reader, 1) == ["native"]
            with admin.transaction():
                admin.execute(f"ALTER TABLE {of}.entry DISABLE TRIGGER ALL")
                admin.execute(
                    f"INSERT INTO {of}.entry (stream, id, xid, slot, payload, appended_at)"
                    f" SELECT {of}.stream_id(%s), 1000,"
                    " (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 1000000)::text::xid8,"
                    " 0, 'future', now()",
                    [channel],
                )
                admin.execute(f"ALTER TABLE {of}.entry ENABLE TRIGGER ALL")
            with pytest.raises(StreamsNotInstalled, match="pgpubsub.streams.install\\(conn, "):
                reader.get(PATIENCE)
        for after in (BEGINNING, END):
            with pytest.raises(StreamsNotInstalled, match="copied from another server"), stream.read(after) as reader:
                reader.get(PATIENCE)
        pgpubsub.streams.install(admin, schema)
        with stream.read() as reader:
            assert following(reader, 2) == ["native", "future"]
            assert stream.append("later") > 1000
            assert following(reader, 1) == ["later"]
        with stream.read(END) as reader:
            stream.append("last")
            assert following(reader, 1) == ["last"]


NUMBER = """('{"n":' || repeat('9', 5000) || '}')::jsonb"""
POWER = """('{"n":1e5000}')::jsonb"""
FRACTION = """('{"n":' || repeat('9', 400) || '.5}')::jsonb"""
NESTED = """('{"n":' || repeat('[', 3000) || repeat(']', 3000) || '}')::jsonb"""


@pytest.mark.parametrize(
    "headers",
    [NUMBER, POWER, FRACTION, NESTED],
    ids=["a long number", "one that becomes long", "one that would be infinite", "deep nesting"],
)
def test_headers_that_python_cannot_decode_stop_no_reader(
    hub: AnyHub, installed: str, channel: str, admin: Admin, headers: str
) -> None:
    stream = open_stream(hub, channel)
    stream.append("before", headers={"n": 1})
    admin.execute(f"SELECT pgpubsub.append(%s, 'odd', headers => {headers})", [channel])
    stream.append("after", headers={"n": 2})
    with stream.read() as reader:
        before, odd, after = [reader.get(PATIENCE) for _ in range(3)]
        entry: Any = odd
        if headers != NESTED or not isinstance(odd, Entry):  # newer versions of Python can decode deep nesting
            assert isinstance(odd, Undecodable)
            entry = odd.event
            assert (entry.payload, entry.headers) == ("odd", None)
            assert isinstance(odd.error, ValueError)
        stream.append("last")
        assert following(reader, 1) == ["last"]
    assert [(before.payload, before.headers), (after.payload, after.headers)] == [
        ("before", {"n": 1}),
        ("after", {"n": 2}),
    ]
    assert all_payloads(stream, entry.position) == ["after", "last"]
    first = everything(stream, before.position)[0]
    assert (first if isinstance(first, Entry) else first.event).id == entry.id


@pytest.mark.parametrize("headers", ["[1]", "null", '"x"', "17"])
def test_headers_that_are_no_object_are_refused(installed: str, channel: str, admin: Admin, headers: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="headers"):
        admin.execute("SELECT pgpubsub.append(%s, 'x', headers => %s::jsonb)", [channel, headers])
    admin.execute("SELECT pgpubsub.append(%s, 'x', headers => NULL)", [channel])
    assert payloads_of(admin, channel) == ["x"]


# -- others' rules


def add_trigger(admin: Admin, of: str, role: str) -> None:
    admin.execute(
        f"CREATE FUNCTION {of}.users() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.payload = 'bad' THEN RAISE EXCEPTION 'the user forbids it'; END IF; RETURN NEW; END $$"
    )
    admin.execute(f"CREATE TRIGGER users BEFORE INSERT ON {of}.entry FOR EACH ROW EXECUTE FUNCTION {of}.users()")


def add_check(admin: Admin, of: str, role: str) -> None:
    admin.execute(f"ALTER TABLE {of}.entry ADD CONSTRAINT users CHECK (payload <> 'bad')")


def add_policy(admin: Admin, of: str, role: str) -> None:
    admin.execute(f"ALTER TABLE {of}.entry ENABLE ROW LEVEL SECURITY")
    to = identifier(role)
    admin.execute(f"CREATE POLICY users ON {of}.entry FOR INSERT TO {to} WITH CHECK (payload <> 'bad')")
    admin.execute(f"CREATE POLICY all_see ON {of}.entry FOR SELECT TO {to} USING (true)")


def grants(schema: str) -> list[str]:
    """The rights to append and to read."""
    of = identifier(schema)
    return [
        f"USAGE ON SCHEMA {of}",
        f"USAGE ON ALL SEQUENCES IN SCHEMA {of}",
        f"SELECT, INSERT ON ALL TABLES IN SCHEMA {of}",
    ]


@pytest.mark.parametrize("rule", [add_trigger, add_check, add_policy], ids=["a trigger", "a constraint", "a policy"])
def test_of_appends_at_the_same_time_only_that_fails_which_a_rule_of_the_users_forbids(
    new_hub_of: NewHub, dsn: str, schema: str, role: str, channel: str, admin: Admin, rule: Callable[..., None]
) -> None:
    new_role(admin, role, *grants(schema))
    rule(admin, identifier(schema), role)

    async def main(hub: AsyncHub) -> list[Any]:
        stream = hub.stream(channel, schema=schema)
        await stream.append("warm")
        texts = ["bad" if number == 5 else f"good {number}" for number in range(20)]
        return await asyncio.gather(*[stream.append(text) for text in texts], return_exceptions=True)

    with new_hub_of("AsyncHub on asyncio", make_conninfo(dsn, user=role)) as hub:
        assert isinstance(hub, CoveredHub)
        outcomes = hub.loop.run(main(hub.hub))
    assert isinstance(outcomes[5], ServerRefused)
    assert [outcome for outcome in outcomes if not isinstance(outcome, int)] == [outcomes[5]]
    good = [f"good {number}" for number in range(20) if number != 5]
    assert sorted(payloads_of(admin, channel, schema)) == sorted(["warm", *good])


def test_locks_in_one_schema_do_not_keep_readers_of_another_waiting(
    new_hub: NewHub, installed: str, schema: str, channel: str, admin: Admin
) -> None:
    of = identifier(schema)
    with new_hub() as hub, psycopg.connect(installed) as other:
        stream = open_stream(hub, channel)
        readers = []
        for number in range(5):
            locked = open_stream(hub, f"{channel} {number}", schema=schema)
            locked.append("a")
            readers.append(locked.read().__enter__())
            assert following(readers[-1], 1) == ["a"]
        with stream.read() as reader:
            other.execute(f"LOCK TABLE {of}.entry")
            for number in range(5):
                admin.execute(f"SELECT pg_notify({of}.hint_channel({of}.stream_id(%s)), '')", [f"{channel} {number}"])
            wait_until(lambda: waiting_for_locks(admin, "read") == 4)
            for text in words(3):
                stream.append(text)
                assert reader.get(5).payload == text
        other.rollback()
        for number, one in enumerate(readers):
            open_stream(hub, f"{channel} {number}", schema=schema).append("b")
            assert following(one, 1) == ["b"]
            one.close()
