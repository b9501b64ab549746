"""What is appended to a stream, checked: what a server would refuse is told to whoever appends it, and nobody else."""

from __future__ import annotations

from typing import NamedTuple

from pgpubsub.core.headers import Headers, as_json
from pgpubsub.core.position import stream_id
from pgpubsub.core.sql import CHANNEL_LIMIT, text_fault, utf8_length
from pgpubsub.errors import PayloadError, PayloadTooLarge

__all__ = [
    "NAME_LIMIT",
    "NewEntry",
    "check_name",
    "check_schema",
    "check_stream",
    "hint_channel",
    "new_entry",
    "with_headers",
]

NAME_LIMIT = 1000
"""Bytes in the name of a stream, and in an idempotency key: they stand in an index, which takes 2,704."""


class NewEntry(NamedTuple):
    """An entry that is to be appended."""

    stream: int
    name: str
    """The stream's."""
    key: str | None
    text: str | None
    data: bytes | None
    """The payload is one of the two."""
    headers: str | None
    """As JSON."""
    idempotency_key: str | None
    size: int
    """Bytes of payload, key and headers together."""


def new_entry(
    stream: str,
    payload: str | bytes,
    limit: int,
    *,
    key: str | None = None,
    headers: Headers | None = None,
    idempotency_key: str | None = None,
) -> NewEntry:
    """Check an entry whose payload may have at most `limit` bytes.

    Raises:
        TypeError: something is of another type.
        PayloadTooLarge: the payload is longer.
        PayloadError: text contains NUL or a lone surrogate, the headers are no JSON, or the idempotency key is too
            long.
    """
    check_stream(stream)
    text = payload if isinstance(payload, str) else None
    for what, value in (("payload", text), ("key", key), ("idempotency key", idempotency_key)):
        if value is not None:
            if not isinstance(value, str):
                raise TypeError(f"the {what} for stream {stream!r} is a str, not {type(value).__name__}: {value!r}")
            if (fault := text_fault(value)) is not None:
                raise PayloadError(f"the {what} for stream {stream!r} {fault}, which PostgreSQL cannot store as text")
    if idempotency_key is not None and utf8_length(idempotency_key) > NAME_LIMIT:
        raise PayloadError(
            f"the idempotency key for stream {stream!r} has {utf8_length(idempotency_key)} bytes and may have"
            f" {NAME_LIMIT}: use a digest of it"
        )
    json_headers = None if headers is None else as_json(f"stream {stream!r}", headers)
    size = _checked_size(stream, payload, utf8_length(key or "") + utf8_length(json_headers or ""), limit)
    data = None if text is not None else bytes(payload)  # type: ignore[arg-type]  # which was checked
    return NewEntry(stream_id(stream), stream, key, text, data, json_headers, idempotency_key, size)


def with_headers(entry: NewEntry, headers: Headers, limit: int) -> NewEntry:
    """The same entry with these headers in place of its own.

    Raises:
        TypeError, PayloadError, PayloadTooLarge: as `new_entry`.
    """
    text = as_json(f"stream {entry.name!r}", headers)
    size = entry.size - utf8_length(entry.headers or "") + utf8_length(text)
    if size > limit:
        raise PayloadTooLarge(
            f"the payload for stream {entry.name!r} has {size} bytes with its headers and max_payload is {limit}",
            size=size,
            limit=limit,
        )
    return entry._replace(headers=text, size=size)


def _checked_size(stream: str, payload: object, others: int, limit: int) -> int:
    if isinstance(payload, str):
        size = utf8_length(payload)
    elif isinstance(payload, bytes | bytearray | memoryview):
        size = memoryview(payload).nbytes
    else:
        raise TypeError(
            f"the payload for stream {stream!r} is a str or bytes, not {type(payload).__name__}; give the stream a"
            " type, stream(name, type), which encodes it, or convert it first"
        )
    if size + others > limit:
        beside = f", beside {others} of key and headers," if others else ""
        raise PayloadTooLarge(
            f"the payload for stream {stream!r} has {size} bytes{beside} and max_payload is {limit}; set that higher,"
            " or store the payload elsewhere and append a reference to it",
            size=size + others,
            limit=limit,
        )
    return size + others


def check_stream(name: str) -> None:
    """Raise unless a stream can have this name. See `check_name`.

    >>> check_stream("")
    Traceback (most recent call last):
    ValueError: the name of a stream is text of 1 to 1000 bytes, and this one is empty
    """
    check_name("stream", name, NAME_LIMIT)


def check_schema(name: str) -> None:
    """Raise unless a schema can have this name, which is quoted, and so may be any text. See `check_name`."""
    check_name("schema", name, CHANNEL_LIMIT)


def check_name(what: str, name: str, limit: int) -> None:
    """Raise unless this can be the name of a `what`, of up to `limit` bytes.

    Raises:
        TypeError: it is not a `str`.
        ValueError: it is empty, too long, contains NUL or a lone surrogate.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a {what} is a str, not {type(name).__name__}: {name!r}")
    fault = "is empty" if not name else text_fault(name)
    if fault is None and len(name) * 4 > limit and (size := utf8_length(name)) > limit:
        fault = f"has {size}"
    if fault is not None:
        raise ValueError(f"the name of a {what} is text of 1 to {limit} bytes, and this one {fault}")


def hint_channel(stream: int) -> str:
    """The channel on which readers are told that a stream may have something new.

    >>> hint_channel(-1)
    'pgpubsub.stream.ffffffffffffffff'
    """
    return f"pgpubsub.stream.{stream & 0xFFFF_FFFF_FFFF_FFFF:x}"
