"""`pgpubsub serve`: real processes, signals, and one that takes over from another."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from pgpubsub import Hub
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.browser import Browser
from tests.contract.faces import Worker
from tests.contract.test_handler import eventually
from tests.system.pgbouncer import PgBouncer
from tests.system.processes import is_worker, limit_descriptors, with_children
from tests.system.standby import restart_as_standby
from tests.web.conftest import SECRET, token

DEADLINE = 60


class Gateway:
    """A process.

    Args:
        options: on its command line.
        environment: variables beside those that Python needs.
        before: what stands before it on the command line.
    """

    def __init__(self, *options: str, environment: dict[str, str] | None = None, before: Sequence[str] = ()) -> None:
        its = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGPUBSUB"))}
        self._process = subprocess.Popen(
            [*before, sys.executable, "-m", "pgpubsub", "serve", "--port", "0", *options],
            env={**its, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self.port = 0
        self.output = ""
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def __enter__(self) -> Self:
        eventually(lambda: self.port or self.status is not None, DEADLINE)
        assert self.port, self.output
        eventually(lambda: self._answers(), DEADLINE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.status is None:
            self.tell(signal.SIGTERM)
        try:
            self._process.wait(DEADLINE)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._reading.join()
            assert self._process.stdout is not None
            self._process.stdout.close()
        if error is None:
            assert "Traceback" not in self.output, self.output

    @property
    def status(self) -> int | None:
        """With which it has ended."""
        return self._process.poll()

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        return self._process.wait(DEADLINE)

    def get(self, path: str, timeout: float = 30) -> tuple[int, str]:
        """The status of an answer, and what it says."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            client.close()

    def _answers(self) -> bool:
        try:
            return self.get("/healthz", timeout=5)[0] == 200
        except OSError:
            assert self.status is None, self.output
            return False

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.output += line
            if (found := re.search(r"running on http://127\.0\.0\.1:(\d+)", line)) is not None:
                self.port = int(found[1])


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A file with it."""
    path = tmp_path / "secret"
    path.write_text(SECRET)
    return str(path)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_after_clients_have_got_what_came(
    database: str, admin: psycopg.Connection[Any], name: str, number: signal.Signals, status: int
) -> None:
    with Gateway("--dsn", database, "--public", "*") as gateway:
        with Browser(gateway.port, f"/channels/{quote(name)}").listening() as browser:
            pgpubsub.notify(admin, name, "1")
            assert browser.next().data == "1"
            gateway.tell(number)
            (closing,) = browser
            assert (closing.type, json.loads(closing.data)["reason"]) == ("closing", "shutdown")
        assert gateway.wait() == status


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_ends_several_workers_as_it_ends_one(
    database: str, name: str, number: signal.Signals, status: int
) -> None:
    with Gateway("--dsn", database, "--public", "*", "--workers", "2") as gateway:
        eventually(lambda: gateway.output.count("Application startup complete") == 2, DEADLINE)
        with Browser(gateway.port, f"/channels/{quote(name)}").listening() as browser:
            os.killpg(gateway.pid, number)  # as a terminal does
            (closing,) = browser
            assert (closing.type, json.loads(closing.data)["reason"]) == ("closing", "shutdown")
        assert gateway.wait() == status


@pytest.mark.parametrize("workers", ["1", "2"])
def test_who_was_told_to_ignore_a_hangup_goes_on(database: str, workers: str) -> None:
    with Gateway("--dsn", database, "--workers", workers, before=["nohup"]) as gateway:
        os.killpg(gateway.pid, signal.SIGHUP)
        assert gateway.get("/readyz") == (200, "live\n")
        gateway.tell(signal.SIGTERM)
        assert gateway.wait() == 143
        assert gateway.output.count("Application startup complete") == int(workers)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_address_that_is_taken_is_a_status_of_its_own(database: str, workers: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gateway = Gateway("--dsn", database, "--workers", workers, "--port", str(taken.getsockname()[1]))
        assert gateway.wait() == 1
        gateway.__exit__(None, None, None)
        assert "address already in use" in gateway.output.lower()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_application_that_cannot_start_is_a_status_of_its_own(workers: str) -> None:
    with TemporaryServer(tcp=True) as server, PgBouncer(server, "transaction") as pooler:
        gateway = Gateway("--dsn", pooler.dsn(), "--workers", workers)
        assert gateway.wait() == 3
        gateway.output = ""  # uvicorn shows where a start has failed
        gateway.__exit__(None, None, None)


def test_a_database_that_does_not_answer_does_not_hold_up_the_end(database: str, secret: str, name: str) -> None:
    """Who was sending is told that nobody knows."""
    with (
        Proxy(database) as proxy,
        Gateway("--dsn", proxy.dsn(), "--public", "*", "--jwt-secret-file", secret) as gateway,
        Browser(gateway.port, f"/streams/{quote(name)}").listening(),
    ):
        proxy.deafen()
        client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        client.request("POST", f"/channels/{quote(name)}", b"1", {"Authorization": f"Bearer {token(write=['*'])}"})
        assert gateway.get("/healthz")[0] == 200  # what came before is being done
        began = monotonic()
        gateway.tell(signal.SIGTERM)
        answer = client.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (504, "uncertain")
        client.close()
        assert gateway.wait() == 143
        assert monotonic() - began < 10


def test_a_client_that_reads_nothing_does_not_hold_up_the_end(
    database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    with (
        Gateway("--dsn", database, "--public", "*") as gateway,
        Browser(gateway.port, f"/channels/{quote(name)}").listening(),
    ):
        for number in range(3000):
            admin.execute("SELECT pg_notify(%s, %s)", [name, f"{number} " + "x" * 7500])
        gateway.tell(signal.SIGTERM)
        assert gateway.wait() == 143


def test_every_option_is_a_variable_too(database: str, secret: str, name: str) -> None:
    environment = {
        "PGPUBSUB_DSN": database,
        "PGPUBSUB_PUBLIC": f"channels/news.* streams/{name.replace(' ', '*')}",
        "PGPUBSUB_JWT_SECRET_FILE": secret,
        "PGPUBSUB_ALLOW_ORIGIN": "https://a.example https://b.example",
        "PGPUBSUB_MAX_MESSAGE": "10",
    }
    with Gateway(environment=environment) as gateway:

        def status(path: str, **headers: str) -> int:
            with Browser(gateway.port, path, **headers) as browser:
                return int(browser.response.status)

        assert status("/channels/news.1") == 200
        assert status(f"/streams/{quote(name)}") == 200
        assert status("/channels/other") == 401
        assert status("/channels/other", authorization=f"Bearer {token(read=['*'])}") == 200
        assert status("/healthz", origin="https://b.example") == 200
        assert status("/healthz", origin="https://c.example") == 403
        client = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
        client.request("POST", "/channels/a", b"x" * 11, {"Authorization": f"Bearer {token(write=['*'])}"})
        assert client.getresponse().status == 413
        client.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--jwt-key", "/nowhere"], "No such file"),
        (["--public", "orders"], "channels/NAME"),
        (["--allow-origin", "example.com"], "is no origin"),
        (["--slow", "wait"], "skip"),
        (["--dsn", "nonsense=1"], "nonsense"),
    ],
)
def test_what_cannot_be_is_told_before_it_serves(options: list[str], words: str) -> None:
    gateway = Gateway(*options)
    assert gateway.wait() in (1, 64)
    gateway._reading.join()
    with suppress(AssertionError):
        gateway.__exit__(None, None, None)
    assert words in gateway.output
    assert "Traceback" not in gateway.output, gateway.output


def test_several_workers_share_a_port_and_their_figures(
    database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    with Gateway("--dsn", database, "--public", "*", "--workers", "2") as gateway, ExitStack() as stack:
        path = f"/channels/{quote(name)}"
        browsers = [stack.enter_context(Browser(gateway.port, path)).listening() for _ in range(20)]
        pgpubsub.notify(admin, name, "1")
        assert [browser.next().data for browser in browsers] == ["1"] * 20

        def clients() -> float:
            _, text = gateway.get("/metrics")
            return float(re.findall(r"^pgpubsub_gateway_clients_total ([\d.]+)", text, re.M)[0])

        eventually(lambda: clients() == 20)


def workers(gateway: Gateway) -> list[int]:
    return [pid for pid in with_children(gateway.pid)[1:] if is_worker(pid)]


def test_a_worker_that_cannot_be_replaced_is_replaced_later(database: str) -> None:
    with Gateway("--dsn", database, "--workers", "2") as gateway:
        eventually(lambda: gateway.output.count("Application startup complete") == 2, DEADLINE)
        limit = limit_descriptors(gateway.pid, 3)
        os.kill(workers(gateway)[0], signal.SIGKILL)
        eventually(lambda: "there can be no other yet" in gateway.output, DEADLINE)
        limit_descriptors(gateway.pid, limit)
        eventually(lambda: gateway.output.count("Application startup complete") == 3, DEADLINE)


def test_a_worker_that_begins_during_a_failover_waits_for_its_end() -> None:
    with TemporaryServer(tcp=True) as server, Gateway("--dsn", server.dsn(), "--workers", "2") as gateway:
        eventually(lambda: gateway.output.count("Application startup complete") == 2, DEADLINE)
        restart_as_standby(server)
        for pid in workers(gateway):
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: gateway.output.count("Application startup complete") == 4, DEADLINE)
        assert gateway.get("/readyz") == (503, "the database cannot be reached\n")
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_promote()")
        eventually(lambda: gateway.get("/readyz") == (200, "live\n"), DEADLINE)


def test_a_worker_that_cannot_start_while_another_serves_is_tried_again(tmp_path: Path) -> None:
    services = tmp_path / "services"

    def lead_to(dsn: str) -> None:
        lines = [f"{name}={value}" for name, value in conninfo_to_dict(dsn).items()]
        services.write_text("\n".join(["[gateway]", *lines]) + "\n")

    with TemporaryServer(tcp=True) as server, PgBouncer(server, "transaction") as pooler:
        lead_to(server.dsn())
        variables = {"PGSERVICEFILE": str(services)}
        with Gateway("--dsn", "service=gateway", "--workers", "2", environment=variables) as gateway:
            eventually(lambda: gateway.output.count("Application startup complete") == 2, DEADLINE)
            lead_to(pooler.dsn())
            os.kill(workers(gateway)[0], signal.SIGKILL)
            eventually(lambda: "so there will be another" in gateway.output, DEADLINE)
            assert gateway.get("/readyz") == (200, "live\n")
            lead_to(server.dsn())
            eventually(lambda: gateway.output.count("Application startup complete") == 3, DEADLINE)
            assert "pgpubsub.errors.UnusableDeployment" in gateway.output
            gateway.output = ""  # uvicorn shows where a start has failed


# -- one takes over from another


class Balancer:
    """Sends each new connection to the gateway that is in service."""

    def __init__(self) -> None:
        self.target = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with source, suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class Page:
    """One that reconnects as an `EventSource` does, and keeps what it gets, until it has got "end"."""

    def __init__(self, port: int, path: str) -> None:
        self.events: list[tuple[str, str]] = []
        self.begun = threading.Event()
        self._port = port
        self._path = path
        self._place = ""
        self.worker = Worker(self._run)

    def _run(self) -> None:
        while True:
            try:
                with Browser(self._port, self._path, last_event_id=self._place).listening() as browser:
                    self._place = browser.last_event_id or self._place
                    self.begun.set()
                    for event in browser:
                        self._place = event.last_event_id
                        self.events.append((event.type, event.data))
                        if event.data == "end":
                            return
            except (OSError, AssertionError, http.client.HTTPException):
                sleep(0.02)  # between two attempts


def test_a_rolling_restart_loses_nothing_on_streams_and_shows_a_gap_on_channels(database: str, name: str) -> None:
    """Two gateways behind a balancer; each is replaced while messages are sent all along."""
    balancer = Balancer()
    options = ("--dsn", database, "--public", "*")
    with ExitStack() as stack, Hub(database) as hub:
        stack.callback(balancer.close)
        serving = stack.enter_context(Gateway(*options))
        balancer.target = serving.port
        pages = [Page(balancer.port, f"/{kind}/{quote(name)}") for kind in ("streams", "channels") for _ in range(5)]
        for page in pages:
            assert page.begun.wait(DEADLINE)
        stream, count = hub.stream(name), 0
        stop = threading.Event()

        def send() -> int:
            number = 0
            while not stop.is_set():
                stream.append(str(number))
                hub.notify(name, str(number))
                number += 1
            return number

        sending = Worker(send)
        for _ in range(2):
            new = stack.enter_context(Gateway(*options))
            balancer.target = new.port
            serving.tell(signal.SIGTERM)
            assert serving.wait() == 143
            serving = new
            reached = len(pages[0].events)
            eventually(lambda: all(len(page.events) > reached for page in pages), DEADLINE)  # noqa: B023
        stop.set()
        count = sending.outcome()
        deadline = monotonic() + DEADLINE
        while any(page.worker.busy for page in pages) and monotonic() < deadline:
            stream.append("end")
            hub.notify(name, "end")
            sleep(0.05)  # between two attempts: a channel's page may be away
        for page in pages[:5]:
            messages = [data for kind, data in page.events if kind == "message"]
            assert messages == [*map(str, range(count)), "end"]
        for page in pages[5:]:
            check_channel(page.events)


def check_channel(events: list[tuple[str, str]]) -> None:
    """What is missing is missing where a gap stands."""
    expected, explained, gaps = 0, False, 0
    for kind, data in events:
        if kind == "gap":
            explained, gaps = True, gaps + 1
        elif kind == "message" and data != "end":
            assert int(data) == expected or (explained and int(data) > expected)
            expected, explained = int(data) + 1, False
    assert gaps == 2
