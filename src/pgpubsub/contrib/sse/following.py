"""Receivers to bytes: entered, followed, kept alive and closed, and from where a browser goes on. What a browser is not
told of a gap, and of what does not fit its type, is logged by `pgpubsub.sse`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from time import monotonic
from typing import Any, TypedDict, overload

from pgpubsub.aio import AsyncReader, AsyncStream, AsyncSubscription
from pgpubsub.contrib.sse.encoding import KEEP_ALIVE, as_text, encode, frame
from pgpubsub.core.position import END, Start
from pgpubsub.core.timeouts import check_seconds
from pgpubsub.errors import Closed, ConnectionLost, NotLive, SubscriptionClosed
from pgpubsub.events import Entry, Gap, Undecodable
from pgpubsub.logs import EventLog, Names
from pgpubsub.threads.reader import Reader
from pgpubsub.threads.stream import Stream
from pgpubsub.threads.subscription import Subscription

__all__ = ["UNAVAILABLE", "Options", "follow", "follow_blocking", "resume"]

UNAVAILABLE = (NotLive, ConnectionLost, Closed)
"""Errors of entering a receiver that mean 503, Service Unavailable, and that a client may try again."""

LOOK = 1.0
"""Seconds after which a blocking generator looks whether the server ends."""

_logger = EventLog("sse")


class Options(TypedDict, total=False):
    """What `follow` takes beside the receiver, and so do the frameworks' responses."""

    text: Callable[[Any], str] | None
    named: bool
    keep_alive: float | None
    retry: int | None


async def follow(
    receiver: AsyncSubscription[Any] | AsyncReader[Any],
    *,
    text: Callable[[Any], str] | None = None,
    named: bool = False,
    keep_alive: float | None = 15.0,
    retry: int | None = None,
) -> AsyncGenerator[bytes, None]:
    r"""Enter `receiver`, and yield what it delivers. It ends when the receiver, or its hub, is closed, and closes the
    receiver when it is closed or cancelled itself.

    First comes a comment, once the receiver is entered: what is sent from then on is delivered. With a reader, it
    carries the position, so that a browser resumes from there even if no entry ever came.

    Args:
        receiver: not entered yet.
        text: makes data of a payload. By default it is the codec of its `Channel` or stream, or `as_text`.
        named: as for `encode`.
        keep_alive: seconds of silence after which a comment is sent. None: never.
        retry: milliseconds after which a browser reconnects when the connection has ended. None: as it likes.

    Raises:
        PubSubError: as when entering the receiver, and as it raises when its hub fails for good.
        ValueError: `keep_alive` is not positive.

    >>> import asyncio
    >>> async def main():
    ...     async with pgpubsub.AsyncHub(dsn) as hub:
    ...         events = follow(hub.subscribe("orders"))
    ...         print(await anext(events))
    ...         await hub.notify("orders", "17")
    ...         print(await anext(events))
    ...         await events.aclose()
    >>> asyncio.run(main())
    b': listening\n\n'
    b'event: message\ndata: 17\n\n'
    """
    if keep_alive is not None:
        check_seconds("keep_alive", keep_alive)
    encoded = _encoder(receiver, text, named)
    async with receiver:
        yield _opening(receiver, retry)
        while True:
            try:
                event = await receiver.get(keep_alive)
            except TimeoutError:
                yield KEEP_ALIVE
            except SubscriptionClosed:
                return
            else:
                yield encoded(event)


def check_receiver(receiver: object, *, asynchronous: bool) -> None:
    """Make sure that a response can receive from it, when it is made and not when it is sent.

    Raises:
        TypeError: it is of the other sort of hub, or nothing of the kind.
    """
    if not hasattr(receiver, "__aenter__" if asynchronous else "__enter__"):
        hub = "an AsyncHub: a Hub's are for threads" if asynchronous else "a Hub: an AsyncHub's are for tasks"
        raise TypeError(f"an EventStream takes a subscription or a reader of {hub} (not {type(receiver).__name__})")


def follow_blocking(
    receiver: Subscription[Any] | Reader[Any],
    *,
    text: Callable[[Any], str] | None = None,
    named: bool = False,
    keep_alive: float | None = 15.0,
    retry: int | None = None,
    ended: Callable[[], bool] = lambda: False,
) -> Generator[bytes, None, None]:
    r"""The same for threads. A generator that waits cannot be closed by another thread: a client that has gone is
    noticed when something is sent to it, so `keep_alive` limits how long its subscription stays.

    Args:
        receiver, text, named, keep_alive, retry: as for `follow`.
        ended: asked about every second whether to end.

    Raises:
        as `follow`.

    >>> with pgpubsub.Hub(dsn) as hub:
    ...     events = follow_blocking(hub.subscribe("orders"), keep_alive=0.01)
    ...     print(next(events), next(events))
    ...     events.close()
    b': listening\n\n' b':\n\n'
    """
    if keep_alive is not None:
        check_seconds("keep_alive", keep_alive)
    encoded = _encoder(receiver, text, named)
    with receiver:
        yield _opening(receiver, retry)
        while not ended():
            try:
                event = _get(receiver, keep_alive, ended)
            except SubscriptionClosed:
                return
            yield KEEP_ALIVE if event is None else encoded(event)


def _get(receiver: Subscription[Any] | Reader[Any], keep_alive: float | None, ended: Callable[[], bool]) -> Any:
    """The next event, or None when it is time for a keep-alive, or for the end."""
    deadline = None if keep_alive is None else monotonic() + keep_alive
    while True:
        try:
            return receiver.get(LOOK if deadline is None else max(0.0, min(LOOK, deadline - monotonic())))
        except TimeoutError:
            if ended() or (deadline is not None and monotonic() >= deadline):
                return None


def _opening(
    receiver: AsyncSubscription[Any] | AsyncReader[Any] | Subscription[Any] | Reader[Any], retry: int | None
) -> bytes:
    position = receiver.position if isinstance(receiver, AsyncReader | Reader) else None
    return frame(comment="listening", id=position, retry=retry)


def _encoder(receiver: Any, text: Callable[[Any], str] | None, named: bool) -> Callable[[Any], bytes]:
    types = receiver._mailbox.types

    def encoded(event: Any) -> bytes:
        if isinstance(event, Undecodable):
            it = event.event
            place = f"entry {it.id}" if isinstance(it, Entry) else f"channel {it.channel!r}"
            _logger.warning(
                "payload_undecodable",
                "a payload does not fit its type: %(place)s: %(error)s",
                place=place,
                error=event.error,
            )
        elif isinstance(event, Gap):  # which the client is not told in full; it is no warning, as clients can cause it
            _logger.info(
                "gap",
                "a gap on %(channels)r: %(reason)s: %(detail)s",
                reason=str(event.reason),
                channels=Names(event.channels),
                detail=event.detail,
            )
        if text is not None:
            return encode(event, text=text, named=named)
        codec = types.of(event)  # of this event, since a subscription may be added to
        return encode(event, text=as_text if codec is None else codec.encode, named=named)

    return encoded


# -- resuming


@overload
def resume(stream: AsyncStream[Any], last_event_id: str | None, otherwise: str | Start = END) -> AsyncReader[Any]: ...
@overload
def resume(stream: Stream[Any], last_event_id: str | None, otherwise: str | Start = END) -> Reader[Any]: ...
def resume(
    stream: AsyncStream[Any] | Stream[Any], last_event_id: str | None, otherwise: str | Start = END
) -> AsyncReader[Any] | Reader[Any]:
    """A reader that goes on where a browser stopped.

    Args:
        stream: of the entries that it got.
        last_event_id: its header `Last-Event-ID`, None or empty where there was none.
        otherwise: where to begin then.

    Raises:
        PositionError: the header, or `otherwise`, is no position of this stream. That is a client's error (400).
    """
    return stream.read(after=last_event_id or otherwise)
