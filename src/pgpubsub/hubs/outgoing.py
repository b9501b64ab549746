"""What is given to a hub to be sent: checked before anything is sent, and divided where it has no end."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import Any

from pgpubsub.channel import Channel, as_message
from pgpubsub.core.frames import Message
from pgpubsub.core.sql import check_payload, utf8_length
from pgpubsub.errors import PayloadTooLarge

__all__ = ["MANY", "Pair", "check_all", "check_one", "check_total", "pieces", "pieces_of_any"]

Pair = tuple[str | Channel[Any], Any]
"""A channel and a payload, as a user gives them."""

MANY = 256 << 20
"""Bytes that one transaction may carry: a statement and its parameters have to fit into 1 GB in any disguise."""

PIECE_MESSAGES = 1000
PIECE_CHARACTERS = 1 << 20


def check_one(channel: str | Channel[Any], payload: Any, limit: int) -> Message:
    """The message to be sent, or the error that it is: see `core.sql`."""
    message = as_message(channel, payload)
    check_payload(*message, limit)
    return message


def check_all(pairs: Iterable[Pair], limit: int) -> Iterator[Message]:
    """The messages to be sent. An error says which pair it is about."""
    for number, pair in enumerate(pairs, 1):
        yield _check_pair(number, pair, limit)


def _check_pair(number: int, pair: Pair, limit: int) -> Message:
    try:
        try:
            channel, payload = pair
        except (TypeError, ValueError):
            raise TypeError(f"notifications are pairs of a channel and a payload, not {pair!r}") from None
        return check_one(channel, payload, limit)
    except Exception as error:
        error.add_note(f"This was pair number {number}.")
        raise


def check_total(messages: Iterable[Message]) -> None:
    """Raise `PayloadTooLarge` unless they fit into one transaction."""
    size = sum([utf8_length(text) for _, text in messages])
    if size > MANY:
        raise PayloadTooLarge(
            f"the payloads have {size} bytes together and one transaction carries at most {MANY}: use notify_stream(),"
            " which sends them in several",
            size=size,
            limit=MANY,
        )


class _Piece:
    """What is gathered for one transaction."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._characters = 0

    def add(self, message: Message) -> bool:
        """Add one. Says whether there is no room for more."""
        self.messages.append(message)
        self._characters += len(message[1])
        return len(self.messages) >= PIECE_MESSAGES or self._characters >= PIECE_CHARACTERS

    def take(self) -> list[Message]:
        """What has been gathered; begin the next."""
        messages, self.messages, self._characters = self.messages, [], 0
        return messages


def pieces(pairs: Iterable[Pair], limit: int) -> Iterator[list[Message]]:
    """Divide what is to be sent into what one transaction carries. Upon an error, what came before it comes first."""
    piece = _Piece()
    try:
        for message in check_all(pairs, limit):
            if piece.add(message):
                yield piece.take()
    except Exception:
        if piece.messages:
            yield piece.take()
        raise
    if piece.messages:
        yield piece.take()


async def pieces_of_any(pairs: Iterable[Pair] | AsyncIterable[Pair], limit: int) -> AsyncIterator[list[Message]]:
    """`pieces`, of what may be asynchronous."""
    if not isinstance(pairs, AsyncIterable):
        for messages in pieces(pairs, limit):
            yield messages
        return
    piece = _Piece()
    number = 0
    try:
        async for pair in pairs:
            number += 1
            if piece.add(_check_pair(number, pair, limit)):
                yield piece.take()
    except Exception:
        if piece.messages:
            yield piece.take()
        raise
    if piece.messages:
        yield piece.take()
