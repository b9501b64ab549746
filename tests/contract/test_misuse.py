"""Used wrongly, it says so: it neither hangs nor loses anything."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import (
    ChannelNameError,
    Closed,
    ConcurrentUse,
    ConnectionLost,
    ConnectionUnusable,
    NotificationHandler,
    PubSub,
    ServerRefused,
    UnsupportedConnection,
)
from tests.contract.conftest import BROUGHT, connect_with, run_on
from tests.contract.test_handler import eventually, in_thread


def outcome_of(function: Callable[[], object]) -> Callable[[], object]:
    """Run in a thread; the result is asked for later."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(function())
        except Exception as error:
            results.append(error)

    thread = in_thread(run)

    def result() -> object:
        thread.join(10)
        assert results, "it hangs"
        return results[0]

    return result


# -- connections that cannot work


@pytest.mark.parametrize("front", [PubSub, lambda conn: NotificationHandler(conn, "event", print)])
def test_a_connection_that_is_not_in_autocommit_mode_is_refused(front: Callable[[Any], object], dsn: str) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    for connection in (psycopg.connect(dsn), psycopg2.connect(dsn)):
        with pytest.raises(ConnectionUnusable, match="not in autocommit mode.*set connection.autocommit = True"):
            front(connection)
        connection.close()


@pytest.mark.parametrize("brought", BROUGHT)
def test_a_connection_inside_a_transaction_is_refused(connect_raw: Callable[[str], Any], brought: str) -> None:
    conn = connect_raw(brought)
    run_on(conn, "BEGIN")
    with pytest.raises(ConnectionUnusable, match="inside an open transaction: commit or roll back first"):
        PubSub(conn)


def test_it_is_refused_without_assertions_too(dsn: str) -> None:
    code = "import sys, psycopg, pgpubsub; pgpubsub.PubSub(psycopg.connect(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-O", "-c", code, dsn], capture_output=True, text=True, timeout=60)
    assert "ConnectionUnusable" in done.stderr


@pytest.mark.parametrize(
    ("thing", "advice"),
    [
        ("dbname=app", r"use pgpubsub\.connect\(dsn\)"),
        (None, "bring a blocking connection of psycopg 3, psycopg2 or PyGreSQL"),
        (object(), r"cannot listen on builtins\.object"),
    ],
)
def test_what_is_no_connection_is_a_type_error_with_advice(thing: object, advice: str) -> None:
    with pytest.raises(UnsupportedConnection, match=advice) as caught:
        PubSub(thing)
    assert isinstance(caught.value, TypeError)


def test_asynchronous_connections_are_refused(dsn: str) -> None:
    psycopg2 = pytest.importorskip("psycopg2")
    connection = psycopg2.connect(dsn, async_=1)
    with pytest.raises(UnsupportedConnection, match="asynchronous connection"):
        PubSub(connection)
    connection.close()

    async def bring_one() -> None:
        async with await psycopg.AsyncConnection.connect(dsn) as connection:
            with pytest.raises(UnsupportedConnection, match="asynchronous connection"):
                PubSub(connection)

    asyncio.run(bring_one())


def test_pygresql_in_another_encoding_is_refused_before_anything_is_taken(
    connect_raw: Callable[[str], Any], channel: str
) -> None:
    pubsub = PubSub(connect_raw("pg.DB"))
    pubsub.listen(channel)
    run_on(pubsub.conn, "SET client_encoding TO 'LATIN1'")
    run_on(pubsub.conn, f"NOTIFY \"{channel}\", 'x'")
    with pytest.raises(ConnectionUnusable, match="client_encoding is LATIN1: run SET client_encoding TO 'UTF8'"):
        pubsub.get_event(5)
    run_on(pubsub.conn, "SET client_encoding TO 'UTF8'")
    assert len(pubsub.get_events(5)) == 1


@pytest.mark.parametrize("brought", ["psycopg3", "psycopg2"])
def test_another_client_encoding_is_honoured(
    connect_raw: Callable[[str], Any], brought: str, admin: psycopg.Connection[Any], channel: str
) -> None:
    conn = connect_raw(brought)
    if brought == "psycopg2":  # which keeps its own record of the encoding
        conn.set_client_encoding("LATIN1")
    else:
        conn.execute("SET client_encoding TO 'LATIN1'")
    pubsub = PubSub(conn)
    pubsub.listen(f"é {channel}")
    admin.execute("SELECT pg_notify(%s, 'naïve')", [f"é {channel}"])
    event = pubsub.get_event(5)
    assert event is not None
    assert event[1:] == (f"é {channel}", "naïve")
    with pytest.raises(pgpubsub.PayloadError, match="client_encoding cannot express it"):
        pubsub.notify(channel, "日本")


def test_handlers_of_the_user_go_on_being_called(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        theirs: list[str] = []
        conn.add_notify_handler(lambda notify: theirs.append(notify.payload))
        pubsub = PubSub(conn)
        pubsub.listen(channel)
        admin.execute("SELECT pg_notify(%s, '1')", [channel])
        assert [event.payload for event in pubsub.get_events(5)] == ["1"]
        admin.execute("SELECT pg_notify(%s, '2')", [channel])
        conn.execute("SELECT pg_sleep(0.05)")
        assert [event.payload for event in pubsub.get_events(5)] == ["2"]
        assert theirs == ["1", "2"]


def test_a_brought_connection_is_given_back_as_it_was(dsn: str, admin: psycopg.Connection[Any], channel: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        pubsub = PubSub(conn)
        pubsub.listen(channel)
        gc.disable()  # at once, and not when the garbage collector comes
        try:
            del pubsub
        finally:
            gc.enable()
        admin.execute("SELECT pg_notify(%s, 'x')", [channel])
        assert [notify.payload for notify in conn.notifies(timeout=5, stop_after=1)] == ["x"]


# -- two users at once


def test_two_threads_at_once_are_told(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    waiting = outcome_of(lambda: pubsub.get_event(30))
    errors: list[ConcurrentUse] = []
    eventually(lambda: attempt(pubsub.get_event, errors))
    for call in (
        lambda: pubsub.get_events(),
        lambda: next(iter(pubsub.events())),
        lambda: pubsub.listen("another"),
        lambda: pubsub.unlisten(channel),
        lambda: pubsub.notify(channel, "x"),
    ):
        with pytest.raises(ConcurrentUse, match="in use by another thread.*connection of its own"):
            call()
    assert pubsub.channels == {channel}
    pubsub.close()
    assert isinstance(waiting(), Closed)


def attempt(call: Callable[[], object], errors: list[ConcurrentUse]) -> bool:
    try:
        call()
    except ConcurrentUse as error:
        errors.append(error)
    return bool(errors)


def test_closing_ends_an_iteration_in_another_thread(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    iterating = outcome_of(lambda: list(pubsub.events(select_timeout=None)))
    errors: list[ConcurrentUse] = []
    eventually(lambda: attempt(pubsub.get_event, errors))
    pubsub.close()
    assert iterating() == []


FORK = """
    import os, sys, gc
    import pgpubsub
    from tests.contract.conftest import connect_with

    kind, dsn = sys.argv[1:]
    pubsub = pgpubsub.connect(dsn) if kind == "connect()" else pgpubsub.PubSub(connect_with(kind, dsn))
    pubsub.listen("fork")
    if os.fork() == 0:
        for call in (pubsub.get_event, lambda: pubsub.get_event(5), pubsub.fileno, lambda: pubsub.notify("fork")):
            try:
                call()
            except pgpubsub.ConcurrentUse as error:
                assert "which forked this one" in str(error), error
            else:
                os._exit(1)
        pubsub.close()
        gc.collect()
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.wait()[1])
    pubsub.notify("fork", "the parent's connection is untouched")
    assert [event.payload for event in pubsub.get_events(5)] == ["the parent's connection is untouched"]
    sys.exit(status)
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_process_is_told_and_the_parent_is_untouched(
    kind: str, dsn: str, connect_pubsub: Callable[[str], PubSub]
) -> None:
    connect_pubsub(kind)  # skips where the driver is missing
    command = [sys.executable, "-c", textwrap.dedent(FORK), kind, dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# -- signals


@pytest.fixture
def on_signal() -> Iterator[Callable[[float, Callable[[], object]], None]]:
    """Have something done in a signal handler, every so many seconds. (SIGALRM belongs to pytest-timeout.)"""
    stop, threads = threading.Event(), []
    before = signal.getsignal(signal.SIGUSR1)

    def start(interval: float, action: Callable[[], object]) -> None:
        def send() -> None:
            while not stop.wait(interval):
                os.kill(os.getpid(), signal.SIGUSR1)

        signal.signal(signal.SIGUSR1, lambda number, frame: action())
        threads.append(in_thread(send))

    yield start
    stop.set()
    for thread in threads:
        thread.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("seconds", [30, None])
def test_an_exception_from_a_signal_handler_ends_the_wait_at_once(
    pubsub: PubSub, on_signal: Callable[[float, Callable[[], object]], None], channel: str, seconds: float | None
) -> None:
    pubsub.listen(channel)
    started = time.monotonic()
    once = [KeyboardInterrupt()]

    def interrupt() -> None:
        if once:
            raise once.pop()

    on_signal(0.05, interrupt)
    with pytest.raises(KeyboardInterrupt):
        pubsub.get_event(seconds)
    assert time.monotonic() - started < 10
    pubsub.notify(channel, "it still works")
    assert len(pubsub.get_events(5)) == 1


def test_a_signal_handler_that_returns_does_not_disturb(
    pubsub: PubSub,
    on_signal: Callable[[float, Callable[[], object]], None],
    admin: psycopg.Connection[Any],
    channel: str,
) -> None:
    pubsub.listen(channel)
    on_signal(0.05, lambda: admin.execute("SELECT pg_notify(%s, 'x')", [channel]))
    assert len(pubsub.get_events(30)) == 1


def test_using_it_from_a_signal_handler_that_interrupted_it_is_reported(
    pubsub: PubSub, on_signal: Callable[[float, Callable[[], object]], None]
) -> None:
    on_signal(0.05, lambda: pubsub.notify("x"))
    with pytest.raises(ConcurrentUse, match="signal handler"):
        pubsub.get_event(30)


def test_closing_it_from_a_signal_handler_ends_the_wait(
    pubsub: PubSub, on_signal: Callable[[float, Callable[[], object]], None]
) -> None:
    on_signal(0.05, pubsub.close)
    with pytest.raises(Closed):
        pubsub.get_event(30)


@pytest.mark.parametrize("method", ["get_event", "get_events", "events", "handler"])
def test_nothing_is_lost_or_doubled_by_interruptions(
    kind: str,
    pubsub: PubSub,
    on_signal: Callable[[float, Callable[[], object]], None],
    admin: psycopg.Connection[Any],
    channel: str,
    method: str,
) -> None:
    """Thousands of interruptions at random moments, while as many notifications arrive in small batches."""
    total = 6000
    received: list[Any] = []
    receive = receiver(pubsub, channel, method, received, total)
    stop = threading.Event()
    sender = in_thread(lambda: send_batches(admin, channel, total, stop))
    gc.collect()  # an interruption of a destructor is printed and forgotten, by the language's rules
    armed: list[bool] = []
    raised: list[None] = []

    def interrupt_once() -> None:
        if armed:
            armed.clear()
            raised.append(None)
            raise KeyboardInterrupt

    on_signal(0.0005, interrupt_once)
    interruptions, deadline = 0, time.monotonic() + 10

    def complete() -> bool:
        # psycopg2 itself discards an exception that is raised while it decodes a notification, and that with it.
        swallowed = len(raised) - interruptions if kind == "psycopg2" else 0
        return len(received) >= total - swallowed

    while not complete() and time.monotonic() < deadline:
        try:
            armed.append(True)
            while not complete() and time.monotonic() < deadline:
                receive()
            armed.clear()
        except KeyboardInterrupt:
            interruptions += 1
        finally:
            armed.clear()  # whatever else is raised is not to be hidden by an interruption
    stop.set()
    sender.join(10)
    assert len(raised) > 1, "there were hardly any: the test shows nothing"
    if method == "handler":  # all of them the one arg_dict
        assert received[-1]["extra"] == str(total)
    else:
        assert sorted({int(event.payload) for event in received}) == [int(event.payload) for event in received]
    assert complete()


def receiver(pubsub: PubSub, channel: str, method: str, received: list[Any], total: int) -> Callable[[], object]:
    """Receives some. What our code returns has been received; so nothing may interrupt the test between that and
    the list, and only functions written in C stand between them."""
    if method == "handler":
        handler = pubsub.notification_handler(channel, received.append, timeout=0)
        handler.listen()
        return handler
    pubsub.listen(channel)
    if method == "events":
        return lambda: received.extend(islice(pubsub.events(), total - len(received)))
    if method == "get_event":
        return lambda: received.extend(iter(partial(pubsub.get_event, 1), None))
    return lambda: deque(map(received.extend, iter(partial(pubsub.get_events, 1), [])), maxlen=0)


def send_batches(admin: psycopg.Connection[Any], channel: str, total: int, stop: threading.Event) -> None:
    for first in range(1, total + 1, 20):
        if stop.is_set():
            return
        admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(%s::int, %s) i", [channel, first, first + 19])


# -- many descriptors


def test_descriptors_above_1024_work(dsn: str, channel: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 1200:
        pytest.skip("the hard limit of file descriptors is below 1,200")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1200), hard))
    held = [os.dup(0) for _ in range(1100)]
    try:
        with pgpubsub.connect(dsn) as pubsub:
            assert pubsub.fileno() > 1024
            pubsub.listen(channel)
            pubsub.notify(channel, "x")
            assert len(pubsub.get_events(5)) == 1
            assert pubsub.get_event(0.01) is None
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- what drivers allow and a listener cannot bear


def test_a_connection_that_was_reset_listens_to_nothing_and_says_so(connect_raw: Callable[[str], Any]) -> None:
    db = connect_raw("pg.DB")
    pubsub = PubSub(db)
    pubsub.listen("x")
    db.reset()
    with pytest.raises(ConnectionLost):
        pubsub.get_event(5)


def test_autocommit_that_was_turned_off_is_noticed(connect_raw: Callable[[str], Any], channel: str) -> None:
    conn = connect_raw("psycopg3")
    pubsub = PubSub(conn)
    pubsub.listen(channel)
    conn.autocommit = False
    for seconds in (0, 5):
        with pytest.raises(ConnectionUnusable, match="not in autocommit mode any more"):
            pubsub.get_event(seconds)
    with pytest.raises(ConnectionUnusable, match="not in autocommit mode any more"):
        pubsub.listen("another")


@pytest.mark.parametrize("brought", BROUGHT)
def test_a_connection_that_is_closed_is_lost(connect_raw: Callable[[str], Any], brought: str) -> None:
    conn = connect_raw(brought)
    conn.close()
    with pytest.raises(ConnectionLost, match="the connection to PostgreSQL is lost: it is closed"):
        PubSub(conn)


def test_pipeline_mode_is_refused(connect_raw: Callable[[str], Any]) -> None:
    conn = connect_raw("psycopg3")
    with conn.pipeline(), pytest.raises(ConnectionUnusable, match=r"pipeline mode: leave its pipeline\(\) block"):
        PubSub(conn)


def test_pipeline_mode_that_was_entered_later_is_refused(connect_raw: Callable[[str], Any], channel: str) -> None:
    """What is wrong with a later statement would undo the LISTEN, and nobody would know."""
    conn = connect_raw("psycopg3")
    pubsub = PubSub(conn)
    pubsub.listen("another")
    with conn.pipeline():
        for use in (partial(pubsub.listen, channel), partial(pubsub.unlisten, "another"), partial(pubsub.get_event, 5)):
            with pytest.raises(ConnectionUnusable, match=r"pipeline mode and .*: leave its pipeline\(\) block"):
                use()
    assert pubsub.channels == {"another"}
    pubsub.listen(channel)
    pubsub.notify(channel, "17")
    assert getattr(pubsub.get_event(5), "payload", None) == "17"


def test_a_psycopg_connection_that_is_in_use_elsewhere_is_reported(connect_raw: Callable[[str], Any]) -> None:
    conn = connect_raw("psycopg3")
    pubsub = PubSub(conn)
    conn.execute("LISTEN theirs; NOTIFY theirs")
    notifies = conn.notifies()
    pubsub.notify("theirs", "the generator below holds the connection's lock")
    with conn.lock, pytest.raises(ConcurrentUse, match=r"in use, by another thread or by its notifies\(\)"):
        pubsub.listen("x")
    notifies.close()


@pytest.mark.parametrize("brought", ["psycopg3", "psycopg2"])
def test_a_name_that_the_connection_cannot_express_does_no_harm(
    connect_raw: Callable[[str], Any], brought: str, channel: str
) -> None:
    conn = connect_raw(brought)
    if brought == "psycopg2":
        conn.set_client_encoding("LATIN1")
    else:
        conn.execute("SET client_encoding TO 'LATIN1'")
    pubsub = PubSub(conn)
    with pytest.raises(ChannelNameError, match="client_encoding cannot express it"):
        pubsub.listen("日本")
    assert pubsub.channels == frozenset()
    pubsub.listen(channel)
    pubsub.notify(channel)
    assert len(pubsub.get_events()) == 1


@pytest.mark.parametrize("brought", BROUGHT)
def test_a_name_that_is_longer_at_the_server_is_refused_and_not_cut_off(brought: str, dsn: str, euc_jp: str) -> None:
    fitting = "日" * 21
    with contextlib.closing(connect_with(brought, psycopg.conninfo.make_conninfo(dsn, dbname=euc_jp))) as conn:
        if brought.startswith("pg."):
            run_on(conn, "SET client_encoding TO 'UTF8'")
        pubsub = PubSub(conn)
        pubsub.listen(fitting)
        with pytest.raises(ServerRefused, match="channel name too long"):
            pubsub.listen("é" * 31)  # 93 bytes there
        pubsub.notify(fitting, "17")
        assert getattr(pubsub.get_event(5), "payload", None) == "17"
        assert pubsub.channels == {fitting}


def test_what_arrived_is_not_handed_out_after_close(pubsub: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    for _ in range(3):
        pubsub.notify(channel)
    events = pubsub.events()
    next(events)
    pubsub.close()
    assert list(events) == []
    with pytest.raises(Closed):
        pubsub.get_event()


def test_of_two_threads_that_come_at_the_same_moment_one_is_told(dsn: str) -> None:
    """Neither waits for the other, who may wait for ever."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with pgpubsub.connect(dsn) as pubsub:
            for _ in range(100):
                barrier = threading.Barrier(2)
                outcomes = [outcome_of(lambda: (barrier.wait(), pubsub.get_event(0.02))) for _ in range(2)]  # noqa: B023
                assert any(isinstance(outcome(), ConcurrentUse | tuple) for outcome in outcomes)
                assert sum(isinstance(outcome(), ConcurrentUse) for outcome in outcomes) <= 1
    finally:
        sys.setswitchinterval(before)
