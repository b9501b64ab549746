"""psycopg 3 below an event loop: the connections of the hub, and what it says over them.

psycopg opens the connection (`psycopg3_dial`). From then on its socket stays registered with the loop, and libpq is
driven directly: see `psycopg3_wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any

from psycopg import pq

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.core.registry import Changes
from pgpubsub.drivers.arrays import Column, Question
from pgpubsub.drivers.interface import LOST, Answer, encoding_error, parameters, statement_name
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.drivers.psycopg3_wire import ENDS, Statement, Wire
from pgpubsub.errors import ConnectionLost, PubSubError, ServerRefused
from pgpubsub.events import Notify

__all__ = ["PREPARE", "Psycopg3LoopConnection"]

NOTIFY = sql.notify("$1", "$2")
NOTIFY_ALL = sql.notify_all("$1", "$2", "$3")

PREPARE = f"PREPARE pgpubsub_one (text, text) AS {NOTIFY}; PREPARE pgpubsub_all (text, text, text) AS {NOTIFY_ALL}"
"""Parsing and planning take a third of the time that a short notification takes. Behind a pooler the next statement may
go to another server process, which has not been told."""

VOLLEY = 64
"""Transactions in one round trip, at most. Not through a pooler, which may give each to another server process."""

INVALID_SQL_STATEMENT_NAME = "26000"
"""What a server process answers that has not (PostgreSQL manual, "PostgreSQL Error Codes")."""

ONE, ALL = NOTIFY.encode(), NOTIFY_ALL.encode()

Outcome = pq.abc.PGresult | PubSubError
OnResult = Callable[[Outcome], None]


def _query(messages: Sequence[Message]) -> bytes:
    return ONE if len(messages) == 1 else ALL


def _encoded(parameters: Sequence[Column | str | None], encoding: str) -> tuple[list[bytes | None], list[pq.Format]]:
    """As libpq takes them."""
    values = [None if one is None else one.encode(encoding) for one in parameters]
    return values, [pq.Format.BINARY if isinstance(one, Column) else pq.Format.TEXT for one in parameters]


def _numbers(result: pq.abc.PGresult) -> Answer:
    values = [result.get_value(row, 0) for row in range(result.ntuples)]
    return [None if value is None else int.from_bytes(value, signed=True) for value in values]


class Psycopg3LoopConnection:
    """See `interface.LoopConnection`."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], server_pid: int, *, prepared: bool) -> None:
        self.server_pid = server_pid
        self.pooled = conn.info.backend_pid != server_pid
        self.volley = VOLLEY if prepared and psycopg.capabilities.has_pipeline() else 1
        self.room = sql.room(conn.info.parameter_status("server_encoding"))
        self._wire = Wire(conn)
        self._pgconn = conn.pgconn
        self._encoding = conn.info.encoding
        self._prepared = prepared
        self._names: dict[str, bytes] = {}  # of the statements that were prepared here
        self._numbers = count(1)

    def watch(self, on_events: Callable[[list[Notify]], None], on_lost: Callable[[ConnectionLost], None]) -> None:
        self._wire.watch(on_events, on_lost)

    def read(self) -> None:
        self._wire.read()

    async def apply(self, changes: Changes, timeout: float, on_committed: Callable[[], None]) -> None:
        statements = [*map(sql.unlisten, changes.unlisten), *map(sql.listen, changes.listen)]
        what = statements[0] if len(statements) == 1 else f"{statements[0]} and {len(statements) - 1} more"
        first = sql.refuse_truncation(changes.listen) if self.room < sql.PAYLOAD_LIMIT else []
        await self._execute(what, sql.script(first + statements), timeout, len(first + statements), on_committed)

    async def ask(self, timeout: float) -> None:
        await self._execute("a sign of life", "SELECT 1", timeout)

    def send(self, batches: Sequence[Sequence[Message]], on_done: Callable[[PubSubError | None], None]) -> None:
        if len(batches) == 1:
            self._send_one(batches[0], on_done)
        else:
            self._send_volley(batches, on_done)

    def _send_one(self, messages: Sequence[Message], on_done: Callable[[PubSubError | None], None]) -> None:
        try:
            encoded = self._encoded(messages)
        except UnicodeEncodeError as error:
            self._wire.loop.call_soon(on_done, encoding_error(statement_name(messages), error, sending=True))
            return
        one = len(messages) == 1
        if self._prepared:
            begin = partial(self._pgconn.send_query_prepared, b"pgpubsub_one" if one else b"pgpubsub_all", encoded)
        else:
            begin = partial(self._pgconn.send_query_params, _query(messages), encoded)
        self._wire.begin(begin, Statement(messages, partial(self._on_sent, messages, on_done)))

    def _on_sent(
        self, messages: Sequence[Message], on_done: Callable[[PubSubError | None], None], error: PubSubError | None
    ) -> None:
        if self._prepared and isinstance(error, ServerRefused) and error.sqlstate == INVALID_SQL_STATEMENT_NAME:
            self._prepared = False  # there is a pooler, though it looked like none
            self.volley = 1
            self._send_one(messages, on_done)
        else:
            on_done(error)

    def _send_volley(self, batches: Sequence[Sequence[Message]], on_done: Callable[[PubSubError | None], None]) -> None:
        """In libpq's pipeline mode (its manual, "Pipeline Mode"): each batch is followed by a Sync, which ends its
        transaction, and is refused by itself."""
        statements = []
        queries = []
        for messages in batches:
            statements.append(Statement(messages, on_done, pipelined=True))
            try:
                queries.append((_query(messages), self._encoded(messages)))
            except UnicodeEncodeError as error:
                statements[-1].refusal = encoding_error(statements[-1].what, error, sending=True)
                statements[-1].unsent = True

        def begin() -> None:
            self._pgconn.enter_pipeline_mode()
            for query, encoded in queries:
                self._pgconn.send_query_params(query, encoded)
                self._pgconn.pipeline_sync()

        self._wire.begin(begin, *statements)
        if not queries:
            self._wire.loop.call_soon(self.read)  # nothing will come

    def answer(self, questions: Sequence[Question], on_done: Callable[[Answer | PubSubError], None]) -> None:
        def on_result(outcome: Outcome) -> None:
            on_done(outcome if isinstance(outcome, PubSubError) else _numbers(outcome))

        self.query("the append", questions, on_result)

    def query(self, what: str, questions: Sequence[Question], on_done: OnResult) -> None:
        """`answer` with all that the last one returned, in binary form. Errors call it `what`."""
        prepared = self._prepared
        unknown = [question.text for question in questions if not prepared or question.text not in self._names]
        try:
            texts = {text: text.encode(self._encoding) for text in unknown}
            parameters = [_encoded(question.parameters, self._encoding) for question in questions]
        except UnicodeEncodeError as error:
            self._wire.loop.call_soon(on_done, encoding_error(what, error, sending=True))
            return
        if not psycopg.capabilities.has_pipeline() and len(questions) > 1:
            self._query_one_by_one(what, questions, on_done)
            return
        new = unknown if prepared else []
        alone = len(questions) == 1 and not new
        statement = Statement(
            what, lambda _: None, pipelined=not alone, most_ends=ENDS + 2 * (len(questions) + len(new))
        )
        statement.on_done = partial(self._on_answered, questions, on_done, statement, new)

        def begin() -> None:
            if not alone:
                self._pgconn.enter_pipeline_mode()
            for text in new:
                self._names[text] = f"pgpubsub_{next(self._numbers)}".encode()
                self._pgconn.send_prepare(self._names[text], texts[text])
            for question, (values, formats) in zip(questions, parameters, strict=True):
                if prepared:
                    name = self._names[question.text]
                    self._pgconn.send_query_prepared(name, values, formats, pq.Format.BINARY)
                else:
                    self._pgconn.send_query_params(texts[question.text], values, None, formats, pq.Format.BINARY)
            if not alone:
                self._pgconn.pipeline_sync()

        self._wire.begin(begin, statement)

    def _on_answered(
        self,
        questions: Sequence[Question],
        on_done: OnResult,
        statement: Statement,
        new: Sequence[str],
        error: PubSubError | None,
    ) -> None:
        if error is not None:
            for text in new:  # perhaps it was not prepared
                self._names.pop(text, None)
        if self._prepared and isinstance(error, ServerRefused) and error.sqlstate == INVALID_SQL_STATEMENT_NAME:
            self._prepared = False  # there is a pooler, though it looked like none
            self.query(statement.what, questions, on_done)
        elif error is not None:
            on_done(error)
        else:
            assert statement.result is not None
            on_done(statement.result)

    def _query_one_by_one(self, what: str, questions: Sequence[Question], on_done: OnResult) -> None:
        """With an old libpq: each in a transaction of its own, of which only the last matters to anybody."""

        def on_first_done(outcome: Outcome) -> None:
            if isinstance(outcome, PubSubError):
                on_done(outcome)
            else:
                self.query(what, questions[1:], on_done)

        self.query(what, questions[:1], on_first_done)

    def _encoded(self, messages: Sequence[Message]) -> list[bytes]:
        return [text.encode(self._encoding) for text in parameters(messages)]

    def close(self, why: PubSubError | None = None) -> None:
        self._wire.close(why)

    def disown(self) -> None:
        self._wire.disown()

    async def _execute(
        self,
        what: str,
        script: str,
        timeout: float,
        commands: int = 1,
        on_committed: Callable[[], None] = lambda: None,
    ) -> None:
        """Run a script of so many commands, which are one transaction.

        It is committed when the last command is complete (PostgreSQL's `exec_simple_query` commits before it says so).
        Notifications may come next, and in another piece than the end of the answer.
        """
        answer: asyncio.Future[None] = self._wire.loop.create_future()

        def on_done(error: PubSubError | None) -> None:
            if answer.done():
                return  # whoever asked is gone
            if error is None:
                answer.set_result(None)
            else:
                answer.set_exception(error)

        try:
            statement = script.encode(self._encoding)
        except UnicodeEncodeError as error:
            raise encoding_error(what, error, sending=False) from error
        asked = Statement(what, on_done, commands=commands)
        asked.on_committed = lambda: None if answer.done() else on_committed()  # unless whoever asked is gone
        self._wire.begin(partial(self._pgconn.send_query, statement), asked)
        try:
            await asyncio.wait({answer}, timeout=timeout)
            if not answer.done():
                self.read()  # we may be the ones who were late
            if not answer.done():
                raise ConnectionLost(f"{LOST}: no answer to {what} within {timeout:g} s")
            answer.result()
        finally:
            answer.cancel()
