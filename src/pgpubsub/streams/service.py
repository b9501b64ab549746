"""What a hub has for its streams: a connection that appends, a few that read, the watch for readers, and who trims."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from functools import partial
from typing import Any, Protocol, Unpack

from pgpubsub.core.entries import NewEntry, hint_channel
from pgpubsub.core.grouping import Call
from pgpubsub.core.position import END, Position, Start, stream_id
from pgpubsub.errors import Closed, ConcurrentUse, NotLive, PubSubError, SubscriptionClosed, again
from pgpubsub.hubs.addresses import Addresses, Conninfo
from pgpubsub.hubs.engine import Engine
from pgpubsub.streams.appending import Appending, AwaitedAppend
from pgpubsub.streams.description import Description, Options, traced
from pgpubsub.streams.inbox import Inbox
from pgpubsub.streams.reader import Reader
from pgpubsub.streams.retention import Trimmer
from pgpubsub.streams.session import Session
from pgpubsub.streams.source import Source
from pgpubsub.streams.statements import Statements
from pgpubsub.streams.steps import Sink
from pgpubsub.streams.watch import Watch
from pgpubsub.tracing import Tracing

__all__ = ["Streams"]


PATIENCE = 1.0
"""Seconds that a page may take to be read when the hub is closed, before its connection is broken."""


class Finishing(Protocol):
    """Somebody who has something in hand."""

    async def finished(self) -> None:
        """Take no more, and wait until that is done."""


class Streams:
    """See the module. A `Part` of `engine`'s hub, in whose event loop all of it happens."""

    def __init__(self, engine: Engine, addresses: Addresses | None) -> None:
        self._engine = engine
        self._given = addresses
        self._statements: dict[str, Statements] = {}
        self._appending: dict[str, Appending] = {}
        self._sources: dict[Conninfo | None, Source] = {}
        self._watches: dict[tuple[Conninfo | None, str, float], Watch] = {}
        self._readers: dict[int, set[Reader]] = {}  # by stream
        self._tasks: set[asyncio.Task[None]] = set()
        self._finishing: list[Finishing] = []
        self._trimmers: dict[str, Trimmer] = {}  # by schema
        engine.attach(self)

    def describe(self, name: str, type: Any, encode: Any, decode: Any, **options: Unpack[Options]) -> Description[Any]:
        """A stream as `AsyncHub.stream` is asked for it."""
        addresses = self._addresses
        if (read_conninfo := options.get("read_conninfo")) is not None:
            addresses.check_reading(read_conninfo)
        return Description(name, type, encode, decode, max_payload=self._engine.max_payload, **options)

    @property
    def appended(self) -> int:
        """Entries appended."""
        return sum(one.sent for one in self._appending.values())

    # -- appending

    def append(self, schema: str, entries: Sequence[NewEntry], *, many: bool = False) -> Awaitable[Sequence[int]]:
        """Append entries in one transaction, and return their ids when it is committed. See `AsyncStream.append`, and
        for `many` `append_many`."""
        if self._engine.tracing is not None:
            return self._append_traced(self._engine.tracing, schema, entries, many)
        return self._append(schema, entries)

    async def _append_traced(
        self, tracing: Tracing, schema: str, entries: Sequence[NewEntry], many: bool
    ) -> Sequence[int]:
        with traced(tracing, entries, self._engine.max_payload, many=many) as carrying:
            return await self._append(schema, carrying)

    async def _append(self, schema: str, entries: Sequence[NewEntry]) -> Sequence[int]:
        self._engine.start()  # first: in a forked child there is no running loop to wait in
        call = AwaitedAppend(entries)
        await self._appender(schema).wait_for(call)
        return ids_of(call)

    def submit(self, schema: str, call: Call[NewEntry]) -> None:
        """The same for somebody who does not wait in the loop, and is told."""
        self._appender(schema).submit(call)

    def withdraw(self, schema: str, call: Call[NewEntry]) -> None:
        """Nobody waits for `call` any more."""
        self._appender(schema).withdraw(call)

    # -- reading

    async def open(self, description: Description[Any], inbox: Inbox, after: Position | Start, follow: bool) -> str:
        """Begin to read, and return the position where that begins."""
        self._engine.start()
        reader = self._reader(description, inbox, after)
        # First: what comes from now on is hinted at.
        await self._engine.open(inbox, [hint_channel(reader.stream)] if follow else [])
        try:
            # In a task of its own, that nobody cancels in the midst of a statement: cancellations get lost there (in
            # Python 3.11's `wait_for`), and what is under way on the connection is not known any more.
            beginning = self.spawn(reader.begin(at_end=after is END))
            await asyncio.wait({beginning}, timeout=self._engine.send_timeout)
            if inbox.closed is not None:
                raise again(inbox.closed)
            if not beginning.done():
                within = f"within {self._engine.send_timeout:g} s"
                why = reader.error or "the server has not answered"
                raise NotLive(f"stream {description.name!r} could not be read {within}: {why}") from reader.error
            beginning.result()
            self.spawn(reader.run(follow))
        except BaseException:
            self._engine.leave(inbox, SubscriptionClosed("the reader could not be entered"))
            raise
        return reader.position.encode()

    def leave(self, inbox: Inbox, why: Exception) -> None:
        """End a reading."""
        self._engine.leave(inbox, why)

    def forsake(self, inbox: Inbox) -> None:
        """Nobody has the reader any more. For destructors, which run in any thread."""
        self._engine.forsake(inbox)

    def reader(
        self,
        description: Description[Any],
        start: Position | None,
        sink: Sink,
        statements: Statements | None = None,
    ) -> Reader:
        """One that has not begun. The hub's own appends wake it, until `forget`."""
        source = self._source(description.read_conninfo)
        statements = statements or self.statements(description.schema)
        watch = self._watch(description.read_conninfo, source, statements, description.poll_interval)
        stream = stream_id(description.name)
        reader = Reader(
            description.name,
            stream,
            start,
            sink,
            source,
            statements,
            watch,
            self._engine.observe,
            in_group=bool(statements.parameters),
        )
        self._trim_some_time(description.schema)
        self._readers.setdefault(stream, set()).add(reader)
        return reader

    async def handling_address(self) -> str:
        """The connection string for one on which handlers do their work."""
        return await self._addresses.handling()

    def lent(self, schema: str) -> AbstractAsyncContextManager[Session]:
        """A connection to ask something."""
        return self._source(None).session(self.statements(schema))

    def desk(self, schema: str) -> AbstractAsyncContextManager[Session]:
        """A connection of one's own, to write down what becomes of entries."""
        return self._source(None).own(self.statements(schema))

    def forget(self, reader: Reader) -> None:
        """It was stopped."""
        readers = self._readers.get(reader.stream, set())
        readers.discard(reader)
        if not readers:
            self._readers.pop(reader.stream, None)

    def _reader(self, description: Description[Any], inbox: Inbox, after: Position | Start) -> Reader:
        loop = asyncio.get_running_loop()
        reader = self.reader(description, after if isinstance(after, Position) else None, inbox)

        def feed() -> None:
            with suppress(RuntimeError):  # the loop has ended, and so has the reading
                loop.call_soon_threadsafe(reader.feed)

        def on_gap() -> None:
            if description.read_conninfo is None:
                self.cut()
            reader.retry()

        def end() -> None:
            reader.stop()
            self.forget(reader)

        inbox.on_hint, inbox.on_gap, inbox.on_low, inbox.on_end = reader.wake, on_gap, feed, end
        inbox.own_pid = lambda: self._engine.sending_pid
        inbox.standing = lambda: None if reader.reading.in_midst else reader.position
        return reader

    def cut(self) -> None:
        """The server that we listen to is not there any more: whoever waits for an answer of its waits in vain."""
        self._source(None).cut()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do `work`, and wait for it when the hub is closed."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # it is known, even if nobody waits any more

    def _on_appended(self, stream: int) -> None:
        """Tell our own readers at once. Others are told by a notification."""
        for reader in self._readers.get(stream, ()):
            reader.wake()

    # -- a part of the hub

    @contextmanager
    def to_finish(self, one: Finishing) -> Iterator[None]:
        """When the hub is closed, what it has in hand is to be finished first."""
        self._finishing.append(one)
        try:
            yield
        finally:
            self._finishing.remove(one)

    async def drain(self) -> None:
        for one in list(self._finishing):
            await one.finished()
        for appending in self._appending.values():
            await appending.drain()

    async def close(self) -> None:
        for trimmer in self._trimmers.values():
            trimmer.stop()
        if self._tasks:  # which have been told to stop
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        self._end_all()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE)
        trimming = {trimmer.task for trimmer in self._trimmers.values()}
        for task in self._tasks | trimming:
            task.cancel()
        watching = {watch.task for watch in self._watches.values() if watch.task is not None}
        if left := self._tasks | watching | trimming:
            await asyncio.wait(left, timeout=PATIENCE)

    def end(self, error: PubSubError, for_receivers: Exception) -> None:
        for appending in self._appending.values():
            appending.fail(error)
        if not isinstance(error, Closed):  # of which nobody may come to `close`
            self._end_all()

    def _end_all(self) -> None:
        for trimmer in self._trimmers.values():
            trimmer.stop()
        for watch in self._watches.values():
            watch.end()
        for source in self._sources.values():
            source.end()

    def disown(self, error: ConcurrentUse) -> None:
        for appending in self._appending.values():
            appending.disown()
        for source in self._sources.values():
            source.disown()

    # -- inside

    @property
    def _addresses(self) -> Addresses:
        if self._given is None:
            raise PubSubError("there are no streams without a database: use a hub of a real server")
        return self._given

    def statements(self, schema: str) -> Statements:
        """Those for a schema."""
        if schema not in self._statements:
            self._statements[schema] = Statements(schema)
        return self._statements[schema]

    def _appender(self, schema: str) -> Appending:
        if schema not in self._appending:
            self._appending[schema] = Appending(
                self._engine, self._addresses.appending, self.statements(schema), self._on_appended
            )
            self._trim_some_time(schema)
        return self._appending[schema]

    def _trim_some_time(self, schema: str) -> None:
        if schema not in self._trimmers:
            self._trimmers[schema] = Trimmer(self._source(None), self.statements(schema))

    def _source(self, conninfo: Conninfo | None) -> Source:
        if conninfo not in self._sources:
            self._sources[conninfo] = Source(partial(self._addresses.reading, conninfo))
        return self._sources[conninfo]

    def _watch(self, conninfo: Conninfo | None, source: Source, statements: Statements, interval: float) -> Watch:
        key = (conninfo, statements.schema, interval)
        if key not in self._watches:
            self._watches[key] = Watch(source, statements, interval)
        return self._watches[key]


def ids_of(call: Call[NewEntry]) -> Sequence[int]:
    """The ids of what was appended."""
    return [id for id in call.returned if id is not None]
