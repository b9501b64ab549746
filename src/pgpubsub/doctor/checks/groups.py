"""Groups do not get on: nobody consumes, or somebody or something holds them up.

How long an entry was in hand is stored nowhere, so that the age is that since it was appended. One that was appended
long ago, in a transaction that has just been committed, looks as if it had waited all that time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

from pgpubsub.core.sql import quote_literal
from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import describe, hidden, query_of, sessions
from pgpubsub.doctor.streams import OF_GROUPS, ask, first_of, lasting, of_streams, twice, unsettled

__all__ = ["check"]

OLD = 60.0
"""Seconds: for so long entries wait on a healthy server only if handlers are slow, or fail."""
SLOW = 600.0
"""Seconds from which on it is a WARNING that a group which does get on is behind: handlers may take minutes."""
ABANDONED = 86_400.0
"""Seconds from which on it is CRITICAL that nobody consumes. Jobs that handle what there is (`follow=False`) come by
the hour or by night, and nobody consumes between them."""
SETTLED_IN = 10.0
"""Seconds after which members have divided the slots: they look every two."""
OPEN = 10.0
"""Seconds: a transaction that acknowledges is to be committed at once, and members' own take milliseconds."""

ACKNOWLEDGING = f"""
SELECT its.pid, prepared.gid, activity.state, {query_of("activity")} AS query,
       extract(epoch FROM clock_timestamp() - coalesce(prepared.prepared, activity.xact_start))::float8 AS seconds
  FROM (SELECT DISTINCT pid, virtualtransaction FROM pg_locks
         WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND relation = to_regclass(%(table)s)
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database())) AS its
  LEFT JOIN pg_stat_activity AS activity ON activity.pid = its.pid
  LEFT JOIN pg_locks AS own  -- a prepared transaction's own id is locked, too
    ON its.pid IS NULL AND own.pid IS NULL AND own.locktype = 'transactionid'
   AND own.virtualtransaction = its.virtualtransaction
  LEFT JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
 ORDER BY seconds DESC NULLS LAST LIMIT 20
"""
"""Transactions that have acknowledged and are open, and members' own."""


@of_streams(*OF_GROUPS)
def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """A finding for each group and thing that holds it up, or fine."""
    if patient.who.in_recovery:
        ((any_groups,),) = ask(patient, "SELECT EXISTS (SELECT FROM {schema}.consumer_group)")
        yield Unseen("groups: only the primary knows who consumes") if any_groups else Fine("there are no groups")
        return
    rows = twice(lambda: unsettled(patient, OLD), lambda row: (row.consumer_group, row.kind))
    if not rows:
        yield Fine(f"no group has had an entry to handle for more than {OLD:.0f} s")
        return
    groups: dict[int, dict[str, Any]] = {}
    for row in rows:  # the oldest first
        groups.setdefault(row.consumer_group, {}).setdefault(row.kind, row)
    held = _Held(patient, rows)
    findings = [finding for group in groups.values() for finding in _findings(group, held)]
    if not findings:
        yield Fine("groups that are behind have got consumers just now")
    yield from first_of(findings, "groups are behind")
    if (unseen := hidden(patient, "sessions that consume, or hold what others do,")) is not None:
        yield unseen


def _findings(group: dict[str, Any], held: _Held) -> Iterator[Finding]:
    oldest = max(group.values(), key=attrgetter("seconds"))
    if not oldest.members:
        yield _nobody(oldest)
        return
    if "failing" in group:
        yield _failing(group["failing"])
    if "left" in group and oldest.together >= SETTLED_IN:
        yield _left(group["left"], held)
    if "in hand" in group or "waiting" in group:
        yield _behind(group.get("in hand"), group.get("waiting"), held)


def _nobody(one: Any) -> Finding:
    return Finding(
        Severity.CRITICAL if one.seconds >= ABANDONED else Severity.WARNING,
        f"nobody consumes as {_name(one)}: its oldest entry to handle was appended {lasting(one.seconds)} ago",
        f"start its consumers: stream.process({one.group!r}, handler) or stream.consume({one.group!r}). If it is not"
        f" needed any more: stream.drop_group({one.group!r})",
        _evidence(one),
        f"{_name(one)}: nobody consumes",
    )


def _failing(one: Any) -> Finding:
    due = f"in {lasting(one.due_in)}" if one.due_in > 0 else "now"
    times = "once" if one.attempts == 1 else f"{one.attempts} times"
    behind = f", and {one.behind} of its key wait behind it" if one.behind else ""
    return Finding(
        Severity.WARNING,
        f"entry {one.id} of {_name(one)}, appended {lasting(one.seconds)} ago, has failed {times}, and is due again"
        f" {due}{behind}; the last error: {one.error or 'unknown'}",
        "mend the handler, or what it needs; the log 'pgpubsub.groups' of its consumers has the traceback. After so"
        " many `attempts` as consume() was given, the entry is set aside by itself, and its key goes on",
        {**_evidence(one), "attempts": one.attempts, "due in seconds": round(one.due_in, 1), "behind it": one.behind}
        | {"error": one.error},
        f"{_name(one)}: failing",
    )


def _left(one: Any, held: _Held) -> Finding:
    transactions = held.acknowledging
    stuck = bool(one.ended and transactions)
    cause = (
        f"{one.ended} that ended cannot be cleared away, and a transaction that has acknowledged for it is open"
        if stuck
        else f"{one.free} of 32 slots are free, {one.ended} members have ended, and nobody has taken over yet"
    )
    return Finding(
        Severity.WARNING if stuck else Severity.NOTICE,
        f"entries of {_name(one)} are handled by nobody although {one.members} consume, the oldest appended"
        f" {lasting(one.seconds)} ago: {cause}",
        f"{_end(transactions)}restart the consumers if that does not help"
        if stuck
        else "look again in three seconds: where a consumer has just ended, the others take over by then. If they do"
        f" not: {_end(transactions)}restart them",
        {**_evidence(one), "free slots": one.free, "members that ended": one.ended, **held.evidence(one)},
        f"{_name(one)}: left",
    )


def _behind(in_hand: Any, waiting: Any, held: _Held) -> Finding:
    one = in_hand or waiting
    transactions = held.acknowledging
    if in_hand is None:
        what = f"its consumer {one.member!r} has not taken entry {one.id}, appended {lasting(one.seconds)} ago"
        cure = "see what that program does: it has to come back for the next entry"
    else:
        what = f"its consumer {one.member!r} has entry {one.id} in hand, appended {lasting(one.seconds)} ago"
        cure = f"see what that handler does (`py-spy dump --pid` with the process id in {one.member!r})"
        if transactions:
            what += "; a transaction that has acknowledged is open"
        if waiting is not None:
            what += f", and others wait, since {lasting(waiting.seconds)}"
            cure += "; if it is only slow, add consumers, up to 32, or concurrency"
    return Finding(
        Severity.WARNING if one.seconds >= SLOW else Severity.NOTICE,
        f"{_name(one)} is behind: {what}",
        f"{_end(transactions)}{cure}",
        {**_evidence(one), "consumer": one.member, **held.evidence(one)},
        f"{_name(one)}: behind",
    )


def _name(one: Any) -> str:
    return f"group {one.group!r} of stream {one.stream!r}"


def _evidence(one: Any) -> dict[str, Any]:
    """What is told of each."""
    return {
        "stream": one.stream,
        "group": one.group,
        "consumers": one.members,
        "entry": one.id,
        "key": one.key,
        "seconds": round(one.seconds, 1),
    }


def _end(transactions: Sequence[dict[str, Any]]) -> str:
    """What to do about transactions that hold acknowledgements."""
    return "".join(
        f"COMMIT PREPARED or ROLLBACK PREPARED {quote_literal(one['prepared']).strip()}; "
        if "prepared" in one
        else f"end the transaction of pid {one['pid']}: SELECT pg_terminate_backend({one['pid']}); "
        for one in transactions
    )


class _Held:
    """Which sessions consumers have, and which transactions hold acknowledgements."""

    def __init__(self, patient: Patient, rows: Sequence[Any]) -> None:
        pids = sorted({row.pid for row in rows if row.pid is not None})
        known = sessions(patient, f"pid IN ({', '.join(map(str, pids))})", most=len(pids)) if pids else []
        self._sessions = {one.pid: describe(one) for one in known}
        table = f"{patient.quoted_schema}.acknowledged"
        self.acknowledging = [
            {"prepared": one.gid} if one.gid is not None else {"pid": one.pid, "state": one.state, "query": one.query}
            for one in ask(patient, ACKNOWLEDGING, {"table": table})
            if one.seconds is not None and one.seconds >= OPEN
        ]

    def evidence(self, one: Any) -> dict[str, Any]:
        """What is known of what holds an entry up."""
        told = {"session": self._sessions.get(one.pid), "transactions that acknowledged": self.acknowledging}
        return {name: value for name, value in told.items() if value}
