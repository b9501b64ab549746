"""The queue of notifications fills: some session has not taken them, and when it is full every NOTIFY fails.

All databases of the server share the queue, and what the slowest listener has not taken stays in it (PostgreSQL manual,
NOTIFY, "Notes"). Who that is the server says itself, in a warning, from half full on; below that, the likely ones are
those that cannot take anything: who is in a transaction, and who does not read its socket.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import sleep
from typing import Any

from pgpubsub.doctor.patient import OutOfTime, Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import LISTENS, WRITING, describe, hidden, number_of, sessions
from pgpubsub.drivers.psycopg3 import psycopg

__all__ = ["check"]

FILLING = 0.05
"""Of the queue, from which on something is wrong: it is empty when everybody listens."""
HALF = 0.5
"""From which on the server warns by itself, at most every five seconds, and says which session holds the tail."""
SECOND_LOOK = 0.1
"""Seconds until it is looked at again: after a great burst it is emptier then."""

USAGE = "SELECT pg_catalog.pg_notification_queue_usage()"

STUCK = f"{WRITING} OR xact_start < clock_timestamp() - interval '1 s'"
LIKELY_FIRST = f"({WRITING} OR {LISTENS}) DESC, xact_start"


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    before = usage = _usage(patient)
    if before >= FILLING:
        sleep(SECOND_LOOK)
        usage = _usage(patient)
    if usage < FILLING:
        yield Fine(f"{100 * usage:.1f} % of the NOTIFY queue is in use")
        return
    warns = usage >= HALF and not patient.who.in_recovery
    holder, full = _provoke_warning(patient) if warns else (None, False)
    suspects = sessions(patient, STUCK if holder is None else f"pid = {holder}", most=10, order=LIKELY_FIRST)
    unseen = hidden(patient, "sessions that may hold the NOTIFY queue") if holder is None else None
    if unseen is not None:
        yield unseen
    state = "is full: every transaction that notifies fails" if full else f"is {100 * usage:.0f} % full"
    if not full:
        state += ", and being emptied" if usage < before else ""
        state += "; when it is full, every transaction that notifies fails"
    yield Finding(
        _severity(usage, before),
        f"the NOTIFY queue {state}. {_by_whom(holder, suspects, warns, all_seen=unseen is None)}",
        "have that client read its socket, or end its transaction; if it does not: SELECT pg_terminate_backend("
        f"{holder or 'pid'}). A hub reads at once, whatever its subscribers do",
        {"usage": round(usage, 3), "usage before": round(before, 3), "sessions": [describe(one) for one in suspects]},
    )


def _usage(patient: Patient) -> float:
    ((usage,),) = patient.rows(USAGE)
    return float(usage)


def _severity(usage: float, before: float) -> Severity:
    if usage >= HALF:
        return Severity.CRITICAL
    return Severity.NOTICE if usage < before else Severity.WARNING


def _by_whom(holder: int | None, suspects: list[Any], warns: bool, *, all_seen: bool) -> str:
    if holder is not None:
        return f"The session with pid {holder} holds its tail, says the server"
    why = "tells at most every five seconds, in its log too" if warns else "says from half full on"
    if not suspects:
        rest = ": somebody reads slowly" if all_seen else ""
        return f"Whose session holds its tail the server {why}; none that is stuck can be seen{rest}"
    return (
        f"Whose session holds its tail the server {why}; likely one of those that do not read their sockets or are in"
        f" a transaction, {number_of(suspects[0].of_all, 'session')}"
    )


def _provoke_warning(patient: Patient) -> tuple[int | None, bool]:
    """The pid in the warning that the server gives to who notifies, None if it gave that to somebody else just now; and
    whether the queue was too full for it."""
    full = False
    try:
        patient.notify("pgpubsub.doctor")
    except psycopg.errors.ProgramLimitExceeded:
        full = True
    except (OutOfTime, psycopg.Error):  # such as while somebody keeps the lock of NOTIFY; what is known is told still
        pass
    pids = [number for detail in patient.warnings for number in re.findall(r"\d+", detail)]
    return int(pids[-1]) if pids else None, full
