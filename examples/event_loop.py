"""Follow a `PubSub` from an event loop, here asyncio's, across reconnections.

Two things are easily got wrong. What has been read already does not make the socket readable again, so
`get_events()` is called whenever the connection has changed too. And a new connection may have the number of the
old one's descriptor, which the loop has forgotten with it, so it is the connection that is compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pgpubsub

RETRY = 0.1
"""Seconds between looks at a reconnection; `get_events()` keeps to the delays by itself."""


class Follower:
    """Calls `on_event` in the loop for every notification and gap."""

    def __init__(self, pubsub: pgpubsub.PubSub, on_event: Callable[[pgpubsub.Notify | pgpubsub.Gap], object]) -> None:
        self.pubsub = pubsub
        self.on_event = on_event
        self.loop = asyncio.get_running_loop()
        self.watched: tuple[int, object] = (-1, None)
        self.poll()

    def poll(self) -> None:
        for event in self.pubsub.get_events(yield_gaps=True):
            self.on_event(event)
        now = (self.pubsub.fileno(), self.pubsub.conn)
        if now[0] == -1:
            self.watch(-1, None)
            self.loop.call_later(RETRY, self.poll)
        elif now != self.watched:
            self.watch(*now)
            self.loop.call_soon(self.poll)

    def watch(self, descriptor: int, connection: object) -> None:
        if self.watched[0] != -1:
            self.loop.remove_reader(self.watched[0])
        if descriptor != -1:
            self.loop.add_reader(descriptor, self.poll)
        self.watched = (descriptor, connection)


async def main() -> None:
    """Send, lose the connection, and receive the gap and what comes after it."""
    events: asyncio.Queue[pgpubsub.Notify | pgpubsub.Gap] = asyncio.Queue()
    with pgpubsub.connect(user="postgres", database="test") as sender:
        pubsub = pgpubsub.connect(user="postgres", database="test")
        pubsub.listen("news")
        follower = Follower(pubsub, events.put_nowait)
        for payload in ("one", "two"):
            sender.notify("news", payload)
            print(await events.get())
            sender.conn.execute("SELECT pg_terminate_backend(%s)", [pubsub.backend_pid])
            gap = await events.get()
            assert isinstance(gap, pgpubsub.Gap)
            print("a gap on", *gap.channels)
        sender.notify("news", "three")
        print(await events.get())
        follower.watch(-1, None)
        pubsub.close()


if __name__ == "__main__":
    asyncio.run(main())
