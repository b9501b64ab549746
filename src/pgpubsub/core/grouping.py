"""Which calls go out together, and what each caller is told: for notifications (`core.sender`) and for the entries of
streams (`core.appender`).

While something is in flight, whatever is submitted waits, and goes out together in the next batch: no timer, no delay
when nothing is in flight, and a statement for hundreds when many send at once. A shell loops: it asks `next_batch`,
sends that in one statement, and reports `on_sent`, `on_refused` or `on_lost`, oldest first.

It promises:

- Calls go out in the order in which they were submitted, urgent ones first. (Those that share a batch with one that is
  refused are sent again, behind what was in flight with them.)
- Every call is told once, unless it is withdrawn: that it was sent; that it was refused, it and no other; that it was
  not sent in time, and will not be; or that the connection broke while it was in flight. Nothing is sent twice, but
  what says of itself that this does no harm.
- A call that is withdrawn before it is in flight is not sent.

A refusal does not say which item was at fault, and the whole statement was undone. If it was one of them (text that the
server's encoding has no letters for), the batch is divided in two and sent again, until that one is alone. Any other
refusal concerns all of the batch: a full queue, a standby, a time-out of the server's. Which are which, `_concerns_one`
says.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from pgpubsub.errors import PubSubError, SendTimeout, SendUncertain, ServerRefused, again

__all__ = ["Batch", "Call", "Grouping"]

Item = TypeVar("Item")


class Call(Generic[Item]):
    """Items to be sent in one transaction, for somebody who waits for the outcome.

    Args:
        items: one or more, in order.
        urgent: they go before all others, and alone.
        repeatable: sending them twice does no harm, so they are sent again when it is not known what became of them.
    """

    counted = True
    """Whether it is one of the user's."""

    __slots__ = ("begun", "expires_at", "items", "repeatable", "returned", "told", "uncertain", "urgent")

    def __init__(self, items: Sequence[Item], *, urgent: bool = False, repeatable: bool = False) -> None:
        self.items = items
        self.urgent = urgent
        self.repeatable = repeatable
        self.uncertain: PubSubError | None = None
        """Why it may have been sent, although nobody said so."""
        self.returned: Sequence[int | None] = ()
        """What the server returned for the items, if it returns something."""
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

    @staticmethod
    def name(items: Sequence[Item]) -> str:
        """What to call these in an error."""
        raise NotImplementedError

    def __str__(self) -> str:
        return self.name(self.items)


@dataclass(frozen=True, slots=True)
class Batch(Generic[Item]):
    """What goes out in one statement."""

    calls: tuple[Call[Item], ...]
    is_part: bool = False
    """Whether it is what was left of one that was refused."""

    @property
    def items(self) -> Sequence[Item]:
        """Those of all calls, in order."""
        if len(self.calls) == 1:
            return self.calls[0].items
        return [item for call in self.calls for item in call.items]

    def __str__(self) -> str:
        return self.calls[0].name(self.items)


class Grouping(Generic[Item]):
    """See the module. Times are in seconds, of any clock that only moves forwards.

    Args:
        timeout: seconds for which a call may wait to be sent.
        on_told: called with each call, and what it is told, apart from urgent ones.
    """

    about_one: ClassVar[re.Pattern[str]]
    """The server's errors that are about one item: what their SQLSTATEs begin with (PostgreSQL manual, "PostgreSQL
    Error Codes")."""

    def __init__(self, timeout: float, on_told: Callable[[Call[Item], PubSubError | None], None] | None = None) -> None:
        self.sent = 0
        """Items sent, urgent ones apart."""
        self._timeout = timeout
        self._flying: deque[Batch[Item]] = deque()
        self._goes_on = False  # the last batch ended where it did although there was room, so another may go behind it
        self._on_told = on_told
        self._failure: PubSubError | None = None
        self._owed = 0  # calls for which somebody waits
        self._urgent: deque[Call[Item]] = deque()
        self._doubtful: deque[tuple[Call[Item], ...]] = deque()  # parts of batches that were refused
        self._queue: deque[Call[Item]] = deque()

    def submit(self, call: Call[Item], now: float) -> None:
        """`call` is to be sent."""
        call.expires_at = now + self._timeout
        if call.urgent:
            self._urgent.append(call)
        else:
            self._queue.append(call)
            self._owed += 1

    def withdraw(self, call: Call[Item]) -> None:
        """Nobody waits for `call` any more. Unless it is in flight it will not be sent."""
        self._settle(call)
        if not call.begun:
            call.items = ()  # which may be long, and the call may stay in the queue for a while

    @property
    def in_flight(self) -> Batch[Item] | None:
        """The oldest of what was begun and not reported on."""
        return self._flying[0] if self._flying else None

    def next_batch(self, *, behind: bool = False) -> Batch[Item] | None:
        """What is to be sent now, if anything; it is in flight then.

        Args:
            behind: what goes out in the same round trip as the last one, in a transaction of its own: that is what
                would have been part of it, had the two been compatible.
        """
        if self._flying and not (behind and self._goes_on):
            return None
        self._goes_on = False
        calls, is_part = (tuple(self._together()), False) if behind else self._next_calls()
        if not calls:
            return None
        for call in calls:
            call.begun = True
        batch = Batch(calls, is_part)
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
            if call.counted and not call.urgent:
                self.sent += len(call.items)
            self._tell(call, None)

    def on_refused(self, error: PubSubError) -> None:
        """The server, or the driver, would not have the oldest of what is in flight."""
        batch = self._land()
        calls = batch.calls
        if len(calls) == 1 and (calls[0].uncertain is None or self._concerns_one(error)):
            self._tell(calls[0], error)
        elif not self._concerns_one(error):
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
        calls = tuple([call for call in self._land().calls if not call.told])
        for call in calls:
            call.uncertain = error
        if calls and self._failure is None and all(call.repeatable for call in calls):
            self._doubtful.append(calls)
        else:
            for call in calls:
                self._tell(call, self._uncertainty(call))

    def expire(self, now: float, why: object, cause: PubSubError | None = None) -> None:
        """Tell those that have waited for too long, because of `why`."""
        late = [call for part in self._doubtful for call in part if call.expires_at <= now]
        for queue in (self._urgent, self._queue):
            while queue and (queue[0].told or queue[0].expires_at <= now):
                late.append(queue.popleft())
        for call in late:
            if not call.told:
                error: PubSubError
                if call.uncertain is None:
                    error = SendTimeout(f"{call} could not be sent within {self._timeout:g} s, and will not be: {why}")
                    error.__cause__ = cause
                else:
                    error = self._uncertainty(call)
                self._tell(call, error)
        parts = [tuple([call for call in part if not call.told]) for part in self._doubtful]
        self._doubtful = deque([part for part in parts if part])

    @staticmethod
    def _uncertainty(call: Call[Item]) -> SendUncertain:
        cause = call.uncertain
        assert cause is not None
        outcome = "and will not be repeated any more" if call.repeatable else "and is not repeated"
        error = SendUncertain(f"{call} may or may not have been sent, {outcome}: {cause}")
        error.__cause__ = cause.__cause__
        return error

    def fail(self, error: PubSubError) -> None:
        """Nothing more will be sent: tell all that wait."""
        self._failure = error
        waiting = self._waiting
        for queue in (self._urgent, self._doubtful, self._queue):
            queue.clear()
        self._tell_all(waiting, error)

    # -- inside

    @property
    def _waiting(self) -> list[Call[Item]]:
        return [*self._urgent, *[call for part in self._doubtful for call in part], *self._queue]

    def _next_calls(self) -> tuple[tuple[Call[Item], ...], bool]:
        """Those that go out together next, and whether they are a part of a batch that was refused."""
        while self._urgent:
            if calls := self._still_wanted((self._urgent.popleft(),)):
                return calls, False
        while self._doubtful:
            if calls := self._still_wanted(self._doubtful.popleft()):
                return calls, True
        return tuple(self._together()), False

    def _still_wanted(self, calls: tuple[Call[Item], ...]) -> tuple[Call[Item], ...]:
        for call in calls:
            if call.called_off:
                self._settle(call)
        return tuple([call for call in calls if not call.told])

    def _concerns_one(self, error: PubSubError) -> bool:
        """Whether `error` is about one item of a batch, and not the server's state."""
        if not isinstance(error, ServerRefused):
            return isinstance(error, ValueError)
        return error.sqlstate is None or self.about_one.match(error.sqlstate) is not None

    def _together(self) -> list[Call[Item]]:
        """As many from the head of the queue as can go in one statement."""
        raise NotImplementedError

    def _land(self) -> Batch[Item]:
        assert self._flying, "nothing is in flight"
        return self._flying.popleft()

    def _tell_all(self, calls: Iterable[Call[Item]], error: PubSubError) -> None:
        for call in calls:  # what was lost once may have been sent then, whatever is the matter now
            self._tell(call, again(error) if call.uncertain is None else self._uncertainty(call))

    def _settle(self, call: Call[Item]) -> None:
        if not call.told:
            call.told = True
            if not call.urgent and call.expires_at:
                self._owed -= 1

    def _tell(self, call: Call[Item], error: PubSubError | None) -> None:
        if not call.told:
            self._settle(call)
            if self._on_told is not None and call.counted and not call.urgent:
                self._on_told(call, error)
            call.tell(error)
