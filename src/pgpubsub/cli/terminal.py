"""What a command writes to and is interrupted by."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from pgpubsub.cli.interruption import Interruption
from pgpubsub.cli.lines import dumped, printable
from pgpubsub.cli.statuses import FAILED, READER_GONE, Ended

__all__ = ["Terminal"]

LOGGERS = [logging.getLogger(name) for name in ("pgpubsub", "psycopg")]

GRACE = 0.5
"""Seconds in which what was logged at last is said."""


class Terminal:
    """Standard output, one line after the other, standard error, and the signals that end it all.

    Results go to standard output, with colours if that is a terminal that has any; everything else, such as that the
    connection was lost, to standard error.
    """

    def __init__(self, interruption: Interruption) -> None:
        self.interruption = interruption
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        self.out = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.err = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self._ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        for logger in LOGGERS:
            logger.propagate = False
            logger.addHandler(logging.NullHandler())

    def line(self, line: str | Text) -> None:
        """A line of text as a result. It is written soon: see `flush`."""
        if isinstance(line, Text) and self.out.is_terminal:
            self._write(lambda: self.out.print(line))
        else:
            self._write(lambda: sys.stdout.write(f"{line}\n"))

    def json(self, value: Mapping[str, Any]) -> None:
        """A line of JSON as a result."""
        self.line(dumped(value, ascii_only=self._ascii_only))

    def table(self, table: Table) -> None:
        """A table as a result. Where nobody looks, it is as wide as it has to be."""
        self._print(table, None if self.out.is_terminal else max(80, self.out.measure(table).maximum))

    def show(self, page: RenderableType) -> None:
        """Text as a result, wrapped to the terminal's width, or else to 80 columns."""
        self._print(page, None if self.out.is_terminal else 80)

    def flush(self) -> None:
        """Nothing more comes for a while, or what was written counts: so it is written now."""
        self._write(sys.stdout.flush)

    def say(self, text: str) -> None:
        """Something beside the results, on standard error."""
        sys.stderr.write(f"pgpubsub: {printable(text.removeprefix('pgpubsub: '))}\n")

    def hint(self, text: str) -> None:
        """Something for people: said only where somebody looks."""
        if self.err.is_terminal:
            self.say(text)

    @contextmanager
    def telling_of_connections(self) -> Iterator[None]:
        """Within this, say what the library logs as warnings, such as that a connection was lost. (Before there is one,
        an error says it.)"""
        log = _Log(self.say)
        LOGGERS[0].addHandler(log)
        try:
            yield
        finally:
            LOGGERS[0].removeHandler(log)
            log.close()

    def _print(self, what: RenderableType, width: int | None) -> None:
        """Without what Rich fills lines up with."""
        with self.out.capture() as printed:
            self.out.print(what, width=width, soft_wrap=False)
        for line in printed.get().splitlines():
            self.line(line.rstrip())

    def _write(self, write: Callable[[], object]) -> None:
        """Whoever reads may have stopped reading, or may be gone; or there is no room on the disk."""
        try:
            with self.interruption.breaking():
                write()
        except BrokenPipeError as error:
            raise Ended(READER_GONE) from error
        except OSError as error:
            self.say(f"standard output cannot be written: {error.strerror}")
            raise Ended(FAILED) from error


class _Log(logging.Handler):
    """What the library logs as warnings, said by a thread: those who log must not wait for whoever reads it."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._say = say
        self._messages: SimpleQueue[str | None] = SimpleQueue()
        self._ended = Event()
        Thread(target=self._tell, name="pgpubsub log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.put(record.getMessage())

    def close(self) -> None:
        self._messages.put(None)
        self._ended.wait(GRACE)
        super().close()

    def _tell(self) -> None:
        while (message := self._messages.get()) is not None:
            self._say(message)
        self._ended.set()
