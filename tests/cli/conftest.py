"""What the tests of the program share."""

from __future__ import annotations

import io
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

import pgpubsub.streams
from pgpubsub.cli import main
from tests.cli.program import Program


class Outcome(NamedTuple):
    """What became of a command."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Typed(io.TextIOWrapper):
    """A standard stream that keeps what is written to it."""

    def __init__(self, text: bytes = b"") -> None:
        super().__init__(io.BytesIO(text), encoding="utf-8", write_through=True)

    def written(self) -> str:
        self.flush()
        return self.buffer.getvalue().decode()  # type: ignore[attr-defined, no-any-return]


@pytest.fixture
def command(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Runs the program in this process, as with PGPUBSUB_DSN set."""
    monkeypatch.setenv("PGPUBSUB_DSN", dsn)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TZ", "UTC")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def command(*arguments: str, stdin: str | bytes = b"") -> Outcome:
        out, err = Typed(), Typed()
        given = stdin.encode() if isinstance(stdin, str) else stdin
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdin", Typed(given))
            streams.setattr(sys, "stdout", out)
            streams.setattr(sys, "stderr", err)
            try:
                status = main(arguments)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        return Outcome(status, out.written(), err.written())

    return command


@pytest.fixture
def program(dsn: str) -> Iterator[Callable[..., Program]]:
    """Starts the program as a process of its own, with PGPUBSUB_DSN set. It is killed in the end."""
    started: list[Program] = []

    def program(*arguments: str, **popen: Any) -> Program:
        started.append(Program(arguments, {"PGPUBSUB_DSN": dsn}, **popen))
        return started[-1]

    yield program
    for one in started:
        one.kill()


@pytest.fixture
def stream(dsn: str, channel: str) -> str:
    """A name for a stream that nobody else uses, where streams are installed."""
    with psycopg.connect(dsn) as connection:
        pgpubsub.streams.install(connection)
    return channel
