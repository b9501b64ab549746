"""Redis, as the system has it installed, which keeps nothing on disk."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from shutil import which
from tempfile import TemporaryDirectory
from time import monotonic, sleep

__all__ = ["PROGRAM", "missing", "redis"]

PROGRAM = "redis-server"

PATIENCE = 10
"""Seconds in which it starts."""

UNTIL_THE_END = '"$@" & server=$!; read -r _; kill "$server"; wait "$server"'
"""For a shell: run it until standard input ends, which it also does with this process."""


def missing() -> str | None:
    """Why there is none, if there is none."""
    return None if which(PROGRAM) else f"{PROGRAM} is not installed"


@contextmanager
def redis() -> Iterator[int]:
    """The port of a server on this machine."""
    with TemporaryDirectory() as directory:
        port = _free_port()
        options = {"bind": "127.0.0.1", "port": str(port), "save": "", "appendonly": "no", "dir": directory}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        command = ["sh", "-c", UNTIL_THE_END, "sh", PROGRAM, *words]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
            _wait(port)
            yield port
            assert process.stdin is not None
            process.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait(port: int) -> None:
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(100).startswith(b"+PONG"):
                return
        sleep(0.02)
    raise TimeoutError(f"{PROGRAM} did not start within {PATIENCE} s")
