"""The doctor's check for a pooler that takes the server process away, and for notifications that do not arrive."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from pgpubsub.doctor import Examined, Severity
from pgpubsub.testing import TemporaryServer
from tests.system.pgbouncer import PgBouncer

Examine = Callable[..., Examined]

SETTINGS = "SELECT name, setting FROM pg_settings WHERE name <> 'application_name' ORDER BY name"
POOLED = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"


def test_transaction_mode_is_named_with_what_to_do(quiet_server: TemporaryServer, examined: Examine) -> None:
    with PgBouncer(quiet_server, "transaction") as pooler:
        (finding,) = examined(pooler.dsn()).findings
    assert finding.severity is Severity.CRITICAL
    assert "pooler in transaction mode" in finding.cause
    assert "notify_conninfo='host=pooler" in finding.cure
    told = set(finding.evidence["process ids told when connecting"])
    assert told.isdisjoint(finding.evidence["processes that served one connection"])


def test_a_busy_pool_is_recognised_too(quiet_server: TemporaryServer, examined: Examine) -> None:
    stop = threading.Event()

    def work() -> None:
        with psycopg.connect(pooler.dsn(), autocommit=True, prepare_threshold=None) as connection:
            while not stop.is_set():
                connection.execute("SELECT 1")

    with PgBouncer(quiet_server, "transaction") as pooler:
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        try:
            for _ in range(5):
                assert [one.severity for one in examined(pooler.dsn()).findings] == [Severity.CRITICAL]
        finally:
            stop.set()
            for worker in workers:
                worker.join()


def test_nothing_stays_on_the_server_processes_of_a_pool(quiet_server: TemporaryServer, examined: Examine) -> None:
    with (
        PgBouncer(quiet_server, "transaction") as pooler,
        ExitStack() as at_end,
        psycopg.connect(quiet_server.dsn()) as direct,
    ):
        examined(pooler.dsn())
        pids = {pid for (pid,) in direct.execute(POOLED)}
        settings = direct.execute(SETTINGS).fetchall()
        reached = set()
        for _ in pids:  # each keeps its transaction open, and so a process of its own
            connection = at_end.enter_context(psycopg.connect(pooler.dsn()))
            reached.add(connection.execute("SELECT pg_backend_pid()").fetchone()[0])  # type: ignore[index]
            assert connection.execute("SELECT pg_listening_channels()").fetchall() == []
            assert connection.execute(SETTINGS).fetchall() == settings
        assert reached == pids


def test_session_mode_is_fine(quiet_server: TemporaryServer, examined: Examine) -> None:
    with PgBouncer(quiet_server, "session") as pooler:
        result = examined(pooler.dsn())
    assert (result.findings, result.unseen) == ((), ())
    assert "a pooler in session mode stands between" in result.fine[0]


def test_without_a_pooler_delivery_is_proved(dsn: str, examined: Examine) -> None:
    result = examined(dsn)
    assert (result.findings, result.unseen) == ((), ())
    assert "no pooler stands between: a notification arrived within" in result.fine[0]


def test_what_hides_itself_and_passes_no_notifications_on_is_found(dsn: str, examined: Examine) -> None:
    with swallowing(dsn) as conninfo:
        (finding,) = examined(conninfo).findings
    assert finding.severity is Severity.CRITICAL
    assert "did not arrive on another within 0.5 s" in finding.cause
    assert "listen on a direct connection" in finding.cure


class Swallower(socketserver.BaseRequestHandler):
    """Passes everything on, except for notifications (message type "A" of the protocol)."""

    target: tuple[str, int]

    def handle(self) -> None:
        with socket.create_connection(self.target) as upstream, upstream.makefile("rb") as messages:
            sender = threading.Thread(target=self.pass_on, args=(upstream,))
            sender.start()
            while header := messages.read(5):
                body = messages.read(int.from_bytes(header[1:]) - 4)
                if header[:1] != b"A":
                    self.request.sendall(header + body)
            sender.join()

    def pass_on(self, upstream: socket.socket) -> None:
        while data := self.request.recv(65536):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_WR)


@contextmanager
def swallowing(dsn: str) -> Iterator[str]:
    """A connection string that leads through one."""
    target: dict[str, Any] = conninfo_to_dict(dsn)

    class Handler(Swallower):
        target = ("127.0.0.1", int(conninfo_to_dict(dsn)["port"] or 5432))

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever)
        thread.start()
        try:
            given = {**target, "port": proxy.server_address[1], "sslmode": "disable", "gssencmode": "disable"}
            yield psycopg.conninfo.make_conninfo(**given)
        finally:
            proxy.shutdown()
            thread.join()
