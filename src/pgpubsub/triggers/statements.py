"""The statements that install triggers: the templates beside this file, filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from pgpubsub.core.entries import hint_channel
from pgpubsub.core.position import stream_id
from pgpubsub.core.sql import quote_identifier, quote_literal
from pgpubsub.triggers.definition import Wanted

__all__ = ["drop", "install", "installed"]

MARK = "pgpubsub trigger: "
"""How the comments of functions begin that were made here; the settings follow."""


def install(wanted: Wanted) -> str:
    """Installs a trigger, or replaces it, or does nothing where it is installed."""
    settings = wanted.settings
    to = settings["to"]
    by_rows = settings["level"] == "row"
    if isinstance(to, str):
        parts = {"make": "reduce" if by_rows else "count", "send": "notify", "make_least": "", "make_truncate": ""}
        values = {"channel": quote_literal(to)}
    else:
        make = "append_row" if by_rows else "append_all"
        parts = {"make": make, "send": "hint", "make_least": "append_least", "make_truncate": "append"}
        number = stream_id(to["stream"])
        values = {
            "schema": quote_identifier(to["schema"]),
            "stream": quote_literal(to["stream"]),
            "stream_id": f"'{number}'::bigint",
            "hint_channel": quote_literal(hint_channel(number)),
        }
    values["when"] = "true" if settings["when"] is None else f"({settings['when']}\n)"
    source = _template("row" if by_rows else "statement")
    for rows in ("inserted", "updated", "deleted"):  # each statement's own, which are there for it alone
        make = _template(parts["make"]).replace("[[rows]]", f"[[{rows}]]")
        source = source.replace(f"[[make of {rows}]]", make.replace("[[changed]]", f"[[{rows} and changed]]"))
    for word, name in {"fail": "fail", **parts, "failures": "failures", "append": "append", "wake": "wake"}.items():
        source = source.replace(f"[[{word}]]", _template(name) if name else "")
    return _filled(
        "install",
        {
            "wanted": f"{quote_literal(wanted.as_json)}::pg_catalog.jsonb",
            "values": f"{quote_literal(json.dumps(values, ensure_ascii=False))}::pg_catalog.jsonb",
            "source": quote_literal(source),
            "table": quote_literal(wanted.table),
            "sweep": _filled("sweep", {}),
        },
    )


def drop(table: str, name: str) -> str:
    """Drops a trigger, if there is such a one. `table` is what PostgreSQL reads as a `regclass`."""
    return _filled("drop", {"table": quote_literal(table), "name": quote_literal(name)})


def installed() -> str:
    """Returns all triggers, as JSON, or NULL where there are none."""
    return _filled("installed", {})


@cache
def _template(name: str) -> str:
    return files("pgpubsub.triggers").joinpath(f"{name}.sql").read_text("utf-8").strip()


def _filled(name: str, words: Mapping[str, str]) -> str:
    """A template with words filled in, all at once, so that none is looked for in what is filled in."""
    known = {**words, "mark": quote_literal(MARK)}
    if name != "ours":
        known["ours"] = _filled("ours", {})
    tag = "$pgpubsub$"
    while any(tag in text for text in words.values()):
        tag = f"{tag[:-1]}_$"
    return re.sub(r"\{(\w+)\}", lambda word: tag if word[1] == "tag" else known[word[1]], _template(name))
