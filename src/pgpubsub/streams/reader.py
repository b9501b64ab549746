"""Reads a stream, as `core.reading` decides, and keeps a little ahead of whoever takes its entries.

When nothing is due it waits for a hint, or for the watch to find something. A connection that breaks is no loss here:
it goes on over the next, once that has shown that it has the same history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from pgpubsub.core.position import Position
from pgpubsub.core.reading import Reading
from pgpubsub.errors import ConnectionLost, PubSubError, SubscriptionClosed
from pgpubsub.logs import EventLog
from pgpubsub.randomness import new_delays
from pgpubsub.status import Observation
from pgpubsub.streams.source import Source
from pgpubsub.streams.statements import Statements
from pgpubsub.streams.steps import Lagging, Sink, Steps
from pgpubsub.streams.watch import Watch

__all__ = ["Reader"]

logger = EventLog("streams")


class Reader:
    """See the module.

    Args:
        name: the stream's.
        stream: its id.
        start: where to begin; None at the oldest entry.
        sink: gets the entries.
        source: of connections.
        watch: tells when there may be something without a hint.
        observe: is told of gaps.
        in_group: whether it reads for one, which goes on from what is stored whatever it missed.
    """

    def __init__(
        self,
        name: str,
        stream: int,
        start: Position | None,
        sink: Sink,
        source: Source,
        statements: Statements,
        watch: Watch,
        observe: Callable[[Observation], None],
        *,
        in_group: bool = False,
    ) -> None:
        self.reading = Reading(stream, start)
        self.stream = stream
        self.error: PubSubError | None = None
        """Why it could not read when it tried last."""
        self._name = name
        self._sink = sink
        self._source = source
        self._statements = statements
        self._watch = watch
        self._steps = Steps(name, stream, self.reading, sink, statements, observe, in_group=in_group)
        self._woken = asyncio.Event()
        self._hungry = asyncio.Event()
        self._hungry.set()
        self._reachable = asyncio.Event()
        self._delays = new_delays()
        self._stopped = False

    @property
    def position(self) -> Position:
        """Where it stands."""
        return self.reading.position

    def wake(self) -> None:
        """There may be something new."""
        self._woken.set()

    def feed(self) -> None:
        """There is room for more."""
        self._hungry.set()

    def retry(self) -> None:
        """The server can be reached again."""
        self._reachable.set()
        self.wake()

    def stop(self) -> None:
        """Nobody wants more. A statement under way is left to come to its end."""
        self._stopped = True
        self.retry()
        self.feed()

    async def begin(self, *, at_end: bool) -> None:
        """Make sure that there is a stream to read and that the position is one of its, or go to its end."""
        if at_end:
            self.reading.on_many()
        while not self._stopped:
            if at_end:
                await self._advance()
                if self.reading.position.target is not None:
                    self.reading.on_passed_over()
                if not self.reading.in_midst and self.error is None:
                    return
            elif await self._meet_any():
                return

    async def run(self, follow: bool) -> None:
        """Read until it is stopped, or else to the end."""
        try:
            while follow and await self._until_hungry():
                if not await self._advance() and not self._stopped:
                    await self._watch.wait(self)
            await self._finish()
            self.reading.on_many()  # how far that is, is decided now
            await self._finish()
            self._sink.end(SubscriptionClosed("the reader has come to the end"))
        except PubSubError as error:
            self._sink.end(error)
        except Exception as error:
            logger.exception("reader_failed", "reading stream %(stream)r failed", stream=self._name)
            failure = PubSubError(f"reading stream {self._name!r} failed, by a fault of our own: {error!r}")
            failure.__cause__ = error
            self._sink.end(failure)

    async def _finish(self) -> None:
        while self.reading.in_midst and await self._until_hungry():
            if not await self._advance() and self.reading.behind:
                await self._watch.wait(self)

    async def _until_hungry(self) -> bool:
        """Wait until there is room for more. False: nobody wants more."""
        if self._sink.has_enough and not self._stopped:
            self._hungry.clear()
        await self._hungry.wait()
        return not self._stopped

    async def until_woken(self) -> None:
        """Wait for `wake`."""
        await self._woken.wait()

    # -- one step

    async def _advance(self) -> bool:
        """Take a step; whether another one is to be taken at once. If not, all was read that there was when it began,
        and since then we would have been woken."""
        reading = self.reading
        if not reading.in_midst or reading.behind:
            self._woken.clear()  # what wakes us from now on may be news
        try:
            async with self._source.session(self._statements, spare=self.error is not None) as session:
                await self._steps.take(session)
        except ConnectionLost as error:
            await self._pause(error)
            return True
        if self.error is not None:
            self.error = None
            self._delays = new_delays()
        return reading.in_midst and not reading.behind

    async def _meet_any(self) -> bool:
        try:
            async with self._source.session(self._statements, spare=self.error is not None) as session:
                await self._steps.meet(session)
        except Lagging:  # it will come
            return True
        except ConnectionLost as error:
            await self._pause(error)
            return False
        return True

    async def _pause(self, error: ConnectionLost) -> None:
        self.error = error
        if self._stopped:
            return
        logger.warning("reading_interrupted", "stream %(stream)r: %(error)s", stream=self._name, error=error)
        delay = max(0.02, next(self._delays))
        if isinstance(error, Lagging):
            delay = min(delay, self._watch.interval)
        self._reachable.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._reachable.wait()
