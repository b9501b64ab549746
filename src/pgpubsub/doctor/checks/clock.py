"""The clocks of this machine and of the server differ.

Nothing that pgpubsub promises goes by this machine's clock: leases, retention and the times of entries are the
server's. It matters for what people and programs compare: how long ago something was appended, `Gap.since` with the
times in a table, or a time of one's own to which a group is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import time

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen

__all__ = ["check"]

APART = 1.0
"""Seconds. Machines that are set by NTP are within some milliseconds: so much means that one of them is not."""
FAR_APART = 60.0
"""Seconds by which lags and times are plainly wrong for those who read them: they are told in minutes."""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    before = time()
    ((theirs,),) = patient.rows("SELECT extract(epoch FROM clock_timestamp())::float8 AS time")
    after = time()
    uncertain = abs(after - before) / 2
    ahead = theirs - (before + after) / 2
    apart = max(0.0, abs(ahead) - uncertain)
    if apart < APART:
        yield Fine(f"the clocks of this machine and of the server are less than {APART + uncertain:.1f} s apart")
        return
    yield Finding(
        Severity.WARNING if apart >= FAR_APART else Severity.NOTICE,
        f"the server's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's, so that"
        " times of the one cannot be compared with those of the other: the age of an entry, Gap.since, a time to seek",
        "have both machines set their clocks by NTP: `timedatectl set-ntp true`, and `timedatectl` to see which one is"
        " wrong. Until then, compare with clock_timestamp() of the server",
        {"seconds ahead": round(ahead, 3), "uncertain by seconds": round(uncertain, 3)},
    )
