"""What `pgpubsub top` has heard itself. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Channel"]


@dataclass(frozen=True, slots=True)
class Channel:
    """What came on a channel since we listen to it."""

    name: str
    total: int
    gaps: int
    last: str | None
    """The beginning of the last payload."""
