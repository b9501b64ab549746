"""How the demonstration is shown: one moment of it on a terminal, and the summary. Nothing here acts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.console import Console, Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pgpubsub import __version__
from pgpubsub.cli.demo.ledger import Arrival, Hole, Ledger, ranges
from pgpubsub.cli.demo.story import BURST, CHANNEL, FRAMES_PER_SECOND, Mood
from pgpubsub.events import Gap

__all__ = ["Glyphs", "News", "glyphs_for", "moment", "news_line", "summary", "title"]

FLOW_ROWS = 7
MAP_ROWS = 6

STYLES = {
    Mood.GOOD: "green",
    Mood.FIRST: "green",
    Mood.KILLED: "bold red",
    Mood.GAP: "bold yellow",
    Mood.LIVE: "bold green",
}


class Glyphs(NamedTuple):
    """The characters that are not ASCII, or what stands in for them."""

    good: str
    bad: str
    gap: str
    received: str
    missing: str
    pending: str
    bars: str
    line: str


UNICODE = Glyphs("✔", "✘", "▲", "■", "✘", "·", " ▂▄▆█", "─")
ASCII = Glyphs("+", "x", "!", "o", "X", ".", " .:-#", "-")


class News(NamedTuple):
    """What was told, and when: seconds since the beginning."""

    time: float
    mood: Mood
    text: str


def glyphs_for(console: Console) -> Glyphs:
    """What this terminal or file can take."""
    return UNICODE if console.encoding.startswith("utf") else ASCII


def title(glyphs: Glyphs) -> RenderableType:
    """The first line of all."""
    text = f"[bold cyan]pgpubsub[/] {__version__}: publish and subscribe over PostgreSQL LISTEN/NOTIFY"
    return Rule(text, characters=glyphs.line, style="cyan")


def news_line(news: News, glyphs: Glyphs) -> Text:
    """One line about something that has happened."""
    mark = {Mood.KILLED: glyphs.bad, Mood.GAP: glyphs.gap}.get(news.mood, glyphs.good)
    return _line((f"{news.time:5.1f} s ", "dim"), (f" {mark} {news.text}", STYLES[news.mood]))


def moment(ledger: Ledger, news: Sequence[News], rates: Sequence[int], width: int, glyphs: Glyphs) -> RenderableType:
    """Everything as it is now, in 22 lines."""
    cells = max((width - 8) // 10, 1) * 10
    return Group(
        title(glyphs),
        *(_log(news, glyphs) or [_line(("  starting a PostgreSQL server of our own ...", "dim"))]),
        Rule("for event in pubsub.get_events(timeout, yield_gaps=True): ...", characters=glyphs.line, style="dim"),
        *_flow(ledger, glyphs),
        Rule(
            f"every notification sent: [green]{glyphs.received}[/] received, [red]{glyphs.missing}[/] missing",
            characters=glyphs.line,
            style="dim",
        ),
        *_map(ledger, cells, glyphs),
        _rate_bar(rates, cells, glyphs),
        _counters(ledger),
    )


def _log(news: Sequence[News], glyphs: Glyphs) -> list[Text]:
    return [news_line(item, glyphs) for item in news if item.mood in (Mood.GOOD, Mood.KILLED)]


def _line(*parts: str | tuple[str, str]) -> Text:
    return Text.assemble(*parts, no_wrap=True, overflow="ellipsis")


def _flow(ledger: Ledger, glyphs: Glyphs) -> list[Text]:
    """The last events. The last gap stays in sight, between its neighbours."""
    last = ledger.last_received
    hole = ledger.holes[-1] if ledger.holes else None
    if hole is None:
        rows = _arrivals(ledger, range(last - FLOW_ROWS + 1, last + 1))
    else:
        rows = _arrivals(ledger, [hole.after])
        rows += [_line((f"  {glyphs.gap} Gap: {hole.gap.reason}, {_last_words(hole.gap)}", STYLES[Mood.GAP]))]
        if hole.before is not None:
            latest = range(max(hole.before, last - 2) + 1, last + 1)
            rows += [*_recovery(hole, glyphs), *_arrivals(ledger, [hole.before, *latest])]
    return (rows + [Text()] * FLOW_ROWS)[:FLOW_ROWS]


def _recovery(hole: Hole, glyphs: Glyphs) -> Iterator[Text]:
    count = f"{len(hole.missing)} missing: {ranges(hole.missing)}" if hole.missing else "nothing is missing"
    yield _line((f"  {glyphs.bad} {count}", "bold red") if hole.missing else f"  {glyphs.good} {count}")
    yield _line((f"  {glyphs.good} live again, {hole.outage * 1e3:.0f} ms after the kill", STYLES[Mood.LIVE]))


def _last_words(gap: Gap) -> str:
    """The server's part of the explanation."""
    return gap.detail.rpartition("FATAL: ")[2]


def _arrivals(ledger: Ledger, numbers: Iterable[int]) -> list[Text]:
    """A line for each of these that has arrived."""
    return [_arrival(ledger.received[number]) for number in numbers if number in ledger.received]


def _arrival(arrival: Arrival) -> Text:
    return _line(
        (f"  {arrival.time:%H:%M:%S}.{arrival.time.microsecond // 1000:03}", "dim"),
        (f"   {arrival.event.channel}", "cyan"),
        f"   {arrival.event.payload:<16}",
        (f"   from pid {arrival.event.pid}   after {arrival.latency * 1e3:.1f} ms", "dim"),
    )


def _map(ledger: Ledger, cells: int, glyphs: Glyphs) -> Iterator[Text]:
    sent = len(ledger.sent_at)
    first_row = max(0, -(-sent // cells) - MAP_ROWS)
    for row in range(first_row, first_row + MAP_ROWS):
        numbers = range(row * cells + 1, min((row + 1) * cells, sent) + 1)
        line = _line((f" {'#' + str(numbers.start) if numbers else '':>6} ", "dim"))
        for number in numbers:
            line.append(*_cell(ledger, number, glyphs))
        yield line


def _cell(ledger: Ledger, number: int, glyphs: Glyphs) -> tuple[str, str]:
    if number in ledger.received:
        return glyphs.received, "green"
    if number < ledger.last_received:
        return glyphs.missing, "bold red"
    return glyphs.pending, "yellow"


def _rate_bar(rates: Sequence[int], cells: int, glyphs: Glyphs) -> Text:
    """Received per tenth of a second, the latest at the right."""
    line = _line(("   rate ", "dim"))
    highest = len(glyphs.bars) - 1
    full = BURST * FRAMES_PER_SECOND // 10
    frames = FRAMES_PER_SECOND // 10
    tenths = [sum(rates[end - frames : end]) for end in range(frames, len(rates) + 1, frames)]
    for rate in tenths[-cells:]:
        line.append(glyphs.bars[min(rate * highest // full, highest)], "green" if rate >= full else "red")
    return line


def _counters(ledger: Ledger) -> Text:
    return _line(
        (f"  {CHANNEL}: ", "cyan"),
        f"{len(ledger.sent_at)} sent   {len(ledger.received)} received   ",
        (f"{ledger.lost} missing   ", "bold red" if ledger.lost else ""),
        (f"{len(ledger.holes)} gap{'s' * (len(ledger.holes) != 1)}", "bold yellow" if ledger.holes else ""),
    )


def summary(ledger: Ledger, server_version: str, glyphs: Glyphs) -> RenderableType:
    """What it came to, and whether that is as the library promises."""
    complaints = ledger.complaints()
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", style="cyan")
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    for row in _facts(ledger, server_version):
        table.add_row(*row)
    if complaints:
        verdict = Text("\n".join(f"{glyphs.bad} {complaint}" for complaint in complaints), "bold red")
    else:
        verdict = Text(
            f"{glyphs.good} Nothing was lost in silence: whatever is missing lies within a Gap.", "bold green"
        )
    return Group(Rule("summary", characters=glyphs.line, style="cyan"), table, verdict)


def _facts(ledger: Ledger, server_version: str) -> Iterator[tuple[str, str, str]]:
    missing = ledger.missing()
    yield "sent", str(len(ledger.sent_at)), "notifications"
    yield "received", str(len(ledger.received)), "each one once, and in order"
    yield "lost in the gap", str(ledger.lost), f"missing: {ranges(missing)}" if missing else "nothing is missing"
    outage = ", ".join(f"{hole.outage * 1e3:.0f} ms" for hole in ledger.holes)
    yield "gaps", str(len(ledger.holes)), f"from the kill to live again: {outage}" if outage else ""
    yield "latency", f"{ledger.latency(0.5) * 1e3:.1f} ms", f"half of them; 99 %: {ledger.latency(0.99) * 1e3:.1f} ms"
    yield "server", server_version, "PostgreSQL, stopped and removed"
