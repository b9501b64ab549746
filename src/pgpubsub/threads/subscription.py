"""What one blocking subscriber sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pgpubsub.channel import Channel, Types, name_of
from pgpubsub.core.buffer import Buffer
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.events import Event
from pgpubsub.status import SubscriptionStats
from pgpubsub.threads.receiving import Receiver, ThreadMailbox

if TYPE_CHECKING:
    from pgpubsub.threads.hub import Hub

__all__ = ["Subscription"]


class Subscription(Receiver[Event]):
    """One subscriber's events, in order: what `Hub.subscribe` returns.

    Enter it (`with`), then iterate it or call `get`. Several threads may do so: each event goes to one of them. A
    thread that leaves its loop takes nothing from the others.

    Its type says what comes beside `Gap`: `Subscription[Notify[str]]` on plain names, which is the default, and
    `Subscription[Notify[Order] | Undecodable]` on a `Channel` of `Order`.
    """

    def __init__(self, hub: Hub, channels: tuple[str | Channel[Any], ...], buffer: Buffer) -> None:
        self._initial = [name_of(channel) for channel in channels]
        self._types = Types(channels)
        self._hub = hub
        super().__init__(ThreadMailbox(buffer, self._types))

    def __del__(self) -> None:
        if hasattr(self, "_mailbox"):
            self._hub._engine.forsake(self._mailbox)

    def __repr__(self) -> str:
        state = "open" if self._mailbox.closed is None and not self._closed else "closed"
        return f"<{type(self).__name__} {sorted(self.channels)}, {state}, {len(self._mailbox.buffer)} buffered>"

    @property
    def channels(self) -> frozenset[str]:
        """What it is subscribed to at present."""
        return frozenset(self._mailbox.channels)

    def stats(self) -> SubscriptionStats:
        """This subscription in figures."""
        return self._mailbox.stats()

    def __enter__(self) -> Self:
        """Returns once the server listens to all its channels: what is sent from now on is delivered.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            ServerRefused: it would not listen.
        """
        try:
            self._hub._call(self._hub._engine.open, self._mailbox, self._initial)
        except PubSubError:
            raise
        except BaseException:  # nobody will leave it
            self.close()
            raise
        return self

    def add(self, channel: str | Channel[Any]) -> None:
        """Subscribe to one more channel. Returns, and raises, as entering does; if it raises, nothing has changed.

        What it was given last as counts: a `Channel` gives what comes on it a type, a plain name takes that away. That
        holds for what is buffered too, which is decoded when it is taken.
        """
        self._hub._call(self._add, channel, name_of(channel))

    async def _add(self, channel: str | Channel[Any], name: str) -> None:
        with self._types.learning(channel):
            await self._hub._engine.add(self._mailbox, (name,))

    def remove(self, channel: str | Channel[Any]) -> None:
        """Unsubscribe from a channel. Nothing of it is received any more, not even what is buffered."""
        self._hub._call(self._hub._engine.remove, self._mailbox, name_of(channel))

    def close(self) -> None:
        """Unsubscribe from everything and drop what is buffered. May be repeated. Does not wait, and ends the waiting
        of other threads."""
        self._closed = True
        self._hub._post(self._hub._engine.leave, self._mailbox, SubscriptionClosed("the subscription was closed"))
