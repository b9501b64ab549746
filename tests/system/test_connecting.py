"""How hubs, readers and `PubSub` come to a connection: names, service files, and limits."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgpubsub
from pgpubsub import AsyncHub, ConnectionFailed, Gap, Hub, PubSub
from pgpubsub.classic import listener
from pgpubsub.drivers.psycopg3_connect import connect
from pgpubsub.drivers.psycopg3_conninfo import NOT_LEFT_TO_LIBPQ, parse_conninfo
from pgpubsub.groups import connections
from pgpubsub.groups.connections import AsyncConnections
from pgpubsub.streams import BEGINNING
from pgpubsub.testing import Proxy, TemporaryServer
from tests.system.frozen import FrozenServer
from tests.system.streams import connect as admin_connection
from tests.system.streams import install, one


@pytest.fixture
def by_name(session_server: TemporaryServer) -> str:
    return session_server.dsn(host="localhost", connect_timeout=5)


@pytest.fixture
def frozen() -> Iterator[FrozenServer]:
    with FrozenServer() as server:
        yield server


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the service "app"."""
    file = tmp_path / "services"
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    return file


def describe(service: Path, dsn: str, **more: object) -> None:
    lines = [f"{name}={value}" for name, value in {**conninfo_to_dict(dsn), **more}.items()]
    service.write_text("\n".join(["[app]", *lines]) + "\n")


# -- names


def test_names_are_found_while_the_loops_own_threads_are_busy(by_name: str) -> None:
    install(by_name)
    enough = threading.Event()

    async def main() -> None:
        executor = ThreadPoolExecutor(1)
        asyncio.get_running_loop().set_default_executor(executor)
        busy = asyncio.ensure_future(asyncio.to_thread(enough.wait, 60))
        try:
            async with AsyncHub(by_name) as hub:
                stream = hub.stream("orders", str)
                await stream.append("17")
                async with stream.read(after=BEGINNING) as entries:
                    assert getattr(await entries.get(10), "payload", None) == "17"
            assert not busy.done()
        finally:
            enough.set()
            await busy

    asyncio.run(main())


def test_names_are_found_when_the_main_thread_has_ended(by_name: str) -> None:
    code = """
import sys, threading, pgpubsub
def work():
    threading.main_thread().join()
    with pgpubsub.Hub(sys.argv[1]) as hub:
        hub.notify("x")
    print("sent")
threading.Thread(target=work).start()
"""
    done = subprocess.run([sys.executable, "-c", code, by_name], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("sent\n", "")


def test_a_name_server_that_does_not_answer_is_not_waited_for(by_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    enough = threading.Event()

    def hang(*args: Any, **keywords: Any) -> list[Any]:
        enough.wait(60)
        raise OSError("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        with pytest.raises(ConnectionFailed, match="no answer from the name server within 2 s"):
            Hub(by_name, connect_timeout=2).__enter__()
    finally:
        enough.set()


def test_a_host_whose_name_is_not_found_in_time_leaves_some_to_the_others(
    session_server: TemporaryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = socket.getaddrinfo

    def find_late(host: str, *args: Any, **keywords: Any) -> list[Any]:
        if host == "away.invalid":
            threading.Event().wait(2.5)
            raise socket.gaierror(socket.EAI_AGAIN, "temporary failure")
        return find(host, *args, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", find_late)
    with Hub(session_server.dsn(host="away.invalid,localhost", connect_timeout=2)) as hub:
        hub.notify("x")


def test_without_a_thread_to_ask_with_it_has_failed(by_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr("pgpubsub.background.start_new_thread", refuse)
        async with AsyncHub(by_name):
            raise AssertionError

    with pytest.raises(ConnectionFailed, match="no thread could ask the name server: can't start new thread"):
        asyncio.run(main())


@pytest.mark.parametrize("balance", ["disable", "random"])
def test_each_host_is_tried_by_each_of_its_addresses(session_server: TemporaryServer, balance: str) -> None:
    port, directory = session_server.port, session_server.directory
    for hosts, ports in (
        (f"{directory}", f"{port}"),
        (f"localhost,{directory}", f"1,{port}"),
        ("nowhere.invalid,127.0.0.1,localhost", f"{port},1,{port}"),
        ("localhost,localhost", f"{port}"),
    ):
        dsn = f"host={hosts} port={ports} user=postgres dbname=postgres load_balance_hosts={balance}"
        with Hub(dsn, target_session_attrs="prefer-standby") as hub:
            hub.notify("x")


def test_a_host_keeps_its_name(session_server: TemporaryServer) -> None:
    """Which certificates and password files have."""

    async def main(dsn: str) -> tuple[str, str]:
        conn = await connect(dsn)
        async with conn:
            return conn.info.host, conn.info.hostaddr

    dsn = session_server.dsn(host="localhost")
    assert asyncio.run(main(dsn)) == ("localhost", "127.0.0.1")
    assert asyncio.run(main(session_server.dsn(host="nowhere.invalid", hostaddr="127.0.0.1")))[0] == "nowhere.invalid"


def test_hosts_of_the_environment_are_found(session_server: TemporaryServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "localhost,localhost")
    monkeypatch.setenv("PGPORT", f"1,{session_server.port}")
    with Hub("user=postgres dbname=postgres") as hub:
        hub.notify("x")


# -- service files


def test_a_service_gets_what_its_file_does_not_say(dsn: str, service: Path) -> None:
    describe(service, dsn, keepalives_idle=77)
    given = conninfo_to_dict(parse_conninfo("service=app", {}, application_name="mine"))
    expected = {
        "service": "app",
        "fallback_application_name": "mine",
        "client_encoding": "UTF8",
        "connect_timeout": "10",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "30000",
    }
    assert {name: value for name, value in given.items() if name in expected} == expected
    assert given.keys() <= expected.keys() | set(NOT_LEFT_TO_LIBPQ)
    assert "keepalives_idle" not in given, "which the file says"
    with Hub("service=app"), psycopg.connect(dsn) as admin:
        named = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", [f"pgpubsub %{os.getpid()}@%"]
        )
        assert named.fetchone() == (2,)


@pytest.mark.parametrize("way", ["Hub", "PubSub"])
def test_the_hosts_of_a_service_are_tried_one_after_another(server: TemporaryServer, service: Path, way: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ports = f"{silent.getsockname()[1]},{server.port}"
        describe(service, server.dsn(host="127.0.0.1,127.0.0.1", port=ports, connect_timeout=2))
        if way == "Hub":
            with Hub("service=app") as hub:
                hub.notify("a", "1")
        else:
            with pgpubsub.connect("service=app") as pubsub:
                pubsub.notify("a", "1")


def test_a_primary_is_found_where_no_standby_answers(server: TemporaryServer) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = ",".join([*(str(one.getsockname()[1]) for one in silent), str(server.port)])
        hosts = ",".join(["127.0.0.1"] * 4)
        dsn = server.dsn(host=hosts, port=ports, connect_timeout=2, target_session_attrs="prefer-standby")

        async def main() -> None:
            await (await connect(dsn)).close()

        asyncio.run(main())


def test_a_service_that_is_not_there_is_an_error_that_says_so(service: Path) -> None:
    service.write_text("")
    with pytest.raises(ConnectionFailed, match='definition of service "app" not found'):
        Hub("service=app").__enter__()
    with pytest.raises(ConnectionFailed, match='definition of service "app" not found'):
        pgpubsub.connect("service=app")


# -- limits


@pytest.mark.parametrize("said", ["keyword", "service", "environment"])
def test_a_server_that_freezes_when_it_has_let_us_in_is_given_up(
    frozen: FrozenServer, service: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    dsn = frozen.dsn()
    if said == "keyword":
        dsn = make_conninfo(dsn, connect_timeout=2)
    elif said == "service":
        describe(service, dsn, connect_timeout=2)
        dsn = "service=app"
    else:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match="no answer within 2 s"):
        Hub(dsn).__enter__()
    with pytest.raises(ConnectionFailed, match="no answer within 2 s"):
        pgpubsub.connect(dsn)
    assert time.monotonic() - started < 30


def test_a_connection_that_is_called_off_is_closed_although_its_error_is_kept(session_server: TemporaryServer) -> None:
    its = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'called off'"

    async def main() -> None:
        dsn = session_server.dsn()
        with Proxy(make_conninfo(dsn, application_name="called off")) as proxy, admin_connection(dsn) as admin:
            proxy.deafen("to_client")
            task = asyncio.create_task(connect(proxy.dsn(sslmode="disable", gssencmode="disable")))
            await eventually(lambda: one(admin, its) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError) as kept:
                await task
            await eventually(lambda: one(admin, its) == 0)
            assert kept.tb is not None

    async def eventually(what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_such_a_server_is_given_up_without_a_descriptor_to_spare(frozen: FrozenServer) -> None:
    code = """
import resource, sys, threading
import pgpubsub
def take_them():
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
threading.Timer(1, take_them).start()
try:
    pgpubsub.connect(sys.argv[1])
except pgpubsub.ConnectionFailed as error:
    print(error)
"""
    dsn = frozen.dsn(connect_timeout=3)
    done = subprocess.run([sys.executable, "-c", code, dsn], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("cannot connect to PostgreSQL: no answer within 3 s\n", "")


def test_a_handlers_transaction_is_not_waited_for_with_such_a_server(
    frozen: FrozenServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "SECONDS", 1.0)

    async def address() -> str:
        return parse_conninfo(frozen.dsn(), {})

    async def main() -> None:
        with pytest.raises(ConnectionFailed, match="within 1 s: no answer within 1 s"):
            await AsyncConnections(address).begin()

    asyncio.run(main())


def test_a_server_that_freezes_before_it_listens_again_is_given_up(
    dsn: str, channel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ANSWER", 0.2)
    with FrozenServer("13.1") as frozen:
        there = [psycopg.connect(frozen.dsn(), autocommit=True), psycopg.connect(dsn, autocommit=True)]
        with PubSub(psycopg.connect(dsn, autocommit=True), reopen=lambda: there.pop(0)) as pubsub:
            pubsub.listen(channel)
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [pubsub.backend_pid])
            assert isinstance(pubsub.get_event(20, yield_gaps=True), Gap)
            assert there == []
