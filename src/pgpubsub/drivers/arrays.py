"""Columns of values as PostgreSQL's arrays in binary form, which the server reads several times faster than text.

The form is that of `array_send` (PostgreSQL source, `arrayfuncs.c`): dimensions, whether there are NULLs, the type of
the elements, the length and the first index; then each element's length, -1 for NULL, and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

__all__ = ["Column", "Question"]

_HEADER = struct.Struct("!iiiii")
_LENGTH = struct.Struct("!i")
_NUMBER = struct.Struct("!iq")
_NULL = _LENGTH.pack(-1)

OIDS = {"bigint": 20, "text": 25, "bytea": 17}


class Column(NamedTuple):
    """Values of one type, None for NULL."""

    type: Literal["bigint", "text", "bytea"]
    values: Sequence[int | str | bytes | None]

    def encode(self, encoding: str) -> bytes:
        """As an array, with text in `encoding`.

        >>> Column("text", ["a", None]).encode("utf-8").hex(" ", -4)
        '00000001 00000001 00000019 00000002 00000001 00000001 61ffffff ff'
        """
        header = _HEADER.pack(1, 1, OIDS[self.type], len(self.values), 1)
        parts = [header]
        for value in self.values:
            if value is None:
                parts.append(_NULL)
            elif isinstance(value, int):
                parts.append(_NUMBER.pack(8, value))
            else:
                content = value.encode(encoding) if isinstance(value, str) else value
                parts += (_LENGTH.pack(len(content)), content)
        return b"".join(parts)


class Question(NamedTuple):
    """A statement with its parameters $1, $2 and so on: columns, and text without NUL of which the statement says what
    it stands for."""

    text: str
    parameters: Sequence[Column | str | None]
