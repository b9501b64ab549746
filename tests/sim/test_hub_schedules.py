"""A hub under thousands of random schedules: session, heartbeat, registry, frames, routing and buffers together, as the
hubs put them together, against a server that knows what was committed when.

Subscribers come and go, add channels and remove them, with and without types, with each overflow policy, and take what
they get sooner or later. Others send: payloads of all lengths, equal ones, and frames that are none. Connections break,
with what was on its way, or fall silent; statements are refused, answered late or never; the process is busy.

What is checked is the first promise: each message that was committed while a subscriber had its channel comes to it
once and in order, or lies within a gap, which names its channel, begins before it was committed, stands before all that
was committed later, comes after its channels are live again, and has the right count where it has one. A failure names
its seed; PGPUBSUB_SIM_SEED=that PGPUBSUB_SIM_SCHEDULES=1 repeats it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from pgpubsub import Channel, Gap, GapReason, Notify, Undecodable
from pgpubsub.channel import Types
from pgpubsub.core.backoff import backoff
from pgpubsub.core.buffer import Buffer, Overflow, payload_bytes
from pgpubsub.core.frames import Message, Partial, Unjoined, join, pack, unfinished
from pgpubsub.core.heartbeat import Heartbeat
from pgpubsub.core.routing import route
from pgpubsub.core.session import Abandon, Ask, Beat, Connect, Execute, Report, Session, Step, Wait
from tests.sim.simulation import Simulation, schedules
from tests.sim.world import Server, World

SCHEDULES = schedules(2000)

CHANNELS = ["a", "b", "C", 'd "quoted"', "refused"]
REFUSED = "refused"
"""What this server never lets anybody listen to."""
BEATS = "beats"
INTERVAL, TIMEOUT = 10.0, 5.0
BYTES, CHUNK = 100, 36
"""Of a notification and a chunk; small, so that messages have several."""
LONGEST = 150
"""Bytes of a payload, at most, that this hub puts together."""
POLICIES: Sequence[Overflow] = ("clear", "drop_oldest", "latest", "close")

seen: Counter[str] = Counter()
"""What has happened in all schedules: a simulation proves nothing of what it never meets."""


class Commit(NamedTuple):
    """A message that was committed."""

    number: int
    """In the order of commits."""
    time: float
    channel: str


def parsed(text: str) -> int:
    """What the typed channels carry: numbers, and now and then something else."""
    if "?" in text:
        raise ValueError("this is none")
    return as_number(text)


def as_number(text: str) -> int:
    """What each payload begins with."""
    return int(text.removeprefix("pgpubsub/").partition(" ")[0])


def typed(channel: str) -> Channel[int]:
    return Channel(channel, int, encode=str, decode=parsed)


def number_of(event: Any) -> int:
    """Of a notification, decoded or not."""
    if isinstance(event, Undecodable):
        event = event.event
    payload = event.payload
    return payload if isinstance(payload, int) else as_number(payload)


class Database:
    """The truth: what is committed, and what of it is on its way to the hub."""

    def __init__(self, schedule: Schedule) -> None:
        self.random = schedule.random
        self.schedule = schedule
        self.server = Server()
        self.connected = False
        self.broken = False  # and the hub has not noticed
        self.answer: Execute | str | None = None
        """What the server has said of the last statements: that they are done, or why not."""
        self.executing: Execute | None = None
        self.transit: list[Notify] = []
        self.in_transit_since = 0.0
        self.tail = 0
        """So many of them are the rest of a message whose beginning has come."""
        self.count = 0
        """Of messages that were committed."""

    def connect(self) -> None:
        self.server.connect()
        self.connected, self.broken = True, False
        self.answer = self.executing = None
        self.transit, self.tail = [], 0

    def break_off(self) -> None:
        """Some of what was on its way comes yet, and nothing after that."""
        if self.connected and not self.broken:
            self.broken = True
            del self.transit[self.random.randint(0, len(self.transit)) :]
            if self.executing is not None and self.answer is not None and self.transit:
                seen["what came with the end"] += 1
            if self.answer is not None and self.chance(0.5):
                self.answer = None
            self.server.listening.clear()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def commit(self, time: float, texts: Iterable[Message], *, pid: int = 7) -> None:
        """A transaction with these notifications, as they are."""
        for channel, text in dict.fromkeys(texts):
            if channel in self.server.listening and self.server.carries(time):
                self.in_transit_since = self.in_transit_since if len(self.transit) > self.tail else time
                self.transit.append(Notify(pid, channel, text))

    def send(self, time: float, messages: Sequence[Message]) -> None:
        """A transaction with these messages, which may be of any length."""
        for channel, text in messages:
            whole = len(text.encode()) <= LONGEST
            seen["a message that is too long"] += not whole
            self.schedule.on_committed(Commit(number_of(Notify(7, channel, text)), time, channel))
        packed = pack(messages, self.schedule.new_name)
        seen["messages in frames"] += len(packed) > len(messages)
        assert all(len(text.encode()) <= BYTES for _, text in packed)
        self.commit(time, packed)

    def run(self, step: Execute) -> None:
        """Run statements, in one transaction."""
        self.executing = step
        if REFUSED in step.changes.listen or (not self.schedule.calm and self.chance(0.03)):
            self.answer = "no"
        else:
            self.server.run(step.script)
            self.answer = step


class Subscriber:
    """One of the hub's, with what is true of it."""

    def __init__(self, schedule: Schedule, number: int) -> None:
        self.schedule = schedule
        self.number = number
        self.overflow = schedule.random.choice(POLICIES)
        capacity, capacity_bytes = schedule.random.choice(((1, 1000), (2, 60), (5, 200), (1000, 1000), (1000, 10**6)))
        self.buffer = Buffer(capacity, capacity_bytes, self.overflow, schedule.clock)
        self.channels: set[str] = set()
        self.live: set[str] = set()
        """Those of them that it was told it has."""
        self.types = Types()
        self.closed = False
        self.owed: dict[int, Commit] = {}
        """What was committed on its live channels, and has not come."""
        self.put_at: dict[int, float] = {}
        """When what was put into its buffer came."""
        self.forgotten: set[int] = set()
        self.newest_put: dict[str, int] = {}
        self.log: list[int | Gap] = []
        """What it has taken: numbers of messages, and gaps."""
        self.taken_on: dict[int, str] = {}
        """On which channel a message came."""
        self.newest = -1
        self.until: dict[GapReason, int] = {}
        """Up to which commit the last gap of a reason was told."""
        self.untils: dict[int, int] = {}
        """The same of gaps, by their places in the log."""
        self.incomplete = 0  # gaps of that kind that it was told of

    # -- what the hub does

    def put(self, events: Sequence[Notify], size: int) -> None:
        if self.closed:
            return
        numbers = [number_of(event) for event in events]
        self.put_at.update(dict.fromkeys(numbers, self.schedule.now))
        for event, number in zip(events, numbers, strict=True):
            self.newest_put[event.channel] = number
        self.until[GapReason.OVERFLOW] = numbers[-1]
        self.buffer.put(events, size)
        assert payload_bytes(self.held) <= self.buffer.capacity_bytes, "more bytes than there is room for"
        if self.buffer.overflowed:
            seen["closed, being too slow"] += 1
            self.closed = True
            held = {number_of(event) for event in self.held}
            first = min(number for number in numbers if number not in held)
            losers = self.schedule.registry.losers  # of a loss that is to be reported; now they get the error instead
            self.owed = {
                number: one for number, one in self.owed.items() if number < first and self not in losers(one.channel)
            }
            self.live.clear()

    def report(self, gap: Gap, until: int) -> None:
        if self.closed:
            return
        self.until[gap.reason] = until
        self.incomplete += gap.reason is GapReason.INCOMPLETE
        self.buffer.report(gap)

    @property
    def held(self) -> list[Notify]:
        """What is buffered, and may be dropped."""
        return [event for event in self.buffer._queue if isinstance(event, Notify)]

    # -- what it does

    def forget(self, channel: str) -> None:
        """It does not want `channel` any more, and nothing of it."""
        self.live.discard(channel)
        buffered = (*self.buffer._next, *self.buffer._queue)
        self.forgotten.update(number_of(one) for one in buffered if isinstance(one, Notify) and one.channel == channel)
        self.buffer.forget(channel)
        self.types.pop(channel, None)
        self.owed = {number: one for number, one in self.owed.items() if one.channel != channel}
        self.newest_put.pop(channel, None)

    def take(self) -> bool:
        """Take the next event, if there is one."""
        event = self.buffer.take()
        if event is None:
            return False
        if self.schedule.chance(0.1) and not self.schedule.calm:
            seen["put back"] += 1
            self.buffer.restore(event)
        elif isinstance(event, Gap):
            self.on_gap(event)
        else:
            self.on_message(event)
        return True

    def on_message(self, event: Notify) -> None:
        number = number_of(event)
        assert event.channel in self.channels or self.closed, "what it does not want"
        assert number > self.newest, "out of order, or twice"
        decoded = self.types.decoded(event)
        if event.channel in self.types:
            seen["undecodable"] += isinstance(decoded, Undecodable)
            assert isinstance(decoded, Undecodable) is ("?" in event.payload)
            assert number_of(decoded) == number
        else:
            assert decoded is event
        assert len(event.payload.encode()) <= LONGEST
        self.newest = number
        self.taken_on[number] = event.channel
        self.owed.pop(number, None)
        self.log.append(number)

    def on_gap(self, gap: Gap) -> None:
        seen[f"{gap.reason.value}, {self.overflow}" if gap.reason is GapReason.OVERFLOW else gap.reason.value] += 1
        assert list(gap.channels) == sorted(set(gap.channels))
        assert (gap.count is not None) is (gap.reason in (GapReason.OVERFLOW, GapReason.INCOMPLETE))
        assert gap.since <= self.schedule.clock()
        self.untils[len(self.log)] = self.until[gap.reason]
        self.log.append(gap)

    # -- what must be true at the end

    def check(self) -> None:
        while self.take():
            pass
        assert not self.buffer.bytes
        gaps = [(place, one) for place, one in enumerate(self.log) if isinstance(one, Gap)]
        for commit in self.owed.values():
            if self.overflow == "latest" and self.newest_put.get(commit.channel, -1) > commit.number:
                seen["conflated"] += 1
            else:
                assert any(self.explains(place, gap, commit) for place, gap in gaps), f"{commit} is lost in silence"
        counts = [gap.count or 0 for _, gap in gaps if gap.reason is GapReason.INCOMPLETE]
        assert sum(counts) == self.incomplete
        self.check_overflow()

    def explains(self, place: int, gap: Gap, commit: Commit) -> bool:
        """Whether `gap` tells that `commit` may be missing: before what comes next on that channel. An overflow's
        begins with what came, whenever that was."""
        time = self.schedule.noticed(commit.time)
        if gap.reason is GapReason.OVERFLOW:
            time = max(time, self.put_at.get(commit.number, 0))
        if commit.channel not in gap.channels or self.schedule.as_datetime(time) < gap.since:
            return False
        later = (one for one in self.log[place:] if not isinstance(one, Gap) and self.taken_on[one] == commit.channel)
        return commit.number <= self.untils[place] and commit.number < next(later, commit.number + 1)

    def check_overflow(self) -> None:
        """The gaps between two messages have counted those that are missing there."""
        delivered = {one for one in self.log if not isinstance(one, Gap)}
        assert self.buffer.delivered == len(delivered)
        dropped = set(self.put_at) - delivered - self.forgotten
        if self.overflow in ("latest", "close"):
            return
        assert self.buffer.dropped == len(dropped)
        before, counted = -1, 0
        for one in [*self.log, 1 << 60]:
            if isinstance(one, Gap):
                counted += one.count or 0 if one.reason is GapReason.OVERFLOW else 0
            else:
                missing = sum(before < number < one for number in dropped)
                assert counted == missing, f"{missing} are missing between {before} and {one}, and {counted} counted"
                before, counted = one, 0


class Heart:
    """Who wants the channel of the heartbeat."""

    closed = False


Owner = Subscriber | Heart


class Schedule:
    """One random life of a hub."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.world = World(self.random.randrange(1000))
        self.calm = False
        self.numbers = self.names = self.made = 0
        self.interval = None if self.chance(0.1) else INTERVAL
        self.heartbeat = Heartbeat(BEATS, self.interval, TIMEOUT, self.random.random)
        self.session = Session[Owner](True, partial(backoff, self.random.random), heartbeat=self.heartbeat)
        self.registry = self.session.registry
        self.registry.add(Heart(), BEATS)
        self.database = Database(self)
        self.subscribers: list[Subscriber] = []
        self.partial: Partial | None = None
        self.partial_of = 0
        self.beats = 0
        self.proved = False
        """Whether something has arrived in this session, or it has answered when nothing could be sent."""
        self.late: list[tuple[float, float]] = []
        """From when on something lay unread, and when it was read."""
        self.busy = self.random.choice((1, 3, 10))

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    @property
    def now(self) -> float:
        return self.world.now

    def clock(self) -> datetime:
        return self.as_datetime(self.now)

    def as_datetime(self, time: float) -> datetime:
        return datetime.fromtimestamp(time, UTC)

    def noticed(self, time: float) -> float:
        """When the process looked that was busy at `time`: gaps cannot tell what came first meanwhile."""
        return max([time, *[read for since, read in self.late if since <= time <= read]])

    def new_name(self) -> str:
        self.names += 1
        return f"{self.names:016x}"

    def run(self) -> None:
        for _ in range(self.random.randrange(10, 80)):
            for _ in range(self.random.choice((0, 1, 2, self.busy))):
                self.something()
            self.take_step()
        self.calm = True
        self.come_to_rest()
        for channel in CHANNELS:
            self.send(channel)
        self.come_to_rest()
        for subscriber in self.subscribers:
            assert subscriber.closed or subscriber.live == subscriber.channels
            subscriber.check()

    def come_to_rest(self) -> None:
        for _ in range(300):
            self.world.catch_up()
            self.read()
            deaf = self.database.server.deaf_from is not None
            step = self.session.next_step(self.now)
            if isinstance(step, Wait) and self.session.trusted and not deaf and self.world.next_at is None:
                return
            self.take_step()
        raise AssertionError("it does not come to rest")

    # -- what happens

    def something(self) -> None:
        happenings: list[Callable[[], object]] = [
            self.send_some,
            self.let_take,
            self.subscribe,
            self.add,
            self.remove,
            self.close,
            self.send_rubbish,
            self.read,
            self.pass_time,
            self.stall,
            self.database.break_off,
            self.fall_silent,
        ]
        weights = [10, 5, 2, 2, 2, 0.3, 1, 5, 2, 1, 0.7, 0.4]
        self.random.choices(happenings, weights)[0]()

    def send_some(self) -> None:
        self.send(*self.random.choices(CHANNELS, k=self.random.choice((1, 1, 1, 2, 5))))

    def send(self, *channels: str) -> None:
        self.world.catch_up()
        self.database.send(self.now, [(channel, self.text()) for channel in channels])

    def text(self) -> str:
        self.numbers += 1
        before = "pgpubsub/" if self.chance(0.05) else ""
        length = self.random.choice((0, 0, 0, 5, 40, BYTES, LONGEST, LONGEST + 1))
        filler = (self.random.choice(("x", "é", "?")) * length)[:length]
        return f"{before}{self.numbers} {filler}"

    def send_rubbish(self) -> None:
        """What no pgpubsub sends: a part of a message, or of one of a later version."""
        self.world.catch_up()
        channel = self.random.choice(CHANNELS)
        self.numbers += 1
        name = f"{self.numbers:016x}"
        some = self.random.choice(("1 {} 1/3 a", "1 {} 2/3 a", "1 {} 3/3 a", "3 {} whatever"))
        self.on_committed(Commit(self.numbers, self.now, channel))
        self.database.commit(self.now, [(channel, "pgpubsub/" + some.format(name))])

    def on_committed(self, commit: Commit) -> None:
        self.database.count = commit.number
        for subscriber in self.subscribers:
            if commit.channel in subscriber.live:
                subscriber.owed[commit.number] = commit

    def let_take(self) -> None:
        if self.subscribers:
            subscriber = self.random.choice(self.subscribers)
            for _ in range(self.random.choice((1, 3, 100))):
                if not subscriber.take():
                    break

    def pass_time(self) -> None:
        self.world.pass_time(self.now + self.random.expovariate(0.3))
        self.read()

    def stall(self) -> None:
        """The process is busy."""
        self.world.stall(self.now + self.random.expovariate(0.1))

    def fall_silent(self) -> None:
        """Nothing arrives any more. Without beats nobody would find out."""
        if self.database.connected and self.interval is not None:
            if self.database.tail:  # of a message that has begun to come: its rest is on its way no longer
                self.database.transit, self.database.tail = [], 0
            self.database.server.fall_silent(self.now, answers=self.chance(0.5))

    # -- subscribing, as `hubs.receiver` does it

    def subscribe(self) -> None:
        if len(self.subscribers) < 5:
            self.made += 1
            self.subscribers.append(Subscriber(self, self.made))
            for channel in self.random.sample(CHANNELS, self.random.choice((1, 1, 2, 4))):
                self.admit(self.subscribers[-1], channel)

    def add(self) -> None:
        there = [one for one in self.subscribers if not one.closed]
        if there:
            self.admit(self.random.choice(there), self.random.choice(CHANNELS))

    def admit(self, subscriber: Subscriber, channel: str) -> None:
        if channel in subscriber.channels:
            return
        if self.chance(0.3):
            subscriber.types.learn(typed(channel))
        self.registry.add(subscriber, channel)
        subscriber.channels.add(channel)
        if self.session.trusted and self.registry.is_live(channel):
            seen["a channel is there at once"] += 1
            subscriber.live.add(channel)
        elif self.chance(0.1):
            seen["given up while it waits"] += 1
            self.dismiss(subscriber, channel)

    def remove(self) -> None:
        if self.subscribers:
            subscriber = self.random.choice(self.subscribers)
            if subscriber.channels and not subscriber.closed:
                self.dismiss(subscriber, self.random.choice(sorted(subscriber.channels)))

    def dismiss(self, subscriber: Subscriber, channel: str) -> None:
        subscriber.channels.discard(channel)
        self.registry.discard(subscriber, channel)
        subscriber.forget(channel)

    def close(self) -> None:
        if self.subscribers:
            subscriber = self.subscribers.pop(self.random.randrange(len(self.subscribers)))
            subscriber.buffer.clear()
            assert (len(subscriber.buffer), subscriber.buffer.bytes) == (0, 0)
            for channel in sorted(subscriber.channels):
                self.dismiss(subscriber, channel)

    def grant(self) -> None:
        """Tell those who wait for channels that they have them."""
        assert self.proved
        for subscriber in self.subscribers:
            if not subscriber.closed:
                subscriber.live.update(channel for channel in subscriber.channels if self.registry.is_live(channel))

    # -- what arrives, likewise

    def read(self) -> None:
        """Take what has come: the answer first; but nothing counts before the end, if there is one."""
        database = self.database
        if not database.connected:
            return
        events, database.transit = database.transit, []
        if len(events) > database.tail and database.in_transit_since < self.now:
            self.late.append((database.in_transit_since, self.now))
        database.tail = 0
        if database.broken:
            self.lose()
        else:
            self.note_answer()
            slow = database.server.deaf_from is None and not self.calm and self.chance(0.6)
            cut = self.random.randint(0, len(events)) if slow else len(events)
            if 0 < cut < len(events) and len({event.payload[:27] for event in events}) == 1:
                seen["a message arrives slowly"] += 1
                events, database.transit = events[:cut], events[cut:]
                database.tail = len(database.transit)
        while events:
            count = len(events) if self.chance(0.5) else self.random.randint(1, len(events))
            batch, events = events[:count], events[count:]
            self.on_events(batch)

    def note_answer(self) -> None:
        database = self.database
        step, answer = database.executing, database.answer
        if step is None or answer is None:
            return
        database.executing = database.answer = None
        if isinstance(answer, Execute):
            self.session.on_executed(step, self.now)
            if self.session.trusted:
                self.grant()
            return
        for channel in self.session.on_refused(step, self.now, answer):
            seen["refused"] += 1
            for subscriber in self.subscribers:
                if channel in subscriber.channels and channel not in subscriber.live:
                    self.dismiss(subscriber, channel)
        if not self.session.up:
            seen["a session that is refused what it had is lost"] += 1
            self.on_gone()

    def on_events(self, events: list[Notify]) -> None:
        session = self.session
        trusted = session.trusted
        session.on_delivered(self.now)
        self.proved = session.up
        self.report_first()
        if not trusted and session.trusted:
            self.grant()
        elif not session.up and (untold := self.registry.untold):
            seen["what came with the end lies within a gap"] += 1
            events = [event for event in events if event.channel not in untold]
        if self.partial_of != session.number:
            seen["a message is cut off by the end"] += self.partial is not None
            self.partial, self.partial_of = None, session.number
        since = session.whole_until
        runs, self.partial = join(self.partial, events, LONGEST)
        session.on_joined(self.now, unfinished(self.partial))
        seen["a message in several batches"] += self.partial is not None
        for run in runs:
            if isinstance(run, Unjoined):
                self.report_unjoined(run, since)
            else:
                self.hand_out(run)

    def report_first(self) -> None:
        report = self.session.next_report()
        if report is not None:
            self.report(report)

    def report_unjoined(self, unjoined: Unjoined, since: float) -> None:
        gap = Gap(GapReason.INCOMPLETE, (unjoined.channel,), self.as_datetime(since), 1, unjoined.why)
        for owner in tuple(self.registry.owners(unjoined.channel)):
            if isinstance(owner, Subscriber):
                owner.report(gap, self.database.count)

    def hand_out(self, events: list[Notify]) -> None:
        for chosen, owners in route(events, self.registry.owners):
            size = payload_bytes(chosen)
            for owner in tuple(owners):
                if isinstance(owner, Subscriber):
                    owner.put(chosen, size)
                    if owner.closed:
                        for channel in sorted(owner.channels):
                            owner.channels.discard(channel)
                            self.registry.discard(owner, channel)

    # -- what the session wants done

    def lose(self, reason: GapReason = GapReason.CONNECTION_LOST) -> None:
        if self.session.up:
            self.session.on_lost(self.session.number, self.now, "lost", reason=reason)
        self.on_gone()

    def on_gone(self) -> None:
        self.database.connected = False
        self.database.server.listening.clear()

    def take_step(self) -> Step:
        self.world.catch_up()
        if self.chance(0.7):
            self.read()
        step = self.session.next_step(self.now)
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
                wakes = [time for time in (until, self.world.next_at) if time is not None]
                self.world.pass_time(max(self.now, min(wakes, default=self.now)))
        return step

    def connect(self) -> None:
        self.world.pass_time(self.now + self.random.uniform(0, 0.5))
        if self.calm or self.chance(0.8):
            self.database.connect()
            self.proved = False
            self.session.on_connected(self.now)
        else:
            self.session.on_connect_failed(self.now, "refused")

    def execute(self, step: Execute) -> None:
        database = self.database
        if database.server.answers and not database.broken:
            database.run(step)
            while not self.calm and self.chance(0.5):
                self.something()
            self.world.pass_time(self.now + self.random.uniform(0, 0.1))
        else:
            self.world.pass_time(self.now + TIMEOUT)
        self.read()
        unanswered = self.session.number == step.session and database.executing is not None
        if self.session.up and (unanswered or not database.server.answers):
            self.lose()

    def report(self, step: Report) -> None:
        assert set(step.channels) <= self.database.server.listening or self.database.broken, "not live again"
        assert self.proved, "before anything was seen to arrive"
        affected: dict[Subscriber, list[str]] = {}
        for channel in step.channels:
            for owner in self.registry.losers(channel):
                if isinstance(owner, Subscriber) and channel in owner.live:
                    affected.setdefault(owner, []).append(channel)
        self.session.on_reported(step)
        for owner, channels in affected.items():
            gap = Gap(step.reason, tuple(channels), self.as_datetime(step.since), None, step.why)
            owner.report(gap, self.database.count)

    def beat(self, step: Beat) -> None:
        """Send a beat, which may be committed late, or never."""
        self.session.on_beat_begun(step)
        self.beats += 1
        number = self.beats
        at = self.now + self.random.uniform(0, 0.1 if self.calm or self.chance(0.7) else 2 * TIMEOUT)
        sent = self.calm or self.chance(0.9)

        def commit() -> None:
            if sent:
                self.database.commit(at, [(BEATS, f"0 {number}")], pid=9)
            if number == self.beats and sent and at <= self.now + TIMEOUT:
                self.session.on_beat_sent(step, self.now)
            else:
                self.session.on_beat_failed(step)

        self.world.at(at, commit)

    def ask(self, step: Ask) -> None:
        self.session.on_asked(step)
        answers = self.database.server.answers and not self.database.broken
        self.world.pass_time(self.now + (self.random.uniform(0, 1) if answers else TIMEOUT))
        self.read()
        if not self.session.up:
            return
        if not answers:
            self.lose(GapReason.HEARTBEAT)
            return
        trusted = self.session.trusted
        self.session.on_answered(step, self.now)
        self.proved = True
        if not trusted and self.session.trusted:
            self.report_first()
            self.grant()

    def abandon(self, step: Abandon) -> None:
        self.read()
        if self.session.next_step(self.now) == step:
            assert self.database.server.deaf_from is not None, "a healthy session is abandoned"
            self.lose(GapReason.HEARTBEAT)


HAPPENINGS = [
    *(reason.value for reason in (GapReason.CONNECTION_LOST, GapReason.HEARTBEAT, GapReason.INCOMPLETE)),
    *(f"overflow, {policy}" for policy in ("clear", "drop_oldest", "latest")),
    "closed, being too slow",
    "conflated",
    "undecodable",
    "put back",
    "messages in frames",
    "a message that is too long",
    "a message in several batches",
    "a message arrives slowly",
    "a message is cut off by the end",
    "what came with the end",
    "a channel is there at once",
    "given up while it waits",
    "refused",
    "a session that is refused what it had is lost",
]

SIMULATION = Simulation(
    "hub",
    lambda seed: Schedule(seed).run(),
    seen,
    HAPPENINGS,
    enough=2000,
    small={
        "pgpubsub.core.session.AT_ONCE": 3,
        "pgpubsub.core.frames.PAYLOAD_LIMIT": BYTES,
        "pgpubsub.core.frames.CHUNK": CHUNK,
    },
)


def test_what_is_committed_arrives_or_lies_within_a_gap() -> None:
    SIMULATION.check(SCHEDULES)
