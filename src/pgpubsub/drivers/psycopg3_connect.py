"""Opens psycopg's connections for an event loop.

psycopg has the loop's default executor ask the name server. Its threads are few, others may have them all busy, and
there are none any more once the main thread has ended. Here it is a thread of our own that asks, before psycopg begins:
it is given addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from psycopg.abc import ConnDict
from psycopg.conninfo import conninfo_attempts, make_conninfo

from pgpubsub.background import BackgroundCall, outcome
from pgpubsub.drivers.psycopg3_conninfo import psycopg, seconds_to_connect, settled

__all__ = ["connect", "in_one_line"]

PLACE = ("host", "hostaddr", "port")


async def connect(conninfo: str) -> psycopg.AsyncConnection[Any]:
    """Open a connection in autocommit mode, waiting as long as `connect_timeout` allows for the name server, and for
    each address.

    Raises:
        psycopg.Error, OSError, UnicodeError: it cannot be had.
    """
    options = settled(conninfo)
    seconds = seconds_to_connect(options)
    try:
        attempts = await _attempts(options, seconds)
        # Each has its time, twice with target_session_attrs=prefer-standby. This is for what psycopg does not limit.
        async with asyncio.timeout((2 * len(attempts) + 1) * seconds):
            return await psycopg.AsyncConnection.connect(_addressed(conninfo, attempts), autocommit=True)
    except TimeoutError as error:
        raise psycopg.errors.ConnectionTimeout(f"no answer within {seconds:g} s") from error


def in_one_line(error: Exception) -> str:
    """libpq explains itself in paragraphs, and psycopg says once more that it failed."""
    text = " ".join(str(error).split())
    return text.removeprefix("connection failed: ").removeprefix("connection is bad: ")


async def _attempts(options: dict[str, str], seconds: float) -> list[ConnDict]:
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
    async with asyncio.timeout(seconds):
        return await outcome(call)


def _addressed(conninfo: str, attempts: Sequence[ConnDict]) -> str:
    """`conninfo` with all these places. Hosts keep their names: certificates and password files have them."""
    columns = {name: [str(attempt.get(name) or "") for attempt in attempts] for name in PLACE}
    return make_conninfo(conninfo, **{name: ",".join(values) for name, values in columns.items() if any(values)})
