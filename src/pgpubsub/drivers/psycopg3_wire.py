"""psycopg 3 below an event loop: one connection, whose socket the loop watches.

libpq is driven directly (psycopg's documented `pq` layer), because psycopg's own coroutines take the socket for one
statement at a time, and between them nobody would read: notifications would wait for the next statement. It needs an
event loop that can watch a socket (`loop.add_reader`), which asyncio's and uvloop's can and Windows' proactor loop
cannot.

What the statements say is others' business, but none of them is a COPY.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from psycopg import pq

from pgpubsub.core.frames import Message
from pgpubsub.drivers.interface import LOST, statement_error, statement_name
from pgpubsub.drivers.psycopg3 import ENDING, decode, let_go, psycopg, remember_fatal_notice
from pgpubsub.errors import ConnectionLost, PubSubError
from pgpubsub.events import Notify

__all__ = ["ENDS", "Statement", "Wire"]

ENDS = 4
"""In a volley libpq says that this is all for now after the results, perhaps after an error when the transaction
is committed, and at the end of that."""

IN_ONE_TURN = 500
"""Notifications handed out in one turn of the loop, at most, so that subscribers come to take them in between: fewer
than a subscription's buffer holds by default. One reading of the socket may bring thousands."""


@dataclass(slots=True)
class Statement:
    """What was asked for, and what has become of it so far."""

    subject: str | Sequence[Message]
    on_done: Callable[[PubSubError | None], None]
    answered: bool = False
    refusal: PubSubError | None = None
    """What the server answered, if it was an error."""
    failure: psycopg.Error | None = None
    """Why it could not even be sent."""
    pipelined: bool = False
    ends: int = 0
    """How often libpq has said that this is all for now."""
    unsent: bool = False
    """Whether it is only told its refusal, when its turn comes."""
    most_ends: int = ENDS
    result: pq.abc.PGresult | None = None
    """That came last."""
    commands: int = 0
    """How many results there are before `on_committed` is called."""
    on_committed: Callable[[], None] = lambda: None
    """The server has committed it. That is known before all has been said: see `Psycopg3LoopConnection`."""

    @property
    def what(self) -> str:
        """What to call it in an error. There may be very many messages, and seldom an error."""
        return self.subject if isinstance(self.subject, str) else statement_name(self.subject)


class Wire:
    """See the module. Statements are answered in the order in which they were begun."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self.pgconn = conn.pgconn
        self.fd = conn.pgconn.socket
        self.encoding = conn.info.encoding
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._conn = conn
        self._channels: dict[bytes, str] = {}
        self._fatal_notices: list[str] = []
        self._statements: deque[Statement] = deque()
        self._more_in_libpq = False
        self._goes_on = False
        conn.add_notice_handler(partial(remember_fatal_notice, self._fatal_notices))
        conn.pgconn.nonblocking = 1

    def watch(self, on_events: Callable[[list[Notify]], None], on_lost: Callable[[ConnectionLost], None]) -> None:
        """See `interface.LoopConnection`."""
        self._on_events = on_events
        self._on_lost = on_lost
        self.loop.add_reader(self.fd, self._on_readable)

    def read(self) -> None:
        """See `interface.LoopConnection`."""
        self._read(None)

    def _on_readable(self) -> None:
        if not self._goes_on:  # else this turn has had, or will have, what it may
            self._read(IN_ONE_TURN)

    def _go_on(self) -> None:
        self._goes_on = False
        self._read(IN_ONE_TURN, going_on=True)

    def _read(self, limit: int | None, *, going_on: bool = False) -> None:
        """Take what has arrived, at most `limit` notifications; the others in the next turn of the loop. In the turn in
        which the last of them were taken the socket is not read again, but in the one after."""
        if self.closed:
            return
        lost: psycopg.Error | None = None
        try:
            if not self._more_in_libpq or limit is None:
                self.pgconn.consume_input()
        except psycopg.Error as error:
            lost, limit = error, None  # there may be notifications that came before the end
        try:
            # First: a LISTEN counts before what it brings, and libpq looks at what came behind a result only once
            # that has been taken.
            self._take_results()
        except psycopg.Error as error:
            lost, limit = lost or error, None
        events = self._take_notifications(limit)
        self._more_in_libpq = limit is not None and len(events) == limit
        if (self._more_in_libpq or (going_on and events)) and not self._goes_on:
            self._goes_on = True
            self.loop.call_soon(self._go_on)
        if lost is not None:
            self._lose(lost)  # first: what came with the end does not tell when that was
        if events:
            self._on_events(events)

    def begin(self, begin: Callable[[], None], *statements: Statement) -> None:
        """Have `begin` give them to libpq. Each is told of its end, whatever becomes of it: at once if the connection
        is closed, and otherwise later."""
        assert not self._statements, "one thing at a time"
        self._statements.extend(statements)
        if self.closed:
            self._finish_all(ConnectionLost(f"{LOST}: {statements[0].what} was not sent"))
            return
        try:
            begin()
            self._flush()
        except psycopg.Error as error:
            # Whoever asked is told when this call is over, as of every other outcome.
            for statement in statements:
                statement.failure = error
            self.loop.call_soon(self._lose, error)

    def close(self, why: PubSubError | None = None) -> None:
        """See `interface.LoopConnection`."""
        if self.closed:
            return
        self._end()
        self._finish_all(ConnectionLost(str(why or f"{LOST}: it was closed")))

    def disown(self) -> None:
        """See `interface.LoopConnection`."""
        if not self.closed:
            self.closed = True
            let_go(self._conn)

    def _flush(self) -> None:
        if self.pgconn.flush():  # the socket's buffer is full
            self.loop.add_writer(self.fd, self._on_writable)

    def _on_writable(self) -> None:
        self.loop.remove_writer(self.fd)
        try:
            self._flush()
        except psycopg.Error as error:
            self._lose(error)

    def _take_notifications(self, limit: int | None) -> list[Notify]:
        if self.closed:
            return []
        records = list(islice(iter(self.pgconn.notifies, None), limit))
        return decode(records, self.encoding, self._channels)

    def _take_results(self) -> None:
        while self._statements:
            statement = self._statements[0]
            if statement.unsent:
                self._finish(statement.refusal)
                continue
            if self.pgconn.is_busy():
                break
            result = self.pgconn.get_result()
            if result is not None and result.status != pq.ExecStatus.PIPELINE_SYNC:
                self._take_answer(statement, result)
                continue
            statement.ends += 1
            done = not statement.pipelined or result is not None
            if (done and not statement.answered) or statement.ends > statement.most_ends:
                # libpq has nothing under way, and would say that all is done.
                raise statement.failure or psycopg.OperationalError(f"{statement.what} got no answer")
            if done:
                self._finish(statement.refusal)

    def _take_answer(self, statement: Statement, result: pq.abc.PGresult) -> None:
        statement.answered = True
        statement.commands -= 1
        statement.result = result
        if result.status == pq.ExecStatus.FATAL_ERROR and statement.refusal is None:
            error = psycopg.errors.error_from_result(result, self.encoding)
            if self.pgconn.status != pq.ConnStatus.OK or error.diag.severity_nonlocalized in ENDING:
                raise error
            standby = self.pgconn.parameter_status(b"in_hot_standby")
            statement.refusal = statement_error(
                statement.what, error, lost=False, sqlstate=error.sqlstate, standby=standby
            )
            statement.refusal.__cause__ = error
        elif statement.commands == 0:
            statement.on_committed()

    def _finish(self, error: PubSubError | None) -> None:
        """The oldest statement has come to its end."""
        statement = self._statements.popleft()
        if statement.pipelined and not self._statements and not self.closed:
            self.pgconn.exit_pipeline_mode()  # before anybody begins another
        statement.on_done(error)

    def _finish_all(self, error: PubSubError) -> None:
        while self._statements:
            self._finish(error)

    def _lose(self, error: psycopg.Error) -> None:
        if self.closed:
            return
        why = self._fatal_notices[-1] if self._fatal_notices else str(error).strip()
        lost = ConnectionLost(f"{LOST}: {why}")
        lost.__cause__ = error
        self._end()
        self._on_lost(lost)  # first: whoever is told of the outcome must not come back for this connection
        self._finish_all(lost)

    def _end(self) -> None:
        self.closed = True
        self.loop.remove_reader(self.fd)
        self.loop.remove_writer(self.fd)
        with suppress(psycopg.Error):
            self.pgconn.finish()
