"""libpq, in loops in C (libpq.c), which are compiled when they are first needed: the limit for all who use it.

They run in the process that measures, as the others do: what Python adds is one call for each burst.
"""

from __future__ import annotations

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

from bench.contestants import Arrival
from bench.peers.peer import Peer
from pgpubsub.testing.server import find_binaries

__all__ = ["PEER", "Echo", "Publisher", "Receiver", "missing", "told", "version"]

PEER = Peer(
    "libpq",
    "",
    "`PQexecPrepared()`; `poll()`, `PQconsumeInput()`, then `PQnotifies()` until there is none, all in C: what is left"
    " when nothing is Python",
    "https://www.postgresql.org/docs/current/libpq-notify.html",
    "many callers at once: pgbench stands for that",
)

SOURCE = Path(__file__).with_name("libpq.c")
SIZE = 8000
"""Bytes for a channel or a payload."""

NAME = b"notify"


def missing() -> str | None:
    """Why there are none, if there are none."""
    if which("cc") is None:
        return "loops over libpq take a C compiler"
    return None if _places() else "loops over libpq take its headers (Debian: libpq-dev)"


@cache
def _places() -> tuple[Path, Path] | None:
    """Where libpq's headers and libpq are: beside the servers that are measured, or in the system."""
    root = find_binaries().parent
    places = [(root / "include", root / "lib")]
    if program := which("pg_config"):
        told = [
            subprocess.run([program, option], capture_output=True, text=True, check=True).stdout.strip()
            for option in ("--includedir", "--libdir")
        ]
        places.append((Path(told[0]), Path(told[1])))
    return next((found for found in places if (found[0] / "libpq-fe.h").exists()), None)


@cache
def _directory() -> TemporaryDirectory[str]:
    """Made when needed: processes that are started import this, too, and do not get to tidy up."""
    return TemporaryDirectory(prefix="bench-libpq-")


@cache
def _library() -> Any:
    places = _places()
    assert places is not None
    headers, libraries = map(str, places)
    target = Path(_directory().name) / "libpq_loops.so"
    options = ("-O2", "-shared", "-fPIC", "-I", headers, "-L", libraries, f"-Wl,-rpath,{libraries}")
    subprocess.run(["cc", *options, "-o", target, SOURCE, "-lpq"], check=True)
    library: Any = ctypes.CDLL(str(target))
    library.receive.restype = library.echo.restype = ctypes.c_int64
    library.PQconnectdb.restype = ctypes.c_void_p
    library.PQerrorMessage.restype = ctypes.c_char_p
    library.PQexec.restype = ctypes.c_void_p
    return library


def version() -> str | None:
    """Its version, if it can be had."""
    if missing():
        return None
    return told(_library().PQlibVersion())


def told(number: int) -> str:
    """A version as libpq has it.

    >>> told(180006)
    '18.6'
    """
    return f"{number // 10000}.{number % 10000}"


class _Connection:
    def open(self, dsn: str, channel: str) -> None:
        self._library = _library()
        self._channel = channel.encode()
        self._connection = ctypes.c_void_p(self._library.PQconnectdb(dsn.encode()))
        if self._library.PQstatus(self._connection) != 0:
            self._fail()
        self.prepare()

    def prepare(self) -> None:
        """Listen."""
        result = ctypes.c_void_p(self._library.PQexec(self._connection, b"LISTEN " + self._channel))
        self._library.PQclear(result)

    def _prepare_notify(self) -> None:
        if self._library.prepare(self._connection, NAME):
            self._fail()

    def _fail(self) -> None:
        raise ConnectionError(self._library.PQerrorMessage(self._connection).decode())

    def close(self) -> None:
        self._library.PQfinish(self._connection)


class Receiver(_Connection):
    """`poll()`, `PQconsumeInput()`, `PQnotifies()`."""

    def receive(self, count: int) -> Arrival:
        pid, channel, payload = ctypes.c_int(), ctypes.create_string_buffer(SIZE), ctypes.create_string_buffer(SIZE)
        at = self._library.receive(self._connection, ctypes.c_long(count), ctypes.byref(pid), channel, payload)
        if at < 0:
            self._fail()
        return Arrival(pid.value, channel.value.decode(), payload.value.decode(), at)

    def fileno(self) -> int:
        return int(self._library.PQsocket(self._connection))


class Echo(_Connection):
    """`PQexecPrepared()`, `PQnotifies()`."""

    def prepare(self) -> None:
        super().prepare()
        self._prepare_notify()

    def echo(self, payload: str) -> str:
        received = ctypes.create_string_buffer(SIZE)
        if self._library.echo(self._connection, NAME, self._channel, payload.encode(), received) < 0:
            self._fail()
        return received.value.decode()


class Publisher(_Connection):
    """`PQexecPrepared()`."""

    def prepare(self) -> None:
        self._prepare_notify()

    def publish(self, payload: str, times: int) -> list[int]:
        took = (ctypes.c_int64 * times)()
        if self._library.publish(self._connection, NAME, self._channel, payload.encode(), ctypes.c_long(times), took):
            self._fail()
        return list(took)
