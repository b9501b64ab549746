"""What a receiver gets, for a command: waiting that a signal ends, and how many of what were to come."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any

from pgpubsub.cli.statuses import TIMED_OUT, Ended
from pgpubsub.cli.terminal import Terminal
from pgpubsub.errors import SubscriptionClosed
from pgpubsub.threads.receiving import Receiver

__all__ = ["arrivals", "check_count"]


def arrivals(terminal: Terminal, receiver: Receiver[Any], timeout: float | None) -> Iterator[Any]:
    """What it gets, until `timeout` seconds have passed or it ends. What is in hand is not interrupted."""
    ends_at = None if timeout is None else monotonic() + timeout
    while ends_at is None or monotonic() < ends_at:
        try:
            event = receiver.get_nowait()
            if event is None:
                terminal.flush()
                with terminal.interruption.breaking():
                    event = receiver.get(None if ends_at is None else max(0.0, ends_at - monotonic()))
        except (TimeoutError, SubscriptionClosed):
            return
        yield event
        terminal.interruption.check()


def check_count(terminal: Terminal, come: int, count: int | None, timeout: float | None) -> None:
    """End with a status of its own if fewer have come in time than were waited for."""
    if count is not None and timeout is not None and come < count:
        terminal.say(f"{come} of {count} came within {timeout:g} s")
        raise Ended(TIMED_OUT)
