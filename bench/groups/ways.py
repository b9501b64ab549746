"""What a contestant is here: where it stores what is to be handled, who handles it, and what brings it there.

What waits to be handled is put into the tables, as its own client would have left it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.carrying import Desk, Sends
from bench.ground import QUEUE
from bench.groups.crew import Post
from pgpubsub.core.entries import hint_channel
from pgpubsub.core.position import stream_id
from pgpubsub.groups.hints import group_id

__all__ = ["BY_HAND", "GROUP", "OURS", "PGMQ", "PGQUEUER", "PROCRASTINATE", "Queue", "Way"]

GROUP = "bench"

PAYLOAD = "rpad('entry ' || number, 100, 'x')"
SERIES = "generate_series(1, %s) AS number"


@dataclass(frozen=True)
class Queue:
    """Tables of one contestant."""

    tables: str
    """All of them, with commas between them."""
    fill: str
    """Stores so many; and has those told who are told of new ones in this way."""
    left: str
    """How many are not acknowledged."""
    at_work: str = "SELECT true WHERE %s > 0"
    """A row if so many members have begun: have divided the work, or listen. The others begin when they are told to."""
    told: bool = True
    """Whether a member is told when its acknowledgement is committed. If not, somebody else has to look."""


@dataclass(frozen=True)
class Way:
    """How one contestant has entries handled."""

    queue: Queue
    work: Callable[[Post], None]
    """One member, in a process of its own: handles what there is, or what comes until it is stopped."""
    sends: Sends
    take: Callable[[str, Desk], None]
    """One member, in a process of its own, that hands over each entry as it comes."""


LISTENING = (
    "SELECT true FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %%'"
    " HAVING count(*) = %s"
)
"""Each has a connection of its own that listens, which its worker does before it waits."""

_stream = stream_id(QUEUE)
_group = group_id(_stream, GROUP)

OURS = Queue(
    "pgpubsub.entry, pgpubsub.consumer_group, pgpubsub.slot, pgpubsub.parked, pgpubsub.acknowledged, pgpubsub.member",
    f"WITH filled AS (INSERT INTO pgpubsub.entry (stream, payload) SELECT {_stream}, {PAYLOAD} FROM {SERIES})"
    f" SELECT pg_notify('{hint_channel(_stream)}', '')",
    f"SELECT entries FROM pgpubsub.group_lag({_group})",
    f"SELECT true FROM pgpubsub.slot WHERE consumer_group = {_group} AND member IS NOT NULL"
    " HAVING count(*) = 32 AND count(DISTINCT member) = %s",
)

BY_HAND = Queue(
    "messages",
    f"INSERT INTO messages (payload) SELECT {PAYLOAD} FROM {SERIES}",
    "SELECT count(*) FROM messages",
)

PROCRASTINATE = Queue(
    "procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers",
    "INSERT INTO procrastinate_jobs (queue_name, task_name, args)"
    f" SELECT 'default', '{QUEUE}', jsonb_build_object('payload', {PAYLOAD}) FROM {SERIES}",
    "SELECT count(*) FROM procrastinate_jobs WHERE status IN ('todo', 'doing')",
    LISTENING,
    told=False,
)

PGQUEUER = Queue(
    "pgqueuer, pgqueuer_log",
    "WITH filled AS (INSERT INTO pgqueuer (priority, entrypoint, payload, status)"
    f" SELECT 0, '{QUEUE}', convert_to({PAYLOAD}, 'UTF8'), 'queued' FROM {SERIES} RETURNING id, entrypoint, priority)"
    " INSERT INTO pgqueuer_log (job_id, status, entrypoint, priority)"
    " SELECT id, 'queued', entrypoint, priority FROM filled",
    "SELECT count(*) FROM pgqueuer",
    LISTENING,
    told=False,
)

PGMQ = Queue(
    f"pgmq.q_{QUEUE}, pgmq.a_{QUEUE}",
    f"SELECT count(*) FROM pgmq.send_batch('{QUEUE}',"
    f" ARRAY(SELECT jsonb_build_object('payload', {PAYLOAD}) FROM {SERIES}))",
    f"SELECT count(*) FROM pgmq.q_{QUEUE}",
)
