"""Reading streams, for threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pgpubsub.core.position import Position, Start
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.events import Event
from pgpubsub.streams.description import Description
from pgpubsub.streams.inbox import Inbox
from pgpubsub.streams.service import Streams
from pgpubsub.threads.receiving import Receiver, ThreadMailbox

if TYPE_CHECKING:
    from pgpubsub.threads.hub import Hub


__all__ = ["Reader"]


class _Inbox(Inbox, ThreadMailbox):
    """What a thread's reader has read."""


class Reader(Receiver[Event]):
    """The entries of a stream, in order: what `Stream.read` returns.

    Enter it (`with`), then iterate it or call `get`. Beside `Entry` it has `Gap`, where history was rewritten, and
    `Undecodable`. A connection that breaks is no gap: the reader goes on over another one.
    """

    def __init__(
        self,
        hub: Hub,
        streams: Streams,
        description: Description[Any],
        after: Position | Start,
        follow: bool,
    ) -> None:
        self._hub = hub
        self._streams = streams
        self._description = description
        self._after = after
        self._follow = follow
        self._start: str | None = None
        self._inbox = _Inbox(description.decoders)
        super().__init__(self._inbox)

    def __del__(self) -> None:
        if hasattr(self, "_inbox"):
            self._streams.forsake(self._inbox)

    def __repr__(self) -> str:
        state = "open" if self._inbox.closed is None and not self._closed else "closed"
        return f"<Reader of {self._description.name!r}, {state}, {len(self._inbox.buffer)} buffered>"

    @property
    def position(self) -> str | None:
        """Behind the last entry that it has delivered, or where it began; None before it is entered. What several who
        share the reader have got, and not handled yet, is behind it too."""
        position: str | None = self._inbox.buffer.position
        return position or self._start

    def __enter__(self) -> Self:
        """Begin to read. `END` is now.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because the role may not read.
        """
        try:
            self._start = self._hub._call(self._streams.open, self._description, self._inbox, self._after, self._follow)
        except PubSubError:
            raise
        except BaseException:  # nobody will leave it
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the reading, and drop what is buffered. May be repeated. Does not wait, and ends the waiting of other
        threads."""
        self._closed = True
        self._hub._post(self._streams.leave, self._inbox, SubscriptionClosed("the reader was closed"))
