"""Where a hub's two connections lead, found out anew for each attempt to connect."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any

from pgpubsub.background import BackgroundCall
from pgpubsub.drivers.psycopg3 import parse_conninfo, psycopg
from pgpubsub.drivers.psycopg3_dial import dial
from pgpubsub.drivers.psycopg3_loop import Psycopg3LoopConnection
from pgpubsub.errors import ConnectionFailed, PubSubError

__all__ = ["Addresses", "Conninfo"]

Conninfo = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A connection string, or a plain or asynchronous function that returns one."""

HOST = socket.gethostname()

PATIENCE = 30.0
"""Seconds that a function for a connection string may take."""


class Addresses:
    """See the module; the arguments are `AsyncHub`'s.

    Raises:
        ConninfoError: a connection string or keyword is malformed or unknown.
    """

    def __init__(self, conninfo: Conninfo, notify_conninfo: Conninfo | None, keywords: Mapping[str, Any]) -> None:
        self._listening = conninfo
        self._sending = notify_conninfo
        self._keywords = keywords
        for name, source in (("conninfo", conninfo), ("notify_conninfo", notify_conninfo or "")):
            if not isinstance(source, str) and not callable(source):
                raise TypeError(f"{name} is a str, or a function that returns one, not {type(source).__name__}")
        for source in (conninfo, notify_conninfo or ""):
            self._complete("" if callable(source) else source, listening=source is conninfo)

    async def listening(self) -> Psycopg3LoopConnection:
        """Open the connection that listens."""
        conninfo = self._complete(await _resolve(self._listening), listening=True)
        return await dial(conninfo, listening=True)

    async def sending(self) -> Psycopg3LoopConnection:
        """Open the connection that sends."""
        if self._sending is None:
            conninfo = self._complete(await _resolve(self._listening), listening=True, role="notify")
        else:
            conninfo = self._complete(await _resolve(self._sending), listening=False, role="notify")
        return await dial(conninfo, listening=False)

    async def appending(self) -> Psycopg3LoopConnection:
        """Open the connection that appends to streams, to where notifications are sent."""
        source = self._listening if self._sending is None else self._sending
        conninfo = self._complete(await _resolve(source), listening=self._sending is None, role="append")
        return await dial(conninfo, listening=False)

    async def reading(self, source: Conninfo | None) -> str:
        """The connection string for one that reads streams: from `source`, or where notifications come from."""
        if source is None:
            return self._complete(await _resolve(self._listening), listening=True, role="read")
        return self._complete(await _resolve(source), listening=False, role="read")

    async def handling(self) -> str:
        """The connection string for one on which handlers do their work."""
        source = self._listening if self._sending is None else self._sending
        return self._complete(await _resolve(source), listening=self._sending is None, role="handle")

    def check_reading(self, source: Conninfo) -> None:
        """Raise unless `source` can be one to read from.

        Raises:
            ConninfoError: it is malformed.
            TypeError: it is neither text nor a function.
        """
        if not isinstance(source, str) and not callable(source):
            raise TypeError(f"read_conninfo is a str, or a function that returns one, not {type(source).__name__}")
        self._complete("" if callable(source) else source, listening=False)

    def _complete(self, conninfo: str | None, *, listening: bool, role: str = "listen") -> str:
        if listening:
            keywords = self._keywords
        else:
            parse_conninfo(conninfo, {})  # whether it is one
            said = psycopg.conninfo.conninfo_to_dict(conninfo or "")  # and not what we would add
            keywords = {name: value for name, value in self._keywords.items() if name not in said}
        name = f"pgpubsub {role} {os.getpid()}@{HOST}"
        return parse_conninfo(conninfo, keywords, application_name=name.encode()[:63].decode(errors="ignore"))


async def _in_thread(function: Callable[[], object]) -> object:
    """Call a function that may block, in a daemon thread: one that hangs must not keep the program from ending."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def on_done() -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(done.cancel)

    call = BackgroundCall(function, on_done)
    call.start()
    await asyncio.wait({done})
    return call.result()


async def _resolve(source: Conninfo) -> str:
    if isinstance(source, str):
        return source
    try:
        async with asyncio.timeout(PATIENCE):
            if inspect.iscoroutinefunction(source):
                conninfo = await source()
            else:
                conninfo = await _in_thread(source)
                if inspect.isawaitable(conninfo):
                    conninfo = await conninfo
    except PubSubError:
        raise
    except Exception as error:
        raise ConnectionFailed(f"the function that was given for the connection string failed: {error!r}") from error
    if not isinstance(conninfo, str):
        raise ConnectionFailed(
            f"the function that was given for the connection string returned {type(conninfo).__name__}, not str"
        )
    return conninfo
