"""What has been taken from the database for the channels of this process, and who waits for it.

The exchange's thread fills the inboxes; tasks of any event loop, in any thread, empty them. A future only says that
there is something: a task that is cancelled has therefore taken nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple

__all__ = ["Inboxes", "Message", "Waiter", "address_of"]


def address_of(channel: str) -> str:
    """Where a channel's messages wait: under its name, or, for one of a process, what is before and including "!"."""
    return channel[: channel.index("!") + 1] if "!" in channel else channel


class Message(NamedTuple):
    """One that was taken."""

    id: int
    channel: str
    payload: bytes
    expires: float
    """By `time.monotonic`."""


class Waiter:
    """A task that waits for a message. It has a place in the inbox until it takes one, or leaves."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.woken = False


class _Inbox:
    def __init__(self) -> None:
        self.messages: deque[Message] = deque()
        self.waiters: list[Waiter] = []
        self.asked = False

    def __bool__(self) -> bool:
        return bool(self.messages or self.waiters)

    def drop_expired(self, now: float) -> int:
        before = len(self.messages)
        while self.messages and self.messages[0].expires <= now:
            self.messages.popleft()
        return before - len(self.messages)

    def next_woken(self) -> list[Waiter]:
        """Those who are to be woken now: as many have to be awake as there are messages."""
        awake = sum(waiter.woken for waiter in self.waiters)
        woken = [waiter for waiter in self.waiters if not waiter.woken][: max(0, len(self.messages) - awake)]
        for waiter in woken:
            waiter.woken = True
        return woken


class Inboxes:
    """See the module.

    Args:
        capacity_of: how many messages a channel's inbox holds at most.
    """

    def __init__(self, capacity_of: Callable[[str], int]) -> None:
        self._capacity_of = capacity_of
        self._lock = threading.Lock()
        self._inboxes: dict[str, _Inbox] = {}
        self._closed: Exception | None = None

    def take(self, channel: str, waiter: Waiter | None = None) -> Message | Waiter:
        """The oldest message of a channel, or else a place among those that wait for one. The name of all channels of a
        process, which ends with "!", has those that nobody asks for by their own.

        Args:
            waiter: the place that one had before.

        Raises:
            Exception: why nothing will come any more.
        """
        with self._lock:
            inbox = self._asked(channel)
            if waiter in inbox.waiters:
                inbox.waiters.remove(waiter)
            inbox.drop_expired(monotonic())
            if inbox.messages:
                return inbox.messages.popleft()
            if self._closed is not None:
                raise self._closed
            inbox.waiters.append(Waiter(channel))
            return inbox.waiters[-1]

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""
        with self._lock:
            inbox = self._inboxes.setdefault(waiter.channel, _Inbox())
            if waiter in inbox.waiters:
                inbox.waiters.remove(waiter)
            woken = inbox.next_woken()
        self._wake(woken)

    def put(self, messages: Iterable[Message]) -> list[str]:
        """Deliver. Returns the channels of those for which there was no room."""
        full = []
        filled = {}
        with self._lock:
            now = monotonic()
            for message in messages:
                inbox = self._find(message.channel)
                inbox.drop_expired(now)
                if len(inbox.messages) >= max(self._capacity_of(message.channel), len(inbox.waiters)):
                    full.append(message.channel)
                else:
                    inbox.messages.append(message)
                    filled[id(inbox)] = inbox
            woken = [waiter for inbox in filled.values() for waiter in inbox.next_woken()]
        self._wake(woken)
        return full

    def _asked(self, channel: str) -> _Inbox:
        """The inbox of a channel that somebody receives on. If that is all of a process's, it gets what has come for
        those that nobody has asked for."""
        inbox = self._inboxes.setdefault(channel, _Inbox())
        if not inbox.asked:
            inbox.asked = True
            if channel.endswith("!"):
                others = [name for name, its in self._inboxes.items() if address_of(name) == channel and not its.asked]
                inbox.messages.extend(
                    sorted(message for name in others for message in self._inboxes.pop(name).messages)
                )
        return inbox

    def _find(self, channel: str) -> _Inbox:
        for name in (channel, address_of(channel)):  # the latter has those of a process that nobody asks for by name
            if name in self._inboxes:
                return self._inboxes[name]
        return self._inboxes.setdefault(channel, _Inbox())

    def room(self, channel: str) -> int:
        """How many wait for a message of a channel, and have none."""
        with self._lock:
            inbox = self._inboxes.get(channel)
            return 0 if inbox is None else max(0, len(inbox.waiters) - len(inbox.messages))

    def take_unwanted(self, channel: str, wanted: int | None = None) -> list[Message]:
        """The messages of a channel for which nobody waits, or all but so many as are `wanted`."""
        with self._lock:
            inbox = self._inboxes.get(channel)
            if inbox is None:
                return []
            wanted = len(inbox.waiters) if wanted is None else wanted
            return [inbox.messages.pop() for _ in range(len(inbox.messages) - wanted)]

    def drop(self, id: int) -> None:
        """Drop the messages up to this one."""
        with self._lock:
            for inbox in self._inboxes.values():
                inbox.messages = deque(message for message in inbox.messages if message.id > id)

    def is_used(self, channel: str) -> bool:
        """Whether somebody waits for its messages, or there are any."""
        with self._lock:
            return channel in self._inboxes and bool(self._inboxes[channel])

    def sweep(self) -> dict[str, int]:
        """Drop what has expired, and return how many messages that were, by channel."""
        expired = {}
        with self._lock:
            now = monotonic()
            for channel, inbox in list(self._inboxes.items()):
                if number := inbox.drop_expired(now):
                    expired[channel] = number
                if not inbox:
                    del self._inboxes[channel]
            return expired

    def close(self, why: Exception) -> None:
        """Tell all who wait, and who will."""
        self._closed = why
        self.fail(why)

    def fail(self, why: Exception) -> None:
        """Tell all who wait."""
        with self._lock:
            failed = [waiter for inbox in self._inboxes.values() for waiter in inbox.waiters]
            for inbox in self._inboxes.values():
                inbox.waiters.clear()
        self._wake(failed, why)

    def _wake(self, waiters: Iterable[Waiter], why: Exception | None = None) -> None:
        """Each event loop is woken once for all its tasks."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
        for waiter in waiters:
            by_loop.setdefault(waiter.loop, []).append(waiter)
        for loop, its in by_loop.items():
            try:
                loop.call_soon_threadsafe(_set_ready, its, why)
            except RuntimeError:  # it has ended, and its tasks with it
                for waiter in its:
                    self.leave(waiter)


def _set_ready(waiters: Iterable[Waiter], why: Exception | None) -> None:
    for waiter in waiters:
        if waiter.ready.done():
            continue
        if why is None:
            waiter.ready.set_result(None)
        else:
            waiter.ready.set_exception(why)
