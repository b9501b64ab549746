"""The program as a whole: help, versions, what is missing, completion, and that the manual has all of it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import pgpubsub
from pgpubsub.cli.app import app
from tests.cli.conftest import Outcome

Command = Callable[..., Outcome]

MANUAL = Path(__file__).parents[2] / "docs" / "cli.md"


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands, by their names."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


ALL: dict[str, Any] = {" ".join(names): command for names, command in commands(typer.main.get_command(app))}


def section(name: str) -> str:
    """What the manual says of a command."""
    found = re.search(rf"^### `pgpubsub {name}\b[^\n]*\n(.*?)(?=^##|\Z)", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None, f"the manual has no section on {name}"
    return found[0]


@pytest.mark.parametrize("name", ALL)
def test_the_manual_has_each_command_with_its_options(name: str) -> None:
    its_options = {option for one in ALL[name].params for option in one.opts if option.startswith("--")} - {"--help"}
    its_arguments = {one.metavar.partition("|")[0] for one in ALL[name].params if not one.opts[0].startswith("-")}
    text = section(name)
    heading = text.splitlines()[0]
    for argument in its_arguments:
        assert argument in heading, argument
    everywhere = {"--dsn", "--schema", "--json"}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    negatives = {option for one in ALL[name].params for option in one.secondary_opts}
    assert its_options - everywhere <= named, "the manual lacks some"
    assert named <= its_options | negatives | {"--"}, "the manual has some that there are not"


def test_the_manual_has_no_command_that_there_is_not() -> None:
    headings = re.findall(r"^### `pgpubsub ([a-z ]+)", MANUAL.read_text(), re.MULTILINE)
    assert sorted(name.strip() for name in headings) == sorted(ALL)


@pytest.mark.parametrize("name", ["", *ALL, "stream", "trigger"])
def test_help_fits_into_80_columns(command: Command, name: str) -> None:
    status, out, err = command(*name.split(), "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: {' '.join(['pgpubsub', *name.split()])} ")
    assert max(map(len, out.splitlines())) <= 80
    assert "..." not in "".join(re.findall(r"^  [a-z]+  .*\n(?:   .*\n)*", out, re.MULTILINE)), "a summary is cut off"


def test_version(command: Command) -> None:
    assert command("--version") == (0, f"pgpubsub {pgpubsub.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("dance",), "No such command 'dance'"),
        (("listen",), "Missing argument"),
        (("listen", "a", "--count", "0"), "Invalid value for '--count'"),
        (("listen", "a", "--timeout", "0"), "0 is not a number of seconds above 0"),
        (("demo", "--seconds", "nan"), "nan is not a number of seconds above 0"),
        (("notify", "a", "b", "c"), "unexpected extra argument"),
        (("doctor", "--dsn", "foo=bar"), 'invalid connection option "foo"'),
    ],
)
def test_a_wrong_command_line_is_explained(command: Command, arguments: tuple[str, ...], words: str) -> None:
    status, out, err = command(*arguments)
    assert (status, out) == (64, "")
    assert words in " ".join(err.split())


def test_without_a_command_there_is_help(command: Command) -> None:
    status, out, err = command()
    assert status == 64
    assert "Commands:" in out + err


WITHOUT = """
import sys
sys.modules[{module!r}] = None
from pgpubsub.cli import main
sys.exit(main(["listen", "orders"]))
"""


@pytest.mark.parametrize("module", ["typer", "rich"])
def test_a_missing_extra_is_named(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(module=module)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "pgpubsub: the program needs the extra 'cli': pip install 'pgpubsub[binary,cli]'\n"


@pytest.mark.parametrize(
    ("shell", "words"), [("bash", "complete -"), ("zsh", "#compdef pgpubsub"), ("fish", "complete ")]
)
def test_shells_complete(shell: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PGPUBSUB_COMPLETE", f"source_{shell}")
    done = subprocess.run([sys.executable, "-m", "pgpubsub"], capture_output=True, text=True)
    assert done.returncode == 0
    assert words in done.stdout


def test_bash_completes_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("_PGPUBSUB_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "pgpubsub stream re"),
        ("COMP_CWORD", "2"),
    ):
        monkeypatch.setenv(name, value)
    done = subprocess.run([sys.executable, "-m", "pgpubsub"], capture_output=True, text=True)
    assert done.stdout.split() == ["read", "redrive"]
