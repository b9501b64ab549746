"""Streams when the server crashes, and forgets which transaction ids it has handed out."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import psycopg
import pytest

import pgpubsub
from pgpubsub import Hub
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import Worker
from tests.system.streams import (
    SEED,
    Admin,
    Follower,
    Writers,
    append,
    connect,
    one,
    payloads,
    read_all,
    stored,
    until,
    xmax,
)

Crash = Callable[[TemporaryServer], Callable[[], object]]
"""Begins it, and returns what ends it."""


def kill_a_backend(server: TemporaryServer) -> Callable[[], object]:
    """Whereupon the server ends all others, and recovers."""
    said = "terminating any other active server processes"
    with psycopg.connect(server.dsn()) as victim, logged(server, said):
        os.kill(victim.info.backend_pid, signal.SIGKILL)
    return lambda: until(lambda: answers(server))


def crash_and_restart(server: TemporaryServer) -> Callable[[], object]:
    with logged(server, "received immediate shutdown request"):
        stopping = Worker(partial(server.stop, "immediate"))

    def restart() -> None:
        assert stopping.outcome() is None
        server.start()

    return restart


@contextmanager
def logged(server: TemporaryServer, text: str) -> Iterator[None]:
    """In the end, wait until the server has said so."""
    log = server.directory / "log"
    length = log.stat().st_size
    yield
    until(lambda: text.encode() in log.read_bytes()[length:], text)


@contextmanager
def nothing_flushed_in_between(server: TemporaryServer) -> Iterator[None]:
    """The process that writes the log in the background stands still."""
    with connect(server.dsn()) as admin:
        pid = one(admin, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def take_ids(admin: Admin, count: int) -> None:
    """By transactions that are rolled back, and by some that only notify: neither is flushed."""
    for number in range(count):
        if number % 2:
            admin.execute("NOTIFY nobody")
        else:
            with admin.transaction(force_rollback=True):
                pgpubsub.append(admin, "s", "undone")


def answers(server: TemporaryServer) -> bool:
    try:
        connect(server.dsn()).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize("crash", [kill_a_backend, crash_and_restart])
@pytest.mark.parametrize("wake", ["notify", "poll"])
def test_transaction_ids_that_are_handed_out_again_hide_nothing(
    stream_server: TemporaryServer, crash: Crash, wake: Literal["notify", "poll"]
) -> None:
    dsn = stream_server.dsn()
    with connect(dsn) as admin:
        pgpubsub.streams.create(admin, "s", wake=wake)
        append(admin, "s", "0", "1")
    with (
        Follower(dsn, "s", poll_interval=0.1) as live,
        Follower(dsn, "s", kind="AsyncHub", poll_interval=0.1) as other,
        Follower(dsn, "s", after=pgpubsub.END, poll_interval=0.1) as from_end,
    ):
        live.until(2)
        for _ in range(10):  # the server may have flushed its log for reasons of its own
            with nothing_flushed_in_between(stream_server):
                with connect(dsn) as admin:
                    take_ids(admin, 200)
                    before = xmax(admin)
                with Hub(dsn) as hub, hub.stream("s").read(after=pgpubsub.END) as reader:
                    end = reader.position or ""
                found = read_all(dsn, "s")
                tokens = [*live.tokens, end, *(event.position for event in found)]  # type: ignore[union-attr]
                end_crash = crash(stream_server)
            end_crash()
            with connect(dsn) as admin:
                handed_out_again = xmax(admin) < before - 100
            if handed_out_again:
                break
        assert handed_out_again, "the test shows nothing"
        with connect(dsn) as admin:
            expected = ["0", "1"]
            for number in range(2, 120):
                append(admin, "s", str(number))
                expected.append(str(number))
            assert xmax(admin) > before - 100
            assert stored(admin, "s") == expected
        live.until(120)
        other.until(120)
        from_end.until(118)
        assert live.payloads == other.payloads == expected
        assert from_end.payloads == expected[2:]
        for token, count in zip(tokens, [1, 2, 2, 1, 2], strict=True):
            assert payloads(read_all(dsn, "s", token)) == expected[count:]


@pytest.mark.parametrize("crash", [kill_a_backend, crash_and_restart])
def test_everything_comes_once_although_the_server_crashes_under_load(
    stream_server: TemporaryServer, crash: Crash
) -> None:
    dsn, streams = stream_server.dsn(), ("s", "quiet")
    print(f"PGPUBSUB_STREAMS_SEED={SEED}")
    with (
        Follower(dsn, "s", stops=40, seed=SEED, poll_interval=0.1) as restless,
        Follower(dsn, "quiet", kind="AsyncHub", poll_interval=0.1) as quiet,
        Follower(dsn, "s", kind="AsyncHub", poll_interval=0.1) as live,
    ):
        for number in range(2):
            writers = Writers(dsn, streams, ("quiet",), seed=SEED + number, count=12)
            with writers:
                until(lambda: len(live.events) > 100 * (number + 1))  # noqa: B023
                crash(stream_server)()
                writers.stop.set()
        with connect(dsn) as admin:
            for (name,) in admin.execute("SELECT gid FROM pg_prepared_xacts").fetchall():
                admin.execute(f"COMMIT PREPARED '{name}'")
            append(admin, "s", "the last")
            append(admin, "quiet", "the last")
            for follower, stream in ((restless, "s"), (live, "s"), (quiet, "quiet")):
                there = stored(admin, stream)
                follower.until(len(there))
                assert sorted(follower.payloads) == sorted(there)


def test_what_a_handler_appends_itself_comes_too(stream_server: TemporaryServer) -> None:
    """It reads in the midst of its own transaction, and goes on from there."""
    dsn = stream_server.dsn()
    with connect(dsn) as admin, psycopg.connect(dsn) as handler, Hub(dsn) as hub:
        append(admin, "s", "0")
        stream = hub.stream("s", poll_interval=0.1)
        token: Any = pgpubsub.BEGINNING
        handled = []
        for number in range(1, 6):
            with stream.read(after=token) as reader:
                entry = reader.get(timeout=30)
                assert isinstance(entry, pgpubsub.Entry)
                handled.append(entry.payload)
                pgpubsub.append(handler, "s", str(number))
                append(admin, "t", "something newer")
                with stream.read(after=entry.position) as another, hub.stream("s").read(after=pgpubsub.END) as end:
                    handler.commit()
                    assert payloads([another.get(timeout=30), end.get(timeout=30)]) == [str(number)] * 2
                token = entry.position
        assert handled == ["0", "1", "2", "3", "4"]
