"""Standard input, a line a message, and how far it has come."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pgpubsub.cli.terminal import Terminal
from pgpubsub.core.frames import MAX_PAYLOAD
from pgpubsub.errors import PayloadError, PayloadTooLarge

__all__ = ["Batch", "Tally", "batches", "progress"]

CHUNK = 1 << 16
"""Bytes that are read at a time, at most."""


class Batch(NamedTuple):
    """Lines that have come together."""

    first: int
    """The number of the first of them."""
    lines: list[str]
    place: int
    """How many bytes had been read with the last of them."""

    def fault(self, index: int, error: PayloadError) -> PayloadError:
        """What to raise if one of them cannot be sent."""
        return PayloadError(f"line {self.first + index} of standard input: {error}")


def batches() -> Iterator[Batch]:
    """The lines of standard input, without their ends: all that have come, so that those of a program that goes on
    running do not wait for each other.

    Raises:
        PayloadError: a line is not UTF-8, or too long. Those before it have been handed out.
    """
    number, begun, size, read = 1, list[bytes](), 0, 0
    while chunk := sys.stdin.buffer.read1(CHUNK):  # type: ignore[union-attr]
        read += len(chunk)
        first, *others = chunk.split(b"\n")
        begun.append(first)
        size += len(first)
        if others:
            lines = [b"".join(begun), *others[:-1]]
            yield from _decoded(number, lines, read)
            number += len(lines)
            begun, size = [others[-1]], len(others[-1])
        if size > MAX_PAYLOAD:
            raise PayloadTooLarge(
                f"line {number} of standard input has over {MAX_PAYLOAD} bytes, the limit", size=size, limit=MAX_PAYLOAD
            )
    if size:
        yield from _decoded(number, [b"".join(begun)], read)


def _decoded(first: int, lines: list[bytes], place: int) -> Iterator[Batch]:
    texts: list[str] = []
    for number, line in enumerate(lines, first):
        try:
            texts.append(line.decode())
        except UnicodeDecodeError as error:
            yield Batch(first, texts, place)
            where = f"byte {error.start + 1} of line {number}"
            raise PayloadError(f"standard input is not UTF-8 at {where}, so that line was not sent") from error
    yield Batch(first, texts, place)


class Tally:
    """How many lines were done, and how far standard input has been read: a bar if that is a file, which has an end."""

    def __init__(self, bar: Progress, verb: str) -> None:
        self.done = 0
        self._bar = bar
        about = os.fstat(sys.stdin.fileno()) if bar.live.is_started else None
        size = about.st_size if about is not None and stat.S_ISREG(about.st_mode) else None
        self._task = bar.add_task(verb, total=size, done="0")

    def add(self, number: int) -> None:
        """So many were done just now."""
        self.done += number
        self._bar.update(self._task, done=f"{self.done:,}")

    def reach(self, place: int) -> None:
        """So many bytes were read, and what is in them is done."""
        self._bar.update(self._task, completed=place)


@contextmanager
def progress(terminal: Terminal, verb: str) -> Iterator[Tally]:
    """What to tell of progress. On a terminal on which nobody types it is shown as it goes; at the end the sum is told
    in any case, also if that is an exception."""
    columns = (
        TextColumn("{task.description} {task.fields[done]}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    shown = terminal.err.is_terminal and not sys.stdin.isatty()
    bar = Progress(*columns, console=terminal.err, transient=True, disable=not shown)
    at_least, tally = "", None
    try:
        with bar:
            tally = Tally(bar, verb)
            yield tally
    except SystemExit:  # a signal, perhaps while some were on their way
        at_least = "at least "
        raise
    finally:
        if tally is not None:
            terminal.say(f"{verb} {at_least}{tally.done:,}")
