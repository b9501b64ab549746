"""`pgpubsub stream append`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from pgpubsub.cli.connecting import arguments, hub
from pgpubsub.cli.incoming import Batch, batches, progress
from pgpubsub.cli.options import Dsn, Headers, Schema, parsed
from pgpubsub.cli.terminal import Terminal
from pgpubsub.errors import PayloadError
from pgpubsub.threads.stream import Stream

__all__ = ["append"]


def append(
    ctx: typer.Context,
    stream: Annotated[str, typer.Argument(metavar="STREAM")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD|-", help="-: an entry for each line of standard input.")],
    key: Annotated[str | None, typer.Option(metavar="KEY", help="What it is about; the order is kept per key.")] = None,
    headers: Headers = None,
    idempotency_key: Annotated[
        str | None, typer.Option(metavar="KEY", help="An entry that has the same one is not stored again.")
    ] = None,
    schema: Schema = "pgpubsub",
    dsn: Dsn = "",
) -> None:
    """Append an entry, or many, and print their ids.

    An id is printed when its entry is committed. With -, lines are appended as they come, all that came together in
    one transaction. If it is interrupted or fails, it says how many were appended.
    """
    terminal: Terminal = ctx.obj
    if payload == "-" and idempotency_key is not None:
        raise typer.BadParameter("it is for one entry, not for lines", param_hint="--idempotency-key")
    beside = parsed(headers)
    with hub(terminal, dsn) as its_hub:
        with arguments():
            its = its_hub.stream(stream, schema=schema)
        if payload != "-":
            with terminal.interruption.breaking(), arguments():
                terminal.line(str(its.append(payload, key, beside, idempotency_key=idempotency_key)))
            return
        with progress(terminal, "appended") as tally, terminal.interruption.breaking():
            for batch in batches():
                for ids in _appended(its, batch, key, beside):
                    tally.add(len(ids))
                    for id in ids:
                        terminal.line(str(id))
                    terminal.flush()
                tally.reach(batch.place)


def _appended(
    its: Stream[Any], batch: Batch, key: str | None, headers: dict[str, Any] | None
) -> Iterator[Sequence[int]]:
    """The ids of what was appended: all at once, or if there is one that cannot be, one by one up to that."""
    try:
        yield its.append_many(batch.lines, key=key, headers=headers)
    except PayloadError:
        for index, line in enumerate(batch.lines):
            try:
                yield [its.append(line, key, headers)]
            except PayloadError as error:
                raise batch.fault(index, error) from error
