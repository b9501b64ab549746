"""Draws docs/states.md: what the state machines of the core do in fixed schedules. `make states` writes it.

Nothing in it is kept by hand. The states are functions of the objects' fields (`tests.sim.machines`), the facts are the
methods of the classes, what they mean stands in the docstrings, and the transitions are those that were seen. A test
draws it again and compares; `make sim` compares with what it sees in 100,000 schedules and more of each simulation.
"""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tests.sim import simulations
from tests.sim.machines import MACHINES
from tests.sim.transitions import BETWEEN, OUTSIDE, Machine, Recorder, Seen, Told

__all__ = ["FILE", "RARE", "draw", "fixed", "gaps"]

FILE = Path(__file__).parents[2] / "docs" / "states.md"

FIXED: Mapping[str, int] = {
    "session": 1000,
    "hub": 250,
    "sender": 250,
    "appender": 300,
    "stream": 200,
    "groups": 20,
    "groups crashes": 20,
    "groups pooled": 20,
    "groups pooled crashes": 20,
}
"""So many schedules of each simulation, from seed 0 on,"""

RARE: Mapping[str, Sequence[int]] = {
    "session": (
        *(1209, 1000445, 1000967, 1006699, 1008268, 5000572, 16925838),
        *(985520363, 985520701, 985520938, 985521138, 985522538),
    ),
    "appender": (437, 1000342, 1000362),
    "stream": (1000176, 1002247, 1003127, 1003929),
    "groups": (1000015, 1000242),
    "groups pooled": (1001498,),
    "groups pooled crashes": (1000607,),
}
"""and these seeds of it, in which something is to be seen that the others do not show. `make sim` names such seeds."""

HEAD = """# The states of the core

Drawn by `make states` from the code, and compared with it by the tests: the states are functions of the objects'
fields (`tests/sim/machines.py`), the meanings are docstrings, and the transitions are those that random schedules have
shown (`tests/sim`). What is not here has not been seen; if it ever is, `make sim` fails and names the seed. The
diagrams leave out what changes no state; the tables have it.
"""


def fixed(recorder: Recorder) -> None:
    """Run the fixed schedules."""
    for name, simulation in simulations().items():
        with simulation.made_small(recorder):
            for seed in (*range(FIXED[name]), *RARE.get(name, ())):
                simulation.run_one(seed)


def draw(recorder: Recorder) -> str:
    """The document."""
    return "\n".join([HEAD, *(line for machine in MACHINES.values() for line in _section(machine, recorder))])


def gaps(recorder: Recorder) -> Iterator[str]:
    """What the code has and no schedule has shown: facts of the classes, and states that are named."""
    for machine in MACHINES.values():
        for fact in sorted(machine.methods.keys() - recorder.called[machine.name]):
            yield f"{machine.name}: {fact} is never called"
    for kind in {machine.states: None for machine in MACHINES.values() if machine.states is not None}:
        of_this = {machine.name for machine in MACHINES.values() if machine.states is kind}
        met = {one.after for one in recorder.seen if one.machine in of_this}
        for state in sorted({one.value for one in kind} - met):
            yield f"{', '.join(sorted(of_this))}: it never is {state!r}"


def _section(machine: Machine, recorder: Recorder) -> Iterator[str]:
    seen = [one for one in recorder.seen if one.machine == machine.name]
    told = [one for one in recorder.told if one.machine == machine.name]
    states = sorted({state for one in seen for state in (one.before, one.after)} - {OUTSIDE})
    yield f"## {machine.title}\n"
    yield f"{_first_line(inspect.getmodule(machine.kind))} The class is `{machine.kind.__qualname__}`.\n"
    yield from _diagram(machine, seen, states, recorder.begun[machine.name])
    yield from _states(machine, states, told)
    yield from _transitions(seen, machine)
    yield from _facts(machine, {one.fact for one in seen})


def _diagram(machine: Machine, seen: Iterable[Seen], states: Sequence[str], begun: Iterable[str]) -> Iterator[str]:
    edges: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in seen:
        if one.before != one.after:
            edges[one.before, one.after].add(one.fact.removeprefix("on_") or machine.between)
    yield "```mermaid\nstateDiagram-v2"
    for state in states:
        yield f'    state "{state}" as {_alias(state)}'
    for state in sorted(begun):
        yield f"    [*] --> {_alias(state)}"
    for (before, after), facts in sorted(edges.items()):
        yield f"    {_alias(before)} --> {_alias(after)}: {', '.join(sorted(facts))}"
    yield "```\n"


def _alias(state: str) -> str:
    return "[*]" if state == OUTSIDE else "s_" + "".join(one if one.isalnum() else "_" for one in state)


def _states(machine: Machine, states: Sequence[str], told: Iterable[Told]) -> Iterator[str]:
    steps: dict[str, set[str]] = defaultdict(set)
    for one in told:
        steps[one.state].add(one.step)
    asked = machine.decision is not None
    yield f"| state | what it means |{f' `{machine.decision}` says |' if asked else ''}"
    yield f"|---|---|{'---|' if asked else ''}"
    for state in states:
        says = f" {', '.join(f'`{step}`' for step in sorted(steps[state]))} |" if asked else ""
        yield f"| {state} | {machine.meaning(state)} |{says}"
    yield ""


def _transitions(seen: Iterable[Seen], machine: Machine) -> Iterator[str]:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in seen:
        found[one.before, one.fact].add(one.after)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (before, fact), states in sorted(found.items()):
        alike[before, tuple(sorted(states))].append(f"`{fact}`" if fact != BETWEEN else machine.between)
    yield "| in | upon | it becomes |\n|---|---|---|"
    for (before, after), facts in sorted(alike.items()):
        becomes = " or ".join(f"*{state}*" if state == before else state or "(not there)" for state in after)
        yield f"| {before or '(not there)'} | {', '.join(facts)} | {becomes} |"
    yield ""


def _facts(machine: Machine, facts: Iterable[str]) -> Iterator[str]:
    yield "| upon | what it means |\n|---|---|"
    for fact in sorted(set(facts) - {BETWEEN}):
        yield f"| `{fact}` | {_first_line(machine.methods[fact])} |"
    yield ""


def _first_line(it: object) -> str:
    """The first paragraph of a docstring, in a table's cell."""
    text = inspect.getdoc(it) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def main() -> int:
    """Write it."""
    recorder = Recorder(list(MACHINES.values()))
    fixed(recorder)
    missing = list(gaps(recorder))
    for line in missing:
        print(line, file=sys.stderr)
    FILE.write_text(draw(recorder))
    print(f"{FILE.name}: {len(recorder.seen)} transitions of {len(MACHINES)} machines")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
