"""Figures of long runs in docs/reliability.md: sections between markers, each made of a file that `--record` writes."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench.revision import revision
from tests.system.processes import ROOT

__all__ = ["PAGE", "Section"]

PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Section:
    """One of them.

    Args:
        name: that its markers have: `<!-- NAME -->` and `<!-- end of NAME -->`, on lines of their own.
        figures: the file, JSON.
        words: makes the text of them.
    """

    name: str
    figures: Path
    words: Callable[[dict[str, Any]], str]

    def page(self) -> str:
        """All of the page, with the figures that are kept."""
        begin, end = f"<!-- {self.name} -->\n", f"<!-- end of {self.name} -->"
        before, found, rest = PAGE.read_text().partition(begin)
        assert found, f"{PAGE} has no {begin}"
        return f"{before}{begin}{self.words(json.loads(self.figures.read_text()))}{end}{rest.partition(end)[2]}"

    def write(self) -> None:
        """Have the page say what the figures are."""
        PAGE.write_text(self.page())

    def keep(self, server: str, figures: dict[str, Any]) -> None:
        """Keep figures, with the commit and the versions that they were measured at, and write them into the page."""
        versions = {
            "commit": revision(),
            "server": server,
            "python": platform.python_version(),
            "driver": psycopg.__version__,
        }
        self.figures.write_text(json.dumps({**figures, **versions}, indent=1) + "\n")
        self.write()
