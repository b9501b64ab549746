"""What is given to a hub to be sent: checked before anything is sent, and divided where it has no end."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from pgpubsub.channel import Channel, checked_message
from pgpubsub.core.frames import Message
from pgpubsub.core.headers import Headed, Headers, read_json, with_headers
from pgpubsub.core.sender import CHARACTERS, MESSAGES
from pgpubsub.core.sql import LARGEST, utf8_length
from pgpubsub.errors import PayloadError, PayloadTooLarge
from pgpubsub.tracing import Outgoing, Sending, Tracing

__all__ = ["Pair", "Piece", "carrying", "check_all", "check_total", "explain", "pieces", "pieces_of_any", "traced"]

T = TypeVar("T")

Pair = tuple[str | Channel[Any], Any]
"""A channel and a payload, as a user gives them."""


def check_all(pairs: Iterable[Pair], limit: int, headers: Headers | None = None) -> Iterator[Message]:
    """The messages to be sent, each with `headers`. An error says which pair it is about."""
    for number, pair in enumerate(pairs, 1):
        yield _check_pair(number, pair, limit, headers)


def _check_pair(number: int, pair: Pair, limit: int, headers: Headers | None) -> Message:
    try:
        if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
            raise TypeError(f"notifications are pairs of a channel and a payload, not {pair!r}")
        return checked_message(pair[0], pair[1], limit, headers)
    except Exception as error:
        error.add_note(f"This was pair number {number}.")
        raise


def check_total(messages: Iterable[Message]) -> None:
    """Raise `PayloadTooLarge` unless they fit into one transaction."""
    size = sum([utf8_length(channel) + utf8_length(text) for channel, text in messages])
    if size > LARGEST:
        raise PayloadTooLarge(
            f"the channels and payloads have {size} bytes together and one transaction carries at most {LARGEST}: use"
            " notify_stream(), which sends them in several",
            size=size,
            limit=LARGEST,
        )


class Piece:
    """What is gathered for one transaction, as much as a batch, and the error upon which it ended, if there was one."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.failure: Exception | None = None
        self._characters = 0

    def add(self, message: Message) -> bool:
        """Add one. Says whether there is no room for more."""
        self.messages.append(message)
        self._characters += len(message[1])
        return len(self.messages) >= MESSAGES or self._characters >= CHARACTERS


def pieces(pairs: Iterable[Pair], limit: int, headers: Headers | None = None) -> Iterator[Piece]:
    """Divide what is to be sent into what one transaction carries."""
    piece = Piece()
    try:
        for message in check_all(pairs, limit, headers):
            if piece.add(message):
                yield piece
                piece = Piece()
    except Exception as error:
        piece.failure = error
    yield piece


async def pieces_of_any(
    pairs: Iterable[Pair] | AsyncIterable[Pair], limit: int, headers: Headers | None = None
) -> AsyncIterator[Piece]:
    """`pieces`, of what may be asynchronous."""
    if not isinstance(pairs, AsyncIterable):
        for piece in pieces(pairs, limit, headers):
            yield piece
        return
    piece = Piece()
    number = 0
    try:
        async for pair in pairs:
            number += 1
            if piece.add(_check_pair(number, pair, limit, headers)):
                yield piece
                piece = Piece()
    except Exception as error:
        piece.failure = error
    yield piece


def explain(error: Exception, sent: int, failure: Exception | None) -> None:
    """Have the `error` that ended a stream say how many had been `sent`, and what else went wrong."""
    error.add_note(f"{sent} notifications had been sent before.")
    if failure is not None and failure is not error:
        error.add_note(f"What was to follow had failed as well: {failure!r}")


@contextmanager
def traced(
    tracing: Tracing, messages: Sequence[Message], limit: int, *, many: bool = False
) -> Iterator[Sequence[Message]]:
    """What is done within sends `messages`: gives them with what they are to carry. `many`: they may be several."""
    channels = {channel for channel, _ in messages}
    text = messages[0][1]
    size = utf8_length(text.payload if isinstance(text, Headed) else text)
    destination = channels.pop() if len(channels) == 1 else None
    outgoing = Outgoing("notify", destination, len(messages) if many else None, None if many else size)
    with tracing.sending(outgoing) as sending:
        yield [carrying(message, _headers(message), sending, with_headers, limit) for message in messages]


def carrying(
    message: T, headers: str | None, sending: Sending, with_headers: Callable[[T, Headers, int], T], limit: int
) -> T:
    """A message, or an entry, that has `headers` as JSON, with those that it is to carry. It goes as it is where it
    would be too long with them, or what it has is nested too deep to be read."""
    try:
        own = None if headers is None else read_json(headers)
        carried = sending.carried(own)
        return message if carried is None or carried is own else with_headers(message, carried, limit)
    except (PayloadError, TypeError, ValueError):  # too long, too deep, or no JSON, which it was not before
        return message


def _headers(message: Message) -> str | None:
    text = message[1]
    return text.headers if isinstance(text, Headed) else None
