"""Hubs that lead to Django's databases, made when they are first used: one for each process and alias for threads, and
one for each event loop and alias for tasks.

A forked child, such as a worker of a prefork server, makes its own. Before Django makes or drops a test database they
are closed, since a database that somebody is connected to cannot be dropped.
"""

from __future__ import annotations

import asyncio
import atexit
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

from django import conf  # not settings, at which doctest looks before there are any
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.signals import connection_created
from psycopg.conninfo import make_conninfo

from pgpubsub import AsyncHub, Hub
from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.drivers.psycopg3 import LIBPQ_KEYWORDS

__all__ = ["async_hub", "before_test_databases", "close_hubs", "conninfo", "hub"]

_hubs: dict[str, OfProcess[Hub]] = {}
_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, tuple[AsyncHub, object]]] = WeakKeyDictionary()


class Closing(Protocol):
    """What has connections to a database."""

    def close_now(self) -> None:
        """Close them. They are made anew when they are needed."""


_others: WeakSet[Closing] = WeakSet()


def conninfo(using: str = DEFAULT_DB_ALIAS) -> str:
    """The libpq connection string of a database alias: as Django itself connects (but for `assume_role`), unless
    `settings.PGPUBSUB` has other parameters.

    Raises:
        ImproperlyConfigured: it does not lead to PostgreSQL.
        django.db.utils.ConnectionDoesNotExist: there is no such alias.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        raise ImproperlyConfigured(f"the database {using!r} is {connection.vendor} and not PostgreSQL")
    given = connection.get_connection_params() | _options(using)
    given.pop("client_encoding", None)
    return make_conninfo(
        **{name: value for name, value in given.items() if name in LIBPQ_KEYWORDS and value is not None}
    )


def hub(using: str = DEFAULT_DB_ALIAS) -> Hub:
    """This process's `Hub` for a database, which connects when it is first used.

    `settings.PGPUBSUB` may have a dictionary for each alias, of what `Hub` is to be given: a connection string, times,
    functions, or libpq's parameters, which override those of `DATABASES`, for example where that names a pooler.

    Raises:
        ImproperlyConfigured, django.db.utils.ConnectionDoesNotExist: as `conninfo`.
    """
    return _hubs.setdefault(using, OfProcess(partial(_make_hub, using))).get()


def _make_hub(using: str) -> Hub:
    arguments, options = _arguments(using)
    return Hub(*arguments, **options)


def async_hub(using: str = DEFAULT_DB_ALIAS) -> AsyncHub:
    """The running event loop's `AsyncHub` for a database: for asynchronous views below an ASGI server. It connects
    when it is first used and is closed with the loop. (Below WSGI each asynchronous view has a loop, and so would have
    connections, of its own: use `hub` there.)

    Raises:
        RuntimeError: no event loop is running.
        ImproperlyConfigured, django.db.utils.ConnectionDoesNotExist: as `conninfo`.
    """
    loop = asyncio.get_running_loop()
    hubs = _of_loops.setdefault(loop, {})
    if using not in hubs:
        arguments, options = _arguments(using)
        made = AsyncHub(*arguments, **options)
        closing = _closed_with_loop(made)
        with suppress(StopIteration):  # at its first step, which makes it known to the loop
            closing.asend(None).send(None)
        hubs[using] = made, closing
    return hubs[using][0]


def close_hubs() -> None:
    """Close this process's hubs for threads. They are made anew when they are used again."""
    for one in list(_hubs.values()):
        if (hub := one.take()) is not None:
            hub.close(1.0)


def before_test_databases(other: Closing) -> None:
    """Have `other`, as long as it lives, closed before Django makes or drops a test database."""
    _others.add(other)


def _arguments(using: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a hub is made with. It stays as long as the process, which may have begun in the middle of a failover."""
    conninfo(using)  # so that what is wrong with the settings is told at once
    options = {"wait_for_primary": True, **_options(using)}
    if "conninfo" in options:
        return (), options
    return (lambda: conninfo(using),), {name: options[name] for name in options if name not in LIBPQ_KEYWORDS}


def _options(using: str) -> dict[str, Any]:
    return dict(getattr(conf.settings, "PGPUBSUB", {}).get(using, {}))


def _close_async_hubs() -> None:
    here = asyncio._get_running_loop()
    closing = []
    for loop, hubs in list(_of_loops.items()):
        if loop.is_running():  # otherwise it has closed them
            closing += [(loop, asyncio.run_coroutine_threadsafe(one.close(1.0), loop)) for one, _ in hubs.values()]
        hubs.clear()
    for loop, done in closing:
        if loop is not here:  # which waits for nobody
            with suppress(TimeoutError):
                done.result(2.0)


async def _closed_with_loop(hub: AsyncHub) -> AsyncGenerator[None]:
    """Event loops end their asynchronous generators before they are closed."""
    try:
        yield
    finally:
        await hub.close(1.0)


def _on_connection(sender: object, connection: Any, **more: object) -> None:
    if connection.alias == NO_DB_ALIAS:  # which Django uses to make and drop databases, and for nothing else
        close_hubs()
        _close_async_hubs()
        for other in list(_others):
            other.close_now()


connection_created.connect(_on_connection)
atexit.register(close_hubs)
