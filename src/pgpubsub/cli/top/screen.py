"""How a moment is shown: as many lines as there are, and no line longer than it may be. Nothing here acts.

It can be read without colour. What comes from elsewhere (names, payloads) is made printable and cropped, so that it
can neither break the layout nor command the terminal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.console import Group as Lines
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from pgpubsub.cli.lines import printable
from pgpubsub.cli.top.glyphs import Glyphs
from pgpubsub.cli.top.rates import View
from pgpubsub.cli.top.sections import Section, sections
from pgpubsub.doctor.sampling import Queue

__all__ = ["picture", "shares"]

ELLIPSIS = {"\N{HORIZONTAL ELLIPSIS}": ">"}
"""With which Rich crops."""
HEAD = 3
"""Lines above the sections."""
GAUGE = 14
"""Cells."""
FILLING = 0.05
"""Of the queue, from which on something is wrong: it is empty when everybody listens."""


def picture(view: View, glyphs: Glyphs, note: str, *, height: int | None = None) -> RenderableType:
    """All of it; in `height` lines if that is given, and else in as many as it takes."""
    parts = list(sections(view, glyphs))
    wanted = [part.wanted for part in parts]
    spaced = height is None or height >= HEAD + 2 * len(parts) + sum(min(2, want) for want in wanted)
    room = sum(wanted) if height is None else max(0, height - HEAD - len(parts) * (1 + spaced))
    lines: list[RenderableType] = list(_head(view, glyphs, note))
    for part, rows in zip(parts, shares(wanted, room), strict=True):
        if spaced:
            lines.append(Text())
        lines += _shown(part, rows)
    return Lines(*lines) if glyphs.letters else _Ascii(Lines(*lines))


class _Ascii:
    """A page for those who have ASCII letters only. It keeps its layout."""

    def __init__(self, page: RenderableType) -> None:
        self._page = page

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for text, style, control in console.render(self._page, options):
            yield Segment("".join(map(_ascii, text)), style, control)


def _ascii(letter: str) -> str:
    return letter if letter.isascii() else ELLIPSIS.get(letter, "?" * cell_len(letter))


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """Divide `room` among those who want some: each gets the same, but what one does not want goes to others.

    >>> shares([1, 10, 10], 9)
    [1, 4, 4]
    """
    given = [0] * len(wanted)
    while room > 0 and given != list(wanted):
        for index, want in enumerate(wanted):
            if given[index] < want and room > 0:
                given[index] += 1
                room -= 1
    return given


def _head(view: View, glyphs: Glyphs, note: str) -> Iterator[RenderableType]:
    sample = view.sample
    server = sample.server
    where = f"{server.database} on {server.host}:{server.port}"
    kind = " (standby)" if server.in_recovery else ""
    yield _sides(
        Text.assemble(("pgpubsub top", "bold"), f"  {printable(where)}, PostgreSQL {server.release}{kind}"),
        Text(f"{datetime.now().astimezone():%H:%M:%S}"),
    )
    if view.trouble is not None:
        yield _sides(
            Text.assemble(("RECONNECTING", "bold red"), f"  figures of {_clock(sample.at)}"), Text(note, "dim")
        )
        yield _line(Text(printable(_end_of(view.trouble)), "red"))
        return
    yield _sides(Text(f"connected since {_clock(server.since)}", "green"), Text(note, "dim"))
    if isinstance(sample.queue, Queue):
        yield _queue(sample.queue, glyphs)
    else:
        yield _line(Text.assemble(("NOTIFY queue", "bold"), f"  {printable(sample.queue.why)}"))


def _end_of(trouble: str) -> str:
    """What libpq says after the address, which stands in the headline."""
    return trouble.rpartition("failed: ")[2]


def _queue(queue: Queue, glyphs: Glyphs) -> Text:
    style = "bold red" if queue.usage >= 0.5 else "yellow" if queue.usage >= FILLING else "green"
    if queue.waiting:
        verb = "session waits" if queue.waiting == 1 else "sessions wait"
        waiting = (f"{queue.waiting} {verb} for NOTIFY's lock", "bold yellow")
    else:
        waiting = ("nobody waits for NOTIFY's lock", "")
    return _line(
        Text.assemble(
            ("NOTIFY queue", "bold"),
            "  ",
            (glyphs.gauge(queue.usage, GAUGE), style),
            f" {queue.usage * 100:.1f} % full, ",
            waiting,
        )
    )


def _shown(section: Section, rows: int) -> Iterator[RenderableType]:
    """A section in a heading and so many lines."""
    if section.note is not None:
        yield _line(Text.assemble((section.title, "bold"), f"  {printable(section.note)}"))
        return
    notes = section.notes[: max(0, rows - 1)] if section.rows else section.notes[:rows]
    rows -= len(notes)
    most = rows if rows >= section.total else max(0, rows - 1)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for column in section.columns:
        table.add_column(
            _line(Text(column.heading)),
            justify="right" if column.right else "left",
            width=column.width,
            min_width=column.at_least,
            overflow="ellipsis",
        )
    for row in section.rows[:most]:
        table.add_row(*row)
    yield table
    if rows and section.total > min(most, len(section.rows)):
        yield _line(Text(f"and {section.total - min(most, len(section.rows)):,} more", "dim"))
    for note in notes:
        yield _line(Text(printable(note), "yellow"))


def _sides(left: Text, right: Text) -> Table:
    """One line with something at either end."""
    table = Table.grid(padding=(0, 1, 0, 0), expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_row(left, right)
    return table


def _line(text: Text) -> Text:
    text.no_wrap = True
    text.overflow = "ellipsis"
    return text


def _clock(time: datetime) -> str:
    return f"{time.astimezone():%H:%M:%S}"
