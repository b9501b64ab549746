"""What stands in the screen's sections: channels, listeners, streams and groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rich.text import Text

from pgpubsub.cli.lines import printable
from pgpubsub.cli.top.glyphs import Glyphs, quantity, rate, span
from pgpubsub.cli.top.rates import RECENT, View
from pgpubsub.doctor.lag import ENOUGH, Group
from pgpubsub.doctor.sampling import Listener, Listeners, Unseen

__all__ = ["Column", "Section", "sections"]

WIDEST = 500
"""Characters of a text that are looked at: no terminal is wider."""

NAME = 17
"""Cells for a name, at least."""

HIDDEN = "(hidden)"


class Column(NamedTuple):
    """`width` in cells; without one, what its texts need, if there is so much, but not less than `at_least`."""

    heading: str
    width: int | None = None
    right: bool = False
    at_least: int | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A table, or a note in place of it."""

    title: str
    columns: tuple[Column, ...] = ()
    rows: tuple[tuple[Text, ...], ...] = ()
    total: int = 0
    """Rows that there are; not all may be known."""
    notes: tuple[str, ...] = ()
    """Below the rows."""
    note: str | None = None

    @property
    def wanted(self) -> int:
        """Lines that it can use, besides the first."""
        return 0 if self.note is not None else len(self.rows) + len(self.notes) + (self.total > len(self.rows))


def sections(view: View, glyphs: Glyphs) -> Iterator[Section]:
    """From top to bottom."""
    yield _channels(view, glyphs)
    yield _listeners(view)
    yield _streams(view)
    if not isinstance(view.sample.streams, Unseen):
        yield _groups(view)


def _channels(view: View, glyphs: Glyphs) -> Section:
    if not view.channels:
        return Section("CHANNELS", note="none named. PostgreSQL has no list: pgpubsub top orders payments")
    rows = tuple(
        (
            _text(one.name, "cyan"),
            _figure(rate(view.channel_rates.get(one.name))),
            _figure(glyphs.steps(view.recent.get(one.name, ()), RECENT), "green"),
            _figure(quantity(one.total)),
            _figure(quantity(one.gaps), "bold yellow" if one.gaps else ""),
            _text(one.last or ""),
        )
        for one in view.channels
    )
    return Section(
        "CHANNELS",
        (
            Column(_heading("CHANNELS", len(rows)), at_least=NAME),
            Column("per s", 7, right=True),
            Column("lately", RECENT),
            Column("total", 13, right=True),
            Column("gaps", 6, right=True),
            Column("last payload"),
        ),
        rows,
        len(rows),
        () if view.deaf is None else (f"not listening: {view.deaf}",),
    )


def _listeners(view: View) -> Section:
    found = view.sample.listeners
    if isinstance(found, Unseen):
        return Section("LISTENERS", note=found.why)
    return Section(
        "LISTENERS",
        (
            Column(_heading("LISTENERS", found.total), at_least=NAME),
            Column("database", at_least=8),
            Column("pid", 7, right=True),
            Column("state", 19),
            Column("for", 8, right=True),
            Column("waits for", 11),
        ),
        tuple(map(_listener, found.sessions)),
        found.total,
        tuple(_hidden(found, view.sample.server.role)),
    )


def _listener(one: Listener) -> tuple[Text, ...]:
    style = "bold red" if one.troublesome else ""
    return (
        _text(f"{'! ' * one.troublesome}{one.application or '(no name)'}", style),
        _text(one.database),
        _figure(str(one.pid)),
        _text(HIDDEN if one.state is None else one.state, style),
        _figure(span(one.seconds), style),
        _text(HIDDEN if one.state is None else one.waits_for or "", style if one.waits_for == "ClientWrite" else ""),
    )


def _hidden(found: Listeners, role: str) -> Iterator[str]:
    if found.hidden:
        noun = "session" if found.hidden == 1 else "sessions"
        yield f"hidden from {role}: {found.hidden:,} {noun}, which may listen (GRANT pg_monitor)"


def _streams(view: View) -> Section:
    found = view.sample.streams
    if isinstance(found, Unseen):
        return Section("STREAMS", note=found.why)
    ordered = sorted(found.streams, key=lambda one: -view.stream_rates.get(one.name, 0.0))
    return Section(
        "STREAMS",
        (
            Column(_heading("STREAMS", found.total), at_least=NAME),
            Column("per s", 10, right=True),
            Column("newest entry", 12, right=True),
        ),
        tuple(
            (
                _text(one.name, "cyan"),
                _figure(rate(view.stream_rates.get(one.name), one.at_least)),
                _figure("none" if one.age is None else f"{span(one.age)} ago"),
            )
            for one in ordered
        ),
        found.total,
    )


def _groups(view: View) -> Section:
    found = view.sample.groups
    if isinstance(found, Unseen):
        return Section("GROUPS", note=found.why)
    return Section(
        "GROUPS",
        (
            Column(_heading("GROUPS", found.total), at_least=NAME),
            Column("of stream", at_least=9),
            Column("lag", 8, right=True),
            Column("oldest", 8, right=True),
            Column("members", 7, right=True),
            Column("held up", 7, right=True),
            Column("dead", 7, right=True),
        ),
        tuple(map(_group, found.groups)),
        found.total,
    )


def _group(one: Group) -> tuple[Text, ...]:
    idle = one.lag > 0 and one.members == 0
    held_up, dead = (quantity(number, number >= ENOUGH) for number in (one.held_up, one.dead))
    return (
        _text(one.name, "cyan"),
        _text(one.stream),
        _figure(quantity(one.lag, one.at_least)),
        _figure(span(one.oldest)),
        _figure(quantity(one.members), "bold red" if idle else ""),
        _figure(held_up, "yellow" if one.held_up else ""),
        _figure(dead, "bold yellow" if one.dead else ""),
    )


def _heading(title: str, number: int) -> str:
    return f"{title} {number:,}"


def _figure(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")


def _text(text: str, style: str = "") -> Text:
    return _figure(printable(text[:WIDEST]), style)
