"""The classic API of pgpubsub: one connection, driven by its caller.

Nothing happens behind the caller's back: notifications are read when a method is called, and a lost
connection is replaced by a call that waits. The price is that somebody must call; a program that stops
reading holds up the server's notification queue for everybody (PostgreSQL manual, NOTIFY, "Notes").
It promises no safety between threads: give each its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from pgpubsub.channel import Channel, checked_message, name_of
from pgpubsub.classic.delivery import Inbox, warn_of
from pgpubsub.classic.handler import Callback, NotificationHandler
from pgpubsub.classic.listener import Listener
from pgpubsub.core.frames import MAX_PAYLOAD
from pgpubsub.core.headers import Headers
from pgpubsub.core.sql import check_max_payload
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.drivers.psycopg3 import open_connection, parse_conninfo
from pgpubsub.errors import Closed
from pgpubsub.events import Gap, Notify

__all__ = ["PubSub", "connect"]

T = TypeVar("T")


def connect(dsn: str | None = None, *, reconnect: bool = True, max_payload: int = MAX_PAYLOAD, **kwargs: Any) -> PubSub:
    """Connect to PostgreSQL and return a `PubSub`.

    It takes what `psycopg2.connect()` takes: a DSN (`"dbname=app user=me"` or `"postgresql://..."`) and any
    of libpq's keywords, which override the DSN; `database` is another name for `dbname`. Where both are
    silent, libpq's environment variables and defaults apply (PostgreSQL manual, "Environment Variables").
    `connect_timeout` is 10 seconds for each address unless something says otherwise.

    Args:
        dsn: connection string or URI.
        reconnect: replace a lost connection. False: a loss is final and every call raises `ConnectionLost`.
        max_payload: longest payload that is sent, or put together when it arrives, in bytes.

    Raises:
        ConnectionFailed: wrong password, unknown database, nobody there. At once, without another attempt.
        ConninfoError: the DSN or a keyword is malformed or unknown.
        ServerInRecovery: the server is a standby.
        TypeError: `connection_factory`, `cursor_factory` or `async` were given.

    >>> import pgpubsub
    >>> pubsub = pgpubsub.connect(dsn)
    >>> pubsub.listen("test")
    >>> pubsub.notify("test", "message 1")
    >>> pubsub.get_event().payload
    'message 1'
    >>> pubsub.close()
    """
    for name, instead in _REFUSED.items():
        if kwargs.pop(name, None):
            raise TypeError(f"connect() takes no {name!r}: {instead}")
    open_another = partial(open_connection, parse_conninfo(dsn, kwargs))
    conn = open_another()
    try:
        return PubSub(conn, reopen=open_another if reconnect else None, max_payload=max_payload)
    except BaseException:
        conn.close()
        raise


_ASYNC = "PubSub waits when it is called; in an event loop, watch its fileno() and call get_events()"
_REFUSED = {
    "connection_factory": "open the connection yourself and pass it to PubSub(connection)",
    "cursor_factory": "make cursors from PubSub.conn with the factory you like",
    "async": _ASYNC,
    "async_": _ASYNC,
}


class PubSub:
    """Publish and subscribe over one connection.

    Args:
        conn: a connection in autocommit mode, of psycopg 3, psycopg2 or PyGreSQL (`pg.DB` or what
            `pg.connect()` returns). It stays yours, but do not read its notifications elsewhere.
        reopen: called without arguments for a new connection when this one is lost, in another thread.
            Without it, as with any connection that you bring, a loss is final.
        max_payload: longest payload that is sent, or put together when it arrives, in bytes; 16 MiB by default. It
            counts for everybody who shares the connection; None leaves it as it is.

    Raises:
        UnsupportedConnection: `conn` is something else; a `TypeError`.
        ConnectionUnusable: `conn` is not in autocommit mode, or inside a transaction.
        ServerInRecovery: the server is a standby.

    >>> import psycopg, pgpubsub
    >>> with pgpubsub.PubSub(psycopg.connect(dsn, autocommit=True)) as pubsub:
    ...     pubsub.listen("any name: até 63 bytes")
    ...     pubsub.notify("any name: até 63 bytes", "hello")
    ...     pid, channel, payload = pubsub.get_event()
    >>> payload
    'hello'
    """

    def __init__(self, conn: Any, *, reopen: Callable[[], Any] | None = None, max_payload: int | None = None) -> None:
        if max_payload is not None:
            check_max_payload(max_payload)
        self._inbox = Inbox()
        self._listener = Listener.of(conn) if reopen is None else Listener(conn, reopen)
        if max_payload is not None:
            self._listener.max_payload = max_payload

    def __del__(self) -> None:
        if hasattr(self, "_listener"):
            self._listener.depart(self._inbox)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._listener.closed else f"channels {sorted(self.channels)}"
        return f"<PubSub backend {self.backend_pid}, {state}>"

    # -- the connection

    @property
    def conn(self) -> Any:
        """The driver's connection: the one you brought, or a `psycopg.Connection` that also has
        psycopg2's `get_backend_pid()`. A reconnection replaces it, so do not keep it. Notifications come out
        of the `PubSub` and not of its `notifies()` and notify handlers; only a connection that you brought goes
        on calling the handlers that you registered."""
        return self._listener.driver.raw

    @property
    def backend_pid(self) -> int:
        """Process id of our server backend, which is `Notify.pid` of what we send ourselves. A
        reconnection changes it, so ask each time instead of keeping it."""
        return self._listener.driver.backend_pid

    @property
    def gaps(self) -> int:
        """How many times notifications may have been lost, whether or not somebody asked to see the `Gap`."""
        return self._listener.losses

    def fileno(self) -> int:
        """The socket's file descriptor, for `select` and event loops; -1 while a lost connection is replaced.

        A reconnection replaces the socket, perhaps by one of the same number: register it anew whenever
        `conn` is another object. What has been read already does not make it readable again: call
        `get_events()` also after each statement of your own and after registering, and every now and then
        while it is -1. The file `examples/event_loop.py` does all of this.

        Raises:
            ConnectionLost: the connection is gone for good.
        """
        return self._listener.fileno()

    def close(self) -> None:
        """Close the connection, also one that you brought, for everybody who shares it. Calling it again
        does nothing. A call that waits in another thread ends; an iteration of `events()` ends quietly."""
        self._listener.close()

    # -- channels

    @property
    def channels(self) -> frozenset[str]:
        """The channels listened to."""
        return self._listener.channels(self._inbox)

    def listen(self, channel: str | Channel[Any]) -> None:
        """Receive what is sent to `channel` from now on: when this returns, the server has committed it.

        Any text of up to 63 bytes is a name, and no other name is the same, not even in other case. What comes on a
        `Channel` is decoded; what does not fit its type comes as an `Undecodable` in place of a `Notify`. Of a name
        and a `Channel` of that name, the last one listened to counts.

        Raises:
            ChannelNameError: empty, longer, or containing NUL. Nothing has been sent.
            ServerRefused: the server refused. The channel is not listened to.
            ConnectionLost: there is no connection, and reconnecting failed or is not due yet.
        """
        with self._inbox.types.learning(channel):
            self._listener.listen(self._inbox, name_of(channel))

    def unlisten(self, channel: str | Channel[Any]) -> None:
        """Receive nothing more from `channel`, not even what has arrived but was not taken. `"*"` is all.

        A channel that is not listened to is fine; so is a lost connection, on which nothing is.

        Raises:
            ChannelNameError: as in `listen`.
        """
        name = name_of(channel)
        if name == "*":
            self._listener.unlisten_all(self._inbox)
        else:
            self._listener.unlisten(self._inbox, name)

    @overload
    def notify(self, channel: Channel[T], payload: T, *, headers: Headers | None = None) -> None: ...
    @overload
    def notify(self, channel: str, payload: str = "", *, headers: Headers | None = None) -> None: ...
    def notify(self, channel: str | Channel[Any], payload: Any = "", *, headers: Headers | None = None) -> None:
        """Send a notification. When this returns, the server has committed it; inside a transaction that you
        opened on a connection that you brought, it goes out when that commits.

        Equal notifications (channel and payload) of one transaction are delivered once.

        Args:
            channel: as in `listen`.
            payload: at most `max_payload` bytes. One of more than 7,999 travels in parts, which whoever listens with
                pgpubsub gets as one.
            headers: beside the payload: names and JSON values, of up to 16 KiB. They make a frame of the notification:
                who listens with pgpubsub finds them in `Notify.headers`, others see the frame's text.

        Raises:
            ChannelNameError, PayloadError: too long, or containing NUL. Nothing has been sent.
            SendUncertain: the connection broke meanwhile; it may have been sent, and is not repeated.
            ConnectionLost: there is no connection, and reconnecting failed or is not due. It was not sent.
            ServerRefused: the server refused, for example since its notification queue is full.
        """
        self._listener.notify(checked_message(channel, payload, self._listener.max_payload, headers))

    # -- receiving

    @overload
    def get_event(self, select_timeout: float | None = 0, yield_gaps: Literal[False] = False) -> Notify[Any] | None: ...
    @overload
    def get_event(self, select_timeout: float | None = 0, *, yield_gaps: bool) -> Notify[Any] | Gap | None: ...
    def get_event(self, select_timeout: float | None = 0, yield_gaps: bool = False) -> Any:
        """Return the next event, or None when none comes within `select_timeout` seconds (None: wait for ever).

        With the default, 0, it never waits; a reconnection that is due goes on from call to call. Its payload is the
        text that was sent, and on a `Channel` what that carries; there the event can be an `Undecodable` too.

        Raises:
            ConnectionLost: the connection is gone and is not replaced.
            ConnectionUnusable: it would wait inside an open transaction, where nothing arrives.
            Closed: it was closed.
        """
        timeout = check_timeout(select_timeout)
        deadline = None if timeout is None else monotonic() + timeout
        inbox = self._inbox
        self._listener.check()
        while inbox.queue or self._listener.receive(inbox, timeout):
            event = inbox.queue[0]
            if yield_gaps or type(event) is not Gap:
                decoded = inbox.types.decoded(event) if inbox.types else event
                del inbox.queue[0]
                return decoded
            warn_of(event)
            del inbox.queue[0]
            timeout = None if deadline is None else max(0.0, deadline - monotonic())
        return None

    @overload
    def get_events(self, select_timeout: float | None = 0, yield_gaps: Literal[False] = False) -> list[Notify[Any]]: ...
    @overload
    def get_events(self, select_timeout: float | None = 0, *, yield_gaps: bool) -> list[Notify[Any] | Gap]: ...
    def get_events(self, select_timeout: float | None = 0, yield_gaps: bool = False) -> Any:
        """Return all events that have arrived, waiting for the first as `get_event` does. Empty when none comes."""
        timeout = check_timeout(select_timeout)
        deadline = None if timeout is None else monotonic() + timeout
        inbox = self._inbox
        while self._listener.receive(inbox, timeout):
            events: list[Any] = [event for event in inbox.queue if yield_gaps or type(event) is not Gap]
            if inbox.types:
                events = [inbox.types.decoded(event) for event in events]
            if len(events) < len(inbox.queue):
                for gap in [event for event in inbox.queue if isinstance(event, Gap)]:
                    warn_of(gap)
            nothing: deque[Notify | Gap] = deque()
            inbox.queue = nothing
            if events:
                return events
            timeout = None if deadline is None else max(0.0, deadline - monotonic())
        return []

    @overload
    def events(
        self,
        select_timeout: float | None = 5,
        yield_timeouts: Literal[False] = False,
        yield_gaps: Literal[False] = False,
    ) -> Iterator[Notify[Any]]: ...
    @overload
    def events(
        self, select_timeout: float | None = 5, yield_timeouts: bool = False, yield_gaps: Literal[False] = False
    ) -> Iterator[Notify[Any] | None]: ...
    @overload
    def events(
        self, select_timeout: float | None = 5, yield_timeouts: bool = False, yield_gaps: bool = False
    ) -> Iterator[Notify[Any] | Gap | None]: ...
    def events(
        self, select_timeout: float | None = 5, yield_timeouts: bool = False, yield_gaps: bool = False
    ) -> Iterator[Notify[Any] | Gap | None]:
        """Iterate over the events, as `get_event` returns them, for ever. It ends when the `PubSub` is closed.

        Args:
            select_timeout: seconds to wait before looking again (None: no limit).
            yield_timeouts: yield None each time `select_timeout` passed without an event.
            yield_gaps: yield a `Gap` where notifications may have been lost. Otherwise it is logged as a
                warning by the logger `pgpubsub.gap`, and counted in `gaps` in either case.

        Raises:
            ConnectionLost: the connection is gone and is not replaced.
        """
        return self._events(check_timeout(select_timeout), yield_timeouts, yield_gaps)

    def _events(self, timeout: float | None, yield_timeouts: bool, yield_gaps: bool) -> Iterator[Any]:
        inbox, listener, receive = self._inbox, self._listener, self._listener.receive
        while True:
            while (queue := inbox.queue) and not listener.closed:
                event = queue[0]
                if yield_gaps or type(event) is not Gap:
                    decoded = inbox.types.decoded(event) if inbox.types else event
                    del queue[0]
                    yield decoded
                else:
                    warn_of(event)
                    del queue[0]
            try:
                if not receive(inbox, timeout) and yield_timeouts:
                    yield None
            except Closed:
                return

    # -- callbacks

    def notification_handler(
        self,
        event: str | Channel[Any],
        callback: Callback,
        arg_dict: dict[str, Any] | None = None,
        timeout: float | None = None,
        stop_event: str | None = None,
    ) -> NotificationHandler:
        """A `NotificationHandler` on this connection."""
        return NotificationHandler(self, event, callback, arg_dict, timeout, stop_event)

    connection_handler = notification_handler
