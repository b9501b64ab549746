"""psycopg2, for connections that are brought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg2
import psycopg2.extensions

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.drivers.interface import LOST, Records, encoding_error, parameters, statement_error, statement_name
from pgpubsub.errors import ConnectionLost
from pgpubsub.events import Notify

__all__ = ["Psycopg2Connection"]

NOTIFY = sql.notify("%s", "%s")
NOTIFY_ALL = sql.notify_all("%s", "%s", "%s")


class Psycopg2Connection:
    """A blocking `psycopg2` connection.

    One thing cannot be mended from here: an exception that a signal handler raises in the microseconds in which
    psycopg2 decodes a notification is discarded by psycopg2, and the notification with it.
    """

    database_error: type[Exception] = psycopg2.DatabaseError

    def __init__(self, conn: Any) -> None:
        if conn.closed:
            raise ConnectionLost(f"{LOST}: it is closed")
        self.raw = conn
        self.records: Records = []
        self.backend_pid: int = conn.get_backend_pid()

    def attach(self) -> None:
        if not isinstance(self.raw.notifies, list):  # its user may have put any other collection there
            self.raw.notifies = list(self.raw.notifies)
        self.records = self.raw.notifies

    def release(self) -> None:
        """Nothing to undo."""

    @property
    def room(self) -> int:
        return sql.room(None if self.raw.closed else self.raw.get_parameter_status("server_encoding"))

    @property
    def autocommit(self) -> bool:
        return bool(self.raw.autocommit)

    @property
    def in_pipeline(self) -> bool:
        return False

    @property
    def in_transaction(self) -> bool:
        return not self.raw.closed and self.raw.info.transaction_status in (
            psycopg2.extensions.TRANSACTION_STATUS_INTRANS,
            psycopg2.extensions.TRANSACTION_STATUS_INERROR,
        )

    @property
    def idle(self) -> bool:
        return not self.raw.closed and not self.in_transaction

    @property
    def in_recovery(self) -> bool:
        return not self.raw.closed and self.raw.get_parameter_status("in_hot_standby") == "on"

    def fileno(self) -> int:
        if self.raw.closed:
            raise ConnectionLost(self._lost("it is closed"))
        return int(self.raw.fileno())

    def decode(self, records: Sequence[psycopg2.extensions.Notify]) -> list[Notify]:
        return [Notify(record.pid, record.channel, record.payload) for record in records]

    def read(self) -> None:
        try:
            self.raw.poll()
        except psycopg2.Error as error:
            if not self.raw.closed:
                raise statement_error("poll", error, lost=False, sqlstate=error.pgcode) from error
            raise ConnectionLost(self._lost(str(error))) from error

    def execute(self, script: str) -> None:
        self._run(script, script, None)

    def notify(self, messages: Sequence[Message]) -> None:
        query = NOTIFY if len(messages) == 1 else NOTIFY_ALL
        self._run(statement_name(messages), query, parameters(messages), sending=True)

    def close(self) -> None:
        self.raw.close()

    def _run(self, what: str, query: str, parameters: tuple[str, ...] | None, *, sending: bool = False) -> None:
        if self.raw.closed:
            raise ConnectionLost(self._lost(f"{what} was not sent"))
        try:
            with self.raw.cursor() as cursor:
                cursor.execute(query, parameters)
        except UnicodeEncodeError as error:
            raise encoding_error(what, error, sending=sending) from error
        except psycopg2.Error as error:
            lost = bool(self.raw.closed)
            raise statement_error(what, error, lost=lost, sqlstate=error.pgcode, sending=sending) from error

    def _lost(self, detail: str) -> str:
        fatal = [notice for notice in self.raw.notices if notice.startswith(("FATAL", "PANIC"))]
        return f"{LOST}: {(fatal or [detail])[-1].strip()}"
