"""What the doctor says. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["Examined", "Finding", "Fine", "Report", "Severity", "Unseen"]


class Severity(StrEnum):
    """How bad it is. They compare: `Severity.NOTICE < Severity.CRITICAL`."""

    NOTICE = "notice"
    """Worth knowing; nothing has to be done today."""
    WARNING = "warning"
    """It costs something now, or will break: mend it."""
    CRITICAL = "critical"
    """Messages do not arrive, are about to be lost, or writers fail."""

    @property
    def rank(self) -> int:
        """1 to 3."""
        return list(Severity).index(self) + 1

    def __lt__(self, other: object) -> bool:
        return self.rank < other.rank if isinstance(other, Severity) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.rank > other.rank if isinstance(other, Severity) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.rank <= other.rank if isinstance(other, Severity) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.rank >= other.rank if isinstance(other, Severity) else NotImplemented


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong."""

    severity: Severity
    cause: str
    """What is wrong, in one sentence with the numbers."""
    cure: str
    """What to do about it."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """What it was concluded from, by name: text, numbers, and lists or mappings of them."""
    subject: str = ""
    """What it is about, where a check may have several findings: the same from one examination to the next."""


@dataclass(frozen=True, slots=True)
class Fine:
    """Something was looked at, and is as it should be."""

    what: str


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something could not be looked at."""

    why: str
    incomplete: bool = False
    """Whether it was for want of time or of an answer, not of rights: another examination may see it."""


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of one check."""

    check: str
    """Its name, such as "queue"."""
    findings: tuple[Finding, ...] = ()
    fine: tuple[str, ...] = ()
    """What was looked at and is as it should be."""
    unseen: tuple[str, ...] = ()
    """What could not be looked at, and why."""
    incomplete: bool = False
    """Whether it could not look to the end, for want of time or of an answer, or since the check itself failed. What a
    role has not the rights to see does not count."""

    @property
    def severity(self) -> Severity | None:
        """Of the worst finding; None: nothing is wrong, as far as could be seen."""
        return max((finding.severity for finding in self.findings), default=None)


@dataclass(frozen=True, slots=True)
class Report:
    """What `examine` returns."""

    server: str
    """Who was examined: "dbname on host:port, PostgreSQL 18.6"."""
    checks: tuple[Examined, ...]
    """In the order in which they are documented."""
    seconds: float
    """How long it took."""

    @property
    def severity(self) -> Severity | None:
        """Of the worst finding; None: nothing is wrong, as far as could be seen: see `incomplete` too."""
        return max((check.severity for check in self.checks if check.severity is not None), default=None)

    @property
    def incomplete(self) -> tuple[str, ...]:
        """The names of the checks that could not look to the end, for want of time or of an answer."""
        return tuple(check.check for check in self.checks if check.incomplete)

    def __getitem__(self, check: str) -> Examined:
        """What came of the check of this name."""
        for examined in self.checks:
            if examined.check == check:
                return examined
        raise KeyError(check)

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it; see the manual for its shape."""
        return {
            "server": self.server,
            "severity": self.severity,
            "incomplete": list(self.incomplete),
            "seconds": round(self.seconds, 3),
            "checks": [
                {
                    "check": one.check,
                    "severity": one.severity,
                    "findings": [
                        {
                            "severity": it.severity,
                            "subject": it.subject,
                            "cause": it.cause,
                            "cure": it.cure,
                            "evidence": dict(it.evidence),
                        }
                        for it in one.findings
                    ],
                    "fine": list(one.fine),
                    "unseen": list(one.unseen),
                }
                for one in self.checks
            ],
        }
