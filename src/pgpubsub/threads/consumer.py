"""Consuming streams in groups, for threads."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pgpubsub.drivers.borrowed import run
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.groups.claims import Claim
from pgpubsub.groups.connections import Connections, check_open
from pgpubsub.groups.handlers import check_handler, check_result, is_asynchronous
from pgpubsub.groups.handling import (
    Delivered,
    DeliveredBatch,
    InHand,
    acknowledgement,
    explained,
    is_loss,
    log_loss,
    noted_in,
)
from pgpubsub.groups.inbox import ClaimInbox, Makes
from pgpubsub.groups.member import Member, Settings
from pgpubsub.groups.service import begin
from pgpubsub.groups.termination import finishing_on_sigterm
from pgpubsub.hubs.engine import Engine
from pgpubsub.streams.description import Description
from pgpubsub.streams.service import Streams
from pgpubsub.threads.receiving import Receiver, ThreadMailbox
from pgpubsub.threads.sending import Told

if TYPE_CHECKING:
    import psycopg

    from pgpubsub.threads.hub import Hub

__all__ = ["Batch", "Consumer", "Delivery"]

T = TypeVar("T")
Handed = TypeVar("Handed")


class _Inbox(ClaimInbox, ThreadMailbox):
    """What a thread is to handle."""

    def finish(self) -> None:
        with self.lock:
            super().finish()

    def withdraw(self) -> list[Claim[Any]]:
        with self.lock:
            return super().withdraw()


class _Settling(Told[None]):
    """A thread waits until it is written down what became of a claim."""

    def __init__(self, say: Callable[[_Settling], None]) -> None:
        super().__init__()
        self._say = say

    def start(self) -> None:
        self._say(self)

    def cancel(self) -> None:
        pass  # it was said

    def success(self) -> None:
        pass


class _InHand(InHand):
    """What a `with` statement says of what it has in hand."""

    _consumer: Consumer[Any]

    def __enter__(self) -> Self:
        """Handle it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Acknowledge it, or let it come again. An `Exception` goes no further: it is logged, and kept with the entry.
        That somebody else has got it meanwhile, or will, is logged too."""
        if error is not None:
            return self._failed(error)
        if not self._claim.settled:
            with log_loss(self._claim):
                self.acknowledge()
        return False

    def acknowledge(self, conn: Any = None) -> None:
        """Say that it was handled. That is stored when this returns; or, with `conn`, when the transaction of that is
        committed, and if it is rolled back it was not.

        Args:
            conn: a connection as for `pgpubsub.notify`.

        Raises:
            LeaseLost: somebody else has got it, or will.
            Exception: what the driver raises, for example since the lease has ended; then roll back.
        """
        if conn is None:
            self._consumer._acknowledge(self._claim)
            return
        statement = acknowledgement(self._consumer._description.schema, self._claim)
        said = noted_in(run(conn, statement, "use an AsyncHub's"))
        self._consumer._doubt(self._claim, *said)

    def fail(self, error: BaseException | str) -> None:
        """Say that it was not handled: it comes again, or is set aside.

        Raises:
            LeaseLost: somebody else has got it, or will.
        """
        self._consumer._fail(self._claim, error if isinstance(error, BaseException) else PubSubError(error))

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection with an open transaction: what is done there, and that this was handled, is committed together,
        once. If an exception leaves the block, it is rolled back, and this fails; an `Exception` goes no further. If
        somebody else has got it meanwhile, or will, it is rolled back too, and that is logged.

        Raises:
            ConnectionFailed: there was no connection to be had for 30 seconds.
        """
        if self._claim.settled or self._claim.in_transaction:
            self._claim.check()
        connections = self._consumer._connections
        conn, transaction = connections.begin()
        said: tuple[int, int] | None = None
        try:
            with ExitStack() as stack:
                stack.push(transaction)
                with self._claim.within_transaction():
                    yield conn
                check_open(conn)
                statement = acknowledgement(self._consumer._description.schema, self._claim, bounded=True)
                said = noted_in(run(conn, statement, ""))
            if said is None:
                raise PubSubError("the handler has rolled back")
        except BaseException as error:
            if said is None:
                handled = self._failed(error)
            else:  # the commit failed, or was not answered
                self._claim.error = explained(self._claim, error)
                handled = isinstance(error, Exception)
            if not handled:
                raise
        finally:
            if said is not None:
                self._consumer._doubt(self._claim, *said)
            connections.give_back(conn)

    def _failed(self, error: BaseException) -> bool:
        """`error` has left the block; whether it goes no further."""
        if self._claim.in_doubt:  # and if its transaction is rolled back, this is why
            self._claim.error = explained(self._claim, error)
            return isinstance(error, Exception)
        if self._claim.settled:
            return is_loss(self._claim, error)
        with log_loss(self._claim):
            self._consumer._fail(self._claim, error)
        return isinstance(error, Exception)


class Delivery(_InHand, Delivered[T]):
    """An entry to be handled: leaving `with delivery:` acknowledges it, or lets it come again."""


class Batch(_InHand, DeliveredBatch[T]):
    """Entries to be handled together: leaving `with batch:` acknowledges all, or lets all come again."""


class Consumer(Receiver[Handed]):
    """A member of a group: what `Stream.consume` returns.

    Iterate it, or enter it (`with`) and call `get`. A `Gap` does not come out of it: it is logged, and told to
    `on_gap`.
    """

    def __init__(
        self,
        hub: Hub,
        engine: Engine,
        streams: Streams,
        description: Description[Any],
        settings: Settings,
        *,
        batches: bool,
    ) -> None:
        self._hub = hub
        self._engine = engine
        self._streams = streams
        self._description = description
        self._settings = settings
        self._batches = batches
        self._member: Member | None = None
        self._connections = Connections(lambda: hub._running_thread().call(streams.handling_address))
        self._inbox = _Inbox(Makes(description.payloads, self._make))
        self._inbox.on_fork = self._connections.disown
        super().__init__(self._inbox)

    def __del__(self) -> None:
        if hasattr(self, "_inbox"):
            self._engine.forsake(self._inbox)

    def __repr__(self) -> str:
        state = "open" if self._inbox.closed is None and not self._closed else "closed"
        return f"<Consumer of {self._description.name!r} as {self._settings.group!r}, {state}>"

    def __enter__(self) -> Self:
        """Become a member of the group.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because of the role's rights.
        """
        if self._closed:
            raise SubscriptionClosed("the consumer was closed")
        self._thread = self._hub._running_thread()  # which takes what is said as long as it lives, also when it closes
        self._member = self._thread.call(
            begin, self._engine, self._streams, self._description, self._settings, self._inbox
        )
        return self

    def close(self) -> None:
        """Leave the group. What is in hand, and not settled, comes again at once. May be repeated. Does not wait, and
        ends the waiting of other threads."""
        self._closed = True
        self._hub._post(self._engine.leave, self._inbox, SubscriptionClosed("the consumer was closed"))
        self._connections.close()

    def __iter__(self) -> Iterator[Handed]:  # type: ignore[override]  # or a generator that enters it
        return self if self._member is not None else self._all()

    def _all(self) -> Iterator[Handed]:
        with self:
            yield from self

    def __next__(self) -> Handed:
        """The next delivery. The iteration ends when the consumer, or its hub, is closed, or it has come to the end.

        Raises:
            GaveUp, PubSubError: what stands in the way.
        """
        delivery: Any = super().__next__()
        taken: Handed = delivery
        return taken

    def get(self, timeout: float | None = None) -> Handed:
        """Wait for the next delivery, at most `timeout` seconds (None: for ever).

        Raises:
            TimeoutError: there was none.
            SubscriptionClosed: the consumer, or its hub, is closed, or it was not entered.
        """
        delivery: Any = super().get(timeout)
        taken: Handed = delivery
        return taken

    def get_nowait(self) -> Handed | None:
        """The next delivery, or None when there is none yet. Raises as `get`."""
        delivery: Any = super().get_nowait()
        taken: Handed | None = delivery
        return taken

    def _make(self, claim: Claim[Any], entries: Sequence[Any]) -> Any:
        if self._batches:
            return Batch(self, claim, list(entries))
        return Delivery(self, claim, entries[0])

    # -- for what is in hand

    def _joined(self) -> Member:
        assert self._member is not None
        return self._member

    def _acknowledge(self, claim: Claim[Any]) -> None:
        member = self._joined()
        self._thread.run(_Settling(lambda settling: member.deliveries.acknowledge(claim, settling)))

    def _fail(self, claim: Claim[Any], error: BaseException) -> None:
        member, words = self._joined(), explained(claim, error)
        self._thread.run(_Settling(lambda settling: member.deliveries.fail(claim, words, settling)))

    def _doubt(self, claim: Claim[Any], noted: int, xid: int) -> None:
        claim.settled = claim.in_doubt = True
        self._hub._post(self._joined().deliveries.doubt, claim, xid, noted)

    def _abandon(self, claim: Claim[Any]) -> None:
        self._hub._post(self._joined().deliveries.abandon, claim)

    def _process(self, handler: Callable[[Any], Any], concurrency: int) -> None:
        """Have `handler` called for each entry, until the end or a SIGTERM."""
        check_handler(handler)
        if is_asynchronous(handler):
            raise TypeError(f"{handler!r} is a coroutine function, which has to be awaited: use an AsyncHub")
        with self:
            member = self._joined()
            work = _Work(lambda: self._work(handler), concurrency)
            finish = partial(self._hub._post, member.finish)
            with finishing_on_sigterm(finish), self._streams.to_finish(member):
                work.run(finish)

    def _work(self, handler: Callable[[Any], Any]) -> None:
        tracing = self._engine.tracing
        for delivery in self:
            in_hand: Any = delivery
            with in_hand, nullcontext() if tracing is None else tracing.handling(in_hand):
                result = handler(in_hand.entries if self._batches else in_hand.entry)
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError("the handler has returned a coroutine, which has to be awaited: use an AsyncHub")
                check_result(result)


class _Work:
    """The same in several threads, the caller's among them; what any of them raises is raised at last."""

    def __init__(self, work: Callable[[], None], threads: int) -> None:
        self._work = work
        self._errors: list[BaseException] = []
        self._others = [
            threading.Thread(target=self._one, name=f"pgpubsub handler {number}") for number in range(1, threads)
        ]

    def run(self, finish: Callable[[], object]) -> None:
        """Do it. When one of them is interrupted, all finish."""
        self._finish = finish
        for thread in self._others:
            thread.start()
        try:
            self._work()
        finally:
            finish()
            for thread in self._others:
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _one(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._errors.append(error)
            self._finish()
