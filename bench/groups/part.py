"""The part about groups, beside what people write by hand for the same and beside job queues.

So many members in processes of their own, with handlers that do nothing, on a disk of a millisecond: first everybody
is at work and has handled a few entries that do not count, then what is to be handled is committed, at which the clock
starts, and it stops when all is acknowledged.
Job queues have no handlers for many jobs at once; what comes closest to a batch is given to them (procrastinate's
concurrency, PGQueuer's batch size). "SKIP LOCKED" is the loop by hand with `SELECT ... FOR UPDATE SKIP LOCKED` and
`DELETE`: no attempts are counted, no order is kept, nothing is set aside. "attempts counted" counts them first.

Then: from an append to the handler, at a steady rate; both once 100,000 entries have gone through, and while a
transaction was open all that time, each beside itself with empty tables; and what the tables grow to in an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.comparison import FASTEST, ITSELF, Aim, Metric
from bench.contestants import Contestant, Role
from bench.ground import Effort
from bench.groups import growth, kept, ours
from bench.groups.called import BEHIND, RATE, Called
from bench.groups.growth import Aged, Growth
from bench.groups.handled import RATE as PER_SECOND
from bench.groups.handled import Handled
from bench.groups.kept import Kept, Relations
from bench.groups.ways import BY_HAND, OURS, PGMQ, PGQUEUER, PROCRASTINATE, Way
from bench.groups.yard import disk
from bench.peers import pgmq, pgqueuer, procrastinate, tables
from bench.rounds import Measurement
from bench.streams import lines
from bench.streams.places import DISKS

__all__ = ["measurements", "metrics"]

LOCKED, COUNTED = "SKIP LOCKED", "attempts counted"
TASKS = 16

ASYNC = Way(OURS, ours.consume_async, lines.hub_sends, ours.take_async)
BLOCKING = Way(OURS, ours.consume, lines.hub_sends, ours.take)
WITH_EFFECTS = Way(OURS, partial(ours.consume_async, transactions=True), lines.hub_sends, ours.take_async)
BY_TASKS = Way(
    OURS,
    partial(ours.consume_async, tasks=TASKS),
    lines.hub_sends,
    partial(ours.take_one_by_one, tasks=TASKS),
)


def _by_hand(handle: tables.Handle) -> Way:
    work = partial(tables.work, handle=handle)
    return Way(BY_HAND, work, tables.sends, partial(tables.handle_as_they_come, handle=handle))


def _same(way: Way) -> Callable[[], Way]:
    return lambda: way


def _contestant(name: str, role: Role, way: Way, driver: str = "psycopg") -> Contestant[Way]:
    return Contestant(name, role, _same(way), driver)


MAIN = _contestant("AsyncHub", Role.SUBJECT, ASYNC)
PEERS: tuple[Contestant[Way], ...] = (
    _contestant(LOCKED, Role.PEER, _by_hand(tables.lock_rows), "psycopg_pool"),
    _contestant(COUNTED, Role.PEER, _by_hand(tables.count_attempts), "psycopg_pool"),
    _contestant(
        "procrastinate",
        Role.PEER,
        Way(PROCRASTINATE, procrastinate.work, procrastinate.sends, procrastinate.take),
        "procrastinate",
    ),
    _contestant("PGQueuer", Role.PEER, Way(PGQUEUER, pgqueuer.work, pgqueuer.sends, pgqueuer.take), "pgqueuer"),
    _contestant("pgmq", Role.PEER, Way(PGMQ, pgmq.work, pgmq.sends, pgmq.take), "pgmq"),
)
CALLED = (
    MAIN,
    _contestant("Hub", Role.SUBJECT, BLOCKING),
    _contestant(f"AsyncHub, {TASKS} tasks, one by one", Role.EXTRA, BY_TASKS),
    *PEERS,
)
WHOLE_LOT = (1, 4, 16)
WHY = {
    1: (
        "The fastest counts no attempts, keeps no order and sets nothing aside: one transaction takes, handles and"
        " deletes. A group also writes what it starts. Several tasks on one consumer share commits: then it is ahead."
    ),
    100: (
        "The loop by hand with SKIP LOCKED handles a hundred in one transaction as well, and counts no attempts. Beside"
        " job queues the aim is met."
    ),
}
TOLD_LATER = (
    "By hand, the handler runs within the transaction that took the row, so nothing is committed in between. A group"
    " commits that it starts an entry before the handler runs."
)
AIMS = {1: 1.0, 100: 5.0}
"""How many times as many as the fastest peer, by the size of batches."""

FLAT = 1.5
"""How many times as slow as with empty tables."""

OF_THE_GROUP = ("consumer_group", "member", "slot", "parked", "acknowledged")
KEPT = (
    Contestant("entries", Role.SUBJECT, lambda: Relations(["entry"])),
    Contestant("entries, indexes", Role.SUBJECT, lambda: Relations(["entry"], indexes=True)),
    Contestant("group", Role.SUBJECT, lambda: Relations(OF_THE_GROUP)),
    Contestant("group, indexes", Role.SUBJECT, lambda: Relations(OF_THE_GROUP, indexes=True)),
)
BOUNDED = 1.1
"""How many times as large the tables are in the second half of an hour, at most."""


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    rounds = effort.stream_rounds
    found: list[Measurement] = [
        Handled(_name(members, batch), members, batch, _handling(members, batch), rounds)
        for batch in AIMS
        for members in _members(effort)
    ]
    return [
        *found,
        Called("groups-call", CALLED, rounds),
        Growth("groups-growth", _aged(effort), min(rounds, 2)),
        Kept("groups-kept", KEPT, 1),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    where = DISKS[disk()]
    found = []
    for batch, limit in AIMS.items():
        for members in _members(effort):
            who = f"{members} members" if members > 1 else "1 member"
            what = f"Acknowledged by {who} in batches of {batch}, {where}"
            beside = (LOCKED, COUNTED, FASTEST)
            aims = (Aim(limit, FASTEST, WHY[batch]),)
            found.append(Metric(_name(members, batch), PER_SECOND, what, "entries/s", beside, True, aims))
    for percent in (50, 99):
        what = f"From an append to the handler, {RATE}/s, {where}, p{percent}"
        aims = (Aim(1, FASTEST, TOLD_LATER),)
        found.append(Metric("groups-call", f"p{percent}_us", what, "µs", (LOCKED, FASTEST), aims=aims, behind=BEHIND))
    found += [metric for held in (False, True) for metric in _when_much_has_gone_through(effort, held)]
    hour = f"An hour of {kept.RATE} entries/s, of which the last {kept.KEPT / 60:.0f} minutes are kept"
    found.append(Metric("groups-kept", kept.SIZE, f"{hour}: the most", "bytes"))
    found.append(Metric("groups-kept", kept.DEAD, f"{hour}: dead rows, the most", "rows"))
    aims = (Aim(BOUNDED, ITSELF),)
    found.append(Metric("groups-kept", kept.GREW, f"{hour}: second half", "times the first", aims=aims))
    return found


ANEW = "times as with empty tables"


def _when_much_has_gone_through(effort: Effort, held: bool) -> Iterator[Metric]:
    after = "while a transaction was open and many went through" if held else "when many have gone through"
    among = tuple(one.name for one in _aged(effort) if one.make().held is held)
    for batch in growth.BATCHES:
        what = f"In batches of {batch}, 1 member, {after}"
        aims = (Aim(1 / FLAT, ITSELF),)
        yield Metric("groups-growth", growth.rate(batch), what, ANEW, (), True, aims, growth.PASSED, among)
    for percent in (50, 99):
        what = f"From an append to the handler, {RATE}/s, {after}, p{percent}"
        aims = (Aim(FLAT, ITSELF),)
        yield Metric("groups-growth", f"p{percent}_us, to new", what, ANEW, aims=aims, among=among, behind=BEHIND)


def _name(members: int, batch: int) -> str:
    return f"groups-handle-{members}x{batch}"


def _members(effort: Effort) -> Sequence[int]:
    most = effort.most_connections if effort.stream_rounds > 1 else 1  # a single round shows that it works
    return [number for number in WHOLE_LOT if number <= most]


def _handling(members: int, batch: int) -> Sequence[Contestant[Way]]:
    found = [MAIN]
    if members == 1:
        found.append(_contestant("Hub", Role.SUBJECT, BLOCKING))
    if batch > 1:
        found.append(_contestant("AsyncHub, transaction()", Role.SUBJECT, WITH_EFFECTS))
    found.append(_contestant(f"AsyncHub, {TASKS} tasks", Role.EXTRA, BY_TASKS))
    return [*found, *PEERS]


def _aged(effort: Effort) -> Sequence[Contestant[Aged]]:
    """All of them; one peer is enough where a single round shows that it works, since this takes long."""
    found = []
    for one in (MAIN, *PEERS) if effort.stream_rounds > 1 else (MAIN, PEERS[0]):
        for held in (False, True):
            name = f"{one.name}, held" if held else one.name
            found.append(Contestant(name, one.role, partial(_age, one, held), one.driver))
    return found


def _age(contestant: Contestant[Way], held: bool) -> Aged:
    return Aged(contestant.name, contestant.make(), held)
