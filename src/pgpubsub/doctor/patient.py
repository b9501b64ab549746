"""The server under examination: two connections, what is known of it at once, and questions with a time limit.

Nothing is changed, and nothing is left behind: see `drivers.asking`. The server ends a question that takes too long; if
it does not answer at all, whoever waits for the examination breaks the connections off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from threading import Event, Lock
from time import monotonic
from typing import Any, Self, TypeVar

from psycopg.conninfo import conninfo_to_dict

from pgpubsub.background import BackgroundCall
from pgpubsub.core.sql import quote_identifier
from pgpubsub.doctor.access import Access, access_to
from pgpubsub.drivers.asking import ask
from pgpubsub.drivers.limits import break_socket
from pgpubsub.drivers.psycopg3 import parse_conninfo, psycopg
from pgpubsub.drivers.psycopg3_connect import in_one_line
from pgpubsub.errors import ConnectionFailed

__all__ = ["OutOfTime", "Patient", "visit"]

Connection = psycopg.Connection[Any]
T = TypeVar("T")

GRACE = 0.1
"""Seconds that the server has to tell of its own time-out."""

WHO_ARE_YOU = """
SELECT pg_catalog.pg_backend_pid() AS pid, current_database() AS database, current_user AS role,
       current_setting('server_version_num')::int AS version,
       split_part(current_setting('server_version'), ' ', 1) AS release, pg_catalog.pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_catalog.pg_postmaster_start_time())::float8 AS started,
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all
"""


class OutOfTime(Exception):
    """There is no time left for a question, or it took too long."""


class Line:
    """Two connections for as long as `within` seconds. One thread opens, uses and closes them; any other may break
    them off, and the first then comes to its end by itself."""

    def __init__(self, conninfo: str, within: float) -> None:
        self.within = within
        self.broken_off = False
        self.connections: list[Connection] = []
        self._conninfo = conninfo
        self._ends_at = 0.0
        self._lock = Lock()  # so that it is not another's socket, of the same number, that is broken

    def __enter__(self) -> Self:
        try:
            for _ in range(2):
                conn = psycopg.Connection.connect(self._conninfo, autocommit=True, prepare_threshold=None)
                self.connections.append(conn)
        except (psycopg.Error, OSError, UnicodeError) as error:
            self.__exit__()
            raise ConnectionFailed(f"cannot connect to PostgreSQL: {in_one_line(error)}") from error
        self._ends_at = monotonic() + self.within
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            for conn in self.connections:
                conn.close()

    @property
    def seconds_left(self) -> float:
        """Until all has to be done."""
        return 0.0 if self.broken_off else max(0.0, self._ends_at - monotonic())

    def break_off(self) -> None:
        """There is no time left: a question that has no answer yet fails, and so does one that is sent now."""
        self.broken_off = True
        with self._lock:
            for conn in self.connections:
                break_socket(conn.fileno)


class Patient:
    """See the module. `listening` and `notifying` are in autocommit mode; each may be a pooler's."""

    def __init__(self, conninfo: str, schema: str, line: Line) -> None:
        self.conninfo = conninfo
        self.schema = schema
        self.listening, self.notifying = line.connections
        self.warnings: list[str] = []
        """Details of what the server has warned of when it was notified. It does not say that twice in five seconds."""
        self.notifying.add_notice_handler(lambda notice: self.warnings.append(notice.message_detail or ""))
        self._line = line
        (self.who,) = self.rows(WHO_ARE_YOU, within=line.within)

    @cached_property
    def options(self) -> dict[str, Any]:
        """The connection parameters that are given in the connection string, without libpq's own defaults."""
        return conninfo_to_dict(self.conninfo)

    @cached_property
    def settings(self) -> dict[str, str]:
        """The parameters in force on this side, as libpq has them."""
        return {name.decode(): value.decode() for name, value in _in_force(self.listening)}

    @cached_property
    def access(self) -> Access:
        """What may be asked of the streams. Raises as `rows`."""
        return access_to(self.schema, self.rows)

    @property
    def quoted_schema(self) -> str:
        """The streams' schema, for a statement without parameters."""
        return quote_identifier(self.schema)

    @property
    def server(self) -> str:
        """Who it is, for a headline."""
        info = self.listening.info
        return f"{self.who.database} on {info.host or 'localhost'}:{info.port}, PostgreSQL {self.who.release}"

    @property
    def seconds_left(self) -> float:
        """Until all has to be done."""
        return self._line.seconds_left

    def rows(self, question: str, parameters: Any = None, *, within: float = 0.4, on: Connection | None = None) -> Any:
        """What a question returns: named tuples. The parameters are put in as text here.

        Raises:
            OutOfTime: it took longer than `within` seconds, or there is no time left.
            psycopg.Error: the server refused it.
        """
        milliseconds = int(1000 * min(within, self.seconds_left))
        if milliseconds <= 0:
            raise OutOfTime("the time was up")
        try:
            return ask(on or self.listening, question, parameters, milliseconds=milliseconds)
        except psycopg.errors.QueryCanceled as error:
            raise OutOfTime(f"it took longer than {milliseconds} ms") from error
        except psycopg.OperationalError as error:
            if self._line.broken_off:
                raise OutOfTime(f"the server did not answer within {self._line.within:g} s") from error
            raise

    def notify(self, channel: str) -> None:
        """Send a notification. A role may have set that it wants to hear no warnings; here it hears them.

        Raises:
            OutOfTime, psycopg.Error: as above.
        """
        question = "SET LOCAL client_min_messages = warning; SELECT pg_catalog.pg_notify(%s, '')"
        self.rows(question, (channel,), on=self.notifying)


def _in_force(conn: Connection) -> Iterator[tuple[bytes, bytes]]:
    for option in conn.pgconn.info:
        if option.val is not None:
            yield option.keyword, option.val


def visit(conninfo: str, schema: str, work: Callable[[Patient], T], *, connect_within: float, within: float) -> T:
    """What `work` returns, which has `within` seconds once there are two connections.

    A thread of its own does it: to resolve a name may take minutes, and psycopg, where it is interrupted, five seconds.
    Here one waits, and can be interrupted at any moment.

    Raises:
        ConninfoError: `conninfo` is malformed.
        ConnectionFailed: there is no connection to be had within `connect_within` seconds, or it broke at once.
    """
    line = Line(parse_conninfo(conninfo, {}, application_name="pgpubsub doctor"), within)
    connected, ended = Event(), Event()

    def call() -> T:
        with line:
            connected.set()
            return work(_met(conninfo, schema, line))

    def on_done() -> None:
        connected.set()
        ended.set()

    begun = BackgroundCall(call, on_done)
    try:
        begun.start()
        if not connected.wait(connect_within):
            raise ConnectionFailed(f"cannot connect to PostgreSQL: no answer within {connect_within:g} s")
        if not ended.wait(within + GRACE):
            line.break_off()
            ended.wait()
    except BaseException:
        line.break_off()
        raise
    return begun.result()


def _met(conninfo: str, schema: str, line: Line) -> Patient:
    try:
        return Patient(conninfo, schema, line)
    except OutOfTime as error:
        raise ConnectionFailed(
            f"the server took the connection, and did not answer a first question within {line.within:g} s: it stands"
            " still or is slow, or a pooler stands between that has no free connection to it"
        ) from error
    except psycopg.Error as error:
        raise ConnectionFailed(
            f"the server took the connection, and did not answer a first question: {in_one_line(error)}"
        ) from error
