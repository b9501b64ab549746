"""Where a member puts what is to be handled, for whoever has the consumer to take it out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakMethod

from pgpubsub.errors import SubscriptionClosed
from pgpubsub.events import Notify
from pgpubsub.groups.claims import Claim
from pgpubsub.groups.hints import GROUP
from pgpubsub.streams.description import Payloads
from pgpubsub.streams.inbox import Hinted

__all__ = ["ClaimInbox", "Makes", "Ready"]


class Ready:
    """Claims that are written down as handed out. It has what `Buffer` has, for mailboxes."""

    __slots__ = ("_on_low", "_put", "_queue", "hungry")

    dropped = gaps = bytes = 0
    overflowed = False

    def __init__(self, on_low: Callable[[], None]) -> None:
        self.hungry = False
        """Whether somebody found nothing in here."""
        self._on_low = on_low
        self._put = 0
        self._queue: deque[Claim[Any]] = deque()

    def take(self) -> Claim[Any] | None:
        """The oldest of what is there, or None. As in `Pages`, a signal handler that raises loses nothing."""
        queue = self._queue
        if not queue:
            self.hungry = True
            self._on_low()
            return None
        taken = queue[0]
        del queue[0]
        return taken

    def restore(self, claim: Claim[Any]) -> None:
        """Put back what was taken, and could not be handed over."""
        claim.handed += 1
        self._queue.appendleft(claim)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def delivered(self) -> int:
        """Claims taken out."""
        return self._put - len(self._queue)

    def put(self, claims: Sequence[Claim[Any]], size: int) -> None:
        """Put in some."""
        self.hungry = False
        self._put += len(claims)
        self._queue.extend(claims)

    def withdraw(self) -> list[Claim[Any]]:
        """Take the claims out again: nobody is to handle them."""
        claims = list(self._queue)
        self._queue.clear()
        self._put -= len(claims)
        return claims

    def forget(self, channel: str) -> None:
        """It has no channels."""

    def clear(self) -> None:
        """Drop everything: there is no consumer any more."""
        self.withdraw()


class Makes:
    """Makes of a claim what a consumer gets, when it is taken out: the mailbox's decoder."""

    def __init__(self, payloads: Payloads[Any], make: Callable[[Claim[Any], Sequence[Any]], Any]) -> None:
        self._payloads = payloads
        self._make = WeakMethod(make)  # of the consumer: nobody is to hold that, so that it can be forgotten

    def __len__(self) -> int:
        return 1

    def of(self, event: Any) -> Makes | None:
        """This."""
        return self if isinstance(event, Claim) else None

    def decode(self, claim: Claim[Any]) -> Any:
        """What the consumer gets."""
        make = self._make()
        assert make is not None  # who takes something out has it
        claim.handed += 1
        return make(claim, [self._payloads.decoded(entry) for entry in claim.entries])

    def decoded(self, event: Any) -> Any:
        """`event` as it is handed over."""
        return event if self.of(event) is None else self.decode(event)


class ClaimInbox(Hinted):
    """A consumer's mailbox. To be mixed with one that somebody waits for."""

    not_open = SubscriptionClosed(
        "the consumer is not open: iterate it, or use it in a with statement, `with stream.consume(...) as consumer`"
    )

    _waiting: deque[Any]
    on_channels: Callable[[Sequence[str]], object]

    on_fork: Callable[[], object]

    def __init__(self, types: Makes) -> None:
        self.on_channels = lambda channels: None
        self.on_fork = lambda: None
        super().__init__(Ready(lambda: self.on_low()), types)  # type: ignore[arg-type]  # which has what is needed

    def put(self, events: Sequence[Notify], size: int) -> None:
        own_pid = self.own_pid()  # whose appends are known, but not which members came and went
        self.on_channels([event.channel for event in events if event.pid != own_pid or event.channel.startswith(GROUP)])

    def disown(self, error: Exception) -> None:
        super().disown(error)
        self.on_fork()

    def finish(self) -> None:
        """There will be nothing more, but what was taken is still being handled."""
        if self.closed is None:
            self.closed = SubscriptionClosed("the consumer has come to its end")
            self.wake(None)

    def withdraw(self) -> list[Claim[Any]]:
        """What is in here, and is not to be handled by this consumer."""
        claims: list[Claim[Any]] = self.buffer.withdraw()
        return claims

    @property
    def wanted(self) -> int:
        """For how many claims somebody waits."""
        return max(int(self.buffer.hungry), len(self._waiting)) - len(self.buffer)
