"""Where a hub's two connections lead, found out anew for each attempt to connect."""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pgpubsub.background import BackgroundCall, outcome
from pgpubsub.drivers.psycopg3 import parse_conninfo, psycopg
from pgpubsub.drivers.psycopg3_dial import dial
from pgpubsub.drivers.psycopg3_loop import Psycopg3LoopConnection
from pgpubsub.errors import ConnectionFailed, PubSubError
from pgpubsub.signals import was_raised_by_a_signal_handler

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
        self._asking = _Asking()
        for name, source in (("conninfo", conninfo), ("notify_conninfo", notify_conninfo or "")):
            if not isinstance(source, str) and not callable(source):
                raise TypeError(f"{name} is a str, or a function that returns one, not {type(source).__name__}")
        for source in (conninfo, notify_conninfo or ""):
            self._complete("" if callable(source) else source, listening=source is conninfo)

    async def listening(self) -> Psycopg3LoopConnection:
        """Open the connection that listens."""
        conninfo = self._complete(await self._asking.conninfo(self._listening), listening=True)
        return await dial(conninfo, listening=True)

    async def sending(self) -> Psycopg3LoopConnection:
        """Open the connection that sends."""
        if self._sending is None:
            conninfo = self._complete(await self._asking.conninfo(self._listening), listening=True, role="notify")
        else:
            conninfo = self._complete(await self._asking.conninfo(self._sending), listening=False, role="notify")
        return await dial(conninfo, listening=False)

    async def appending(self) -> Psycopg3LoopConnection:
        """Open the connection that appends to streams, to where notifications are sent."""
        source = self._listening if self._sending is None else self._sending
        conninfo = self._complete(await self._asking.conninfo(source), listening=self._sending is None, role="append")
        return await dial(conninfo, listening=False)

    async def reading(self, source: Conninfo | None) -> str:
        """The connection string for one that reads streams: from `source`, or where notifications come from."""
        if source is None:
            return self._complete(await self._asking.conninfo(self._listening), listening=True, role="read")
        return self._complete(await self._asking.conninfo(source), listening=False, role="read")

    async def handling(self) -> str:
        """The connection string for one on which handlers do their work."""
        source = self._listening if self._sending is None else self._sending
        return self._complete(await self._asking.conninfo(source), listening=self._sending is None, role="handle")

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


class _Asking:
    """Has functions say what a connection string is."""

    def __init__(self) -> None:
        self._hanging: list[tuple[object, BackgroundCall[object]]] = []

    async def conninfo(self, source: Conninfo) -> str:
        """What `source` says. Raises `ConnectionFailed`."""
        if isinstance(source, str):
            return source
        try:
            async with asyncio.timeout(PATIENCE):
                conninfo: object
                if inspect.iscoroutinefunction(source):
                    conninfo = await source()
                else:
                    conninfo = await self._in_thread(source)
                    if inspect.isawaitable(conninfo):
                        conninfo = await conninfo
        except PubSubError:
            raise
        except BaseException as error:
            if _is_meant_for_us(error):
                raise
            raise ConnectionFailed(
                f"the function that was given for the connection string failed: {error!r}"
            ) from error
        if not isinstance(conninfo, str):
            raise ConnectionFailed(
                f"the function that was given for the connection string returned {type(conninfo).__name__}, not str"
            )
        return conninfo

    async def _in_thread(self, function: Callable[[], object]) -> object:
        """Call a function that may block, in a daemon thread: one that hangs must not keep the program from ending.

        A call that an earlier attempt could not wait for is waited for again while it goes on, so that a function that
        hangs does not take one thread more with each attempt."""
        self._hanging = [(whose, call) for whose, call in self._hanging if not call.done]
        found = next((one for one in self._hanging if one[0] is function), None)
        if found is None:
            call = BackgroundCall(function)
            call.start()
        else:
            self._hanging.remove(found)
            call = found[1]
        try:
            return await outcome(call)
        finally:
            if not call.done:
                self._hanging.append((function, call))


def _is_meant_for_us(error: BaseException) -> bool:
    """Whether it is not the function that failed: our task was cancelled, or the program was interrupted meanwhile.
    A function may raise such errors too, as by `sys.exit()`, which is no reason to end the hub's thread."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    if isinstance(error, Exception) or threading.current_thread() is not threading.main_thread():
        return isinstance(error, GeneratorExit)
    return isinstance(error, GeneratorExit | KeyboardInterrupt) or was_raised_by_a_signal_handler(error)
