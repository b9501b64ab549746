"""Entries were set aside, since they failed too often, and nobody has looked at them.

They are in nobody's way. But nobody has handled them either, and they stay until somebody decides what is to become of
them.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.streams import ask, first_of, lasting, of_streams

__all__ = ["check"]

MANY = 1_000
"""As far as is counted in each group, from the newest entry on: about 1 ms. More are told of as "at least"."""

DEAD = """
SELECT coalesce(stream.name, to_hex(known.stream)) AS stream, known.name AS group, its.*
  FROM {schema}.consumer_group AS known LEFT JOIN {schema}.stream ON stream.id = known.stream
 CROSS JOIN LATERAL (
   SELECT count(*) AS count, min(id) AS first, min(dead_at)::text AS since, max(dead_at)::text AS last,
          extract(epoch FROM clock_timestamp() - min(dead_at))::float8 AS seconds,
          left((array_agg(error ORDER BY dead_at DESC, id DESC))[1], 500) AS error
     FROM (SELECT id, dead_at, error FROM {schema}.parked
            WHERE consumer_group = known.id AND dead_at IS NOT NULL
            ORDER BY id DESC LIMIT %(many)s::bigint) AS dead) AS its
 WHERE its.count > 0
 ORDER BY its.count DESC, 1, 2
"""


@of_streams("stream", "consumer_group", "parked")
def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """A finding for each group that has any, or fine."""
    groups = ask(patient, DEAD, {"many": MANY})
    if not groups:
        yield Fine("no entry was set aside by a group")
    yield from first_of([_finding(one) for one in groups], "groups have set entries aside")


def _finding(one: Any) -> Finding:
    """Of one group."""
    count = f"at least {MANY}" if one.count == MANY else str(one.count)
    names = shlex.join([one.stream, one.group])
    entries = "entry was" if one.count == 1 else "entries were"
    return Finding(
        Severity.WARNING,
        f"{count} {entries} set aside by group {one.group!r} of stream {one.stream!r} after too many attempts,"
        f" the first {lasting(one.seconds)} ago; the last error: {one.error or 'unknown'}",
        f"look at them: `pgpubsub stream dead {names}` or stream.dead({one.group!r}). When the reason"
        f" is mended, `pgpubsub stream redrive {names}` lets them come again;"
        f" `pgpubsub stream discard {names}` forgets them",
        {
            "stream": one.stream,
            "group": one.group,
            "count": one.count,
            "first id": one.first,
            "first set aside": one.since,
            "last set aside": one.last,
            "last error": one.error,
        },
        f"group {one.group!r} of stream {one.stream!r}",
    )
