"""The statements of groups. See `schema/0002_groups.sql`; parameters are as in `streams.statements`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from pgpubsub.core.position import Covered
from pgpubsub.core.slots import Place, Write
from pgpubsub.core.sql import quote_identifier
from pgpubsub.drivers.arrays import Column
from pgpubsub.streams.statements import SIZE, Statements, as_array

__all__ = [
    "GroupStatements",
    "SlotStatements",
    "parameters_of_parked",
    "parameters_of_place",
    "parameters_of_slots",
    "place_of",
]


OF_SLOTS = """
          %(member)s::uuid, %(durable)s::boolean, %(slots)s::smallint[], %(places)s::tid[], %(belows)s::bigint[],
          %(opens)s::text[], %(target_belows)s::bigint[], %(target_opens)s::text[], %(lasts)s::bigint[],
          %(in_flights)s::text[], %(helds)s::text[], %(kept)s::boolean[]"""

OF_PARKED = """
          %(done)s::bigint[], %(noted)s::bigint[], %(started)s::bigint[], %(started_delays)s::double precision[],
          %(started_togethers)s::int[], %(parked)s::bigint[], %(attempts)s::int[], %(togethers)s::int[],
          %(delays)s::double precision[], %(dead)s::boolean[], %(errors)s::text[]"""


class SlotStatements(Statements):
    """Those that read some slots of a stream. Rows have the slot in the last column."""

    _slot = ", slot"
    _in_slots = "AND slot = ANY (%(slots)s::smallint[])"

    def __init__(self, schema: str, slots: Sequence[int]) -> None:
        super().__init__(schema)
        self.parameters = {"slots": as_array(slots)}

    @property
    def _first_of_look(self) -> str:  # type: ignore[override]  # the newest may be in another slot
        return f"""
               newest.id, snapshot::text AS key, NULL AS payload, NULL AS payload_bytes, NULL AS headers,
               newest.appended_at, newest.xid::text::bigint AS xid, NULL AS slot
          FROM now LEFT JOIN LATERAL ({self._newest}) AS newest ON true"""


class GroupStatements:
    """Those for groups in one schema."""

    def __init__(self, schema: str) -> None:
        self._in = quote_identifier(schema).replace("%", "%%")

    @cached_property
    def exists(self) -> str:
        """Whether there is such a group."""
        return f"SELECT EXISTS (SELECT FROM {self._in}.consumer_group WHERE id = %(group)s::bigint)"

    @cached_property
    def join(self) -> str:
        """Become a member. Returns its id."""
        return f"""
        SELECT {self._in}.join_group(%(stream)s::text, %(name)s::text, %(member)s::text, %(lease)s::double precision,
                                     %(pid)s::int, %(former)s::uuid, %(below)s::bigint,
                                     %(open)s::bigint[], %(target)s::bigint, %(target_open)s::bigint[],
                                     %(last)s::bigint)::text
        """

    @cached_property
    def tick(self) -> str:
        """Who the members are, how many slots are free, and how many entries that others had in hand are gone. No row:
        the membership has ended."""
        return (
            f"SELECT members::text[], free, removed FROM {self._in}.tick(%(member)s::uuid, %(lease)s::double precision)"
        )

    @cached_property
    def take(self) -> str:
        """Take free slots. Returns where they stand."""
        return f"""
        SELECT slot, below::text::bigint, open::text[]::bigint[], target_below::text::bigint,
               target_open::text[]::bigint[], last
          FROM {self._in}.take(%(member)s::uuid, %(wanted)s::int)
        """

    @cached_property
    def blocked(self) -> str:
        """Keys of which entries wait in these slots."""
        return f"""
        SELECT key FROM {self._in}.parked
         WHERE consumer_group = %(group)s::bigint AND slot = ANY (%(slots)s::smallint[])
           AND due_at IS NOT NULL AND key IS NOT NULL
        """

    @cached_property
    def due(self) -> str:
        """Entries that are due, as `Statements.look` has them, then slot, attempts, together and size: about as many
        `bytes` as are given, and one at least. Those that are `known` are left out, and those of keys in `but`. At last
        a row without id that has, as `attempts`, the milliseconds until the next one."""
        return f"""
        (SELECT id, key, payload, payload_bytes, headers::text, appended_at, 0 AS xid, slot, attempts, together, size
           FROM (
             SELECT *, sum(size) OVER (ORDER BY due_at, id ROWS UNBOUNDED PRECEDING) - size AS size_before
               FROM (
                 SELECT one.*, {SIZE} AS size
                   FROM unnest(%(slots)s::smallint[]) AS its (slot)
                  CROSS JOIN LATERAL (
                    SELECT * FROM {self._in}.parked
                     WHERE consumer_group = %(group)s::bigint AND slot = its.slot
                       AND due_at <= statement_timestamp() AND id <> ALL (%(known)s::bigint[])
                       AND (key IS NULL OR key <> ALL (%(but)s::text[]))
                     ORDER BY due_at, id LIMIT %(rows)s::bigint) AS one
                  ORDER BY due_at, id LIMIT %(rows)s::bigint) AS found) AS due
          WHERE size_before < %(bytes)s::bigint)
        UNION ALL
        SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
               ceil(1000 * extract(epoch FROM min(following.due_at) - statement_timestamp()))::int, NULL, NULL
          FROM unnest(%(slots)s::smallint[]) AS its (slot)
         CROSS JOIN LATERAL (
           SELECT due_at FROM {self._in}.parked
            WHERE consumer_group = %(group)s::bigint AND slot = its.slot
              AND due_at > statement_timestamp() AND due_at < statement_timestamp() + interval '1 day'
              AND id <> ALL (%(known)s::bigint[])
            ORDER BY due_at LIMIT 1) AS following
        """

    @cached_property
    def write_slots(self) -> str:
        """See `core.slots.Write`, where nothing is parked. No row: the membership has ended."""
        return f"SELECT waiting, missing, written::text[] FROM {self._in}.write_down({OF_SLOTS})"

    @cached_property
    def write_down(self) -> str:
        """The same, where something is."""
        return f"SELECT waiting, missing, written::text[] FROM {self._in}.write_down({OF_SLOTS}, {OF_PARKED})"

    @cached_property
    def groups(self) -> str:
        """Those of a stream: number, name, entries and seconds behind, dead letters."""
        return f"""
        SELECT known.id, known.name, lag.entries,
               coalesce(extract(epoch FROM clock_timestamp() - lag.oldest), 0)::double precision,
               (SELECT count(*) FROM {self._in}.parked
                 WHERE consumer_group = known.id AND dead_at IS NOT NULL)
          FROM {self._in}.consumer_group AS known CROSS JOIN LATERAL {self._in}.group_lag(known.id) AS lag
         WHERE known.stream = %(stream)s::bigint
         ORDER BY known.name
        """

    @cached_property
    def members(self) -> str:
        """Those of a group: name, since when, how many slots, and the first 100 entries that they have in hand."""
        return f"""
        SELECT name, since, slots, ARRAY(
                 SELECT id FROM (SELECT unnest(in_flight) AS id FROM {self._in}.slot
                                  WHERE consumer_group = %(group)s::bigint AND slot.member = member.id
                                 UNION
                                 SELECT id FROM {self._in}.parked
                                  WHERE consumer_group = %(group)s::bigint AND due_at IS NOT NULL
                                    AND in_hand AND slot = ANY (numbers)) AS taken
                  ORDER BY id LIMIT 100)
          FROM {self._in}.member
               CROSS JOIN LATERAL (SELECT count(*) AS slots, array_agg(slot) AS numbers FROM {self._in}.slot
                                    WHERE consumer_group = %(group)s::bigint AND slot.member = member.id) AS its
         WHERE consumer_group = %(group)s::bigint
         ORDER BY since
        """

    @cached_property
    def held_up(self) -> str:
        """What failed and is to come again: id, key, how many are behind it, attempts, when, and the error."""
        return f"""
        SELECT id, key, (SELECT count(*) FROM {self._in}.parked AS other
                          WHERE other.consumer_group = one.consumer_group AND other.key = one.key
                            AND hashtextextended(other.key, 0) = hashtextextended(one.key, 0)
                            AND other.dead_at IS NULL AND other.id > one.id),
               attempts, due_at, error
          FROM {self._in}.parked AS one
         WHERE consumer_group = %(group)s::bigint AND due_at IS NOT NULL
         ORDER BY due_at, id LIMIT 100
        """

    @cached_property
    def dead(self) -> str:
        """What was set aside, as `Statements.look` has entries, then attempts, error and when."""
        return f"""
        SELECT id, key, payload, payload_bytes, headers::text, appended_at, 0 AS xid, attempts, error, dead_at
          FROM {self._in}.parked WHERE consumer_group = %(group)s::bigint AND dead_at IS NOT NULL
         ORDER BY id LIMIT %(rows)s::bigint
        """

    @cached_property
    def redrive(self) -> str:
        """Let some of that be handed out again. Returns how many, and the last of them."""
        return f"""
        SELECT redriven, last FROM {self._in}.redrive(%(group)s::bigint, %(ids)s::bigint[], %(behind)s::bigint)
        """

    @cached_property
    def discard(self) -> str:
        """Forget it. Returns how many."""
        return f"""
        WITH gone AS (
          DELETE FROM {self._in}.parked
           WHERE consumer_group = %(group)s::bigint AND dead_at IS NOT NULL
             AND (%(ids)s::bigint[] IS NULL OR id = ANY (%(ids)s::bigint[]))
          RETURNING id)
        SELECT count(*) FROM gone
        """

    @cached_property
    def seek(self) -> str:
        """Let a group go on elsewhere."""
        return f"""
        SELECT 0 FROM {self._in}.seek_group(%(group)s::bigint, %(below)s::bigint, %(open)s::bigint[],
                                            %(target)s::bigint, %(target_open)s::bigint[], %(last)s::bigint)
        """

    @cached_property
    def drop(self) -> str:
        """Forget a group. Returns whether there was one."""
        return f"SELECT {self._in}.drop_group(%(group)s::bigint)"

    @cached_property
    def before(self) -> str:
        """The highest id that is lower than those of all entries from `time` on."""
        return f"""
        SELECT coalesce(
          (SELECT id - 1 FROM {self._in}.entry
            WHERE stream = %(stream)s::bigint AND appended_at >= %(time)s::timestamptz ORDER BY id LIMIT 1),
          (SELECT max(id) FROM {self._in}.entry WHERE stream = %(stream)s::bigint), 0)
        """

    @cached_property
    def leave(self) -> str:
        """End a membership."""
        return f"SELECT {self._in}.leave_group(%(member)s::uuid)"

    @cached_property
    def fates(self) -> str:
        """Of transactions, by number from 1 on: whether each is over, and what it acknowledged is there."""
        return f"""
        SELECT given.number, coalesce(pg_xact_status(given.xid::text::xid8), 'over') <> 'in progress',
               EXISTS (SELECT FROM {self._in}.acknowledged WHERE id = given.id)
          FROM unnest(%(xids)s::bigint[], %(ids)s::bigint[]) WITH ORDINALITY AS given (xid, id, number)
        """


def parameters_of_slots(write: Write, places: Mapping[int, str]) -> Mapping[str, Any]:
    """Those of `write_slots`, all but the member. `places`: where the slots' rows were last."""
    slots = write.slots
    targets = [slot.place.target for slot in slots]
    return {
        "durable": str(write.durable),
        "slots": as_array([slot.number for slot in slots]),
        "places": as_array([f'"{places[slot.number]}"' if slot.number in places else "NULL" for slot in slots]),
        "belows": as_array([slot.place.covered.below for slot in slots]),
        "opens": _arrays([slot.place.covered.open for slot in slots]),
        "target_belows": as_array([_or_null(target and target.below) for target in targets]),
        "target_opens": _arrays([target and target.open for target in targets]),
        "lasts": as_array([slot.place.last for slot in slots]),
        "in_flights": _arrays([slot.in_flight for slot in slots]),
        "helds": _arrays([slot.held for slot in slots]),
        "kept": as_array([str(slot.kept) for slot in slots]),
    }


def parameters_of_parked(write: Write, expressible: Callable[[str], str]) -> Mapping[str, Any]:
    """Those that `write_down` has beside. `expressible`: makes an error's text one that the server can store."""
    parked = write.parked
    return {
        "done": as_array(write.done),
        "noted": as_array(write.noted),
        "started": as_array([one.id for one in write.started]),
        "started_delays": as_array([str(one.delay) for one in write.started]),
        "started_togethers": as_array([one.together for one in write.started]),
        "parked": as_array([one.id for one in parked]),
        "attempts": as_array([one.attempts for one in parked]),
        "togethers": as_array([one.together for one in parked]),
        "delays": as_array([_or_null(one.delay) for one in parked]),
        "dead": as_array([str(one.dead) for one in parked]),
        "errors": Column("text", [None if one.error is None else expressible(one.error) for one in parked]),
    }


def parameters_of_place(place: Place) -> Mapping[str, Any]:
    """Those that say where a group is to go on."""
    target = place.target
    return {
        "below": place.covered.below,
        "open": as_array(place.covered.open),
        "target": target and target.below,
        "target_open": target and as_array(target.open),
        "last": place.last,
    }


def place_of(
    below: int, open: Sequence[int], target: int | None, target_open: Sequence[int] | None, last: int
) -> Place:
    """What `take` returns."""
    covered = Covered(below, tuple(open))
    return Place(covered) if target is None else Place(covered, Covered(target, tuple(target_open or ())), last)


def _or_null(value: object) -> str:
    return "NULL" if value is None else str(value)


def _arrays(arrays: Iterable[Sequence[int] | None]) -> str:
    """An array of arrays, written as text."""
    return as_array(
        ["NULL" if numbers is None else f'"{as_array(numbers)}"' if numbers else '"{}"' for numbers in arrays]
    )
