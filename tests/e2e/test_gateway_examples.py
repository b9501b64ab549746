"""The gateway's examples, as they stand, below the server that people run."""

from __future__ import annotations

import http.client
import json
from typing import Any

import psycopg
import pytest

import pgpubsub.streams
from tests.contract.browser import Browser
from tests.e2e.test_examples import environment
from tests.e2e.test_servers import admin, free_port, running

__all__ = ["admin", "environment"]


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    its = {"Content-Type": "application/json", **headers}
    client.request(method, path, None if body is None else json.dumps(body), its)
    response = client.getresponse()
    text = response.read()
    client.close()
    is_json = "json" in (response.headers["content-type"] or "")
    return response.status, json.loads(text) if is_json else text.decode()


def test_the_chat(environment: dict[str, str], admin: psycopg.Connection[Any]) -> None:
    pgpubsub.streams.install(admin)
    port = free_port()
    with running("uvicorn", "examples.gateway_chat.chat:app", "--port", str(port), port=port, environment=environment):
        assert "<h1>Chat</h1>" in ask(port, "GET", "/")[1]
        assert ask(port, "GET", "/live/pgpubsub.js")[0] == 200
        status, token = ask(port, "POST", "/token", {"name": "Ada"})
        assert status == 200
        bearer = {"Authorization": f"Bearer {token}"}
        with Browser(port, "/live/streams/chat", **bearer).listening() as browser:
            assert ask(port, "POST", "/live/streams/chat?key=Ada", "hello", **bearer)[0] == 201
            assert ask(port, "POST", "/live/streams/chat", "hello")[0] == 401
            assert ask(port, "POST", "/live/streams/other", "hello", **bearer)[0] == 403
            assert browser.next().data == '"hello"'


def test_the_live_table(environment: dict[str, str], admin: psycopg.Connection[Any]) -> None:
    port = free_port()
    with running(
        "uvicorn", "examples.gateway_orders.orders:app", "--port", str(port), port=port, environment=environment
    ):
        assert "<h1>Orders</h1>" in ask(port, "GET", "/")[1]
        admin.execute("INSERT INTO orders VALUES (1, 'Ada', 'new')")
        _, found = ask(port, "GET", "/orders")
        assert found["rows"] == [{"id": 1, "customer": "Ada", "state": "new"}]
        admin.execute("UPDATE orders SET state = 'paid'")
        admin.execute("DELETE FROM orders")
        with Browser(port, f"/live/streams/orders?after={found['position']}").listening() as browser:
            changes = [json.loads(browser.next().data) for _ in range(2)]
        assert [change["op"] for change in changes] == ["update", "delete"]
        assert changes[0]["row"] == {"id": 1, "customer": "Ada", "state": "paid"}
        assert changes[1]["key"] == {"id": 1}


def test_beside_django(environment: dict[str, str], admin: psycopg.Connection[Any]) -> None:
    pytest.importorskip("django")
    port = free_port()
    its = {**environment, "PGUSER": "postgres"}
    with (
        running("uvicorn", "examples.gateway_django:application", "--port", str(port), port=port, environment=its),
        Browser(port, "/live/channels/news").listening() as browser,
    ):
        assert ask(port, "POST", "/say", "hello")[0] == 204
        assert browser.next().data == '"hello"'
