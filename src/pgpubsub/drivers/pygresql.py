"""PyGreSQL's classic interface (`pg`), for connections that are brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pg

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.drivers.interface import LOST, Records, parameters, statement_error, statement_name
from pgpubsub.errors import ConnectionLost, ConnectionUnusable
from pgpubsub.events import Notify

__all__ = ["PyGreSQLConnection"]

NOTIFY = sql.notify("$1", "$2")
NOTIFY_ALL = sql.notify_all("$1", "$2", "$3")

CONNECTION_OK = 1
"""`pg.Connection.status` of a connection that works (PyGreSQL manual, "Object attributes")."""


class PyGreSQLConnection:
    """A `pg.DB`, or the `pg.Connection` that it wraps.

    `getnotify()` returns None for a lost connection as it does for a quiet one, so the status is looked at
    after each read; and it decodes UTF-8 whatever the client encoding is, so another one is refused before
    anything is taken from libpq.
    """

    database_error: type[Exception] = pg.DatabaseError

    def __init__(self, conn: Any) -> None:
        self.raw = conn
        self.records: Records = []
        wrapped: Any = conn.db if issubclass(type(conn), pg.DB) else conn
        self._conn = wrapped
        try:
            self.backend_pid: int = self._conn.backend_pid
        except (AttributeError, TypeError) as error:
            raise ConnectionLost(f"{LOST}: it is closed") from error

    def attach(self) -> None:
        """Nothing to do: libpq keeps what has not been read."""

    def release(self) -> None:
        """Nothing to undo."""

    @property
    def room(self) -> int:
        return sql.room(self._conn.parameter("server_encoding") if self._open else None)

    @property
    def autocommit(self) -> bool:
        return True  # there is no other mode

    @property
    def in_pipeline(self) -> bool:
        return False

    @property
    def in_transaction(self) -> bool:
        return self._open and self._conn.transaction() in (pg.TRANS_INTRANS, pg.TRANS_INERROR)

    @property
    def idle(self) -> bool:
        return self._open and self._conn.transaction() == pg.TRANS_IDLE

    @property
    def in_recovery(self) -> bool:
        return self._open and self._conn.parameter("in_hot_standby") == "on"

    def fileno(self) -> int:
        if not self._open:
            raise ConnectionLost(f"{LOST}: it is closed")
        return int(self._conn.fileno())

    def decode(self, records: Sequence[tuple[str, int, str]]) -> list[Notify]:
        return [Notify(pid, channel, payload) for channel, pid, payload in records]

    def read(self) -> None:
        if not self._open:
            raise ConnectionLost(f"{LOST}: it is closed")
        encoding = self._conn.parameter("client_encoding")
        if encoding != "UTF8":
            raise ConnectionUnusable(
                f"PyGreSQL reads notifications as UTF-8 but this connection's client_encoding is {encoding}:"
                " run SET client_encoding TO 'UTF8' on it"
            )
        try:
            # extend() takes the whole batch inside one call, in which no signal handler can run.
            self.records.extend(iter(self._conn.getnotify, None))
        except pg.Error as error:
            if self._open:
                raise
            raise ConnectionLost(f"{LOST}: {error}") from error
        if not self._open:
            raise ConnectionLost(f"{LOST}: {self._conn.error.strip() or 'the server closed it'}")

    def execute(self, script: str) -> None:
        self._run(script, script, ())

    def notify(self, messages: Sequence[Message]) -> None:
        query = NOTIFY if len(messages) == 1 else NOTIFY_ALL
        self._run(statement_name(messages), query, parameters(messages), sending=True)

    def close(self) -> None:
        try:
            self.raw.close()
        except pg.Error:  # of a connection that is closed already
            if self._open:
                raise

    @property
    def _open(self) -> bool:
        """Whether it is the connection that it was: DB.reset() makes another one of it, which listens to nothing."""
        try:
            return bool(self._conn.status == CONNECTION_OK and self._conn.backend_pid == self.backend_pid)
        except (AttributeError, pg.Error, TypeError):  # closed by its user
            return False

    def _run(self, what: str, query: str, parameters: tuple[str, ...], *, sending: bool = False) -> None:
        if not self._open:
            raise ConnectionLost(f"{LOST}: {what} was not sent")
        try:
            self._conn.query(query, parameters) if parameters else self._conn.query(query)
        except (pg.Error, LookupError) as error:  # LookupError: the encoding of a connection that has just died
            lost = not self._open
            if isinstance(error, LookupError) and not lost:
                raise
            sqlstate = getattr(error, "sqlstate", None)
            raise statement_error(what, error, lost=lost, sqlstate=sqlstate, sending=sending) from error
