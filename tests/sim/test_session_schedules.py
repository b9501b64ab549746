"""The session under thousands of random schedules: a simulated shell, server and set of subscribers.

The server is the truth: it knows what it listens to and whether anything comes through, and promises nothing else.
After every step the rules that `pgpubsub.core.session` promises are checked against it. Half of the sessions have a
heartbeat, and then connections fall silent, beats are late or cannot be sent, and the shell is too busy to look. A
failure names its seed; PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import partial

from pgpubsub import GapReason
from pgpubsub.core.backoff import backoff
from pgpubsub.core.heartbeat import Heartbeat
from pgpubsub.core.session import Abandon, Ask, Beat, Connect, Execute, Report, Session, Step, Stop, Wait
from tests.sim.simulation import Simulation, schedules
from tests.sim.world import Server, Subscribers, World

SCHEDULES = schedules(6000)

CHANNELS = ["a", "b", "C", 'd "quoted"', "e; f"]
BEATS = "beats"
OWNERS = range(4)
HEART = -1
"""Who wants the channel of the heartbeat."""
REFUSED = {"e; f"}
"""What this server never lets anybody listen to, as long as nobody did before."""
INTERVAL, TIMEOUT = 10.0, 5.0

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


class Schedule:
    """One random life of a session."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(self.random.uniform(0, 1000))
        self.server = Server()
        self.calm = False
        self.reconnect = not self.chance(0.03)
        self.interval = None if self.chance(0.1) else INTERVAL
        self.heartbeat = Heartbeat(BEATS, self.interval, TIMEOUT, self.random.random) if self.chance(0.5) else None
        self.behind_pooler = self.heartbeat is not None and self.chance(0.1)
        self.session = Session[int](
            self.reconnect,
            partial(backoff, self.random.random),
            heartbeat=self.heartbeat,
            give_up_after=self.random.choice((None, None, 5.0, 60.0)),
        )
        self.subscribers = Subscribers([BEATS, *CHANNELS])
        if self.heartbeat is not None:
            self.session.registry.add(HEART, BEATS)
            self.subscribers.wanted[BEATS].add(HEART)
        # the connection
        self.connected = False
        self.trusted = False  # something has arrived, or nothing could be sent and it has answered
        self.delivered = False  # something has arrived
        self.proven = False  # some session was trusted
        self.connected_at = self.heard_at = self.delivered_at = self.now
        self.read_late = False  # the last notification lay unread for a while
        self.acknowledged: set[str] = set()  # what the server listens to as far as the session has been told
        self.one_by_one = False  # the server has refused one of several statements, and they are being repeated
        self.beating: int | None = None  # the session whose beat is under way, while nothing else has proved it
        self.beats = 0
        self.arrives_by = 0.0  # when the last beat that was committed must have arrived
        self.waited = 0.0  # for how long the shell did nothing since the session was last proved or asked
        # attempts
        self.earliest_attempt = self.now
        self.delays_taken = 0
        self.give_up_at: float | None = None
        self.ended = ""  # why there will be no other session

    @property
    def now(self) -> float:
        return self.world.now

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def run(self) -> None:
        for _ in range(self.random.randrange(5, 40)):
            self.disturb()
            if isinstance(self.take_step(), Stop):
                return self.check_stopped()
        self.calm = True
        self.behind_pooler = False
        for _ in range(300):
            self.world.catch_up()
            if self.interval is None and self.delivered and self.server.deaf_from is not None:
                self.lose()  # which nothing else finds out: there are no beats any more
            step = self.session.next_step(self.now)
            proved = self.heartbeat is None or (self.delivered and self.server.deaf_from is None)
            if isinstance(step, Wait) and self.connected and proved and self.world.next_at is None:
                return self.check_end(step)
            if isinstance(self.take_step(), Stop):
                return self.check_stopped()
        raise AssertionError("it does not come to rest")

    # -- what happens to it

    def disturb(self) -> None:
        """Anything that may come between a step and its outcome."""
        happenings = [self.subscribe, self.unsubscribe, self.lose, self.pass_time]
        weights = [5, 4, 1, 2]
        if self.heartbeat is not None:
            happenings += [self.fall_silent, self.stall, self.receive]
            weights += [1, 2, 2]
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 5))):
            self.random.choices(happenings, weights)[0]()

    def subscribe(self) -> None:
        owner, channel = self.random.choice(OWNERS), self.random.choice(CHANNELS)
        self.session.registry.add(owner, channel)
        self.subscribers.wanted[channel].add(owner)

    def unsubscribe(self) -> None:
        owner, channel = self.random.choice(OWNERS), self.random.choice(CHANNELS)
        if self.chance(0.1):
            self.session.registry.discard_all(owner)
            self.session.registry.sweep()
            gone = CHANNELS
        else:
            self.session.registry.discard(owner, channel)
            gone = [channel]
        for channel in gone:
            self.forget(owner, channel)

    def forget(self, owner: int, channel: str) -> None:
        self.subscribers.forget(owner, channel)
        if channel not in self.subscribers.desired:  # who comes now waits for a LISTEN of their own
            self.acknowledged.discard(channel)

    def pass_time(self) -> None:
        self.world.pass_time(self.now + self.random.expovariate(0.3))
        if self.connected and self.heartbeat is None:
            self.heard_at = self.now
            self.session.on_heard(self.now)

    def stall(self) -> None:
        """The process is busy and reads nothing."""
        self.world.stall(self.now + self.random.expovariate(0.1))

    def lose(self) -> None:
        if not self.connected:
            return
        self.end_connection()
        for _ in range(self.random.choice((1, 1, 2))):  # it may be noticed twice
            self.session.on_lost(self.session.number, self.now, "lost")

    def fall_silent(self) -> None:
        """The peer is gone, or a pooler took the session away, and nobody is told."""
        if self.connected:
            self.server.fall_silent(self.now, answers=self.chance(0.5))

    def receive(self) -> None:
        """Somebody else sends a notification."""
        self.send(self.now + self.random.uniform(0, 1))

    def send(self, arrives_at: float) -> None:
        number = self.session.number

        def arrive() -> None:
            if not self.connected:
                self.session.on_delivered(self.now)  # read from a connection that is gone
            elif number == self.session.number and self.server.listening and self.server.carries(arrives_at):
                self.session.on_delivered(self.now)
                self.heard_at = self.delivered_at = self.now
                self.delivered = True
                self.read_late = self.now > arrives_at
                self.prove()
                if (report := self.session.next_report()) is not None:  # first: whoever gets it has lost something
                    seen["reports before what arrives"] += 1
                    self.report(report)

        self.world.at(arrives_at, arrive)

    def prove(self) -> None:
        self.trusted = self.proven = True
        self.waited = 0.0
        self.beating = None
        self.give_up_at = None

    def end_connection(self, reason: GapReason = GapReason.CONNECTION_LOST) -> None:
        since = self.heard_at
        if self.heartbeat is not None and self.interval is not None:
            since = self.delivered_at
        if reason is GapReason.HEARTBEAT:
            since = self.delivered_at
            assert self.server.deaf_from is not None
            assert since <= self.server.deaf_from or self.read_late, "what was lost was lost after that"
        self.subscribers.lose(self.acknowledged, since, reason)
        if self.trusted and self.now - self.connected_at >= self.session.healthy_after:
            self.delays_taken = 0
        self.connected = self.trusted = self.delivered = False
        self.server.connect()
        self.acknowledged.clear()
        self.fail()
        if not self.reconnect:
            self.ended = "not to reconnect"

    def fail(self) -> None:
        """The first attempt after a loss may be immediate; the shortest delay doubles from then on."""
        shortest = 0.05 * 2 ** (self.delays_taken - 1) if self.delays_taken else 0.0
        self.earliest_attempt = self.now + min(shortest, 15.0)
        self.delays_taken += 1
        if self.give_up_at is None and self.session.give_up_after is not None:
            self.give_up_at = self.now + self.session.give_up_after

    # -- what the shell does about it

    def take_step(self) -> Step:
        if self.chance(0.5):  # else it asks before it has read what came while it was busy
            self.world.catch_up()
        step = self.session.next_step(self.now)
        assert self.session.next_step(self.now) == step
        seen[type(step).__name__] += 1
        self.check(step)
        match step:
            case Connect():
                self.connect()
            case Execute():
                self.execute(step)
            case Report():
                self.report(step)
            case Beat():
                self.beat(step)
            case Ask():
                self.ask(step)
            case Abandon():
                self.abandon(step)
            case Wait(until):
                self.wait(until)
        return step

    def check(self, step: Step) -> None:
        """What must be true of every step."""
        overdue = self.give_up_at is not None and self.now >= self.give_up_at
        if isinstance(step, Stop):
            assert self.ended or overdue, "it stops without a reason"
            assert step.gave_up is not bool(self.ended)
            seen[self.ended or "given up"] += 1
            return
        assert not self.ended
        assert not overdue, "it does not give up when it should"
        if BEATS in self.acknowledged and not self.trusted:
            assert isinstance(step, Beat | Ask | Abandon | Wait), "before it is trusted it does nothing else"
        if isinstance(step, Execute | Wait) and self.trusted and self.connected:
            owed = {channel for channel in self.subscribers.owed if self.session.registry.is_live(channel)}
            if isinstance(step, Execute) and self.one_by_one:
                report = self.session.next_report()
                assert owed == set(report.channels if report is not None else ()), "whom something arrives for now"
                seen["reports that wait for the last statement"] += bool(owed)
            else:
                assert not owed, "they would get what arrives now before they are told what they have lost"

    def wait(self, until: float | None) -> None:
        if until is not None:
            assert until > self.now, "a wait that is over is a busy loop"
        if self.give_up_at is not None:
            assert until is not None
            assert until <= self.give_up_at, "it sleeps beyond the time to give up"
        wakes = [time for time in (until, self.world.next_at) if time is not None]
        wakes_at = max(self.now, min(wakes, default=self.now))
        if self.connected and self.heartbeat is not None and (self.interval is not None or not self.delivered):
            self.waited += wakes_at - self.now
            assert self.waited <= INTERVAL * 1.2 + 2 * TIMEOUT, "a silence that nobody looks into"
        self.world.pass_time(wakes_at)

    def connect(self) -> None:
        assert not self.connected
        assert self.now >= self.earliest_attempt, "an attempt before its delay has passed"
        self.world.pass_time(self.now + self.random.uniform(0, 0.5))
        if not self.calm:
            self.disturb()
        if self.calm or self.chance(0.6):
            self.server.connect()
            if self.behind_pooler:
                self.server.fall_silent(self.now, answers=True)
            self.connected = True
            self.one_by_one = False
            self.connected_at = self.heard_at = self.delivered_at = self.now
            self.waited, self.read_late = 0.0, False
            self.session.on_connected(self.now)
            if self.heartbeat is None:
                self.prove()
            return
        hopeless = self.chance(0.1)
        self.session.on_connect_failed(self.now, "refused", hopeless=hopeless)
        self.fail()
        if hopeless and not self.proven:
            self.ended = "hopeless from the start"

    def execute(self, step: Execute) -> None:
        assert self.connected, "a statement for a session that is dead"
        assert step.session == self.session.number
        if not self.server.answers:
            self.world.pass_time(self.now + TIMEOUT)
            return self.lose()
        self.world.pass_time(self.now + self.random.uniform(0, 0.1))
        refused = REFUSED.intersection(step.changes.listen)
        if refused or (not self.calm and self.chance(0.03)):
            self.refuse(step)
            return None
        self.server.run(step.script)
        if not self.calm:
            self.disturb()
        if self.connected and self.session.number == step.session:
            self.heard_at = self.now
            self.acknowledged -= set(step.changes.unlisten)
            self.acknowledged |= {one for one in step.changes.listen if one == BEATS or one in self.subscribers.desired}
            if step.changes.sweep:
                self.acknowledged.clear()
        self.session.on_executed(step, self.now)
        self.one_by_one = self.one_by_one and bool(self.session.registry.changes())
        return None

    def refuse(self, step: Execute) -> None:
        self.heard_at = self.now
        told = self.session.on_refused(step, self.now, "no")
        assert len(step.changes) == 1 or not told, "of several nobody knows which"
        self.one_by_one |= len(step.changes) > 1
        for channel in told:  # whoever asked gives up
            for owner in OWNERS:
                registry = self.session.registry
                asked = channel in step.changes.listen and owner in registry.owners(channel)
                (registry.withdraw if asked and self.chance(0.5) else registry.discard)(owner, channel)
                self.forget(owner, channel)
        if not self.session.up:
            self.end_connection()

    def report(self, step: Report) -> None:
        subscribers = self.subscribers
        losers = {channel: set(self.session.registry.losers(channel)) for channel in step.channels}
        owed = {channel: subscribers.owed.get(channel) for channel in step.channels}
        assert losers == owed, "it concerns who wanted what was lost and still does, and nobody else"
        assert losers.keys() <= self.server.listening, "a gap before its channels are live again"
        assert self.trusted, "a gap before anything was seen to arrive"
        assert (step.since, step.reason) == (subscribers.since, subscribers.reason)
        subscribers.on_report(step.channels)
        self.session.on_reported(step)

    def beat(self, step: Beat) -> None:
        """Send a beat. It may be committed late, or never, or not be sent at all."""
        assert self.beating != step.session, "two beats at once"
        self.beating = step.session
        self.beats += 1
        self.session.on_beat_begun(step)
        patience = self.random.choice((TIMEOUT, TIMEOUT, 0.1))  # it may also fail at once
        committed_at = self.now + self.random.uniform(0, 0.1)
        if not self.calm and self.chance(0.5):
            committed_at = self.now + self.random.uniform(0, 3 * TIMEOUT)
        acknowledged_at = committed_at + self.random.uniform(0, 0.1)  # it may arrive before
        if self.calm or self.chance(0.8):
            self.send(committed_at + self.random.uniform(0, 0.9) * self.random.choice((0.1, TIMEOUT)))
            seen["beats that are committed late"] += acknowledged_at > self.now + patience
        else:
            acknowledged_at = self.now + 1000  # never
            seen["beats that cannot be sent"] += 1
        known_at = min(acknowledged_at, self.now + patience)
        number = self.beats

        def become_known() -> None:
            if number != self.beats:
                return  # the next one has begun, and nobody waits for this one any more
            self.beating = None
            if known_at == acknowledged_at:
                self.session.on_beat_sent(step, self.now)
                self.arrives_by = self.now + TIMEOUT
            else:
                self.session.on_beat_failed(step)

        self.world.at(known_at, become_known)

    def ask(self, step: Ask) -> None:
        assert self.connected, "a question to a session that is dead"
        self.session.on_asked(step)
        self.waited = 0.0
        self.world.pass_time(self.now + (self.random.uniform(0, 1) if self.server.answers else TIMEOUT))
        if not self.calm:
            self.disturb()
        present = self.connected and self.session.number == step.session
        if present and not self.server.answers:
            seen["questions without an answer"] += 1
            self.end_connection(GapReason.HEARTBEAT)
            self.session.on_lost(step.session, self.now, "mute", reason=GapReason.HEARTBEAT)
            return
        self.session.on_answered(step, self.now)
        if present:
            self.heard_at = self.now
            self.prove()

    def abandon(self, step: Abandon) -> None:
        assert self.connected
        self.world.catch_up()  # we may be the ones who were late
        if self.session.next_step(self.now) != step:
            seen["sessions saved by looking first"] += 1
            return
        assert self.server.deaf_from is not None, "a healthy session is abandoned"
        assert self.now >= self.arrives_by, "the beat may still arrive"
        hopeless = not self.proven
        self.end_connection(GapReason.HEARTBEAT)
        self.session.on_lost(step.session, self.now, "deaf", reason=GapReason.HEARTBEAT, hopeless=True)
        if hopeless:
            self.ended = "deaf from the start"

    # -- what must be true when everything has calmed down

    def check_stopped(self) -> None:
        self.subscribe()
        self.world.stall(self.now + 1000)  # the shell has closed the connection and reads no more
        assert isinstance(self.session.next_step(self.now), Stop), "it has stopped for good"

    def check_end(self, step: Wait) -> None:
        registry, subscribers = self.session.registry, self.subscribers
        desired = subscribers.desired
        assert registry.desired == desired
        assert registry.acknowledged == desired
        assert all(registry.is_live(channel) for channel in desired)
        assert self.server.listening == desired
        assert not subscribers.owed, "every loss has been reported"
        assert subscribers.reports == subscribers.losses, "and none of them twice"
        assert (step.until is None) == (self.heartbeat is None or self.interval is None), "it comes to rest"


HAPPENINGS = [
    *(step.__name__ for step in (Connect, Execute, Report, Beat, Ask, Abandon, Wait, Stop)),
    "not to reconnect",
    "hopeless from the start",
    "deaf from the start",
    "given up",
    "reports before what arrives",
    "reports that wait for the last statement",
    "beats that cannot be sent",
    "beats that are committed late",
    "questions without an answer",
    "sessions saved by looking first",
]

SIMULATION = Simulation(
    "session",
    lambda seed: Schedule(seed).run(),
    seen,
    HAPPENINGS,
    enough=5000,
    small={"pgpubsub.core.session.AT_ONCE": 3},  # so that some round trips take less than all
)


def test_the_promises_hold_under_every_schedule() -> None:
    SIMULATION.check(SCHEDULES)
