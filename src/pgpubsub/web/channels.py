"""The channels that clients follow: one subscription for all of them, and a log each.

A channel is listened to while somebody follows it, and for some seconds after that, since clients come back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from time import monotonic

from pgpubsub.aio import AsyncHub, AsyncSubscription
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.events import Gap, Notify
from pgpubsub.web.items import Item, Topic
from pgpubsub.web.limits import Limits
from pgpubsub.web.log import Log

__all__ = ["Channels"]

LINGER = 10.0
"""Seconds for which a channel is listened to that nobody follows any more."""

AT_ONCE = 100
"""Channels that are unsubscribed from at a time, at most."""

AHEAD = 100_000
"""Notifications that may wait for us, at most: we only fall behind when this process gets no time at all."""


class Channels:
    """See the module.

    Args:
        hub: whose channels these are.
        item: makes one of what has come.
        on_failure: called when the hub has failed for good.
    """

    def __init__(
        self,
        hub: AsyncHub,
        limits: Limits,
        item: Callable[[Topic, Notify | Gap], Item],
        on_failure: Callable[[PubSubError], object],
    ) -> None:
        self.logs: dict[str, Log] = {}
        self._hub = hub
        self._limits = limits
        self._item = item
        self._on_failure = on_failure
        self._followers: Counter[str] = Counter()
        self._left_at: dict[str, float] = {}
        self._live: set[str] = set()
        self._opening = asyncio.Lock()
        self._subscription: AsyncSubscription[Notify] | None = None
        self._pump: asyncio.Task[None] | None = None

    async def follow(self, name: str) -> Log:
        """The log of a channel that is listened to. To be left again.

        Raises:
            PubSubError: as when a subscription is entered.
        """
        self._followers[name] += 1
        self._left_at.pop(name, None)
        try:
            if name not in self._live:
                await (await self._entered()).add(name)
                self._live.add(name)
        except BaseException:
            self.leave(name)
            raise
        return self.logs.setdefault(name, Log(Topic("channel", name), self._limits.buffer, self._limits.buffer_bytes))

    def leave(self, name: str) -> None:
        """One of those who follow a channel does not any more."""
        self._followers[name] -= 1
        if not self._followers[name]:
            del self._followers[name]
            if name in self._live:
                self._left_at[name] = monotonic()
            else:  # it could not be listened to, and whoever asks for it again is somebody new
                self.logs.pop(name, None)

    async def tidy(self) -> None:
        """Unsubscribe from what nobody has followed for a while."""
        now, removed = monotonic(), 0
        for name, left_at in list(self._left_at.items()):
            if self._left_at.get(name) == left_at and now > left_at + LINGER and removed < AT_ONCE:
                removed += 1  # each of which takes a turn of the event loop
                del self._left_at[name]
                self.logs.pop(name, None)
                if name in self._live and self._subscription is not None:
                    self._live.discard(name)
                    await self._subscription.remove(name)

    def __len__(self) -> int:
        """How many are listened to."""
        return len(self._followers) + len(self._left_at)

    def __contains__(self, name: str) -> bool:
        return name in self._followers or name in self._left_at

    def followers(self, name: str) -> int:
        """How many follow a channel."""
        return self._followers[name]

    async def close(self) -> None:
        """Listen no more."""
        if self._subscription is not None:
            self._subscription.close()
        if self._pump is not None:
            await self._pump

    async def _entered(self) -> AsyncSubscription[Notify]:
        async with self._opening:
            if self._subscription is None:
                subscription = self._hub.subscribe(capacity=AHEAD)
                await subscription.__aenter__()
                self._subscription = subscription
                self._pump = asyncio.create_task(self._run(subscription))
            return self._subscription

    async def _run(self, subscription: AsyncSubscription[Notify]) -> None:
        try:
            async for event in subscription:
                names = event.channels if isinstance(event, Gap) else (event.channel,)
                for name in names:
                    if (log := self.logs.get(name)) is not None:
                        log.append(self._item(log.topic, event))
                        await log.taken()
        except PubSubError as error:
            if not isinstance(error, SubscriptionClosed):
                self._on_failure(error)
        finally:
            self._subscription = None
            self._live.clear()
