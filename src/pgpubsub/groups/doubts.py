"""Claims that were acknowledged in transactions of which nobody has said yet how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import Any

from pgpubsub.groups.claims import Claim

__all__ = ["Doubt", "Doubts"]

PAUSE = 0.001
"""Seconds from the first question to the second; each is twice as long as the one before."""

LONGEST_PAUSE = 0.5


class Doubt:
    """A transaction whose end is awaited.

    Args:
        claim: what it acknowledged.
        xid: its id.
        noted: the number of the acknowledgement.
    """

    def __init__(self, claim: Claim[Any], xid: int, noted: int) -> None:
        self.claim = claim
        self.xid = xid
        self.noted = noted
        self.ask_at = 0.0
        """When to ask for it."""
        self._over = False
        self._pause = PAUSE

    def has_ended(self, over: bool, there: bool) -> bool:
        """Whether that is all there is to know: its transaction is over, and what it acknowledged is there, or is not.
        It may have ended between a snapshot, in which nothing is there yet, and the question whether it is over."""
        if there or (over and self._over):
            return True
        self._over = over
        if not over:
            self.ask_at = monotonic() + self._pause
            self._pause = min(LONGEST_PAUSE, self._pause * 2)
        return False


class Doubts:
    """See the module."""

    def __init__(self) -> None:
        self._doubts: dict[Claim[Any], Doubt] = {}

    def add(self, doubt: Doubt) -> None:
        """Ask for it from now on, and not for another one of the same claim."""
        self._doubts[doubt.claim] = doubt

    def remove(self, doubt: Doubt) -> None:
        """Ask no more."""
        del self._doubts[doubt.claim]

    def __bool__(self) -> bool:
        return bool(self._doubts)

    @property
    def next_at(self) -> float:
        """When to ask."""
        return min((doubt.ask_at for doubt in self._doubts.values()), default=inf)

    def to_ask(self) -> Sequence[Doubt]:
        """For which it is time."""
        return [doubt for doubt in self._doubts.values() if doubt.ask_at <= monotonic()]
