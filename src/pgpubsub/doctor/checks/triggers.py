"""Triggers could not tell of changes, or not in full: something went wrong within them.

The user's write succeeds nevertheless: it is a WARNING, and a count in a sequence beside the trigger's function.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen
from pgpubsub.doctor.streams import first_of
from pgpubsub.triggers import statements

__all__ = ["check"]

SEQUENCES = """
SELECT given.number, format('%%I.%%I', namespace.nspname, function.proname || ' failures') AS sequence
  FROM unnest(%(schemas)s::text[], %(tables)s::text[], %(triggers)s::text[])
       WITH ORDINALITY AS given (schema, name, trigger, number)
  JOIN pg_catalog.pg_namespace AS place ON place.nspname = given.schema
  JOIN pg_catalog.pg_class AS class ON class.relnamespace = place.oid AND class.relname = given.name
  JOIN pg_catalog.pg_trigger AS trigger ON trigger.tgrelid = class.oid AND trigger.tgname = given.trigger
  JOIN pg_catalog.pg_proc AS function ON function.oid = trigger.tgfoid
  JOIN pg_catalog.pg_namespace AS namespace ON namespace.oid = function.pronamespace
"""


class _Failing(NamedTuple):
    schema: str
    table: str
    trigger: str
    first: str
    """The name of the first of PostgreSQL's triggers that it consists of."""
    to: str
    failures: int


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """A finding for each trigger that has failed, or fine."""
    ((answer,),) = patient.rows(statements.installed())
    triggers = json.loads(answer or "[]")
    failing = list(_failing(triggers))
    if not failing:
        yield Fine("no triggers are installed" if not triggers else "no trigger has failed to tell of a change")
        return
    parameters = {
        "schemas": [one.schema for one in failing],
        "tables": [one.table for one in failing],
        "triggers": [one.first for one in failing],
    }
    sequences = dict(patient.rows(SEQUENCES, parameters))
    findings = [_finding(one, sequences.get(number)) for number, one in enumerate(failing, 1)]
    yield from first_of(findings, "triggers have failed")


def _failing(triggers: list[dict[str, Any]]) -> Iterator[_Failing]:
    for one in triggers:
        with suppress(ValueError, TypeError, KeyError, RecursionError):  # anybody may write a comment like one of ours
            if not one["failures"]:
                continue
            settings = json.loads(one["settings"])
            to = settings["to"]
            target = f"channel {to!r}" if isinstance(to, str) else f"stream {to['stream']!r}"
            name = settings["name"]
            first = f"{name} {settings['on'][0]}"
            if b"\0" in first.encode():  # a ValueError if there is half a character in it: no trigger has such a name
                continue
            schema, table = one["table"]
            yield _Failing(schema, table, name, first, target, one["failures"])


def _finding(one: _Failing, sequence: str | None) -> Finding:
    table = f"{one.schema}.{one.table}"
    back = (
        ""
        if sequence is None
        else f"; then set the count back, as the table's owner: ALTER SEQUENCE {sequence} RESTART"
    )
    times = "once" if one.failures == 1 else f"{one.failures} times"
    return Finding(
        Severity.WARNING,
        f"trigger {one.trigger!r} of table {table} has failed {times} to tell {one.to} of a change in full, or at all",
        "look for 'could not be told in full' in the server's log (WARNING), which has the reasons, and mend them;"
        f" after a change of the table's columns, key or owner install the trigger again{back}",
        {"table": table, "trigger": one.trigger, "to": one.to, "failures": one.failures, "counted in": sequence},
        f"trigger {one.trigger!r} of {table}",
    )
