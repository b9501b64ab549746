"""What is particular to `Hub`: threads, signal handlers that raise, and signal handlers that close it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from types import FrameType, NoneType
from typing import Any

import psycopg
import pytest

from pgpubsub import (
    Closed,
    Gap,
    Hub,
    HubStatus,
    Notify,
    Observation,
    PubSub,
    PubSubError,
    SendUncertain,
    Subscription,
    SubscriptionClosed,
)
from tests.contract.faces import Worker, listening_pid, payloads, take
from tests.contract.interruptions import PACKAGE, PLACES, every_moment, interrupt
from tests.contract.test_handler import eventually
from tests.contract.test_pubsub import terminate

Admin = psycopg.Connection[Any]


@pytest.fixture
def hub(dsn: str) -> Iterator[Hub]:
    with Hub(dsn) as hub:
        yield hub
    no_thread_is_left()


def no_thread_is_left() -> None:
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "pgpubsub hub"])


def send(admin: Admin, channel: str, first: int, last: int) -> None:
    admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(%s::int, %s) i", [channel, first, last])


def main_thread_is_in(name: str) -> bool:
    """Whether it executes a function of this name in the package, or what that calls."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    while frame is not None:
        if frame.f_code.co_name == name and "pgpubsub" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(function: Callable[[], object], moment: int, places: tuple[str, ...] = PLACES) -> bool:
    """Call it, and raise KeyboardInterrupt at the given moment. Says whether it came to that."""
    try:
        return interrupt(function, moment, raise_interrupt, places)
    except KeyboardInterrupt:
        return True


# -- handlers that raise


@pytest.mark.parametrize("method", ["get", "get_nowait", "iteration"])
def test_an_interruption_while_it_takes_what_is_there(hub: Hub, admin: Admin, channel: str, method: str) -> None:
    """The event that was about to be returned is the next one."""
    with hub.subscribe(channel) as events:

        def scenario(moment: int) -> bool:
            send(admin, channel, 1, 3)
            eventually(lambda: events.stats().depth == 3)
            received: list[Notify | Gap] = []
            was_interrupted = interrupted(receiver(events, received, method, 3), moment)
            received += take(events, 3 - len(received))
            assert payloads(received) == ["1", "2", "3"], moment
            return was_interrupted

        every_moment(scenario)


def receiver(events: Subscription, received: list[Notify | Gap], method: str, count: int) -> Callable[[], object]:
    """Receives some. What our code returns has been received, and so only C stands between it and the list."""
    if method == "iteration":
        return lambda: received.extend(islice(events, count))
    if method == "get":
        return lambda: received.extend(iter(lambda: events.get(10) if len(received) < count else None, None))
    return lambda: received.extend(iter(events.get_nowait, None))


@pytest.mark.parametrize("method", ["get", "iteration"])
def test_an_interruption_while_it_waits(hub: Hub, admin: Admin, channel: str, method: str) -> None:
    """Or when that is over: what it was woken for is not forgotten."""
    with hub.subscribe(channel) as events:

        def scenario(moment: int) -> bool:
            received: list[Notify | Gap] = []

            def send_then() -> None:
                eventually(lambda: main_thread_is_in("get"))
                send(admin, channel, 1, 2)

            sending = Worker(send_then)
            was_interrupted = interrupted(receiver(events, received, method, 2), moment)
            while sending.busy:
                main_thread_waits(events, received)
            received += take(events, 2 - len(received))
            assert payloads(received) == ["1", "2"], moment
            return was_interrupted

        every_moment(scenario)


def main_thread_waits(events: Subscription, received: list[Notify | Gap]) -> None:
    try:
        received.append(events.get(0.01))
    except TimeoutError:
        pass


def test_what_an_interrupted_thread_was_woken_for_is_anothers(hub: Hub, admin: Admin, channel: str) -> None:
    """Two wait, one event comes, and whoever it wakes is interrupted: the other must not sleep on."""
    with hub.subscribe(channel) as events:

        def scenario(moment: int) -> bool:
            received: list[Notify | Gap] = []
            other: list[Worker] = []

            def join_and_send() -> None:
                eventually(lambda: main_thread_is_in("get"))
                other.append(Worker(lambda: events.get(10)))
                send(admin, channel, 1, 1)

            sending = Worker(join_and_send)
            was_interrupted = interrupted(receiver(events, received, "get", 1), moment)
            while sending.busy:
                main_thread_waits(events, received)
            sending.outcome()
            if received:  # the main thread has it, so that the other waits for one of its own
                send(admin, channel, 2, 2)
            received.append(other[0].outcome())
            assert payloads(received) in (["1"], ["1", "2"]), moment
            return was_interrupted

        every_moment(scenario)


def test_an_interruption_while_a_subscription_is_entered(
    hub: Hub, new_channel: Callable[[], str], admin: Admin
) -> None:
    """Nobody has entered it: it takes nothing, and can be entered no more, or it can."""

    def scenario(moment: int) -> bool:
        events = hub.subscribe(new_channel())
        was_interrupted = interrupted(events.__enter__, moment)
        if was_interrupted:
            eventually(lambda: not hub.stats().subscriptions)
            assert events.channels == frozenset()
        events.close()
        eventually(lambda: not hub.stats().subscriptions)
        return was_interrupted

    every_moment(scenario)


@pytest.mark.parametrize("method", ["add", "remove"])
def test_an_interruption_while_channels_change(
    hub: Hub, new_channel: Callable[[], str], admin: Admin, method: str
) -> None:
    """A channel is subscribed to or it is not, and `channels` tells which."""

    def scenario(moment: int) -> bool:
        channel, fence = new_channel(), new_channel()
        with hub.subscribe(fence, *([channel] if method == "remove" else [])) as events:
            was_interrupted = interrupted(lambda: getattr(events, method)(channel), moment)
            hub.notify(fence)  # goes to the hub's thread, behind what was interrupted
            assert payloads(take(events, 1)) == [""]
            subscribed = channel in events.channels
            hub.notify(channel, "x")
            hub.notify(fence, "y")
            assert payloads(take(events, 1 + subscribed)) == ["x"] * subscribed + ["y"], moment
        return was_interrupted

    every_moment(scenario)


def test_an_interruption_while_it_sends(hub: Hub, other: PubSub, channel: str) -> None:
    """It was sent or it was not, and never twice."""
    other.listen(channel)

    def scenario(moment: int) -> bool:
        was_interrupted = interrupted(lambda: hub.notify(channel, "x"), moment)
        hub.notify(channel, "y")
        received: list[str] = []
        while "y" not in received:
            received += [event.payload for event in other.get_events(10)]
        assert received == ["x", "y"] or (was_interrupted and received in (["y"], ["y", "x"])), moment
        return was_interrupted

    every_moment(scenario)


def test_an_interruption_while_it_is_first_used(dsn: str, other: PubSub, channel: str) -> None:
    """It can be used all the same."""
    other.listen(channel)

    def scenario(moment: int) -> bool:
        hub = Hub(dsn)
        was_interrupted = interrupted(lambda: hub.notify(channel), moment, (PACKAGE,))  # asyncio leaves loops open
        hub.notify(channel, "y")
        while [event.payload for event in other.get_events(10)][-1:] != ["y"]:
            pass
        hub.close()
        return was_interrupted

    every_moment(scenario)
    no_thread_is_left()


def test_an_interruption_while_it_is_entered(dsn: str) -> None:
    """It is closed, and leaves nothing behind."""

    def scenario(moment: int) -> bool:
        hub = Hub(dsn)
        was_interrupted = interrupted(hub.__enter__, moment, (PACKAGE,))
        if not was_interrupted:
            hub.close()
        eventually(lambda: hub.state.status in (HubStatus.IDLE, HubStatus.CLOSED))
        hub.close()
        return was_interrupted

    every_moment(scenario)
    no_thread_is_left()


def test_an_interruption_while_it_closes(dsn: str, channel: str) -> None:
    """It is closed by whoever closes it next."""

    def scenario(moment: int) -> bool:
        hub = Hub(dsn)
        with hub.subscribe(channel) as events:
            iterating = Worker(lambda: list(events))
            was_interrupted = interrupted(hub.close, moment)
            hub.close()
            assert hub.state.status is HubStatus.CLOSED
            assert iterating.outcome() == []
        return was_interrupted

    every_moment(scenario)
    no_thread_is_left()


# -- handlers that close it


PATIENCE = 3.0
"""Seconds; its timeout is 5."""


@pytest.mark.parametrize("what", ["get", "iteration", "notify", "enter", "stats", "close"])
def test_a_handler_may_close_it_at_any_moment(
    dsn: str, admin: Admin, new_channel: Callable[[], str], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it interrupts ends, and what was buffered is delivered."""
    monkeypatch.setattr("pgpubsub.threads.hub.LOCK_PATIENCE", 0.01)  # it comes to that many times

    def scenario(moment: int) -> bool:
        channel = new_channel()
        received: list[Notify | Gap] = []
        took: list[float] = []

        def close() -> None:
            begun = time.monotonic()
            used.close()
            took.append(time.monotonic() - begun)

        with Hub(dsn) as used, used.subscribe(channel) as events, used.subscribe(channel) as others:
            iterating = Worker(lambda: list(others))
            send(admin, channel, 1, 1)
            eventually(lambda: events.stats().depth == 1)
            calls: dict[str, Callable[[], object]] = {
                "get": lambda: received.append(events.get(10)),
                "iteration": lambda: received.extend(islice(events, 1)),
                "notify": lambda: used.notify(channel),
                "enter": lambda: used.subscribe(new_channel()).__enter__(),
                "stats": used.stats,
                "close": used.close,
            }
            try:
                came_to_it = interrupt(calls[what], moment, close)
            except Closed:
                came_to_it = True
            assert all(seconds < PATIENCE for seconds in took)
            used.close()
            assert payloads([*received, *events])[:1] == ["1"]
            assert payloads(iterating.outcome())[:1] == ["1"]
            eventually(lambda: used.state.status is HubStatus.CLOSED)
            return came_to_it

    every_moment(scenario)
    no_thread_is_left()


class Signal:
    """What is done when the process gets SIGUSR1. (SIGALRM belongs to pytest-timeout.)"""

    def __init__(self) -> None:
        self._action: Callable[[], object] | None = None
        signal.signal(signal.SIGUSR1, self._handle)

    def does(self, action: Callable[[], object], when: Callable[[], object]) -> Worker:
        """Have it do something, once, as soon as something is the case. It is sent repeatedly: one that comes just
        before the main thread begins to wait is not noticed before that has come to an end."""

        def send() -> None:
            eventually(when)
            self._action = action
            while self._action is not None:
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.005)

        return Worker(send)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


@pytest.fixture
def on_signal() -> Iterator[Signal]:
    before = signal.getsignal(signal.SIGUSR1)
    yield Signal()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("timeout", [None, 20])
def test_a_signal_that_closes_the_hub_ends_a_wait(
    hub: Hub, channel: str, on_signal: Signal, timeout: float | None
) -> None:
    with hub.subscribe(channel) as events:
        on_signal.does(hub.close, when=lambda: main_thread_is_in("get"))
        begun = time.monotonic()
        with pytest.raises(SubscriptionClosed):
            events.get(timeout)
        assert time.monotonic() - begun < PATIENCE
        assert hub.state.status is HubStatus.CLOSED


def test_a_signal_that_closes_the_subscription_ends_a_wait(hub: Hub, channel: str, on_signal: Signal) -> None:
    with hub.subscribe(channel) as events:
        on_signal.does(events.close, when=lambda: main_thread_is_in("get"))
        assert list(events) == []
    assert hub.state.live


def test_a_signal_that_closes_the_hub_ends_an_iteration_over_a_full_buffer(
    hub: Hub, admin: Admin, channel: str, on_signal: Signal
) -> None:
    took: list[float] = []

    def close() -> None:
        begun = time.monotonic()
        hub.close()
        took.append(time.monotonic() - begun)

    received: list[Notify | Gap] = []
    with hub.subscribe(channel, capacity=20_000) as events:
        send(admin, channel, 1, 20_000)
        eventually(lambda: events.stats().depth == 20_000)
        on_signal.does(close, when=lambda: len(received) > 100)
        for event in events:
            received.append(event)
    assert took
    assert took[0] < PATIENCE
    assert payloads(received) == [str(number) for number in range(1, 20_001)]


def test_a_signal_that_closes_the_hub_ends_sending(hub: Hub, other: PubSub, channel: str, on_signal: Signal) -> None:
    other.listen(channel)
    sent = 0

    def keep_sending() -> None:
        nonlocal sent
        while True:
            hub.notify(channel, str(sent + 1))
            sent += 1

    on_signal.does(hub.close, when=lambda: sent > 50 and main_thread_is_in("notify"))
    begun = time.monotonic()
    with pytest.raises(Closed):
        keep_sending()
    assert time.monotonic() - begun < PATIENCE + 5
    other.notify(channel, "end")
    received: list[str] = []
    while "end" not in received:
        received += [event.payload for event in other.get_events(10)]
    assert received[:-1] in ([str(n) for n in range(1, last + 1)] for last in (sent, sent + 1))


def test_a_signal_that_interrupts_ends_a_wait_at_once(hub: Hub, channel: str, on_signal: Signal) -> None:
    with hub.subscribe(channel) as events:
        for wait in (partial(events.get, 20), events.get, partial(next, events)):
            on_signal.does(raise_interrupt, when=lambda: main_thread_is_in("get"))
            with pytest.raises(KeyboardInterrupt):
                wait()
            hub.notify(channel, "unharmed")
            assert payloads(take(events, 1)) == ["unharmed"]


def test_what_waits_for_a_server_is_called_off_when_it_is_interrupted(
    dsn: str, other: PubSub, channel: str, on_signal: Signal
) -> None:
    """It is not sent later, when nobody expects it any more."""
    there = threading.Event()

    def conninfo() -> str:
        if not there.is_set():
            raise OSError("not yet")
        return dsn

    other.listen(channel)
    hub = Hub(conninfo)
    with contextlib.closing(hub):
        for call in (partial(hub.notify, channel, "never"), hub.subscribe(channel).__enter__, hub.wait_until_live):
            on_signal.does(raise_interrupt, when=partial(main_thread_is_in, "wait"))
            with pytest.raises(KeyboardInterrupt):
                call()
        there.set()
        hub.notify(channel, "later")
        hub.wait_until_live(20)
        assert hub.stats().subscriptions == ()
    assert [event.payload for event in other.get_events(10)] == ["later"]


@pytest.mark.usefixtures("on_signal")
def test_thousands_of_signals_lose_nothing(hub: Hub, dsn: str, channel: str) -> None:
    """At random moments, while notifications arrive in small batches."""
    total, raised = 5000, 0
    armed: list[bool] = []
    received: list[Notify | Gap] = []

    def interrupt_once(number: int, frame: FrameType | None) -> None:
        if armed:
            armed.clear()
            raise KeyboardInterrupt

    def keep_sending() -> None:
        with psycopg.connect(dsn, autocommit=True) as sender:
            for first in range(1, total + 1, 20):
                send(sender, channel, first, first + 19)

    def keep_killing() -> None:
        while not done.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)

    signal.signal(signal.SIGUSR1, interrupt_once)
    done = threading.Event()
    with hub.subscribe(channel, capacity=total) as events:
        sending, killing = Worker(keep_sending), Worker(keep_killing)
        deadline = time.monotonic() + 20
        while len(received) < total and time.monotonic() < deadline:
            try:
                armed.append(True)
                received.extend(islice(events, total - len(received)))
                armed.clear()
            except KeyboardInterrupt:
                raised += 1
        done.set()
        assert killing.outcome() is None
        assert sending.outcome() is None
    assert raised > 5
    assert payloads(received) == [str(number) for number in range(1, total + 1)]


# -- threads


def test_many_threads_that_use_it_first_make_one(dsn: str, channel: str) -> None:
    for _ in range(5):
        with contextlib.closing(Hub(dsn)) as hub:
            barrier = threading.Barrier(10)
            workers = [Worker(partial(use_at_once, hub, channel, barrier)) for _ in range(10)]
            assert [worker.outcome() for worker in workers] == [None] * 10
            # Those that were made in vain may take a moment to end.
            eventually(lambda: [thread.name for thread in threading.enumerate()].count("pgpubsub hub") == 1)
        no_thread_is_left()


def use_at_once(hub: Hub, channel: str, barrier: threading.Barrier) -> None:
    barrier.wait(10)
    hub.notify(channel)


def test_timeouts_may_be_longer_than_any_wait(dsn: str, other: PubSub, channel: str) -> None:
    with contextlib.closing(Hub(dsn)) as hub, hub.subscribe(channel) as events:
        for timeout in (1e10, math.inf):
            waiting = Worker(partial(events.get, timeout=timeout))
            other.notify(channel, "17")
            assert getattr(waiting.outcome(), "payload", None) == "17"
        hub.wait_until_live(math.inf)
        hub.close(math.inf)


def test_when_its_thread_is_ended_all_who_wait_are_told(dsn: str, admin: Admin, channel: str) -> None:
    def observe(what: Observation) -> None:
        if what.name == "lost":
            raise KeyboardInterrupt

    with contextlib.closing(Hub(dsn, observe=observe)) as hub, hub.subscribe(channel) as events:
        reading, waiting = Worker(events.get), Worker(partial(next, iter(events)))
        terminate(admin, listening_pid(admin))
        for worker in (reading, waiting):
            assert "the hub's thread was ended: KeyboardInterrupt()" in str(worker.outcome())
        assert hub.state.status is HubStatus.FAILED
        with pytest.raises(PubSubError, match="the hub's thread was ended"):
            hub.notify(channel)
        with pytest.raises(PubSubError, match="the hub's thread was ended"):
            events.get(timeout=5)
    no_thread_is_left()


def test_a_handler_of_logging_that_ends_programs_keeps_nobody_waiting(dsn: str, admin: Admin, channel: str) -> None:
    """It does so when the loss of the connection is logged, and again when that of the hub is."""

    class FailFast(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)
            sys.exit(1)

    records: list[logging.LogRecord] = []
    handler = FailFast(logging.WARNING)
    with contextlib.closing(Hub(dsn)) as hub, hub.subscribe(channel) as events:
        reading, waiting = Worker(events.get), Worker(partial(next, iter(events)))
        logging.getLogger("pgpubsub").addHandler(handler)
        try:
            terminate(admin, listening_pid(admin))
            for worker in (reading, waiting):
                assert "the hub's thread was ended: SystemExit(1)" in str(worker.outcome())
            eventually(lambda: len(records) > 1)
        finally:
            logging.getLogger("pgpubsub").removeHandler(handler)
        assert hub.state.status is HubStatus.FAILED
    no_thread_is_left()


def test_an_observer_that_strikes_again_and_again_keeps_nobody_waiting(dsn: str, channel: str) -> None:
    def observe(what: Observation) -> None:
        if what.name in ("sent", "send_failed"):
            raise KeyboardInterrupt

    with contextlib.closing(Hub(dsn, observe=observe)) as hub, hub.subscribe(channel) as events:
        barrier = threading.Barrier(5)
        sending = [Worker(partial(use_at_once, hub, channel, barrier)) for _ in range(5)]
        reading = Worker(lambda: list(events))
        for worker in sending:
            outcome = worker.outcome()
            if not isinstance(outcome, NoneType | SendUncertain):  # which those are told that were in flight
                assert "the hub's thread was ended: KeyboardInterrupt()" in str(outcome)
        assert "the hub's thread was ended: KeyboardInterrupt()" in str(reading.outcome())
        assert hub.state.status is HubStatus.FAILED
    no_thread_is_left()


def test_a_program_may_end_without_closing_it(dsn: str) -> None:
    """Its thread does not keep the interpreter alive."""
    code = "import sys, pgpubsub; hub = pgpubsub.Hub(sys.argv[1]); hub.notify('x'); events = hub.subscribe('y'); \
events.__enter__()"
    done = subprocess.run([sys.executable, "-c", code, dsn], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
