"""Entries that are appended in somebody's own transaction: by `append`, over any connection, or in SQL by anybody."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import PayloadError, PayloadTooLarge, UnsupportedConnection
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import PATIENCE, AnyHub, Worker
from tests.contract.owners import OWNERS, Owner, connected
from tests.contract.sending import wait_until
from tests.contract.streams import (
    KINDS,
    entries_of,
    entries_stored,
    everything,
    following,
    identifier,
    install,
    open_stream,
    payloads_of,
)

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]
Append = Callable[..., int]

ODD_TEXT = "é:a %s %(a)s $1 {\"b\\\\c\"} 'd' \U0001f418\n"


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Changed(Exception):
    """The owner's mind."""


@pytest.fixture(params=OWNERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def owner(kind: str, installed: str) -> Iterator[Owner]:
    with connected(kind, installed) as owner:
        yield owner


@pytest.fixture
def append(owner: Owner) -> Append:
    return append_of(owner)


def append_of(owner: Owner) -> Append:
    """`append`, or `append_async`, on its connection."""
    closure = owner.notify.__closure__ if hasattr(owner.notify, "__closure__") else None
    if closure is None:
        return lambda *arguments, **keywords: pgpubsub.append(owner.conn, *arguments, **keywords)
    names = owner.notify.__code__.co_freevars
    runner = closure[names.index("runner")].cell_contents
    return lambda *arguments, **keywords: int(runner.run(pgpubsub.append_async(owner.conn, *arguments, **keywords)))


# -- over any connection


def test_it_is_there_once_the_transaction_is_committed(
    owner: Owner, append: Append, admin: Admin, channel: str
) -> None:
    with owner.transaction():
        ids = [append(channel, "17"), append(channel, "18", "customer 4", {"by": "shop", "n": [1, None]})]
        assert entries_of(admin, channel) == []
    first, second = entries_of(admin, channel)
    assert [first["id"], second["id"]] == ids
    assert (first["payload"], first["key"], first["headers"]) == ("17", None, None)
    assert (second["payload"], second["key"]) == ("18", "customer 4")
    assert second["headers"] == {"by": "shop", "n": [1, None]}
    assert type(ids[0]) is int


def test_it_never_was_when_the_transaction_is_rolled_back(
    owner: Owner, append: Append, admin: Admin, channel: str
) -> None:
    with suppress(Changed), owner.transaction():
        append(channel, "17")
        raise Changed
    assert entries_of(admin, channel) == []


def test_what_was_appended_since_a_savepoint_goes_with_it(
    owner: Owner, append: Append, admin: Admin, channel: str
) -> None:
    with owner.transaction():
        append(channel, "before")
        with suppress(Changed), owner.savepoint():
            append(channel, "inside")
            raise Changed
        with owner.savepoint():
            append(channel, "inside another")
    assert payloads_of(admin, channel) == ["before", "inside another"]


def test_it_is_there_at_once_in_autocommit_mode(kind: str, installed: str, admin: Admin, channel: str) -> None:
    with connected(kind, installed, autocommit=True) as owner:
        append_of(owner)(channel, "17")
        assert payloads_of(admin, channel) == ["17"]


def test_any_text_and_any_bytes_are_stored_as_they_are(
    owner: Owner, append: Append, new_hub_of: NewHub, channel: str
) -> None:
    values: list[Any] = [ODD_TEXT, "", b"", bytes(range(256)), "x" * 100_000, b"\0" * 100_000]
    with owner.transaction():
        for value in values:
            append(channel, value, ODD_TEXT, {ODD_TEXT: ODD_TEXT})
        append(channel, "no key")
        append(channel, "an empty one", "", {})
    with new_hub_of("Hub") as hub:
        entries = everything(open_stream(hub, channel))
    assert [entry.payload for entry in entries[:-2]] == values
    assert {(entry.key, json.dumps(entry.headers)) for entry in entries[:-2]} == {
        (ODD_TEXT, json.dumps({ODD_TEXT: ODD_TEXT}))
    }
    assert [(entry.key, entry.headers) for entry in entries[-2:]] == [(None, None), ("", {})]


def test_with_an_idempotency_key_it_is_stored_once(owner: Owner, append: Append, admin: Admin, channel: str) -> None:
    with owner.transaction():
        first = append(channel, "17", idempotency_key="a")
        assert append(channel, "again", idempotency_key="a") == first
        assert append(channel, b"other", idempotency_key="b") != first
    with owner.transaction():
        assert append(channel, "later", idempotency_key="a") == first
        assert append(f"{channel} 2", "elsewhere", idempotency_key="a") != first
    assert payloads_of(admin, channel) == ["17", b"other".hex()]


def test_what_cannot_be_appended_is_refused_and_the_transaction_goes_on(
    owner: Owner, append: Append, admin: Admin, channel: str
) -> None:
    with owner.transaction():
        append(channel, "17")
        for error, words, call in [
            (PayloadError, "the payload.*NUL", lambda: append(channel, "a\0b")),
            (PayloadError, "the key.*NUL", lambda: append(channel, "a", "\0")),
            (PayloadError, "a header.*NUL", lambda: append(channel, "a", None, {"a": "\0"})),
            (PayloadError, "are no JSON", lambda: append(channel, "a", None, {"a": object()})),
            (
                PayloadTooLarge,
                "has 16777217 bytes and max_payload is 16777216",
                lambda: append(channel, b"x" * (2**24 + 1)),
            ),
            (PayloadTooLarge, "has 4 bytes and max_payload is 3", lambda: append(channel, "éé", max_payload=3)),
            (
                PayloadError,
                "has 1001 bytes and may have 1000",
                lambda: append(channel, "a", idempotency_key="x" * 1001),
            ),
            (TypeError, "is a str or bytes, not int", lambda: append(channel, 17)),
            (ValueError, "is empty", lambda: append("", "17")),
            (ValueError, "has 1001", lambda: append("x" * 1001, "17")),
            (TypeError, "is a str, not NoneType", lambda: append(None, "17")),
        ]:
            with pytest.raises(error, match=words):
                call()  # type: ignore[no-untyped-call]
        append(channel, "18")
    assert payloads_of(admin, channel) == ["17", "18"]


def test_errors_are_those_of_the_driver(owner: Owner, append: Append, admin: Admin, channel: str) -> None:
    with suppress(Changed), owner.transaction():
        with pytest.raises(Exception, match="division by zero"):
            owner.execute("SELECT 1/0")
        with pytest.raises(owner.error):
            append(channel, "17")
        raise Changed
    with owner.transaction():
        append(channel, "18")
    assert payloads_of(admin, channel) == ["18"]


def test_the_wrong_kind_of_connection_is_told_what_to_do(installed: str, admin: Admin, channel: str) -> None:
    async def main() -> None:
        async with await psycopg.AsyncConnection.connect(installed) as connection:
            with pytest.raises(UnsupportedConnection, match=r"use await pgpubsub.append_async\(\)"):
                pgpubsub.append(connection, channel, "17")
        with pytest.raises(UnsupportedConnection, match=r"use pgpubsub.append\(\)"):
            await pgpubsub.append_async(admin, channel, "17")

    asyncio.run(main())
    with pytest.raises(UnsupportedConnection):
        pgpubsub.append(installed, channel, "17")


def test_where_streams_are_not_installed_the_error_has_a_note(owner: Owner, append: Append, channel: str) -> None:
    with pytest.raises(Exception, match="nowhere") as caught, owner.transaction():
        append(channel, "17", schema="nowhere")
    errors = [error for error in (caught.value, caught.value.__cause__) if error is not None]
    (note,) = {note for error in errors for note in getattr(error, "__notes__", [])}
    assert note == (
        "there are no streams in schema 'nowhere' of this database: run pgpubsub.streams.install(conn, 'nowhere') once"
    )


# -- in SQL


def test_sql_appends_with_what_it_is_given(hub: AnyHub, installed: str, admin: Admin, channel: str) -> None:
    admin.execute("SELECT pgpubsub.append(%s, 'just text')", [channel])
    admin.execute("SELECT pgpubsub.append(%s, 'text', 'its key')", [channel])
    admin.execute("SELECT pgpubsub.append(%s, 'text', headers => '{\"a\": [1]}')", [channel])
    admin.execute("SELECT pgpubsub.append_bytes(%s, '\\x00ff', key => '', headers => '{}')", [channel])
    admin.execute("SELECT pgpubsub.append(stream => %s, payload => '', idempotency_key => 'a')", [channel])
    admin.execute("SELECT pgpubsub.append(stream => %s, payload => 'b', idempotency_key => 'a')", [channel])
    entries = everything(open_stream(hub, channel))
    assert [(entry.payload, entry.key, entry.headers) for entry in entries] == [
        ("just text", None, None),
        ("text", "its key", None),
        ("text", None, {"a": [1]}),
        (b"\x00\xff", "", {}),
        ("", None, None),
    ]


def test_sql_gets_the_id(installed: str, admin: Admin, channel: str) -> None:
    ids = [
        admin.execute(f"SELECT pgpubsub.{call}", [channel]).fetchone()
        for call in (
            "append(%s, 'a')",
            "append_bytes(%s, 'a')",
            "append(%s, 'a', idempotency_key => 'a')",
            "append(%s, 'a', idempotency_key => 'a')",
        )
    ]
    stored = [(row["id"],) for row in entries_of(admin, channel)]
    assert ids == [*stored, stored[-1]]
    types = admin.execute("SELECT pg_typeof(pgpubsub.append(%s, 'a'))::text", [channel]).fetchone()
    assert types == ("bigint",)


def test_a_payload_is_never_null_and_a_stream_has_a_name(installed: str, admin: Admin, channel: str) -> None:
    for call in ("append(%s, NULL)", "append_bytes(%s, NULL)"):
        with pytest.raises(psycopg.errors.NullValueNotAllowed, match="an entry has a payload"):
            admin.execute(f"SELECT pgpubsub.{call}", [channel])
    for name in ("", None):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="a stream has a name"):
            admin.execute("SELECT pgpubsub.append(%s, 'a')", [name])
    assert entries_stored(admin, channel) == 0


def test_triggers_append(hub: AnyHub, installed: str, admin: Admin, channel: str) -> None:
    table, function = identifier(f"table of {channel}"), identifier(f"function of {channel}")
    admin.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, total int)")
    name = channel.replace("'", "''")
    admin.execute(f"""
        CREATE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pgpubsub.append('{name}', to_jsonb(NEW)::text, NEW.id::text, jsonb_build_object('op', TG_OP));
            RETURN NULL;
        END $$""")
    admin.execute(
        f"CREATE TRIGGER appends AFTER INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
    )
    with open_stream(hub, channel).read() as reader:
        with admin.transaction():
            admin.execute(f"INSERT INTO {table} VALUES (1, 10), (2, 20)")
            with suppress(Changed), admin.transaction():
                admin.execute(f"INSERT INTO {table} VALUES (3, 30)")
                raise Changed
            admin.execute(f"UPDATE {table} SET total = 11 WHERE id = 1")
        entries = [reader.get(PATIENCE) for _ in range(3)]
    assert [(entry.key, json.loads(entry.payload)["total"], entry.headers["op"]) for entry in entries] == [
        ("1", 10, "INSERT"),
        ("2", 20, "INSERT"),
        ("1", 11, "UPDATE"),
    ]


def test_they_append_whatever_the_search_path_and_the_time_zone(installed: str, admin: Admin, channel: str) -> None:
    with psycopg.connect(installed) as connection:
        connection.execute("SET search_path = 'nowhere'")
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.execute("CREATE TEMPORARY TABLE entry (a int)")
        connection.execute("CREATE FUNCTION pg_temp.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT 1/0'")
        connection.execute("SELECT pgpubsub.append(%s, 'a')", [channel])
    assert payloads_of(admin, channel) == ["a"]


def test_an_entry_has_the_id_and_the_transaction_that_the_server_gives_it(
    installed: str, admin: Admin, channel: str
) -> None:
    """Whatever an INSERT says."""
    with admin.transaction():
        row: Any = admin.execute(
            "INSERT INTO pgpubsub.entry (stream, id, xid, payload, appended_at)"
            " VALUES (pgpubsub.stream_id(%s), 1, '5', 'a', '1999-01-01')"
            " RETURNING xid = pg_current_xact_id(), id = currval('pgpubsub.entry_id'),"
            " appended_at > now() - '1 h'::interval",
            [channel],
        ).fetchone()
    assert row == (True, True, True)


# -- while somebody else has the same idempotency key


def test_an_append_waits_for_the_transaction_that_has_its_key(installed: str, admin: Admin, channel: str) -> None:
    for number, commit in enumerate((True, False)):
        key = f"{number}"
        with psycopg.connect(installed) as first, psycopg.connect(installed, autocommit=True) as second:
            id = pgpubsub.append(first, channel, "first", idempotency_key=key)
            worker = Worker(lambda: pgpubsub.append(second, channel, "second", idempotency_key=key))  # noqa: B023
            wait_until(lambda: is_waiting(admin, second))
            if commit:
                first.commit()
                assert worker.outcome() == id
            else:
                first.rollback()
                assert worker.outcome() > id
    assert payloads_of(admin, channel) == ["first", "second"]


def is_waiting(admin: Admin, connection: psycopg.Connection[Any]) -> bool:
    """Whether it waits for a lock."""
    query = "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'"
    return admin.execute(query, [connection.info.backend_pid]).fetchone() is not None


# -- what a stream does to wake its readers


@pytest.fixture(scope="module")
def two_phase() -> Iterator[TemporaryServer]:
    """A server on which transactions can be prepared."""
    from conftest import server_binaries

    with TemporaryServer(server_binaries(), tcp=True, settings={"max_prepared_transactions": "8"}) as server:
        install(server.dsn())
        yield server


def test_with_notify_a_reader_is_woken_by_the_commit(
    new_hub: NewHub, installed: str, admin: Admin, channel: str
) -> None:
    with new_hub() as hub, open_stream(hub, channel, poll_interval=1000.0).read() as reader:
        pgpubsub.append(admin, channel, "17")
        assert following(reader, 1) == ["17"]
        pgpubsub.streams.create(admin, channel, wake="notify")
        pgpubsub.append(admin, channel, b"18")
        assert following(reader, 1) == [b"18"]


def test_with_poll_it_finds_it_when_it_looks_next(new_hub: NewHub, installed: str, admin: Admin, channel: str) -> None:
    pgpubsub.streams.create(admin, channel, wake="poll")
    with new_hub() as hub, open_stream(hub, channel, poll_interval=0.2).read() as reader:
        for _ in range(3):
            pgpubsub.append(admin, channel, "17")
            begin = time.monotonic()
            assert following(reader, 1) == ["17"]
            assert time.monotonic() - begin < 0.2 + 1.0  # and what a busy machine takes


def test_nobody_is_notified_of_what_is_left_to_the_poll(installed: str, admin: Admin, channel: str) -> None:
    with pgpubsub.connect(installed) as listener:
        row: Any = admin.execute("SELECT pgpubsub.hint_channel(pgpubsub.stream_id(%s))", [channel]).fetchone()
        listener.listen(row[0])
        for wake in ("notify", "poll", "notify"):
            pgpubsub.streams.create(admin, channel, wake=wake)
            pgpubsub.append(admin, channel, wake)
        admin.execute("SELECT pg_notify(%s, 'end')", [row[0]])
        found = []
        while (event := listener.get_event(PATIENCE)) is not None and event.payload != "end":
            found.append(event.payload)
    assert found == ["", ""]


def test_what_wakes_is_known_before_a_stream_is_changed(installed: str, admin: Admin, channel: str) -> None:
    with pytest.raises(ValueError, match="wake is 'notify' or 'poll', not 'never'"):
        pgpubsub.streams.create(admin, channel, wake="never")  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.CheckViolation):
        admin.execute("SELECT pgpubsub.create_stream(%s, 'never')", [channel])
    rows = admin.execute("SELECT wake FROM pgpubsub.stream WHERE name = %s", [channel]).fetchall()
    assert rows == []
    admin.execute("SELECT pgpubsub.create_stream(%s)", [channel])
    rows = admin.execute("SELECT wake FROM pgpubsub.stream WHERE name = %s", [channel]).fetchall()
    assert rows == [("notify",)]


def test_a_stream_comes_into_being_with_its_first_append(
    hub: AnyHub, installed: str, admin: Admin, channel: str
) -> None:
    def known() -> list[str]:
        query = "SELECT name FROM pgpubsub.stream WHERE starts_with(name, %s) ORDER BY name"
        return [row[0] for row in admin.execute(query, [channel]).fetchall()]

    with admin.transaction(force_rollback=True):
        pgpubsub.append(admin, channel, "17")
    assert known() == []
    pgpubsub.append(admin, channel, "17")
    open_stream(hub, f"{channel} a").append("17")
    open_stream(hub, f"{channel} b").append("17", idempotency_key="a")
    open_stream(hub, f"{channel} c").append_many(["17"])
    assert known() == [channel, f"{channel} a", f"{channel} b", f"{channel} c"]


def test_two_whose_first_appends_are_open_do_not_wait_for_each_other(
    installed: str, admin: Admin, channel: str
) -> None:
    with psycopg.connect(installed) as first, psycopg.connect(installed) as second:
        for connection in (first, second):
            connection.execute("SET lock_timeout = '2s'")
            pgpubsub.append(connection, channel, "17")
        first.rollback()
    assert entries_stored(admin, channel) == 1
    pgpubsub.append(admin, channel, "18")
    rows = admin.execute("SELECT count(*) FROM pgpubsub.stream WHERE name = %s", [channel]).fetchone()
    assert rows == (1,)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_stream_that_came_into_being_after_the_snapshot_is_appended_to(
    installed: str, admin: Admin, channel: str, isolation: str
) -> None:
    with psycopg.connect(installed, autocommit=True) as late:
        late.execute(f"BEGIN ISOLATION LEVEL {isolation}")
        late.execute("SELECT FROM pgpubsub.stream")
        pgpubsub.append(admin, channel, "17")
        pgpubsub.append(late, channel, "18")
        late.execute("COMMIT")
    assert payloads_of(admin, channel) == ["17", "18"]


def test_with_poll_a_transaction_can_be_prepared_and_with_notify_not(
    two_phase: TemporaryServer, new_hub_of: NewHub, channel: str
) -> None:
    with psycopg.connect(two_phase.dsn(), autocommit=True) as connection, new_hub_of("Hub", two_phase.dsn()) as hub:
        reader = open_stream(hub, channel, poll_interval=0.1).read().__enter__()
        for wake in ("notify", "poll", "notify", "poll"):
            pgpubsub.streams.create(connection, channel, wake=wake)
            connection.execute("BEGIN")
            pgpubsub.append(connection, channel, wake)
            if wake == "notify":
                with pytest.raises(psycopg.errors.FeatureNotSupported, match="cannot PREPARE a transaction"):
                    connection.execute("PREPARE TRANSACTION 'a'")
                continue
            connection.execute("PREPARE TRANSACTION 'a'")
            pgpubsub.append(connection, channel, "meanwhile")
            assert following(reader, 1) == ["meanwhile"]
            connection.execute("COMMIT PREPARED 'a'")
            assert following(reader, 1) == ["poll"]
        reader.close()
