"""One LISTEN connection and everybody in this process who receives from it.

`PubSub` and `NotificationHandler` are two faces of this. It does what the session in `core` decides and
waits where that says so. All I/O happens in the caller's thread and for the time of a call, with the one
exception of what a reconnection takes: no driver lets that be cut off when the caller's time is up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

from pgpubsub.background import BackgroundCall
from pgpubsub.classic.delivery import Delivery, Inbox
from pgpubsub.classic.exclusive import Exclusive
from pgpubsub.classic.waiting import Waiter
from pgpubsub.core.frames import MAX_PAYLOAD, Message, pack
from pgpubsub.core.session import Connect, Execute, Report, Session, Stop, Wait
from pgpubsub.drivers import DriverConnection, adapt, identity
from pgpubsub.drivers.interface import LOST, check_usable
from pgpubsub.drivers.limits import within
from pgpubsub.errors import (
    ChannelNameError,
    Closed,
    ConnectionLost,
    ConnectionUnusable,
    PubSubError,
    ServerRefused,
    UnsupportedConnection,
)
from pgpubsub.events import Gap, GapReason, Notify
from pgpubsub.logs import EventLog, Names
from pgpubsub.randomness import new_delays, new_message_id

__all__ = ["Listener"]

logger = EventLog("connection")

LINK = "PubSub"
"""What the log calls the connection, of which there is one."""

T = TypeVar("T")

ROUNDS = 64
"""Reads in one go, so that a sender who never stops cannot keep a call from returning."""

ANSWER = 10.0
"""Seconds that the server may take to listen again, after which the connection is of no use."""


class Listener:
    """See the module. `reopen`, where given, opens the connection that replaces a lost one."""

    _by_connection: ClassVar[WeakValueDictionary[int, Listener]] = WeakValueDictionary()
    _driver: DriverConnection

    def __init__(self, conn: Any, reopen: Callable[[], Any] | None = None, *, max_payload: int = MAX_PAYLOAD) -> None:
        self._losses = 0
        self._reported = 0
        self._use = Exclusive()
        self._waiter = Waiter()
        self._reopen = reopen
        self._session = Session[Inbox](reopen is not None, new_delays)
        self._in_background: tuple[Connect | Execute, BackgroundCall[Any]] | None = None
        self._last_error: Exception | None = None
        session = self._session  # and not ourselves: whoever has no listener any more gets the connection back at once
        self._delivery = Delivery(session.registry.owners, max_payload, lambda: _time_of(session.whole_until))
        self._departed: deque[Inbox] = deque()
        self._late: set[str] = set()  # unlistened channels of which something may still arrive
        self._strays = Inbox()  # what came on channels that nobody asked us for, while nobody was receiving
        self._reader = self._strays
        driver = adapt(conn)
        check_usable(driver)
        self._adopt(driver)

    @classmethod
    def find(cls, conn: Any) -> Listener | None:
        """The listener of a `PubSub`, or the one that a driver's connection has, if any."""
        try:
            shared = conn._listener
        except Exception:  # a closed pg.Connection answers every question with a TypeError
            shared = cls._by_connection.get(identity(conn))
        return shared if isinstance(shared, Listener) else None

    @classmethod
    def of(cls, conn: Any) -> Listener:
        """The listener of what a user brings: the one that it has, or a new one."""
        return cls.find(conn) or cls(conn)

    def __del__(self) -> None:
        if hasattr(self, "_driver") and self._use.free and self._session.up:
            with suppress(Exception):
                self._driver.release()

    # -- for everybody who shares it

    @property
    def driver(self) -> DriverConnection:
        """The connection, or the last one while there is none."""
        return self._driver

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._use.closed

    @property
    def losses(self) -> int:
        """How many times something may have been lost."""
        return self._losses + self._delivery.unjoined

    @property
    def max_payload(self) -> int:
        """Bytes of a payload, at most, for everybody who shares the connection."""
        return self._delivery.max_payload

    @max_payload.setter
    def max_payload(self, limit: int) -> None:
        self._delivery.max_payload = limit

    def check(self) -> None:
        """Raise if it was closed, or belongs to another process."""
        self._use.check()

    def fileno(self) -> int:
        """The socket to wait on, -1 while there is none that brings notifications."""
        self._use.check()
        if self._reopen is None and not self._session.up:
            raise ConnectionLost(self._session.failure) from self._last_error
        if not self._live:
            return -1
        try:
            return self._driver.fileno()
        except ConnectionLost:  # which the next call that waits will notice too
            if self._reopen is None:
                raise
            return -1

    def channels(self, inbox: Inbox) -> frozenset[str]:
        """What `inbox` listens to."""
        return self._session.registry.channels(inbox)

    def listen(self, inbox: Inbox, *channels: str) -> None:
        """Have `channels` delivered to `inbox`: all of them, or an error and none."""
        self._run(partial(self._listen, inbox, channels))

    def unlisten(self, inbox: Inbox, *channels: str) -> None:
        """Have `channels` not delivered to `inbox` any more, not even what has arrived."""
        self._run(partial(self._unlisten, inbox, channels))

    def unlisten_all(self, inbox: Inbox) -> None:
        """The same for all of its channels, and for those that the user listened to by other means."""
        self._run(partial(self._unlisten, inbox, None))

    def notify(self, message: Message) -> None:
        """Send one message, which has been checked, reconnecting first if that is due."""
        self._run(partial(self._notify, message))

    def receive(self, inbox: Inbox, timeout: float | None) -> bool:
        """Wait until `inbox` holds something, at most `timeout` seconds (None: for ever); say whether it does."""
        deadline = None if timeout is None else monotonic() + timeout
        return self._run(partial(self._receive, inbox, deadline), reader=inbox)

    def depart(self, inbox: Inbox) -> None:
        """`inbox` wants nothing any more; the server is told with the next call. For destructors, which run at
        any moment, in any thread."""
        self._departed.append(inbox)

    def see_off(self) -> None:
        """Tell the server now of those that departed, if the connection is idle. For destructors too."""
        if self._use.free and self._live and self._driver.idle:
            with suppress(PubSubError):
                self._run(partial(self._progress, monotonic()))

    def close(self) -> None:
        """Close the connection. A call that waits, in another thread or below a signal handler, ends at once."""
        self._use.close(self._dispose)
        self._waiter.wake()

    # -- what they ask for; each runs as the only user of the connection

    def _run(self, action: Callable[[], T], *, reader: Inbox | None = None) -> T:
        def act() -> T:
            self._reader = reader or self._strays
            while self._departed:
                self._late |= self._session.registry.channels(self._departed[0])
                self._session.registry.discard_all(self._departed[0])
                self._departed.popleft()
            return action()

        return self._use.run(act, dispose=self._dispose)

    def _listen(self, inbox: Inbox, channels: Collection[str]) -> None:
        self._check_no_transaction("LISTEN would be undone if it is rolled back")
        registry = self._session.registry
        new = [channel for channel in channels if inbox not in registry.owners(channel)]
        try:
            for channel in channels:
                registry.add(inbox, channel)
            self._settle()
        except BaseException as error:
            for channel in new:
                if isinstance(error, PubSubError):
                    registry.withdraw(inbox, channel)
                else:  # an interruption: the server may have done it
                    self._late.add(channel)
                    registry.discard(inbox, channel)
            raise

    def _unlisten(self, inbox: Inbox, channels: Collection[str] | None) -> None:
        self._check_no_transaction("UNLISTEN would be undone if it is rolled back")
        registry = self._session.registry
        unwanted = registry.channels(inbox) if channels is None else channels
        self._late.update(unwanted)
        for channel in unwanted:
            registry.discard(inbox, channel)
        if channels is None:
            registry.sweep()
        with suppress(ConnectionLost):  # without a session there is nothing to unlisten, and nothing to wait for
            self._progress(monotonic())
            if self._live:
                self._read()
        inbox.forget(unwanted)

    def _notify(self, message: Message) -> None:
        self._settle()
        lost = self._take_from_socket()
        if lost is not None:  # known before anything was sent, so a new connection may send it
            self._on_lost(lost)
            self._settle()
        try:
            self._driver.notify(pack([message], new_message_id, self._driver.room))
        except ConnectionLost as error:
            self._on_lost(error)
            raise
        self._session.on_heard(monotonic())

    def _receive(self, inbox: Inbox, deadline: float | None) -> bool:
        strays, none = self._strays, deque[Notify | Gap]()
        inbox.queue += strays.queue
        strays.queue = none
        while True:
            retry_at = self._progress(deadline)
            live = self._live
            if live:
                self._read()
            if inbox.queue:
                return True
            if live and not self._live:
                continue  # lost just now: raise, or begin to reconnect, before time is up
            if live:
                self._check_autocommit()
            if deadline is not None and monotonic() >= deadline:
                return False
            if live:
                self._check_no_transaction("the server delivers nothing before its end")
                self._wait(self._driver.fileno(), deadline)
            else:
                self._wait(None, _earlier(retry_at, deadline))

    @property
    def _live(self) -> bool:
        """Whether there is a connection, and no other thread that is still preparing it."""
        return self._session.up and self._in_background is None

    # -- doing what the session decides

    def _settle(self) -> None:
        """Have a session that is in line with what is wanted, or raise."""
        self._progress(None)
        if not self._session.up:
            seconds = max(0.0, self._session.attempt_at - monotonic())
            raise ConnectionLost(
                f"not connected to PostgreSQL, next attempt in {seconds:.1f} s: {self._session.failure}"
            ) from self._last_error

    def _progress(self, deadline: float | None) -> float | None:
        """Take steps until the session only waits, or the deadline has passed. Returns until when it waits."""
        while True:
            if not self._conclude_what_was_begun(deadline):
                return deadline
            step = self._session.next_step(monotonic())
            if isinstance(step, Wait):
                return step.until
            if isinstance(step, Stop):
                raise ConnectionLost(step.why) from self._last_error
            assert isinstance(step, Connect | Execute | Report), "the other steps belong to a heartbeat"
            if isinstance(step, Report):
                self._report(step)
            elif isinstance(step, Connect) or self._session.registry.lost:
                # What a reconnection takes must not hold up the caller, who may come back for it.
                work = self._open if isinstance(step, Connect) else partial(_execute, self._driver, step.script)
                self._in_background = step, BackgroundCall(work, self._waiter.wake)
            elif self._driver.in_transaction:
                return None  # it would be undone by a rollback, so it has to wait
            else:
                self._conclude(step, partial(self._driver.execute, step.script))

    def _conclude_what_was_begun(self, deadline: float | None) -> bool:
        """Wait for what goes on in the background; False when the deadline has come first."""
        if self._in_background is None:
            return True
        step, call = self._in_background
        call.start()
        while not call.done:
            if deadline is not None and monotonic() >= deadline:
                return False
            self._wait(None, deadline)
        try:
            self._conclude(step, call.result)
        except Exception:
            self._in_background = None
            raise
        self._in_background = None  # last: an interrupted conclusion is drawn again
        return True

    def _conclude(self, step: Connect | Execute, outcome: Callable[[], Any]) -> None:
        """Report to the session what became of a step."""
        session = self._session
        try:
            value = outcome()
        except Exception as error:
            self._last_error = error
            if isinstance(step, Connect):
                logger.warning("connect_failed", "reconnection failed: %(error)s", link=LINK, error=error)
                session.on_connect_failed(monotonic(), str(error))
                if isinstance(error, UnsupportedConnection):  # which trying again will not mend
                    raise
            elif isinstance(error, ConnectionLost):
                self._on_lost(error)
            elif not isinstance(error, ServerRefused | ChannelNameError) or session.on_refused(
                step, monotonic(), str(error)
            ):
                raise
            elif not session.up:
                self._on_lost(error)
        else:
            if isinstance(step, Connect):
                self._adopt(value)
            else:
                session.on_executed(step, monotonic())

    def _open(self) -> DriverConnection:
        assert self._reopen is not None
        driver = adapt(self._reopen())
        try:
            check_usable(driver)
        except PubSubError:
            driver.close()
            raise
        return driver

    def _adopt(self, driver: DriverConnection) -> None:
        driver.attach()
        self._driver = driver
        self._delivery.restart()
        self._by_connection[identity(driver.raw)] = self
        self._session.on_connected(monotonic())

    def _on_lost(self, error: Exception) -> None:
        self._delivery.deliver(self._driver, self._reader, late=self._late, covered=self._session.registry.lost)
        self._session.on_joined(monotonic(), self._delivery.unfinished)
        self._last_error = error
        self._session.on_lost(self._session.number, monotonic(), str(error))
        self._by_connection.pop(identity(self._driver.raw), None)
        if self._reopen is not None:
            _close(self._driver)
        logger.warning("connection_lost", "connection lost: %(error)s", link=LINK, error=error)

    def _report(self, step: Report) -> None:
        since = _time_of(step.since)
        affected: dict[Inbox, list[str]] = {}
        for channel in step.channels:
            for inbox in self._session.registry.losers(channel):
                affected.setdefault(inbox, []).append(channel)
        for inbox, channels in affected.items():
            inbox.report(step.session, Gap(GapReason.CONNECTION_LOST, tuple(channels), since, None, step.why))
        if self._reported != step.session:  # else it was interrupted, and is repeated
            self._reported = step.session
            self._losses += 1
        self._session.on_reported(step)
        logger.info(
            "listening_again",
            "listening again, channels: %(channels)s",
            reason=str(GapReason.CONNECTION_LOST),
            channels=Names(step.channels),
            detail=step.why,
        )

    # -- reading and waiting

    def _read(self) -> None:
        """Take what has arrived and deliver it."""
        in_line = not self._session.registry.changes()
        lost = self._take_from_socket()
        if lost is not None:
            self._on_lost(lost)
            return
        self._delivery.deliver(self._driver, self._reader, late=self._late)
        self._session.on_joined(monotonic(), self._delivery.unfinished)
        if in_line and self._late:  # all of them had been unlistened, and now their last has been read
            self._late.clear()

    def _take_from_socket(self) -> ConnectionLost | None:
        """Take what has arrived; return the error if the connection turned out to be broken."""
        try:
            for _ in range(ROUNDS):
                self._driver.read()
                # One read may return before the end of what is there, which may be the end of the connection.
                if not self._waiter.wait(self._driver.fileno(), 0):
                    break
        except ConnectionLost as error:
            return error
        self._session.on_heard(monotonic())
        return None

    def _wait(self, fd: int | None, deadline: float | None) -> None:
        if not self._use.closed:
            self._waiter.wait(fd, None if deadline is None else max(0.0, deadline - monotonic()))
        if self._use.closed:
            raise Closed("this connection was closed while it was waited on")

    def _check_autocommit(self) -> None:
        if not self._driver.autocommit:
            raise ConnectionUnusable(
                "the connection is not in autocommit mode any more, so nothing arrives: set it to autocommit again"
            )

    def _check_no_transaction(self, consequence: str) -> None:
        if not self._live:
            return
        self._check_autocommit()
        if self._driver.in_pipeline:
            raise ConnectionUnusable(
                f"the connection is in pipeline mode and {consequence}: leave its pipeline() block first"
            )
        if self._driver.in_transaction:
            raise ConnectionUnusable(
                f"the connection is inside an open transaction and {consequence}: commit or roll back first"
            )

    def _dispose(self) -> None:
        if self._in_background is None:
            _close(self._driver)
        else:  # its thread uses the connection, and will close it
            driver, (_, call) = self._driver, self._in_background
            call.abandon(lambda opened: _close(opened or driver))


def _execute(driver: DriverConnection, script: str) -> None:
    """For a thread that nobody interrupts, with a limit."""
    try:
        with within(ANSWER, driver.fileno):
            driver.execute(script)
    except OSError as error:  # which are the limit's
        raise ConnectionLost(f"{LOST}: {error}") from error


def _close(driver: DriverConnection) -> None:
    with suppress(Exception):
        driver.close()


def _time_of(moment: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=monotonic() - moment)


def _earlier(one: float | None, other: float | None) -> float | None:
    return min((t for t in (one, other) if t is not None), default=None)
