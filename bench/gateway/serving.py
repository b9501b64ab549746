"""A server as processes of its own, which end with this one, in whatever way that does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile
from time import monotonic, sleep
from urllib.error import HTTPError

__all__ = ["Server", "serving"]

STARTING = 30.0
"""Seconds in which it answers."""

UNTIL_THE_END = 'ulimit -n "$(ulimit -Hn)"; "$@" & read -r _; kill -9 0'
"""For a shell: run it, with as many files as may be, until standard input ends."""


class Server:
    """See the module."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        """Of the process below which all of its processes are."""
        self.port = port


@contextmanager
def serving(
    command: Callable[[int], Sequence[str]], environment: Mapping[str, str], ready: Callable[[], bool]
) -> Iterator[Server]:
    """A server that answers.

    Args:
        command: by its port.
        environment: variables that it gets beside ours.
        ready: whether all is there that has to be.
    """
    port = _free_port()
    shell = ["sh", "-c", UNTIL_THE_END, "sh", *command(port)]
    with (
        TemporaryFile() as log,
        subprocess.Popen(
            shell, stdin=subprocess.PIPE, stderr=log, env={**os.environ, **environment}, start_new_session=True
        ) as process,
    ):
        assert process.stdin is not None
        try:
            _wait(lambda: _answers(port) and ready())
            yield Server(process.pid, port)
        except BaseException:
            log.seek(0)
            print(log.read()[-5000:].decode(errors="replace"), file=sys.stderr)
            raise
        finally:
            process.stdin.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + STARTING
    while not condition():
        if monotonic() > deadline:
            raise TimeoutError(f"the server did not start within {STARTING:g} s")
        sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/none", timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False
