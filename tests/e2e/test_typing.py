"""Both type checkers understand the library as it was meant."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAMS = [Path(__file__).with_name(name) for name in ("typed_orders.py", "typed_streams.py")]
ROOT = Path(__file__).parents[2]

CHECKERS = {
    "mypy": ["--strict", "--warn-unreachable"],
    "pyright": ["--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_type_checker_accepts_what_is_right_and_nothing_else(checker: str) -> None:
    if find_spec(checker) is None:
        pytest.skip(f"{checker} is not installed")
    command = [sys.executable, "-m", checker, *CHECKERS[checker], *map(str, PROGRAMS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
