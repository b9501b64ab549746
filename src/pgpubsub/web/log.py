"""The latest of one channel or stream, for all clients that follow it.

Each client has a place in it and takes what is behind that, so what a slow one has not taken costs nothing: it is there
once, and goes when it is old. A client whose place has gone by then is told so, or reads it from the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from itertools import islice

from pgpubsub.events import Gap
from pgpubsub.web.items import Form, Item, Topic

__all__ = ["Log"]

AT_ONCE = 256
"""Clients that are woken before others of the event loop have their turn."""

CHUNKS, CHUNK_BYTES = 64, 64 << 10
"""How many encoded chunks, and of how many bytes at most, are kept until the next item comes: most clients are at the
same place."""


class Log:
    """See the module. Places are numbers: how many items came before.

    Args:
        topic: whose items these are.
        capacity: items that are kept, and up to a quarter more.
        capacity_bytes: bytes that they have together, about, likewise.
    """

    __slots__ = (
        "_capacity",
        "_capacity_bytes",
        "_chunks",
        "_items",
        "_loop",
        "_offered",
        "_offered_bytes",
        "_waiting",
        "_waking",
        "bytes",
        "first",
        "incomplete",
        "topic",
    )

    def __init__(self, topic: Topic, capacity: int, capacity_bytes: int) -> None:
        self.topic = topic
        self.first = 0
        """The place of the oldest item that is still there."""
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Callable[[], object], int] = {}  # and where they are, in the order in which they came
        self._waking = False
        self.bytes = 0
        """That its items have together, about."""
        self._items: list[Item] = []
        self.incomplete = 0
        """The place behind the newest gap of which nobody knows how many are missing."""
        self._offered = 0  # where those who wait were given their turn last
        self._offered_bytes = 0  # that came since
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._chunks: dict[tuple[int, int, Form], bytes] = {}

    @property
    def end(self) -> int:
        """The place behind the newest item."""
        return self.first + len(self._items)

    def append(self, item: Item) -> None:
        """Put in the newest item."""
        self._items.append(item)
        if isinstance(item.event, Gap) and item.event.count is None:
            self.incomplete = self.end
        self.bytes += item.size
        self._offered_bytes += item.size
        self._chunks.clear()
        if len(self._items) > self._capacity * 5 // 4 or self.bytes > self._capacity_bytes * 5 // 4:
            self._make_room()
        self.wake()

    def call(self, wake: Callable[[], object]) -> None:
        """Have `wake` called, once, when something comes that is not there yet."""
        self._waiting.pop(wake, None)  # so that those who have got less are before those who have got more
        self._waiting[wake] = self.end

    def do_not_call(self, wake: Callable[[], object]) -> None:
        """It is not to be called any more."""
        self._waiting.pop(wake, None)

    def wake(self) -> None:
        """Have those look who wait: some at a time, so that what comes meanwhile comes to the others with it."""
        if not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake_some)

    async def taken(self) -> None:
        """Let those who wait take what is there, before more comes: once a quarter of what is kept is new."""
        if self.end - self._offered < self._capacity // 4 and self._offered_bytes < self._capacity_bytes // 4:
            return
        while self._waking:
            await asyncio.sleep(0)
        await asyncio.sleep(0)  # who was woken has its turn
        self._offered, self._offered_bytes = self.end, 0

    def items(self, place: int, end: int) -> Sequence[Item]:
        """Those from `place` on, which is not before `first`, up to `end`."""
        return self._items[place - self.first : end - self.first]

    def chunk(self, place: int, end: int, form: Form) -> bytes:
        """The same, encoded."""
        key = (place, end, form)
        chunk = self._chunks.get(key)
        if chunk is None:
            chunk = b"".join([item.encoded(form) for item in self.items(place, end)])
            if len(self._chunks) < CHUNKS and len(chunk) <= CHUNK_BYTES:
                self._chunks[key] = chunk
        return chunk

    def behind(self, item_place: str) -> int | None:
        """The place behind the item whose `place` this is; None: it is not here."""
        return next(
            (number for number, item in enumerate(self._items, self.first + 1) if item.place == item_place), None
        )

    def forget(self, place: int) -> None:
        """Nobody needs what is before `place`, at most `end`, any more."""
        gone = place - self.first
        if gone > 0:
            self.bytes -= sum([item.size for item in self._items[:gone]])
            del self._items[:gone]
            self.first = place

    def stir(self) -> None:
        """Have all look who wait."""
        self._waiting = dict.fromkeys(self._waiting, -1)
        self.wake()

    def _wake_some(self) -> None:
        end = self.end
        for wake in list(islice(self._waiting, AT_ONCE)):
            if self._waiting[wake] == end:  # and so are all behind it
                break
            del self._waiting[wake]
            wake()
        else:
            if self._waiting:
                self._loop.call_soon(self._wake_some)
                return
        self._waking = False

    def _make_room(self) -> None:
        """Forget what is too much, which is a quarter, so that this is seldom; but not the newest."""
        gone, bytes = 0, self.bytes
        while gone < len(self._items) - 1 and (
            len(self._items) - gone > self._capacity or bytes > self._capacity_bytes
        ):
            bytes -= self._items[gone].size
            gone += 1
        self.forget(self.first + gone)
