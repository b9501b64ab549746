"""Sending and appending in the transaction that Django has open on a database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, overload

from asgiref.sync import sync_to_async
from django.db import DEFAULT_DB_ALIAS, connections

import pgpubsub
from pgpubsub.channel import Channel
from pgpubsub.core.frames import MAX_PAYLOAD

__all__ = ["aappend", "anotify", "append", "notify"]

T = TypeVar("T")


@overload
def notify(
    channel: Channel[T],
    payload: T,
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None: ...
@overload
def notify(
    channel: str,
    payload: str = "",
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None: ...
def notify(
    channel: str | Channel[Any],
    payload: Any = "",
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None:
    """Send a notification on the connection of a database alias: within `transaction.atomic` it goes out with the
    commit, or never; else at once.

    Args:
        channel, payload, headers, max_payload: as for `pgpubsub.notify`, and so are the errors.
        using: the alias.
    """
    _notify(channel, payload, headers, using, max_payload)


@overload
async def anotify(
    channel: Channel[T],
    payload: T,
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None: ...
@overload
async def anotify(
    channel: str,
    payload: str = "",
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None: ...
async def anotify(
    channel: str | Channel[Any],
    payload: Any = "",
    *,
    headers: Mapping[str, Any] | None = None,
    using: str = DEFAULT_DB_ALIAS,
    max_payload: int = MAX_PAYLOAD,
) -> None:
    """`notify` for asynchronous code, as Django's ORM does it: in the thread that has the connection, and in the
    transaction, if one is open there. `async_hub().notify` does without the thread."""
    await sync_to_async(_notify)(channel, payload, headers, using, max_payload)


def _notify(channel: Any, payload: Any, headers: Mapping[str, Any] | None, using: str, max_payload: int) -> None:
    pgpubsub.notify(connections[using], channel, payload, headers=headers, max_payload=max_payload)


def append(
    stream: str,
    value: str | bytes,
    key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    *,
    idempotency_key: str | None = None,
    using: str = DEFAULT_DB_ALIAS,
    schema: str = "pgpubsub",
    max_payload: int = MAX_PAYLOAD,
) -> int:
    """Append an entry to a stream on the connection of a database alias, and return its id: within
    `transaction.atomic` it is there with the commit, or never; else at once.

    Args:
        stream, value, key, headers, idempotency_key, schema, max_payload: as for `pgpubsub.append`, and so are the
            errors, but for those of the database, which are Django's.
        using: the alias.
    """
    return pgpubsub.append(
        connections[using],
        stream,
        value,
        key,
        headers,
        idempotency_key=idempotency_key,
        schema=schema,
        max_payload=max_payload,
    )


async def aappend(
    stream: str,
    value: str | bytes,
    key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    *,
    idempotency_key: str | None = None,
    using: str = DEFAULT_DB_ALIAS,
    schema: str = "pgpubsub",
    max_payload: int = MAX_PAYLOAD,
) -> int:
    """`append` for asynchronous code: see `anotify`."""
    return await sync_to_async(append)(
        stream,
        value,
        key,
        headers,
        idempotency_key=idempotency_key,
        using=using,
        schema=schema,
        max_payload=max_payload,
    )
