"""The connection's state machine: what a shell has to do next, decided from the facts that it reports.

A shell loops: it asks `Session.next_step`, does what the step says, and reports the fact that came of it.
A step that was not answered by a fact is simply given again, so a shell may be interrupted anywhere.

    step        the shell ...                                ... and reports
    Connect     opens a connection                           on_connected or on_connect_failed
    Execute     runs the statements in one round trip        on_executed, on_refused or on_lost
    Report      tells subscribers of the loss                on_reported
    Wait        reads notifications until the time given     on_heard, on_lost
    Stop        gives up: nothing more will happen

With a heartbeat there are three more:

    Beat        begins to send a notification on another     on_beat_begun, then on_beat_sent or
                connection, and goes on meanwhile            on_beat_failed; on_delivered whatever arrives
    Ask         makes a round trip on this connection        on_asked, then on_answered or on_lost
    Abandon     reads what has arrived, asks again, and if   on_lost
                the answer is the same closes the connection

It promises: one `Report` of each channel that was lost, as soon as it is live again and notifications were seen to
arrive, and not before (of all channels together, unless there are very many); no statement for a session that has
ended; no attempt to connect before its delay has passed. It does not know what a notification is, and does not deliver
any. Where the server refuses one of several LISTENs, they are repeated one by one, and the report comes behind the
last: a shell that delivers something meanwhile has to ask `Session.next_report` first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Generic

from pgpubsub.core import sql
from pgpubsub.core.heartbeat import Heartbeat, Pulse
from pgpubsub.core.registry import Changes, Owner, Registry
from pgpubsub.events import GapReason

__all__ = ["Abandon", "Ask", "Beat", "Connect", "Execute", "Report", "Session", "Step", "Stop", "Wait"]


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Bring the server in line with what is wanted."""

    session: int
    """Number of the session that this is for; a fact about another one is ignored."""

    changes: Changes

    @property
    def script(self) -> str:
        """The statements, to be run in one round trip."""
        if self.changes.sweep:
            return sql.UNLISTEN_ALL
        first = sql.refuse_truncation(self.changes.listen)
        return sql.script([*first, *map(sql.unlisten, self.changes.unlisten), *map(sql.listen, self.changes.listen)])


@dataclass(frozen=True, slots=True)
class Report:
    """The lost channels are live again: tell their subscribers."""

    session: int
    """Number of the session on which they are live: the same report has the same number."""
    channels: tuple[str, ...]
    since: float
    """When the lost session was last known to be healthy."""
    why: str
    reason: GapReason = GapReason.CONNECTION_LOST


@dataclass(frozen=True, slots=True)
class Beat:
    """Send a notification on another connection that has to arrive on this one."""

    session: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the server for a sign of life on this connection."""

    session: int


@dataclass(frozen=True, slots=True)
class Abandon:
    """Notifications do not arrive: give the session up."""

    session: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before `until` (None: until something happens)."""

    until: float | None


@dataclass(frozen=True, slots=True)
class Stop:
    """The session has ended and there will be no other."""

    why: str
    gave_up: bool = False
    """Whether there was no connection for as long as `give_up_after`."""


AT_ONCE = 5000
"""Statements in one round trip, at most. Before PostgreSQL 19 the time that a LISTEN takes grows with the channels of
its session: 10,000 took 0.23 s and 40,000 took 3.5 s, and an answer must not be long in coming."""

UNTIL_SOMETHING_HAPPENS = Wait(None)
_STEP_OF: dict[Pulse, type[Beat | Ask | Abandon]] = {Pulse.BEAT: Beat, Pulse.ASK: Ask, Pulse.FAIL: Abandon}

Step = Connect | Execute | Report | Beat | Ask | Abandon | Wait | Stop


@dataclass(slots=True)
class Session(Generic[Owner]):
    """One connection after another, as one subject.

    Times are in seconds, of any clock that only moves forwards.

    Args:
        reconnect: whether a lost session is followed by another.
        new_delays: makes the delays between attempts, such as `functools.partial(backoff, random.random)`.
        healthy_after: how long a session must have lasted, in seconds, before the delays start over. A
            server that accepts connections and drops them at once is not tried again at full speed.
        heartbeat: when to prove that notifications arrive; its channel has to be the first that the registry is
            given, and to stay wanted. None: whatever has connected is trusted.
        give_up_after: seconds without a trusted session, counted from the first failure, after which there will be
            no other (None: never).
    """

    reconnect: bool
    new_delays: Callable[[], Iterator[float]]
    healthy_after: float = 5.0
    registry: Registry[Owner] = field(default_factory=Registry)
    heartbeat: Heartbeat | None = None
    give_up_after: float | None = None

    up: bool = field(default=False, init=False)
    """Whether there is a connection."""
    failure: str = field(default="not connected yet", init=False)
    """Why there is none."""

    _number: int = field(default=0, init=False)
    _connected_at: float = field(default=0.0, init=False)
    _heard_at: float = field(default=0.0, init=False)
    _joined_at: float = field(default=0.0, init=False)
    _unfinished: str | None = field(default=None, init=False)
    _unfinished_since: float = field(default=0.0, init=False)
    _delivered_at: float = field(default=0.0, init=False)
    _attempt_at: float = field(default=0.0, init=False)
    _delays: Iterator[float] = field(init=False)
    _one_by_one: bool = field(default=False, init=False)
    _lost_since: float = field(default=0.0, init=False)
    _lost_why: str = field(default="", init=False)
    _lost_reason: GapReason = field(default=GapReason.CONNECTION_LOST, init=False)
    _give_up_at: float | None = field(default=None, init=False)
    _proven: bool = field(default=False, init=False)
    _stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._delays = self.new_delays()

    @property
    def number(self) -> int:
        """Number of the present or the last session; the first is 1."""
        return self._number

    @property
    def attempt_at(self) -> float:
        """When the next attempt to connect is due, while there is no connection."""
        return self._attempt_at

    @property
    def trusted(self) -> bool:
        """Whether there is a connection on which notifications arrive, as far as anybody knows."""
        return self.up and (self.heartbeat is None or self.heartbeat.trusted)

    @property
    def whole_until(self) -> float:
        """What came before this was handed out, whatever becomes of the message that has come in part."""
        return self._joined_at if self._unfinished is None else self._unfinished_since

    @property
    def give_up_at(self) -> float | None:
        """When there will be no other attempt, if there is no trusted session by then (None: that is not decided)."""
        return self._give_up_at

    def next_step(self, now: float) -> Step:
        """What the shell has to do now. Asking changes nothing."""
        if self._stopped:
            return Stop(self.failure)
        if self._give_up_at is not None and now >= self._give_up_at and not self.trusted:
            why = f"given up after {self.give_up_after:g} s without a connection that works: {self.failure}"
            return Stop(why, gave_up=True)
        if not self.up:
            return Connect() if now >= self._attempt_at else Wait(self._earliest(self._attempt_at))
        beating = self.heartbeat is not None and self.registry.is_live(self.heartbeat.channel)
        if self.heartbeat is not None and beating:
            pulse = self.heartbeat.next_pulse(now)
            if pulse is not Pulse.REST:
                return _STEP_OF[pulse](self._number)
            if not self.heartbeat.trusted:  # a pooler may deliver while a statement runs, and at no other time
                return Wait(self._earliest(self.heartbeat.until))
        changes = self.registry.changes()
        waits = self._one_by_one and changes  # else each channel would have a report of its own
        if not waits and (report := self.next_report()) is not None:
            return report
        if changes:
            return Execute(self._number, changes.first(1 if self._one_by_one else AT_ONCE))
        return Wait(self.heartbeat.until) if self.heartbeat is not None else UNTIL_SOMETHING_HAPPENS

    def next_report(self) -> Report | None:
        """What subscribers have to be told before they get anything that arrives now."""
        if not self.trusted or not self.registry.lost:
            return None
        lost = tuple(sorted(self.registry.lost_and_live))
        return Report(self._number, lost, self._lost_since, self._lost_why, self._lost_reason) if lost else None

    def _earliest(self, until: float | None) -> float | None:
        return min((t for t in (until, self._give_up_at) if t is not None), default=None)

    # -- facts

    def on_connected(self, now: float) -> None:
        """A new session exists; nothing is listened to on it."""
        self._number += 1
        self._connected_at = self._heard_at = self._delivered_at = self._joined_at = now
        self._unfinished = None
        self._one_by_one = False
        self.registry.on_session_begun()
        if self.heartbeat is not None:
            self.heartbeat.on_connected(now)
        else:
            self._on_trusted()
        self.up = True

    def on_connect_failed(self, now: float, why: str, *, hopeless: bool = False) -> None:
        """The attempt failed. The next one comes after a delay; none does if it is `hopeless`, if what was met
        there can never work, unless an earlier session has shown that it can."""
        self.failure = why
        self._on_outage(now)
        self._attempt_at = now + self._next_delay()
        self._stopped = hopeless and not self._proven

    def on_delivered(self, now: float) -> None:
        """A notification has arrived. One that came with the session's end says nothing of when that was."""
        if not self.up:
            return
        self._heard_at = self._delivered_at = now
        if self.heartbeat is not None:
            self.heartbeat.on_delivered(now)
            self._on_trusted()

    def on_joined(self, now: float, unfinished: str | None) -> None:
        """All that has arrived was handed out, but for the beginning of the message with the name `unfinished` (None:
        but for nothing). If its end does not come, what is heard meanwhile says nothing of when it was sent."""
        if unfinished != self._unfinished:
            self._unfinished, self._unfinished_since = unfinished, self._joined_at
        self._joined_at = now

    def on_beat_begun(self, step: Beat) -> None:
        """The beat is on its way to the server."""
        if self.heartbeat is not None and self._is_present(step.session):
            self.heartbeat.on_beat_begun()

    def on_beat_sent(self, step: Beat, now: float) -> None:
        """The server has acknowledged the beat as committed."""
        if self.heartbeat is not None and self._is_present(step.session):
            self.heartbeat.on_beat_sent(now)

    def on_beat_failed(self, step: Beat) -> None:
        """The beat was not sent, or not acknowledged in time."""
        if self.heartbeat is not None and self._is_present(step.session):
            self.heartbeat.on_beat_failed()

    def on_asked(self, step: Ask) -> None:
        """The question is on its way to the server."""
        if self.heartbeat is not None and self._is_present(step.session):
            self.heartbeat.on_asked()

    def on_answered(self, step: Ask, now: float) -> None:
        """The session gave a sign of life."""
        if self.heartbeat is not None and self._is_present(step.session):
            self._heard_at = now
            self.heartbeat.on_answered(now)
            self._on_trusted()

    def on_executed(self, step: Execute, now: float) -> None:
        """The server has acknowledged all of `step`."""
        if not self._is_present(step.session):
            return
        self.on_heard(now)
        self.registry.on_executed(step.changes)
        if not self.registry.changes():
            self._one_by_one = False

    def on_refused(self, step: Execute, now: float, why: str) -> Collection[str]:
        """The server answered `step` with an error. Returns the channels that whoever asked for them must
        be told about.

        Of several statements nobody knows which one was refused, so they are tried one by one. A refused
        channel that an earlier session listened to is nobody's request: that session is of no use. Neither is
        one that refuses the heartbeat's.
        """
        if not self._is_present(step.session):
            return ()
        self.on_heard(now)
        if len(step.changes) > 1:
            self._one_by_one = True
            return ()
        beat = {self.heartbeat.channel} if self.heartbeat is not None else set()
        if (self.registry.lost | beat).intersection(step.changes.listen):
            self.on_lost(step.session, now, why)
            return ()
        self.registry.on_refused(step.changes)
        return (*step.changes.listen, *step.changes.unlisten)

    def on_heard(self, now: float) -> None:
        """The session was seen to be healthy."""
        self._heard_at = now

    def on_lost(
        self,
        session: int,
        now: float,
        why: str,
        *,
        reason: GapReason = GapReason.CONNECTION_LOST,
        hopeless: bool = False,
    ) -> None:
        """The session is gone. Reported twice, it counts once. `hopeless` as for `on_connect_failed`."""
        if not self._is_present(session):
            return
        self.failure = why
        if not self.registry.lost:  # else an earlier loss is still to be reported, and this one is part of it
            # A deaf session goes on answering, and may break before its beat is missed: statements have proved nothing.
            beats = self.heartbeat is not None and self.heartbeat.interval is not None
            self._lost_since = self._delivered_at if beats or reason is GapReason.HEARTBEAT else self._heard_at
            if self._unfinished is not None:
                self._lost_since = min(self._lost_since, self.whole_until)
        self._lost_why = why
        self._lost_reason = reason
        self.registry.on_session_ended()
        if self.trusted and now - self._connected_at >= self.healthy_after:
            self._delays = self.new_delays()
        self._on_outage(now)
        self._attempt_at = now + self._next_delay()
        self._stopped = not self.reconnect or (hopeless and not self._proven)
        self.up = False  # last: an exception before it leaves a session whose loss will be reported again

    def _is_present(self, session: int) -> bool:
        return self.up and session == self._number

    def _on_trusted(self) -> None:
        self._proven = True
        self._give_up_at = None

    def _on_outage(self, now: float) -> None:
        if self.give_up_after is not None and self._give_up_at is None:
            self._give_up_at = now + self.give_up_after

    def _next_delay(self) -> float:
        delay = next(self._delays, None)
        if delay is None:  # a generator that an exception interrupted has ended
            self._delays = self.new_delays()
            delay = next(self._delays)
        return delay

    def on_reported(self, step: Report) -> None:
        """The subscribers have been told."""
        self.registry.on_loss_reported(step.channels)
