"""What a member has handed out, what was said of it, and who waits until that is written down.

Nothing waits here and nothing is asked of the database: `member` does that. What may be handed out is decided by
`core.groups`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from pgpubsub.core.groups import Share
from pgpubsub.core.slots import Write
from pgpubsub.errors import LeaseLost, PubSubError
from pgpubsub.groups.claims import Claim, Settling
from pgpubsub.groups.doubts import Doubt, Doubts
from pgpubsub.groups.inbox import ClaimInbox
from pgpubsub.hubs.engine import Engine
from pgpubsub.logs import EventLog
from pgpubsub.status import Happening, Observation

__all__ = ["Deliveries", "Writing"]

logger = EventLog("groups")


class Writing(NamedTuple):
    """What is being written down, and what follows from it."""

    write: Write
    starting: Sequence[Claim[Any]]
    """They are handed out then."""
    told: int
    """How many of those who wait are told then."""


class Deliveries:
    """See the module.

    Args:
        engine: the hub's, which is told what happens.
        stream, group: their names, for that.
        inbox: where consumers take from.
        wake: called when there is something to do.
        new_share: makes what decides, for a membership.
    """

    def __init__(
        self,
        engine: Engine,
        stream: str,
        group: str,
        inbox: ClaimInbox,
        wake: Callable[[], None],
        new_share: Callable[[], Share],
    ) -> None:
        self._engine = engine
        self._stream = stream
        self._group = group
        self._inbox = inbox
        self._wake = wake
        self._new_share = new_share
        self._finishing = False
        self._told_of_dropping = False
        self._finished = asyncio.Event()  # and nothing is in hand any more
        self._begin()

    def _begin(self) -> None:
        self.share = self._new_share()
        """What decides."""
        self.doubts = Doubts()
        """What was acknowledged in transactions that may not have ended."""
        self._starting: list[Claim[Any]] = []  # when it is written down
        self._claims: dict[Claim[Any], None] = {}  # that are in hand, or ready to be
        self._telling: list[Settling] = []

    # -- what consumers say

    def acknowledge(self, claim: Claim[Any], settling: Settling) -> None:
        """`claim` was handled. `settling` is told when it is written down."""
        if self._settle(claim, settling):
            self._acknowledged(claim)

    def fail(self, claim: Claim[Any], error: str, settling: Settling) -> None:
        """`claim` was not."""
        if self._settle(claim, settling):
            self._failed(claim, error)

    def abandon(self, claim: Claim[Any]) -> None:
        """Whoever had `claim` has dropped it without a word."""
        if not claim.settled and claim.lost is None:
            self._tell_of_dropping(claim)
            self.fail(claim, "it was dropped, and neither acknowledged nor failed", _Nobody())

    def _tell_of_dropping(self, claim: Claim[Any]) -> None:
        """Once: whoever forgets it does so each time."""
        if not self._told_of_dropping:
            self._told_of_dropping = True
            logger.warning(
                "delivery_dropped",
                "entry %(entry)d was dropped, neither acknowledged nor failed, and comes again, as others may: handle"
                " each delivery in a block, `with delivery:` (`async with` in a task), or say delivery.acknowledge()",
                entry=claim.ids[0],
                stream=self._stream,
                group=self._group,
            )

    def doubt(self, claim: Claim[Any], xid: int, noted: int) -> None:
        """It was acknowledged in a transaction that may not have ended: `fail`, unless that is committed."""
        if claim in self._claims:
            self.doubts.add(Doubt(claim, xid, noted))
            self._wake()

    def _settle(self, claim: Claim[Any], settling: Settling) -> bool:
        try:
            claim.check()
        except PubSubError as error:
            settling.tell(error)
            return False
        claim.settled = True
        del self._claims[claim]
        self._telling.append(settling)
        self._wake()
        return True

    def _acknowledged(self, claim: Claim[Any], noted: int | None = None) -> None:
        self.share.acknowledge(claim.items, noted)
        self._observe("handled", claim)

    def _failed(self, claim: Claim[Any], error: str) -> None:
        self.share.fail(claim.items, error)
        self._observe("handling_failed", claim, error)

    def _observe(self, name: Happening, claim: Claim[Any], error: str = "") -> None:
        if self._engine.observed:
            seconds, count = monotonic() - claim.since, len(claim.items)
            self._engine.observe(Observation(name, (self._stream,), seconds, error, group=self._group, count=count))

    # -- what the member does

    @property
    def any(self) -> bool:
        """Whether anything is in hand, or ready to be."""
        return bool(self._claims)

    def start(self, member: str, size: int) -> None:
        """Let `member` start as much as somebody waits for, and as much as was just settled: whoever did that comes
        again. At most `size` entries together."""
        if self._finishing:
            return
        wanted = self._inbox.wanted + len(self._telling)
        while wanted > 0 and (items := self.share.start(size)):
            entries = [item.entry for item in items]
            self._starting.append(Claim(member, items, entries, stream=self._stream, group=self._group))
            wanted -= 1

    def plan_write(self) -> Writing | None:
        """What there is to be written down."""
        write = self.share.plan_write()
        if write is None:
            assert not self._telling
            return None
        starting, self._starting = self._starting, []
        self._claims.update(dict.fromkeys(starting))
        return Writing(write, starting, len(self._telling))

    def on_written(self, writing: Writing, waiting: Sequence[str]) -> None:
        """It is written down. Of these of the keys concerned, entries wait."""
        self.share.on_written(writing.write, waiting)
        if self._finishing:
            self._take_back(writing.starting)
        elif writing.starting:
            self._inbox.deliver(writing.starting, 0)
        telling = self._telling[: writing.told]
        del self._telling[: writing.told]
        for settling in telling:
            settling.tell(None)
        self._check_finished()

    def on_fate(self, doubt: Doubt, committed: bool) -> None:
        """That is how the transaction has ended which acknowledged something."""
        self.doubts.remove(doubt)
        del self._claims[doubt.claim]
        if committed:
            self._acknowledged(doubt.claim, doubt.noted)
        else:
            self._failed(doubt.claim, doubt.claim.error)

    def finish(self) -> None:
        """Hand out nothing more; what is in hand will be settled."""
        self._finishing = True
        self._take_back([*self._inbox.withdraw(), *self._starting])
        self._starting.clear()
        self._check_finished()
        self._wake()

    async def finished(self) -> None:
        """Wait until nothing is in hand, when nothing more is handed out."""
        await self._finished.wait()

    def lose(self, error: LeaseLost) -> None:
        """The membership has ended."""
        if self._claims:
            self._engine.observe(Observation("lease_lost", (self._stream,), detail=str(error), group=self._group))
        for claim in self._claims:
            claim.lost = error
        self._inbox.withdraw()
        telling = self._telling
        self._begin()
        self._check_finished()
        for settling in telling:
            settling.tell(LeaseLost(str(error)))

    def _take_back(self, claims: Sequence[Claim[Any]]) -> None:
        for claim in claims:
            claim.lost = LeaseLost("the consumer was closed")
            self._claims.pop(claim, None)
            self.share.give_back(claim.items)

    def _check_finished(self) -> None:
        if self._finishing and not self._claims:
            self._finished.set()


class _Nobody:
    def tell(self, error: PubSubError | None) -> None:
        pass
