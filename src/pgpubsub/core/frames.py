"""How a payload of any length travels in notifications of at most 7,999 bytes, and how it is put together again.

A payload that fits goes as it is, so that psql, triggers and other libraries understand us and we understand them. A
longer one is cut into chunks, each the payload of one notification of the same channel:

    pgpubsub/1 0123456789abcdef 2/3 text
    format/version, message, index/count, and up to the end this part of the payload

All chunks of a message are sent in order by one statement. PostgreSQL delivers the notifications of a transaction
together or not at all, in order, and no others between them (they are queued under a lock, PostgreSQL manual, NOTIFY),
so whoever joins them needs to remember one message at a time. The message's name is random, since equal notifications
of one transaction are merged into one. A payload that begins as a chunk does is itself sent as a chunk, however short,
and what looks like none to `HEADER` is somebody's plain text: so every text arrives as it was.

A message with headers (`core.headers`) travels in chunks of version 2, however short it is. They are alike, and what is
joined of them is a JSON object, a line feed and the payload.

docs/frames.md has all of this for other languages, with test vectors. It promises: what `join` returns is complete
messages in order, exactly as they were sent, and an `Unjoined` where one began or went on and was not complete.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from pgpubsub.core.headers import Headed, parted
from pgpubsub.core.sql import PAYLOAD_LIMIT, utf8_length
from pgpubsub.events import Notify, headed

__all__ = ["MAX_PAYLOAD", "Message", "NewId", "Partial", "Run", "Unjoined", "join", "pack", "unfinished"]

Message = tuple[str, str]
"""A channel and a text, or a `Headed`."""

NewId = Callable[[], str]
"""Makes the name of a message: 16 lower-case hexadecimal digits, random."""

MAX_PAYLOAD = 16 << 20
"""Bytes of a payload, at most, unless the user says otherwise."""

PREFIX = "pgpubsub/"

VERSIONS = ("1", "2")
"""Without headers, and with."""

HEADER = re.compile(r"pgpubsub/([1-9]\d{0,3}) ([0-9a-f]{16}) (?:([1-9]\d{0,8})/([1-9]\d{0,8}) )?", re.ASCII)
"""What a chunk begins with. Later versions will begin alike up to the second space."""

CHUNK = PAYLOAD_LIMIT - 63
"""Bytes of text in a chunk: what a header of the greatest length leaves, and a little less."""

FEW = 1000
PART = 256
"""A message may have a few parts, and one more for each so many bytes of `max_payload`: what is kept of many small ones
is more than their text."""


# -- sending


def pack(messages: Sequence[Message], new_id: NewId, room: int | None = None) -> list[Message]:
    """What is to be sent, in this order and in one statement, for `messages` to arrive as often as they are given.

    `room` is what `core.sql.room` says of the server; by default that it speaks UTF-8.

    A message that would be merged with an equal one before it becomes a frame, and with that another one.

    >>> pack([("a", "one"), ("a", "one"), ("b", "pgpubsub/ is text")], lambda: "00000000000000ff")
    [('a', 'one'), ('a', 'pgpubsub/1 00000000000000ff 1/1 one'), \
('b', 'pgpubsub/1 00000000000000ff 1/1 pgpubsub/ is text')]
    """
    room = room or PAYLOAD_LIMIT
    distinct = len(messages) == 1 or len(set(messages)) == len(messages)
    if distinct and all(len(text) * 4 <= room and text[:9] != PREFIX for _, text in messages):
        return list(messages)
    packed: list[Message] = []
    seen: set[Message] = set()
    for message in messages:
        channel, text = message
        most = PAYLOAD_LIMIT if text.isascii() else room
        if message in seen or text.startswith(PREFIX) or utf8_length(text) > most:
            packed += [(channel, chunk) for chunk in _chunks(text, new_id())]
        else:
            seen.add(message)
            packed.append(message)
    return packed


def _chunks(text: str, name: str) -> list[str]:
    version, whole = (2, text.whole) if isinstance(text, Headed) else (1, text)
    pieces = _cut(whole)
    return [f"{PREFIX}{version} {name} {index}/{len(pieces)} {piece}" for index, piece in enumerate(pieces, 1)]


def _cut(text: str) -> list[str]:
    """Divide `text` into pieces that a chunk has room for in any server's encoding.

    ASCII has one byte a character everywhere. Other characters may have up to four where UTF-8 has two (PostgreSQL
    manual, "Supported Character Sets"), so their pieces are half as long.
    """
    if text.isascii():
        return [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)] or [""]
    data = text.encode()
    pieces = []
    start = 0
    while start < len(data):
        end = min(start + CHUNK // 2, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        pieces.append(data[start:end].decode())
        start = end
    return pieces


# -- receiving

Parts: TypeAlias = "tuple[()] | tuple[Parts, str]"
"""Texts, the last with those before it, which are shared and not copied: a long message may have very many."""


class Partial(NamedTuple):
    """The beginning of a message whose end has not come."""

    pid: int
    channel: str
    name: str
    version: str
    total: int
    """How many parts it has."""
    last: int
    """Number of the part that came last."""
    parts: Parts | None
    """Those that came. None when it cannot be joined, which has been said, and the rest is only to be passed over."""
    size: int


class Unjoined(NamedTuple):
    """A message came that cannot be given to anybody."""

    channel: str
    why: str


Run = list[Notify] | Unjoined


def join(partial: Partial | None, events: list[Notify], limit: int) -> tuple[list[Run], Partial | None]:
    """Put messages together.

    Args:
        partial: what the last call on this connection returned, None at first.
        events: what has arrived since, in order. Not changed.
        limit: bytes of a joined payload, at most.

    Returns:
        What is complete, in runs between what cannot be joined; and what is to be given to the next call.

    >>> chunks = [Notify(7, "a", text) for _, text in pack([("a", "x" * 10_000)], lambda: "00000000000000ff")]
    >>> runs, partial = join(None, chunks[:1], MAX_PAYLOAD)
    >>> runs
    []
    >>> runs, partial = join(partial, chunks[1:], MAX_PAYLOAD)
    >>> runs == [[Notify(7, "a", "x" * 10_000)]], partial
    (True, None)
    """
    if partial is None and not [None for event in events if event[2][:9] == PREFIX]:
        return [events], None
    runs: list[Run] = []
    for event in events:
        header = HEADER.match(event.payload) if event.payload.startswith(PREFIX) else None
        chunk = None if header is None else _read(event, header)
        if partial is not None and (chunk is None or chunk[:3] != partial[:3] or chunk.last == 1):
            if partial.parts is not None:
                runs.append(_missing(partial))
            partial = None
        if chunk is None:
            _append(runs, event)
        elif partial is not None and partial.parts is None:
            partial = chunk._replace(parts=None)
        else:
            partial = _go_on(partial, chunk, limit, runs)
        if partial is not None and partial.last >= partial.total:
            partial = None
    return runs, partial


def unfinished(partial: Partial | None) -> str | None:
    """The name of the message whose end is awaited, if there is one."""
    return None if partial is None or partial.parts is None else partial.name


def _read(event: Notify, header: re.Match[str]) -> Partial | None:
    """The chunk as a message that has only this part; None if it is none."""
    version, name, index, count = header.groups()
    text = event.payload[header.end() :]
    if version not in VERSIONS:
        return Partial(event.pid, event.channel, name, version, 1, 0, None, 0)  # whose end is not known
    if index is None or int(index) > int(count):
        return None
    return Partial(event.pid, event.channel, name, version, int(count), int(index), ((), text), utf8_length(text))


def _go_on(partial: Partial | None, chunk: Partial, limit: int, runs: list[Run]) -> Partial:
    """`chunk` has come after `partial`, which is of the same message."""
    begun = partial or chunk._replace(last=0, parts=(), size=0)
    size = begun.size + chunk.size
    why = None
    if chunk.parts is None:
        why = "a message came in a later version of the frame format: a newer pgpubsub understands it"
    elif (chunk.last, chunk.total, chunk.version) != (begun.last + 1, begun.total, begun.version):
        why = _missing(begun).why
    elif size > limit:
        why = f"a message came that is longer than max_payload, {limit} bytes: receive with a larger one"
    elif chunk.total > FEW + limit // PART:
        why = f"a message came in {chunk.total} parts, too many for max_payload, {limit} bytes: they should be filled"
    if why is not None:
        runs.append(Unjoined(chunk.channel, why))
        return chunk._replace(parts=None)
    assert begun.parts is not None
    assert chunk.parts
    parts = (begun.parts, chunk.parts[1])
    if chunk.last == chunk.total:
        _finish(runs, chunk, _text(parts))
    return chunk._replace(parts=parts, size=size)


def _finish(runs: list[Run], chunk: Partial, text: str) -> None:
    """`chunk` was the last of a message, and `text` are all its parts."""
    if chunk.version == "1":
        _append(runs, Notify(chunk.pid, chunk.channel, text))
        return
    try:
        headers, size, payload = parted(text)
    except ValueError as error:
        runs.append(Unjoined(chunk.channel, f"a message came with headers that cannot be read: {error}"))
    else:
        _append(runs, headed(chunk.pid, chunk.channel, payload, headers, size))


def _text(parts: Parts) -> str:
    texts = []
    while parts:
        parts, text = parts
        texts.append(text)
    return "".join(reversed(texts))


def _missing(partial: Partial) -> Unjoined:
    return Unjoined(
        partial.channel,
        f"a message came without all of its {partial.total} parts: whoever sends them has to do so in one statement",
    )


def _append(runs: list[Run], event: Notify) -> None:
    if runs and isinstance(runs[-1], list):
        runs[-1].append(event)
    else:
        runs.append([event])
