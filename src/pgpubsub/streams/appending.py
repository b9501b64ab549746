"""Appends entries over a connection of their own, as `core.appender` decides, and tells readers of it afterwards.

The hint that wakes readers goes out when the entries are committed, over the connection that sends, so that an append
never waits for PostgreSQL's lock on NOTIFY. If it is lost, readers find the entries when they look next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from pgpubsub.core import appender, sender
from pgpubsub.core.entries import NewEntry, hint_channel
from pgpubsub.core.grouping import Call
from pgpubsub.core.session import Session
from pgpubsub.drivers.arrays import Column, Question
from pgpubsub.drivers.interface import Answer, LoopConnection
from pgpubsub.errors import PubSubError, ServerRefused
from pgpubsub.hubs.engine import Engine
from pgpubsub.hubs.link import Dial, Link
from pgpubsub.hubs.outbox import Awaited, Outbox
from pgpubsub.randomness import new_delays
from pgpubsub.status import Happening
from pgpubsub.streams.installation import check_version, missing_schema, not_installed
from pgpubsub.streams.statements import Statements

__all__ = ["Appending", "AwaitedAppend"]

ISOLATION = "SELECT pg_catalog.set_config('default_transaction_isolation', 'read committed', false)"
"""At a higher level, which may be the role's default, an append could fail because of one that it has nothing to do
with, and all that went out together with it."""

ASIDE = 0.05
"""Seconds for which an entry waits that another transaction is about to store."""


class AwaitedAppend(Awaited[NewEntry], appender.Call):
    """An append for which a task waits."""

    __slots__ = ()


class Appending(Outbox[NewEntry]):
    """See the module.

    Args:
        engine: whose hub it is.
        dial: opens the connection.
        statements: of the schema where the entries are stored.
        on_appended: called with each stream that has something new.
    """

    def __init__(self, engine: Engine, dial: Dial, statements: Statements, on_appended: Callable[[int], None]) -> None:
        self._engine = engine
        self._statements = statements
        self._on_appended = on_appended
        self._registered: set[str] = set()
        self._checked: LoopConnection | None = None  # leads to a schema of a version to work with
        self._hints: dict[int, _Hint] = {}
        self._appender = appender.Appender(engine.send_timeout, self._on_told if engine.observed else None)
        # The hub's other links have judged that; this one may begin in the middle of a failover.
        link = Link(
            "appending", Session[None](True, new_delays), dial, refuses_standby=False, on_change=self._on_change
        )
        super().__init__(link, engine.send_timeout, self._appender)
        self._begun = False

    def submit(self, call: Call[NewEntry]) -> None:
        try:
            self._engine.start()
        except PubSubError as error:
            call.tell(error)
            return
        if not self._begun:
            self._begun = True
            self._engine.spawn(self._link.run())
        super().submit(call)

    def disown(self) -> None:
        """See `hubs.forking`."""
        if self._link.connection is not None:
            self._link.connection.disown()

    def _transmit(self, connection: LoopConnection) -> None:
        if (batch := self._core.next_batch()) is None:
            return
        self._owed_from = monotonic()
        if connection is self._checked:
            self._append(connection, batch.items)
        else:
            questions = [Question(self._statements.version, [])]
            if not connection.pooled:  # what is pooled belongs to others too
                questions.insert(0, Question(ISOLATION, []))
            connection.answer(questions, partial(self._on_version, connection, batch.items))

    def _on_version(
        self, connection: LoopConnection, entries: Sequence[NewEntry], outcome: Answer | PubSubError
    ) -> None:
        schema = self._statements.schema
        try:
            if isinstance(outcome, PubSubError):
                raise outcome
            if not outcome:
                raise not_installed(schema, PubSubError("the table of versions is empty"))
            number, serves_from = outcome
            assert number is not None
            assert serves_from is not None
            check_version(schema, number, serves_from, is_native=True)  # if it is not, whoever reads will be told
        except PubSubError as error:
            self._on_refused(error)
        else:
            self._checked = connection
            self._append(connection, entries)

    def _append(self, connection: LoopConnection, entries: Sequence[NewEntry]) -> None:
        new = sorted({entry.name for entry in entries} - self._registered)
        questions = [self._insertion(entries, new)]
        if new:
            questions.insert(0, Question(self._statements.register, [Column("text", new)]))
        connection.answer(questions, partial(self._on_answered, entries, new))

    def _insertion(self, entries: Sequence[NewEntry], new: Sequence[str]) -> Question:
        columns = [
            Column("bigint", [entry.stream for entry in entries]),
            Column("text", [entry.key for entry in entries]),
            Column("text", [entry.text for entry in entries]),
            Column("bytea", [entry.data for entry in entries]),
            Column("text", [entry.headers for entry in entries]),
        ]
        once = entries[0].idempotency_key is not None
        if once:
            columns.append(Column("text", [entry.idempotency_key for entry in entries]))
        if not new:
            return Question(self._statements.append_once if once else self._statements.append, columns)
        columns.append(Column("text", new))
        return Question(self._statements.append_once_to_new if once else self._statements.append_to_new, columns)

    def _on_answered(self, entries: Sequence[NewEntry], new: Sequence[str], outcome: Answer | PubSubError) -> None:
        if isinstance(outcome, PubSubError):
            self._on_refused(outcome)
            return
        # What another transaction was registering is not there yet, and never will be if that is rolled back.
        registered = outcome[len(entries) :]
        self._registered.update(name for name, id in zip(new, registered, strict=True) if id is not None)
        if busy := self._appender.on_stored(outcome[: len(entries)]):
            asyncio.get_running_loop().call_later(ASIDE, self._resume, busy)
        for stream in {entry.stream for entry in entries}:
            self._on_appended(stream)
            self._hint(stream)
        self.pump()

    def _on_refused(self, error: PubSubError) -> None:
        if isinstance(error, ServerRefused) and missing_schema(error.sqlstate):
            cause, error = error.__cause__, not_installed(self._statements.schema, error)
            error.__cause__ = cause
        self._on_failed(error)

    def _resume(self, calls: Sequence[Call[NewEntry]]) -> None:
        self._appender.resume(calls)
        self._appender.expire(monotonic(), "another transaction is about to store one with its idempotency key")
        self.pump()

    def _hint(self, stream: int) -> None:
        """Tell readers, unless the hint before is still waiting to be sent: that one will do."""
        hint = self._hints.get(stream)
        if hint is None or hint.begun or hint.told:
            hint = self._hints[stream] = _Hint(stream, self._on_hinted)
            self._engine.submit(hint)

    def _on_hinted(self, hint: _Hint) -> None:
        if self._hints.get(hint.stream) is hint:
            del self._hints[hint.stream]

    def _on_change(self, what: str, detail: str) -> None:
        self._engine.observe_link("appending", what, detail)
        self._registered.clear()  # that may be another server
        self.pump()

    def _on_told(self, call: Call[NewEntry], error: PubSubError | None) -> None:
        name: Happening = "append_failed" if error else "appended"
        self._engine.observe_call(name, {entry.name for entry in call.items}, call, error)


class _Hint(sender.Call):
    """A hint, for which nobody waits."""

    counted = False
    __slots__ = ("_on_told", "stream")

    def __init__(self, stream: int, on_told: Callable[[_Hint], None]) -> None:
        super().__init__([(hint_channel(stream), "")])
        self.stream = stream
        self._on_told = on_told

    def tell(self, error: PubSubError | None) -> None:
        self._on_told(self)
