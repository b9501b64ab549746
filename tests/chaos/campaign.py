"""Round after round: messages, faults in their midst, and when all is well again, a look at what everybody has got."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from random import Random
from threading import Event
from time import monotonic
from typing import Self

import pgpubsub
from tests.chaos.arena import Arena
from tests.chaos.faults import FAULTS, Stage
from tests.chaos.ledger import MARKER, Ledger
from tests.chaos.pair import fetch
from tests.chaos.plan import Planned, is_calm, plan
from tests.chaos.stream_checks import Entry
from tests.chaos.texts import CHANNELS, SOMETIMES, STREAMS, read, text
from tests.system.streams import connect, until

__all__ = ["Broken", "Campaign"]

MESSAGES = 30
"""That each publisher sends in a round, at least."""

PUBLISHERS = 7

LONGEST_PAUSE = 1.0
"""Seconds without a message after which the next fault begins nevertheless: an earlier one may have stopped all."""

A_MOMENT = 1.0
"""Seconds that a message takes at most, unless a fault holds it up."""

LONGEST = 90.0
"""Seconds after which all has to be well again."""


TRACEBACK = re.compile(r"^Traceback.*\n(?: .*\n)+(.*)", re.MULTILINE)
NO_FILES = "OSError: [Errno 24]"
"""How asyncio says that it can accept nobody, when a process may open no more files."""


class Broken(AssertionError):
    """A promise was broken."""


class Campaign:
    """See the module.

    Args:
        arena: entered.
        seed: from which all rounds follow.
        lacking: kinds of faults that cannot be made here. They are planned, and left out.
    """

    def __init__(self, arena: Arena, seed: int, lacking: Collection[str]) -> None:
        self.arena = arena
        self.ledger = Ledger()
        self.faults: Counter[str] = Counter()
        """Survived, by kind."""
        self.rounds = 0
        self._seed = seed
        self._lacking = lacking
        self._marker = 0
        self._done = False
        self._begun = monotonic()
        self._last: list[str] = []  # who was waited for

    def round(self, number: int) -> None:
        """Play one round.

        Raises:
            Broken: with what was planned, and what is wrong.
        """
        everything = plan(self._seed, number, {name: kind for name, (kind, _) in FAULTS.items()})
        planned = [fault for fault in everything if fault.kind not in self._lacking]
        begun = monotonic()
        try:
            held_up = self._play(planned)
            sent = monotonic()
            wrong = self._settle(A_MOMENT + held_up, calm=is_calm(number))
        except Exception as error:
            wrong = ["".join(traceback.format_exception(error))]
        wrong += [*self._misbehaved(), *self._faults_of_gateway()]
        faults = "; ".join(map(str, planned))
        if wrong:
            lines = "\n  ".join(wrong[:30])
            raise Broken(f"round {number} of seed {self._seed}: {faults}\n  {lines}\n  ({len(wrong)} in all)")
        self.faults.update(fault.kind for fault in planned)
        self.rounds += 1
        print(f"{number}: {faults}; {sent - begun:.1f} s, and {monotonic() - sent:.1f} s for {self._last}", flush=True)

    @property
    def seconds(self) -> float:
        """How long it has gone on."""
        return monotonic() - self._begun

    @property
    def summary(self) -> str:
        """What has been survived."""
        its = self.ledger
        return (
            f"{self.faults.total()} faults in {self.rounds} rounds, {self.seconds:.0f} s;"
            f" {its.committed} messages committed, {its.received} events received;"
            f" gaps: {dict(its.gaps)}; faults: {dict(self.faults.most_common())}"
        )

    def replace(self, name: str) -> None:
        """See `faults.Stage`."""
        part = self.arena.parts[name]
        gone = part.process
        part.kill()
        self.ledger.take_in(name, gone.new_lines(), clock_was_set=part.clock.was_set)
        self.ledger.on_killed(name)
        part.start(self.ledger.positions[name])
        if name != "gateway":
            until(part.process.is_ready, name)
        if name == "publishers":
            part.process.tell(MESSAGES)
            self._done = False

    @contextmanager
    def forgetting(self) -> Iterator[None]:
        """See `faults.Stage`."""
        self.ledger.on_forgetting(monotonic())
        yield
        self.ledger.on_forgotten(monotonic())

    # -- a round

    def _play(self, planned: Sequence[Planned]) -> float:
        """Until all has been sent, and all faults are over. For how long were messages held up?"""
        self._done = False
        self.arena.parts["publishers"].process.tell(MESSAGES)
        begun = moved_at = monotonic()
        before = progress = self.ledger.committed
        left, lasting = list(planned), Lasting()
        with lasting:
            while left or lasting or not self._done:
                Event().wait(0.01)  # between two looks
                self._take_in()
                assert monotonic() < begun + LONGEST, f"the publishers do not come to an end; {self._misbehaved()}"
                if self.ledger.committed > progress:
                    progress, moved_at = self.ledger.committed, monotonic()
                share = 1.0 if self._done else (progress - before) / (MESSAGES * PUBLISHERS)
                if left and (share >= left[0].place or monotonic() - moved_at > LONGEST_PAUSE):
                    lasting.begin(self, left.pop(0))
                    moved_at = monotonic()
                lasting.end_those_that_are_over()
        return lasting.held_up

    def _settle(self, on_its_way: float, *, calm: bool) -> list[str]:
        """Wait until everybody has got everything. Returns what is wrong, where messages may have taken so long, and
        if nothing has happened at all."""
        first, deadline = self._marker + 1, monotonic() + LONGEST
        while True:
            self._mark()
            soon = monotonic() + 0.3
            while monotonic() < soon:
                self._take_in()
                stored = self._stored()
                late = self.ledger.waiting(first, stored)
                self._last = late or self._last
                if not late:
                    wrong = self.ledger.settle(first, stored, on_its_way, calm=calm)
                    for part in self.arena.parts.values():
                        part.clock.was_set = False
                    return wrong
                Event().wait(0.02)  # between two looks
            if misbehaved := self._misbehaved():
                return misbehaved
            if monotonic() > deadline:
                return [f"{who} has not got everything {LONGEST:g} s after the last fault was over" for who in late]

    def _take_in(self) -> None:
        for name, part in self.arena.parts.items():
            lines = part.process.new_lines() if name != "gateway" else []
            self._done = self._done or any(line[0] == "done" for line in lines)
            set_by = part.clock if name != "clients" else self.arena.parts["gateway"].clock
            self.ledger.take_in(name, lines, clock_was_set=set_by.was_set)

    def _mark(self) -> None:
        self._marker += 1
        with connect(self.arena.pair.primary.dsn()) as admin:
            for channel in (*CHANNELS, SOMETIMES):
                begun = monotonic()
                pgpubsub.notify(admin, channel, text(MARKER, self._marker))
                self.ledger.on_marked(channel, self._marker, begun, monotonic())
            for stream in STREAMS:
                pgpubsub.append(admin, stream, text(MARKER, self._marker))
                self.ledger.on_marked_stream(stream, self._marker)

    def _stored(self) -> dict[str, set[Entry]]:
        """What is in the streams. Far behind the newest, all is settled."""
        query = """
        SELECT payload FROM pgpubsub.entry, (SELECT max(id) FROM pgpubsub.entry) AS newest (id)
         WHERE stream = pgpubsub.stream_id(%s) AND entry.id > newest.id - 5000
        """
        dsn = self.arena.pair.primary.dsn()
        return {stream: {Entry(*read(text)) for (text,) in fetch(dsn, query, stream)} for stream in STREAMS}

    def _misbehaved(self) -> list[str]:
        """Who has ended, or printed what it should not."""
        wrong = []
        for name, part in self.arena.parts.items():
            errors = part.process.errors if name != "gateway" else ""  # which logs faults, as it should
            if errors or not part.process.running:
                wrong.append(f"{name} {'goes on' if part.process.running else 'has ended'}: {errors[-3000:]}")
        return wrong

    def _faults_of_gateway(self) -> list[str]:
        """That are its own, going by what it logs."""
        log = self.arena.parts["gateway"].process.errors
        return [each[0] for each in TRACEBACK.finditer(log) if not each[1].startswith(NO_FILES)]


class Lasting:
    """Faults that have begun. They end in the end, whatever happens."""

    def __init__(self) -> None:
        self._ends: list[tuple[float, float, bool, AbstractContextManager[None]]] = []  # begun, until, delays
        self.held_up = 0.0
        """Seconds for which messages were held up, by those that have ended."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for *_times, fault in self._ends:
                stack.callback(fault.__exit__, None, None, None)

    def __len__(self) -> int:
        return len(self._ends)

    def begin(self, stage: Stage, planned: Planned) -> None:
        kind, make = FAULTS[planned.kind]
        fault, begun = make(stage, Random(planned.seed)), monotonic()
        fault.__enter__()
        self._ends.append((begun, monotonic() + planned.seconds, kind.delays, fault))

    def end_those_that_are_over(self) -> None:
        for one in [one for one in self._ends if one[1] <= monotonic()]:
            begun, _, delays, fault = one
            self._ends.remove(one)
            fault.__exit__(None, None, None)
            self.held_up += delays * (monotonic() - begun)
