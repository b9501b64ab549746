"""What all parts of the load share: who works in threads, at which rate, until when, and what was done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from threading import Event, Thread
from time import monotonic
from typing import Any

import psycopg

from pgpubsub import PubSubError, SendTimeout, SendUncertain
from tests.soak.accounts import Accounts, Source
from tests.soak.insight import Latencies

__all__ = ["LONG", "UNSURE", "Stage"]

UNSURE = (SendTimeout, SendUncertain)
"""What leaves it open whether something was sent."""

LONG = 9000
"""Characters of padding that make frames of a message."""


@dataclass
class Stage:
    """See the module.

    Args:
        dsn: of the database.
    """

    dsn: str
    accounts: Accounts = field(default_factory=Accounts)
    latencies: Latencies = field(default_factory=Latencies)
    done: Counter[str] = field(default_factory=Counter)
    """What each kind of load has done: how often."""
    quiet: Event = field(default_factory=Event)
    """Nobody is to send any more."""
    over: Event = field(default_factory=Event)
    """Nobody is to receive any more."""
    senders: list[Thread] = field(default_factory=list)
    receivers: list[Thread] = field(default_factory=list)

    def send(self, work: Callable[..., object], *args: Any) -> None:
        """Have a thread do it, until it is quiet."""
        self._begin(self.senders, work, *args)

    def receive(self, work: Callable[..., object], *args: Any) -> None:
        """Have a thread do it, until it is over."""
        self._begin(self.receivers, work, *args)

    def times(self, seconds: float) -> Iterator[None]:
        """Once in so many seconds, without falling behind for good, until it is quiet."""
        due = monotonic()
        while not self.quiet.wait(max(0.0, due - monotonic())):
            yield
            due = max(due + seconds, monotonic() - seconds)

    def attempt(self, source: Source, send: Callable[[], object], count: int = 1) -> None:
        """Send what `source` has just made, its last `count` messages."""
        try:
            send()
        except UNSURE:
            source.doubt(count)
            self.done["sent, perhaps"] += count
        else:
            source.committed()

    def connect(self) -> psycopg.Connection[Any]:
        """A connection of the load's own, which nobody terminates."""
        return psycopg.connect(self.dsn, autocommit=True, application_name="soak")

    def _begin(self, threads: list[Thread], work: Callable[..., object], *args: Any) -> None:
        thread = Thread(target=partial(self._run, work, *args), name=work.__name__, daemon=True)
        threads.append(thread)
        thread.start()

    def _run(self, work: Callable[..., object], *args: Any) -> None:
        try:
            work(*args)
        except PubSubError as error:
            if not self.over.is_set():
                self.accounts.complain(f"{work.__name__} has ended: {error!r}")
        except Exception as error:
            self.accounts.complain(f"{work.__name__} has ended: {error!r}")
