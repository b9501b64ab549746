"""What a hub is, apart from what its users see of it: its two connections, its subscriptions, its beginning and end.

`AsyncHub` and `Hub` are two faces of this. It lives in one event loop; nothing here may be called from another
thread, but `forsake`.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any, Protocol

from pgpubsub.core.frames import MAX_PAYLOAD, Message
from pgpubsub.core.grouping import Call
from pgpubsub.core.heartbeat import Heartbeat
from pgpubsub.core.session import Session
from pgpubsub.core.sql import check_max_payload
from pgpubsub.core.timeouts import check_seconds, check_timeout
from pgpubsub.errors import Closed, ConcurrentUse, NotLive, PubSubError, SubscriptionClosed, again
from pgpubsub.hubs import forking
from pgpubsub.hubs.link import Dial, Link
from pgpubsub.hubs.mailbox import Mailbox, now
from pgpubsub.hubs.outgoing import traced
from pgpubsub.hubs.receiver import Receiver
from pgpubsub.hubs.sender import Sender
from pgpubsub.logs import EventLog
from pgpubsub.randomness import new_delays
from pgpubsub.status import Happening, HubState, HubStats, HubStatus, Observation
from pgpubsub.tracing import Tracing, check_tracing

__all__ = ["HEARTBEAT_CHANNEL", "OTHER_LOOP", "Engine", "Part"]

logger = EventLog("hub")

HEARTBEAT_CHANNEL = "pgpubsub.heartbeat"
"""One for all hubs: every notification wakes every listener of the database, so one heartbeat serves them all."""

OTHER_LOOP = "this hub belongs to the event loop in which it was first used: make one for this loop"

ENDED_LOOP = "this hub belongs to an event loop that has ended: make one for each, in the same asyncio.run()"


class Part(Protocol):
    """Something that a hub has beside notifications, and that lives and ends with it."""

    @property
    def appended(self) -> int:
        """Entries that it has appended."""

    async def drain(self) -> None:
        """Wait until all that is to be sent has been sent."""

    async def close(self) -> None:
        """Let go of what it has."""

    def end(self, error: PubSubError, for_receivers: Exception) -> None:
        """It is over: tell all who wait, with `error`, or `for_receivers` those who receive."""

    def disown(self, error: ConcurrentUse) -> None:
        """See `forking`."""


class Engine:
    """See the module. `listening` and `sending` open its connections; the other arguments are `AsyncHub`'s."""

    def __init__(
        self,
        listening: Dial,
        sending: Dial,
        *,
        heartbeat: float | None = 10.0,
        heartbeat_timeout: float = 5.0,
        send_timeout: float = 30.0,
        give_up_after: float | None = None,
        wait_for_primary: bool = False,
        max_payload: int = MAX_PAYLOAD,
        observe: Callable[[Observation], None] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        times = {"heartbeat_timeout": heartbeat_timeout, "send_timeout": send_timeout}
        optional = {"heartbeat": heartbeat, "give_up_after": give_up_after}
        times |= {name: seconds for name, seconds in optional.items() if seconds is not None}
        for name, seconds in times.items():
            check_seconds(name, seconds)
        check_max_payload(max_payload)
        if observe is not None and not callable(observe):
            raise TypeError(f"observe is a function that takes an Observation, not {type(observe).__name__}")
        check_tracing(tracing)
        self.send_timeout = send_timeout
        self._waits_for_primary = wait_for_primary
        self.max_payload = max_payload
        self.tracing = tracing
        self._observer = observe
        beats = Heartbeat(HEARTBEAT_CHANNEL, heartbeat, heartbeat_timeout, random.random)
        session = Session[Mailbox](True, new_delays, heartbeat=beats, give_up_after=give_up_after)
        self._sending = Link(
            "sending",
            Session[None](True, new_delays),
            sending,
            refuses_standby=not wait_for_primary,
            on_change=partial(self._on_change, "sending"),
        )
        self._sender = Sender(self._sending, send_timeout, None if observe is None else self._on_told)
        self._receiver = Receiver(
            uuid.uuid4().hex,
            session,
            listening,
            self._sender,
            max_payload,
            refuses_standby=not wait_for_primary,
            on_change=partial(self._on_change, "listening"),
            observe=self.observe,
        )
        self._listening = self._receiver.link
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._parts: list[Part] = []
        self._mailboxes: dict[Mailbox, None] = {}
        self._past = [0, 0, 0]  # delivered, dropped and gaps of subscriptions that have ended
        self._times_live = 0
        self._status = HubStatus.IDLE
        self._since = now()
        self._down_since = 0.0
        self._failure: PubSubError | None = None  # why it cannot be used any more
        self._closed = False
        self._closing: asyncio.Future[None] | None = None
        self._watchers: list[asyncio.Future[None]] = []

    # -- life

    async def enter(self) -> None:
        """Connect, or raise what stands in the way: at once, unless a primary is to be waited for."""
        self.start()
        try:
            if self._waits_for_primary:
                return await self.wait_until_live(self.send_timeout)
            await self._until(lambda: self._obstacle is not None or (self.state.live and self._sending.session.up))
            if self._obstacle is not None:
                raise self._obstacle
        except BaseException:
            await self.close(0)
            raise

    async def wait_until_live(self, timeout: float | None) -> None:
        """Connect, however many attempts that takes."""
        timeout = check_timeout(timeout)
        self.start()
        try:
            async with asyncio.timeout(timeout):
                await self._until(lambda: self.state.live)
        except TimeoutError:
            error = self._obstacle
            raise NotLive(f"the hub is not live after {timeout:g} s: {error or 'still connecting'}") from error

    async def close(self, timeout: float) -> None:
        """Send what is to be sent, at most for `timeout` seconds, and end everything."""
        check_timeout(timeout)
        if self.disowned:
            return
        if self._loop not in (None, asyncio.get_running_loop()):
            raise ConcurrentUse(OTHER_LOOP)
        if self._closing is None:
            self._closed = True
            self._closing = asyncio.ensure_future(self._close(timeout))
        await asyncio.shield(self._closing)

    def close_unused(self) -> None:
        """Close what was never used, without an event loop."""
        self._closed = True
        self._become(HubStatus.CLOSED)

    def check(self) -> None:
        """Raise if it cannot be used any more."""
        if self._failure is not None:
            raise again(self._failure)
        if self._closed:
            raise Closed("the hub was closed")

    @property
    def state(self) -> HubState:
        """See `AsyncHub.state`."""
        error = None if self._status is HubStatus.LIVE else self._failure or self._listening.error
        return HubState(self._status, self._since, error, None if self._sending.session.up else self._sending.error)

    def complete_until(self) -> datetime:
        """What had arrived by then was handed out before that which is being handed out."""
        return self._receiver.complete_until

    @property
    def sending_pid(self) -> int | None:
        """The server process that our notifications come from; None where that may change each time."""
        connection = self._sending.connection
        return None if connection is None or connection.pooled else connection.server_pid

    @property
    def disowned(self) -> bool:
        """Whether this is a forked child's copy of what is its parent's."""
        return isinstance(self._failure, ConcurrentUse)

    @property
    def mailboxes(self) -> tuple[Mailbox, ...]:
        """Those of the open subscriptions."""
        return tuple(self._mailboxes)

    def stats(self) -> HubStats:
        """See `AsyncHub.stats`."""
        subscriptions = tuple(mailbox.stats() for mailbox in self.mailboxes)
        delivered, dropped, gaps = self._past
        return HubStats(
            delivered=delivered + sum(one.delivered for one in subscriptions),
            dropped=dropped + sum(one.dropped for one in subscriptions),
            gaps=gaps + sum(one.gaps for one in subscriptions),
            received=self._receiver.received,
            appended=sum(part.appended for part in self._parts),
            sent=self._sender.sent,
            reconnects=max(0, self._times_live - 1),
            heartbeat_seconds=self._receiver.heartbeat_seconds,
            subscriptions=subscriptions,
        )

    # -- what it is for

    def send(self, messages: Sequence[Message], *, many: bool = False) -> Awaitable[None]:
        """Send notifications that have been checked, in one transaction. See `AsyncHub.notify`, and for `many`
        `notify_many`."""
        if self.tracing is not None:
            return self._send_traced(self.tracing, messages, many)
        self.start()
        return self._sender.send(messages)

    async def _send_traced(self, tracing: Tracing, messages: Sequence[Message], many: bool) -> None:
        with traced(tracing, messages, self.max_payload, many=many) as carrying:
            self.start()
            await self._sender.send(carrying)

    def submit(self, call: Call[Message]) -> None:
        """The same for somebody who does not wait in the loop, and is told."""
        try:
            self.start()
        except PubSubError as error:
            call.tell(error)
        else:
            self._sender.submit(call)

    def withdraw(self, call: Call[Message]) -> None:
        """Nobody waits for `call` any more."""
        self._sender.withdraw(call)

    async def open(self, mailbox: Mailbox, channels: Iterable[str]) -> None:
        """Begin a subscription: `mailbox` gets what comes on `channels`."""
        self.start()
        mailbox.open()
        self._mailboxes[mailbox] = None
        try:
            await self.add(mailbox, channels)
        except BaseException:
            self.leave(mailbox, SubscriptionClosed("the subscription could not be entered"))
            raise

    async def add(self, mailbox: Mailbox, channels: Iterable[str]) -> None:
        """`mailbox` gets what comes on `channels` too."""
        self.start()
        if mailbox.closed is not None:
            raise again(mailbox.closed)
        await self._receiver.admit(mailbox, channels, self.send_timeout)

    async def remove(self, mailbox: Mailbox, channel: str) -> None:
        """`mailbox` gets nothing of `channel` any more, not even what is in it."""
        self.start()
        self._receiver.dismiss(mailbox, (channel,))
        mailbox.forget(channel)
        await asyncio.sleep(0)

    def leave(self, mailbox: Mailbox, why: Exception) -> None:
        """End a subscription, and drop what is in `mailbox`."""
        mailbox.end(why)
        mailbox.discard()
        if mailbox in self._mailboxes:
            del self._mailboxes[mailbox]
            buffer = mailbox.buffer
            for index, count in enumerate((buffer.delivered, buffer.dropped, buffer.gaps)):
                self._past[index] += count
            self._receiver.dismiss(mailbox, mailbox.channels)

    def forsake(self, mailbox: Mailbox) -> None:
        """Nobody has the subscription any more. For destructors, which run in any thread."""
        if mailbox in self._mailboxes and self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, and so is everything
                self._loop.call_soon_threadsafe(self.leave, mailbox, SubscriptionClosed("nobody has it any more"))

    def disown(self, error: ConcurrentUse) -> None:
        """See `forking`."""
        self._failure = error
        self._status = HubStatus.FAILED
        for part in self._parts:
            part.disown(error)
        for mailbox in self._mailboxes:
            mailbox.disown(error)
        for link in (self._listening, self._sending):
            if link.connection is not None:
                link.connection.disown()

    # -- inside

    def start(self) -> None:
        """Begin to connect, unless that has happened. Raise if it cannot be used, or not here."""
        if self._loop is not None and self._loop.is_closed() and not (self._closed or self.disowned):
            raise ConcurrentUse(ENDED_LOOP)
        self.check()
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            forking.on_fork(self)
            self._become(HubStatus.CONNECTING)
            self._down_since = monotonic()
            for link in (self._listening, self._sending):
                self.spawn(link.run())
        elif self._loop is not loop:
            raise ConcurrentUse(OTHER_LOOP)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work` as long as the hub lives. If it fails or is cancelled, so is the hub."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def attach(self, part: Part) -> None:
        """From now on, `part` lives and ends with this."""
        self._parts.append(part)

    async def _close(self, timeout: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for part in self._parts:
                    await part.drain()
                await self._sender.drain()  # last: of what the others did, it tells those who wait for that
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._end(HubStatus.CLOSED, Closed("the hub was closed"), SubscriptionClosed("the hub was closed"))
        for part in self._parts:
            await part.close()

    def fail(self, error: PubSubError) -> None:
        """It cannot be used any more."""
        self._failure = error
        for task in self._tasks:
            task.cancel()
        self._end(HubStatus.FAILED, error, error)

    def _end(self, status: HubStatus, error: PubSubError, for_subscribers: Exception) -> None:
        self._receiver.stop()
        self._receiver.fail(error)
        self._sender.fail(error)
        for part in self._parts:
            part.end(error, for_subscribers)
        for mailbox in self._mailboxes:
            mailbox.end(for_subscribers)
        self._become(status)

    def _on_change(self, link: str, what: str, detail: str) -> None:
        self.observe_link(link, what, detail)
        if what == "stopped":
            error = self._listening.error if link == "listening" else self._sending.error
            self.fail(error or PubSubError(detail))
        elif link == "sending":
            self._sender.pump()
            self._become(self._status)
        elif what == "live":
            self._times_live += 1
            self.observe(Observation("live", seconds=monotonic() - self._down_since))
            self._become(HubStatus.LIVE)
        else:
            if self._status is HubStatus.LIVE:
                self._down_since = monotonic()
            self._become(HubStatus.CONNECTING)

    def _on_told(self, call: Call[Message], error: PubSubError | None) -> None:
        self.observe_call("send_failed" if error else "sent", {channel for channel, _ in call.items}, call, error)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._closed and self._failure is None:
                self.fail(Closed("the hub's task was cancelled, so it was closed"))
        elif (error := task.exception()) is not None and self._failure is None:
            failure = PubSubError(f"the hub failed, by a fault of its own: {error!r}")
            failure.__cause__ = error
            self._fail_by(failure)

    def on_loop_broken(self, failure: PubSubError) -> None:
        """Its loop was ended in the midst of its work: nobody would be told anything any more."""
        if self._status not in (HubStatus.CLOSED, HubStatus.FAILED):
            self._observer = None  # which may be what ended it, and would do so again before all who wait are told
            self._fail_by(failure)

    def _fail_by(self, failure: PubSubError) -> None:
        self.fail(failure)  # first: a handler of logging may end the loop
        logger.error("hub_failed", "the hub failed", exc_info=failure.__cause__)

    @property
    def _obstacle(self) -> PubSubError | None:
        return self._failure or self._listening.error or self._sending.error

    def _become(self, status: HubStatus) -> None:
        if status is not self._status:
            self._status = status
            self._since = now()
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        await asyncio.sleep(0)
        while not condition():
            self.start()  # raises once it is over
            watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._watchers.append(watcher)
            await watcher

    @property
    def observed(self) -> bool:
        """Whether anybody wants to know what happens."""
        return self._observer is not None

    def observe_link(self, link: str, what: str, detail: str) -> None:
        """A link has changed: the observer is to know of losses, and of attempts that failed."""
        if what == "lost":
            self.observe(Observation("lost", detail=f"{link}: {detail}", link=link))
        elif what == "connect_failed":
            self.observe(Observation("connect_failed", detail=f"{link}: {detail}", link=link))

    def observe_call(
        self, name: Happening, channels: Iterable[str], call: Call[Any], error: PubSubError | None
    ) -> None:
        """Somebody was told what became of `call`."""
        seconds = monotonic() - (call.expires_at - self.send_timeout)
        self.observe(Observation(name, tuple(sorted(channels)), seconds, str(error or ""), count=len(call.items)))

    def observe(self, observation: Observation) -> None:
        """Something has happened that the observer is to know."""
        if self._observer is not None:
            try:
                self._observer(observation)
            except (Exception, SystemExit):  # which would end the loop, and nobody who waits would know
                logger.exception("observer_failed", "the hub's observer failed")
