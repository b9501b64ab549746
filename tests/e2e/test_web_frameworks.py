"""The examples for web frameworks below the servers that people run, and how they end."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

import pgpubsub.streams
from tests.contract.browser import Browser, Received
from tests.e2e.test_examples import ROOT, environment
from tests.e2e.test_servers import admin, free_port, listening, running, until

__all__ = ["admin", "environment"]

Environment = dict[str, str]
Admin = psycopg.Connection[Any]

SOON = 10.0
"""Seconds within which a server has to end. None of them is told to cut anything short."""

UVICORN = {"fastapi_sse": "/events/news", "starlette_sse": "/chat", "litestar_sse": "/events"}
PATHS = [*UVICORN.items(), ("flask_sse", "/news")]
GUNICORN = ("--preload", "--workers", "2", "--threads", "10", "--log-level", "error")


@pytest.fixture(autouse=True)
def _installed(admin: Admin) -> None:
    with psycopg.connect(admin.info.dsn) as connection:
        pgpubsub.streams.install(connection)


@contextmanager
def serving(example: str, environment: Environment, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port and the process of a server that runs an example."""
    port = free_port()
    app = f"examples.{example}:app"
    if example in UVICORN:
        pytest.importorskip("uvicorn")
        command: tuple[str, ...] = ("uvicorn", app, "--port", str(port), *options)
    else:
        pytest.importorskip("gunicorn")
        command = ("gunicorn", *GUNICORN, "--bind", f"127.0.0.1:{port}", app)
    with running(*command, port=port, environment=environment) as process:
        yield port, process


def request(port: int, method: str, path: str, body: str = "") -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        client.request(method, path, body.encode())
        response = client.getresponse()
        return response.status, response.read().decode()
    finally:
        client.close()


def ends_soon(process: subprocess.Popen[bytes], how: signal.Signals = signal.SIGTERM) -> None:
    began = monotonic()
    process.send_signal(how)
    process.wait(timeout=30)
    assert monotonic() - began < SOON


# -- what browsers get


def test_starlette_resumes_a_stream_for_each_browser(environment: Environment) -> None:
    with serving("starlette_sse", environment) as (port, _):
        with Browser(port, "/chat") as browser:
            browser.listening()
            assert browser.parser.retry == 1000
        for text in ("one", "two\nlines"):
            assert request(port, "POST", "/chat", text)[0] == 200
        with Browser(port, "/chat", last_event_id=browser.last_event_id) as again:  # which had got nothing yet
            again.listening()
            assert [again.next().data, again.next().data] == ["one", "two\nlines"]
        request(port, "POST", "/chat", "three")
        with Browser(port, "/chat", last_event_id=again.last_event_id) as again, Browser(port, "/chat") as late:
            assert again.listening().next().data == "three"
            late.listening()
            request(port, "POST", "/chat", "four")
            assert (again.next().data, late.next().data) == ("four", "four")


def test_starlette_refuses_what_is_no_position(environment: Environment) -> None:
    with serving("starlette_sse", environment) as (port, _), Browser(port, "/chat", last_event_id="17") as browser:
        assert browser.response.status == 400
        assert b"'17' is not a position" in browser.response.read()


def test_starlette_answers_a_head_request_with_an_end(environment: Environment) -> None:
    with serving("starlette_sse", environment) as (port, _), Browser(port, "/chat", method="HEAD") as browser:
        assert browser.response.headers["content-type"].startswith("text/event-stream")
        assert browser.response.read() == b""


def test_litestar_tells_channels_apart_and_tells_of_gaps(environment: Environment, admin: Admin) -> None:
    with serving("litestar_sse", environment) as (port, _), Browser(port, "/events") as browser:
        browser.listening()
        assert request(port, "POST", "/news", "it\nworks")[0] == 204
        assert request(port, "POST", "/weather", "fine")[0] == 204
        assert [browser.next(), browser.next()] == [Received("news", "it\nworks"), Received("weather", "fine")]
        admin.execute("SELECT pg_terminate_backend(%s)", listening(admin))
        gap = browser.next()
        assert gap.type == "gap"
        assert json.loads(gap.data)["channels"] == ["news", "weather"]
        assert 'new EventSource("/events")' in request(port, "GET", "/")[1]


def test_flask_has_a_hub_in_each_worker_and_serves_many_browsers(environment: Environment, admin: Admin) -> None:
    with serving("flask_sse", environment) as (port, _), ExitStack() as stack:
        browsers = [stack.enter_context(Browser(port, "/news")).listening() for _ in range(8)]
        assert 1 <= len(listening(admin)) <= 2, "one connection listens for all of a worker"
        assert request(port, "POST", "/news", "17") == (204, "")
        assert [browser.next() for browser in browsers] == [Received("message", "17")] * 8
        with Browser(port, "/news", method="HEAD") as browser:
            assert browser.response.read() == b""


# -- the manual

MANUAL = (ROOT / "docs" / "web.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```\n", MANUAL, re.DOTALL)


def test_the_manual_shows_the_examples_as_they_are() -> None:
    for name in ("fastapi", "starlette", "litestar", "flask"):
        assert (ROOT / "examples" / f"{name}_sse.py").read_text() in SNIPPETS
    assert len(SNIPPETS) == 6, "the two others are run below"


@pytest.mark.parametrize(("mark", "path"), [("Depends(hub_of)", "/events"), ("# WSGI", "/")])
def test_the_other_snippets_of_the_manual_work(
    mark: str, path: str, environment: Environment, admin: Admin, tmp_path: Path
) -> None:
    (snippet,) = [snippet for snippet in SNIPPETS if mark in snippet]
    (tmp_path / "snippet.py").write_text(snippet)
    port = free_port()
    if mark == "# WSGI":
        command: tuple[str, ...] = (
            "gunicorn",
            "--threads",
            "5",
            "--chdir",
            str(tmp_path),
            "--bind",
            f"127.0.0.1:{port}",
            "snippet:app",
        )
    else:
        command = ("uvicorn", "--app-dir", str(tmp_path), "snippet:app", "--port", str(port))
    with running(*command, port=port, environment=environment), Browser(port, path) as browser:
        while browser.parser.comments != ["listening"]:
            browser.parser.feed(browser.line() or "")
        admin.execute("NOTIFY news, '17'")
        assert browser.next() == Received("message", "17")
        if mark != "# WSGI":
            assert request(port, "POST", "/events?text=18")[0] == 200
            assert browser.next().data == "18"


# -- how servers end


@pytest.mark.parametrize(("example", "path"), PATHS)
def test_a_server_that_is_told_to_end_ends_open_streams(example: str, path: str, environment: Environment) -> None:
    with serving(example, environment) as (port, process), ExitStack() as stack:
        browsers = [stack.enter_context(Browser(port, path)).listening() for _ in range(5)]
        ends_soon(process)
        assert [list(browser) for browser in browsers] == [[]] * 5, "the streams have not ended properly"


@pytest.mark.parametrize(("options", "how"), [(("--workers", "2"), signal.SIGTERM), ((), signal.SIGINT)])
def test_workers_end_as_well_and_so_does_control_c(
    options: tuple[str, ...], how: signal.Signals, environment: Environment
) -> None:
    with serving("fastapi_sse", environment, *options) as (port, process), ExitStack() as stack:
        browsers = [stack.enter_context(Browser(port, "/events/news")).listening() for _ in range(5)]
        ends_soon(process, how)
        assert [list(browser) for browser in browsers] == [[]] * 5


def test_a_client_that_reads_nothing_is_cut_off_by_the_time_out_of_the_server(
    environment: Environment, admin: Admin
) -> None:
    options = ("--timeout-graceful-shutdown", "2")
    with serving("fastapi_sse", environment, *options) as (port, process), socket.socket() as stuck:
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", port))
        stuck.sendall(b"GET /events/news HTTP/1.1\r\nHost: here\r\n\r\n")
        assert stuck.recv(1) == b"H"
        with Browser(port, "/events/news") as browser:
            browser.listening()
            for _ in range(15):  # some 12 MB, more than is taken for somebody who does not read
                admin.execute("SELECT count(pg_notify('news', repeat('x', 7990) || i)) FROM generate_series(1, 100) i")
                while not browser.next().data.endswith('x100"'):
                    pass
            ends_soon(process)


@pytest.mark.parametrize(("example", "path"), PATHS)
def test_a_browser_that_leaves_is_forgotten_without_another_event(
    example: str, path: str, environment: Environment, admin: Admin
) -> None:
    with serving(example, environment) as (port, _):
        with Browser(port, path) as browser:
            browser.listening()
        until(lambda: unlistened(admin))


def unlistened(admin: Admin) -> bool:
    """Whether the last statement of whoever listens was to stop that."""
    query = "SELECT query FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen%'"
    return all("UNLISTEN" in text for (text,) in admin.execute(query))
