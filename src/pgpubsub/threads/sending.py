"""A thread, or a task in another loop, that sends and waits for the outcome, among all the others that do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pgpubsub.core import sender
from pgpubsub.core.frames import Message
from pgpubsub.errors import Closed, PubSubError
from pgpubsub.hubs.engine import Engine
from pgpubsub.threads import loop_thread

__all__ = ["AwaitedSending", "Sending", "Told"]

T = TypeVar("T")


class Told(loop_thread.Call[T]):
    """A call of `core.grouping`'s for which a thread waits: it is told the outcome."""

    def __init__(self) -> None:
        super().__init__()
        self._outcome: PubSubError | None = Closed("the hub was closed")

    def tell(self, error: PubSubError | None) -> None:
        """See `core.grouping.Call`."""
        self._outcome = error
        self.end()

    def result(self) -> T:
        if self._outcome is not None:
            raise self._outcome
        return self.success()

    def success(self) -> T:
        """The outcome, if it is not an error."""
        raise NotImplementedError


class Sending(Told[None], sender.Call):
    """Notifications for the hub's loop to send in one transaction. No task is made for it there: with 64 threads, that
    took as long as the sending."""

    def __init__(self, engine: Engine, messages: Sequence[Message]) -> None:
        sender.Call.__init__(self, messages)
        Told.__init__(self)
        self._engine = engine

    def start(self) -> None:
        self._engine.submit(self)

    def cancel(self) -> None:
        self._engine.withdraw(self)

    def success(self) -> None:
        pass


class AwaitedSending(Sending, loop_thread.AwaitedCall[None]):
    """The same for a task of another loop."""
