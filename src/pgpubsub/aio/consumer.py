"""Consuming streams in groups, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pgpubsub.aio.calling import awaited
from pgpubsub.aio.receiving import AsyncMailbox, AsyncReceiver
from pgpubsub.drivers.borrowed import run_async
from pgpubsub.errors import PubSubError, SubscriptionClosed
from pgpubsub.groups.claims import Claim
from pgpubsub.groups.connections import AsyncConnections, check_open
from pgpubsub.groups.handlers import check_handler
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

if TYPE_CHECKING:
    import psycopg

__all__ = ["AsyncBatch", "AsyncConsumer", "AsyncDelivery"]

T = TypeVar("T")
Handed = TypeVar("Handed")


class _Inbox(ClaimInbox, AsyncMailbox):
    """What a task is to handle."""


class _Settling:
    """A task waits until it is written down what became of a claim."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def tell(self, error: PubSubError | None) -> None:
        if self.outcome.done():
            return
        if error is None:
            self.outcome.set_result(None)
        else:
            self.outcome.set_exception(error)
            self.outcome.exception()  # it is known, even if nobody waits any more


class _InHand(InHand):
    """What an `async with` statement says of what it has in hand."""

    _consumer: AsyncConsumer[Any]

    async def __aenter__(self) -> Self:
        """Handle it."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Acknowledge it, or let it come again. An `Exception` goes no further: it is logged, and kept with the entry.
        That somebody else has got it meanwhile, or will, is logged too."""
        if error is not None:
            return await self._failed(error)
        if not self._claim.settled:
            with log_loss(self._claim):
                await self.acknowledge()
        return False

    async def acknowledge(self, conn: Any = None) -> None:
        """Say that it was handled. That is stored when this returns; or, with `conn`, when the transaction of that is
        committed, and if it is rolled back it was not.

        Args:
            conn: a connection as for `notify_async`.

        Raises:
            LeaseLost: somebody else has got it, or will.
            Exception: what the driver raises, for example since the lease has ended; then roll back.
        """
        if conn is None:
            await self._consumer._acknowledge(self._claim)
            return
        statement = acknowledgement(self._consumer._description.schema, self._claim)
        said = noted_in(await run_async(conn, statement, "use the blocking hub's"))
        self._consumer._doubt(self._claim, *said)

    async def fail(self, error: BaseException | str) -> None:
        """Say that it was not handled: it comes again, or is set aside.

        Raises:
            LeaseLost: somebody else has got it, or will.
        """
        await self._consumer._fail(
            self._claim, error if isinstance(error, BaseException) else PubSubError(error)
        ).outcome

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A connection with an open transaction: what is done there, and that this was handled, is committed together,
        once. If an exception leaves the block, it is rolled back, and this fails; an `Exception` goes no further. If
        somebody else has got it meanwhile, or will, it is rolled back too, and that is logged.

        Raises:
            ConnectionFailed: there was no connection to be had for 30 seconds.
        """
        if self._claim.settled or self._claim.in_transaction:
            self._claim.check()
        connections = self._consumer._connections
        conn, transaction = await connections.begin()
        said: tuple[int, int] | None = None
        try:
            async with AsyncExitStack() as stack:
                stack.push_async_exit(transaction)
                with self._claim.within_transaction():
                    yield conn
                check_open(conn)
                statement = acknowledgement(self._consumer._description.schema, self._claim, bounded=True)
                said = noted_in(await run_async(conn, statement, ""))
            if said is None:
                raise PubSubError("the handler has rolled back")
        except BaseException as error:
            if said is None:
                handled = await self._failed(error)
            else:  # the commit failed, or was not answered
                self._claim.error = explained(self._claim, error)
                handled = _is_failure(error)
            if not handled:
                raise
        finally:
            if said is not None:
                self._consumer._doubt(self._claim, *said)
            await connections.give_back(conn)

    async def _failed(self, error: BaseException) -> bool:
        """`error` has left the block; whether it goes no further."""
        if self._claim.in_doubt:  # and if its transaction is rolled back, this is why
            self._claim.error = explained(self._claim, error)
            return _is_failure(error)
        if self._claim.settled:
            return is_loss(self._claim, error)
        settling = self._consumer._fail(self._claim, error)
        if not _is_failure(error):
            return False
        with log_loss(self._claim):
            await settling.outcome
        return True


def _is_failure(error: BaseException) -> bool:
    """Whether `error` is the handler's own: not if this task is being cancelled, but if one is for which it waited."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and not task.cancelling()
    return isinstance(error, Exception)


class AsyncDelivery(_InHand, Delivered[T]):
    """An entry to be handled: leaving `async with delivery:` acknowledges it, or lets it come again."""


class AsyncBatch(_InHand, DeliveredBatch[T]):
    """Entries to be handled together: leaving `async with batch:` acknowledges all, or lets all come again."""


class AsyncConsumer(AsyncReceiver[Handed]):
    """A member of a group: what `AsyncStream.consume` returns.

    Iterate it, or enter it (`async with`) and call `get`. A `Gap` does not come out of it: it is logged, and told to
    `on_gap`.
    """

    def __init__(
        self,
        engine: Engine,
        streams: Streams,
        description: Description[Any],
        settings: Settings,
        *,
        batches: bool,
    ) -> None:
        self._engine = engine
        self._streams = streams
        self._description = description
        self._settings = settings
        self._batches = batches
        self._member: Member | None = None
        self._connections = AsyncConnections(streams.handling_address)
        self._inbox = _Inbox(Makes(description.payloads, self._make))
        self._inbox.on_fork = self._connections.disown
        super().__init__(self._inbox)

    def __del__(self) -> None:
        if hasattr(self, "_inbox"):
            self._engine.forsake(self._inbox)

    def __repr__(self) -> str:
        state = "open" if self._inbox.closed is None else "closed"
        return f"<AsyncConsumer of {self._description.name!r} as {self._settings.group!r}, {state}>"

    async def __aenter__(self) -> Self:
        """Become a member of the group.

        Raises:
            NotLive: the server could not be reached within the hub's `send_timeout`.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because of the role's rights.
        """
        self._member = await begin(self._engine, self._streams, self._description, self._settings, self._inbox)
        return self

    def close(self) -> None:
        """Leave the group. What is in hand, and not settled, comes again at once. May be repeated. Does not wait."""
        self._mailbox.check_thread()
        self._engine.leave(self._inbox, SubscriptionClosed("the consumer was closed"))
        self._connections.close()

    def __aiter__(self) -> AsyncIterator[Handed]:  # type: ignore[override]  # or a generator that enters it
        return self if self._member is not None else self._all()

    async def _all(self) -> AsyncIterator[Handed]:
        async with self:
            async for delivery in self:
                yield delivery

    async def __anext__(self) -> Handed:
        """The next delivery. The iteration ends when the consumer, or its hub, is closed, or it has come to the end.

        Raises:
            GaveUp, PubSubError: what stands in the way.
        """
        delivery: Any = await super().__anext__()
        taken: Handed = delivery
        return taken

    async def get(self, timeout: float | None = None) -> Handed:
        """Wait for the next delivery, at most `timeout` seconds (None: for ever).

        Raises:
            TimeoutError: there was none.
            SubscriptionClosed: the consumer, or its hub, is closed, or it was not entered.
        """
        delivery: Any = await super().get(timeout)
        taken: Handed = delivery
        return taken

    def get_nowait(self) -> Handed | None:
        """The next delivery, or None when there is none yet. Raises as `get`."""
        delivery: Any = super().get_nowait()
        taken: Handed | None = delivery
        return taken

    def _make(self, claim: Claim[Any], entries: Sequence[Any]) -> Any:
        if self._batches:
            return AsyncBatch(self, claim, list(entries))
        return AsyncDelivery(self, claim, entries[0])

    # -- for what is in hand

    def _joined(self) -> Member:
        assert self._member is not None
        return self._member

    async def _acknowledge(self, claim: Claim[Any]) -> None:
        settling = _Settling()
        self._joined().deliveries.acknowledge(claim, settling)
        await settling.outcome

    def _fail(self, claim: Claim[Any], error: BaseException) -> _Settling:
        settling = _Settling()
        self._joined().deliveries.fail(claim, explained(claim, error), settling)
        return settling

    def _doubt(self, claim: Claim[Any], noted: int, xid: int) -> None:
        claim.settled = claim.in_doubt = True
        self._joined().deliveries.doubt(claim, xid, noted)

    def _abandon(self, claim: Claim[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and so is everything
            self._joined().loop.call_soon_threadsafe(self._joined().deliveries.abandon, claim)

    async def _process(self, handler: Callable[[Any], Any], concurrency: int) -> None:
        """Have `handler` called for each entry, until the end or a SIGTERM."""
        check_handler(handler)
        async with self:
            member = self._joined()
            loop = asyncio.get_running_loop()
            call = awaited(handler, concurrency)
            with (
                finishing_on_sigterm(partial(loop.call_soon_threadsafe, member.finish)),
                self._streams.to_finish(member),
            ):
                try:
                    async with asyncio.TaskGroup() as workers:
                        for _ in range(concurrency):
                            workers.create_task(self._work(call))
                except BaseExceptionGroup as group:
                    raise group.exceptions[0] from None

    async def _work(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        tracing = self._engine.tracing
        async for delivery in self:
            in_hand: Any = delivery
            async with in_hand:
                with nullcontext() if tracing is None else tracing.handling(in_hand):
                    await call(in_hand.entries if self._batches else in_hand.entry)
