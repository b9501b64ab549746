"""Headers: names and JSON values that travel beside a payload, whether that is a notification's or an entry's.

A notification has no place for them, so a message with headers is a text of two parts, which travels in frames
(`core.frames`): a JSON object without line feeds, a line feed, and the payload.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import isinf
from typing import Any, NoReturn, Self

from pgpubsub.core.sql import text_fault, utf8_length
from pgpubsub.errors import PayloadError, PayloadTooLarge

__all__ = ["HEADERS_LIMIT", "Headed", "Headers", "as_json", "parted", "read_json", "with_headers"]

Headers = Mapping[str, Any]
"""As they are given: names and JSON values."""

HEADERS_LIMIT = 1 << 14
"""Bytes of a notification's headers as JSON, at most, since whoever receives them makes objects of them, which take
more memory than their text. (An entry's count for its `max_payload`.)"""


class Headed(str):
    """A text that has headers. It begins as a frame does, so that who looks for those finds it too, and nobody has to
    look at other texts once more."""

    __slots__ = ("headers", "payload")

    headers: str
    """As JSON."""
    payload: str

    def __new__(cls, headers: str, payload: str) -> Self:
        self = super().__new__(cls, f"{_MARK}{headers}\n{payload}")
        self.headers = headers
        self.payload = payload
        return self

    @property
    def whole(self) -> str:
        """What travels, in parts if need be."""
        return self[len(_MARK) :]


_MARK = "pgpubsub/2 "

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def as_json(whose: str, headers: Headers) -> str:
    """A JSON object, on one line. `whose` they are, such as "channel 'orders'", for the errors.

    Raises:
        TypeError: they are no mapping from names.
        PayloadError: a value is no JSON, or text that PostgreSQL cannot store.

    >>> as_json("channel 'orders'", {"by": "Ann"})
    '{"by":"Ann"}'
    """
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise TypeError(f"the headers for {whose} are a mapping from names to JSON values, not {headers!r}")
    try:
        text = _encode(dict(headers))
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"the headers for {whose} are no JSON: {error}") from error
    fault = "contains NUL" if "\\u0000" in text.replace("\\\\", "") else text_fault(text)
    if fault is not None:
        raise PayloadError(f"a header for {whose} {fault}, which PostgreSQL cannot store as text")
    return text


def with_headers(message: tuple[str, str], headers: Headers, limit: int) -> tuple[str, str]:
    """A checked message with these headers, in place of those that it may have. Without any, it is the plain one.

    Raises:
        TypeError, PayloadError: as `as_json`.
        PayloadTooLarge: they are longer than `HEADERS_LIMIT`, or together with the payload than `limit` bytes.

    >>> with_headers(("orders", "17"), {"by": "Ann"}, 100)[1].whole
    '{"by":"Ann"}\\n17'
    """
    channel, text = message
    payload = text.payload if isinstance(text, Headed) else text
    text = as_json(f"channel {channel!r}", headers)
    if not headers:
        return channel, payload
    size = utf8_length(text)
    if size > HEADERS_LIMIT:
        raise PayloadTooLarge(
            f"the headers for channel {channel!r} have {size} bytes and may have {HEADERS_LIMIT}: put what is long into"
            " the payload",
            size=size,
            limit=HEADERS_LIMIT,
        )
    if (total := size + 1 + utf8_length(payload)) > limit:
        raise PayloadTooLarge(
            f"the payload for channel {channel!r} has {total} bytes with its headers and max_payload is {limit}; set"
            " that higher here and where it is received, or store the payload in a table and send its key",
            size=total,
            limit=limit,
        )
    return channel, Headed(text, payload)


def parted(whole: str) -> tuple[dict[str, Any], int, str]:
    """The headers, how many bytes they have, and the payload of what has travelled.

    Raises:
        ValueError: that is not what it is.
    """
    end = whole.find("\n", 0, HEADERS_LIMIT + 1)
    text = whole[: max(end, 0)]
    if end < 0 or (size := utf8_length(text)) > HEADERS_LIMIT:
        raise ValueError(f"there is no line feed behind at most {HEADERS_LIMIT} bytes")
    return read_json(text), size, whole[end + 1 :]


def read_json(text: str) -> dict[str, Any]:
    """The headers that somebody has sent.

    Raises:
        ValueError: that is no JSON object, or one that Python cannot read.
    """
    try:
        headers = _decode(text)
    except RecursionError:
        raise ValueError("they are nested too deeply") from None
    if not isinstance(headers, dict):
        raise ValueError("they are no JSON object")
    return headers


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(number: str) -> float:
    if isinf(value := float(number)):
        raise ValueError("a number in them is too large")
    return value


_decode = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).decode
