"""The LISTEN and NOTIFY statements, the only quoting, and the limits that the server would enforce late or silently.

The facts are from the PostgreSQL manual, NOTIFY and LISTEN, and were measured on 15 and 18:

- A channel is an identifier of at most 63 bytes (NAMEDATALEN - 1). `LISTEN` *truncates* a longer one with
  only a notice, `pg_notify()` raises: without a check the two would silently disagree.
- An unquoted identifier folds to lower case and a string does not, so every name is quoted here.
- A payload is at most 7,999 bytes. Longer ones are cut up by `core.frames`.

Lengths are counted in UTF-8. In a database with another encoding the server counts in that one, in which text is seldom
longer: see `room`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count

from pgpubsub.errors import ChannelNameError, PayloadError, PayloadTooLarge

__all__ = [
    "CHANNEL_LIMIT",
    "LARGEST",
    "PAYLOAD_LIMIT",
    "UNLISTEN_ALL",
    "append",
    "check_channel",
    "check_max_payload",
    "check_payload",
    "columns",
    "listen",
    "notify",
    "notify_all",
    "quote_identifier",
    "quote_literal",
    "room",
    "script",
    "shown",
    "text_fault",
    "unlisten",
    "utf8_length",
]

CHANNEL_LIMIT = 63
"""Bytes in a channel name: NAMEDATALEN - 1 of a server built with the default."""

PAYLOAD_LIMIT = 7999
"""Bytes in a payload: NOTIFY_PAYLOAD_MAX_LENGTH - 1 of a server with 8 kB blocks."""

SHOWN = 80
"""Characters of what somebody gave that a message quotes."""

LARGEST = 256 << 20
"""Bytes that one statement of ours carries, at most. The server takes 1 GB, and copies it more than once."""

UNLISTEN_ALL = "UNLISTEN *"


def quote_identifier(name: str) -> str:
    """Quote an SQL identifier (PostgreSQL manual, "Identifiers and Key Words").

    >>> print(quote_identifier('a"b; DROP TABLE users'))
    "a""b; DROP TABLE users"
    """
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote a string constant, whatever `standard_conforming_strings` says (PostgreSQL manual, "String Constants").

    >>> print(quote_literal("it's"))
    'it''s'
    """
    quoted = "'" + text.replace("'", "''") + "'"
    return " E" + quoted.replace("\\", "\\\\") if "\\" in text else quoted


def listen(channel: str) -> str:
    """
    >>> print(listen("Orders"))
    LISTEN "Orders"
    """
    return f"LISTEN {quote_identifier(channel)}"


def refuse_truncation(channels: Iterable[str]) -> list[str]:
    """What to run before a LISTEN to `channels`: a statement that fails where a name has more bytes in the server's
    encoding than in UTF-8, and too many. LISTEN would cut it off with no more than a notice, and listen to another.
    Nothing where that cannot be: see `room`.

    >>> refuse_truncation(["Orders", "Aufträge"])
    []
    """
    doubtful = [name for name in channels if not name.isascii() and 2 * utf8_length(name) > CHANNEL_LIMIT]
    if not doubtful:
        return []
    names = ", ".join(map(quote_literal, doubtful))
    return [
        f"SELECT pg_catalog.pg_notify(name, '') FROM pg_catalog.unnest(ARRAY[{names}]) AS name"
        f" WHERE pg_catalog.octet_length(name) > {CHANNEL_LIMIT}"
    ]


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


def notify_all(channels: str, payloads: str, separator: str) -> str:
    """The statement that sends several, in one transaction and in order, given the placeholders for what `columns`
    returns. It returns one row, and not one for each. From PostgreSQL 14 on.

    >>> notify_all("%s", "%s", "%s")
    'SELECT pg_catalog.count(pg_catalog.pg_notify(channel, payload)) FROM (SELECT CAST(%s AS pg_catalog.text), \
CAST(%s AS pg_catalog.text), CAST(%s AS pg_catalog.text)) AS given (channels, payloads, separator), \
ROWS FROM (pg_catalog.string_to_table(channels, separator), pg_catalog.string_to_table(payloads, separator)) \
AS message (channel, payload)'
    """
    given = ", ".join(f"CAST({placeholder} AS pg_catalog.text)" for placeholder in (channels, payloads, separator))
    split = ", ".join(f"pg_catalog.string_to_table({column}, separator)" for column in ("channels", "payloads"))
    return (
        "SELECT pg_catalog.count(pg_catalog.pg_notify(channel, payload))"
        f" FROM (SELECT {given}) AS given (channels, payloads, separator), ROWS FROM ({split})"
        " AS message (channel, payload)"
    )


def append(
    schema: str, stream: str, payload: str, key: str, headers: str, idempotency_key: str, *, in_hex: bool
) -> str:
    """The function call that appends to a stream, given the driver's placeholders. All are text, since drivers differ
    in what they make of other types; bytes are written as hexadecimal numbers.

    >>> append("pgpubsub", "$1", "$2", "$3", "$4", "$5", in_hex=False)
    'SELECT "pgpubsub".append(CAST($1 AS text), CAST($2 AS text), CAST($3 AS text), CAST(CAST($4 AS text) AS jsonb), \
CAST($5 AS text))'
    """
    stream, payload, key, headers, idempotency_key = (
        f"CAST({placeholder} AS text)" for placeholder in (stream, payload, key, headers, idempotency_key)
    )
    function = f"{quote_identifier(schema)}.{'append_bytes' if in_hex else 'append'}"
    payload = f"pg_catalog.decode({payload}, 'hex')" if in_hex else payload
    return f"SELECT {function}({stream}, {payload}, {key}, CAST({headers} AS jsonb), {idempotency_key})"


def columns(messages: Sequence[tuple[str, str]]) -> tuple[str, str, str]:
    """Two or more channels and payloads, each joined to one text, and what separates them: text that occurs in none.
    An array would do as well, but quoting its elements and reading them took two thirds of a long message's time.

    >>> columns([("a", "one"), ("b", "two")])
    ('a\\x01b', 'one\\x01two', '\\x01')
    """
    lists = [[channel for channel, _ in messages], [text for _, text in messages]]
    separator = "\1"
    channels, payloads = map(separator.join, lists)
    if channels.count(separator) + payloads.count(separator) != 2 * len(messages) - 2:
        taken = set(re.findall("\1([0-9]+)\2", channels + payloads))
        separator = next(f"\1{number}\2" for number in count(1) if str(number) not in taken)
        channels, payloads = map(separator.join, lists)
    return channels, payloads, separator


def room(server_encoding: str | None) -> int:
    """Bytes of UTF-8 that surely fit into a payload of a server with this encoding (None: it did not say), if they are
    not ASCII, which has one byte a character everywhere. In a few encodings a character may have twice as many bytes
    (PostgreSQL manual, "Supported Character Sets").

    >>> room("UTF8"), room("EUC_JP")
    (7999, 3999)
    """
    wide = server_encoding is not None and server_encoding.startswith(("EUC_", "MULE_"))
    return PAYLOAD_LIMIT // 2 if wide else PAYLOAD_LIMIT


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


def shown(text: str) -> str:
    """Text that somebody gave, as a message quotes it: not all, however long it is. What a message says is kept, logged
    and sent to others.

    >>> shown("orders"), len(shown("x" * 1_000_000))
    ("'orders'", 85)
    """
    return repr(text) if len(text) <= SHOWN else f"{text[:SHOWN]!r}..."


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
    fault = text_fault(channel)
    if fault is not None:
        raise ChannelNameError(f"channel name {shown(channel)} {fault}, which PostgreSQL cannot store")
    size = len(channel.encode())
    if size > CHANNEL_LIMIT:
        raise ChannelNameError(
            f"channel name {shown(channel)} has {size} bytes and PostgreSQL's limit is {CHANNEL_LIMIT}; use a shorter"
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
    fault = text_fault(payload)
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
    ValueError: max_payload is a number of bytes from 1 to 268435456, not 0
    """
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise TypeError(f"max_payload is a number of bytes, not {limit!r}")
    if not 1 <= limit <= LARGEST:
        raise ValueError(f"max_payload is a number of bytes from 1 to {LARGEST}, not {limit!r}")


def text_fault(text: str) -> str | None:
    """What keeps `text` from being stored by a server, or None."""
    if "\0" in text:
        return "contains NUL"
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return "contains a lone surrogate"
    return None
