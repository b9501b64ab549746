"""The web examples of the README, below the servers that people run, as they are run."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import IO, Any

import psycopg
import pytest

from tests.e2e.test_examples import ROOT, environment
from tests.system.processes import answers

__all__ = ["environment"]


@pytest.fixture
def admin(environment: dict[str, str]) -> Iterator[psycopg.Connection[Any]]:
    conninfo = {name: environment[name.upper()] for name in ("PGHOST", "PGPORT") if name in environment}
    host, port = environment.get("PGHOST"), environment.get("PGPORT")
    assert conninfo or host
    with psycopg.connect(host=host, port=port, user="postgres", dbname="test", autocommit=True) as connection:
        yield connection


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@contextmanager
def running(*command: str, port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        until(lambda: answers(port) or process.poll() is not None)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()
    assert process.returncode in (0, -signal.SIGTERM), output.decode()


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "it did not come"


def listening(admin: psycopg.Connection[Any]) -> list[int]:
    rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen%'")
    return [pid for (pid,) in rows]


def read_event(lines: IO[bytes]) -> tuple[str, str]:
    kind = lines.readline().decode().removeprefix("event: ").strip()
    data = json.loads(lines.readline().decode().removeprefix("data: "))
    assert lines.readline() == b"\n"
    return kind, data


def test_the_readme_shows_the_fastapi_example_as_it_is() -> None:
    code = (ROOT / "examples" / "fastapi_sse.py").read_text()
    assert code in (ROOT / "README.md").read_text()
    assert len([line for line in code.splitlines() if line.strip()]) <= 22


def test_fastapi_streams_events_and_gaps_to_many_clients(
    environment: dict[str, str], admin: psycopg.Connection[Any]
) -> None:
    pytest.importorskip("fastapi")
    port = free_port()
    command = ("uvicorn", "examples.fastapi_sse:app", "--port", str(port), "--timeout-graceful-shutdown", "1")
    with running(*command, port=port, environment=environment):
        clients = []
        for _ in range(20):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            client.request("GET", "/events/news")
            response = client.getresponse()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.readline() == b": listening\n"
            assert response.readline() == b"\n"
            clients.append((client, response))
        assert len(listening(admin)) == 1, "one connection listens for all of them"
        admin.execute("SELECT pg_notify('news', 'two' || chr(10) || 'lines')")
        for _, response in clients:
            assert read_event(response) == ("message", "two\nlines")
        admin.execute("SELECT pg_terminate_backend(%s)", listening(admin))
        for _, response in clients:
            assert read_event(response)[0] == "gap"
        for client, _ in clients:
            client.close()


def test_gunicorn_workers_each_have_a_hub_of_their_own(
    environment: dict[str, str], admin: psycopg.Connection[Any]
) -> None:
    pytest.importorskip("gunicorn")
    port = free_port()
    options = ("--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}", "--log-level", "error")

    def request(method: str, body: str = "") -> tuple[int, str]:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            client.request(method, "/chat", body)
            response = client.getresponse()
            return response.status, response.read().decode()
        finally:
            client.close()

    with (
        running("gunicorn", *options, "examples.gunicorn_app:app", port=port, environment=environment),
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(request, "GET") for _ in range(2)]  # each keeps one worker busy
        until(lambda: len(listening(admin)) == 2)  # both have one, and not the process that forked them
        answered: list[tuple[int, str]] = []
        while len(answered) < len(waiting):  # some may not have subscribed when the first message is sent
            assert request("POST", "hello") == (204, "")
            answered = [one.result() for one in waiting if one.done()]
        assert answered == [(200, "hello")] * 2
