"""What the state machines of the core do while a simulation runs: in which state which fact led to which.

A `Machine` says what there is to be known of a class of the core: which of its methods change it, and, as a pure
function of its fields, in which state an object is, or each of its parts. A `Recorder` watches all objects of these
classes and counts. Neither knows what ought to happen.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

__all__ = ["Machine", "Recorder", "Seen", "Told", "meanings"]

OUTSIDE = ""
"""The state of a part that there is not, yet or any more."""

BETWEEN = ""
"""The fact that is none of the object's own: something that it looks at has changed."""


class Seen(NamedTuple):
    """A transition."""

    machine: str
    before: str
    fact: str
    after: str


class Told(NamedTuple):
    """What an object has said is to be done."""

    machine: str
    state: str
    step: str


@dataclass(frozen=True)
class Machine:
    """See the module.

    Args:
        name: of the machine.
        title: of its section.
        kind: the class.
        parts: the states of an object's parts, by what tells them apart; of one that has none, its own, by None.
        meaning: what a state means.
        facts: methods that change it, beside all that begin with `on_`.
        decision: the method that says what is to be done.
        states: those that are named, if that is somewhere.
        gone: the state of a part that an object does not know any more.
        between: what changes it that is no method of its own, if anything does.
    """

    name: str
    title: str
    kind: type
    parts: Callable[[Any], Mapping[Hashable, str]]
    meaning: Callable[[str], str]
    facts: Sequence[str] = ()
    states: type[Enum] | None = None
    decision: str | None = None
    gone: Callable[[Any], str] = lambda part: OUTSIDE
    between: str = ""

    @property
    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """All that change it, by their names."""
        found = {}
        for kind in reversed(self.kind.__mro__):
            for name, value in vars(kind).items():
                if inspect.isfunction(value) and (name.startswith("on_") or name in self.facts):
                    found[name] = value
        return found


class Recorder:
    """Watches objects of the core, while `watching`.

    Args:
        machines: of which to watch the classes.
    """

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.machines = machines
        self.seen: Counter[Seen] = Counter()
        self.told: Counter[Told] = Counter()
        self.called: dict[str, set[str]] = {machine.name: set() for machine in machines}
        """Which facts there were, by machine."""
        self.begun: dict[str, set[str]] = {machine.name: set() for machine in machines}
        """In which states objects without parts begin, by machine."""
        self._last: dict[tuple[str, int], Mapping[Hashable, str]] = {}
        self._busy: set[str] = set()  # machines in whose methods this is: what calls another is one transition

    def clear(self) -> None:
        """Forget what was seen."""
        self.seen.clear()
        self.told.clear()
        self._last.clear()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, all that happens is counted."""
        with ExitStack() as stack:
            for machine in self.machines:
                methods = {name: self._fact(machine, name, of) for name, of in machine.methods.items()}
                methods["__init__"] = self._beginning(machine)
                if machine.decision is not None:
                    methods[machine.decision] = self._decision(machine, getattr(machine.kind, machine.decision))
                for name, method in methods.items():
                    stack.callback(_put_back, machine.kind, name, vars(machine.kind).get(name))
                    setattr(machine.kind, name, method)
            yield

    def _beginning(self, machine: Machine) -> Callable[..., None]:
        begin = machine.kind.__init__  # type: ignore[misc]  # of no object yet

        @functools.wraps(begin)
        def beginning(it: Any, *args: Any, **keywords: Any) -> None:
            begin(it, *args, **keywords)
            self._last[machine.name, id(it)] = machine.parts(it)
            self.begun[machine.name].update(machine.parts(it).values())

        return beginning

    def _fact(self, machine: Machine, name: str, fact: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fact)
        def noted(it: Any, *args: Any, **keywords: Any) -> Any:
            self.called[machine.name].add(name)
            if machine.name in self._busy:
                return fact(it, *args, **keywords)
            before = self._last[machine.name, id(it)]
            if machine.between:
                last, before = before, machine.parts(it)
                self._note(machine, last, BETWEEN, before)
            self._busy.add(machine.name)
            try:
                result = fact(it, *args, **keywords)
            finally:
                self._busy.discard(machine.name)
            after = self._last[machine.name, id(it)] = machine.parts(it)
            self._note(machine, before, name, after)
            return result

        return noted

    def _decision(self, machine: Machine, decide: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(decide)
        def noted(it: Any, *args: Any, **keywords: Any) -> Any:
            step = decide(it, *args, **keywords)
            if machine.name not in self._busy:
                name = step.name if isinstance(step, Enum) else type(step).__name__
                for state in machine.parts(it).values():
                    self.told[Told(machine.name, state, name)] += 1
            return step

        return noted

    def _note(self, machine: Machine, before: Mapping[Hashable, str], fact: str, after: Mapping[Hashable, str]) -> None:
        alone = None in before  # then it is told, too, what changes nothing
        if before == after and not (alone and fact != BETWEEN):
            return
        for part in {**before, **after}:
            was = before[part] if part in before else machine.gone(part) if fact == "resume" else OUTSIDE
            becomes = after[part] if part in after else machine.gone(part)
            if was != becomes or alone:
                self.seen[Seen(machine.name, was, fact, becomes)] += 1


def _put_back(kind: type, name: str, method: Callable[..., Any] | None) -> None:
    if method is None:
        delattr(kind, name)
    else:
        setattr(kind, name, method)


def meanings(kind: type[Enum]) -> Mapping[str, str]:
    """What stands below each member of an enumeration, by the members' names."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    name = ""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[name] = " ".join(str(node.value.value).split())
    return found
