"""A membership in a group, as the database keeps it: what a member asks and says, a statement each."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from pgpubsub.core.position import stream_id
from pgpubsub.core.slots import Item, Place, Write
from pgpubsub.drivers.arrays import Column
from pgpubsub.errors import ConnectionLost
from pgpubsub.groups.claims import Apart
from pgpubsub.groups.doubts import Doubt
from pgpubsub.groups.hints import group_id
from pgpubsub.groups.statements import (
    GroupStatements,
    parameters_of_parked,
    parameters_of_place,
    parameters_of_slots,
    place_of,
)
from pgpubsub.streams.rows import event
from pgpubsub.streams.session import Session
from pgpubsub.streams.statements import as_array

__all__ = ["Due", "Ended", "Members", "Membership", "Taken", "Written"]

ANSWER = 30.0
"""Seconds that the server may take for a statement."""

PROOF = 5.0
"""Seconds that it may take for one that does nothing, and waits for nothing."""

NAME = f"{socket.gethostname()} {{}}"


class Ended(Exception):
    """The membership has ended: its lease was over, the server crashed, or the group was set elsewhere."""


class Members(NamedTuple):
    """Who takes part."""

    ids: Sequence[str]
    free: int
    """Slots that nobody has."""
    removed: int
    """Entries that former members had in hand, and that are gone."""


class Taken(NamedTuple):
    """Slots that have become this member's."""

    places: Sequence[tuple[int, Place]]
    blocked: Sequence[str]
    """Keys of which entries wait in them."""


class Due(NamedTuple):
    """Parked entries that are to be handed out."""

    items: Sequence[Item]
    following: float | None
    """Seconds until another one is due, if any will be within a day."""


class Written(NamedTuple):
    """What the database says when something was written down."""

    waiting: Sequence[str]
    """Of the keys concerned, those of which entries wait."""
    missing: int
    """Entries that were to be parked, and are gone."""


class Membership:
    """See the module.

    Args:
        session: the connection, which nobody else uses.
        schema: where streams are installed.
        stream: the name of the one.
        group: the name of the group.
        lease: seconds after which others take over, unless this says that it lives.
    """

    def __init__(self, session: Session, schema: str, stream: str, group: str, lease: float) -> None:
        self._session = session
        self._statements = GroupStatements(schema)
        self._stream = stream
        self._name = group
        self._lease = lease
        self._group = group_id(stream_id(stream), group)
        self._apart = Apart(stream_id(stream))
        self._slot_rows: dict[int, str] = {}  # where they were written last
        self.id = ""
        """Which the database gives it."""

    async def exists(self) -> bool:
        """Whether anybody has been a member of the group before."""
        return bool((await self._first(self._statements.exists))[0])

    async def join(self, start: Place, former: str | None) -> None:
        """Become a member.

        Args:
            start: where a new group begins.
            former: a membership that is known to have ended.
        """
        (self.id,) = await self._first(
            self._statements.join,
            stream=self._stream,
            name=self._name,
            member=NAME.format(os.getpid()),
            lease=self._lease,
            pid=self._session.pid,
            former=former,
            **parameters_of_place(start),
        )

    async def tick(self) -> Members:
        """Stay one."""
        row = await self._first(self._statements.tick, member=self.id, lease=self._lease)
        if row is None:
            raise Ended
        return Members(*row)

    async def prove(self) -> None:
        """Make sure that the server is at the other end: the way to it may have been lost without a word."""
        await self._run("SELECT", {}, PROOF)

    async def take(self, wanted: int) -> Taken:
        """Take so many slots, if they are free."""
        rows = await self._rows(self._statements.take, member=self.id, wanted=wanted)
        slots = as_array([row[0] for row in rows])
        blocked = await self._rows(self._statements.blocked, slots=slots)
        return Taken([(number, place_of(*place)) for number, *place in rows], [key for (key,) in blocked])

    async def due(
        self, slots: Iterable[int], known: Iterable[int], most: int, most_bytes: int, but: Iterable[str]
    ) -> Due:
        """Parked entries that are due in these slots, except those that are known, and those of some keys: at most so
        many, and about so many bytes, but one at least."""
        *rows, following = await self._rows(
            self._statements.due,
            slots=as_array(slots),
            known=as_array(known),
            rows=most,
            bytes=most_bytes,
            but=Column("text", list(but)),
        )
        items = [
            Item(row[0], row[7], row[1], event(row, self._apart), 0, row[8], row[9], parked=True, size=row[10])
            for row in sorted(rows, key=lambda row: int(row[0]))
        ]
        return Due(items, None if following[8] is None else following[8] / 1000)

    async def write(self, write: Write) -> Written:
        """Write that down."""
        statement = self._statements.write_slots
        parameters = {"member": self.id, **parameters_of_slots(write, self._slot_rows)}
        if write.done or write.noted or write.started or write.parked:
            statement = self._statements.write_down
            parameters.update(parameters_of_parked(write, self._session.expressible))
        rows = await self._run(statement, parameters)
        if not rows:
            raise Ended
        waiting, missing, slot_rows = rows[0]
        self._slot_rows.update(zip([slot.number for slot in write.slots], slot_rows or (), strict=True))
        return Written(waiting, len(missing))

    async def fates(self, doubts: Sequence[Doubt]) -> Sequence[tuple[bool, bool]]:
        """Of each, whether its transaction is over, and what it acknowledged is there."""
        rows = await self._rows(
            self._statements.fates,
            xids=as_array([doubt.xid for doubt in doubts]),
            ids=as_array([doubt.noted for doubt in doubts]),
        )
        return [(over, there) for _, over, there in sorted(rows)]

    async def leave(self) -> None:
        """End it."""
        await self._rows(self._statements.leave, member=self.id)

    async def _first(self, statement: str, **parameters: Any) -> Any:
        rows = await self._rows(statement, **parameters)
        return rows[0] if rows else None

    async def _rows(self, statement: str, **parameters: Any) -> list[Any]:
        named = {
            name: value if value is None or isinstance(value, Column) else str(value)
            for name, value in parameters.items()
        }
        return await self._run(statement, {"group": str(self._group), **named})

    async def _run(self, statement: str, parameters: Mapping[str, Any], most: float | None = None) -> list[Any]:
        seconds = most or ANSWER
        try:
            async with asyncio.timeout(seconds):
                return await self._session.rows(statement, parameters)
        except TimeoutError as error:
            raise ConnectionLost(f"the server did not answer within {seconds:g} s") from error
