"""The part about the web gateway: server-sent events, beside applications for Starlette over libraries of others.

All are served by uvicorn with the same event loop and parser, on the same machine as PostgreSQL and as all clients,
which are one program in C (load.c). A burst is messages in transactions of their own, sent as fast as one connection
can; each counts only if every client gets it. Delay is of messages at a steady rate; what has not come ten seconds
after the last counts with those. Clients of pg-sse each read a table again when something has come, so it is to be
compared with a stream. Memory is by how much the server's processes grow when idle clients come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bench.comparison import ITSELF, Aim, Metric
from bench.contestants import Contestant, Role
from bench.gateway import clients
from bench.gateway.turns import BEHIND, LATE, LOST, RATE, visit
from bench.gateway.ways import Way, others, ours, ours_stream
from bench.ground import Effort
from bench.peers import pg_sse
from bench.rounds import Figures, InTurns, Measurement

__all__ = ["measurements", "metrics"]

FEW = (
    "A stream costs what storing takes: a burst to a hundred clients lasts as long as its commits. Two workers share"
    " two processors with PostgreSQL and the clients, so they are not twice as good as one."
)
WRITES = (
    "These are 250,000 writes to sockets a second, and as many reads by the program that stands for the clients, on two"
    " processors that PostgreSQL needs, too."
)
MOST_CONNECTIONS = 1000
"""Clients for each of which a connection can be had."""

MEMORY = 1.0
"""MiB of all, KiB of each: by so much processes grow and shrink without any clients."""

SLOWEST_AT = 5000
"""Clients at which the delay has an aim."""


def _made(way: Way) -> Callable[[], Way]:
    return lambda: way


def _contestant(name: str, role: Role, way: Way, driver: str) -> Contestant[Way]:
    return Contestant(name, role, _made(way), driver, clients.missing)


OURS = _contestant("pgpubsub serve, a channel", Role.SUBJECT, ours(), "pgpubsub.web")
TWO = _contestant("the same, 2 workers", Role.SUBJECT, ours(2), "pgpubsub.web")
STREAM = _contestant("pgpubsub serve, a stream", Role.SUBJECT, ours_stream(), "pgpubsub.web")
BROADCASTER = _contestant("Starlette, broadcaster", Role.PEER, others("broadcaster"), "broadcaster")
PG_SSE = _contestant("Starlette, pg-sse", Role.PEER, others("pg_sse", pg_sse.INSERT, pg_sse.prepare), "pg_sse")
EACH = _contestant("Starlette, a LISTEN for each", Role.PEER, others("asyncpg"), "asyncpg")
EVERYBODY = (OURS, TWO, STREAM, BROADCASTER, PG_SSE, EACH)
BESIDE = (BROADCASTER.name, PG_SSE.name, EACH.name)


def measurements(effort: Effort) -> list[Measurement]:
    """What is measured."""
    found: list[Measurement] = []
    for number in _numbers(effort):
        turn = partial(
            visit,
            number=number,
            burst=effort.served_bursts.get(number, 0),
            seconds=effort.served_seconds if number in effort.served_steadily else 0,
        )
        who = [one for one in EVERYBODY if one is not EACH or number <= MOST_CONNECTIONS]
        found.append(InTurns(_name(number), turn, 1, _only, who, effort.serving_rounds))
    return found


def metrics(effort: Effort) -> list[Metric]:
    """What is shown."""
    found = []
    for number, messages in effort.served_bursts.items():
        title = f"{messages:,} messages to {number:,} clients, one after the other without a pause"
        aims = (Aim(3.0, BROADCASTER.name, FEW), Aim(1.0, PG_SSE.name))
        found.append(Metric(_name(number), "per_second", title, "deliveries/s", BESIDE, True, aims, LOST))
    for number in effort.served_steadily:
        for percent in (50, 99):
            title = f"From a send to a client, {RATE}/s to each of {number:,}, p{percent}"
            slowest = (Aim(100, ITSELF, WRITES),) if percent == 99 and number == SLOWEST_AT else ()
            figure = f"p{percent}_ms"
            found.append(Metric(_name(number), figure, title, "ms", BESIDE, aims=slowest, detail=LATE, behind=BEHIND))
    most = max(_numbers(effort))
    title = f"Memory of {most:,} idle clients"
    found.append(Metric(_name(most), "mib", title, "MiB", BESIDE, aims=(Aim(400, ITSELF),), least=MEMORY))
    found.append(Metric(_name(most), "connect_seconds", f"Until {most:,} clients are there", "s", BESIDE))
    many = max(number for number in _numbers(effort) if number <= MOST_CONNECTIONS)
    title = f"Memory of each of {many:,} idle clients"
    found.append(Metric(_name(many), "kib_each", title, "KiB", BESIDE, least=MEMORY))
    title = f"What PostgreSQL's processes take for {many:,} clients"
    found.append(Metric(_name(many), "postgres_mib", title, "MiB", least=MEMORY))
    return found


def _numbers(effort: Effort) -> Sequence[int]:
    return sorted({*effort.served_bursts, *effort.served_steadily})


def _name(number: int) -> str:
    return f"gateway-{number}"


def _only(turns: Sequence[Figures]) -> Figures:
    (figures,) = turns
    return figures
