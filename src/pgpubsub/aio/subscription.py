"""What one asynchronous subscriber sees."""

from __future__ import annotations

from typing import Any, Self

from pgpubsub.aio.receiving import AsyncMailbox, AsyncReceiver
from pgpubsub.channel import Channel, Types, name_of
from pgpubsub.core.buffer import Buffer
from pgpubsub.errors import SubscriptionClosed
from pgpubsub.events import Event
from pgpubsub.hubs.engine import Engine
from pgpubsub.status import SubscriptionStats

__all__ = ["AsyncSubscription"]


class AsyncSubscription(AsyncReceiver[Event]):
    """One subscriber's events, in order: what `AsyncHub.subscribe` returns.

    Enter it (`async with`), then iterate it or call `get`. Several tasks may do so: each event goes to one of them.
    A task that is cancelled, or leaves its loop, takes nothing from the others.

    Its type says what comes beside `Gap`: `AsyncSubscription[Notify[str]]` on plain names, which is the default, and
    `AsyncSubscription[Notify[Order] | Undecodable]` on a `Channel` of `Order`.
    """

    __slots__ = ("_engine", "_initial", "_types")

    def __init__(self, engine: Engine, channels: tuple[str | Channel[Any], ...], buffer: Buffer) -> None:
        self._initial = [name_of(channel) for channel in channels]
        self._types = Types(channels)
        self._engine = engine
        super().__init__(AsyncMailbox(buffer, self._types))

    def __del__(self) -> None:
        if hasattr(self, "_mailbox"):
            self._engine.forsake(self._mailbox)

    def __repr__(self) -> str:
        state = "open" if self._mailbox.closed is None else "closed"
        return f"<{type(self).__name__} {sorted(self.channels)}, {state}, {len(self._mailbox.buffer)} buffered>"

    @property
    def channels(self) -> frozenset[str]:
        """What it is subscribed to at present."""
        return frozenset(self._mailbox.channels)

    def stats(self) -> SubscriptionStats:
        """This subscription in figures."""
        return self._mailbox.stats()

    async def __aenter__(self) -> Self:
        """Returns once the server listens to all its channels: what is sent from now on is delivered.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            ServerRefused: it would not listen.
        """
        await self._engine.open(self._mailbox, self._initial)
        return self

    async def add(self, channel: str | Channel[Any]) -> None:
        """Subscribe to one more channel. Returns, and raises, as entering does; if it raises, nothing has changed.

        What it was given last as counts: a `Channel` gives what comes on it a type, a plain name takes that away. That
        holds for what is buffered too, which is decoded when it is taken.
        """
        with self._types.learning(channel):
            await self._engine.add(self._mailbox, (name_of(channel),))

    async def remove(self, channel: str | Channel[Any]) -> None:
        """Unsubscribe from a channel. Nothing of it is received any more, not even what is buffered."""
        await self._engine.remove(self._mailbox, name_of(channel))

    def close(self) -> None:
        """Unsubscribe from everything and drop what is buffered. May be repeated. Does not wait."""
        self._mailbox.check_thread()
        self._engine.leave(self._mailbox, SubscriptionClosed("the subscription was closed"))
