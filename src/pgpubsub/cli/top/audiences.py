"""To whom `pgpubsub top` shows what it sees: a screen, which is drawn over, or whoever reads pages or JSON."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pgpubsub.cli.terminal import Terminal
from pgpubsub.cli.top.glyphs import glyphs_for
from pgpubsub.cli.top.rates import View, as_json
from pgpubsub.cli.top.screen import picture

__all__ = ["Json", "Pages", "Screen"]


class Json(AbstractContextManager["Json"]):
    """An object a line for each view."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """There is nothing to end."""

    def show(self, view: View) -> None:
        self._terminal.json(as_json(view))
        self._terminal.flush()

    def refresh(self, view: View) -> None:
        """What was written stays."""


class Pages(AbstractContextManager["Pages"]):
    """A page for each view, of as many lines as it takes, for pipes, files and terminals that cannot draw."""

    def __init__(self, terminal: Terminal, interval: float) -> None:
        self._terminal = terminal
        self._interval = interval
        self._begun = False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """There is nothing to end."""

    def show(self, view: View) -> None:
        if self._begun:
            self._terminal.line("")
        self._begun = True
        self._terminal.show(picture(view, glyphs_for(self._terminal.out), f"every {self._interval:g} s"))
        self._terminal.flush()

    def refresh(self, view: View) -> None:
        """What was written stays."""


class Screen(AbstractContextManager["Screen"]):
    """The terminal's other screen, so that in the end it shows again what it showed before. Nobody else draws, so there
    is no thread."""

    def __init__(self, interval: float) -> None:
        self._console = Console(file=sys.stdout, highlight=False)
        self._interval = interval
        self._live = Live(
            Text("pgpubsub top: connecting"),
            console=self._console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, view: View) -> None:
        note = f"every {self._interval:g} s, q quits"
        page = picture(view, glyphs_for(self._console), note, height=self._console.height)
        self._live.update(page, refresh=True)

    def refresh(self, view: View) -> None:
        self.show(view)
