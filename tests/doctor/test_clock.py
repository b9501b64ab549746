"""The doctor's check of the clocks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from time import time
from typing import Any

import pytest

from pgpubsub.doctor import Examined, Severity
from pgpubsub.doctor.checks import clock

PROGRAM = """
import json, sys
from pgpubsub.doctor.checks import clock
from pgpubsub.doctor.patient import visit

(one,) = visit(sys.argv[1], "pgpubsub", lambda patient: list(clock.check(patient)), connect_within=20, within=20)
print(json.dumps([one.severity, one.cause, one.cure, one.evidence]))
"""


def finding_at(offset: str, dsn: str) -> list[Any]:
    """Severity, cause, cure and evidence of what a program finds whose machine has another time."""
    command = shutil.which("faketime")
    if command is None:
        pytest.skip("Debian's faketime is not installed")
    environment = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}  # or waiting would take as long
    program = [command, "-f", offset, sys.executable, "-c", PROGRAM, dsn]
    return list(json.loads(subprocess.check_output(program, env=environment, text=True, timeout=50)))


def test_minutes_apart_are_a_warning_that_says_which_clock_is_ahead(dsn: str) -> None:
    severity, cause, cure, evidence = finding_at("+5m", dsn)
    assert severity == Severity.WARNING
    assert cause.startswith("the server's clock is 300.0 s behind this machine's")
    assert "timedatectl set-ntp true" in cure
    assert -302 < evidence["seconds ahead"] < -298
    severity, cause, *_ = finding_at("-5m", dsn)
    assert severity == Severity.WARNING
    assert cause.startswith("the server's clock is 300.0 s ahead of this machine's")


def test_some_seconds_apart_are_worth_knowing(dsn: str) -> None:
    severity, *_ = finding_at("+7s", dsn)
    assert severity == Severity.NOTICE


def test_clocks_that_agree_are_fine(dsn: str, examined: Callable[..., Examined]) -> None:
    found = examined(dsn)
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine == ("the clocks of this machine and of the server are less than 1.0 s apart",)


def test_what_a_slow_answer_leaves_open_is_no_finding(
    dsn: str, examined: Callable[..., Examined], monkeypatch: pytest.MonkeyPatch
) -> None:
    times: Iterator[float] = iter([time() - 60, time() + 10])
    monkeypatch.setattr(clock, "time", lambda: next(times))
    found = examined(dsn)
    assert found.findings == ()
    assert found.fine == ("the clocks of this machine and of the server are less than 36.0 s apart",)
