"""A pooler stands between that gives each transaction another server process, so that notifications never arrive.

LISTEN belongs to a server process. A pooler in transaction mode takes that away after the transaction; it shows itself
when two connections meet the same process, or one connection meets several. Any pooler shows itself by telling another
process id when connecting than the process tells itself. Behind one nothing is listened to here, since that would stay
on a process that others use; where none is to be seen, a notification from one connection to the other proves
delivery.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

from pgpubsub.core import sql
from pgpubsub.doctor.patient import Connection, OutOfTime, Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.drivers.psycopg3_connect import in_one_line
from pgpubsub.randomness import new_message_id

__all__ = ["check"]

Met = tuple[list[int], list[int]]
"""The server processes that each of the two connections has met."""

NEXT_TO_ASK = (1, 0, 0, 1, 1, 1, 0, 0) * 3
"""Which connection asks once each has asked. Not strictly in turn: a pool that deals its processes out one after the
other would look as if each connection had one of its own. Nor only a few times: in a busy pool each may get the same
one again by chance."""

ARRIVES_WITHIN = 0.5
"""Seconds. Even with a thousand listeners a NOTIFY takes a twentieth of that."""

LISTEN_DIRECTLY = (
    "listen on a direct connection, or through a pool in session mode; what is sent may go through this one:"
    " pgpubsub.Hub('host=db port=5432 ...', notify_conninfo='host=pooler port=6432 ...')"
)


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    connections = (patient.listening, patient.notifying)
    told = [connection.info.backend_pid for connection in connections]
    met: Met = ([patient.who.pid], [_server_process(patient, patient.notifying)])
    if [met[0][0], met[1][0]] == told and not _shared(met):
        yield from _delivery(patient)
        return
    for which in NEXT_TO_ASK:
        if _shared(met):
            break
        met[which].append(_server_process(patient, connections[which]))
    if _shared(met):
        yield _transaction_mode(met, told)
        return
    yield Fine(
        "a pooler in session mode stands between: each of two connections kept its own server process over"
        f" {len(met[0])} transactions; that it passes notifications on was not tried"
    )


def _server_process(patient: Patient, connection: Connection) -> int:
    ((pid,),) = patient.rows("SELECT pg_catalog.pg_backend_pid()", on=connection)
    return int(pid)


def _shared(met: Met) -> bool:
    """Whether a connection has no server process of its own."""
    one, other = map(set, met)
    return len(one) > 1 or len(other) > 1 or bool(one & other)


def _transaction_mode(met: Met, told: list[int]) -> Finding:
    one, other = met
    if common := set(one) & set(other):
        how = f"two connections that are open at the same time were served by the same process, {common.pop()}"
    else:
        changed = one if len(set(one)) > 1 else other
        how = f"one connection was served by the processes {', '.join(map(str, changed))} in turn"
    return Finding(
        Severity.CRITICAL,
        f"a pooler in transaction mode stands between ({how}): LISTEN seems to succeed, and no notification arrives",
        f"{LISTEN_DIRECTLY}. (PgDog alone delivers in this mode too, if its pub_sub_channel_size is set.)",
        {"processes that served one connection": one, "the other": other, "process ids told when connecting": told},
    )


def _delivery(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    if patient.who.in_recovery:
        yield Fine("no pooler stands between; on a standby nothing can be listened to")
        return
    channel = f"pgpubsub.doctor {new_message_id()}"
    try:
        patient.rows(sql.listen(channel))
    except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile, psycopg.errors.SyntaxError) as error:
        yield _refused(error)
        return
    try:
        milliseconds = _send(patient, channel)
    except (OutOfTime, psycopg.errors.LockNotAvailable):
        why = "whether notifications arrive: there was no time for one, or it was held up; see notify-lock"
        yield Unseen(why, incomplete=True)
        return
    finally:
        with suppress(psycopg.Error, OutOfTime):
            patient.rows(sql.unlisten(channel))
    if milliseconds is not None:
        yield Fine(f"no pooler stands between: a notification arrived within {milliseconds:.1f} ms")
        return
    yield Finding(
        Severity.CRITICAL,
        f"a notification that was sent on one connection did not arrive on another within {ARRIVES_WITHIN:g} s,"
        " although no pooler is to be seen: something between that hides itself does not pass notifications on, or the"
        " connections lead to different servers",
        LISTEN_DIRECTLY,
        {"listened on": _place(patient.listening), "sent to": _place(patient.notifying)},
    )


def _place(connection: Connection) -> str:
    info = connection.info
    return f"{info.hostaddr or info.host}:{info.port}, process {info.backend_pid}"


def _send(patient: Patient, channel: str) -> float | None:
    """Milliseconds until a notification arrived; None if it did not.

    Raises:
        OutOfTime: there was no time to wait for it.
    """
    begun = monotonic()
    patient.notify(channel)
    patience = min(ARRIVES_WITHIN, patient.seconds_left)
    for _ in patient.listening.notifies(timeout=patience, stop_after=1):
        return 1000 * (monotonic() - begun)
    if patience < ARRIVES_WITHIN:
        raise OutOfTime("the time was up before a notification arrived")
    return None


def _refused(error: psycopg.Error) -> Finding:
    """LISTEN itself fails."""
    if isinstance(error, psycopg.errors.UndefinedFile):  # see clog_bug
        cure = (
            "SELECT pg_notification_queue_usage() has the server forget what everybody has read; if LISTEN fails"
            " still, end the sessions that are longest in a transaction first, or restart the server"
        )
    else:
        cure = "use a server that has LISTEN and NOTIFY: PostgreSQL has, some that resemble it have not"
    message = in_one_line(error)
    return Finding(Severity.CRITICAL, f"LISTEN fails: {message}", cure, {"sqlstate": error.sqlstate, "error": message})
