"""Sessions that listen do not read their sockets: the server waits to write to them.

Such a session looks idle. Only what it waits for tells: `ClientWrite`, while it has no statement to execute. Healthy
ones do so for moments, so it has to be there at each of several looks. Whether the client reads nothing, or only
slower than notifications come, cannot be told from here. One that takes a large result slowly looks the same at its
end; what is not known to listen counts only while notifications wait in the queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import sleep
from typing import Any

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.sessions import WRITING, describe, hidden, number_of, sessions

__all__ = ["check"]

LOOKS = 5
BETWEEN = 0.04
"""Seconds from one look to the next: 0.16 s in all. A client that reads frees its socket within a few milliseconds."""

TOLD = 20
"""Sessions in the evidence."""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """A finding of listeners, or fine; and one of other sessions."""
    stuck = _writing(patient)
    for _ in range(LOOKS - 1):
        if not stuck:
            break
        sleep(BETWEEN)
        now = _writing(patient)
        stuck = {pid: now[pid] for pid in stuck.keys() & now.keys()}
    if (unseen := hidden(patient, "listeners that do not read")) is not None:
        yield unseen
    ((queued,),) = patient.rows("SELECT pg_catalog.pg_notification_queue_usage() > 0") if stuck else ((False,),)
    listeners = [stuck[pid] for pid in sorted(stuck) if queued or stuck[pid].listens]
    others = [one for pid, one in sorted(stuck.items()) if one not in listeners]
    if listeners:
        yield _stuck(listeners, known=all(one.listens for one in listeners))
    else:
        yield Fine("no listener keeps the server waiting to write to it")
    if others:
        yield _slow(others)


def _stuck(those: list[Any], *, known: bool) -> Finding:
    what, pid = "listener" if known else "session", those[0].pid
    may = "" if known else ", and may hold notifications that are in the queue"
    return Finding(
        Severity.WARNING,
        f"{_named(those, what)} not read, or slower than notifications come: at each of {LOOKS} looks within"
        f" {BETWEEN * (LOOKS - 1):.2f} s the server waited to write{may}. The NOTIFY queue of the whole server fills"
        " meanwhile",
        "have the client read its socket all the time, as a hub does; to be rid of it: SELECT"
        f" pg_terminate_backend({pid}). SET tcp_user_timeout = '30s' in such sessions, or for their role, has the"
        " server end them by itself",
        _evidence(those),
        "listeners",
    )


def _slow(those: list[Any]) -> Finding:
    return Finding(
        Severity.NOTICE,
        f"{_named(those, 'session')} not read, or slowly, what the server writes: at each of {LOOKS} looks within"
        f" {BETWEEN * (LOOKS - 1):.2f} s it waited to write. They are not known to listen, and no notifications wait,"
        " so that it may be the result of a statement",
        "nothing, if these are clients that take a large result at their leisure; one that listens has to read all the"
        " time, as a hub does",
        _evidence(those),
        "others",
    )


def _named(those: list[Any], what: str) -> str:
    pids = ", ".join(f"pid {one.pid}" for one in those[:TOLD])
    return f"{number_of(len(those), what)} ({pids}) {'does' if len(those) == 1 else 'do'}"


def _evidence(those: list[Any]) -> dict[str, Any]:
    return {"looks": LOOKS, "sessions": [describe(one) for one in those[:TOLD]]}


def _writing(patient: Patient) -> dict[int, Any]:
    return {session.pid: session for session in sessions(patient, WRITING, most=1000, order="state_change")}
