"""A minor release in which LISTEN can fail after VACUUM: "could not access status of transaction".

The queue of notifications has the transaction ids of who sent them, and its tail stays where it is while nobody sends
much. VACUUM did not know of them and removed the commit log's record of such a transaction, after a million further
ones at the earliest. From then on LISTEN fails, and so does the commit of a listener that has yet to take the
notification, until the tail has moved on. Mended in November 2025 (PostgreSQL's commit 8eeb4a0f7c and those beside
it), just after the releases of that month, hence in 18.2, 17.8, 16.12, 15.16 and 14.21.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity

__all__ = ["check"]

MENDED_IN = {18: 2, 17: 8, 16: 12, 15: 16, 14: 21}


def check(patient: Patient) -> Iterator[Finding | Fine]:
    """One finding, or fine."""
    major, minor = divmod(patient.who.version, 10_000)
    mended = 0 if major > max(MENDED_IN) else MENDED_IN.get(major)
    if mended is not None and minor >= mended:
        yield Fine(f"PostgreSQL {patient.who.release} keeps transactions that wait in the NOTIFY queue readable")
        return
    target = f"{major}.{mended}" if mended else f"{min(MENDED_IN)}.{MENDED_IN[min(MENDED_IN)]}"
    yield Finding(
        Severity.WARNING,
        f"PostgreSQL {patient.who.release} has a bug by which, after a VACUUM, LISTEN may fail with 'could not access"
        " status of transaction', for everybody, while an old notification is still in the queue",
        f"upgrade to PostgreSQL {target} or newer. Until then: SELECT pg_notification_queue_usage() has the server"
        " forget what everybody has read, after which LISTEN works again; once a day, say, it keeps this from"
        " happening, as long as no listener stays in a transaction",
        {"server_version_num": patient.who.version, "mended in": target},
    )
