"""The sessions of a server, and which of them listen, as far as `pg_stat_activity` tells.

Their statements are in the encodings of their databases, which may be others than this one's: one that cannot be read
must not hide the others.

PostgreSQL does not say who listens (`pg_listening_channels()` is about one's own session). Two signs are certain
enough: the name that pgpubsub's hubs give to their listening connections, and a session whose last statement was
LISTEN, perhaps after comments and BEGIN. A session that has executed something else since, and has another name, is
not recognised.
"""

from __future__ import annotations

from typing import Any

from pgpubsub.core.sql import quote_identifier
from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Unseen

__all__ = ["LISTENS", "OF_CLIENTS", "WRITING", "describe", "hidden", "number_of", "query_of", "sessions", "shown"]

PRELUDE = r"(\s|--[^\n]*\n|/\*([^*]|\*+[^*/])*\*+/|(begin|start\s+transaction)\M[^;]*;)*"
"""What may stand before a statement: comments, as programs write them to be told apart, and the beginning of a
transaction."""

LISTENS = rf"(application_name LIKE 'pgpubsub listen %' OR query ~* '^{PRELUDE}listen\M')"
"""The condition on `pg_stat_activity`."""

WRITING = "(state = 'idle' AND wait_event = 'ClientWrite')"
"""The condition for a session that has no statement to execute, and waits until its client takes what it writes:
notifications, or the last 8 kB of what a statement has returned."""

OF_CLIENTS = (
    "(coalesce(backend_type, 'client backend') = 'client backend' AND datname IS NOT NULL AND usename IS NOT NULL)"
)
"""The condition for a client's session. What kind of session it is, is hidden from who may not see what it does; those
that work for the server itself have no role or no database."""

OF_ONE_ENCODING = (
    "(SELECT min(encoding) = max(encoding) AND min(encoding) <> 0 FROM pg_catalog.pg_database)"  # 0 is SQL_ASCII
)


def shown(name: str) -> str:
    """The expression for a text that all databases share, such as a role's name: null if it may be in an encoding that
    is not this database's. What such a text is in, nobody knows, and to read it may fail."""
    return f"CASE WHEN {name}::text !~ '[^\\x01-\\x7f]' OR {OF_ONE_ENCODING} THEN {name}::text END"


def query_of(activity: str) -> str:
    """The expression for the beginning of a session's last statement, in that row of `pg_stat_activity`: null if it has
    to do with a password, or is in another encoding than this database's."""
    return (
        f"CASE WHEN {activity}.query !~* 'password' AND ({activity}.query !~ '[^\\x01-\\x7f]' OR {activity}.datid IN ("
        "SELECT oid FROM pg_catalog.pg_database WHERE encoding <> 0 AND pg_catalog.pg_encoding_to_char(encoding)"
        f" = pg_catalog.getdatabaseencoding())) THEN left({activity}.query, 200) END"
    )


COLUMNS = f"""
pid, coalesce({shown("datname")}, 'oid ' || datid) AS database,
coalesce({shown("usename")}, 'oid ' || usesysid) AS role,
application_name AS application, host(client_addr) AS address, state,
wait_event_type || '/' || wait_event AS waits_for, {query_of("pg_stat_activity")} AS query,
coalesce({LISTENS}, false) AS listens,
extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds,
extract(epoch FROM clock_timestamp() - state_change)::float8 AS state_seconds,
(count(*) OVER ())::int AS of_all"""


def sessions(patient: Patient, condition: str, *, most: int = 20, order: str = "xact_start") -> Any:
    """Those of clients other than this one that fulfil `condition`; each tells in `of_all` how many do."""
    own = {patient.who.pid, patient.listening.info.backend_pid, patient.notifying.info.backend_pid}
    return patient.rows(
        f"SELECT {COLUMNS} FROM pg_catalog.pg_stat_activity"
        f" WHERE {OF_CLIENTS} AND pid NOT IN (pg_catalog.pg_backend_pid(), {', '.join(map(str, own))})"
        f" AND ({condition}) ORDER BY {order} LIMIT {most}"
    )


def describe(session: Any) -> dict[str, Any]:
    """One, as evidence."""
    told = {
        "pid": session.pid,
        "application": session.application,
        "role": session.role,
        "database": session.database,
        "address": session.address,
        "state": session.state,
        "waits for": session.waits_for,
        "seconds in this state": _rounded(session.state_seconds),
        "seconds in this transaction": _rounded(session.transaction_seconds),
        "query": session.query,
    }
    return {name: value for name, value in told.items() if value not in (None, "")}


def hidden(patient: Patient, what: str) -> Unseen | None:
    """What to say where there are sessions that this role is not shown; `what` is what they may be."""
    if patient.who.sees_all:
        return None
    ((count,),) = patient.rows(
        "SELECT count(*)::int FROM pg_catalog.pg_stat_activity"
        f" WHERE {OF_CLIENTS} AND query = '<insufficient privilege>'"
    )
    if not count:
        return None
    role = patient.who.role
    return Unseen(
        f"{what} of other roles: there are {number_of(count, 'session')} of which role {role!r} may not see what they"
        f" do. GRANT pg_monitor TO {quote_identifier(role)}"
    )


def number_of(count: int, noun: str) -> str:
    """
    >>> number_of(1, "session"), number_of(20, "session")
    ('1 session', '20 sessions')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
