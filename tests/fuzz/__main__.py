"""Tries for long what the suite tries shortly: `make fuzz`, or `python -m tests.fuzz --help`.

With atheris each target is guided by the coverage of pgpubsub, in a process of its own. Without it Hypothesis makes new
values by chance. What fails is printed, as an example that can be put above the test.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent

MODULES = sorted(file.stem for file in HERE.glob("test_*.py"))

SLACK = 120
"""Seconds that a process may take beyond its time."""


def targets(module: ModuleType) -> Mapping[str, Any]:
    """The tests of a module that are given a value."""
    return {name.removeprefix("test_"): test for name, test in vars(module).items() if hasattr(test, "hypothesis")}


def guide(module: str, name: str, seconds: int) -> None:
    """Let atheris choose the values for one target. Does not return."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["pgpubsub"]):
        target = targets(import_module(f"tests.fuzz.{module}"))[name]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-verbosity=0"], target.hypothesis.fuzz_one_input)
    atheris.Fuzz()


def by_chance(module: str, name: str, seconds: int) -> bool:
    """Let Hypothesis make values for one target. Whether none failed."""
    end = monotonic() + seconds
    while monotonic() < end:
        test = f"{HERE / module}.py::test_{name}"
        command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "--timeout=0", test]
        done = subprocess.run(
            command, env={**os.environ, "PGPUBSUB_FUZZ_EXAMPLES": "1000"}, capture_output=True, text=True
        )
        if done.returncode:
            print(done.stdout)
            return False
    return True


def guided(module: str, name: str, seconds: int) -> bool:
    """Let atheris try one target in a process of its own. Whether nothing failed."""
    command = [sys.executable, "-m", "tests.fuzz", "--guide", module, name, "--seconds", str(seconds)]
    environment = {**os.environ, "PGPUBSUB_FUZZ_EXAMPLES": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds + SLACK)
    except subprocess.TimeoutExpired:
        print(f"{name}: it hangs")
        return False
    if done.returncode:
        print(done.stdout, done.stderr[-8000:], sep="\n")
    return done.returncode == 0


def main() -> int:
    """Try what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("words", nargs="*", help="targets whose names have one of these in them; by default all")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--guide", nargs=2, metavar=("MODULE", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.guide:
        guide(given.guide[0], given.guide[1], given.seconds)
    has_atheris = find_spec("atheris") is not None
    if not has_atheris:
        print("atheris is not installed (pip install --group fuzz), so the values are made by chance alone")
    failed = []
    for module in MODULES:
        for name in targets(import_module(f"tests.fuzz.{module}")):
            if given.words and not any(word in name for word in given.words):
                continue
            begun = monotonic()
            good = (guided if has_atheris else by_chance)(module, name, given.seconds)
            print(f"{monotonic() - begun:6.0f} s  {'well' if good else 'FAILED'}  {name}", flush=True)
            failed += [] if good else [name]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
