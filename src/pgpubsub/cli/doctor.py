"""`pgpubsub doctor`: what is wrong with a deployment, once or again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pgpubsub.cli.lines import clock, printable
from pgpubsub.cli.options import Dsn, Schema, positive
from pgpubsub.cli.statuses import NO_CONNECTION, Ended
from pgpubsub.cli.terminal import Terminal
from pgpubsub.doctor import Finding, Report, Severity, examine
from pgpubsub.errors import ConnectionFailed

__all__ = ["doctor"]

STATUSES: Mapping[Severity | None, int] = {Severity.WARNING: 1, Severity.CRITICAL: 2}
"""As monitoring plugins have them."""
UNKNOWN = NO_CONNECTION
"""What those say where they could not find out."""

STYLES = {Severity.NOTICE: "bold cyan", Severity.WARNING: "bold yellow", Severity.CRITICAL: "bold red"}

NOT_TO_THE_END = Text.assemble(
    ("Not looked at to the end", "bold magenta"),
    ", so that more may be wrong. Examine again, with more time where the line or the server is slow: --within 10",
)

Examine = Callable[[], Report]


def doctor(
    ctx: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for each examination.")] = False,
    watch: Annotated[
        float | None,
        typer.Option(metavar="S", callback=positive, help="Examine again every S seconds, and tell what has changed."),
    ] = None,
    within: Annotated[
        float,
        typer.Option(metavar="S", callback=positive, help="Seconds for an examination; more where the line is slow."),
    ] = 1.8,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Look for what is wrong, and say what to do.

    It looks at the connection, the server, its listeners, streams, groups and triggers. It takes under two seconds,
    changes nothing, and needs no superuser; with the rights of pg_monitor it sees more. For each finding it says
    the cause, the cure and the evidence.

    Exit status: 0 nothing wrong, 1 a warning, 2 something critical, 3 no connection, or not all could be looked at and
    nothing worse was found.
    """
    terminal: Terminal = ctx.obj
    examined = partial(_examined, terminal, partial(examine, dsn, schema=schema, within=within))
    if watch is not None:
        _watch(terminal, examined, as_json, watch)
    report = examined()
    if as_json:
        terminal.json(report.as_dict())
    else:
        terminal.show(_page(report))
    if status := _status(report):
        raise Ended(status)


def _status(report: Report) -> int:
    return STATUSES.get(report.severity) or (UNKNOWN if report.incomplete else 0)


def _examined(terminal: Terminal, examine: Examine) -> Report:
    with terminal.interruption.breaking():
        return examine()


def _watch(terminal: Terminal, examined: Examine, as_json: bool, seconds: float) -> None:
    """Until a signal ends it. A server that cannot be reached is told of as well, and tried again."""
    before: dict[Name, State] | None = None
    while True:
        try:
            report = examined()
        except ConnectionFailed as error:
            terminal.say(f"{clock(datetime.now())} {error}")
        else:
            now = _states(report, before or {})
            if as_json:
                terminal.json(report.as_dict())
            elif before is None:
                terminal.show(_page(report))
            else:
                for line in _changes(before, now):
                    terminal.line(line)
            before = now
        terminal.flush()
        with terminal.interruption.breaking():
            threading.Event().wait(seconds)


class Name(NamedTuple):
    """By which a finding is known from one examination to the next."""

    check: str
    subject: str | None
    """None: that the check could not look to the end."""


class State(NamedTuple):
    """What is the matter."""

    word: str
    style: str
    cause: str


def _states(report: Report, before: Mapping[Name, State]) -> dict[Name, State]:
    """What is the matter now. Of what a check that did not look to the end has not found again, nobody knows."""
    now: dict[Name, State] = {}
    for one in report.checks:
        if one.incomplete or not (one.findings or one.fine):
            now |= {name: state for name, state in before.items() if name.check == one.check}
            now[Name(one.check, None)] = State("NOT SEEN", "bold magenta", "; ".join(one.unseen))
        for it in sorted(one.findings, key=lambda finding: finding.severity):  # of one subject the gravest counts
            now[Name(one.check, it.subject)] = State(it.severity.upper(), STYLES[it.severity], it.cause)
    return now


def _changes(before: Mapping[Name, State], now: Mapping[Name, State]) -> Iterator[Text]:
    new = [(name, state) for name, state in now.items() if name not in before or before[name].word != state.word]
    over = [(name, State("OVER", "bold green", it.cause)) for name, it in before.items() if name not in now]
    for name, state in [*new, *over]:
        time = (clock(datetime.now()), "dim")
        yield Text.assemble(time, "  ", (state.word, state.style), f"  {name.check}: {printable(state.cause)}")


def _page(report: Report) -> RenderableType:
    """A report for people, the worst first."""
    found = [(one.check, finding) for one in report.checks for finding in one.findings]
    parts: list[RenderableType] = [Text(f"{printable(report.server)}, examined in {report.seconds:.1f} s", "bold")]
    for name, finding in sorted(found, key=lambda one: one[1].severity, reverse=True):
        parts += ["", Text.assemble((finding.severity.upper(), STYLES[finding.severity]), f"  {name}"), _told(finding)]
    for heading, incomplete in ((NOT_TO_THE_END, True), (Text("Not seen", "bold"), False)):
        unseen = [(one.check, why) for one in report.checks if one.incomplete is incomplete for why in one.unseen]
        parts += _listed(heading, unseen)
    parts += _listed(Text("Fine", "bold green"), [(one.check, what) for one in report.checks for what in one.fine])
    return Group(*parts)


def _told(finding: Finding) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row(Text("cause", "dim"), Text(printable(finding.cause)))
    table.add_row(Text("cure", "dim"), Text(printable(finding.cure)))
    table.add_row(Text("evidence", "dim"), Group(*_evidence(finding.evidence)))
    return Padding(table, (0, 0, 0, 2))


def _listed(heading: Text, rows: list[tuple[str, str]]) -> list[RenderableType]:
    table = Table.grid(padding=(0, 2))
    for name, text in rows:
        table.add_row(name, Text(printable(text)))
    return ["", heading, Padding(table, (0, 0, 0, 2))] if rows else []


def _evidence(evidence: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Values by name, a line each; of several, each has one."""
    for name, value in evidence.items():
        several = list(value) if isinstance(value, list | tuple) else [value] if isinstance(value, Mapping) else []
        if any(isinstance(one, Mapping) for one in several):
            yield Text(f"{name}:", "dim")
            items = Table.grid(padding=(0, 1))
            for one in several:
                items.add_row("-", Text(_shown(one), "dim"))
            yield items
        else:
            yield Text(f"{name}: {_shown(value)}", "dim")


def _shown(value: Any) -> str:
    """On one line."""
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_shown(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    return printable(str(value))
