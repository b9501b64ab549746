"""Carries messages between the channels of this process and the database, in an event loop of its own.

What waits for this process is fetched when a notification says that there is something, and whenever one may have been
missed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Any, Self

from pgpubsub.aio import AsyncHub, AsyncSubscription
from pgpubsub.contrib.channels.inboxes import Inboxes, Message
from pgpubsub.contrib.channels.line import Line, needs_somebody
from pgpubsub.contrib.channels.statements import Statements
from pgpubsub.contrib.channels.tidying import Tidier
from pgpubsub.contrib.channels.writing import Write, Writer
from pgpubsub.errors import Closed, ConnectionLost, NotLive, PubSubError
from pgpubsub.events import Gap, Notify
from pgpubsub.hubs.forking import on_fork
from pgpubsub.logs import EventLog, Names
from pgpubsub.randomness import new_delays

__all__ = ["Exchange"]

logger = EventLog("channels")

ROWS = 1000
"""That are fetched at once, of one address."""

BYTES = 8 * 1024 * 1024
"""Of payload that are fetched at once, of one address, unless the first alone has more."""

LAST = 1.0
"""Seconds that what is under way may take when the layer is closed."""

FOR_FETCHING = """
SELECT pg_catalog.set_config('plan_cache_mode', 'force_generic_plan', false),
       pg_catalog.set_config('synchronous_commit', 'off', false)
"""
"""There is one good plan for fetching, and to make it takes longer than to carry it out."""


class Exchange:
    """See the module. All of it but `inboxes` belongs to its event loop.

    Args:
        hub: tells of messages.
        address: returns the connection string of the others.
        statements: on the tables.
        inboxes: where what is fetched goes.
        expiry: seconds that a message is kept. group_expiry: the same for a member of a group.
        patience: seconds that anything may take during an outage.
    """

    def __init__(
        self,
        hub: AsyncHub,
        *,
        address: Callable[[], Awaitable[str]],
        statements: Statements,
        inboxes: Inboxes,
        expiry: float,
        group_expiry: float,
        patience: float,
    ) -> None:
        self.inboxes = inboxes
        self._hub = hub
        self._statements = statements
        writing = Line(address, statements.schema, patience)
        tidying = Line(address, statements.schema, patience)
        self._fetching = Line(address, statements.schema, patience, FOR_FETCHING)
        self._lines = (writing, self._fetching, tidying)
        self.writer = Writer(writing, statements, expiry, group_expiry, self._on_flushed)
        self._tidier = Tidier(tidying, statements, inboxes, expiry, self._tidy_up)
        self._hints: AsyncSubscription[Notify[str]] | None = None
        self._beginning = asyncio.Lock()
        self._addresses: dict[str, asyncio.Task[None]] = {}
        self._by_hint: dict[str, str] = {}
        self._stale: set[str] = set()  # addresses where there may be something
        self._maybe_flushed = False  # by another process
        self._look = asyncio.Event()
        self._returning: Counter[str] = Counter()  # messages that are being given back, by address
        self._flushed = 0  # while something is fetched, the id up to which nothing of it is to be delivered
        self._dropped: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[Any]] = []
        self._closing = False
        on_fork(self)

    # -- the life of it

    def start(self) -> None:
        """In the loop, before anything else."""
        for work in (self._fetch, self.writer.run, self._tidier.sweep, self._tidier.vacuum):
            self._begin(work)

    async def close(self) -> None:
        """Let what is under way arrive, give back what others may take, and end."""
        self._closing = True
        self._look.set()
        await asyncio.wait(self._tasks[:1], timeout=LAST)
        for address in self._addresses:
            self.give_back(address, wanted=0)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await self.writer.idle()
        self.inboxes.close(Closed("the channel layer was closed"))
        tasks = [*self._tasks, *self._addresses.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._hints is not None:
            self._hints.close()
        await self._hub.close(LAST)
        for line in self._lines:
            line.close()

    def fail(self, error: PubSubError) -> None:
        """Its loop has been ended: tell all who wait, and who will."""
        self.inboxes.close(error)
        for line in self._lines:
            line.close()

    def disown(self, error: PubSubError) -> None:
        """See `hubs.forking`."""
        for line in self._lines:
            line.disown()

    def _begin(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(self._carry_out(work, *args)))

    async def _carry_out(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Without it, messages would not come any more, or not go: those who wait for some are told so."""
        try:
            await work(*args)  # made here: of a task that is cancelled before it begins, nothing is left to await
        except PubSubError as error:  # the hub has failed for good
            self.inboxes.close(error)
        except Exception as error:
            logger.exception("layer_failed", "a fault of our own, which has ended the channel layer")
            self.inboxes.close(error)

    # -- being told

    async def attend(self, address: str) -> None:
        """Listen for what is sent to an address, and look what is there. Returns when the server listens, however long
        it cannot be reached.

        Raises:
            PubSubError: it never will, as behind a pooler in transaction mode.
        """
        task = self._addresses.get(address)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._addresses[address] = asyncio.get_running_loop().create_task(self._attend(address))
        await asyncio.shield(task)
        self._look.set()

    async def _attend(self, address: str) -> None:
        hint = self._statements.hint(address)
        self._by_hint[hint] = address
        for delay in new_delays():
            await asyncio.sleep(delay)
            try:
                await (await self._listening()).add(hint)
                break
            except (NotLive, ConnectionLost) as error:
                logger.warning("listening_failed", "cannot listen for messages at present: %(error)s", error=error)
        self._stale.add(address)

    async def _listening(self) -> AsyncSubscription[Notify[str]]:
        async with self._beginning:
            if self._hints is None:
                hints = await self._hub.subscribe(self._statements.flushed, overflow="latest").__aenter__()
                self._begin(self._listen, hints)
                self._hints = hints
            return self._hints

    async def _listen(self, hints: AsyncSubscription[Notify[str]]) -> None:
        async for event in hints:
            self._on_hint(event)

    def _on_hint(self, event: Notify[str] | Gap) -> None:
        """Only that there may be something is believed: anybody may notify."""
        if isinstance(event, Gap):
            self._stale.update(self._addresses)
            self._maybe_flushed = True
        elif event.channel == self._statements.flushed:
            self._maybe_flushed = True
        elif (address := self._by_hint.get(event.channel)) is not None:
            self._stale.add(address)
        self._look.set()

    def _on_flushed(self, id: int) -> None:
        self._flushed = id
        self.inboxes.drop(id)

    # -- fetching

    async def _fetch(self) -> None:
        delays = new_delays()
        while not self._closing:
            await self._look.wait()
            self._look.clear()
            rooms = {address: self._room(address) for address in self._stale if not self._returning[address]}
            rooms = {address: room for address, room in rooms.items() if room}
            if not rooms and not self._maybe_flushed:
                continue
            self._stale.difference_update(rooms)
            try:
                await self._drop_flushed()
                if rooms:
                    await self._take(rooms)
                delays = new_delays()
            except PubSubError as error:
                self._stale.update(rooms)
                if needs_somebody(error):
                    self.inboxes.fail(error)
                else:
                    logger.warning(
                        "fetching_failed", "messages could not be fetched, and will be: %(error)s", error=error
                    )
                await asyncio.sleep(next(delays))
                self._look.set()

    async def _drop_flushed(self) -> None:
        if not self._maybe_flushed:
            return
        self._maybe_flushed = False
        try:
            ((id,),) = await self._fetching.run(self._statements.up_to, [], repeatable=True)
        except PubSubError:
            self._maybe_flushed = True
            raise
        if id is not None:
            self.inboxes.drop(id)

    def _room(self, address: str) -> int:
        """What is for this process alone is taken at once. Of what others may take, one for each task that waits."""
        return ROWS if address.endswith("!") else self.inboxes.room(address)

    async def _take(self, rooms: dict[str, int]) -> None:
        self._flushed = 0
        rows = await self._fetching.run(self._statements.fetch, [list(rooms), list(rooms.values()), BYTES])
        self._tidier.on_taken(len(rows))
        now = monotonic()
        left = dict(rooms)
        sizes: Counter[str] = Counter()
        messages = []
        for address, channels, payload, remaining, id in rows:
            left[address] -= 1
            sizes[address] += len(payload)
            if id > self._flushed:
                messages += [Message(id, channel, payload, now + remaining) for channel in channels]
        self._deliver(messages)
        for address in rooms:
            self.give_back(address)  # whoever waited may have left meanwhile
        if more := [address for address in rooms if left[address] <= 0 or sizes[address] >= BYTES]:
            self._stale.update(more)
            self._look.set()

    def _deliver(self, messages: Iterable[Message]) -> None:
        if full := self.inboxes.put(messages):
            if not self._dropped:  # at once, and the others when it looks next
                logger.warning(
                    "messages_dropped",
                    "messages are dropped, as their channels are over capacity: %(channels)s",
                    channels=_Some(full),
                )
            self._dropped.update(full)

    # -- giving back

    def give_back(self, address: str, wanted: int | None = None) -> None:
        """Let other processes have what nobody here waits for any more, if it is not for this one alone.

        Args:
            wanted: how many wait, if it is not to be looked up.
        """
        if not address.endswith("!"):
            for message in self.inboxes.take_unwanted(address, wanted):
                self._give_back(message)

    def _give_back(self, message: Message) -> None:
        self._returning[message.channel] += 1  # until then nothing newer is fetched, which would overtake it
        values = message.id, message.channel, message.payload, message.expires - monotonic()
        self.writer.submit(_GiveBack(self, message, values))

    def on_given_back(self, message: Message, error: Exception | None) -> None:
        """What became of it."""
        self._returning[message.channel] -= 1
        self._look.set()
        if isinstance(error, NotLive) and message.expires > monotonic() and not self._closing:
            self._give_back(message)
        elif error is not None:
            logger.warning(
                "giving_back_failed",
                "a message on %(channel)s that nobody took may be lost: %(error)s",
                channel=message.channel,
                error=error,
            )

    # -- now and then

    async def _tidy_up(self) -> None:
        if self._dropped:
            number = self._dropped.total()
            logger.warning(
                "messages_dropped_in_all",
                "%(count)d messages were dropped in all, on %(channels)s",
                count=number,
                channels=_Some(self._dropped),
            )
            self._dropped.clear()
        for address, task in list(self._addresses.items()):  # listen no more where nobody receives
            if not address.endswith("!") and task.done() and not self.inboxes.is_used(address):
                del self._addresses[address]
                self._stale.discard(address)
                hint = self._statements.hint(address)
                del self._by_hint[hint]
                if self._hints is not None:
                    with suppress(PubSubError):
                        await self._hints.remove(hint)


class _GiveBack(Write):
    """A message that is stored again."""

    def __init__(self, exchange: Exchange, message: Message, values: tuple[Any, ...]) -> None:
        super().__init__(exchange.writer, "give_back", *values, size=len(message.payload))
        self._exchange = exchange
        self._message = message

    def tell(self, outcome: Exception | None) -> None:
        self._exchange.on_given_back(self._message, outcome)


class _Some(Names):
    """Channels, of which a sentence names three."""

    __slots__ = ()

    def __new__(cls, channels: Iterable[str]) -> Self:
        return super().__new__(cls, sorted(set(channels)))

    def __str__(self) -> str:
        return ", ".join(self[:3]) + (f" and {len(self) - 3} more" if len(self) > 3 else "")
