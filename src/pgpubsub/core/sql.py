"""The LISTEN and NOTIFY statements, the only quoting, and the limits that the server would enforce late or silently.

The facts are from the PostgreSQL manual, NOTIFY and LISTEN, and were measured on 15 and 18:

- A channel is an identifier of at most 63 bytes (NAMEDATALEN - 1). `LISTEN` *truncates* a longer one with
  only a notice, `pg_notify()` raises: without a check the two would silently disagree.
- An unquoted identifier folds to lower case and a string does not, so every name is quoted here.
- A payload is at most 7,999 bytes. Longer ones are cut up by `core.frames`.

Lengths are counted in UTF-8. In a database with another encoding the server counts in that one, in which text is
seldom longer: in EUC_JP, EUC_TW and MULE_INTERNAL some characters are.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from pgpubsub.errors import ChannelNameError, PayloadError, PayloadTooLarge

__all__ = [
    "CHANNEL_LIMIT",
    "PAYLOAD_LIMIT",
    "UNLISTEN_ALL",
    "array",
    "check_channel",
    "check_max_payload",
    "check_payload",
    "listen",
    "notify",
    "notify_all",
    "quote_identifier",
    "script",
    "unlisten",
    "utf8_length",
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


def notify_all(channels: str, payloads: str) -> str:
    """The statement that sends several, in one transaction and in order: each placeholder is for an `array` as text,
    which every driver can pass. It returns one row, and not one for each.

    >>> notify_all("%s", "%s")
    'SELECT pg_catalog.count(pg_catalog.pg_notify(channel, payload)) \
FROM unnest(CAST(CAST(%s AS text) AS text[]), CAST(CAST(%s AS text) AS text[])) AS message (channel, payload)'
    """
    columns = ", ".join(f"CAST(CAST({placeholder} AS text) AS text[])" for placeholder in (channels, payloads))
    source = f"FROM unnest({columns}) AS message (channel, payload)"
    return f"SELECT pg_catalog.count(pg_catalog.pg_notify(channel, payload)) {source}"


def array(texts: Iterable[str]) -> str:
    """An array of texts as text (PostgreSQL manual, "Array Input and Output Syntax"). They contain no NUL.

    >>> print(array(["a", 'say "b"', "c\\\\d", "", "NULL"]))
    {"a","say \\"b\\"","c\\\\d","","NULL"}
    """
    # One pass over all of them for each of the three, rather than three for each of them.
    joined = "\0".join(texts).replace("\\", "\\\\").replace('"', '\\"').replace("\0", '","')
    return f'{{"{joined}"}}'


def utf8_length(text: str) -> int:
    """Bytes that `text` has in UTF-8. It may come from a database without an encoding.

    >>> utf8_length("é")
    2
    """
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))


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
    _check_name(channel)


@lru_cache(1024)  # a program has few, and looks at one with each message
def _check_name(channel: str) -> None:
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


def check_payload(channel: str, payload: str, limit: int) -> None:
    """Raise unless `payload` can be sent on `channel` (named in the message) and has at most `limit` bytes.

    Raises:
        TypeError: it is not a `str`.
        PayloadTooLarge: it is longer.
        PayloadError: it contains NUL or a lone surrogate.

    >>> check_payload("orders", "x" * 8000, limit=7999)
    Traceback (most recent call last):
    pgpubsub.errors.PayloadTooLarge: the payload for channel 'orders' has 8000 bytes and max_payload is 7999; ...
    """
    if not isinstance(payload, str):
        raise TypeError(
            f"the payload for channel {channel!r} is a str, not {type(payload).__name__}; send it to a"
            f" pgpubsub.Channel({channel!r}, type), which encodes it, or convert it first"
        )
    fault = _text_fault(payload)
    if fault is not None:
        raise PayloadError(f"the payload for channel {channel!r} {fault}, which PostgreSQL cannot store as text")
    # A character has at most four bytes, so most payloads need no encoding to be measured.
    if len(payload) * 4 > limit and (size := utf8_length(payload)) > limit:
        raise PayloadTooLarge(
            f"the payload for channel {channel!r} has {size} bytes and max_payload is {limit}; set that higher here"
            " and where it is received, or store the payload in a table and send its key",
            size=size,
            limit=limit,
        )


def check_max_payload(limit: int) -> None:
    """Raise unless `limit` can be what a user calls `max_payload`.

    >>> check_max_payload(0)
    Traceback (most recent call last):
    ValueError: max_payload is a number of bytes, at least 1, not 0
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"max_payload is a number of bytes, not {limit!r}")
    if limit < 1:
        raise ValueError(f"max_payload is a number of bytes, at least 1, not {limit!r}")


def _text_fault(text: str) -> str | None:
    """What keeps `text` from being stored by a server, or None."""
    if "\0" in text:
        return "contains NUL"
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    return None
