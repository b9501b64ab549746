"""`pgpubsub demo`: what the library does, on a PostgreSQL of its own, in ten seconds.

The story is told to a terminal as a picture that moves, and to anything else in plain lines.
"""

from __future__ import annotations

import io
import logging
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

from pgpubsub.classic.pubsub import connect
from pgpubsub.cli.demo.ledger import Ledger
from pgpubsub.cli.demo.picture import News, glyphs_for, moment, news_line, summary, title
from pgpubsub.cli.demo.story import Audience, Mood, Story
from pgpubsub.cli.interruption import Interruption
from pgpubsub.testing import TemporaryServer

__all__ = ["run"]


def run(binaries: Path, seconds: float, interruption: Interruption) -> int:
    """Show it. Returns the exit status: 1 when something was not as the library promises."""
    logging.getLogger("pgpubsub").addHandler(logging.NullHandler())  # what it would say is what we show
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    console = Console(force_terminal=sys.stdout.isatty(), highlight=False)
    moving = console.is_terminal and not console.is_dumb_terminal
    ledger = Ledger()
    with Screen(console, ledger) if moving else Lines(console) as audience:
        try:
            server_version = _perform(binaries, seconds, ledger, audience, interruption)
        except RuntimeError as error:  # its TemporaryServer does not start
            interruption.check()
            sys.stderr.write(f"pgpubsub demo: {error}\n")
            return 1
    interruption.check()
    console.print(summary(ledger, server_version, glyphs_for(console)))
    return 1 if ledger.complaints() else 0


def _perform(binaries: Path, seconds: float, ledger: Ledger, audience: Audience, interruption: Interruption) -> str:
    begin = monotonic()
    with TemporaryServer(binaries) as server:
        interruption.check()
        with connect(server.dsn()) as subscriber, connect(server.dsn()) as sender:
            version = str(sender.conn.info.parameter_status("server_version")).partition(" ")[0]
            audience.tell(
                Mood.GOOD, f"PostgreSQL {version} started in {monotonic() - begin:.1f} s, a server of our own"
            )
            Story(subscriber, sender, ledger, audience, interruption.check).play(seconds)
    return version


class Lines(AbstractContextManager["Lines"]):
    """Plain lines, one about each phase, for a pipe or a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._glyphs = glyphs_for(console)
        self._begin = monotonic()
        console.print(title(self._glyphs))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """There is nothing to end."""

    def tell(self, mood: Mood, text: str) -> None:
        line = news_line(News(monotonic() - self._begin, mood, text), self._glyphs)
        self._console.print(line, soft_wrap=True, no_wrap=True, overflow="ignore", crop=False)

    def look(self) -> None:
        """A frame of the picture is nothing to a log."""


class Screen(AbstractContextManager["Screen"]):
    """A picture that moves. It is drawn by `look` and by nobody else, so there is no thread."""

    def __init__(self, console: Console, ledger: Ledger) -> None:
        self._console = console
        self._glyphs = glyphs_for(console)
        self._ledger = ledger
        self._begin = monotonic()
        self._news: list[News] = []
        self._rates: list[int] = []
        self._received = 0
        self._live = Live(
            console=console,
            auto_refresh=False,
            get_renderable=self._picture,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, mood: Mood, text: str) -> None:
        self._news.append(News(monotonic() - self._begin, mood, text))
        self._live.refresh()

    def look(self) -> None:
        self._rates.append(len(self._ledger.received) - self._received)
        self._received = len(self._ledger.received)
        self._live.refresh()

    def _picture(self) -> RenderableType:
        return moment(self._ledger, self._news, self._rates, self._console.width, self._glyphs)
