"""Hub: many subscribers on one connection, for threads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, overload

from pgpubsub.channel import Channel, checked_message
from pgpubsub.core.buffer import Overflow
from pgpubsub.core.frames import MAX_PAYLOAD, Message
from pgpubsub.core.headers import Headers
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.errors import ConcurrentUse
from pgpubsub.events import Notify, Undecodable
from pgpubsub.hubs.addresses import Addresses, Conninfo
from pgpubsub.hubs.engine import Engine
from pgpubsub.hubs.mailbox import CAPACITY, CAPACITY_BYTES, Options, buffer
from pgpubsub.hubs.outgoing import check_all, check_total, explain, pieces, traced
from pgpubsub.status import HubState, HubStats, Observation
from pgpubsub.streams.description import Options as StreamOptions
from pgpubsub.streams.service import Streams
from pgpubsub.threads.loop_thread import LoopThread
from pgpubsub.threads.receiving import ThreadMailbox
from pgpubsub.threads.sending import AwaitedSending, Sending
from pgpubsub.threads.stream import Stream
from pgpubsub.threads.subscription import Subscription
from pgpubsub.tracing import Tracing

__all__ = ["Hub"]

T = TypeVar("T")
U = TypeVar("U")

LOCK_PATIENCE = 0.1
"""Seconds after which a mailbox's lock, held for microseconds otherwise, must be held by what a signal handler
interrupted."""


class Hub:
    """Publish and subscribe over two connections, one that listens and one that sends, for any number of threads.

    It connects when it is entered (`with`) or first used, and from then on a thread of its own keeps it connected.
    What may have been lost stands as a `Gap` in every subscription concerned, once its channels are live again. One
    that is made before a `fork()` and first used after it, as in a prefork web server, belongs to the child.

    Args:
        conninfo: libpq connection string or URI of a primary, or a function, plain or asynchronous, that returns
            one. It is called, a plain one in a thread, for each attempt to connect: for credentials that change.
        notify_conninfo: the same for the connection that sends, where that is to be another, such as a pooler's.
        heartbeat: seconds of silence after which the hub proves that notifications arrive, by sending one to
            itself. None: only when it has connected.
        heartbeat_timeout: seconds that a heartbeat, and the server's answer to a LISTEN, may take.
        send_timeout: seconds that `notify`, and entering a subscription, wait during an outage.
        give_up_after: seconds without a connection after which the hub fails for good. None: it goes on trying,
            first at once and then every 0.1 to 30 seconds.
        wait_for_primary: whether a hub that was never live goes on trying where it meets a standby, as others do:
            for a process that may begin in the middle of a failover. Entering it waits, for `send_timeout` at most.
        max_payload: longest payload that is sent, or put together when it arrives, in bytes.
        observe: called with each `Observation`, for metrics. It must not block.
        tracing: what makes spans of what is sent and handled, and has their context carried along:
            `pgpubsub.contrib.opentelemetry` has one.
        libpq_keywords: connection parameters. They override those in `conninfo`; in `notify_conninfo` they stand in
            for what it does not say.

    Raises:
        ConninfoError: a connection string or keyword is malformed or unknown.
        ValueError: a time is not positive.
        TypeError: an argument is of another type.

    >>> import pgpubsub
    >>> with pgpubsub.Hub(dsn) as hub, hub.subscribe("orders", "payments") as events:
    ...     hub.notify("orders", "17")
    ...     for event in events:
    ...         print(event.channel, event.payload)
    ...         break
    orders 17
    """

    def __init__(
        self,
        conninfo: Conninfo = "",
        *,
        notify_conninfo: Conninfo | None = None,
        heartbeat: float | None = 10.0,
        heartbeat_timeout: float = 5.0,
        send_timeout: float = 30.0,
        give_up_after: float | None = None,
        wait_for_primary: bool = False,
        max_payload: int = MAX_PAYLOAD,
        observe: Callable[[Observation], None] | None = None,
        tracing: Tracing | None = None,
        **libpq_keywords: Any,
    ) -> None:
        addresses = Addresses(conninfo, notify_conninfo, libpq_keywords)
        engine = Engine(
            addresses.listening,
            addresses.sending,
            heartbeat=heartbeat,
            heartbeat_timeout=heartbeat_timeout,
            send_timeout=send_timeout,
            give_up_after=give_up_after,
            wait_for_primary=wait_for_primary,
            max_payload=max_payload,
            observe=observe,
            tracing=tracing,
        )
        self._begin(engine, addresses)

    def _begin(self, engine: Engine, addresses: Addresses | None) -> None:
        self._engine = engine
        self._streams = Streams(engine, addresses)
        self._closed = False
        # The thread, under the only key, once there is one: setdefault() decides in one step who makes it.
        self._threads: dict[str, LoopThread] = {}

    def __del__(self) -> None:
        if getattr(self, "_threads", None) and not self._closed and not self._engine.disowned:
            self._closed = True
            message = f"{self!r} was not closed"
            self._threads[""].post(self._threads[""].finish, self._engine.close, 0.0)
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)  # last: it may be an error

    def __enter__(self) -> Self:
        """Connect, and prove that notifications arrive.

        Raises:
            ConnectionFailed: it cannot connect. At once, without another attempt; see `wait_until_live`.
            NotLive: with `wait_for_primary`, after `send_timeout` seconds, instead of that, and of the last two.
            UnusableDeployment: notifications cannot arrive here, as behind a pooler in transaction mode.
            ServerInRecovery: the server is a standby.
            ConnectionLost: the connection broke while this went on.
        """
        try:
            self._call(self._engine.enter)
        except BaseException:
            self.close(0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Hub {self.state}>"

    @overload
    def subscribe(self, *channels: str, **options: Unpack[Options]) -> Subscription[Notify[str]]: ...
    @overload
    def subscribe(self, *channels: Channel[T], **options: Unpack[Options]) -> Subscription[Notify[T] | Undecodable]: ...
    @overload
    def subscribe(
        self, one: Channel[T], other: Channel[U], /, **options: Unpack[Options]
    ) -> Subscription[Notify[T] | Notify[U] | Undecodable]: ...
    @overload
    def subscribe(
        self, *channels: str | Channel[T], **options: Unpack[Options]
    ) -> Subscription[Notify[T] | Notify[str] | Undecodable]: ...
    @overload
    def subscribe(
        self, *channels: str | Channel[Any], **options: Unpack[Options]
    ) -> Subscription[Notify[Any] | Undecodable]: ...
    def subscribe(
        self,
        *channels: str | Channel[Any],
        capacity: int = CAPACITY,
        capacity_bytes: int = CAPACITY_BYTES,
        overflow: Overflow = "clear",
    ) -> Subscription[Any]:
        """A subscription to `channels`, to be entered with `with`.

        Args:
            channels: any text of up to 63 bytes each, or a `Channel`: what comes on that is decoded, and may be an
                `Undecodable`. There may be none yet: see `Subscription.add`.
            capacity: notifications that its buffer holds at most.
            capacity_bytes: bytes of payload that its buffer holds at most.
            overflow: what happens when the buffer is full. "clear": all that is buffered goes, and one `Gap` says how
                many. "drop_oldest": the oldest go, and a `Gap` stands in their place. "latest": only the newest of
                each channel is kept, always, and no `Gap` says so. "close": `SubscriberTooSlow`.

        Raises:
            ChannelNameError: a name that PostgreSQL cannot carry.
            ValueError: a capacity below 1, an unknown policy, or two `Channel`s with one name and different types.
        """
        return Subscription(self, channels, buffer(capacity, capacity_bytes, overflow, self._engine.complete_until))

    @overload
    def notify(self, channel: Channel[T], payload: T, *, headers: Headers | None = None) -> None: ...
    @overload
    def notify(self, channel: str, payload: str = "", *, headers: Headers | None = None) -> None: ...
    def notify(self, channel: str | Channel[Any], payload: Any = "", *, headers: Headers | None = None) -> None:
        """Send one notification; it is committed when this returns.

        Calls that come at the same time go out together, in one statement, each with an outcome of its own.

        Args:
            channel: any text of up to 63 bytes, or a `Channel`.
            payload: text, or what the `Channel` carries. Of up to 7,999 bytes it travels as it is, up to the hub's
                `max_payload` in parts, which whoever listens with pgpubsub gets as one.
            headers: beside the payload: names and JSON values, of up to 16 KiB. They make a frame of the notification:
                who listens with pgpubsub finds them in `Notify.headers`, others see the frame's text.

        Raises:
            ChannelNameError, PayloadError, PayloadTooLarge: it cannot be sent.
            SendTimeout: it could not be sent for `send_timeout` seconds, for want of a connection or because of all
                that was before it. It was not sent, and will not be.
            SendUncertain: the connection broke while it was in flight. It is not repeated.
            ServerRefused: for example because the server's notification queue is full.
        """
        self._send((checked_message(channel, payload, self._engine.max_payload, headers),))

    async def notify_async(
        self, channel: str | Channel[Any], payload: Any = "", *, headers: Headers | None = None
    ) -> None:
        """`notify` for a task, in any event loop: for programs that have threads and tasks, whose calls go out
        together. A call that is cancelled before it is in flight is not sent."""
        messages = (checked_message(channel, payload, self._engine.max_payload, headers),)
        if self._engine.tracing is None:
            await self._running_thread().run_for(AwaitedSending(self._engine, messages))
            return
        with traced(self._engine.tracing, messages, self._engine.max_payload) as carrying:
            await self._running_thread().run_for(AwaitedSending(self._engine, carrying))

    def notify_many(self, pairs: Iterable[tuple[str | Channel[Any], Any]], *, headers: Headers | None = None) -> int:
        """Send notifications in one transaction, in order: all of them or, if this raises, none. Returns how many.

        Equal ones, which the server would deliver once, arrive as often as they are given: all but the first travel
        as frames, which listeners other than pgpubsub see as such.

        Args:
            pairs: of a channel and a payload, as `notify` takes them; 256 MiB of payload at most.
            headers: for each of them, as `notify` takes them.

        Raises:
            as `notify`. What is wrong with a pair is raised before anything is sent, and `SendUncertain` concerns all.

        >>> import pgpubsub
        >>> with pgpubsub.Hub(dsn) as hub, hub.subscribe("orders") as events:
        ...     hub.notify_many([("orders", "17"), ("orders", "17")])
        ...     events.get(timeout=5).payload, events.get(timeout=5).payload
        2
        ('17', '17')
        """
        messages = list(check_all(pairs, self._engine.max_payload, headers))
        check_total(messages)
        if messages:
            self._send(messages, many=True)
        return len(messages)

    def notify_stream(
        self,
        pairs: Iterable[tuple[str | Channel[Any], Any]],
        *,
        headers: Headers | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> int:
        """Send any number of notifications, in order, in one transaction for each 1,000 or 1 MiB. Returns how many.

        They need not fit into memory: the next are taken when the last have been sent.

        Args:
            pairs: as for `notify_many`, without a limit.
            headers: for each of them, as `notify` takes them.
            on_progress: called after each transaction with the number of notifications sent so far.

        Raises:
            as `notify`, and whatever `pairs` raises. What came before the error has been sent, apart from the
            transaction that failed; a note on the error says how many that is.

        >>> import pgpubsub
        >>> with pgpubsub.Hub(dsn) as hub:
        ...     total = hub.notify_stream((("orders", str(n)) for n in range(2500)), on_progress=print)
        1000
        2000
        2500
        """
        total, failure = 0, None
        try:
            for piece in pieces(pairs, self._engine.max_payload, headers):
                failure = piece.failure
                if piece.messages:
                    self._send(piece.messages, many=True)
                    total += len(piece.messages)
                    if on_progress is not None:
                        on_progress(total)
                if failure is not None:
                    raise failure
        except Exception as error:
            explain(error, total, failure)
            raise
        return total

    @overload
    def stream(self, name: str, **options: Unpack[StreamOptions]) -> Stream[str | bytes]: ...
    @overload
    def stream(
        self,
        name: str,
        type: type[T],
        *,
        encode: Callable[[T], str] | None = None,
        decode: Callable[[str], T] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Stream[T]: ...
    @overload
    def stream(
        self,
        name: str,
        type: object,
        *,
        encode: Callable[[Any], str] | None = None,
        decode: Callable[[str], Any] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Stream[Any]: ...
    def stream(
        self,
        name: str,
        type: Any = None,
        *,
        encode: Callable[[Any], str] | None = None,
        decode: Callable[[str], Any] | None = None,
        **options: Unpack[StreamOptions],
    ) -> Stream[Any]:
        """A durable stream: its entries are kept in a table, and read with nothing skipped. `pgpubsub.streams.install`
        makes the tables, once.

        Args:
            name: any text of up to 1,000 bytes. The stream comes into being with its first entry.
            type: of the payloads, as for `Channel`. Without one they are text or bytes, and come back as what they
                were.
            encode, decode: functions in place of a codec for `type`, as for `Channel`.
            read_conninfo: where to read, if not where the hub listens: a connection string, or a function that returns
                one, as for the hub. It may be a hot standby, which is read by polling.
            poll_interval: seconds after which a reader looks for entries that nobody has told it of.
            schema: where streams are installed.

        Raises:
            ValueError, TypeError: an argument is not possible.
            ConninfoError: `read_conninfo` is malformed.
        """
        description = self._streams.describe(name, type, encode, decode, **options)
        return Stream(self, self._streams, description)

    @property
    def tracing(self) -> Tracing | None:
        """What it was given as such."""
        return self._engine.tracing

    @property
    def state(self) -> HubState:
        """Whether notifications arrive, since when, and why not."""
        return self._engine.state

    def wait_until_live(self, timeout: float | None = None) -> None:
        """Connect if that has not happened yet, and wait until notifications arrive, at most `timeout` seconds.

        Raises:
            NotLive: a `TimeoutError` that says why.
            UnusableDeployment, ServerInRecovery: as when entering the hub.
            GaveUp: it has given up.
        """
        self._call(self._engine.wait_until_live, timeout)

    def stats(self) -> HubStats:
        """Counters since the hub was made, and the subscriptions."""
        return self._engine.stats()

    def close(self, timeout: float = 5.0) -> None:
        """Wait for what is still to be sent, at most `timeout` seconds, and close the connections. Every iteration
        ends when it has got what is buffered. May be repeated, and called from other threads and from signal handlers;
        does nothing in a forked child."""
        timeout = check_timeout(timeout)
        self._closed = True
        thread = self._threads.get("")
        if thread is None:
            self._engine.close_unused()
            return
        try:
            thread.check_process()
        except ConcurrentUse:
            return
        thread.post(thread.finish, self._engine.close, timeout)
        if all(
            mailbox.is_free(LOCK_PATIENCE) for mailbox in self._engine.mailboxes if isinstance(mailbox, ThreadMailbox)
        ):
            thread.join(timeout + 5.0)

    def _send(self, messages: Sequence[Message], *, many: bool = False) -> None:
        if self._engine.tracing is None:
            self._running_thread().run(Sending(self._engine, messages))
            return
        with traced(self._engine.tracing, messages, self._engine.max_payload, many=many) as carrying:
            self._running_thread().run(Sending(self._engine, carrying))

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._running_thread().call(function, *args)

    def _running_thread(self) -> LoopThread:
        self._engine.check()
        return self._threads.get("") or self._new_thread()

    def _new_thread(self) -> LoopThread:
        mine = LoopThread(self._engine.on_loop_broken)
        try:
            mine.start()  # first: who finds it here may wait for it
            thread = self._threads.setdefault("", mine)
        finally:
            if self._threads.get("") is not mine:
                mine.discard()
        if self._closed:  # meanwhile, by somebody who did not find it
            thread.post(thread.finish, self._engine.close, 0.0)
        return thread

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        if thread := self._threads.get(""):
            thread.post(function, *args)
