"""What can be asked and said of the groups of a stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import psycopg

from pgpubsub.core.position import BEGINNING, END, Covered, Start, stream_id
from pgpubsub.core.slots import Place
from pgpubsub.errors import ConnectionLost, PositionError, PubSubError
from pgpubsub.events import GapReason
from pgpubsub.groups.claims import Apart
from pgpubsub.groups.hints import group_channel, group_id, tell
from pgpubsub.groups.lanes import place_at
from pgpubsub.groups.service import check_group, check_number
from pgpubsub.groups.statements import GroupStatements, parameters_of_place
from pgpubsub.groups.status import DeadLetter, GroupInfo, GroupMember, HeldUp
from pgpubsub.hubs.engine import Engine
from pgpubsub.streams.description import Description
from pgpubsub.streams.rows import event
from pgpubsub.streams.service import Streams
from pgpubsub.streams.statements import as_array

__all__ = ["Groups"]

LARGEST = 2**63 - 1
"""As PostgreSQL's bigint."""


class Groups:
    """Those of one stream."""

    def __init__(self, engine: Engine, streams: Streams, description: Description[Any]) -> None:
        self._engine = engine
        self._streams = streams
        self._description = description.at_home()
        self._statements = GroupStatements(description.schema)
        self._stream = stream_id(description.name)

    async def all(self) -> list[GroupInfo]:
        """How they stand."""
        return [
            GroupInfo(
                name,
                lag,
                seconds,
                tuple(
                    GroupMember(name, since, slots, tuple(in_hand))
                    for name, since, slots, in_hand in await self._ask(self._statements.members, id)
                ),
                tuple(HeldUp(*one) for one in await self._ask(self._statements.held_up, id)),
                dead,
            )
            for id, name, lag, seconds, dead in await self._ask(self._statements.groups, 0)
        ]

    async def dead(self, group: str, limit: int) -> list[DeadLetter[Any]]:
        """What was set aside, the oldest first."""
        check_number("limit", limit, LARGEST)
        await self._check(group)
        rows = await self._ask(self._statements.dead, self._id(group), rows=str(limit))
        payloads, apart = self._description.payloads, Apart(self._stream)
        return [DeadLetter(payloads.decoded(event(row, apart)), *row[7:]) for row in rows]

    async def redrive(self, group: str, ids: Iterable[int] | None) -> int:
        """Let what was set aside be handed out again."""
        given, count = _ids(ids), 0
        await self._check(group)
        last: int | None = 0
        while last is not None:  # upwards once: what is set aside again meanwhile stays so
            some, last = await self._do(self._statements.redrive, group, ids=given, behind=last)
            count += some
        tell(self._engine, group_channel(self._id(group)))
        return count

    async def discard(self, group: str, ids: Iterable[int] | None) -> int:
        """Forget what was set aside."""
        given = _ids(ids)
        await self._check(group)
        (count,) = await self._do(self._statements.discard, group, ids=given)
        return int(count)

    async def seek(self, group: str, to: str | Start | datetime) -> None:
        """Let a group go on elsewhere."""
        place = await self._place(to)
        await self._check(group)
        await self._do(self._statements.seek, group, **parameters_of_place(place))
        tell(self._engine, group_channel(self._id(group)))

    async def drop(self, group: str) -> None:
        """Forget a group."""
        await self._check(group)
        await self._do(self._statements.drop, group)
        tell(self._engine, group_channel(self._id(group)))

    async def _check(self, group: str) -> None:
        if not (await self._ask(self._statements.exists, self._id(group)))[0][0]:
            raise PubSubError(
                f"stream {self._description.name!r} has no group {group!r}: it comes into being with its first consumer"
            )

    async def _place(self, to: str | Start | datetime) -> Place:
        if isinstance(to, datetime):
            if to.tzinfo is None:
                raise ValueError(f"{to!r} has no time zone: which moment that is depends on where one is")
            end, _ = await place_at(self._streams, self._description, END)
            ((last,),) = await self._ask(self._statements.before, 0, time=str(to))
            return Place(Covered(), end.covered, last)
        start = self._description.start(to)
        if start is BEGINNING:
            return Place(Covered())
        place, gaps = await place_at(self._streams, self._description, start)
        for gap in gaps:
            if gap.reason is not GapReason.TRIMMED:  # which is found again by whoever reads from there
                raise PositionError(f"the position cannot be gone to: {gap.detail}")
        return place

    def _id(self, group: str) -> int:
        check_group(group)
        return group_id(self._stream, group)

    async def _ask(self, statement: str, id: int, **parameters: str) -> Sequence[Any]:
        self._engine.start()
        named = {"stream": str(self._stream), "group": str(id), **parameters}
        async with self._streams.lent(self._description.schema) as session:
            return await session.rows(statement, named)

    async def _do(self, statement: str, group: str, **parameters: Any) -> Sequence[Any]:
        self._engine.start()
        named = {name: value if value is None else str(value) for name, value in parameters.items()}
        try:
            async with self._streams.desk(self._description.schema) as session:
                row: Sequence[Any] = await session.first(statement, {"group": str(self._id(group)), **named})
        except ConnectionLost as error:
            if isinstance(error.__cause__, psycopg.errors.LockNotAvailable):
                raise PubSubError(
                    f"a transaction that acknowledges entries of group {group!r} is still open: try again when it has"
                    " ended"
                ) from error
            raise
        return row


def _ids(ids: Iterable[int] | None) -> str | None:
    if ids is None:
        return None
    if isinstance(ids, str | bytes | bytearray) or not isinstance(ids, Iterable):  # "17" has the entries 1 and 7
        raise TypeError(f"ids are those of entries, such as [17], or None for all dead letters, not {ids!r}")
    given = list(ids)
    for id in given:
        check_number("the id of an entry", id, LARGEST)
    return as_array(given)
