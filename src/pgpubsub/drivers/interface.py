"""What every driver is adapted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pgpubsub.core import sql
from pgpubsub.core.frames import Message
from pgpubsub.core.registry import Changes
from pgpubsub.drivers.arrays import Question
from pgpubsub.errors import (
    ChannelNameError,
    ConnectionLost,
    ConnectionUnusable,
    PayloadError,
    PubSubError,
    SendUncertain,
    ServerInRecovery,
    ServerRefused,
)
from pgpubsub.events import Notify

__all__ = [
    "LOST",
    "Answer",
    "DriverConnection",
    "LoopConnection",
    "Records",
    "check_usable",
    "encoding_error",
    "in_recovery",
    "is_read_only_by_default",
    "parameters",
    "statement_error",
    "statement_name",
]

Answer = Sequence[int | None]
"""The rows of a `Question` that asks for one number, or NULL, in each."""

Records = list[Any]
"""Notifications as the driver left them, oldest first."""

READ_ONLY_SQL_TRANSACTION = "25006"
"""What a standby answers to LISTEN, NOTIFY and pg_notify, and to whatever writes (PostgreSQL manual, "Error Codes",
"Hot Standby"); and what a primary answers to the latter where transactions are read-only by default."""


class DriverConnection(Protocol):
    """One connection of some driver. Wrapping it changes nothing about it before `attach`. Not for two threads
    at once, `idle` and `fileno` excepted.

    Every method that talks to the server raises `ConnectionLost` when the connection is gone, and
    `ServerRefused` when the server answered with an error, with the driver's error as the cause.
    """

    raw: Any
    """The connection as the user knows it."""

    records: Records
    """What has been received and not been taken. Filled by *every* call that reads from the socket, in one
    step that no signal handler can interrupt, so that an exception from a handler loses nothing."""

    database_error: type[Exception]
    """The driver's DB-API `DatabaseError`."""

    @property
    def backend_pid(self) -> int:
        """Process id of the server backend, also after the connection was lost."""

    @property
    def room(self) -> int:
        """What `core.sql.room` says of its server."""

    @property
    def autocommit(self) -> bool:
        """Whether a statement outside of an explicit transaction commits by itself."""

    @property
    def in_pipeline(self) -> bool:
        """Whether results are put off, so that nobody knows when a LISTEN has been committed."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open: the server delivers nothing before its end."""

    @property
    def idle(self) -> bool:
        """Whether a statement could be run now without waiting for anybody."""

    @property
    def in_recovery(self) -> bool:
        """Whether the server said, when it last told us, that it is a standby (from version 14 on)."""

    def attach(self) -> None:
        """Have notifications go to `records` from now on, those included that the driver has set aside."""

    def release(self) -> None:
        """Undo `attach`."""

    def fileno(self) -> int:
        """The socket to wait on. Raises `ConnectionLost`."""

    def decode(self, records: Sequence[Any]) -> list[Notify]:
        """Decode some of `records`."""

    def read(self) -> None:
        """Move to `records` what has arrived, without waiting."""

    def execute(self, script: str) -> None:
        """Run statements without parameters or results, in one round trip."""

    def notify(self, messages: Sequence[Message]) -> None:
        """Send notifications in one statement: at once, or with the transaction that is open."""

    def close(self) -> None:
        """Close the connection; of a lost or closed one, forget it."""


class LoopConnection(Protocol):
    """One connection whose socket an event loop watches, so that whatever arrives is taken at once.

    One statement at a time. Whoever gives up waiting for an answer has to `close` it.
    """

    server_pid: int
    """Process id of the server backend."""

    room: int
    """What `core.sql.room` says of its server."""

    pooled: bool
    """Whether something between here and there gave us another process id: a pooler."""

    def watch(self, on_events: Callable[[list[Notify]], None], on_lost: Callable[[ConnectionLost], None]) -> None:
        """Begin. `on_lost` is called once, unless `close` comes first."""

    def read(self) -> None:
        """Take what has arrived, now."""

    async def apply(self, changes: Changes, timeout: float, on_committed: Callable[[], None]) -> None:
        """LISTEN and UNLISTEN. Once that is committed, `on_committed` is called, before anything that was sent since
        is handed out. Raises `ConnectionLost` if there is no answer within `timeout` seconds, and `ServerRefused`."""

    async def ask(self, timeout: float) -> None:
        """Make a round trip. Raises `ConnectionLost` as `apply`."""

    volley: int
    """How many transactions it can send in one round trip."""

    def send(self, batches: Sequence[Sequence[Message]], on_done: Callable[[PubSubError | None], None]) -> None:
        """Send notifications, those of each batch in a statement and a transaction of their own. `on_done` is called
        for each batch in order, later, with None when it is committed, or with the error: `ConnectionLost` when it may
        be or may not be, and any other when it is not. No more is sent before the last of them has been answered."""

    def answer(self, questions: Sequence[Question], on_done: Callable[[Answer | PubSubError], None]) -> None:
        """Run statements in one transaction and, if possible, one round trip. `on_done` is called later with what the
        last of them returned, or with an error as in `send`. One thing at a time, as there."""

    def close(self, why: PubSubError | None = None) -> None:
        """Close it. A statement under way is told that it is lost, and why."""

    def disown(self) -> None:
        """After `fork()`, in the child: let go of the socket without a word, for it is the parent's."""


LOST = "the connection to PostgreSQL is lost"


def parameters(messages: Sequence[Message]) -> tuple[str, ...]:
    """Those of the statement that sends `messages`: `core.sql.notify` for one, and `notify_all` for several."""
    return messages[0] if len(messages) == 1 else sql.columns(messages)


def statement_name(messages: Sequence[Message]) -> str:
    """What to call the statement in an error."""
    channels = {channel for channel, _ in messages}
    name = f"NOTIFY {messages[0][0]!r}"
    return name if len(channels) == 1 else f"{name} and {len(channels) - 1} other channels"


def encoding_error(what: str, error: UnicodeEncodeError, *, sending: bool) -> PubSubError:
    """The error to raise when the connection's client_encoding has no bytes for what is in a statement."""
    message = f"{what}: the connection's client_encoding cannot express it: {error}"
    return PayloadError(message) if sending else ChannelNameError(message)


def statement_error(
    what: str,
    error: Exception,
    *,
    lost: bool,
    sqlstate: str | None,
    sending: bool = False,
    standby: str | bytes | None = None,
) -> PubSubError:
    """The error to raise when a driver raised `error` from the statement `what`. `standby` is the parameter
    `in_hot_standby` as the server has reported it, if it has (from version 14 on)."""
    words = str(error).strip() or type(error).__name__
    if lost:
        if sending:
            return SendUncertain(
                f"the connection broke during {what}: it may or may not have been sent, and is not repeated ({words})"
            )
        return ConnectionLost(f"the connection broke during {what}: {words}")
    if sqlstate == READ_ONLY_SQL_TRANSACTION:
        if standby not in ("off", b"off"):
            return in_recovery(f"{what}: {words}", sqlstate=sqlstate)
        words += (
            "; the server is a primary, and default_transaction_read_only is on: turn it off for this role and"
            " database, or in the connection string (options='-c default_transaction_read_only=off')"
        )
    return ServerRefused(f"the server refused {what}: {words}", sqlstate=sqlstate)


def is_read_only_by_default(error: PubSubError) -> bool:
    """Whether it is that a primary does not write for this session, which trying again will not change."""
    return (
        isinstance(error, ServerRefused)
        and not isinstance(error, ServerInRecovery)
        and error.sqlstate == READ_ONLY_SQL_TRANSACTION
    )


def check_usable(driver: DriverConnection) -> None:
    """Raise unless notifications can arrive on this connection.

    Raises:
        ConnectionUnusable: it is not in autocommit mode, or inside a transaction.
        ServerInRecovery: its server is a standby.
    """
    if driver.in_pipeline:
        raise ConnectionUnusable("the connection is in pipeline mode: leave its pipeline() block first")
    if driver.in_transaction:
        raise ConnectionUnusable("the connection is inside an open transaction: commit or roll back first")
    if not driver.autocommit:
        raise ConnectionUnusable(
            "the connection is not in autocommit mode: every statement opens a transaction, inside which the"
            " server delivers nothing; set connection.autocommit = True first"
        )
    if driver.in_recovery:
        raise in_recovery("in_hot_standby is on")


def in_recovery(detail: str, *, sqlstate: str | None = None) -> ServerInRecovery:
    """The error to raise when the server turned out to be a standby."""
    return ServerInRecovery(
        f"the server is in recovery, a standby, where LISTEN and NOTIFY do not work ({detail}); connect to the"
        " primary, for example with all hosts in the DSN and target_session_attrs=read-write",
        sqlstate=sqlstate,
    )
