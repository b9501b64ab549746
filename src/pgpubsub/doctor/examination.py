"""One examination: all checks, one after the other, within a time that is fixed beforehand."""

from __future__ import annotations

from time import monotonic
from types import ModuleType

from pgpubsub.core.entries import check_schema
from pgpubsub.core.timeouts import check_seconds
from pgpubsub.doctor.checks import CHECKS
from pgpubsub.doctor.patient import OutOfTime, Patient, visit
from pgpubsub.doctor.report import Examined, Finding, Fine, Report, Unseen
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.drivers.psycopg3_connect import in_one_line
from pgpubsub.logs import EventLog

__all__ = ["examine"]

logger = EventLog("doctor")

LONGEST = 86_400.0
"""Seconds: whoever gives it more time than a day means that it has no limit."""


def examine(
    conninfo: str = "", *, schema: str = "pgpubsub", within: float = 1.8, connect_within: float = 10.0
) -> Report:
    """Look for what is wrong with a deployment: connection, server, listeners, streams, groups, triggers.

    It connects twice, as a role that needs no rights at all, though with those of `pg_monitor` it sees more; the report
    says what it could not see. It changes nothing, leaves nothing behind, and blocks: from asyncio,
    `await asyncio.to_thread(pgpubsub.doctor.examine, conninfo)`.

    Args:
        conninfo: libpq connection string or URI, as programs use it to listen. Empty: from libpq's environment.
        schema: where streams are installed.
        within: seconds for all checks together, once it is connected. They ask some 25 questions, one after the other:
            where one takes the line 100 ms there and back, give it 5. What was not looked at to the end by then is
            reported as unseen, and named in `Report.incomplete`.
        connect_within: seconds to connect in.

    Raises:
        ConninfoError, ValueError, TypeError: an argument is not possible.
        ConnectionFailed: nothing can be examined.

    >>> import pgpubsub.doctor
    >>> report = pgpubsub.doctor.examine(dsn)
    >>> for examined in report.checks:
    ...     for finding in examined.findings:
    ...         if finding.severity is pgpubsub.doctor.Severity.CRITICAL:
    ...             print(examined.check, finding.cause, finding.cure, finding.evidence)
    >>> report["queue"].fine
    ('0.0 % of the NOTIFY queue is in use',)
    """
    check_schema(schema)
    check_seconds("within", within)
    check_seconds("connect_within", connect_within)
    return visit(conninfo, schema, _report, connect_within=min(connect_within, LONGEST), within=min(within, LONGEST))


def _report(patient: Patient) -> Report:
    begin = monotonic()
    checks = tuple(_examined(check, patient) for check in CHECKS)
    return Report(patient.server, checks, monotonic() - begin)


def _examined(check: ModuleType, patient: Patient) -> Examined:
    """What comes of one check, whatever happens to it: the others are to be made all the same."""
    name = check.__name__.rpartition(".")[2].replace("_", "-")
    results: list[Finding | Fine | Unseen] = []
    try:
        for result in check.check(patient):
            results.append(result)  # one by one: what came before an error counts
    except Exception as error:
        results.append(_why_unseen(name, patient.who.role, error))
    unseen = [one for one in results if isinstance(one, Unseen)]
    return Examined(
        name,
        findings=tuple(one for one in results if isinstance(one, Finding)),
        fine=tuple(one.what for one in results if isinstance(one, Fine)),
        unseen=tuple(one.why for one in unseen),
        incomplete=any(one.incomplete for one in unseen),
    )


def _why_unseen(name: str, role: str, error: Exception) -> Unseen:
    """What to say of a check that ended with an error."""
    match error:
        case OutOfTime():
            return Unseen(f"not looked at to the end: {error}", incomplete=True)
        case psycopg.errors.InsufficientPrivilege():
            return Unseen(f"role {role!r} may not look: {error.diag.message_primary}")
        case psycopg.Error():
            return Unseen(f"the server did not tell: {in_one_line(error)}", incomplete=True)
    logger.error("check_failed", "the check %(check)s failed", exc_info=error, check=name)
    return Unseen(f"the check itself failed, which is a bug of pgpubsub: {error!r}", incomplete=True)
