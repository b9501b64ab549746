"""What is measured, and by how much it may grow.

The bounds, and why these. The load sends some 70 messages a second, so that an hour has 250,000; a subscriber, a
reader, a consumer or a client comes and goes some ten times a second.

- Memory: 3 % for what is still finding its level (allocators keep what the largest moment so far took, and the many
  threads meet in one every now and then), and 2 MiB an hour, which is less than 10 bytes a message.
  What it shares with others is divided by their number, so that it goes up when somebody else ends: a quarter.
- What Python has allocated, after a collection of garbage, is steadier than that: 1 %, and 2,000 an hour, which is an
  object for one in a hundred messages, or in eighteen of those who come and go.
- Descriptors, connections, threads, tasks, channels: their number goes up and down with who is there, and its median
  not at all.
- Tables: retention looks every half minute, and autovacuum when enough is due: a third, and nothing by the hour.
- Latencies: so much that others on the machine do not decide; twice as long is a trend.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.verdict import Bound

__all__ = ["LATENCIES", "LINES", "Line"]

HELD = Bound(2.5)
TYPICAL = Bound(20.0, share=1.0)
SLOWEST = Bound(200.0, share=1.0)


@dataclass(frozen=True)
class Line:
    """One of them.

    Args:
        title: what it is.
        unit: of its values.
        bound: by how much it may grow.
    """

    title: str
    unit: str
    bound: Bound


LATENCIES = {
    "notify": "notify until received",
    "append": "append until read",
    "handled": "append until handled",
    "POST": "POST until a client has it",
}

LINES = {
    "rss": Line("resident memory", "MiB", Bound(1.0, share=0.03, hourly=2.0)),
    "pss": Line("memory, its share of what is shared", "MiB", Bound(1.0, share=0.25)),
    "blocks": Line("blocks that Python has allocated", "", Bound(1000, share=0.01, hourly=2000)),
    "objects": Line("objects", "", Bound(1000, share=0.01, hourly=2000)),
    "threads": Line("threads", "", HELD),
    "tasks": Line("tasks of event loops", "", HELD),
    "descriptors": Line("open file descriptors", "", HELD),
    "connections": Line("connections, at the server", "", HELD),
    "channels": Line("channels listened to", "", HELD),
    "queue": Line("the server's notification queue", "% full", Bound(0.1)),
    "tables": Line("tables with their indexes", "MiB", Bound(1.0, share=0.33)),
    **{f"{kind} p50": Line(f"{title}: p50", "ms", TYPICAL) for kind, title in LATENCIES.items()},
    **{f"{kind} p99": Line(f"{title}: p99", "ms", SLOWEST) for kind, title in LATENCIES.items()},
}
"""By name, in the order of the picture."""
