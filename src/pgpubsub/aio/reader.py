"""Reading streams, for asyncio."""

from __future__ import annotations

from typing import Any, Self

from pgpubsub.aio.receiving import AsyncMailbox, AsyncReceiver
from pgpubsub.core.position import Position, Start
from pgpubsub.errors import SubscriptionClosed
from pgpubsub.events import Event
from pgpubsub.streams.description import Description
from pgpubsub.streams.inbox import Inbox
from pgpubsub.streams.service import Streams

__all__ = ["AsyncReader"]


class _Inbox(Inbox, AsyncMailbox):
    """What a task's reader has read."""


class AsyncReader(AsyncReceiver[Event]):
    """The entries of a stream, in order: what `AsyncStream.read` returns.

    Enter it (`async with`), then iterate it or call `get`. Beside `Entry` it has `Gap`, where history was rewritten,
    and `Undecodable`. A connection that breaks is no gap: the reader goes on over another one.
    """

    __slots__ = ("_after", "_description", "_follow", "_inbox", "_start", "_streams")

    def __init__(self, streams: Streams, description: Description[Any], after: Position | Start, follow: bool) -> None:
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
        state = "open" if self._inbox.closed is None else "closed"
        return f"<AsyncReader of {self._description.name!r}, {state}, {len(self._inbox.buffer)} buffered>"

    @property
    def position(self) -> str | None:
        """Behind the last entry that it has delivered, or where it began; None before it is entered. What several who
        share the reader have got, and not handled yet, is behind it too."""
        position: str | None = self._inbox.buffer.position
        return position or self._start

    def _standing(self) -> Position | None:
        """Where it stands, past transactions too that have brought nothing, if it has delivered all that there is; else
        None. Readers that stand at the same place have got the same."""
        inbox = self._inbox
        return inbox.standing() if inbox.closed is None and not inbox.buffer else None

    async def __aenter__(self) -> Self:
        """Begin to read. `END` is now.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because the role may not read.
        """
        self._start = await self._streams.open(self._description, self._inbox, self._after, self._follow)
        return self

    def close(self) -> None:
        """End the reading, and drop what is buffered. May be repeated. Does not wait."""
        self._mailbox.check_thread()
        self._streams.leave(self._inbox, SubscriptionClosed("the reader was closed"))
