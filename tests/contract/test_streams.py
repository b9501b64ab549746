"""How long streams and readers live, in threads, tasks and processes, and what is left of them."""

from __future__ import annotations

import gc
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

import pgpubsub
from pgpubsub import Hub
from tests.contract.faces import AnyHub, Covered, Worker, together
from tests.contract.sending import Gate, wait_until, words
from tests.contract.streams import KINDS, AnyStream, all_payloads, following, open_stream

NewHub = Callable[..., AnyHub]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- the end of readers that nobody closed


def test_a_reader_that_nobody_has_any_more_ends(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub() as hub:
        stream: Any = open_stream(hub, channel)
        reader = stream.read().__enter__()
        stream.append("a")
        assert following(reader, 1) == ["a"]
        assert tasks_of(hub) == 1
        assert len(hub.stats().subscriptions) == 1
        del reader
        gc.collect()
        wait_until(lambda: tasks_of(hub) == 0)
        wait_until(lambda: hub.stats().subscriptions == ())


def tasks_of(hub: AnyHub) -> int:
    """How many readers a hub is busy with."""
    inner: Any = hub.hub if isinstance(hub, Covered) else hub
    return len(inner._streams._tasks)


def test_one_that_is_closed_ends_too(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        readers = [stream.read().__enter__() for _ in range(20)]
        assert tasks_of(hub) == 20
        for reader in readers:
            reader.close()
        wait_until(lambda: tasks_of(hub) == 0)


def test_one_that_was_never_entered_leaves_nothing_behind(stream: AnyStream) -> None:
    for _ in range(3):
        stream.read()
    gc.collect()


def test_threads_enter_and_leave_readers_all_the_time(stream: AnyStream) -> None:
    stream.append_many(words(10))

    def read(_: int) -> list[str]:
        with stream.read() as reader:
            return following(reader, 10)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(40))) == [words(10)] * 40
    assert together([partial(all_payloads, stream)] * 8) == [words(10)] * 8


def test_a_hub_with_open_readers_is_closed_and_they_end(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        readers = [stream.read().__enter__() for _ in range(10)]
        workers = [Worker(partial(list, reader)) for reader in readers]
    assert [worker.outcome() for worker in workers] == [[]] * 10


def test_it_is_closed_in_time_though_the_server_does_not_answer(
    gate: Gate, new_hub: NewHub, installed: str, channel: str
) -> None:
    """Which reads, and would have to be asked to call the statements off."""
    with new_hub() as hub:
        stream = open_stream(hub, channel, read_conninfo=gate.dsn(), poll_interval=0.1)
        stream.append("a")
        readers = [stream.read().__enter__() for _ in range(6)]
        assert [following(reader, 1) for reader in readers] == [["a"]] * 6
        gate.deafen()
        stream.append("b")
        begin = time.monotonic()
        hub.close()
        assert time.monotonic() - begin < 5


def test_what_has_a_name_shows_it(stream: AnyStream) -> None:
    assert stream.name in repr(stream)
    assert stream.name in repr(stream.read())


# -- processes


def test_a_child_uses_nothing_of_its_parents(installed: str, channel: str) -> None:
    program = """
import gc, os, signal, sys, warnings
import psycopg, pgpubsub
from pgpubsub import ConcurrentUse, Hub
dsn, name = sys.argv[1:]

def check_refused(call):
    try:
        call()
    except BaseException as error:
        assert type(error) is ConcurrentUse, repr(error)
    else:
        raise AssertionError("it was not refused")

with Hub(dsn) as hub:
    stream = hub.stream(name)
    stream.append_many(["1", "2", "3"])
    with stream.read() as reader:
        assert reader.get(20).payload == "1"
        child = os.fork()
        if not child:
            signal.alarm(20)
            for call in (
                lambda: stream.append("child"), lambda: stream.append_many(["child"]), stream.read().__enter__,
                lambda: reader.get(1), reader.get_nowait, lambda: next(reader),
            ):
                check_refused(call)
            reader.close()
            hub.close()
            with Hub(dsn) as own:
                own.stream(name).append("4")
            gc.collect()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [reader.get(20).payload for _ in range(3)] == ["2", "3", "4"]
        stream.append("5")
        assert reader.get(20).payload == "5"
"""
    command = [sys.executable, "-W", "error", "-c", program, installed, channel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_child_of_a_program_with_tasks_neither(installed: str, channel: str) -> None:
    program = """
import asyncio, os, signal, sys
from pgpubsub import AsyncHub, ConcurrentUse
dsn, name = sys.argv[1:]

async def main():
    async with AsyncHub(dsn) as hub:
        stream = hub.stream(name)
        await stream.append_many(["1", "2"])
        async with stream.read() as reader:
            assert (await reader.get(20)).payload == "1"
            child = os.fork()
            if not child:
                signal.alarm(20)
                for call in (stream.append, reader.get, lambda x: stream.read().__aenter__()):
                    try:
                        await call(1) if call == reader.get else await call("child")
                    except ConcurrentUse:
                        pass
                    else:
                        os._exit(1)
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert (await reader.get(20)).payload == "2"
            await stream.append("3")
            assert (await reader.get(20)).payload == "3"

asyncio.run(main())
"""
    command = [sys.executable, "-W", "error", "-c", program, installed, channel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_program_that_closes_nothing_is_warned_of_the_hub_alone(installed: str, channel: str) -> None:
    program = """
import sys, gc, pgpubsub
hub = pgpubsub.Hub(sys.argv[1])
reader = hub.stream(sys.argv[2]).read().__enter__()
hub.stream(sys.argv[2]).append("a")
print(reader.get(20).payload)
"""
    command = [sys.executable, "-W", "default", "-c", program, installed, channel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "a\n"), done.stderr
    assert "psycopg" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr, done.stderr


def test_a_hub_without_a_database_has_no_streams() -> None:
    from pgpubsub.testing import MemoryServer

    with MemoryServer().hub() as hub:
        assert isinstance(hub, Hub)
        with pytest.raises(pgpubsub.PubSubError, match="there are no streams without a database"):
            hub.stream("orders").append("a")
