"""When to prove that notifications arrive, and when to give a session up because they do not.

A *beat* is a notification sent on another connection that has to arrive on the listening one. It finds what
nothing else finds: a half-open socket, a frozen backend, a pooler that took the session away. Its rules:

- A new session is *trusted* once a first notification has arrived in it, and a beat is sent at once to that end.
- After that, any notification is as good a proof, so beats are sent only after `interval` seconds of silence.
  Many hubs share one channel for them, and the one that beats first proves it for all.
- The time for a beat to arrive begins when the server has acknowledged it as committed: a commit that waits for
  a standby, or for another transaction's NOTIFY, makes nobody look dead.
- Where the beat itself could not be sent, nothing was learnt of the listening session. It is asked for a sign of
  life instead, a round trip on its own connection, and given up only if there is none.

It does not measure time, send anything or know what a notification is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

__all__ = ["Heartbeat", "Pulse"]


class Pulse(Enum):
    """What is due."""

    REST = auto()
    """Nothing, before `Heartbeat.until`."""
    BEAT = auto()
    """Send a beat."""
    ASK = auto()
    """Ask the session for a sign of life."""
    FAIL = auto()
    """Give the session up: a beat was sent and has not arrived in time."""


class _Phase(Enum):
    """What it waits for; docs/states.md draws it."""

    SILENT = auto()
    """Silence may last until `Heartbeat.until`, and then a beat is to be sent."""
    SENDING = auto()
    """A beat is on its way to the server."""
    SENT = auto()
    """The beat was committed, and has to arrive until `Heartbeat.until`."""
    UNSENT = auto()
    """The beat could not be sent: the session is to be asked for a sign of life."""
    ASKED = auto()
    """The session was asked, and is lost if it does not answer."""


@dataclass(slots=True)
class Heartbeat:
    """See the module. Times are in seconds, of any clock that only moves forwards.

    Args:
        channel: the channel that beats are sent on.
        interval: how long silence may last; up to a fifth is added at random, so that hubs take turns. None: beats
            are sent until one has proved a new session, and there are no others.
        timeout: how long a committed beat may take to arrive.
        random: returns a float in [0, 1).
    """

    channel: str
    interval: float | None
    timeout: float
    random: Callable[[], float]

    trusted: bool = field(default=False, init=False)
    """Whether notifications have been seen to arrive in this session, or must be believed to."""
    until: float | None = field(default=None, init=False)
    """When to ask again for what is due (None: not before a fact changes it)."""

    _phase: _Phase = field(default=_Phase.SILENT, init=False)
    _patience: float | None = field(default=None, init=False)

    def next_pulse(self, now: float) -> Pulse:
        """What is due now. Asking changes nothing."""
        if self._phase is _Phase.UNSENT:
            return Pulse.ASK
        if self.until is None or now < self.until:
            return Pulse.REST
        return Pulse.BEAT if self._phase is _Phase.SILENT else Pulse.FAIL

    def on_connected(self, now: float) -> None:
        """A new session: it has to prove itself at once."""
        self.trusted = False
        self._patience = None if self.interval is None else self.interval * (1 + self.random() / 5)
        self._enter(_Phase.SILENT, now)

    def on_delivered(self, now: float) -> None:
        """A notification has arrived."""
        self.trusted = True
        self._enter(_Phase.SILENT, None if self._patience is None else now + self._patience)

    def on_beat_begun(self) -> None:
        """A beat is on its way to the server."""
        self._enter(_Phase.SENDING, None)

    def on_beat_sent(self, now: float) -> None:
        """The beat was committed. It may have arrived before."""
        if self._phase is _Phase.SENDING:
            self._enter(_Phase.SENT, now + self.timeout)

    def on_beat_failed(self) -> None:
        """The beat was not sent, or nobody knows whether it was."""
        if self._phase is _Phase.SENDING:
            self._enter(_Phase.UNSENT, None)

    def on_asked(self) -> None:
        """A question is on its way to the session; without an answer it is lost."""
        self._enter(_Phase.ASKED, None)

    def on_answered(self, now: float) -> None:
        """The session gave the sign of life that it was asked for."""
        if self._phase is _Phase.ASKED:
            self.trusted = True
            patience = self.timeout if self._patience is None else self._patience  # the proof is still due
            self._enter(_Phase.SILENT, now + patience)

    def _enter(self, phase: _Phase, until: float | None) -> None:
        self._phase = phase
        self.until = until
