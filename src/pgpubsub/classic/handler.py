"""The classic API of PyGreSQL: a callback for each notification, until a stop event.

A program written for `pg.NotificationHandler` runs with only the import changed. What was kept on purpose:
every callback receives the one `arg_dict`, and a stop event that is sent before anybody listens is not heard.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pgpubsub.channel import Channel, checked_message
from pgpubsub.classic.delivery import Inbox, warn_of
from pgpubsub.classic.listener import Listener
from pgpubsub.core.frames import pack
from pgpubsub.core.sql import CHANNEL_LIMIT, check_channel
from pgpubsub.core.timeouts import check_timeout
from pgpubsub.drivers import adapt
from pgpubsub.errors import ChannelNameError, Closed, UnexpectedChannel
from pgpubsub.events import Gap, Notify, Undecodable
from pgpubsub.randomness import new_message_id

__all__ = ["Callback", "NotificationHandler"]

Callback = Callable[[dict[str, Any] | None], object]
"""Called with the handler's `arg_dict`, which holds `pid`, `event` and `extra`; with None upon a time-out."""


class NotificationHandler:
    """Listens for an event and calls back, until it is notified of the stop event.

    Call the handler to run it. Several handlers, and a `PubSub`, may share one connection: what arrives
    for one of them while another one runs waits for it.

    Args:
        db: a `PubSub`, or a connection in autocommit mode of psycopg 3, psycopg2 or PyGreSQL (`pg.DB` too).
        event: the channel to listen to. For a `Channel`, `extra` is the decoded payload, or the `Undecodable` where
            that was not possible, and the attribute `event` is its name.
        callback: called with `arg_dict` for each notification, the stop event included, and with None
            upon a time-out.
        arg_dict: where `pid`, `event` and `extra` (the payload) are put; the same object each time. A new
            one by default.
        timeout: seconds without a notification after which the handler stops listening, calls
            `callback(None)` and returns. None: never. 0: handle what has arrived and return, still listening.
        stop_event: the channel that ends it, `"stop_" + event` by default. Its payload is text.

    Raises:
        ChannelNameError: `event` or the stop event cannot be a channel, for example is longer than 63 bytes.

    All arguments are attributes of the same name; `listening` says whether it listens.

    >>> import pgpubsub
    >>> pubsub = pgpubsub.connect(dsn)
    >>> handler = pubsub.notification_handler("news", lambda news: print(news and news["extra"]), timeout=0)
    >>> handler.listen()
    >>> handler.notify(payload="it's here")
    >>> handler()
    it's here
    >>> handler.close()
    """

    listening = False

    def __init__(
        self,
        db: Any,
        event: str | Channel[Any],
        callback: Callback,
        arg_dict: dict[str, Any] | None = None,
        timeout: float | None = None,
        stop_event: str | None = None,
    ) -> None:
        self.db = db
        self._typed = event if isinstance(event, Channel) else None
        self.event = event.name if isinstance(event, Channel) else event
        self.stop_event = stop_event or f"stop_{self.event}"
        self.callback = callback
        self.arg_dict = {} if arg_dict is None else arg_dict
        self.timeout = timeout
        self._check_events()
        self._inbox = Inbox()
        self._stop: Notify | None = None  # the stop event, when it was taken and not yet handed over
        self._listener: Listener | None = None if db is None else Listener.of(db)

    def __del__(self) -> None:
        listener = getattr(self, "_listener", None)
        if listener is not None and self.listening:
            with suppress(Exception):  # whatever is left of the interpreter
                listener.depart(self._inbox)
                listener.see_off()

    def __call__(self) -> None:
        """Listen, and call back for each notification, until the stop event, the time-out or `close()`.

        An exception from the callback ends the call; the handler listens on and the next call goes on with
        the next notification.

        Raises:
            UnexpectedChannel: the connection was notified of a channel that nobody registered on it. It is
                also the driver's `DatabaseError`.
            ConnectionLost: the connection is gone and is not replaced.
            ValueError: `timeout` is negative.
        """
        listener = self._listener
        if listener is None:
            return
        check_timeout(self.timeout)
        if self._stop is not None:
            self._hand_over_stop(self._stop)
            return
        self.listen()
        try:
            while self.listening and listener.receive(self._inbox, self.timeout):
                self._handle_first(listener)
            if self.listening and self.timeout != 0:
                self.unlisten()
                self.callback(None)
        except Closed:
            if not listener.closed:  # somebody else's
                raise

    def _handle_first(self, listener: Listener) -> None:
        """Handle the first event of the inbox. It leaves that just before the callback gets it."""
        inbox = self._inbox
        event = inbox.queue[0]
        if isinstance(event, Gap):
            warn_of(event)
            del inbox.queue[0]
        elif event.channel == self.stop_event:
            self._stop = event
            del inbox.queue[0]
            self._hand_over_stop(event)
        elif event.channel == self.event:
            self.arg_dict.update(pid=event.pid, event=event.channel, extra=self._decoded(event))
            del inbox.queue[0]
            self.callback(self.arg_dict)
        else:
            del inbox.queue[0]
            self.unlisten()
            raise _unexpected(listener.driver.database_error)(
                f'Listening for "{self.event}" and "{self.stop_event}", but notified of "{event.channel}"'
            )

    def _decoded(self, event: Notify) -> Any:
        """The payload, or the `Undecodable`."""
        channel = self._channel
        if not isinstance(channel, Channel):
            return event.payload
        decoded = channel.decode(event)
        return decoded if isinstance(decoded, Undecodable) else decoded.payload

    @property
    def _channel(self) -> str | Channel[Any]:
        """The event with its type, unless another event was set since."""
        return self.event if self._typed is None or self._typed.name != self.event else self._typed

    def _hand_over_stop(self, event: Notify) -> None:
        self.unlisten()
        self.arg_dict.update(pid=event.pid, event=event.channel, extra=event.payload)
        self._stop = None
        self.callback(self.arg_dict)

    def listen(self) -> None:
        """Start listening for the event and the stop event; done implicitly when the handler is called."""
        listener = self._listener
        if listener is None or self.listening:
            return
        self._check_events()
        try:
            listener.listen(self._inbox, self.event, self.stop_event)
            self.listening = True
        except BaseException:
            listener.depart(self._inbox)  # an interruption may have left it half done
            raise

    def unlisten(self) -> None:
        """Stop listening, and drop what has not been handled; done implicitly upon the stop event, a
        time-out, when the handler is closed and when it is deleted."""
        listener = self._listener
        if listener is not None and self.listening:
            self.listening = False
            try:
                listener.unlisten(self._inbox, *listener.channels(self._inbox))
            except BaseException:
                listener.depart(self._inbox)
                raise

    def notify(self, db: Any = None, stop: bool = False, payload: Any = None) -> None:
        """Send the event, or the stop event. Does nothing while this handler is not listening.

        Args:
            db: the connection to send on, `self.db` by default. Give another one when the handler runs in
                another thread.
            stop: send the stop event.
            payload: text, or what the event's `Channel` carries. (The stop event carries text.) At most the
                `max_payload` of the `PubSub` whose connection this is, 16 MiB otherwise.
        """
        if not self.listening or self._listener is None:
            return
        channel = self.stop_event if stop else self._channel
        given = payload if isinstance(channel, Channel) else payload or ""
        message = checked_message(channel, given, self._listener.max_payload)
        listener = self._listener if db is None else Listener.find(db)
        if listener is not None:
            listener.notify(message)
        else:
            driver = adapt(db)
            driver.notify(pack([message], new_message_id, driver.room))

    def close(self) -> None:
        """Stop listening and close the connection, for everybody who shares it. A call of the handler that
        waits in another thread returns."""
        self.listening = False
        listener, self._listener, self.db = self._listener, None, None
        if listener is not None:
            listener.close()

    def _check_events(self) -> None:
        check_channel(self.event)
        try:
            check_channel(self.stop_event)
        except ChannelNameError as error:
            raise ChannelNameError(
                f"{error}; it is the stop event of {self.event!r}: give another one with stop_event="
                f" (the default adds 5 bytes to the event, so an event of up to {CHANNEL_LIMIT - 5} bytes has one)"
            ) from None


def _unexpected(database_error: type[Exception]) -> type[Exception]:
    """Our error and the driver's in one, for programs that catch either."""
    bases: Any = (UnexpectedChannel, database_error)
    return type("UnexpectedChannel", bases, {"__module__": UnexpectedChannel.__module__})
