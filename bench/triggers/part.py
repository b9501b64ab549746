"""The part about triggers: what they cost those who write.

One row at a time, each in a transaction of its own; 100,000 rows in one statement; and 16 writers at once on a disk of
a millisecond. "By hand" is a trigger of one line that sends the operation and the row, as one writes it who knows that
rows are short; ours also counts its failures instead of failing the write, names the columns that changed, shortens
what is too long, and looks at the queue first. "pgpubsub 0.0.5" is the trigger of that version.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from bench.comparison import Aim, Metric
from bench.contestants import Contestant, Role
from bench.ground import Effort
from bench.groups.yard import disk
from bench.rounds import Measurement
from bench.streams.places import DISKS
from bench.triggers.ways import Way, by_hand, not_at_all, of_0_0_5, to_channel, to_stream
from bench.triggers.writes import AtOnce, Bulk, Single

__all__ = ["measurements", "metrics"]


def _contestant(name: str, role: Role, way: Way) -> Contestant[Way]:
    make: Callable[[], Way] = lambda: way  # noqa: E731
    return Contestant(name, role, make)


NONE = _contestant("no trigger", Role.BASELINE, not_at_all)
HAND = _contestant("by hand", Role.PEER, by_hand)
OLD = _contestant("pgpubsub 0.0.5", Role.PEER, of_0_0_5)
ROW = _contestant("row to a channel", Role.SUBJECT, to_channel)
ROW_STREAM = _contestant("row to a stream", Role.EXTRA, to_stream)
STATEMENT = _contestant("statement to a channel", Role.SUBJECT, partial(to_channel, level="statement"))
STATEMENT_STREAM = _contestant("statement to a stream", Role.EXTRA, partial(to_stream, level="statement"))
POLL = _contestant("row to a stream", Role.SUBJECT, to_stream)
WOKEN = _contestant("row to a stream, wake=notify", Role.EXTRA, partial(to_stream, wake="notify"))
CHANNEL = _contestant("row to a channel", Role.EXTRA, to_channel)

EVERYBODY = (NONE, HAND, OLD, ROW, ROW_STREAM)
MORE = (
    "Ours has a handler for exceptions, so that it never fails a write, names the columns that changed, measures the"
    " message, and looks at the queue before each notification."
)
PAIRED = (
    "An INSERT's rows are one scan of the transition table. An UPDATE pairs old rows and new ones by their key, to tell"
    " what has changed: a join of two of them."
)
NOISE = 0.2
"""Microseconds for each row by which the same statement differs from one time to the next: 20 ms of 100,000 rows."""
WORDS = {"insert_us": "INSERT", "update_us": "UPDATE"}


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    rounds = effort.stream_rounds
    return [
        Single("triggers-single", EVERYBODY, rounds),
        Bulk("triggers-bulk", EVERYBODY, rounds),
        Bulk("triggers-statement", (NONE, HAND, STATEMENT, STATEMENT_STREAM), rounds),
        AtOnce("triggers-writers", (NONE, HAND, OLD, POLL, WOKEN, CHANNEL), rounds),
    ]


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    found = []
    no_slower = (Aim(1.0, HAND.name, MORE),)
    for figure, word in WORDS.items():
        beside = (NONE.name, HAND.name)
        found.append(Metric("triggers-single", figure, f"{word} of one row", "µs", beside, aims=no_slower))
    for figure, word in WORDS.items():
        title = f"{word} of {effort.many:,} rows, for each row"
        found.append(Metric("triggers-bulk", figure, title, "µs", (NONE.name, HAND.name), aims=no_slower))
    for figure, word in WORDS.items():
        title = f"{word} of {effort.many:,} rows, for each row what it takes more than without a trigger"
        aims = (Aim(1 / 20, HAND.name, PAIRED),)
        found.append(Metric("triggers-statement", f"{figure} more", title, "µs", (HAND.name,), aims=aims, least=NOISE))
    title = f"INSERTs of 16 writers, {DISKS[disk()]}"
    aims = (Aim(0.8, NONE.name),)
    found.append(Metric("triggers-writers", "per_second", title, "writes/s", (NONE.name, HAND.name), True, aims))
    return found
