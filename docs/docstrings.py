"""What the reference does with docstrings before it shows them: examples and tables become blocks of code.

Docstrings are written for `help()` and for doctest: an example stands in the text as it is, and Markdown would take its
`>>>` for a quotation in a quotation. Griffe, which reads the sources, runs this on each docstring.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["Blocks"]

EXAMPLE = re.compile(r"^( *)>>> .*\n(?:(?! *\n).*\n)*", re.MULTILINE)
TABLE = re.compile(r"^( *)=+  =+\n(?:.*\n)+? *=+  =+\n(?:(?: *\S.*\n)+? *=+  =+\n)?", re.MULTILINE)

RAISES_AS = re.compile(r"^( *)Raises:\n((?:\1 +)as .*\n(?:\1 +\S.*\n)*)", re.MULTILINE)
"""'Raises: as `notify`, and ...', which is prose and no list."""


def in_blocks(text: str) -> str:
    """A docstring with its examples and tables as fenced blocks."""

    def block(language: str, found: re.Match[str]) -> str:
        indent = found[1]
        return f"{indent}```{language}\n{found[0].rstrip()}\n{indent}```\n"

    def prose(found: re.Match[str]) -> str:
        return f"{found[1]}Raises {' '.join(found[2].split())}\n"

    text = RAISES_AS.sub(prose, text + "\n")
    text = TABLE.sub(lambda found: block("text", found), text)
    return EXAMPLE.sub(lambda found: block("pycon", found), text).rstrip("\n")


class Blocks(griffe.Extension):
    """The extension, as zensical.toml names it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = in_blocks(obj.docstring.value)
