"""The schema of streams is of a version that this library cannot work with, or was restored from a dump.

After a restore transaction ids start low again, so that those of entries mean nothing: some would be delivered again,
and some never. The library refuses such streams until they were installed once more, which repairs them.
"""

from __future__ import annotations

from collections.abc import Iterator

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.streams import ask, of_streams
from pgpubsub.streams.installation import VERSION

__all__ = ["check"]

STATE = """
SELECT number, serves_from, EXISTS (SELECT FROM {schema}.native_birth) AS is_native,
       EXISTS (
         SELECT FROM {schema}.stream CROSS JOIN LATERAL (
           SELECT FROM {schema}.entry
            WHERE entry.stream = stream.id AND xid >= pg_snapshot_xmax(pg_current_snapshot()) LIMIT 1) AS one
       ) AS from_future
  FROM {schema}.version ORDER BY number DESC LIMIT 1
"""
"""An entry from the future was copied from another server, by logical replication perhaps."""


@of_streams("version", "native_birth", "stream", "entry")
def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    found = ask(patient, STATE)
    number, serves_from, is_native, from_future = found[0] if found else (0, 0, True, False)
    streams = f"the streams in schema {patient.schema!r}"
    install = f"pgpubsub.streams.install(conn{'' if patient.schema == 'pgpubsub' else f', {patient.schema!r}'})"
    evidence = {
        "version": number,
        "serves versions from": serves_from,
        "version of this library": VERSION,
        "appended in this cluster": is_native and not from_future,
    }
    if number < VERSION:
        cause = f"{streams} have version {number} and this pgpubsub needs {VERSION}, so that it refuses them"
        cure = f"run `pgpubsub stream install` or {install}, which may be done while they are in use"
    elif serves_from > VERSION:
        cause = (
            f"{streams} have version {number}, which serves versions from {serves_from} on; this pgpubsub has {VERSION}"
        )
        cure = "use a newer pgpubsub: pip install --upgrade pgpubsub"
    elif not is_native or from_future:
        cause = (
            f"{streams} were restored from a dump, or copied from another server, so that their transaction ids mean"
            " nothing here and pgpubsub refuses them"
        )
        cure = f"run `pgpubsub stream install` or {install} once, which repairs that; readers get all entries again"
    else:
        yield Fine(f"{streams} have version {number}, which this library works with")
        return
    yield Finding(Severity.CRITICAL, cause, cure, evidence)
