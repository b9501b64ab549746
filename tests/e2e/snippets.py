"""The blocks of code of the manual's pages, and a reader who does what a page says.

A page is done from its top to its end, in a directory of its own and databases that are empty:

- ```` ```python ```` is a program that is run; with `title="shop.py"` a file that is written, for later blocks to use;
- ```` ```sh ```` is run by a shell, and ```` ```sql ```` by the database that the page works with;
- ```` ```text ```` right behind one of these is what it prints, to the letter but for times, process ids and the like.
  A line of three full stops stands for any number of lines.

With `title="Terminal 1"` a shell command is left running in that terminal, and what a text with that title says has to
appear there; another command in the same terminal comes after Ctrl-C. What is installed by `pip` is not installed
again, but has to exist. Everything that waits has a deadline.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from time import monotonic, sleep
from typing import Any, Self

import psycopg

__all__ = ["ROOT", "Block", "Reader", "blocks", "free_port"]

ROOT = Path(__file__).parents[2]
DEADLINE = 60.0

FENCED = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
VARYING = [  # in the order in which they are replaced
    (re.compile(r"Notify\(\d+,"), "Notify(9425,"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+\d\d:?\d\d|Z)?"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(\.\d+)?\b"), "TIME"),
    (re.compile(r"[\w-]{50,}"), "POSITION"),
    (re.compile(r"\bpid:? \d+\b|\[\d+\]|'pid': \d+"), "PID"),
    (re.compile(r"\bxid\": ?\d+"), 'xid":XID'),
    (re.compile(r"\d+(\.\d+)? (m?s)\b"), r"N \2"),
    (re.compile(r"(127\.0\.0\.1|localhost):\d+"), r"\1:PORT"),
    (re.compile(r"PostgreSQL \d+[.\d]*"), "PostgreSQL N"),
]


@dataclass(frozen=True)
class Block:
    """One block of code, and what the page shows as its output, if it does."""

    page: str
    line: int
    language: str
    title: str | None
    code: str
    shown: str | None
    """The text right behind it, which it prints."""

    @property
    def terminal(self) -> str | None:
        return self.title if self.title and self.title.startswith("Terminal") else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(path: Path) -> list[Block]:
    """Of a page, in order. A text that is what the block before it prints is no block of its own."""
    text = path.read_text()
    found: list[Block] = []
    end = 0
    for match in FENCED.finditer(text):
        code = textwrap.dedent(match["code"])
        is_output = match["language"] == "text" and match["title"] is None and text[end : match.start()].strip() == ""
        if is_output and found and found[-1].language in ("python", "sh", "sql") and found[-1].shown is None:
            before = found.pop()
            found.append(Block(before.page, before.line, before.language, before.title, before.code, code))
        else:
            line = text.count("\n", 0, match.start()) + 1
            page = str(path.relative_to(ROOT))
            found.append(Block(page, line, match["language"], match["title"], code, None))
        end = match.end()
    return found


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def steady(text: str) -> list[str]:
    """The lines of an output, without what differs each time."""
    for pattern, word in VARYING:
        text = pattern.sub(word, text)
    return [re.sub(r" +", " ", line).rstrip() for line in text.rstrip().splitlines()]


def is_as_shown(lines: list[str], shown: list[str]) -> bool:
    """Whether an output is what the page shows, where `...` stands for any number of lines."""
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + r"\n" for line in shown)
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines)) is not None


class Terminal:
    """A shell command that goes on while the page does other things."""

    def __init__(self, command: str, directory: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "-uc", command],
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._lines: list[str] = []
        self._reading = Thread(target=self._read, daemon=True)
        self._reading.start()
        self._taken = 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line)

    def await_output(self, shown: str, block: Block) -> None:
        """Wait until what has come since the last time is what the page shows."""
        deadline = monotonic() + DEADLINE
        while not is_as_shown(lines := steady("".join(self._lines[self._taken :])), steady(shown)):
            assert monotonic() < deadline, f"{block}: {block.terminal} shows {lines}, and not {steady(shown)}"
            sleep(0.01)
        self._taken = len(self._lines)

    def end(self, how: signal.Signals) -> None:
        """As Ctrl-C does, or the end of the session."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, how)
        try:
            self._process.wait(DEADLINE)
        finally:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._reading.join(DEADLINE)
            if self._process.stdout is not None:
                self._process.stdout.close()


class Reader:
    """Does what a page says, block by block, and is surprised by whatever comes out otherwise."""

    def __init__(
        self, directory: Path, environment: dict[str, str], database: str, ports: dict[str, int] | None = None
    ) -> None:
        self._directory = directory
        self._ports = ports or {}
        programs = f"{Path(sys.executable).parent}:{environment['PATH']}"
        its = {"PYTHONUNBUFFERED": "1", "PYTHONPATH": f"{ROOT / 'src'}", "NO_COLOR": "1", "COLUMNS": "80"}
        self._environment = {**environment, **its, "PATH": programs, "PGDATABASE": database}
        self._terminals: dict[str, Terminal] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for terminal in self._terminals.values():
            terminal.end(signal.SIGTERM)

    def do(self, block: Block) -> None:
        code = block.code
        for shown, port in self._ports.items():
            code = code.replace(shown, str(port))
        if block.terminal is not None:
            self._in_terminal(block, block.terminal, code)
        elif block.title is not None:
            (self._directory / block.title).write_text(code)
        elif block.language == "python":
            self._run(block, [sys.executable, "-W", "error::DeprecationWarning", "-c", code])
        elif block.language == "sh":
            self._run(block, ["bash", "-euo", "pipefail", "-c", without_installing(code)])
        elif block.language == "sql":
            self._ask(block, code)
        else:
            raise AssertionError(f"{block}: nothing before it prints this")

    def _in_terminal(self, block: Block, name: str, code: str) -> None:
        if block.language == "text":
            self._terminals[name].await_output(code, block)
            return
        if before := self._terminals.pop(name, None):
            before.end(signal.SIGINT)
        self._terminals[name] = Terminal(code, self._directory, self._environment)
        if code.startswith("pgpubsub listen"):
            self._await_listener(block)
        if block.shown is not None:
            self._terminals[name].await_output(block.shown, block)

    def _await_listener(self, block: Block) -> None:
        """`pgpubsub listen` says nothing until something comes. A person would not be so quick that it matters."""
        query = "SELECT FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen%' AND query LIKE 'LISTEN%'"
        deadline = monotonic() + DEADLINE
        with self._connection() as connection:
            while not connection.execute(query).fetchall():
                assert monotonic() < deadline, f"{block} does not listen"
                sleep(0.01)

    def _run(self, block: Block, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self._directory, env=self._environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        if block.shown is not None:
            lines, shown = steady(done.stdout), steady(block.shown)
            assert is_as_shown(lines, shown), f"{block} prints {lines}, and not {shown}\n{done.stderr}"

    def _ask(self, block: Block, code: str) -> None:
        with self._connection() as connection:
            cursor = connection.execute(code.encode())
            if block.shown is not None:
                while cursor.nextset():
                    pass
                lines = [" | ".join(str(value) for value in row) for row in cursor.fetchall()]
                assert is_as_shown(steady("\n".join(lines)), steady(block.shown)), f"{block} gives {lines}"

    def _connection(self) -> psycopg.Connection[Any]:
        names = {"PGHOST": "host", "PGPORT": "port", "PGPASSWORD": "password", "PGUSER": "user", "PGDATABASE": "dbname"}
        its: dict[str, Any] = {names[name]: self._environment[name] for name in names if name in self._environment}
        return psycopg.connect(**its, autocommit=True)


def without_installing(code: str) -> str:
    """The commands but those of pip: everything is installed, and another test looks at what they name."""
    return "\n".join(line for line in code.splitlines() if not line.startswith("pip install"))


def node() -> str | None:
    return shutil.which("node")
