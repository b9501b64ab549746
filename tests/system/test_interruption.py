"""KeyboardInterrupt at every single place at which CPython could raise it, one after the other.

A profile function raises it at the n-th function entry or return from C code inside the package, which are the
places where signal handlers run; n goes up until the scenario ends undisturbed. What a subscriber was promised has
to hold after each of them.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ConnectionLost, Gap, PubSub
from tests.contract.test_pubsub import terminate

PACKAGE = str(Path(pgpubsub.__file__).parent)
SWALLOWED = re.compile(r"notice|^_close$|^backoff$")
"""psycopg discards what is raised in its notice callbacks, and Python what is raised in a finalizer, which the garbage
collector may call at any moment (a generator's is the generator itself). So nothing is raised there."""


def interrupted(function: Callable[[], object], moment: int) -> bool:
    """Run until the given moment; says whether it came to that."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        code = frame.f_code
        if event not in ("call", "c_return") or SWALLOWED.search(code.co_name):
            return
        if code.co_filename.startswith(PACKAGE):
            count += 1
            if count == moment:
                sys.setprofile(None)
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def every_moment(scenario: Callable[[int], bool]) -> None:
    moment = 1
    while scenario(moment):
        moment += 1
    assert moment > 20


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., PubSub]]:
    opened: list[PubSub] = []

    def connect_and_listen(*channels: str, **keywords: Any) -> PubSub:
        opened.append(pgpubsub.connect(dsn, **keywords))
        for channel in channels:
            opened[-1].listen(channel)
        return opened[-1]

    yield connect_and_listen
    for pubsub in opened:
        pubsub.close()


def receive(pubsub: PubSub, count: int) -> list[Any]:
    events: list[Any] = []
    deadline = time.monotonic() + 10
    while len(events) < count and time.monotonic() < deadline:
        events += pubsub.get_events(0.5, yield_gaps=True)
    return events


def test_while_a_loss_is_noticed_and_mended(
    connect: Callable[..., PubSub], admin: psycopg.Connection[Any], new_channel: Callable[[], str]
) -> None:
    def scenario(moment: int) -> bool:
        one, other = new_channel(), new_channel()
        pubsub = connect(one, other)
        terminate(admin, pubsub.backend_pid)
        events: list[Any] = []
        was_interrupted = interrupted(lambda: events.extend(receive(pubsub, 1)), moment)
        events += receive(pubsub, 1 - len(events))
        admin.execute("SELECT pg_notify(%s, ''), pg_notify(%s, '')", [one, other])
        events += receive(pubsub, 2)
        assert [type(event) is Gap for event in events] == [True, False, False], moment
        assert pubsub.gaps == 1, moment
        pubsub.close()
        return was_interrupted

    every_moment(scenario)


def test_while_a_final_loss_is_noticed(
    connect: Callable[..., PubSub], admin: psycopg.Connection[Any], channel: str
) -> None:
    def scenario(moment: int) -> bool:
        pubsub = connect(channel, reconnect=False)
        terminate(admin, pubsub.backend_pid)

        def notice() -> None:
            with pytest.raises(ConnectionLost):
                pubsub.get_event(10)

        was_interrupted = interrupted(notice, moment)
        notice()
        pubsub.close()
        return was_interrupted

    every_moment(scenario)


def test_while_listening_and_unlistening(
    connect: Callable[..., PubSub], admin: psycopg.Connection[Any], new_channel: Callable[[], str]
) -> None:
    """A channel is listened to or it is not, and `channels` tells which."""
    pubsub = connect()

    def scenario(moment: int, unlisten: bool) -> bool:
        channel = new_channel()
        if unlisten:
            pubsub.listen(channel)
        was_interrupted = interrupted(lambda: (pubsub.unlisten if unlisten else pubsub.listen)(channel), moment)
        pubsub.get_events()
        admin.execute("SELECT pg_notify(%s, '')", [channel])
        pubsub.notify(channel)
        assert len(pubsub.get_events()) == (2 if channel in pubsub.channels else 0), moment
        pubsub.unlisten("*")
        return was_interrupted

    every_moment(lambda moment: scenario(moment, unlisten=False))
    every_moment(lambda moment: scenario(moment, unlisten=True))


def test_while_a_stop_event_is_handled(connect: Callable[..., PubSub], new_channel: Callable[[], str]) -> None:
    """Every notification is handed over once, the stop event too, and then the handler has stopped."""
    pubsub = connect()

    def scenario(moment: int) -> bool:
        calls: list[Any] = []
        handler = pubsub.notification_handler(new_channel(), calls.append, timeout=10)
        handler.listen()
        handler.notify()
        handler.notify(stop=True)
        was_interrupted = interrupted(handler, moment)
        if handler.listening or len(calls) < 2:
            handler()
        assert len(calls) == 2, moment
        assert handler.arg_dict["event"] == handler.stop_event
        assert not handler.listening
        assert pubsub.get_events() == []
        return was_interrupted

    every_moment(scenario)
