"""What is kept of the runs: bench/performance.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.comparison import Comparison

__all__ = ["FILE", "THE_SAME", "PartResult", "Results", "condense", "load", "store"]

FILE = Path(__file__).parent.parent / "performance.json"

LIBRARIES = ("libpq of psycopg", "libpq in C", "pgbench")

THE_SAME = ("processor", "processors", "memory, GiB", "system", "python", "server", "packages", *LIBRARIES)
"""What parts that are shown together have to have been measured on."""

OF_A_RUN = ("date", "commit", "load average", "warnings")
DIGITS = 4

DEPTH = 6
"""Of the rows of a comparison: parts, its name, comparisons, one of them, rows, one of them."""


@dataclass(frozen=True)
class PartResult:
    """What became of one part."""

    run: Mapping[str, Any]
    """Its `kind`, quick or full, the seconds that the part took, its failures, and `OF_A_RUN`."""
    comparisons: Sequence[Comparison]


@dataclass(frozen=True)
class Results:
    """The file."""

    environment: Mapping[str, Any]
    parts: Mapping[str, PartResult]


def load(file: Path = FILE) -> Results:
    """Read it."""
    given = json.loads(file.read_text())
    return Results(
        given["environment"],
        {
            name: PartResult(part["run"], [Comparison.from_json(one) for one in part["comparisons"]])
            for name, part in given["parts"].items()
        },
    )


def store(given: Mapping[str, Any], file: Path = FILE) -> None:
    """Write it, with a line for each row of a comparison and for whatever else lies as deep."""
    file.write_text(_indented(given, 0) + "\n")


def _indented(given: Any, depth: int) -> str:
    indent = "\n" + " " * (depth + 1)
    if depth < DEPTH and isinstance(given, Mapping) and given:
        pairs = [f"{json.dumps(name)}: {_indented(one, depth + 1)}" for name, one in given.items()]
        return f"{{{indent}{f',{indent}'.join(pairs)}{indent[:-1]}}}"
    if isinstance(given, list) and any(isinstance(one, Mapping) for one in given):
        return f"[{indent}{f',{indent}'.join(_indented(one, depth + 1) for one in given)}{indent[:-1]}]"
    return json.dumps(given, ensure_ascii=False)


def condense(runs: Sequence[Mapping[str, Any]], before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is kept of runs, which replace the parts that they have: of what was kept before, and of earlier runs.

    Raises:
        SystemExit: they were on different machines, or with different versions; or a run has less of a part than what
            it would replace.
    """
    environment = dict(runs[-1]["environment"])
    kept = [] if before is None else [before]
    for run in (*kept, *runs):
        for name in THE_SAME:
            if run["environment"][name] != environment[name]:
                raise SystemExit(
                    f"{name!r} differs between these runs or from what is kept: measure all parts again, and begin"
                    " --anew with them"
                )
    parts: dict[str, Any] = {} if before is None else dict(before["parts"])
    for run in runs:
        seconds: Counter[str] = Counter()
        for measurement, its in run["seconds"].items():
            seconds[measurement.partition("-")[0]] += its
        for name in seconds:
            of_part = [one for one in run["comparisons"] if one["measurement"].startswith(f"{name}-")]
            _check_as_much(name, parts.get(name), run["kind"], {one["measurement"] for one in of_part})
            failures = {one: error for one, error in run["failures"].items() if one.startswith(f"{name}-")}
            of_run = {key: run["environment"][key] for key in OF_A_RUN}
            told = {"kind": run["kind"], "seconds": round(seconds[name]), "failures": failures, **of_run}
            parts[name] = {"run": told, "comparisons": _rounded(of_part)}
    for name in OF_A_RUN:
        del environment[name]
    return {"environment": environment, "parts": parts}


def _check_as_much(part: str, before: Mapping[str, Any] | None, kind: str, measured: Collection[str]) -> None:
    if before is None:
        return
    lacking = {one["measurement"] for one in before["comparisons"]} - set(measured)
    if lacking:
        raise SystemExit(f"this run lacks {', '.join(sorted(lacking))}: measure all of it, with --only {part}")
    if kind == "quick" and before["run"]["kind"] != "quick":
        raise SystemExit(f"a quick run does not replace a full one of {part}")


def _rounded(given: Any) -> Any:
    """Numbers with few digits.

    >>> _rounded({"a": [123456.789, 0.00123456], "b": True})
    {'a': [123500, 0.001235], 'b': True}
    """
    if isinstance(given, float):
        short = float(f"{given:.{DIGITS}g}")
        return round(short) if short.is_integer() else short
    if isinstance(given, Mapping):
        return {key: _rounded(value) for key, value in given.items()}
    if isinstance(given, list | tuple):
        return [_rounded(value) for value in given]
    return given
