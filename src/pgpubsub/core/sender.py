"""Which notifications go out together, and what each caller is told.

While something is in flight, whatever is submitted waits, and goes out together in the next batch: no timer, no delay
when nothing is in flight, and a statement for hundreds when many send at once. A shell loops: it asks `next_batch`,
sends that in one statement, and reports `on_sent`, `on_refused` or `on_lost`, oldest first.

It promises:

- Calls go out in the order in which they were submitted, urgent ones first. (Those that share a batch with one that is
  refused are sent again, behind what was in flight with them.)
- Every call is told once, unless it is withdrawn: that it was sent; that it was refused, it and no other; that it was
  not sent in time, and will not be; or that the connection broke while it was in flight. Nothing is sent twice.
- A call that is withdrawn before it is in flight is not sent.
- As many notifications are delivered as were submitted. The server merges equal ones of a transaction, so equal calls
  go out in different batches, several of which may share a round trip; within one call the repetitions become frames.

A refusal does not say which notification was at fault, and the whole statement was undone. If it was one of them (text
that the server's encoding has no letters for), the batch is divided in two and sent again, until that one is alone. Any
other refusal concerns all of the batch: a full queue, a standby, a time-out of the server's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pgpubsub.core.frames import Message, NewId, pack
from pgpubsub.errors import PubSubError, SendTimeout, SendUncertain, ServerRefused, again

__all__ = ["Batch", "Call", "Sender"]

MESSAGES = 1000
"""Notifications in a batch, at most, unless one call has more. They take a server a millisecond or two."""

CHARACTERS = 1 << 20
"""Characters of payload in a batch, at most, unless one call has more. So nobody waits long for somebody else's."""


DATA_EXCEPTION = "22"
"""The class of the server's errors that are about values (PostgreSQL manual, "PostgreSQL Error Codes")."""


class Call:
    """Notifications to be sent in one transaction, for somebody who waits for the outcome.

    Args:
        messages: one or more, in order.
        urgent: they go before all others, and alone.
    """

    __slots__ = ("begun", "expires_at", "messages", "told", "urgent")

    def __init__(self, messages: Sequence[Message], *, urgent: bool = False) -> None:
        self.messages = messages
        self.urgent = urgent
        self.told = False
        """Whether somebody was told of the outcome, or nobody waits for it any more."""
        self.begun = False
        """Whether it is or was in flight."""
        self.expires_at = 0.0
        """When it is not worth sending any more; 0 before it is submitted."""

    @property
    def called_off(self) -> bool:
        """Whether it is not to be sent any more. A shell may know that before it comes to `withdraw`."""
        return self.told

    def tell(self, error: PubSubError | None) -> None:
        """What became of it: None when it was sent. Called once at most."""
        raise NotImplementedError

    def __str__(self) -> str:
        return _name(self.messages)


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes out in one statement."""

    calls: tuple[Call, ...]
    messages: list[Message]
    is_part: bool = False
    """Whether it is what was left of one that was refused."""

    def __str__(self) -> str:
        return _name(self.messages)


def _name(messages: Sequence[Message]) -> str:
    count = len(messages)
    return f"NOTIFY {messages[0][0]!r}" + (f" and {count - 1} more" if count > 1 else "")


def _concerns_one(error: PubSubError) -> bool:
    """Whether `error` is about one notification of a batch: its text, and not the server's state."""
    if not isinstance(error, ServerRefused):
        return True
    return error.sqlstate is None or error.sqlstate.startswith(DATA_EXCEPTION)


class Sender:
    """See the module. Times are in seconds, of any clock that only moves forwards.

    Args:
        timeout: seconds for which a call may wait to be sent.
        new_id: for the names of long messages.
        on_told: called with each call, and what it is told, apart from urgent ones.
    """

    def __init__(
        self, timeout: float, new_id: NewId, on_told: Callable[[Call, PubSubError | None], None] | None = None
    ) -> None:
        self.sent = 0
        """Notifications sent, urgent ones apart."""
        self._timeout = timeout
        self._new_id = new_id
        self._flying: deque[Batch] = deque()
        self._equal = False  # the last batch ended where it did since what follows equals some of it
        self._on_told = on_told
        self._failure: PubSubError | None = None
        self._owed = 0  # calls for which somebody waits
        self._urgent: deque[Call] = deque()
        self._doubtful: deque[tuple[Call, ...]] = deque()  # parts of batches that were refused
        self._queue: deque[Call] = deque()

    def submit(self, call: Call, now: float) -> None:
        """`call` is to be sent."""
        call.expires_at = now + self._timeout
        if call.urgent:
            self._urgent.append(call)
        else:
            self._queue.append(call)
            self._owed += 1

    def withdraw(self, call: Call) -> None:
        """Nobody waits for `call` any more. Unless it is in flight it will not be sent."""
        self._settle(call)
        if not call.begun:
            call.messages = ()  # which may be long, and the call may stay in the queue for a while

    @property
    def in_flight(self) -> Batch | None:
        """The oldest of what was begun and not reported on."""
        return self._flying[0] if self._flying else None

    def next_batch(self, room: int | None = None, *, behind: bool = False) -> Batch | None:
        """What is to be sent now, if anything; it is in flight then.

        Args:
            room: as for `core.frames.pack`.
            behind: what goes out in the same round trip as the last one, in a transaction of its own: that is what
                would have been part of it, had it not been for equal messages.
        """
        if self._flying and not (behind and self._equal):
            return None
        self._equal = False
        calls, is_part = (tuple(self._together()), False) if behind else self._next_calls()
        if not calls:
            return None
        for call in calls:
            call.begun = True
        alone = len(calls) == 1
        messages = calls[0].messages if alone else [message for call in calls for message in call.messages]
        batch = Batch(calls, pack(messages, self._new_id, room), is_part)
        self._flying.append(batch)
        return batch

    @property
    def idle(self) -> bool:
        """Whether nobody waits for anything, urgent calls apart."""
        return not self._owed

    @property
    def next_expiry(self) -> float | None:
        """When to call `expire` next, if something is waiting."""
        heads = [queue[0] for queue in (self._urgent, self._queue) if queue]
        heads += [part[0] for part in self._doubtful]
        return min([call.expires_at for call in heads], default=None)

    # -- facts

    def on_sent(self) -> None:
        """The oldest of what is in flight is committed."""
        for call in self._land().calls:
            if not call.urgent:
                self.sent += len(call.messages)
            self._tell(call, None)

    def on_refused(self, error: PubSubError) -> None:
        """The server, or the driver, would not have the oldest of what is in flight."""
        batch = self._land()
        calls = batch.calls
        if len(calls) == 1:
            self._tell(calls[0], error)
        elif not _concerns_one(error):
            self._tell_all(calls, error)
        elif self._failure is not None:  # meanwhile
            self._tell_all(calls, self._failure)
        else:
            middle = len(calls) // 2
            if batch.is_part:
                self._doubtful.extendleft((calls[middle:], calls[:middle]))
            else:  # there may be those of another already, that went out before it
                self._doubtful.extend((calls[:middle], calls[middle:]))

    def on_lost(self, error: PubSubError) -> None:
        """The connection broke before there was an answer to the oldest of what is in flight."""
        for call in self._land().calls:
            if not call.told:
                uncertain = SendUncertain(f"{call} may or may not have been sent, and is not repeated: {error}")
                uncertain.__cause__ = error.__cause__
                self._tell(call, uncertain)

    def expire(self, now: float, why: object, cause: PubSubError | None = None) -> None:
        """Tell those that have waited for too long, because of `why`."""
        late = [call for part in self._doubtful for call in part if call.expires_at <= now]
        for queue in (self._urgent, self._queue):
            while queue and (queue[0].told or queue[0].expires_at <= now):
                late.append(queue.popleft())
        for call in late:
            if not call.told:
                error = SendTimeout(f"{call} could not be sent within {self._timeout:g} s, and will not be: {why}")
                error.__cause__ = cause
                self._tell(call, error)
        parts = [tuple([call for call in part if not call.told]) for part in self._doubtful]
        self._doubtful = deque([part for part in parts if part])

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all that wait."""
        self._failure = error
        waiting = self._waiting
        for queue in (self._urgent, self._doubtful, self._queue):
            queue.clear()
        self._tell_all(waiting, error)

    # -- inside

    @property
    def _waiting(self) -> list[Call]:
        return [*self._urgent, *[call for part in self._doubtful for call in part], *self._queue]

    def _next_calls(self) -> tuple[tuple[Call, ...], bool]:
        """Those that go out together next, and whether they are a part of a batch that was refused."""
        while self._urgent:
            if calls := self._still_wanted((self._urgent.popleft(),)):
                return calls, False
        while self._doubtful:
            if calls := self._still_wanted(self._doubtful.popleft()):
                return calls, True
        return tuple(self._together()), False

    def _still_wanted(self, calls: tuple[Call, ...]) -> tuple[Call, ...]:
        for call in calls:
            if call.called_off:
                self._settle(call)
        return tuple([call for call in calls if not call.told])

    def _together(self) -> list[Call]:
        """As many from the head of the queue as can go in one statement."""
        queue = self._queue
        calls: list[Call] = []
        seen: set[Message] = set()
        count = characters = 0
        while queue and count < MESSAGES and characters <= CHARACTERS:
            call = queue[0]
            if call.called_off:
                self._settle(call)
            else:
                messages = call.messages
                count += len(messages)
                if len(messages) == 1:  # as most have
                    characters += len(messages[0][1])
                else:
                    characters += sum([len(text) for _, text in messages])
                if calls and (count > MESSAGES or characters > CHARACTERS):
                    break
                if not seen.isdisjoint(messages):
                    self._equal = True
                    break
                calls.append(call)
                if len(queue) > 1:
                    seen.update(messages)
            queue.popleft()
        return calls

    def _land(self) -> Batch:
        assert self._flying, "nothing is in flight"
        return self._flying.popleft()

    def _tell_all(self, calls: Iterable[Call], error: PubSubError) -> None:
        for call in calls:
            self._tell(call, again(error))

    def _settle(self, call: Call) -> None:
        if not call.told:
            call.told = True
            if not call.urgent and call.expires_at:
                self._owed -= 1

    def _tell(self, call: Call, error: PubSubError | None) -> None:
        if not call.told:
            self._settle(call)
            if self._on_told is not None and not call.urgent:
                self._on_told(call, error)
            call.tell(error)
