"""What readers of streams must withstand from servers: copies, restores in place, outages, and strange settings."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import Entry, Gap, GapReason, Hub, PubSubError, StreamsNotInstalled
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import PATIENCE, AnyHub, Covered, Worker
from tests.contract.sending import wait_until, words
from tests.contract.streams import KINDS, all_payloads, backends, following, identifier, install, open_stream
from tests.system.standby import Standby

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ROLES = ("listen", "notify", "append", "read")


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(stream_server: TemporaryServer) -> TemporaryServer:
    """With streams, as new."""
    return stream_server


@pytest.fixture
def boss(server: TemporaryServer) -> Iterator[Admin]:
    """A connection to the server."""
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        yield connection


def streams_of(hub: AnyHub) -> Any:
    if isinstance(hub, Covered):
        return hub.hub._streams
    assert isinstance(hub, Hub)
    return hub._streams


def in_loop(hub: AnyHub, function: Callable[[], object]) -> None:
    """Call a function where the hub lives."""
    if isinstance(hub, Covered):
        hub.loop.call(function)
        return
    assert isinstance(hub, Hub)

    async def called() -> None:
        function()

    hub._running_thread().call(called)


# -- copies


@pytest.fixture
def two_servers(at_end: ExitStack, session_server: TemporaryServer) -> list[TemporaryServer]:
    """Between which entries can be copied, with streams."""
    settings = {"wal_level": "logical"}
    servers = [
        at_end.enter_context(TemporaryServer(session_server.binaries, tcp=True, settings=settings)) for _ in range(2)
    ]
    for server in servers:
        install(server.dsn())
    return servers


def test_what_logical_replication_copies_is_read_like_what_is_appended_there(
    two_servers: list[TemporaryServer], new_hub: NewHub
) -> None:
    source, target = [server.dsn() for server in two_servers]
    with psycopg.connect(source, autocommit=True) as ours, psycopg.connect(target, autocommit=True) as theirs:
        ours.execute(
            "DO $$ BEGIN FOR number IN 1..3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
        )  # ids that the other server has not reached
        for text in words(5):
            pgpubsub.append(ours, "s", text)
        ours.execute("CREATE PUBLICATION entries FOR TABLE pgpubsub.entry")
        with new_hub(target) as hub:
            stream = open_stream(hub, "s", poll_interval=0.1)
            with stream.read() as reader:
                theirs.execute(f"CREATE SUBSCRIPTION entries CONNECTION '{source}' PUBLICATION entries")
                assert following(reader, 5) == words(5)
                pgpubsub.append(ours, "s", "streamed")
                assert following(reader, 1) == ["streamed"]
                for text in words(3, "appended"):
                    stream.append(text)
                    assert following(reader, 1) == [text]
                position = reader.position
            assert all_payloads(stream) == [*words(5), "streamed", *words(3, "appended")]
            stream.append("last")
            assert all_payloads(stream, position) == ["last"]
        theirs.execute("DROP SUBSCRIPTION entries")


# -- restores in place


def dump(server: TemporaryServer) -> str:
    """The schema as a script."""
    command: list[str | Path] = [server.binaries / "pg_dump", "-d", server.dsn(), "-n", "pgpubsub"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def restore_in_place(server: TemporaryServer, script: str, afterwards: str = "") -> None:
    """As `pg_restore --clean --single-transaction` does."""
    command: list[str | Path] = [
        server.binaries / "psql",
        "-X",
        "-q",
        "-1",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        server.dsn(),
    ]
    clean = "DROP SCHEMA pgpubsub CASCADE;\n"
    done = subprocess.run(command, input=clean + script + afterwards, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_restore_in_place_is_told_to_whoever_reads(server: TemporaryServer, boss: Admin, new_hub: NewHub) -> None:
    with new_hub(server.dsn()) as hub:
        stream = open_stream(hub, "s", poll_interval=0.1)
        stream.append_many(words(3))
        with stream.read() as reader:
            assert following(reader, 3) == words(3)
            script = dump(server)
            stream.append_many(words(3, "lost"))
            assert following(reader, 3) == words(3, "lost")
            position = reader.position
            restore_in_place(server, script)
            with pytest.raises(StreamsNotInstalled, match="restored from a dump"):
                reader.get(PATIENCE)
        pgpubsub.streams.install(boss)
        with stream.read(position) as reader:
            gap = reader.get(PATIENCE)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.RESTORED
            assert following(reader, 3) == words(3)
            stream.append("new")
            assert following(reader, 1) == ["new"]


@pytest.mark.parametrize("appends", [False, True], ids=["nothing follows", "an append follows"])
def test_a_restore_in_place_that_is_repaired_at_once_brings_everything_again(
    server: TemporaryServer, boss: Admin, new_hub: NewHub, appends: bool
) -> None:
    with new_hub(server.dsn()) as hub:
        stream = open_stream(hub, "s", poll_interval=0.1)
        stream.append_many(words(3))
        with stream.read() as reader:
            assert following(reader, 3) == words(3)
            script = dump(server)
            stream.append_many(words(3, "lost"))
            assert following(reader, 3) == words(3, "lost")
            restore_in_place(server, script, pgpubsub.streams.sql())
            news = ["new"] if appends else []
            for text in news:
                stream.append(text)
            event = reader.get(PATIENCE)
            if isinstance(event, Entry):  # it came before anybody looked whose history that is
                assert event.payload in news
                event = reader.get(PATIENCE)
            assert isinstance(event, Gap)
            assert event.reason is GapReason.RESTORED
            assert following(reader, 3 + len(news)) == [*words(3), *news]
            stream.append("last")
            assert following(reader, 1) == ["last"]


# -- outages


def test_a_reader_goes_on_as_soon_as_the_hub_is_live_again(
    server: TemporaryServer, boss: Admin, new_hub: NewHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long its own attempts have become rare."""
    for module in ("reader", "watch"):
        monkeypatch.setattr(f"pgpubsub.streams.{module}.new_delays", lambda: itertools.repeat(3600.0))
    with new_hub(server.dsn()) as hub:
        stream = open_stream(hub, "s", poll_interval=0.1)
        stream.append("before")
        with stream.read() as reader:
            assert following(reader, 1) == ["before"]
            ((inner,),) = streams_of(hub)._readers.values()
            server.stop("immediate")
            in_loop(hub, inner.wake)
            wait_until(lambda: inner.error is not None)
            server.start()
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                pgpubsub.append(admin, "s", "meanwhile")
            hub.wait_until_live(PATIENCE)
            assert reader.get(5).payload == "meanwhile"
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                pgpubsub.append(admin, "s", "after")
            assert reader.get(5).payload == "after"


def test_a_hub_that_gave_up_leaves_nothing_behind(server: TemporaryServer, boss: Admin, new_hub: NewHub) -> None:
    hub = new_hub(server.dsn(), give_up_after=0.5)
    hub.__enter__()
    stream = open_stream(hub, "s", poll_interval=0.05)
    stream.append("a")
    with stream.read() as reader, stream.read() as other:
        assert following(reader, 1) == following(other, 1) == ["a"]
        streams = streams_of(hub)
        server.stop("immediate")
        for one in (reader, other):
            with pytest.raises(PubSubError):
                one.get(PATIENCE)
        server.start()
        wait_until(lambda: not streams._tasks and not streams._readers)
        assert [watch.task is None or watch.task.done() for watch in streams._watches.values()] == [True]
        (source,) = streams._sources.values()
        assert not source._lent
        assert not source._idle
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            assert [backends(admin, role) for role in ROLES] == [[]] * 4
        if isinstance(hub, Covered):
            hub.loop.run(all_tasks_ended())


async def all_tasks_ended() -> None:
    async with asyncio.timeout(PATIENCE):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)


# -- settings


def test_a_role_that_is_serializable_reads_from_a_standby_too(
    server: TemporaryServer,
    boss: Admin,
    new_hub: NewHub,
    make_stream_standby: Callable[..., Standby],
    at_end: ExitStack,
) -> None:
    role = identifier("strict role")
    at_end.callback(boss.execute, f"DROP ROLE {role}")
    boss.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    boss.execute(f"ALTER ROLE {role} SET default_transaction_isolation = serializable")
    standby = make_stream_standby()
    with new_hub(server.dsn(user="strict role")) as hub:
        stream = open_stream(hub, "s")
        workers = [Worker(lambda: stream.append("a")) for _ in range(10)]
        assert sorted(worker.outcome() for worker in workers)
        assert all_payloads(stream) == ["a"] * 10
        standby.catch_up()
        there = open_stream(hub, "s", poll_interval=0.1, read_conninfo=standby.dsn(user="strict role"))
        with there.read() as reader:
            assert following(reader, 10) == ["a"] * 10
            stream.append("b")
            assert following(reader, 1) == ["b"]
