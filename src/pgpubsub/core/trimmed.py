"""What retention has removed of a stream, and whether a reader had got it.

The database has one row for each stream, which is changed in the transaction that removes entries, so that a statement
that does not find an entry finds it there: how many were removed, the highest id of them, the newest of them (by
transaction id), and for the newest `LISTED` transactions of which entries were removed the highest id that was.

The rule: a reader has missed something if an entry was removed that its position does not cover.

- A transaction that is listed and not covered says so. In the midst of a batch, one of the batch says so if the id is
  above that of the entry delivered last. This is exact.
- Of older transactions nothing is known but that their ids were not above the highest. So a position in which a
  transaction is open that is older than all that are listed counts as one that missed something. It may be a false
  alarm, but only for a position that was taken more than `LISTED` transactions ago (of those that appended to the
  stream), and that has got everything else that was removed. Nothing is ever missed in silence.
- Before its first look a reader has missed nothing: it begins at the oldest entry there is. From then on it has, if it
  found none.

All transactions below the newest one removed had ended when it was removed. So who looks at all that is visible has
covered everything up to that one, whether there is anything left of it or not.
"""

from __future__ import annotations

from dataclasses import dataclass

from pgpubsub.core.position import NOTHING, Anchor, Newest, Position, spans

__all__ = ["LISTED", "Trimmed"]

LISTED = 100
"""Transactions that the database lists: `schema/0003_retention.sql` has the same number."""


@dataclass(frozen=True, slots=True)
class Trimmed:
    """See the module."""

    removed: int
    """How many entries, ever."""
    last: int
    """The highest id of them."""
    kept: bool
    """Whether all groups that there were had handled each of them."""
    newest: Newest
    listed: tuple[tuple[int, int], ...]
    """Transaction ids, the newest first, and the highest id that was removed of each."""

    @classmethod
    def parse(cls, text: str) -> Trimmed:
        """Read what `Statements` makes of the row.

        >>> Trimmed.parse("7 30 1 29 1000 {756,753} {29,30}").listed
        ((756, 29), (753, 30))
        """
        removed, last, kept, id, microseconds, xids, ids = text.split(" ")
        listed = tuple(zip(_numbers(xids), _numbers(ids), strict=True))
        newest = Newest(listed[0][0], Anchor(int(id), int(microseconds)))
        return cls(int(removed), int(last), kept == "1", newest, listed)

    def took_from(self, position: Position) -> bool:
        """Whether something was removed that a reader at `position` had not got, or may not have got."""
        covered, target, last = position.covered, position.target, position.last
        if covered == NOTHING and not last:
            return False
        for xid, id in self.listed:
            if not covered.covers(xid) and (target is None or not target.covers(xid) or id > last):
                return True
        if len(self.listed) < LISTED:
            return False
        oldest = self.listed[-1][0]
        if any(xid < oldest for xid in (target or covered).open):
            return True
        return target is not None and self.last > last and any(low < oldest for low, _ in spans(covered, target))


def _numbers(array: str) -> list[int]:
    return [int(number) for number in array.strip("{}").split(",")]
