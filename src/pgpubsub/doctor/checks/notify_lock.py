"""Transactions that write and notify wait for each other's lock on NOTIFY.

A transaction that has executed NOTIFY takes one lock, the same for all channels and databases, before it commits, and
keeps it until its commit has been flushed to disk, and to the standbys that it waits for. A commit without data to
flush is short; one that writes makes all others that notify wait for the disk. `log_lock_waits` calls it
"AccessExclusiveLock on object 0 of class 1262 of database 0".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from time import sleep
from typing import Any

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import hidden, number_of, query_of

__all__ = ["check"]

LOOKS = 8
ENOUGH = LOOKS // 2
"""Looks at which somebody waits from which on it is worth a warning: half of the time the lock is what limits."""
BETWEEN = 0.03
"""Seconds from one look to the next: 0.21 s in all."""

TOLD = 5
"""Statements and holders in the evidence."""

OF_NOTIFY = re.compile(r"Lock/object|LWLock/(?!WAL).*|")
"""What is no reason to keep the lock: they were seen waiting for it, and had got it a moment later; or they are in each
other's way in the server's memory, as all are who do the same; or they wait for nothing."""
SELDOM = 0.25
"""Of the looks at a holder, below which its own waiting is not what keeps others."""

SEND_LATER = (
    "send after the commit (hub.notify), not in the transaction that writes; or append to a stream that was made"
    " with wake='poll', which sends nothing in the transaction. Where the last commits may be lost in a crash,"
    " SET LOCAL synchronous_commit = off in these transactions does as well"
)
SEND_FEWER = (
    "nothing, as long as it is fast enough. Otherwise send fewer, or several in one transaction: hub.notify_many(...),"
    " and hub.notify from several threads or tasks of a process, go out together by themselves"
)

LOCKS = f"""
SELECT lock.pid, lock.granted, {query_of("session")} AS query,
       coalesce(session.wait_event_type || '/' || session.wait_event, '') AS waits_for
FROM pg_catalog.pg_locks lock LEFT JOIN pg_catalog.pg_stat_activity session USING (pid)
WHERE lock.locktype = 'object' AND lock.classid = 1262 AND lock.objid = 0 AND lock.database = 0
"""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    if patient.who.in_recovery:
        yield Fine("nobody can notify on a standby")
        return
    looks: list[Any] = []
    crowded = 0
    for left in range(LOOKS, 0, -1):
        if crowded + left < ENOUGH:
            break  # it cannot become a finding any more
        if looks:
            sleep(BETWEEN)
        looks.append(patient.rows(LOCKS))
        crowded += any(not lock.granted for lock in looks[-1])
    if crowded < ENOUGH:
        yield Fine(f"somebody waited for the lock of NOTIFY at {crowded} of {number_of(len(looks), 'look')}")
        return
    unseen = hidden(patient, "what those do who hold the lock of NOTIFY or wait for it,")
    if unseen is not None:
        yield unseen
    yield _crowded(looks, crowded, seen=unseen is None)


def _crowded(looks: list[Any], crowded: int, *, seen: bool) -> Finding:
    holders = [lock for look in looks for lock in look if lock.granted]
    waiting = [lock for look in looks for lock in look if not lock.granted]
    most = max(sum(not lock.granted for lock in look) for look in looks)
    waits = Counter(lock.waits_for for lock in holders if not OF_NOTIFY.fullmatch(lock.waits_for))
    pids = {lock.pid for lock in holders}
    stands = len(pids) == 1 and len(holders) == len(looks)
    how = f", all the time for pid {holders[0].pid}" if stands else ""
    on = f", which itself waited for {waits.most_common(1)[0][0]}" if waits else ""
    only_many = seen and not stands and waits.total() < SELDOM * len(holders)
    return Finding(
        Severity.NOTICE if only_many else Severity.WARNING,
        f"transactions that notify wait for each other: at {crowded} of {len(looks)} looks somebody waited for the lock"
        f" that a transaction with NOTIFY keeps until its commit is on disk, up to {most} at once"
        + (", while those who held it waited for nothing: so many notifications are sent" if only_many else how + on),
        SEND_FEWER if only_many else SEND_LATER,
        {
            "looks": len(looks),
            "looks with somebody waiting": crowded,
            "most waiting at once": most,
            "holders": sorted(pids)[:TOLD],
            "holders wait for": dict(waits.most_common(TOLD)),
            "statements": _statements(waiting + holders),
        },
    )


def _statements(locks: list[Any]) -> list[str]:
    """The most frequent, without those that this role may not see."""
    told = Counter(lock.query for lock in locks if lock.query and lock.query != "<insufficient privilege>")
    return [query for query, _ in told.most_common(TOLD)]
