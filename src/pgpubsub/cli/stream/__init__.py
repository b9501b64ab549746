"""`pgpubsub stream`: durable streams and their groups."""

from __future__ import annotations

import typer

from pgpubsub.cli.stream import appending, consuming, groups, reading, schema

__all__ = ["app"]

app = typer.Typer(
    help="Durable streams: install, append, read, and look after groups.", no_args_is_help=True, rich_markup_mode=None
)
for command in (
    schema.install,
    schema.create,
    appending.append,
    reading.read,
    groups.groups,
    consuming.consume,
    groups.dead,
    groups.redrive,
    groups.discard,
    schema.trim,
):
    app.command(command.__name__)(command)
app.command("seek", context_settings={"ignore_unknown_options": True})(groups.seek)  # positions may begin with a hyphen
