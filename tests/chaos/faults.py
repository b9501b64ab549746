"""What can go wrong. Each begins, lasts for as long as the plan says, and ends.

All of them are real: signals, kills, a network that fails (`pgpubsub.testing.Proxy`), a file system without room,
limits of the operating system. What a fault chooses, it chooses from its seed.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from random import Random
from typing import Literal, Protocol, TypeVar

import psycopg

from tests.chaos.arena import Arena, Part
from tests.chaos.clock import Clock
from tests.chaos.pair import fetch
from tests.chaos.plan import Kind
from tests.system.processes import is_worker, limit_descriptors, with_children
from tests.system.streams import connect, until

__all__ = ["FAULTS", "Stage", "impossible"]


class Stage(Protocol):
    """Where faults happen."""

    @property
    def arena(self) -> Arena: ...

    def replace(self, name: str) -> None:
        """Kill one who takes part, and start it again where it was."""

    def forgetting(self) -> AbstractContextManager[None]:
        """Meanwhile the servers may lose what they commit."""


Fault = Callable[[Stage, Random], AbstractContextManager[None]]
F = TypeVar("F", bound=Callable[[Stage, Random], Iterator[None]])

FAULTS: dict[str, tuple[Kind, Fault]] = {}

Direction = Literal["to_client", "to_server", "both"]

BEHIND_PROXIES = ("Hub", "AsyncHub", "gateway", "publishers", "clients")

BACKENDS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
)

LISTENING = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen %' ORDER BY pid"

FEWEST_DESCRIPTORS = 3
"""Standard input, output and errors: whatever is opened would have a higher number."""

LONG_ENOUGH = (1.8, 3.0)
"""Seconds, for a hub to notice: a heartbeat each half second has one second to arrive."""


def fault(
    weight: float, seconds: tuple[float, float] = (0.0, 0.0), exclusive: str = "", *, delays: bool = False
) -> Callable[[F], F]:
    """A function that yields while the fault lasts."""

    def note(function: F) -> F:
        FAULTS[function.__name__] = (Kind(weight, seconds, exclusive, delays), contextmanager(function))
        return function

    return note


def impossible(arena: Arena) -> set[str]:
    """Those that cannot be made on this machine."""
    lacking = set()
    if not arena.pair.own_disks:
        lacking.add("full_disk")
    if not Clock.possible():
        lacking |= {"step_clock", "step_clock_of_server"}
    return lacking


def ask(arena: Arena, query: str, *parameters: object) -> list[int]:
    """What the primary says. Nothing, if it does not answer: another fault may have seen to that."""
    try:
        return [one for (one,) in fetch(arena.pair.primary.dsn(connect_timeout=2), query, *parameters)]
    except psycopg.OperationalError:
        return []


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def one_of(pids: Sequence[int], chance: Random) -> Sequence[int]:
    """One of them, if there is any."""
    return chance.sample(pids, min(1, len(pids)))


def terminate(stage: Stage, chance: Random, pids: Sequence[int], counts: Sequence[int]) -> None:
    """End sessions, as many as one of the counts says."""
    some = chance.sample(pids, chance.choice(counts)) if pids else []
    ask(stage.arena, "SELECT pid FROM unnest(%s::int[]) AS pid WHERE pg_terminate_backend(pid)", some)


@contextmanager
def stopped(pids: Iterable[int]) -> Iterator[None]:
    pids = list(pids)
    send(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        send(pids, signal.SIGCONT)


# -- sessions and servers


@fault(8)
def terminate_backends(stage: Stage, chance: Random) -> Iterator[None]:
    """An administrator ends some sessions, or all."""
    pids = ask(stage.arena, BACKENDS)
    terminate(stage, chance, pids, (1, 1, len(pids)))
    yield


@fault(5)
def terminate_listeners(stage: Stage, chance: Random) -> Iterator[None]:
    """One or all of the sessions that listen end."""
    pids = ask(stage.arena, LISTENING)
    terminate(stage, chance, pids, (1, len(pids)))
    yield


@fault(4, LONG_ENOUGH, exclusive="server", delays=True)
def stop_listeners(stage: Stage, chance: Random) -> Iterator[None]:
    """A server process that listens stands still, and all else goes on."""
    with stopped(one_of(ask(stage.arena, LISTENING), chance)):
        yield


@fault(2, exclusive="server")
def kill_backend(stage: Stage, chance: Random) -> Iterator[None]:
    """A server process is killed, whereupon the server ends all others and recovers."""
    with suppress(psycopg.OperationalError), connect(stage.arena.pair.primary.dsn()) as bystander:
        send(one_of(ask(stage.arena, BACKENDS), chance), signal.SIGKILL)
        bystander.execute("SELECT pg_sleep(60)")  # until the server has noticed
    yield
    until(lambda: ask(stage.arena, "SELECT 1"), "the server")


@fault(3, (0.3, 2.5), exclusive="server", delays=True)
def freeze(stage: Stage, chance: Random) -> Iterator[None]:
    """The whole server stands still, as a virtual machine does that is moved."""
    with stopped(with_children(stage.arena.pair.primary.pid)):
        yield


@fault(3, (0.0, 1.0), exclusive="server")
def restart(stage: Stage, chance: Random) -> Iterator[None]:
    """The server is restarted in good order."""
    stage.arena.pair.primary.stop("fast")
    yield
    stage.arena.pair.primary.start()


@fault(3, (0.0, 1.0), exclusive="server")
def crash(stage: Stage, chance: Random) -> Iterator[None]:
    """The server crashes, and recovers when it is started again."""
    stage.arena.pair.primary.stop("immediate")
    yield
    stage.arena.pair.primary.start()


@fault(2, (0.0, 0.5), exclusive="server")
def fail_over(stage: Stage, chance: Random) -> Iterator[None]:
    """The server is gone, and its standby is the primary from now on. Then there is a new standby."""
    stage.arena.pair.fail_over()
    yield
    stage.arena.pair.copy()


@fault(2, (0.3, 1.5), exclusive="server")
def fail_over_behind(stage: Stage, chance: Random) -> Iterator[None]:
    """The server is gone, and a standby is the primary from now on that lacks what was committed last."""
    with stage.forgetting(), stage.arena.pair.falling_behind():
        yield
    stage.arena.pair.copy()


@fault(3, (0.3, 2.0), exclusive="server", delays=True)
def stop_standby(stage: Stage, chance: Random) -> Iterator[None]:
    """The standby stands still, and commits wait for it."""
    with stopped(with_children(stage.arena.pair.standby.pid)):
        yield


@fault(2, (0.5, 2.0), exclusive="server")
def full_disk(stage: Stage, chance: Random) -> Iterator[None]:
    """There is no room for the write-ahead log: the server crashes, and cannot come back."""
    with stage.arena.pair.full_disk():
        yield


# -- the network


def choose(stage: Stage, chance: Random, names: tuple[str, ...] = BEHIND_PROXIES) -> Part:
    return stage.arena.parts[chance.choice(names)]


PATTERNS = (b"COMMIT", b"pg_notify", b"LISTEN", b"pgpubsub", b"_pg3_")
"""That are sent to a server."""


@fault(8, (0.2, 1.0))
def cut(stage: Stage, chance: Random) -> Iterator[None]:
    """Connections break: all at once, or one of them at a certain byte or statement, with or without its being done."""
    part = choose(stage, chance)
    way = chance.choice(("reset", "cut_after", "cut_before", "break_after", "break_after"))
    pattern, count = chance.choice(PATTERNS), chance.randrange(5000)
    if part is stage.arena.parts["clients"]:
        pattern = chance.choice((b"GET ", b"subscribe"))
    for proxy in part.proxies:
        if way == "cut_after":
            proxy.cut_after(count)
        elif way == "cut_before":
            proxy.cut_before(pattern)
        elif way == "break_after":
            proxy.break_after(pattern)
    yield
    for proxy in part.proxies:
        if way == "reset" or proxy.spare():  # what it waited for has not come
            proxy.reset()


def choose_direction(chance: Random) -> Direction:
    directions: tuple[Direction, ...] = ("to_client", "to_server", "both")
    return chance.choice(directions)


@fault(3, LONG_ENOUGH, delays=True)
def hold_up(stage: Stage, chance: Random) -> Iterator[None]:
    """Nothing comes through in one direction or both, and nobody is told. Then all of it does."""
    part, direction = choose(stage, chance), choose_direction(chance)
    for proxy in part.proxies:
        proxy.deafen(direction)
    yield
    for proxy in part.proxies:
        proxy.hear(resume=True)


@fault(3, LONG_ENOUGH)
def deafen(stage: Stage, chance: Random) -> Iterator[None]:
    """Nothing comes through in one direction or both, and nobody is told. Then the connections break."""
    part, direction = choose(stage, chance), choose_direction(chance)
    for proxy in part.proxies:
        proxy.deafen(direction)
    yield
    for proxy in part.proxies:
        proxy.reset()
        proxy.hear()


@fault(3, (0.2, 1.0))
def vanish(stage: Stage, chance: Random) -> Iterator[None]:
    """Nothing comes through any more on the connections that there are, and nobody is ever told."""
    part, direction = choose(stage, chance, ("Hub", "AsyncHub", "gateway")), choose_direction(chance)
    for proxy in part.proxies:
        proxy.deafen(direction)
    yield
    for proxy in part.proxies:
        proxy.hear()


@fault(3, (0.5, 2.0))
def refuse(stage: Stage, chance: Random) -> Iterator[None]:
    """Connections break, and new ones are refused."""
    part = choose(stage, chance)
    for proxy in part.proxies:
        proxy.refuse()
        proxy.reset()
    yield
    for proxy in part.proxies:
        proxy.accept()


@fault(3, (0.5, 2.0), delays=True)
def slow_down(stage: Stage, chance: Random) -> Iterator[None]:
    """The network takes its time."""
    part = choose(stage, chance)
    seconds = chance.uniform(0.02, 0.3)
    for proxy in part.proxies:
        proxy.delay = seconds
    yield
    for proxy in part.proxies:
        proxy.delay = 0


# -- those who take part


@fault(4, (0.3, 2.5), delays=True)
def pause(stage: Stage, chance: Random) -> Iterator[None]:
    """A process stands still, and with it those that it has started."""
    with stopped(choose(stage, chance).pids):
        yield


@fault(4, exclusive="kill")
def kill(stage: Stage, chance: Random) -> Iterator[None]:
    """A process is killed, and started again."""
    stage.replace(chance.choice(("Hub", "AsyncHub", "publishers", "gateway")))
    yield


@fault(4, exclusive="kill")
def kill_worker(stage: Stage, chance: Random) -> Iterator[None]:
    """One of the gateway's workers is killed; the gateway replaces it."""
    workers = [pid for pid in stage.arena.parts["gateway"].pids[1:] if is_worker(pid)]
    send(one_of(workers, chance), signal.SIGKILL)
    yield


@fault(4, (0.5, 2.0), exclusive="descriptors")  # of two, the second would restore the limit that the first had set
def exhaust_descriptors(stage: Stage, chance: Random) -> Iterator[None]:
    """A process may open no more files, and its connections break."""
    part = choose(stage, chance, ("Hub", "AsyncHub", "gateway"))
    before = [(pid, limit_descriptors(pid, FEWEST_DESCRIPTORS)) for pid in part.pids]
    for proxy in part.proxies:
        proxy.reset()
    yield
    for pid, limit in before:
        limit_descriptors(pid, limit)


@fault(4, (0.5, 2.0))
def step_clock(stage: Stage, chance: Random) -> Iterator[None]:
    """The clock of a process is set forwards or back, and then right again."""
    clock = choose(stage, chance, ("Hub", "AsyncHub", "publishers", "gateway")).clock
    clock.set(chance.choice((-1, 1)) * chance.choice((1, 60, 3600, 86400)))
    yield
    clock.set(0)


@fault(2, (0.5, 2.0), exclusive="server")
def step_clock_of_server(stage: Stage, chance: Random) -> Iterator[None]:
    """The clock of the servers is set forwards or back, and then right again."""
    clock = stage.arena.server_clock
    clock.set(chance.choice((-1, 1)) * chance.choice((1, 60, 3600, 86400)))
    yield
    clock.set(0)
