"""What the checks of streams and groups have in common: whether there are any here, and what groups have not settled.

To count what a group has not settled takes seconds where it is millions, so only the oldest is looked for, through
indexes, and not farther than `FAR` entries from where a group stands. What stands behind that is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import wraps
from time import monotonic, sleep
from typing import Any

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Unseen
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.streams.installation import missing_schema

__all__ = ["OF_GROUPS", "ask", "first_of", "lasting", "of_streams", "twice", "unsettled"]

Check = Callable[[Patient], Iterator[Finding | Fine | Unseen]]

AGAIN = 0.1
"""Seconds between two looks: what goes on gets on by then, as a consumer hands out and settles in milliseconds."""
SHARE = 0.5
"""Of the time that is left: what one look may take. With thousands of groups it is a second."""
LONG = 0.3
"""Seconds that a look takes, from which on there is no second one."""
FAR = 2_000
"""Entries to look at, for each place where slots of a group stand: about 1 ms. A slot has each 32nd, on average."""
MOST = 20
"""Findings of a kind that are told one by one."""
SOME = 1_000
"""Entries of a group that failed, or are to come again, to look at."""

OF_GROUPS = ("stream", "entry", "consumer_group", "member", "life", "slot", "parked")
"""The relations that `unsettled` asks."""

OLDEST = """
WITH now AS MATERIALIZED (SELECT clock_timestamp() AS time),
present AS MATERIALIZED (
  SELECT member.*, until >= now.time AND life IN (SELECT token FROM {schema}.life)
                   AND (pid IS NULL OR EXISTS (SELECT FROM pg_stat_get_activity(member.pid))) AS alive
    FROM now, {schema}.member),
its AS MATERIALIZED (
  SELECT slot.*, known.stream, present.name AS member_name, present.pid, present.alive
    FROM {schema}.consumer_group AS known JOIN {schema}.slot ON slot.consumer_group = known.id
    LEFT JOIN present ON present.id = slot.member),
front AS MATERIALIZED (
  SELECT consumer_group, stream, below, open, target_below, target_open, last, array_agg(slot) AS slots
    FROM its GROUP BY consumer_group, stream, member, below, open, target_below, target_open, last),
found AS MATERIALIZED (
  SELECT front.consumer_group, front.stream, next.id FROM front CROSS JOIN LATERAL (
    (SELECT id FROM (
       SELECT xid, id, slot FROM {schema}.entry
        WHERE stream = front.stream AND xid >= coalesce(front.target_below, front.below)
        ORDER BY xid, id LIMIT {far}) AS beyond
      WHERE slot = ANY (front.slots) ORDER BY xid, id LIMIT 1)
    UNION ALL
    (SELECT id FROM (
       SELECT xid, id, slot FROM {schema}.entry
        WHERE stream = front.stream AND xid = ANY (front.open || front.target_open) LIMIT {far}) AS late
      WHERE slot = ANY (front.slots)
        AND NOT {schema}.covers(front.below, front.open, front.target_below, front.target_open, front.last, id, xid)
      ORDER BY id LIMIT 1)
    UNION ALL
    (SELECT id FROM (
       SELECT xid, id, slot FROM {schema}.entry
        WHERE stream = front.stream AND front.target_below IS NOT NULL AND id > front.last
        ORDER BY id LIMIT {far}) AS within
      WHERE slot = ANY (front.slots)
        AND NOT {schema}.covers(front.below, front.open, front.target_below, front.target_open, front.last, id, xid)
      ORDER BY id LIMIT 1)) AS next
  UNION ALL
  SELECT consumer_group, stream, (SELECT min(id) FROM unnest(in_flight || held) AS taken (id))
    FROM its WHERE in_flight || held <> '{}'),
every AS (
  SELECT found.consumer_group, entry.id, entry.slot, entry.key, entry.appended_at, 0 AS attempts,
         NULL::timestamptz AS due_at, NULL AS error,
         entry.id = ANY (its.in_flight || its.held) AS in_hand, false AS parked
    FROM found CROSS JOIN LATERAL (  -- with LIMIT, so that it is looked up, whatever is guessed of how many there are
      SELECT id, slot, key, appended_at FROM {schema}.entry AS one
       WHERE one.stream = found.stream AND one.id = found.id LIMIT 1) AS entry
    JOIN its ON its.consumer_group = found.consumer_group AND its.slot = entry.slot
  UNION ALL
  SELECT known.id, one.* FROM {schema}.consumer_group AS known CROSS JOIN LATERAL (
    SELECT id, slot, key, appended_at, attempts, due_at, error, in_hand, true FROM {schema}.parked
     WHERE consumer_group = known.id AND due_at IS NOT NULL ORDER BY slot, due_at LIMIT {some}) AS one),
oldest AS MATERIALIZED (
  SELECT DISTINCT ON (every.consumer_group, parked, kind) every.*, its.stream, its.member_name, its.pid, kind
    FROM every JOIN its USING (consumer_group, slot) CROSS JOIN LATERAL (
      SELECT CASE WHEN its.alive IS NOT TRUE AND NOT (parked AND attempts > 0) THEN 'left'
                  WHEN in_hand THEN 'in hand' WHEN attempts > 0 THEN 'failing' ELSE 'waiting' END AS kind) AS of
   ORDER BY every.consumer_group, parked, kind, every.appended_at, every.id)
"""
"""`oldest`: for each group and kind, what is not settled, in order.

Three ways lead to it: what came after a slot's position; what was in transactions that were open then; and what is left
of a backlog on the way through which a slot is."""

DESCRIBED = """,
crew AS MATERIALIZED (
  SELECT consumer_group, count(*) FILTER (WHERE alive) AS members, count(*) FILTER (WHERE NOT alive) AS ended,
         max(since) FILTER (WHERE alive) AS last_joined
    FROM present GROUP BY consumer_group),
vacant AS MATERIALIZED (
  SELECT consumer_group, count(*) FILTER (WHERE member IS NULL) AS free FROM its GROUP BY consumer_group)
SELECT oldest.consumer_group, oldest.stream AS stream_id, coalesce(stream.name, to_hex(oldest.stream)) AS stream,
       known.name AS group, kind, parked, oldest.id, key, slot, attempts, left(error, 500) AS error,
       extract(epoch FROM now.time - appended_at)::float8 AS seconds,
       extract(epoch FROM due_at - now.time)::float8 AS due_in, member_name AS member, pid,
       coalesce(members, 0) AS members, coalesce(ended, 0) AS ended, free,
       coalesce(extract(epoch FROM now.time - last_joined), 0)::float8 AS together,
       (SELECT count(*) FROM (
         SELECT FROM {schema}.parked AS other
          WHERE oldest.parked AND other.consumer_group = oldest.consumer_group AND other.key = oldest.key
            AND hashtextextended(other.key, 0) = hashtextextended(oldest.key, 0) AND other.dead_at IS NULL
            AND other.id > oldest.id LIMIT {some}) AS line) AS behind
  FROM now, oldest JOIN {schema}.consumer_group AS known ON known.id = oldest.consumer_group
  JOIN vacant ON vacant.consumer_group = oldest.consumer_group
  LEFT JOIN crew ON crew.consumer_group = oldest.consumer_group
  LEFT JOIN {schema}.stream ON stream.id = oldest.stream
 WHERE appended_at < now.time - make_interval(secs => %(over)s::float8)
 ORDER BY appended_at, oldest.id
"""
"""Of whom the group consists, and what waits behind an entry that fails."""


def of_streams(*relations: str) -> Callable[[Check], Check]:
    """Have a check say so where there are no streams, or where this role may or should not ask these relations."""

    def guarded(check: Check) -> Check:
        @wraps(check)
        def checked(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
            if not patient.access.installed:
                yield Fine(f"no streams are installed in schema {patient.schema!r}")
            elif (refusal := patient.access.refusal(relations)) is not None:
                yield Unseen(refusal)
            else:
                yield from _checked(check, patient)

        return checked

    return guarded


def _checked(check: Check, patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """What comes of it, and what the server says if they are not what they should be, or rows are hidden."""
    try:
        yield from check(patient)
    except psycopg.errors.InsufficientPrivilege as error:
        yield Unseen(
            f"role {patient.who.role!r} may not read all of the streams in schema {patient.schema!r}: {about(error)}"
        )
    except psycopg.Error as error:
        if not missing_schema(error.sqlstate):
            raise
        yield Unseen(f"the streams in schema {patient.schema!r} are of another version: {about(error)}")


def ask(patient: Patient, question: str, parameters: Any = None, *, within: float = 0.4) -> Any:
    """`patient.rows`, where `{schema}` stands for the streams' schema, and a % is written once only in names."""
    schema = patient.quoted_schema.replace("%", "%%")
    return patient.rows(question.replace("{schema}", schema), parameters or {}, within=within)


def unsettled(patient: Patient, over: float) -> Any:
    """The oldest entries that groups have not settled, at least `over` seconds old: for each group and kind one, as far
    as was looked. What is `parked` has a copy of its own, so that retention does not concern it. Not on a standby.

    The kinds: 'left' (nobody has the slot, or a member that has ended), 'waiting' (its member has not handed it out),
    'in hand' and 'failing' (it is to come again).
    """
    question = f"{OLDEST}{DESCRIBED}".replace("{far}", str(FAR)).replace("{some}", str(SOME))
    return ask(patient, question, {"over": over}, within=SHARE * patient.seconds_left)


def twice(look: Callable[[], Sequence[Any]], name: Callable[[Any], Hashable]) -> list[Any]:
    """What is there at two looks: what is there at one only comes and goes, as on every busy server. If one takes so
    long that there is no time for another, it has to do."""
    begun = monotonic()
    found = look()
    if not found or monotonic() - begun > LONG:
        return list(found)
    before = {name(one) for one in found}
    sleep(AGAIN)
    return [one for one in look() if name(one) in before]


def first_of(findings: Sequence[Finding], what: str) -> Iterator[Finding]:
    """These, the gravest first, but no more than can be read; `what` is more of which there are."""
    findings = sorted(findings, key=lambda finding: finding.severity, reverse=True)
    yield from findings[:MOST]
    if rest := findings[MOST:]:
        others = [dict(one.evidence) for one in rest[:SOME]]
        yield Finding(
            rest[0].severity, f"{len(rest)} more {what}", "begin with those above", {"others": others}, "others"
        )


def about(error: psycopg.Error) -> str:
    """The server's words, in a line."""
    return error.diag.message_primary or " ".join(str(error).split())


def lasting(seconds: float) -> str:
    """A duration, as one says it.

    >>> lasting(75.2), lasting(7500), lasting(300_000)
    ('75 s', '2 h', '3 days')
    """
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
