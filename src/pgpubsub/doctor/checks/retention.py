"""Retention is about to remove what a group has not handled, or has done so; or nobody removes what is due.

Streams with `keep_unconsumed` wait for their groups. Of others, what a group has not handled goes when its time has
come, and all that it gets is a `Gap`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.streams import OF_GROUPS, ask, first_of, lasting, of_streams, twice, unsettled

__all__ = ["check"]

NEAR = 0.8
"""Of `max_age` or `max_entries`: the last fifth is the time to do something."""
UNREMOVED = 600.0
"""Seconds that an entry may outlive `max_age`: hubs look every four minutes at least."""
UNWRITTEN = 60.0
"""Seconds: members write down every two how far they are."""
COUNTED = 10_000
"""Entries that are counted. With more, retention's own count is taken, and that ids are spread evenly."""

LIMITED = """
SELECT stream.id, stream.name, extract(epoch FROM max_age)::float8 AS max_age, max_entries, keep_unconsumed,
       (SELECT extract(epoch FROM clock_timestamp() - entry.appended_at)::float8 FROM {schema}.entry
         WHERE entry.stream = stream.id AND entry.id > coalesce(trimmed.last, 0) ORDER BY entry.id LIMIT 1) AS oldest,
       (SELECT extract(epoch FROM clock_timestamp() - at)::float8 FROM {schema}.trimming) AS asked
  FROM {schema}.stream LEFT JOIN {schema}.trimmed ON trimmed.stream = stream.id
 WHERE max_age IS NOT NULL OR max_entries IS NOT NULL
"""

PASSED = """
SELECT stream.name AS stream, known.name AS group, trimmed.removed, trimmed.appended_at::text AS last, its.*
  FROM {schema}.stream JOIN {schema}.trimmed ON trimmed.stream = stream.id
  JOIN {schema}.consumer_group AS known ON known.stream = stream.id
 CROSS JOIN LATERAL (
   SELECT count(*) AS slots, count(*) FILTER (
            WHERE trimmed.below > slot.below AND (slot.below > '0' OR slot.target_below IS NOT NULL)
              AND (slot.target_below IS NULL OR trimmed.below > slot.target_below OR trimmed.last > slot.last)
          ) AS passed
     FROM {schema}.slot WHERE slot.consumer_group = known.id) AS its
 WHERE NOT (trimmed.kept OR stream.keep_unconsumed) AND trimmed.birth IN (SELECT token FROM {schema}.native_birth)
   AND its.passed > CASE WHEN trimmed.appended_at < clock_timestamp() - make_interval(secs => %(unwritten)s::float8)
                         THEN 0 ELSE its.slots - 1 END
 ORDER BY its.passed DESC, 1, 2
"""
"""Slots that stand before what was removed last; one that nobody has looked at, below 0, has missed nothing. Where all
do, one of them has missed that. Some may stand there only since their member has not written down yet how far it is.
(In a stream that is empty, a group stands there until it gets the next entry.)"""

NEWER = """
SELECT given.number, CASE WHEN given.max_entries <= %(counted)s::bigint
         THEN (SELECT count(*) FROM (SELECT FROM {schema}.entry WHERE stream = given.stream AND id > given.id
                                      LIMIT %(counted)s::bigint) AS newer)
         ELSE trimmed.counted * (newest.id - given.id) / nullif(newest.id - first.id, 0) END AS newer
  FROM unnest(%(streams)s::bigint[], %(ids)s::bigint[], %(limits)s::bigint[])
       WITH ORDINALITY AS given (stream, id, max_entries, number)
  LEFT JOIN {schema}.trimmed ON trimmed.stream = given.stream
 CROSS JOIN LATERAL (SELECT max(id) AS id FROM {schema}.entry WHERE stream = given.stream) AS newest
 CROSS JOIN LATERAL (SELECT min(id) AS id FROM {schema}.entry
                      WHERE stream = given.stream AND id > coalesce(trimmed.last, 0)) AS first
"""


class _Near(NamedTuple):
    group: int
    id: int
    of: str
    share: float
    """Of the limit, at least `NEAR`."""
    limit: str
    evidence: dict[str, Any]


@of_streams(*OF_GROUPS, "trimmed", "trimming", "native_birth")
def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """A finding for each group that loses entries, or is about to, and one if nobody removes any; or fine."""
    limited = ask(patient, LIMITED)
    found = [*first_of(list(_of_groups(patient, limited)), "groups lose entries"), *_unremoved(limited)]
    yield from found
    if patient.who.in_recovery and limited:
        yield Unseen("groups: only the primary knows what they have not handled")
    if not limited:
        yield Fine("no stream has max_age or max_entries: all entries are kept")
    elif not found:
        yield Fine("retention removes what is due, and nothing that a group has not handled")


def _of_groups(patient: Patient, limited: Sequence[Any]) -> Iterator[Finding]:
    risky = {stream.id: stream for stream in limited if not stream.keep_unconsumed}
    if risky:
        yield from map(_passed, ask(patient, PASSED, {"unwritten": UNWRITTEN}))
    if risky and not patient.who.in_recovery:
        for near in twice(partial(_near, patient, risky), lambda near: (near.group, near.id)):
            yield _about_to_pass(near)


def _passed(one: Any) -> Finding:
    group = f"group {one.group!r}"
    cause = (
        f"retention has removed entries of stream {one.stream!r} that {group} had not handled"
        if one.passed == one.slots
        else f"retention has probably removed entries of stream {one.stream!r} that {group} had not handled, in"
        f" {one.passed} of its {one.slots} slots"
    )
    return Finding(
        Severity.CRITICAL if one.passed == one.slots else Severity.WARNING,
        f"{cause}: it stands before the last one removed, which was appended at {one.last}",
        f"start its consumers, which go on with what is left (and tell `on_gap`). To keep what groups have not handled:"
        f" pgpubsub.streams.create(conn, {one.stream!r}, keep_unconsumed=True). If the group is not needed any more:"
        f" stream.drop_group({one.group!r})",
        {"stream": one.stream, "group": one.group, "slots passed": one.passed, "removed in all": one.removed}
        | {"last appended at": one.last},
        f"{group} of stream {one.stream!r}: passed",
    )


def _about_to_pass(near: _Near) -> Finding:
    return Finding(
        Severity.WARNING,
        f"retention is about to remove what {near.of} has not handled: its oldest entry has come to {near.share:.0%} of"
        f" {near.limit}".replace("%", " %", 1),
        "add consumers, or find out what holds the group up (the check 'groups'); or keep more:"
        f" pgpubsub.streams.create(conn, {near.evidence['stream']!r}, keep_unconsumed=True)",
        near.evidence,
        f"{near.of}: about to be passed",
    )


def _near(patient: Patient, risky: dict[int, Any]) -> list[_Near]:
    """The oldest entry of each group, where it is near the end."""
    oldest: dict[int, Any] = {}
    for row in unsettled(patient, 0.0):  # the oldest first
        if not row.parked and row.stream_id in risky:
            oldest.setdefault(row.consumer_group, row)
    found = []
    newer = _newer(patient, risky, [row for row in oldest.values() if risky[row.stream_id].max_entries])
    for group, row in oldest.items():
        stream = risky[row.stream_id]
        shares = []
        if stream.max_age:
            shares.append((row.seconds / stream.max_age, f"max_age ({lasting(stream.max_age)})"))
        if group in newer:
            shares.append((newer[group] / stream.max_entries, f"max_entries ({stream.max_entries})"))
        share, limit = max(shares, default=(0.0, ""))
        if share >= NEAR:
            of = f"group {row.group!r} of stream {row.stream!r}"
            evidence = {"stream": row.stream, "group": row.group, "entry": row.id, "seconds": round(row.seconds, 1)}
            evidence |= {"newer entries": newer[group]} if group in newer else {}
            found.append(_Near(group, row.id, of, share, limit, evidence))
    return found


def _newer(patient: Patient, risky: dict[int, Any], rows: Sequence[Any]) -> dict[int, int]:
    """How many entries of the stream are newer than the oldest of each group, where that costs little to know."""
    if not rows:
        return {}
    parameters = {
        "streams": [row.stream_id for row in rows],
        "ids": [row.id for row in rows],
        "limits": [risky[row.stream_id].max_entries for row in rows],
        "counted": COUNTED,
    }
    answer = ask(patient, NEWER, parameters)
    return {rows[number - 1].consumer_group: newer for number, newer in answer if newer is not None}


def _is_late(stream: Any) -> bool:
    if stream.max_age is None or stream.oldest is None or (stream.asked is not None and stream.asked < UNREMOVED):
        return False
    return bool(stream.oldest >= stream.max_age + UNREMOVED)


def _unremoved(limited: Sequence[Any]) -> Iterator[Finding]:
    late = [stream for stream in limited if _is_late(stream)]
    if not late:
        return
    looked = f"looked for {lasting(late[0].asked)}" if late[0].asked is not None else "ever looked"
    streams = "a stream has" if len(late) == 1 else f"{len(late)} streams have"
    yield Finding(
        Severity.NOTICE,
        f"{streams} entries that are older than max_age and that nobody removes: no hub with the right to has {looked}",
        "run `pgpubsub stream trim` or pgpubsub.streams.trim(conn), from a cron job perhaps; or let a hub do it that"
        " appends or reads, whose role has DELETE and UPDATE on entry, and INSERT and UPDATE on trimmed and trimming",
        {"streams": {one.name: {"oldest": round(one.oldest), "max_age": one.max_age} for one in late[:20]}},
        "nobody removes",
    )
