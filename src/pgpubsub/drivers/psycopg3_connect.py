"""Opens psycopg's connections for an event loop.

psycopg has the loop's default executor ask the name server. Its threads are few, others may have them all busy, and
there are none any more once the main thread has ended. Here it is a thread of our own that asks, before psycopg begins:
it is given addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from traceback import clear_frames
from typing import Any

from psycopg.abc import ConnDict
from psycopg.conninfo import conninfo_attempts, make_conninfo

from pgpubsub.background import BackgroundCall, outcome
from pgpubsub.drivers.limits import break_socket
from pgpubsub.drivers.psycopg3_conninfo import psycopg, seconds_to_connect, settled

__all__ = ["answered_within", "connect", "in_one_line"]

PLACE = ("host", "hostaddr", "port")


async def connect(conninfo: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode, waiting as long as `connect_timeout` allows for the name of each host, and
    for each address.

    Raises:
        psycopg.Error, OSError, UnicodeError: it cannot be had.
    """
    options = settled(conninfo)
    seconds = seconds_to_connect(options)
    limit, who = seconds * (options.get("host", "").count(",") + 1), " from the name server"
    try:
        async with asyncio.timeout(limit):
            attempts = await _attempts(options)
        # Each has its time, twice with target_session_attrs=prefer-standby. This is for what psycopg does not limit.
        limit, who = seconds * (2 * len(attempts) + 1), ""
        async with asyncio.timeout(limit):
            try:
                return await psycopg.AsyncConnection.connect(_addressed(conninfo, attempts), autocommit=True)
            except asyncio.CancelledError as error:
                clear_frames(error.__traceback__)  # who keeps the error would keep the half-made connection in them
                raise
    except TimeoutError as error:
        raise psycopg.errors.ConnectionTimeout(f"no answer{who} within {limit:g} s") from error


@contextmanager
def answered_within(seconds: float, conn: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """What a connection is asked in here it has answered by then, or else it is broken off. It is not cancelled:
    psycopg would ask the server to cancel the statement, and wait for that.

    Raises:
        psycopg.errors.ConnectionTimeout: it has not.
    """
    timer = asyncio.get_running_loop().call_later(seconds, break_socket, lambda: conn.pgconn.socket)
    try:
        yield
    except psycopg.OperationalError as error:
        if asyncio.get_running_loop().time() < timer.when():
            raise
        raise psycopg.errors.ConnectionTimeout(f"no answer within {round(seconds, 1):g} s") from error
    finally:
        timer.cancel()


def in_one_line(error: Exception) -> str:
    """libpq explains itself in paragraphs, and psycopg says once more that it failed."""
    text = " ".join(str(error).split())
    return text.removeprefix("connection failed: ").removeprefix("connection is bad: ")


async def _attempts(options: dict[str, str]) -> list[ConnDict]:
    """The places to try, each by its address: one host may have several."""
    # In their order, and once each: psycopg shuffles them, and chooses among primaries and standbys, when it connects.
    places = {name: options[name] for name in PLACE if name in options}
    call = BackgroundCall(
        partial(conninfo_attempts, {**places, "load_balance_hosts": "disable", "target_session_attrs": "any"})
    )
    try:
        call.start()
    except RuntimeError as error:
        raise psycopg.OperationalError(f"no thread could ask the name server: {error}") from error
    return await outcome(call)


def _addressed(conninfo: str, attempts: Sequence[ConnDict]) -> str:
    """`conninfo` with all these places. Hosts keep their names: certificates and password files have them."""
    columns = {name: [str(attempt.get(name) or "") for attempt in attempts] for name in PLACE}
    return make_conninfo(conninfo, **{name: ",".join(values) for name, values in columns.items() if any(values)})
