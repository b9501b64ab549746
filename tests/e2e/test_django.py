"""The Django example, as people run it: its migrations, its tests, and below three servers."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.test_examples import ROOT, environment, new_database
from tests.e2e.test_servers import admin, free_port, listening, running, until

__all__ = ["admin", "environment"]

SHOP = ROOT / "examples" / "django_shop"


@pytest.fixture(scope="module")
def shop(environment: dict[str, str], dsn: str) -> Iterator[dict[str, str]]:
    """A database of its own, with everything that migrations make."""
    new_database(dsn, "shop")
    ours = environment | {"PYTHONPATH": str(SHOP), "PGDATABASE": "shop"}
    manage("migrate", environment=ours)
    yield ours
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE shop WITH (FORCE)")


def manage(*arguments: str, environment: dict[str, str], cwd: Path = SHOP) -> str:
    command = [sys.executable, "-W", "error::ResourceWarning", "manage.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


class Client:
    def __init__(self, port: int, method: str, path: str, body: str | None = None) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        headers = {} if body is None else {"Content-Type": "application/x-www-form-urlencoded"}
        self.connection.request(method, path, body, headers)
        self.response = self.connection.getresponse()

    def __enter__(self) -> http.client.HTTPResponse:
        return self.response

    def __exit__(self, *exc_info: object) -> None:
        self.response.close()
        self.connection.close()


def change(port: int, state: str, id: int = 1) -> int:
    with Client(port, "POST", f"/orders/{id}/", f"state={state}") as response:
        return response.status


def lines_until(response: http.client.HTTPResponse, text: bytes) -> bytes:
    while text not in (line := response.readline()):
        assert line, "the stream ended"
    return line


def test_migrations_match_the_models_and_can_be_undone(shop: dict[str, str]) -> None:
    assert "No changes" in manage("makemigrations", "--check", "--dry-run", environment=shop)
    assert "pgpubsub trigger: " in manage("sqlmigrate", "shop", "0002", environment=shop)
    assert "Install streams in schema pgpubsub" in manage("migrate", "shop", "zero", "--plan", environment=shop)
    manage("migrate", "shop", "0001", environment=shop)
    assert "Tell orders of changes to order" in manage("migrate", "--plan", environment=shop)
    manage("migrate", "shop", "0002", environment=shop)


def test_a_test_database_is_dropped_although_a_hub_listened_in_it(
    shop: dict[str, str], admin: psycopg.Connection[Any]
) -> None:
    """Its test commits, and receives what it sent. The second run would ask what to do with what the first left."""
    for _ in range(2):
        assert "OK" in manage("test", "--noinput", environment=shop)
    assert not admin.execute("SELECT FROM pg_database WHERE datname = 'test_shop'").fetchall()


def test_parallel_tests_each_have_a_database_and_a_hub(shop: dict[str, str], tmp_path: Path) -> None:
    tests = (SHOP / "shop" / "tests.py").read_text()
    for number in range(2):  # a class each, since a class is what a worker gets
        more = tests.replace("class Orders", f"class Orders{number}")
        (tmp_path / f"test_{number}.py").write_text(more)
    manage("test", "--noinput", "--parallel", "2", str(tmp_path), environment=shop)


def test_asynchronous_views_share_a_hub_for_each_loop(shop: dict[str, str], admin: psycopg.Connection[Any]) -> None:
    port = free_port()
    command = ("uvicorn", "shop.asgi:application", "--port", str(port), "--timeout-graceful-shutdown", "1")
    with (
        running(*command, port=port, environment=shop),
        Client(port, "GET", "/events/") as one,
        Client(port, "GET", "/events/") as other,
    ):
        lines_until(one, b": listening")
        lines_until(other, b": listening")
        assert len(listening(admin)) == 1
        assert change(port, "paid") == 204
        for response in (one, other):
            assert b'"state":"paid"' in lines_until(response, b"data: ")
        admin.execute("SELECT pg_terminate_backend(%s)", listening(admin))
        for response in (one, other):
            lines_until(response, b"event: gap")


def test_workers_of_a_prefork_server_each_have_a_hub(shop: dict[str, str], admin: psycopg.Connection[Any]) -> None:
    port = free_port()
    options = ("--preload", "--workers", "3", "--bind", f"127.0.0.1:{port}", "--log-level", "error")

    def mail() -> bytes:
        with Client(port, "GET", "/mail/") as response:
            return response.read()

    with (
        running("gunicorn", *options, "shop.wsgi", port=port, environment=shop),
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(mail) for _ in range(2)]  # each keeps one worker busy
        until(lambda: len(listening(admin)) == 2)
        while not all(one.done() for one in waiting):  # some may not have subscribed when the first is sent
            assert change(port, "sent") == 204
        assert [one.result() for one in waiting] == [b"order 1 is sent"] * 2
    until(lambda: not listening(admin))


def test_the_reloader_of_runserver_starts_anew_and_leaves_nothing(
    shop: dict[str, str], admin: psycopg.Connection[Any], tmp_path: Path
) -> None:
    for file in SHOP.glob("**/*.py"):
        copy = tmp_path / file.relative_to(SHOP)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    port = free_port()
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[str] = Future()
        waiting.set_result("")
        command = [sys.executable, "manage.py", "runserver", str(port), "--nothreading", "--skip-checks"]
        process = subprocess.Popen(command, env=shop | {"PYTHONPATH": ""}, cwd=tmp_path, stderr=subprocess.DEVNULL)
        try:
            until(lambda: _answers(port))
            waiting = pool.submit(lambda: Client(port, "GET", "/mail/").response.read().decode())
            until(lambda: len(listening(admin)) == 1)
            (first,) = listening(admin)

            def reloaded() -> bool:  # it compares once a second, and has to have seen the file before
                with (tmp_path / "shop" / "urls.py").open("a") as urls:
                    urls.write("# changed\n")
                return first not in listening(admin)

            until(reloaded)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
            waiting.exception(30)
    until(lambda: not listening(admin))


def _answers(port: int) -> bool:
    try:
        return change(port, "new") == 204
    except OSError:
        return False
