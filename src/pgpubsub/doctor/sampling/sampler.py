"""What a server tells about itself, again and again, over one connection.

Each question is a read-only transaction of its own, which the server ends if it takes long, so that a server in trouble
is not harmed. It promises no consistency between the answers, and blocks: in a thread, where somebody else is to be
attended to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from psycopg.sql import SQL, Composed, Literal

from pgpubsub.doctor.access import Access, access_to
from pgpubsub.doctor.lag import OF_GROUPS, PLANS, Ask, Lags
from pgpubsub.doctor.sampling.figures import Listener, Listeners, Missing, Queue, Sample, Server, Unseen
from pgpubsub.doctor.sampling.questions import HIDDEN, LISTENERS, OF_STREAMS, QUEUE, SERVER
from pgpubsub.doctor.sampling.streaming import Streaming
from pgpubsub.drivers.asking import ask
from pgpubsub.drivers.psycopg3 import Connection, break_off, open_connection, parse_conninfo, psycopg

__all__ = ["Sampler"]

T = TypeVar("T")

MILLISECONDS = 500
"""That the server may take for a question."""


class Sampler:
    """Connects when it is first asked, and again whenever the connection was lost.

    Args:
        conninfo: where.
        schema: where streams are installed.
        name: by which our own sessions are known, and left out.
        turns: how often `lag.TURN` groups are looked at for a sample.

    Raises:
        ConninfoError: `conninfo` is malformed.
    """

    def __init__(self, conninfo: str, schema: str, name: str, *, turns: int = 1) -> None:
        self._conninfo = parse_conninfo(conninfo, {"application_name": name})
        self._name = name
        self._turns = turns
        self._schema = schema
        self._conn: Connection | None = None
        self._since = datetime.now(UTC)
        self._streaming = Streaming(schema)
        self._lags = Lags(schema, turns)
        self._role = ""

    def sample(self) -> Sample:
        """Ask everything.

        Raises:
            ConnectionFailed: it cannot connect.
            psycopg.OperationalError: the connection was lost meanwhile.
        """
        if self._conn is None or self._conn.closed:
            self._connect()
        server = self._server()
        access = self._part(self._access)
        return Sample(
            time=monotonic(),
            at=datetime.now(UTC),
            server=server,
            queue=self._part(self._queue),
            listeners=self._part(lambda: self._listeners(server)),
            streams=self._among(access, OF_STREAMS, self._streaming.streams),
            groups=self._among(access, OF_GROUPS, self._lags.groups),
        )

    def break_off(self) -> None:
        """Have a question that gets no answer fail. For other threads."""
        if self._conn is not None:
            break_off(self._conn)

    def close(self) -> None:
        """End the connection."""
        if self._conn is not None:
            self._conn.close()

    def _connect(self) -> None:
        self._streaming = Streaming(self._schema)
        self._lags = Lags(self._schema, self._turns)
        conn = open_connection(self._conninfo)
        self._conn = conn
        self._since = datetime.now(UTC)

    def _ask(self, question: Composed | SQL) -> list[Any]:
        """What a question returns: named tuples."""
        assert self._conn is not None
        return ask(self._conn, Composed([PLANS, question]), milliseconds=MILLISECONDS)

    def _part(self, question: Callable[[], T]) -> T | Unseen:
        """A part of the sample, or why there is none."""
        assert self._conn is not None
        try:
            return question()
        except psycopg.errors.InsufficientPrivilege as error:
            return Unseen(f"role {self._role} may not look: {error.diag.message_primary}")
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable):
            return Unseen(f"the server did not answer within {MILLISECONDS} ms")
        except psycopg.Error as error:
            if self._conn.broken or self._conn.closed:
                raise
            return Unseen(f"the server did not tell: {error.diag.message_primary or error}")

    def _access(self) -> Access:
        assert self._conn is not None
        return access_to(self._schema, partial(ask, self._conn, milliseconds=MILLISECONDS))

    def _among(self, access: Access | Unseen, relations: Collection[str], question: Callable[[Ask], T]) -> T | Unseen:
        """A part of the sample that is asked of these relations of the streams, or why there is none."""
        if isinstance(access, Unseen):
            return access
        if not access.installed:
            return Missing(f"not installed in schema {self._schema}: pgpubsub stream install does it")
        if (refusal := access.refusal(relations)) is not None:
            return Unseen(refusal)
        return self._part(lambda: question(self._ask))

    def _server(self) -> Server:
        assert self._conn is not None
        ((database, role, in_recovery, release, sees_all),) = self._ask(SERVER)
        self._role = role
        info = self._conn.info
        return Server(database, info.host or "localhost", info.port, release, role, in_recovery, sees_all, self._since)

    def _queue(self) -> Queue:
        ((usage, waiting),) = self._ask(QUEUE)
        return Queue(usage, waiting)

    def _listeners(self, server: Server) -> Listeners:
        rows = self._ask(LISTENERS.format(own=Literal(self._name)))
        hidden = 0 if server.sees_all else self._ask(HIDDEN)[0].hidden
        return Listeners(
            total=rows[0].total if rows else 0,
            hidden=hidden,
            sessions=tuple(
                Listener(row.pid, row.application, row.database, row.state, row.seconds, row.waits_for, row.troublesome)
                for row in rows
            ),
        )
