"""Writes messages and members of groups to the database.

What is to be written while something else is being written goes out together, in one statement for what is of one kind.
One queue for all keeps the order in which a task does one thing after the other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from channels.exceptions import ChannelFull

from pgpubsub.contrib.channels.line import Line
from pgpubsub.contrib.channels.statements import Statements
from pgpubsub.errors import Closed, SendUncertain
from pgpubsub.logs import EventLog
from pgpubsub.threads.loop_thread import AwaitedCall

__all__ = ["Write", "Writer"]

logger = EventLog("channels")

ROWS = 1000
"""That go in one statement at most."""

BYTES = 8 * 1024 * 1024
"""Of payload that go in one statement, unless the first alone has more."""

Kind = Literal["post", "add", "discard", "give_back", "flush"]


class Write(AwaitedCall[None]):
    """Something to be written, and the task that waits until it is.

    Args:
        writer: who does it.
        kind: what: the attribute of `Statements` that does it for many.
        values: the parameters, for this one.
        size: bytes.
    """

    def __init__(self, writer: Writer, kind: Kind, *values: Any, size: int = 0) -> None:
        super().__init__()
        self.kind = kind
        self.values = values
        self.size = size
        self.withdrawn = False
        self._writer = writer
        self._outcome: Exception | None = Closed("the channel layer was closed")

    def start(self) -> None:
        self._writer.submit(self)

    def cancel(self) -> None:
        self.withdrawn = True

    def tell(self, outcome: Exception | None) -> None:
        """The outcome: None when it is written."""
        self._outcome = outcome
        self.end()

    def result(self) -> None:
        if self._outcome is not None:
            raise self._outcome


class Writer:
    """See the module.

    Args:
        line: the connection.
        statements: on the tables.
        expiry: seconds that a message is kept. group_expiry: the same for a member of a group.
        on_flushed: called, when all was removed, with the id up to which there is nothing any more.
    """

    def __init__(
        self,
        line: Line,
        statements: Statements,
        expiry: float,
        group_expiry: float,
        on_flushed: Callable[[int], None],
    ) -> None:
        self._line = line
        self._statements = statements
        self._on_flushed = on_flushed
        self._first = {"post": [expiry], "add": [group_expiry]}
        self._writes: deque[Write] = deque()
        self._due = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, write: Write) -> None:
        """Do it with the next ones."""
        self._writes.append(write)
        self._due.set()
        self._idle.clear()

    async def idle(self) -> None:
        """Wait until all is written."""
        await self._idle.wait()

    async def run(self) -> None:
        """Write, until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            while batch := self._next_batch():
                try:
                    await self._carry_out(batch)
                except Exception as error:
                    for write in batch:
                        write.tell(error)
                except asyncio.CancelledError:
                    for write in batch:
                        write.tell(SendUncertain("the channel layer was closed before the server had answered"))
                    raise
            self._idle.set()

    def _next_batch(self) -> list[Write]:
        """The next ones of the same kind."""
        batch: list[Write] = []
        size = 0
        while self._writes and len(batch) < ROWS:
            write = self._writes[0]
            if batch and (write.kind != batch[0].kind or size + write.size > BYTES):
                break
            self._writes.popleft()
            if not write.withdrawn:
                size += write.size
                batch.append(write)
        return batch

    async def _carry_out(self, batch: Sequence[Write]) -> None:
        kind = batch[0].kind
        statement, values = self._statement(batch)
        rows = await self._line.run(
            statement, [*self._first.get(kind, ()), *values], repeatable=kind not in ("post", "give_back")
        )
        if kind == "flush":
            self._on_flushed(rows[0][0])
        full: dict[int, tuple[int, int]] = {}
        if kind == "post":
            full = {place: (refused, addresses) for place, refused, addresses, _ in rows if refused}
        for place, write in enumerate(batch, start=1):
            write.tell(_over_capacity(write, *full[place]) if place in full else None)

    def _statement(self, batch: Sequence[Write]) -> tuple[str, list[Any]]:
        """With its parameters: those of one message by itself take a third of the time of one for many."""
        first = batch[0]
        if first.kind == "post" and len(batch) == 1:
            group, channel, address, capacity, payload = first.values
            if group is None:
                return self._statements.post_one, [channel, address, capacity, payload]
            return self._statements.post_to_group, [group, payload]
        columns = zip(*(write.values for write in batch), strict=True)
        return getattr(self._statements, first.kind), [list(column) for column in columns]


def _over_capacity(write: Write, refused: int, addresses: int) -> ChannelFull | None:
    group, channel, *_ = write.values
    if group is None:
        return ChannelFull(f"the channel {channel!r} is over capacity")
    logger.info(
        "receivers_full",
        "%(refused)d of %(addresses)d receivers of group %(group)s are over capacity",
        refused=refused,
        addresses=addresses,
        group=group,
    )
    return None
