"""Sessions that listen sit in an open transaction, in which nothing is delivered to them.

A LISTEN takes effect when its transaction commits, and notifications are delivered between transactions only
(PostgreSQL manual, LISTEN and NOTIFY). Until then they stay in the queue that the whole server shares. The usual
reason is a driver that begins a transaction by itself, such as a psycopg connection without autocommit.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import LISTENS, describe, hidden, number_of, sessions

__all__ = ["check"]

A_MOMENT = 1.0
"""Seconds in a transaction from which on it is worth a warning: to listen and read a state takes less."""
FOR_GOOD = 60.0
"""Seconds from which on nobody is going to commit: no message arrives there."""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    if (unseen := hidden(patient, "listeners in a transaction")) is not None:
        yield unseen
    found = sessions(patient, f"{LISTENS} AND xact_start < clock_timestamp() - interval '{A_MOMENT} s'")
    if not found:
        yield Fine(f"no listener has been in a transaction for more than {A_MOMENT:g} s")
        return
    longest = found[0]
    count = longest.of_all
    those = f"{number_of(count, 'listener')} {'is' if count == 1 else 'are'}"
    yield Finding(
        Severity.CRITICAL if longest.transaction_seconds >= FOR_GOOD else Severity.WARNING,
        f"{those} in a transaction, the one with pid {longest.pid}"
        f" for {longest.transaction_seconds:.0f} s ({longest.state}): nothing is delivered there meanwhile, a LISTEN in"
        " that transaction is not in force, and the NOTIFY queue of the whole server may fill",
        "listen on a connection of its own in autocommit mode (psycopg.connect(..., autocommit=True)), or commit after"
        f" LISTEN; to be rid of this session: SELECT pg_terminate_backend({longest.pid})",
        {"listeners in a transaction": count, "sessions": [describe(session) for session in found]},
    )
