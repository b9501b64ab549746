"""The LISTEN and NOTIFY statements, the only quoting, and the limits that the server would enforce late or silently.

The facts are from the PostgreSQL manual, NOTIFY and LISTEN, and were measured on 15 and 18:

- A channel is an identifier of at most 63 bytes (NAMEDATALEN - 1). `LISTEN` *truncates* a longer one with
  only a notice, `pg_notify()` raises: without a check the two would silently disagree.
- An unquoted identifier folds to lower case and a string does not, so every name is quoted here.
- A payload is at most 7,999 bytes.

Lengths are counted in UTF-8. In a database with another encoding the server counts in that encoding, in
which text is never longer than in UTF-8 for the encodings in common use, so the check errs on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable

from pgpubsub.errors import ChannelNameError, PayloadError

__all__ = [
    "CHANNEL_LIMIT",
    "PAYLOAD_LIMIT",
    "UNLISTEN_ALL",
    "check_channel",
    "check_payload",
    "listen",
    "notify",
    "quote_identifier",
    "script",
    "unlisten",
]

CHANNEL_LIMIT = 63
"""Bytes in a channel name: NAMEDATALEN - 1 of a server built with the default."""

PAYLOAD_LIMIT = 7999
"""Bytes in a payload: NOTIFY_PAYLOAD_MAX_LENGTH - 1 of a server with 8 kB blocks."""

UNLISTEN_ALL = "UNLISTEN *"


def quote_identifier(name: str) -> str:
    """Quote an SQL identifier (PostgreSQL manual, "Identifiers and Key Words").

    >>> print(quote_identifier('a"b; DROP TABLE users'))
    "a""b; DROP TABLE users"
    """
    return '"' + name.replace('"', '""') + '"'


def listen(channel: str) -> str:
    """
    >>> print(listen("Orders"))
    LISTEN "Orders"
    """
    return f"LISTEN {quote_identifier(channel)}"


def unlisten(channel: str) -> str:
    """
    >>> print(unlisten("Orders"))
    UNLISTEN "Orders"
    """
    return f"UNLISTEN {quote_identifier(channel)}"


def notify(channel: str, payload: str) -> str:
    """The function call that sends, given the driver's two placeholders.

    A function, since `NOTIFY` takes no parameters; with its schema, since a search path may hide it.

    >>> notify("%s", "%s")
    'SELECT pg_catalog.pg_notify(%s, %s)'
    """
    return f"SELECT pg_catalog.pg_notify({channel}, {payload})"


def script(statements: Iterable[str]) -> str:
    """Join statements so that they travel in one round trip, as one implicit transaction: all or none.

    >>> script(["LISTEN a", "LISTEN b"])
    'LISTEN a; LISTEN b'
    """
    return "; ".join(statements)


def check_channel(channel: str) -> None:
    """Raise unless `channel` can be listened to and notified of under exactly this name.

    Raises:
        TypeError: it is not a `str`.
        ChannelNameError: it is empty, longer than 63 bytes, contains NUL or a lone surrogate.

    >>> check_channel("any text, 'quoted' or \\"not\\"; até 63 bytes")
    >>> check_channel("")
    Traceback (most recent call last):
    pgpubsub.errors.ChannelNameError: a channel name cannot be empty
    """
    if not isinstance(channel, str):
        raise TypeError(f"a channel name is a str, not {type(channel).__name__}: {channel!r}")
    if not channel:
        raise ChannelNameError("a channel name cannot be empty")
    fault = _text_fault(channel)
    if fault is not None:
        raise ChannelNameError(f"channel name {channel!r} {fault}, which PostgreSQL cannot store")
    size = len(channel.encode())
    if size > CHANNEL_LIMIT:
        raise ChannelNameError(
            f"channel name {channel!r} has {size} bytes and PostgreSQL's limit is {CHANNEL_LIMIT}; use a shorter"
            " name, or a digest of the long one on both sides"
        )


def check_payload(channel: str, payload: str) -> None:
    """Raise unless `payload` fits into one notification on `channel` (named in the message).

    Raises:
        TypeError: it is not a `str`.
        PayloadError: it is longer than 7,999 bytes, contains NUL or a lone surrogate.

    >>> check_payload("orders", "x" * 8000)
    Traceback (most recent call last):
    pgpubsub.errors.PayloadError: payload for channel 'orders' has 8000 bytes and PostgreSQL's limit is 7999; \
store it in a table and send its key
    """
    if not isinstance(payload, str):
        raise TypeError(
            f"the payload for channel {channel!r} is a str, not {type(payload).__name__}; convert it first,"
            " for example with json.dumps"
        )
    fault = _text_fault(payload)
    if fault is not None:
        raise PayloadError(f"payload for channel {channel!r} {fault}, which PostgreSQL cannot store as text")
    # A character has at most four bytes, so most payloads need no encoding to be measured.
    if len(payload) * 4 <= PAYLOAD_LIMIT or (size := len(payload.encode())) <= PAYLOAD_LIMIT:
        return
    raise PayloadError(
        f"payload for channel {channel!r} has {size} bytes and PostgreSQL's limit is {PAYLOAD_LIMIT};"
        " store it in a table and send its key",
        size=size,
        limit=PAYLOAD_LIMIT,
    )


def _text_fault(text: str) -> str | None:
    """What keeps `text` from being stored by a server, or None."""
    if "\0" in text:
        return "contains NUL"
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    return None
