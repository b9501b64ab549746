"""More sessions listen than is good: before PostgreSQL 19 each NOTIFY wakes all those of its database.

It does so whatever they listen to, and whoever sends waits for it. What that costs is measured here, as the difference
between statements that notify and statements that do not; the machine's other load is in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from time import monotonic
from typing import Any

from pgpubsub.doctor.patient import OutOfTime, Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import LISTENS, OF_CLIENTS, hidden, number_of, shown
from pgpubsub.drivers.psycopg3 import psycopg

__all__ = ["check"]

MANY = 50
"""With so many that listen to something else, two sessions that notify each other do so about a third as often as
alone (9,126 times a second without, 6,233 with 10, 2,020 with 100, 238 with 1,000, as published by the author of the
change in PostgreSQL 19)."""

WAKES_ONLY_WHOM_IT_CONCERNS = 19

PAIRS = 9
MEASURED_WITHIN = 0.25
"""Seconds, about: a pair that has begun is finished."""

LISTENERS = f"""
SELECT count(*)::int AS sessions, {shown("usename")} AS role, host(client_addr) AS address,
       (sum(count(*)) OVER ())::int AS of_all
FROM pg_catalog.pg_stat_activity WHERE {OF_CLIENTS} AND datname = current_database() AND {LISTENS}
GROUP BY usename, client_addr ORDER BY 1 DESC LIMIT 10
"""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    major = patient.who.version // 10_000
    if major >= WAKES_ONLY_WHOM_IT_CONCERNS:
        yield Fine(f"PostgreSQL {major} wakes only those who listen to the channel")
        return
    if patient.who.in_recovery:
        yield Fine("nobody can listen on a standby")
        return
    if (unseen := hidden(patient, "listeners under names of their own")) is not None:
        yield unseen
    groups = patient.rows(LISTENERS)
    count = groups[0].of_all if groups else 0
    if count < MANY:
        yield Fine(f"{number_of(count, 'session')} of database {patient.who.database!r} can be seen to listen")
        return
    yield _many(patient, count, groups)


def _many(patient: Patient, count: int, groups: Any) -> Finding:
    cost = _milliseconds(patient)
    evidence: dict[str, Any] = {
        "listeners": count,
        "database": patient.who.database,
        "by role and address": [
            {"sessions": group.sessions, "role": group.role, "address": group.address or "local"} for group in groups
        ],
    }
    if cost is None:
        measured = ", and how long that takes could not be measured"
    else:
        without, with_notify = cost
        measured = f": here one took {max(0.0, with_notify - without):.2f} ms more than a statement that wakes nobody"
        evidence |= {"ms with NOTIFY": round(with_notify, 3), "ms without": round(without, 3)}
    return Finding(
        Severity.WARNING,
        f"{count} sessions listen in database {patient.who.database!r}, and each NOTIFY wakes them all, whatever they"
        f" listen to{measured}",
        "listen on one connection for each process: it needs one Hub, which any number of subscriptions, tasks and"
        " threads share; a pooler does not make them fewer. PostgreSQL 19 wakes only those whom a NOTIFY concerns",
        evidence,
    )


def _milliseconds(patient: Patient) -> tuple[float, float] | None:
    """What a statement without and one with NOTIFY takes, as far as there was time."""
    without: list[float] = []
    with_notify: list[float] = []
    until = monotonic() + MEASURED_WITHIN
    try:
        while len(with_notify) < PAIRS and monotonic() < until:
            without.append(_timed(patient, "SELECT pg_catalog.length('pgpubsub.doctor')"))
            with_notify.append(_timed(patient, "SELECT pg_catalog.pg_notify('pgpubsub.doctor', '')"))
    except (OutOfTime, psycopg.Error):  # such as while somebody keeps the lock of NOTIFY
        pass
    return (median(without), median(with_notify)) if with_notify else None


def _timed(patient: Patient, statement: str) -> float:
    begun = monotonic()
    patient.rows(statement, within=MEASURED_WITHIN, on=patient.notifying)
    return 1000 * (monotonic() - begun)
