"""Streams when the server's history is not the one that was read: failovers, an older state, dumps, upgrades."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import Entry, Gap, Hub, PositionError, StreamsNotInstalled
from pgpubsub.testing import Proxy, TemporaryServer
from pgpubsub.testing.server import find_binaries
from tests.system.commits import be_synchronous
from tests.system.older import packaged_binaries
from tests.system.standby import Standby
from tests.system.streams import (
    Admin,
    Follower,
    append,
    binaries_of,
    connect,
    install,
    one,
    payloads,
    read_all,
    run_as_owner,
    save,
    set_back,
    stored,
    until,
    xmax,
)

MakeStandby = Callable[..., Standby]

QUICK: dict[str, Any] = {"poll_interval": 0.1}


def numbers(*range_: int) -> list[str]:
    return [str(number) for number in range(*range_)]


def both(server: TemporaryServer, standby: Standby) -> str:
    """The address of whichever is the primary."""
    return (
        f"host=127.0.0.1,127.0.0.1 port={server.port},{standby.server.port} user=postgres dbname=postgres"
        " target_session_attrs=read-write"
    )


# -- failovers


@pytest.mark.parametrize("burnt", [0, 7], ids=["the same ids", "other ids"])
def test_a_standby_that_lacks_the_newest_entries_rewinds_readers(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby, burnt: int
) -> None:
    """What was lost was delivered; the new primary hands its transaction ids, and perhaps the ids, out again."""
    with Proxy(stream_server.dsn()) as between, connect(stream_server.dsn()) as admin:
        standby = make_stream_standby(between.dsn(application_name="standby"))
        hosts = both(stream_server, standby)
        with (
            Follower(hosts, "s", hub={"connect_timeout": 2}, **QUICK) as live,
            Follower(hosts, "s", kind="AsyncHub", hub={"connect_timeout": 2}, **QUICK) as other,
        ):
            for number in range(10):
                append(admin, "s", str(number))
                live.until(number + 1)
                other.until(number + 1)
            standby.catch_up()
            between.refuse()
            between.reset()
            for number in range(10, 30):
                append(admin, "s", str(number))
            live.until(30)
            other.until(30)
            shared, lost = live.tokens[5], [live.tokens[12], live.tokens[-1]]
            end = live.token
            stream_server.stop("immediate")
            standby.promote()
            with connect(standby.dsn()) as admin:
                for _ in range(burnt):
                    one(admin, "SELECT pg_current_xact_id()::text")
                news = [f"new {number}" for number in range(40)]
                for text in news:
                    append(admin, "s", text)
            for follower in (live, other):
                follower.until(30 + 1 + 40)
                assert follower.payloads == [*numbers(30), "rewound", *news], "it goes on at the last shared point"
            assert payloads(read_all(standby.dsn(), "s", shared)) == [*numbers(6, 10), *news]
            for token in [*lost, end]:
                assert payloads(read_all(standby.dsn(), "s", token)) == ["rewound", *numbers(10), *news]
            with connect(standby.dsn()) as admin:
                append(admin, "s", "one more")
            live.until(30 + 1 + 40 + 1)
            assert live.gaps == ["rewound"], "once"


def test_an_older_transaction_that_was_committed_last_and_lost_is_told_of_too(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    """The entry with the highest transaction id is in both histories; the one that was delivered last is not."""
    with Proxy(stream_server.dsn()) as between, psycopg.connect(stream_server.dsn()) as older:
        standby = make_stream_standby(between.dsn(application_name="standby"))
        with Follower(both(stream_server, standby), "s", hub={"connect_timeout": 2}, **QUICK) as live:
            pgpubsub.append(older, "s", "lost")
            with connect(stream_server.dsn()) as admin:
                append(admin, "s", "kept")
            live.until(1)
            standby.catch_up()
            between.refuse()
            between.reset()
            older.commit()
            live.until(2)
            token = live.token
            stream_server.stop("immediate")
            standby.promote()
            with connect(standby.dsn()) as admin:
                append(admin, "s", "new")
            live.until(4)
            assert live.payloads == ["kept", "lost", "rewound", "new"]
        assert payloads(read_all(standby.dsn(), "s", token)) == ["rewound", "kept", "new"]


def test_a_reader_that_had_read_nothing_of_what_was_lost_is_told_nothing(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    with Proxy(stream_server.dsn()) as between, connect(stream_server.dsn()) as admin:
        standby = make_stream_standby(between.dsn(application_name="standby"))
        append(admin, "s", "0", "1")
        standby.catch_up()
        tokens = [event.position for event in read_all(stream_server.dsn(), "s") if isinstance(event, Entry)]
        between.refuse()
        between.reset()
        append(admin, "s", "lost")
        stream_server.stop("immediate")
    standby.promote()
    with connect(standby.dsn()) as admin:
        append(admin, "s", "2")
    assert [payloads(read_all(standby.dsn(), "s", token)) for token in tokens] == [["1", "2"], ["2"]]


def test_a_synchronous_failover_loses_nothing_and_says_nothing(
    stream_server: TemporaryServer, make_stream_standby: MakeStandby
) -> None:
    standby = make_stream_standby()
    hosts = both(stream_server, standby)
    with connect(stream_server.dsn()) as admin:
        be_synchronous(admin)
        with (
            Follower(hosts, "s", hub={"connect_timeout": 2}, **QUICK) as live,
            Follower(hosts, "s", kind="AsyncHub", stops=10, hub={"connect_timeout": 2}, **QUICK) as restless,
        ):
            for number in range(100):
                append(admin, "s", str(number))
            live.until(60)
            stream_server.stop("immediate")
            standby.promote()
            with connect(standby.dsn()) as admin:
                for number in range(100, 150):
                    append(admin, "s", str(number))
            live.until(150)
            restless.until(150)
            assert live.payloads == restless.payloads == numbers(150)


# -- an older state


def test_a_server_that_is_set_back_to_an_older_state_rewinds_readers(stream_server: TemporaryServer) -> None:
    """Same system, same timeline; soon the same transaction ids and ids are there again."""
    dsn = stream_server.dsn()
    with connect(dsn) as admin:
        for number in range(5):
            append(admin, "s", str(number))
        old = read_all(dsn, "s")
    copy = save(stream_server)
    with Follower(dsn, "s", **QUICK) as live, Follower(dsn, "s", kind="AsyncHub", **QUICK) as other:
        live.until(5)
        other.until(5)
        with connect(dsn) as admin:
            for number in range(5, 12):
                append(admin, "s", str(number))
        live.until(12)
        other.until(12)
        set_back(stream_server, copy)
        with connect(dsn) as admin:
            news = [f"new {number}" for number in range(20)]
            for text in news:
                append(admin, "s", text)
        for follower in (live, other):
            follower.until(12 + 1 + 20)
            assert follower.payloads == [*numbers(12), "rewound", *news]
        assert payloads(read_all(dsn, "s", live.tokens[11])) == ["rewound", *numbers(5), *news]
        assert payloads(read_all(dsn, "s", live.tokens[2])) == [*numbers(3, 5), *news]
        assert isinstance(old[4], Entry)
        assert payloads(read_all(dsn, "s", old[4].position)) == news


def test_a_recovery_to_a_point_in_time_rewinds_readers(server: TemporaryServer) -> None:
    """From a copy and an archive of what was written after it, as far as somebody wants; on a timeline of its own."""
    dsn, archive = server.dsn(), server.directory / "archive"
    run_as_owner(server, "mkdir", archive)
    install(dsn)
    with connect(dsn) as admin:
        admin.execute("ALTER SYSTEM SET archive_mode = on")
        admin.execute(f"ALTER SYSTEM SET archive_command = 'cp %p {archive}/%f'")
        for number in range(5):
            append(admin, "s", str(number))
    copy = save(server)
    with Follower(dsn, "s", **QUICK) as live, Follower(dsn, "s", kind="AsyncHub", **QUICK) as other:
        with connect(dsn) as admin:
            for number in range(5, 10):
                append(admin, "s", str(number))
            live.until(10)  # a point that both histories share; nobody goes back into the midst of a batch
            other.until(10)
            admin.execute("SELECT pg_create_restore_point('here')")
            for number in range(10, 15):
                append(admin, "s", str(number))
            live.until(15)
            other.until(15)
            written = one(admin, "SELECT pg_walfile_name(pg_switch_wal())")
            until(lambda: (one(admin, "SELECT last_archived_wal FROM pg_stat_archiver") or "") >= written)
        recovery = f"""
            restore_command = 'cp {archive}/%f %p'
            recovery_target_name = 'here'
            recovery_target_action = 'promote'
        """
        run_as_owner(
            server, "sh", "-c", 'echo "$1" >> "$0/postgresql.auto.conf"; touch "$0/recovery.signal"', copy, recovery
        )
        set_back(server, copy)
        with connect(dsn) as admin:
            until(lambda: one(admin, "SELECT pg_is_in_recovery()") is False)
            news = [f"new {number}" for number in range(20)]
            for text in news:
                append(admin, "s", text)
        for follower in (live, other):
            follower.until(15 + 1 + 20)
            assert follower.payloads == [*numbers(15), "rewound", *news], "it goes on at the last shared point"
        assert payloads(read_all(dsn, "s", live.tokens[12])) == ["rewound", *numbers(10), *news]
        assert payloads(read_all(dsn, "s", live.tokens[7])) == [*numbers(8, 10), *news]


# -- dumps


def dump_and_restore(server: TemporaryServer, source: str, target: str, *arguments: str) -> None:
    """`server` has the programs for it."""
    dumped = subprocess.run([server.binaries / "pg_dump", "-d", source, *arguments], capture_output=True, timeout=60)
    assert dumped.returncode == 0, dumped.stderr
    psql: list[str | Path] = [server.binaries / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", target]
    restored = subprocess.run(psql, input=dumped.stdout, capture_output=True, timeout=60)
    assert restored.returncode == 0, restored.stderr


@pytest.fixture(params=["another cluster", "another database"])
def elsewhere(request: pytest.FixtureRequest, stream_server: TemporaryServer) -> Iterator[str]:
    """Where a dump of `stream_server` is restored."""
    if request.param == "another cluster":
        with TemporaryServer(stream_server.binaries, tcp=True) as server:
            yield server.dsn()
    else:
        with connect(stream_server.dsn()) as admin:
            admin.execute("CREATE DATABASE elsewhere TEMPLATE template0")
        yield stream_server.dsn(dbname="elsewhere")


def test_a_dump_is_refused_until_it_is_repaired_and_then_read_from_the_beginning(
    stream_server: TemporaryServer, elsewhere: str
) -> None:
    with connect(stream_server.dsn()) as admin:
        for _ in range(300):  # ids that the other cluster has not reached
            one(admin, "SELECT pg_current_xact_id()::text")
        for number in range(10):
            append(admin, "s", str(number))
    old = [event.position for event in read_all(stream_server.dsn(), "s") if isinstance(event, Entry)]
    dump_and_restore(stream_server, stream_server.dsn(), elsewhere)
    with Hub(elsewhere) as hub:
        with pytest.raises(StreamsNotInstalled, match=re.escape("restored from a dump")) as refused:
            hub.stream("s").read().__enter__()
        assert "pgpubsub.streams.install(conn)" in str(refused.value)
        with connect(elsewhere) as admin:
            pgpubsub.streams.install(admin)
            pgpubsub.streams.install(admin)
        with Follower(elsewhere, "s", after=old[7], **QUICK) as live, connect(elsewhere) as admin:
            live.until(11)
            append(admin, "s", "10")
            assert hub.stream("s").append("11")
            live.until(13)
            assert live.payloads == ["restored", *numbers(12)]
            for token in (old[0], old[-1]):
                assert payloads(read_all(elsewhere, "s", token)) == ["restored", *numbers(12)]
            check_tokens(elsewhere, live.tokens, numbers(12))


def test_a_group_of_a_dump_goes_on_with_what_it_had_not_handled(stream_server: TemporaryServer, elsewhere: str) -> None:
    """Also what waits to come again, what was in hand, and dead letters."""
    dsn = stream_server.dsn()
    with Hub(dsn) as hub, connect(dsn) as late:
        stream = hub.stream("s")
        with late.transaction():
            pgpubsub.append(late, "s", "late")
            stream.append_many(numbers(10), key=lambda value: str(int(value) % 3))
            with stream.read(follow=False) as reader:
                for _ in reader:
                    pass
            old = reader.position
            assert old is not None
            with stream.consume("billing", attempts=2, backoff=1000) as consumer:
                for _ in range(4):
                    consumer.get(20).acknowledge()
                consumer.get(20).fail("it waits")  # number 4, and so do 7 behind it
                in_hand = consumer.get(20)
                assert in_hand.payload == "5"
                dump_and_restore(stream_server, dsn, elsewhere)
                in_hand.acknowledge()
    with connect(elsewhere) as admin, Hub(elsewhere) as hub:
        stream = hub.stream("s")
        with pytest.raises(StreamsNotInstalled, match="restored from a dump"):
            stream.consume("billing").__enter__()
        pgpubsub.streams.install(admin)
        stream.append("new", key="1")
        admin.execute("UPDATE pgpubsub.parked SET due_at = now() WHERE due_at IS NOT NULL")
        handled: list[tuple[Any, int]] = []
        for delivery in stream.consume("billing", follow=False):
            with delivery:
                handled.append((delivery.payload, delivery.attempt))
        assert sorted(handled) == [("4", 2), ("5", 2), ("6", 1), ("7", 1), ("8", 1), ("9", 1), ("new", 1)]
        assert [payload for payload, _ in handled if payload in ("4", "7", "new")] == ["4", "7", "new"]
        assert [(group.lag, group.dead) for group in stream.groups()] == [(0, 0)]
        with pytest.raises(PositionError, match="restored from a dump"):
            stream.seek("billing", old)
        gaps: list[Gap] = []
        stream.process("new", lambda entry: None, start=old, on_gap=gaps.append, follow=False)
        assert [gap.reason for gap in gaps] == ["restored"]
        assert {group.name: group.lag for group in stream.groups()} == {"billing": 0, "new": 0}


def test_appends_to_a_dump_that_is_not_repaired_are_not_lost(stream_server: TemporaryServer, elsewhere: str) -> None:
    with connect(stream_server.dsn()) as admin:
        for number in range(10):
            append(admin, "s", str(number))
    dump_and_restore(stream_server, stream_server.dsn(), elsewhere)
    with connect(elsewhere) as admin:
        append(admin, "s", "10", "11")
        pgpubsub.streams.install(admin)
        append(admin, "s", "12")
        assert stored(admin, "s") == numbers(13)
    assert payloads(read_all(elsewhere, "s")) == numbers(13)


@pytest.mark.parametrize("arguments", [[], ["--disable-triggers"]])
def test_the_data_of_a_dump_alone_are_refused_too(stream_server: TemporaryServer, arguments: list[str]) -> None:
    """Where streams were installed, and used, before: those that come may have transaction ids of the future."""
    with connect(stream_server.dsn()) as admin:
        admin.execute("CREATE DATABASE elsewhere TEMPLATE template0")
        for number in range(10):
            append(admin, "s", str(number))
    old = [event.position for event in read_all(stream_server.dsn(), "s") if isinstance(event, Entry)]
    elsewhere = stream_server.dsn(dbname="elsewhere")
    install(elsewhere)
    with connect(elsewhere) as admin, Hub(elsewhere) as hub:
        append(admin, "t", "native")
        ours = [event.position for event in read_all(elsewhere, "t") if isinstance(event, Entry)]
        data = ["--data-only", "--table=pgpubsub.entry", "--table=pgpubsub.birth", "--table=pgpubsub.entry_id"]
        dump_and_restore(stream_server, stream_server.dsn(), elsewhere, *data, *arguments)
        with pytest.raises(StreamsNotInstalled, match="restored from a dump"):
            hub.stream("s").read().__enter__()
        pgpubsub.streams.install(admin)
        append(admin, "s", "10")
        assert payloads(read_all(elsewhere, "s")) == numbers(11)
        assert payloads(read_all(elsewhere, "s", old[3])) == ["restored", *numbers(11)]
        assert payloads(read_all(elsewhere, "t", ours[0])) == ["restored", "native"]


def test_a_live_reader_of_a_database_that_is_replaced_by_its_dump_is_told(stream_server: TemporaryServer) -> None:
    dsn, copy = stream_server.dsn(dbname="work"), stream_server.dsn(dbname="copy")
    with connect(stream_server.dsn()) as admin:
        for name in ("work", "copy"):
            admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        install(dsn)
        with connect(dsn) as there:
            append(there, "s", *numbers(5))
        with Follower(dsn, "s", hub={"heartbeat": 0.5}, **QUICK) as live:
            live.until(5)
            dump_and_restore(stream_server, dsn, copy)
            install(copy)
            admin.execute("DROP DATABASE work WITH (FORCE)")
            admin.execute("ALTER DATABASE copy RENAME TO work")
            with connect(dsn) as there:
                append(there, "s", "5")
            live.until(5 + 1 + 6)
            assert live.payloads == [*numbers(5), "restored", *numbers(6)]


# -- the same history


def old_binaries() -> Path:
    """Of a major version before the newest: the package pgserver's 16.2, or Debian's."""
    newest = find_binaries()
    for directory in [*packaged_binaries(), *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]:
        if directory != newest and (directory / "pg_upgrade").exists() and (directory / "pg_checksums").exists():
            return directory
    pytest.skip("pg_upgrade needs an older PostgreSQL too (Debian: apt-get install postgresql)")


@pytest.mark.parametrize("older", [False, True], ids=["the same version", "an older version"])
def test_an_upgraded_server_has_the_same_history(older: bool) -> None:
    """pg_upgrade makes a new system, of the same version too, and keeps the transaction ids."""
    if not (find_binaries() / "pg_upgrade").exists():
        pytest.skip("there is no pg_upgrade")
    binaries = old_binaries() if older else find_binaries()
    with TemporaryServer(binaries, tcp=True) as old, TemporaryServer(find_binaries(), tcp=True) as new:
        check_upgradable(old, new)
        install(old.dsn())
        where = [old.dsn()]
        with connect(old.dsn()) as admin:
            for number in range(10):
                append(admin, "s", str(number))
            ids = xmax(admin)
        tokens = [event.position for event in read_all(old.dsn(), "s") if isinstance(event, Entry)]
        stream = Follower(lambda: where[0], "s", **QUICK)  # type: ignore[arg-type]
        with stream as live:
            live.until(10)
            upgrade(old, new)
            where[0] = new.dsn()
            with connect(new.dsn()) as admin:
                assert xmax(admin) >= ids
                for number in range(10, 15):
                    append(admin, "s", str(number))
            live.until(15)
            assert live.payloads == numbers(15)
        check_tokens(new.dsn(), tokens, numbers(15))
        install(new.dsn())
        assert payloads(read_all(new.dsn(), "s", tokens[3])) == numbers(4, 15)


def upgrade(old: TemporaryServer, new: TemporaryServer) -> None:
    old.stop()
    new.stop()
    ours, theirs = binaries_of(new), binaries_of(old)
    has_checksums = [
        re.search(
            r"checksum version: +(\d)", run_as_owner(server, programs / "pg_controldata", server.directory / "data")
        )
        for server, programs in ((old, theirs), (new, ours))
    ]
    if [found and found[1] for found in has_checksums] == ["0", "1"]:
        run_as_owner(old, theirs / "pg_checksums", "--enable", "-D", old.directory / "data")
    shutil.copytree(old.directory / "data", new.directory / "old")  # its own directory is nobody else's
    owner = new.directory.stat()
    for path in [new.directory / "old", *(new.directory / "old").rglob("*")]:
        shutil.chown(path, owner.st_uid, owner.st_gid)
    command: list[str | Path] = [ours / "pg_upgrade", "-b", theirs, "-B", ours, "-U", "postgres", "-s", new.directory]
    run_as_owner(new, *command, "-d", new.directory / "old", "-D", new.directory / "data")
    new.start()


def check_upgradable(old: TemporaryServer, new: TemporaryServer) -> None:
    """The minor releases have to fit each other: some mark every column with an option that earlier ones refuse."""
    with connect(old.dsn()) as admin, connect(new.dsn()) as newer:
        admin.execute("CREATE TEMPORARY TABLE t (a int)")
        newer.execute("CREATE TEMPORARY TABLE t (a int)")
        options = one(admin, "SELECT attoptions FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'a'")
        for option in options or ():
            try:
                newer.execute(f"ALTER TABLE t ALTER a SET ({option})")
            except psycopg.errors.InvalidParameterValue as error:
                pytest.xfail(f"pg_upgrade cannot work between these minor releases: {error}")


def test_rewriting_and_freezing_the_tables_is_no_new_history(stream_server: TemporaryServer) -> None:
    dsn = stream_server.dsn()
    statements = ["VACUUM FULL", "VACUUM FREEZE", "CLUSTER", "VACUUM (FULL, FREEZE, ANALYZE)"]
    with connect(dsn) as admin, Follower(dsn, "s", **QUICK) as live:
        for place, statement in enumerate(statements):
            append(admin, "s", *numbers(2 * place, 2 * place + 2))
            live.until(2 * place + 2)
            rewrite(admin, statement)
            check_tokens(dsn, live.tokens, numbers(2 * place + 2))
    pgpubsub.streams.install(admin := connect(dsn))
    append(admin, "s", "8")
    admin.close()
    stream_server.restart()
    check_tokens(dsn, live.tokens, numbers(9))


def check_tokens(dsn: str, tokens: list[str], there: list[str]) -> None:
    """Each was given out with an entry, the first with the first."""
    for place, token in enumerate(tokens):
        assert payloads(read_all(dsn, "s", token)) == there[place + 1 :]


def rewrite(admin: Admin, statement: str) -> None:
    tables = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'pgpubsub'").fetchall()
    assert ("birth",) in tables
    for (table,) in tables:
        try:
            admin.execute(f"{statement} pgpubsub.{table}" + (f" USING {table}_pkey" if statement == "CLUSTER" else ""))
        except psycopg.errors.UndefinedObject:
            assert statement == "CLUSTER"
            assert table in ("birth", "slot")
