"""What is sent: texts that say whose they are and which, some of them longer than a notification can be."""

from __future__ import annotations

from hashlib import blake2b

__all__ = ["CHANNELS", "SOMETIMES", "STREAMS", "read", "text"]

CHANNELS = ("chaos a", "chaos.b")
SOMETIMES = "chaos c"
"""A channel that nobody listens to for long."""
STREAMS = ("chaos s", "chaos.t")

LONG = 9000
"""Characters of every tenth text."""


def text(publisher: str, number: int) -> str:
    """That of a message.

    >>> text("someone", 3)
    'someone|3|'
    """
    head = f"{publisher}|{number}|"
    if number % 10:
        return head
    digest = blake2b(head.encode()).hexdigest()
    return head + (digest * (LONG // len(digest) + 1))[:LONG]


def read(given: str) -> tuple[str, int]:
    """Whose it is, and its number.

    Raises:
        ValueError: it is not what was sent.

    >>> read(text("someone", 10))
    ('someone', 10)
    """
    publisher, number, _ = given.split("|", 2)
    if text(publisher, int(number)) != given:
        raise ValueError(f"a text was changed on its way: {given[:100]!r}")
    return publisher, int(number)
