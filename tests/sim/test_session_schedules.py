"""The session under thousands of random schedules: a simulated shell, server and set of subscribers.

The server is the truth: it knows what it listens to and promises nothing else. After every step the rules that
`pgpubsub.core.session` promises are checked against it. A failure names its seed;
PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import os
import random
from functools import partial

from pgpubsub.core.backoff import backoff
from pgpubsub.core.session import Connect, Execute, Report, Session, Step, Wait

SCHEDULES = int(os.environ.get("PGPUBSUB_SIM_SCHEDULES", "6000"))
SEED = int(os.environ.get("PGPUBSUB_SIM_SEED", random.SystemRandom().randrange(10**9)))

CHANNELS = ["a", "b", "C", 'd "quoted"', "e; f"]
OWNERS = range(4)
REFUSED = {"e; f"}
"""What this server never lets anybody listen to, as long as nobody did before."""


class Schedule:
    """One random life of a session."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = self.random.uniform(0, 1000)
        self.session = Session[int](True, partial(backoff, self.random.random))
        self.wanted: dict[str, set[int]] = {channel: set() for channel in CHANNELS}
        self.connected = False
        self.listening: set[str] = set()  # what the server listens to, on the present connection
        self.acknowledged: set[str] = set()  # what of that the session has been told
        self.owed: set[str] = set()  # what was acknowledged and wanted, was lost, and has not been reported
        self.heard_at = self.now
        self.owed_since = self.now
        self.losses_owed = 0
        self.reports = 0
        self.connected_at = self.now
        self.earliest_attempt = self.now
        self.delays_taken = 0
        self.calm = False

    def run(self) -> None:
        for _ in range(self.random.randrange(5, 40)):
            self.disturb()
            self.take_step()
        self.calm = True
        for _ in range(200):
            if self.take_step() == Wait(None):
                break
        self.check_end()

    # -- what happens to it

    def disturb(self) -> None:
        """Anything that may come between a step and its outcome."""
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 5))):
            self.random.choices((self.subscribe, self.unsubscribe, self.lose, self.pass_time), weights=(5, 4, 1, 2))[
                0
            ]()

    def subscribe(self) -> None:
        owner, channel = self.random.choice(OWNERS), self.random.choice(CHANNELS)
        self.session.registry.add(owner, channel)
        self.wanted[channel].add(owner)

    def unsubscribe(self) -> None:
        owner, channel = self.random.choice(OWNERS), self.random.choice(CHANNELS)
        if self.random.random() < 0.1:
            self.session.registry.discard_all(owner)
            self.session.registry.sweep()
            gone = CHANNELS
        else:
            self.session.registry.discard(owner, channel)
            gone = [channel]
        for channel in gone:
            self.wanted[channel].discard(owner)
            if not self.wanted[channel]:
                self.forgive(channel)

    def pass_time(self) -> None:
        self.now += self.random.expovariate(0.3)
        if self.connected:
            self.heard_at = self.now
            self.session.on_heard(self.now)

    def lose(self) -> None:
        if not self.connected:
            return
        self.end_connection()
        for _ in range(self.random.choice((1, 1, 2))):  # it may be noticed twice
            self.session.on_lost(self.session.number, self.now, "lost")

    def forgive(self, channel: str) -> None:
        """Nobody wants to know any more what was lost on it."""
        if self.owed == {channel}:
            self.losses_owed -= 1
        self.owed.discard(channel)

    def end_connection(self) -> None:
        lost = {channel for channel in self.acknowledged if self.wanted[channel]}
        self.connected = False
        self.listening.clear()
        self.acknowledged.clear()
        if lost and not self.owed:  # one that comes before the report of another is told with it
            self.losses_owed += 1
            self.owed_since = self.heard_at
        self.owed |= lost
        if self.now - self.connected_at >= self.session.healthy_after:
            self.delays_taken = 0
        self.expect_delay()

    def expect_delay(self) -> None:
        """The first attempt may be immediate; the shortest delay doubles from then on."""
        shortest = 0.05 * 2 ** (self.delays_taken - 1) if self.delays_taken else 0.0
        self.earliest_attempt = self.now + min(shortest, 15.0)
        self.delays_taken += 1

    # -- what the shell does about it

    def take_step(self) -> Step:
        step = self.session.next_step(self.now)
        assert self.session.next_step(self.now) == step
        match step:
            case Connect():
                self.connect()
            case Execute():
                self.execute(step)
            case Report():
                self.report(step)
            case Wait(until):
                if until is not None:
                    assert until > self.now, "a wait that is over is a busy loop"
                    self.now = until
        return step

    def connect(self) -> None:
        assert not self.connected
        assert self.now >= self.earliest_attempt, "an attempt before its delay has passed"
        self.now += self.random.uniform(0, 0.5)
        if not self.calm:
            self.disturb()
        if self.calm or self.random.random() < 0.6:
            self.connected = True
            self.connected_at = self.heard_at = self.now
            self.session.on_connected(self.now)
        else:
            self.session.on_connect_failed(self.now, "refused")
            self.expect_delay()

    def execute(self, step: Execute) -> None:
        assert self.connected, "a statement for a session that is dead"
        assert step.session == self.session.number
        self.now += self.random.uniform(0, 0.1)
        refused = REFUSED.intersection(step.changes.listen) - self.owed
        if refused or (not self.calm and self.random.random() < 0.03):
            self.heard_at = self.now
            for channel in self.session.on_refused(step, self.now, "no"):  # whoever asked gives up
                for owner in OWNERS:
                    self.session.registry.discard(owner, channel)
                self.wanted[channel].clear()
                self.forgive(channel)
            if not self.session.up:
                self.end_connection()
            return
        self.apply(step)
        number = self.session.number
        if not self.calm:
            self.disturb()
        if self.connected and self.session.number == number:
            self.heard_at = self.now
            self.acknowledged -= set(step.changes.unlisten)
            self.acknowledged |= set(step.changes.listen)
            if step.changes.sweep:
                self.acknowledged.clear()
        self.session.on_executed(step, self.now)

    def apply(self, step: Execute) -> None:
        """Do what the statements say, as a server reads them."""
        for statement in step.script.split("; UNLISTEN "):
            for number, part in enumerate(statement.split("; LISTEN ")):
                if part == "UNLISTEN *":
                    self.listening.clear()
                    continue
                name = part.removeprefix("UNLISTEN ").removeprefix("LISTEN ")[1:-1].replace('""', '"')
                if part.startswith("LISTEN ") or number > 0:
                    self.listening.add(name)
                else:
                    self.listening.discard(name)

    def report(self, step: Report) -> None:
        assert set(step.channels) == self.owed, "the report names what was lost and nothing else"
        assert self.owed <= self.listening, "a gap before its channels are live again"
        assert step.since == self.owed_since
        self.reports += 1
        self.owed.clear()
        self.session.on_reported(step)

    # -- what must be true when everything has calmed down

    def check_end(self) -> None:
        registry = self.session.registry
        desired = {channel for channel, owners in self.wanted.items() if owners}
        assert self.session.next_step(self.now) == Wait(None), "it comes to rest"
        assert registry.desired == desired
        assert registry.acknowledged == desired
        assert self.listening == desired
        assert not self.owed, "every loss has been reported"
        assert self.reports == self.losses_owed, "and none of them twice"


def test_the_promises_hold_under_every_schedule() -> None:
    for seed in range(SEED, SEED + SCHEDULES):
        try:
            Schedule(seed).run()
        except Exception as error:
            raise AssertionError(f"PGPUBSUB_SIM_SEED={seed} PGPUBSUB_SIM_SCHEDULES=1 repeats this") from error
