"""The chat example, below two servers, as people run them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import psycopg
from websockets.sync.client import ClientConnection, connect

from tests.e2e.test_examples import ROOT, environment
from tests.e2e.test_servers import admin, free_port, running

__all__ = ["admin", "environment"]

CHAT = ROOT / "examples" / "channels_chat"


def told(client: ClientConnection) -> str:
    return str(client.recv(timeout=30))


def test_processes_talk_to_each_other_and_go_on_when_they_were_cut_off(
    environment: dict[str, str], admin: psycopg.Connection[Any]
) -> None:
    environment = environment | {"PYTHONPATH": str(CHAT)}
    subprocess.run([sys.executable, "chat.py"], cwd=CHAT, env=environment, check=True, timeout=60)
    ports = free_port(), free_port()
    commands = [("daphne", "-p", str(port), "-v", "0", "chat:application") for port in ports]
    with (
        running(*commands[0], port=ports[0], environment=environment),
        running(*commands[1], port=ports[1], environment=environment),
        connect(f"ws://127.0.0.1:{ports[0]}/ws/kitchen/") as one,
        connect(f"ws://127.0.0.1:{ports[1]}/ws/kitchen/") as other,
        connect(f"ws://127.0.0.1:{ports[1]}/ws/garden/") as elsewhere,
    ):
        one.send("hello")
        assert told(one) == told(other) == "hello"
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE application_name LIKE 'pgpubsub%' AND datname = current_database()"
        )
        for number in range(20):
            other.send(f"number {number}")
        for client in (one, other):
            assert [told(client) for _ in range(20)] == [f"number {number}" for number in range(20)]
        elsewhere.send("nothing else came here")
        assert told(elsewhere) == "nothing else came here"
