"""`pgpubsub.testing.Proxy`: each fault is what it says, at once, and only where it was asked for."""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import psycopg
import pytest

from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.test_pubsub import terminate

RESET_ON_CLOSE = struct.pack("ii", 1, 0)

Connect = Callable[[], psycopg.Connection[Any]]


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)


def readable(connection: psycopg.Connection[Any] | socket.socket) -> bool:
    return bool(select.select([connection], [], [], 0)[0])


def exists(admin: psycopg.Connection[Any], pid: int) -> bool:
    return admin.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone() is not None


def works(connection: psycopg.Connection[Any]) -> bool:
    return connection.execute("SELECT 1").fetchone() == (1,)


def send(connection: psycopg.Connection[Any], statement: str) -> None:
    """Without waiting for the answer."""
    connection.pgconn.send_query(statement.encode())
    connection.pgconn.flush()


def read_answer(connection: psycopg.Connection[Any]) -> None:
    """Without get_result() waiting for it, which would keep everything else in this process waiting too."""
    result: object = "none yet"
    while result is not None:
        while connection.pgconn.is_busy():
            assert select.select([connection], [], [], 20)[0]
            connection.pgconn.consume_input()
        result = connection.pgconn.get_result()


def heard(listener: psycopg.Connection[Any], count: int) -> list[str]:
    return [notify.payload for notify in listener.notifies(timeout=20, stop_after=count)]


@pytest.fixture
def proxy(dsn: str) -> Iterator[Proxy]:
    with Proxy(dsn) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy: Proxy) -> Iterator[Connect]:
    with ExitStack() as stack:

        def connect_through_proxy() -> psycopg.Connection[Any]:
            connection = psycopg.connect(proxy.dsn(), autocommit=True)
            stack.callback(connection.close)
            return connection

        yield connect_through_proxy


@pytest.fixture
def listener(admin: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """Listens to `channel`, past the proxy."""
    admin.execute("LISTEN channel")
    return admin


class Ends:
    """A client and a server that are plain sockets, with a proxy between them."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server


@pytest.fixture
def ends() -> Iterator[Ends]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        with Proxy(f"host=127.0.0.1 port={listening.getsockname()[1]}") as proxy:
            client = socket.create_connection(("127.0.0.1", proxy.port), timeout=20)
            server, _ = listening.accept()
            server.settimeout(20)
            with client, server:
                yield Ends(proxy, client, server)


# -- forwarding


def test_it_forwards_to_the_database_of_its_dsn(dsn: str, admin: psycopg.Connection[Any]) -> None:
    with Proxy(psycopg.conninfo.make_conninfo(dsn, application_name="of the dsn")) as proxy:
        with psycopg.connect(proxy.dsn()) as one, psycopg.connect(proxy.dsn(application_name="given")) as other:
            assert (one.info.port, one.info.dbname) == (proxy.port, admin.info.dbname)
            names = [each.execute("SHOW application_name").fetchone() for each in (one, other)]
            assert names == [("of the dsn",), ("given",)]
            assert proxy.connections == 2
        wait_until(lambda: proxy.connections == 0)


def test_it_forwards_all_of_a_large_value(connect: Connect) -> None:
    connection, value = connect(), "0123456789" * 2_000_000
    row = connection.execute("SELECT %s::text || 'x'", [value]).fetchone()
    assert row is not None
    assert row[0] == value + "x"


def test_the_server_may_be_on_a_unix_socket(session_server: TemporaryServer) -> None:
    proxy = Proxy(session_server.dsn(host=session_server.directory))
    with proxy, psycopg.connect(proxy.dsn()) as connection:
        assert connection.execute("SELECT inet_client_addr()").fetchone() == (None,)


def test_it_stands_before_one_server() -> None:
    with pytest.raises(ValueError, match="one server, not before one,other"):
        Proxy("host=one,other")


def test_where_there_is_no_server_the_connection_ends() -> None:
    with Proxy("host=127.0.0.1 port=1") as proxy:
        with pytest.raises(psycopg.OperationalError, match="closed|reset"):
            psycopg.connect(proxy.dsn())
        wait_until(lambda: proxy.connections == 0)


def test_an_end_of_stream_goes_through_in_each_direction_by_itself(ends: Ends) -> None:
    ends.client.sendall(b"question")
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.server.makefile("rb").read() == b"question"
    ends.server.sendall(b"answer")
    ends.server.close()
    assert ends.client.makefile("rb").read() == b"answer"
    wait_until(lambda: ends.proxy.connections == 0)


def test_a_crash_of_the_server_goes_through(server: TemporaryServer) -> None:
    with Proxy(server.dsn()) as proxy, psycopg.connect(proxy.dsn(), autocommit=True) as connection:
        server.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        with psycopg.connect(proxy.dsn()) as again:
            assert works(again)


def test_closing_ends_everything_and_may_be_repeated(proxy: Proxy, connect: Connect) -> None:
    connection = connect()
    proxy.close()
    proxy.close()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="refused"):
        connect()
    for operation in (proxy.reset, proxy.deafen, proxy.accept, lambda: proxy.connections):
        with pytest.raises(RuntimeError, match="the proxy is closed"):
            operation()
    assert "pgpubsub-proxy" not in [thread.name for thread in threading.enumerate()]


def test_it_counts_whoever_has_connected(proxy: Proxy) -> None:
    with ExitStack() as stack:
        for count in range(1, 51):
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port)))
            assert proxy.connections == count
    wait_until(lambda: proxy.connections == 0)


# -- reset


def test_a_reset_breaks_all_connections(proxy: Proxy, connect: Connect, admin: psycopg.Connection[Any]) -> None:
    connections = [connect() for _ in range(5)]
    pids = [connection.info.backend_pid for connection in connections]
    proxy.reset()
    assert proxy.connections == 0
    for connection in connections:
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    wait_until(lambda: not any(exists(admin, pid) for pid in pids))
    assert works(connect())


def test_a_reset_reaches_both_ends_and_whoever_was_not_accepted_yet(ends: Ends) -> None:
    with socket.create_connection(("127.0.0.1", ends.proxy.port), timeout=20) as another:
        ends.proxy.reset()
        for end in (ends.client, ends.server, another):
            with pytest.raises(ConnectionResetError):
                end.recv(1)


def test_a_reset_by_one_end_is_passed_on(ends: Ends) -> None:
    ends.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    ends.client.close()
    with pytest.raises(ConnectionResetError):
        ends.server.recv(1)


def test_a_reset_discards_what_is_under_way(ends: Ends) -> None:
    ends.proxy.delay = 60
    ends.client.sendall(b"lost")
    ends.proxy.reset()
    with pytest.raises(ConnectionResetError):
        ends.server.recv(1)


# -- half open


def test_deaf_it_forwards_nothing_and_later_all_of_it(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any], dsn: str
) -> None:
    connection = connect()
    proxy.deafen()
    send(connection, "NOTIFY channel, 'held'")
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("NOTIFY channel, 'later'")
    assert heard(listener, 1) == ["later"]
    assert not readable(connection)
    proxy.hear(resume=True)
    assert heard(listener, 1) == ["held"]
    read_answer(connection)
    assert works(connection)


@pytest.mark.parametrize("resume", [False, True])
def test_deaf_it_tells_nobody_that_the_server_has_gone(
    proxy: Proxy, connect: Connect, admin: psycopg.Connection[Any], resume: bool
) -> None:
    connection = connect()
    proxy.deafen()
    terminate(admin, connection.info.backend_pid)
    assert proxy.connections == 1  # it has had the opportunity
    assert not readable(connection)
    proxy.hear(resume=resume)
    assert works(connect())
    if resume:
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    else:
        assert proxy.connections == 2
        assert not readable(connection)


def test_deaf_it_tells_nobody_that_the_client_has_gone(
    proxy: Proxy, connect: Connect, admin: psycopg.Connection[Any]
) -> None:
    connection = connect()
    pid = connection.info.backend_pid
    proxy.deafen()
    connection.close()
    assert proxy.connections == 1
    proxy.hear()
    assert works(connect())
    assert exists(admin, pid)
    proxy.reset()
    wait_until(lambda: not exists(admin, pid))


@pytest.mark.parametrize("gone", ["client", "server"])
def test_deaf_it_tells_nobody_of_a_reset(ends: Ends, gone: str) -> None:
    goes, stays = (ends.client, ends.server) if gone == "client" else (ends.server, ends.client)
    ends.proxy.deafen()
    goes.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    goes.close()
    stays.sendall(b"anybody there?")
    assert ends.proxy.connections == 1
    assert not readable(stays)
    ends.proxy.hear(resume=True)
    with pytest.raises(ConnectionResetError):
        stays.recv(1)


def test_deaf_towards_the_client_it_does_not_learn_that_the_server_has_gone_by_speaking(ends: Ends) -> None:
    ends.proxy.deafen("to_client")
    ends.server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    ends.server.close()
    for _ in range(10):
        ends.client.sendall(b"anybody there?")
        assert ends.proxy.connections == 1
        assert not readable(ends.client)


def test_deaf_it_forwards_no_more_of_what_it_has_begun_to(ends: Ends) -> None:
    ends.client.setblocking(False)
    sent = received = 0
    with suppress(BlockingIOError):
        while ends.proxy.connections:
            sent += ends.client.send(bytes(1_000_000))
    ends.proxy.deafen()
    while readable(ends.server):
        received += len(ends.server.recv(1_000_000))
        assert ends.proxy.connections == 1
    assert received < sent
    ends.proxy.hear(resume=True)
    while received < sent:
        received += len(ends.server.recv(1_000_000))


def test_deaf_towards_the_client_it_can_still_speak(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    connection = connect()
    proxy.deafen("to_client")
    send(connection, "NOTIFY channel, 'spoken'")
    assert heard(listener, 1) == ["spoken"]
    assert proxy.connections == 1
    assert not readable(connection)


def test_deaf_towards_the_server_the_client_can_still_hear(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    connection = connect()
    connection.execute("LISTEN channel")
    proxy.deafen("to_server")
    send(connection, "NOTIFY channel, 'unheard'")
    listener.execute("NOTIFY channel, 'heard'")
    assert heard(connection, 1) == ["heard"]
    assert heard(listener, 1) == ["heard"]
    proxy.deafen("to_client")
    listener.execute("NOTIFY channel, 'not any more'")
    assert heard(listener, 1) == ["not any more"]
    assert proxy.connections == 1
    assert not readable(connection)


@pytest.mark.parametrize("resume", [False, True])
def test_deaf_it_lets_newcomers_wait(proxy: Proxy, connect: Connect, resume: bool) -> None:
    proxy.deafen()
    with ThreadPoolExecutor() as pool:
        newcomer: Future[psycopg.Connection[Any]] = pool.submit(connect)
        wait_until(lambda: proxy.connections == 1)
        proxy.hear(resume=resume)
        assert works(connect())
        if resume:
            assert works(newcomer.result(20))
        else:
            assert proxy.connections == 2
            assert not newcomer.done()
            proxy.reset()
            with pytest.raises(psycopg.OperationalError):
                newcomer.result(20)


# -- refusing


def test_it_refuses_and_accepts_on_the_same_port(proxy: Proxy, connect: Connect) -> None:
    connection, port = connect(), proxy.port
    for _ in range(3):
        proxy.refuse()
        proxy.refuse()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            connect()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        assert works(connection)
        proxy.accept()
        proxy.accept()
        assert works(connect())
    assert proxy.port == port


# -- delay


def test_a_delay_holds_up_each_direction_and_keeps_the_order(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    connection = connect()
    proxy.delay = 0.05
    assert proxy.delay == 0.05
    started = time.monotonic()
    for number in range(3):
        connection.execute(f"NOTIFY channel, '{number}'")
    assert time.monotonic() - started >= 3 * 2 * 0.05
    assert heard(listener, 3) == ["0", "1", "2"]


def test_a_new_delay_is_for_what_is_waiting_too(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    connection = connect()
    proxy.delay = 3600
    send(connection, "NOTIFY channel, 'held'")
    listener.execute("NOTIFY channel, 'direct'")
    assert heard(listener, 1) == ["direct"]
    proxy.delay = 0
    assert heard(listener, 1) == ["held"]


# -- in the middle of a message


def test_the_client_gets_exactly_so_many_bytes(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    message = len("Asizefromchannel\0payload\0")
    for count in range(message + 1):
        connection = connect()
        connection.execute("LISTEN channel")
        proxy.cut_after(count)
        listener.execute("NOTIFY channel, 'payload'")
        notifies = connection.notifies(timeout=20)
        if count == message:
            assert next(notifies).payload == "payload"
        with pytest.raises(psycopg.OperationalError, match="closed"):
            next(notifies)
    assert works(connect())


def test_bytes_are_counted_for_each_connection_by_itself(ends: Ends) -> None:
    with socket.create_connection(("127.0.0.1", ends.proxy.port), timeout=20):
        ends.server.sendall(b"before")
        assert ends.client.recv(100) == b"before"
        ends.proxy.cut_after(4)
        for piece in (b"ab", b"cde"):
            ends.server.sendall(piece)
        assert ends.client.makefile("rb").read() == b"abcd"
        with pytest.raises(ConnectionResetError):
            ends.server.recv(1)
        wait_until(lambda: ends.proxy.connections == 1)


def test_the_stream_ends_orderly_whatever_the_client_has_said(ends: Ends) -> None:
    ends.proxy.deafen("to_server")
    for _ in range(10):
        ends.client.sendall(b"not read by anybody")
        assert ends.proxy.connections == 1
    ends.proxy.cut_after(4)
    ends.server.sendall(b"abcde")
    assert ends.client.makefile("rb").read() == b"abcd"


def test_a_negative_number_of_bytes_is_an_error(proxy: Proxy) -> None:
    with pytest.raises(ValueError, match="not -1"):
        proxy.cut_after(-1)


def test_cut_before_it_the_server_has_not_got_it(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    connection, other = connect(), connect()
    pid = connection.info.backend_pid
    proxy.cut_before(b"unsent")
    connection.execute("NOTIFY channel, 'sent'")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("NOTIFY channel, 'unsent'")
    wait_until(lambda: not exists(listener, pid))
    other.execute("NOTIFY channel, 'unsent by another is sent'")
    assert heard(listener, 2) == ["sent", "unsent by another is sent"]


def test_broken_after_it_the_server_has_done_it(
    proxy: Proxy, connect: Connect, listener: psycopg.Connection[Any]
) -> None:
    for number in range(20):
        connection = connect()
        proxy.break_after(b"unanswered")
        long_answer = "SELECT repeat('x', 1000000)"
        with pytest.raises(psycopg.OperationalError):
            connection.execute(f"{long_answer}; {long_answer}; NOTIFY channel, 'unanswered {number}'")
        assert heard(listener, 1) == [f"unanswered {number}"]


def test_a_pattern_may_come_in_pieces(ends: Ends) -> None:
    ends.proxy.cut_before(b"pattern")
    ends.client.sendall(b"patpat")
    assert ends.server.recv(100) == b"patpat"
    ends.client.sendall(b"tern")
    for end in (ends.client, ends.server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)


def test_what_comes_before_the_pattern_is_forwarded(ends: Ends) -> None:
    ends.proxy.cut_before(b"pattern")
    ends.client.sendall(b"before the pattern")
    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)
    assert ends.server.recv(100) == b"before the "
    with pytest.raises(ConnectionResetError):
        ends.server.recv(1)


def test_who_is_spared_is_not_cut_off(ends: Ends) -> None:
    assert not ends.proxy.spare()
    ends.proxy.cut_before(b"one")
    assert ends.proxy.spare()
    ends.client.sendall(b"one")
    assert ends.server.recv(100) == b"one"


def test_the_latest_of_the_traps_is_in_force(ends: Ends) -> None:
    ends.proxy.cut_before(b"one")
    ends.proxy.break_after(b"two")
    ends.client.sendall(b"one")
    assert ends.server.recv(100) == b"one"
    ends.client.sendall(b"two")
    assert ends.server.makefile("rb").read() == b"two"
    with pytest.raises(ConnectionResetError):
        ends.client.recv(1)
