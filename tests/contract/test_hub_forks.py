"""What becomes of hubs when the process forks. Each case is a program of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from subprocess import PIPE
from typing import Any

import psycopg
import pytest

from pgpubsub import PubSub
from tests.contract.test_handler import eventually

COMMON = """
    import gc, os, signal, sys, threading
    from functools import partial
    import psycopg
    from pgpubsub import AsyncHub, ConcurrentUse, Hub, HubStatus

    dsn, loop_factory = sys.argv[1], None
    if sys.argv[2:] == ["uvloop"]:
        import uvloop
        loop_factory = uvloop.new_event_loop

    def send(channel, payload):
        with psycopg.connect(dsn, autocommit=True) as sender:
            sender.execute("SELECT pg_notify(%s, %s)", [channel, payload])

    def is_refused(error):
        assert type(error) is ConcurrentUse, repr(error)
        assert f"belongs to process {os.getppid()}" in str(error), error

    def check_refused(call):
        try:
            call()
        except BaseException as error:
            is_refused(error)
        else:
            raise AssertionError("it was not refused")

    def fork():
        child = os.fork()
        if not child:
            signal.alarm(20)  # it shall not hang
        return child

    def wait_for(child):
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status == 0, f"the child ended with {status}"

    def check_disowned(hub):
        assert hub.state.status is HubStatus.FAILED, hub.state
        is_refused(hub.state.error)
        assert "belongs to process" in repr(hub)
        assert hub.stats().received >= 0
"""

HUB = """
    def use():
        with Hub(dsn) as hub, hub.subscribe("fork") as events, hub.subscribe("fork") as others:
            hub.notify("fork", "buffered")
            waiting = threading.Thread(target=lambda: received.extend(others))
            waiting.start()
            child = fork()
            if not child:
                new = hub.subscribe("another")
                for call in (
                    partial(hub.notify, "fork", "x"),
                    hub.wait_until_live,
                    hub.__enter__,
                    new.__enter__,
                    partial(events.add, "another"),
                    partial(events.remove, "fork"),
                    partial(next, events),
                    partial(list, events),
                    events.get,
                    partial(events.get, 1),
                    events.get_nowait,
                    others.get_nowait,
                ):
                    check_refused(call)
                check_disowned(hub)
                with Hub(dsn) as own, own.subscribe("own") as own_events:
                    own.notify("own", "the child's own hub works")
                    assert own_events.get(10).payload == "the child's own hub works"
                events.close()
                hub.close()
                return 0  # leaving the blocks
            wait_for(child)
            for number in range(3):
                hub.notify("fork", f"ours {number}")
                send("fork", f"foreign {number}")
            expected = ["buffered"] + [f"{who} {number}" for number in range(3) for who in ("ours", "foreign")]
            assert [events.get(10).payload for _ in expected] == expected
            assert hub.stats().reconnects == 0
            assert hub.state.live
            hub.close()
            waiting.join(10)
            assert [event.payload for event in received] == expected
        return child

    received = []
    use()
    gc.collect()
"""

ASYNC_HUB = """
    import asyncio

    async def check_refused_later(awaitable):
        try:
            await awaitable
        except BaseException as error:
            is_refused(error)
        else:
            raise AssertionError("it was not refused")

    async def use():
        async with AsyncHub(dsn) as hub, hub.subscribe("fork") as events:
            await hub.notify("fork", "buffered")
            child = fork()
            if not child:
                for awaitable in (
                    hub.notify("fork", "x"),
                    hub.wait_until_live(),
                    hub.__aenter__(),
                    hub.subscribe("another").__aenter__(),
                    events.add("another"),
                    events.remove("fork"),
                    anext(events),
                    events.get(),
                    events.get(1),
                ):
                    await check_refused_later(awaitable)
                check_refused(events.get_nowait)
                check_disowned(hub)
                events.close()
                await hub.close()
                return 0
            wait_for(child)
            await hub.notify("fork", "ours")
            send("fork", "foreign")
            expected = ["buffered", "ours", "foreign"]
            assert [(await events.get(10)).payload for _ in expected] == expected
            assert hub.stats().reconnects == 0
            assert hub.state.live
        return child

    async def main():
        if not await use():
            os._exit(0)  # to leave the loop too is asyncio's own business

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())
"""

FIRST_USED_AFTER = """
    hub = Hub(dsn)
    events = hub.subscribe("fork")
    children = [0]
    for _ in range(3):
        if children[-1:] != [None]:
            child = fork()
            children.append(child or None)
    mine = f"process {os.getpid()}"
    with hub, events:
        while True:
            hub.notify("fork", mine)
            if any(event.payload == mine for event in iter(partial(events.get, 10), None)):
                break
    if children[-1] is not None:
        for child in children[1:]:
            wait_for(child)
"""

BUSY = """
    # Whatever its threads hold or do at the moment of the fork, the child neither hangs nor disturbs.
    done = threading.Event()
    received = []

    def keep_using(channel):
        with hub.subscribe(channel) as own:
            while not done.is_set():
                hub.notify(channel, "x")
                own.get(10)
                hub.stats()

    with Hub(dsn) as hub, hub.subscribe("fork", capacity=100_000) as events:
        taking = threading.Thread(target=lambda: received.extend(events))
        threads = [threading.Thread(target=keep_using, args=[f"channel {number}"]) for number in range(4)]
        for thread in (*threads, taking):
            thread.start()
        for number in range(30):
            hub.notify("fork", str(number))
            child = fork()
            if not child:
                check_refused(events.get_nowait)
                check_refused(partial(hub.notify, "fork", "x"))
                check_disowned(hub)
                events.stats()
                events.close()
                hub.close()
                os._exit(0)
            wait_for(child)
        done.set()
        for thread in threads:
            thread.join(20)
        assert hub.stats().reconnects == 0
        hub.notify("fork", "end")
        while not received or received[-1].payload != "end":
            assert taking.is_alive()
    taking.join(10)
    assert [event.payload for event in received] == [*map(str, range(30)), "end"]
"""

LOCKED = """
    # Another thread is in the middle of the buffer, and will never leave it in the child.
    holding, forked = threading.Event(), threading.Event()

    def pause(frame, event, argument):
        if event == "call" and frame.f_code.co_name == "take" and frame.f_code.co_filename.endswith("buffer.py"):
            sys.setprofile(None)
            holding.set()
            assert forked.wait(20)

    def take():
        sys.setprofile(pause)
        received.append(events.get_nowait())

    received = []
    with Hub(dsn) as hub, hub.subscribe("fork") as events:
        thread = threading.Thread(target=take)
        thread.start()
        assert holding.wait(20)
        child = fork()
        if not child:
            check_refused(events.get_nowait)
            check_refused(partial(events.get, 1))
            check_disowned(hub)
            events.stats()
            events.close()
            hub.close()
            os._exit(0)
        wait_for(child)
        forked.set()
        thread.join(20)
        assert received == [None]
        hub.notify("fork", "x")
        assert events.get(10).payload == "x"
"""

OUTLIVED = """
    # The server notices the end of a process that its child outlives.
    hub = Hub(dsn).__enter__()
    child = os.fork()
    if not child:
        sys.stdin.read()
        os._exit(0)
    print(os.getpid(), flush=True)
    os._exit(0)
"""


def test_a_child_that_outlives_its_parent_does_not_keep_its_connections(
    dsn: str, admin: psycopg.Connection[Any]
) -> None:
    code = textwrap.dedent(COMMON) + textwrap.dedent(OUTLIVED)
    query = "SELECT FROM pg_stat_activity WHERE application_name LIKE %s"
    with subprocess.Popen([sys.executable, "-c", code, dsn], stdin=PIPE, stdout=PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert parent.wait(20) == 0
        eventually(lambda: admin.execute(query, [f"pgpubsub %{pid}@%"]).fetchone() is None)
        # Leaving the block ends the child.


@pytest.mark.parametrize(
    ("program", "loop"),
    [
        pytest.param(HUB, "", id="Hub"),
        pytest.param(ASYNC_HUB, "", id="AsyncHub on asyncio"),
        pytest.param(ASYNC_HUB, "uvloop", id="AsyncHub on uvloop"),
        pytest.param(BUSY, "", id="busy"),
        pytest.param(LOCKED, "", id="locked"),
    ],
)
def test_forking(dsn: str, program: str, loop: str) -> None:
    run(program, dsn, *loop.split())


def test_one_that_is_first_used_after_the_fork_belongs_to_each_who_uses_it(dsn: str, other: PubSub) -> None:
    """And each knows its own heartbeats, of which there are fewer if one is in time for another's."""
    other.listen("pgpubsub.heartbeat")
    run(FIRST_USED_AFTER, dsn)
    beats = [event.payload for event in other.get_events(10)]
    assert beats
    assert len(set(beats)) == len(beats)


def run(program: str, *arguments: str) -> None:
    code = textwrap.dedent(COMMON) + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
