"""psycopg 3, the driver that pgpubsub opens its own connections with.

psycopg's `notifies()` generator holds the connection's lock between its items and loses the rest of a batch
when it is left early, so notifications are taken from libpq itself (`PGconn.notifies`), in whole batches.
Those that arrive with a statement's result come through `PGconn.notify_handler`. Both belong to psycopg's
documented `pq` layer.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.drivers.interface import LOST, Records, encoding_error, parameters, statement_error, statement_name
from pgpubsub.drivers.limits import break_socket, within
from pgpubsub.drivers.psycopg3_conninfo import LIBPQ_KEYWORDS, parse_conninfo, pq, psycopg, seconds_to_connect, settled
from pgpubsub.errors import ConcurrentUse, ConnectionFailed, ConnectionLost
from pgpubsub.events import Notify
from pgpubsub.logs import EventLog

__all__ = [
    "ENDING",
    "LIBPQ_KEYWORDS",
    "Connection",
    "Psycopg3Connection",
    "break_off",
    "decode",
    "let_go",
    "open_connection",
    "parse_conninfo",
    "psycopg",
    "remember_fatal_notice",
]

logger = EventLog("connection")

NOTIFY = sql.notify("%s", "%s")
NOTIFY_ALL = sql.notify_all("%s", "%s", "%s")

IDLE_SESSION_TIMEOUT_SINCE = 140000

_new = tuple.__new__

REMEMBERED = 256
"""Names of channels, about, that a connection remembers: programs may use ever new ones."""

_inherited: list[object] = []

ENDING = ("FATAL", "PANIC")
"""The severities of what a server ends the connection with."""


def let_go(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """After `fork()`, in the child: close its copy of the parent's socket, or the server would not notice the end of a
    parent that its child outlives. The connection is kept: its destructor would say goodbye, or complain."""
    if not conn.closed:
        os.close(conn.pgconn.socket)
        _inherited.append(conn)


def break_off(conn: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """Break a connection that owes an answer. (To cancel a statement takes a connection of its own, and seconds where
    the server does not answer that either.)"""
    if not conn.closed and conn.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
        break_socket(conn.fileno)


class Connection(psycopg.Connection[Any]):
    """A psycopg 3 connection that also answers to psycopg2's name for the backend's process id."""

    def get_backend_pid(self) -> int:
        """The server process of this connection. Another one after a reconnection: see `PubSub.backend_pid`."""
        return self.info.backend_pid


def open_connection(conninfo: str) -> Connection:
    """Open a connection in autocommit mode, waiting as long as `connect_timeout` allows for each address, and as long
    again for a first answer.

    Raises:
        ConnectionFailed: with the driver's error as the cause.
    """
    try:
        conn = Connection.connect(conninfo, autocommit=True)
        try:
            if conn.info.server_version >= IDLE_SESSION_TIMEOUT_SINCE:
                with within(seconds_to_connect(settled(conninfo)), lambda: conn.pgconn.socket):
                    conn.execute("SET idle_session_timeout TO 0")  # a listener is idle by profession
        except BaseException:
            conn.close()
            raise
    except (psycopg.Error, OSError, UnicodeError) as error:
        raise ConnectionFailed(f"cannot connect to PostgreSQL: {error}") from error
    return conn


def decode(records: Sequence[pq.PGnotify], encoding: str, channels: dict[bytes, str]) -> list[Notify]:
    """Make events of `records`. `channels` remembers names, which repeat themselves; not for ever, as they may not."""
    if len(channels) > REMEMBERED:
        channels.clear()
    for name in {record[0] for record in records} - channels.keys():
        channels[name] = name.decode(encoding, "surrogateescape")
    # tuple.__new__ is what Notify() comes to, without a Python function for each.
    return [
        _new(Notify, (pid, channels[name], payload.decode(encoding, "surrogateescape")))
        for name, pid, payload in records
    ]


class Psycopg3Connection:
    """A `psycopg.Connection`, our own or one that was brought."""

    database_error: type[Exception] = psycopg.DatabaseError

    def __init__(self, conn: psycopg.Connection[Any]) -> None:
        if conn.closed:
            raise ConnectionLost(f"{LOST}: it is closed")
        self.raw = conn
        self.records: Records = []
        self.backend_pid = conn.info.backend_pid
        self._pgconn = conn.pgconn
        self._cursor = psycopg.Cursor(conn)  # one for all statements: making it costs as much as using it
        self._client_encoding: bytes | None = None
        self._encoding = conn.info.encoding
        self._channels: dict[bytes, str] = {}
        self._fatal_notices: list[str] = []
        self._on_notice = partial(remember_fatal_notice, self._fatal_notices)
        self._handlers_of_user: Callable[[pq.PGnotify], None] | None = None

    def attach(self) -> None:
        self.raw.add_notice_handler(self._on_notice)
        if isinstance(self.raw, Connection):
            self._pgconn.notify_handler = self.records.append
        elif self._handlers_of_user is None:
            self._share_with_user()

    def release(self) -> None:
        self.raw.remove_notice_handler(self._on_notice)
        if self._handlers_of_user is not None:
            self.raw.remove_notify_handler(_ignore)
            self._pgconn.notify_handler = self._handlers_of_user

    @property
    def room(self) -> int:
        return sql.room(self.raw.info.parameter_status("server_encoding"))

    @property
    def autocommit(self) -> bool:
        return bool(self.raw.autocommit)

    @property
    def in_pipeline(self) -> bool:
        return self._pgconn.pipeline_status != pq.PipelineStatus.OFF

    @property
    def in_transaction(self) -> bool:
        return self._pgconn.transaction_status in (pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR)

    @property
    def idle(self) -> bool:
        return not self.raw.lock.locked() and self._pgconn.transaction_status == pq.TransactionStatus.IDLE

    @property
    def in_recovery(self) -> bool:
        return self._pgconn.parameter_status(b"in_hot_standby") == b"on"

    def fileno(self) -> int:
        if self._pgconn.status != pq.ConnStatus.OK:
            raise ConnectionLost(self._lost("it is closed"))
        return self._pgconn.socket

    def decode(self, records: Sequence[pq.PGnotify]) -> list[Notify]:
        return decode(records, self._encoding, self._channels)

    def read(self) -> None:
        lost: psycopg.Error | None = None
        try:
            self._pgconn.consume_input()
            if (client_encoding := self._pgconn.parameter_status(b"client_encoding")) != self._client_encoding:
                self._client_encoding = client_encoding
                self._encoding = self.raw.info.encoding
                self._channels.clear()
        except psycopg.Error as error:
            lost = error  # there may be notifications that came before the end
        self._take_from_libpq()
        if lost is not None:
            raise ConnectionLost(self._lost(str(lost))) from lost

    def _take_from_libpq(self) -> None:
        seen = len(self.records)
        try:
            self.records.extend(iter(self._pgconn.notifies, None))
        except BaseException as error:
            _rescue(error, self.records)
            raise
        if self._handlers_of_user is not None:
            for record in self.records[seen:]:
                _pass_on(record, self._handlers_of_user)

    def execute(self, script: str) -> None:
        self._run(script, script, None)

    def notify(self, messages: Sequence[Message]) -> None:
        query = NOTIFY if len(messages) == 1 else NOTIFY_ALL
        self._run(statement_name(messages), query, parameters(messages), sending=True)

    def close(self) -> None:
        self.raw.close()

    def _share_with_user(self) -> None:
        """Take what psycopg set aside for its generator, and go on calling the handlers that the user
        registered. A handler that does nothing keeps psycopg from setting more aside for nobody."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that the generator and handlers do not mix
            with suppress(psycopg.Error):  # a connection that is lost: the first use will tell
                self.records.extend(
                    [
                        pq.PGnotify(n.channel.encode(self._encoding), n.pid, n.payload.encode(self._encoding))
                        for n in self.raw.notifies(timeout=0)
                    ]
                )
        self.raw.add_notify_handler(_ignore)
        handlers = self._pgconn.notify_handler or (lambda record: None)
        hand_over = partial(_hand_over, self.records, handlers)
        self._pgconn.notify_handler = hand_over
        self._handlers_of_user = handlers

    def _run(self, what: str, query: str, parameters: tuple[str, ...] | None, *, sending: bool = False) -> None:
        if self._pgconn.status != pq.ConnStatus.OK:
            raise ConnectionLost(self._lost(f"{what} was not sent"))
        if self.raw.lock.locked():
            raise ConcurrentUse(f"{what}: psycopg's connection is in use, by another thread or by its notifies()")
        statement: Any = query  # psycopg wants a literal; quoting is the business of core.sql
        try:
            self._cursor.execute(statement, parameters, prepare=None if parameters else False)
        except UnicodeEncodeError as error:
            raise encoding_error(what, error, sending=sending) from error
        except psycopg.Error as error:
            lost = self._pgconn.status != pq.ConnStatus.OK
            raise statement_error(what, error, lost=lost, sqlstate=error.sqlstate, sending=sending) from error
        except BaseException as error:
            _rescue(error, self.records)
            raise

    def _lost(self, detail: str) -> str:
        """What to say of the lost connection: what the server said last, if it did, tells most."""
        return f"{LOST}: {self._fatal_notices[-1] if self._fatal_notices else detail}"


def remember_fatal_notice(fatal_notices: list[str], notice: psycopg.errors.Diagnostic) -> None:
    if notice.severity_nonlocalized in ENDING:
        fatal_notices.append(f"{notice.severity}: {notice.message_primary}")


def _rescue(error: BaseException, records: Records) -> None:
    """Save the notification that was on its way from libpq to us when a signal handler raised `error`.

    psycopg makes a `PGnotify` of it, a class written in Python, so a signal handler can run in the middle of that,
    when libpq has forgotten it and nobody else has it. What it is made of is still in that frame.
    """
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_code is _MAKING_A_RECORD:
            records.append(pq.PGnotify(*map(frame.f_locals.__getitem__, pq.PGnotify._fields)))
        elif frame.f_code is _hand_over.__code__ and not (records and records[-1] is frame.f_locals["record"]):
            records.append(frame.f_locals["record"])
        traceback = traceback.tb_next


_MAKING_A_RECORD = getattr(pq.PGnotify.__new__, "__code__", None)


def _hand_over(records: Records, handlers_of_user: Callable[[pq.PGnotify], None], record: pq.PGnotify) -> None:
    records.append(record)
    _pass_on(record, handlers_of_user)


def _pass_on(record: pq.PGnotify, handlers_of_user: Callable[[pq.PGnotify], None]) -> None:
    """An error of theirs must not end a statement of ours half-way."""
    try:
        handlers_of_user(record)
    except Exception:
        logger.exception("notify_handler_failed", "a notify handler of psycopg's connection failed")


def _ignore(notify: psycopg.Notify) -> None:
    """A notify handler that does nothing."""
