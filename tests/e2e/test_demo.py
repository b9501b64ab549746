"""`pgpubsub demo` as its user meets it: a process with a pipe or a terminal, interrupted whenever they like.

Each run has a directory of its own for temporary files, so "nothing is left" can be checked exactly: that
directory is empty, and no process names it in its environment, arguments or working directory.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

DEADLINE = 40.0


class Demo:
    """A running `pgpubsub demo` that leads a process group, as one started by a shell does."""

    def __init__(self, *options: str, python: str = sys.executable, terminal: bool = False, **popen: Any) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
        self.directory.chmod(0o1777)
        self.output = ""
        ours, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._output: int | None = ours
        settings = {"PYTHONIOENCODING": "utf-8", "TERM": "xterm"} | dict.fromkeys(
            ("TMPDIR", "HOME"), str(self.directory)
        )
        if python != sys.executable:
            settings["PYTHONPATH"] = os.pathsep.join(sys.path)
        self.process = subprocess.Popen(
            [python, "-m", "pgpubsub", "demo", *options],
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")} | settings,
            start_new_session=True,
            preexec_fn=partial(_prepare, terminal),
            **popen,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self.hang_up()
        wait_until(lambda: not self.remains())
        shutil.rmtree(self.directory)

    def read(self, timeout: float = 0.01) -> bool:
        """Take what it has written; False at the end, when no process is left that could write."""
        if self._output is None or not select.select([self._output], [], [], timeout)[0]:
            return self._output is not None
        try:
            written = os.read(self._output, 65536)
        except OSError:  # how a terminal ends
            written = b""
        self.output += written.decode(errors="replace")
        return bool(written)

    def expect(self, text: str) -> None:
        self.expect_that(lambda: text in self.output)

    def expect_that(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, or for the end."""
        deadline = monotonic() + DEADLINE
        while not condition() and self.process.poll() is None:
            self.read()
            assert monotonic() < deadline, self.output

    def signal(self, number: int) -> None:
        """Send a signal to its process group, as a terminal does."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def type(self, keys: bytes) -> None:
        assert self._output is not None
        os.write(self._output, keys)

    def hang_up(self) -> None:
        if self._output is not None:
            os.close(self._output)
            self._output = None

    def end(self) -> int:
        """Wait for its end, and look at once what it left behind: nothing."""
        self.expect_that(lambda: False)
        remains = self.remains()
        while self.read(1):
            pass
        assert remains == []
        return self.process.returncode

    def remains(self) -> list[str]:
        """Its processes and files."""
        files = [str(path) for path in self.directory.iterdir()]
        return files + [f"{pid} {command}" for pid, command in self.processes()]

    def processes(self) -> Iterator[tuple[int, str]]:
        needle = os.fsencode(self.directory)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                command = (process / "cmdline").read_bytes()
                haystack = command + (process / "environ").read_bytes() + os.fsencode(os.readlink(process / "cwd"))
            except OSError:  # it has just ended, or is somebody else's
                continue
            if needle in haystack:
                yield int(process.name), command.replace(b"\0", b" ").decode(errors="replace")

    def runs(self, program: str) -> bool:
        return any(f"{program} " in command for _, command in self.processes())


def _prepare(terminal: bool) -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # pytest itself may have been started with them ignored
    if terminal:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline
        select.select([], [], [], 0.01)


def check_summary(output: str) -> None:
    found = re.search(
        r"sent +(\d+).*received +(\d+).*lost in the gap +(\d+).*gaps +(\d+)", output.rpartition("summary")[2], re.DOTALL
    )
    assert found, output
    sent, received, lost, gaps = map(int, found.groups())
    assert received > 0
    assert lost > 0
    assert sent == received + lost
    assert gaps == 1
    assert "Nothing was lost in silence" in output


# -- from beginning to end


def test_writes_plain_lines_into_a_pipe() -> None:
    with Demo("--seconds", "1") as demo:
        assert demo.end() == 0
        assert "\x1b" not in demo.output
        phases = ["PostgreSQL 1", "pubsub.listen", "first notification", "pg_terminate_backend", "Gap: ", "live again"]
        places = [demo.output.index(phase) for phase in phases]
        assert places == sorted(places)
        check_summary(demo.output)


def test_draws_a_moving_picture_on_a_terminal() -> None:
    with Demo("--seconds", "1", terminal=True) as demo:
        assert demo.end() == 0
        assert demo.output.count("\x1b[2K") > 20  # lines drawn over
        assert demo.output.index("\x1b[?25l") < demo.output.index("\x1b[?25h")  # the cursor is there again
        check_summary(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", demo.output))


def test_runs_without_privileges() -> None:
    if os.geteuid() != 0:
        pytest.skip("not started by root")
    anybody: dict[str, Any] = {"user": "nobody", "group": 65534, "extra_groups": [], "cwd": "/"}
    with Demo("--seconds", "0.5", python=python_for(anybody), **anybody) as demo:
        assert demo.end() == 0
        check_summary(demo.output)


def python_for(anybody: dict[str, Any]) -> str:
    """Ours, or the system's of the same version: ours may be below root's home."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        try:
            done = subprocess.run(
                [python, "-c", "import pgpubsub, rich"], env=environment, stderr=subprocess.DEVNULL, **anybody
            )
        except OSError:
            continue
        if done.returncode == 0:
            return python
    pytest.skip("an unprivileged user cannot run this Python")


def test_ends_in_peace_when_its_reader_has_read_enough() -> None:
    with Demo() as demo:
        demo.expect("publish and subscribe")
        demo.hang_up()
        assert demo.end() == 1


LOSES_ONE = """
import sys
from pgpubsub.cli import main
from pgpubsub.cli.demo import story

arrived = story.Story._arrived
story.Story._arrived = lambda self, event: None if event.payload.startswith("3 ") else arrived(self, event)
sys.exit(main(["demo", "--seconds", "0.2"]))
"""


def test_admits_a_loss_that_no_gap_accounts_for() -> None:
    done = subprocess.run([sys.executable, "-c", LOSES_ONE], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert "missing outside of any gap: #3" in done.stdout
    assert "Nothing was lost in silence" not in done.stdout


# -- interrupted

MOMENTS: dict[str, Callable[[Demo], bool]] = {
    # Not before: whatever interrupts Python's own start ends it with status 1, or is swallowed there.
    "import": lambda demo: "psycopg" in Path(f"/proc/{demo.process.pid}/maps").read_text(),
    "first line": lambda demo: "publish and subscribe" in demo.output,
    "directory": lambda demo: any(demo.directory.iterdir()),
    "initdb": lambda demo: any(demo.directory.glob("*/data")),
    "postgres": lambda demo: any(demo.directory.glob("*/data/postmaster.pid")) and demo.runs("-D"),
    "started": lambda demo: "pubsub.listen" in demo.output,
    "first notification": lambda demo: "first notification" in demo.output,
    "killed": lambda demo: "pg_terminate_backend" in demo.output,
    "live again": lambda demo: "live again" in demo.output,
    "shutdown": lambda demo: "live again" in demo.output and not demo.runs("-D"),
    "summary": lambda demo: "summary" in demo.output,
}
AT_THE_END = ("shutdown", "summary")


def interrupted_at(moment: str, number: int, status: int) -> tuple[int, ...]:
    """The exit statuses allowed. Before the program is in charge, and after it is, the signal ends the process itself,
    which a shell reports alike; and at the end it may be too late."""
    if moment == "import":
        return (status, -number)
    return (status, -number, 0) if moment in AT_THE_END else (status,)


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing(moment: str) -> None:
    with Demo("--seconds", "0.2" if moment in AT_THE_END else "1") as demo:
        demo.expect_that(partial(MOMENTS[moment], demo))
        demo.signal(signal.SIGINT)
        assert demo.end() in interrupted_at(moment, signal.SIGINT, 130)
        if moment != "import":  # where Python is in charge
            assert "Traceback" not in demo.output


@pytest.mark.parametrize(
    ("moment", "number", "status"), [("initdb", signal.SIGTERM, 143), ("first notification", signal.SIGHUP, 129)]
)
def test_other_signals_leave_nothing(moment: str, number: int, status: int) -> None:
    with Demo() as demo:
        demo.expect_that(partial(MOMENTS[moment], demo))
        demo.signal(number)
        assert demo.end() == status
        assert "Traceback" not in demo.output


@pytest.mark.parametrize("moment", ["initdb", "first notification"])
def test_impatience_leaves_nothing(moment: str) -> None:
    with Demo() as demo:
        demo.expect_that(partial(MOMENTS[moment], demo))
        while demo.process.poll() is None:
            demo.signal(signal.SIGINT)
            demo.read()
        assert demo.end() in (130, -signal.SIGINT)
        assert "Traceback" not in demo.output


@pytest.mark.parametrize("moment", ["initdb", "postgres", "first notification"])
def test_kill_leaves_nothing(moment: str) -> None:
    with Demo() as demo:
        demo.expect_that(partial(MOMENTS[moment], demo))
        demo.signal(signal.SIGKILL)
        demo.process.wait()
        wait_until(lambda: not demo.remains())
        while demo.read(1):
            pass
        assert "Traceback" not in demo.output  # of the supervisor's


def test_ctrl_c_typed_at_a_terminal_gives_the_cursor_back() -> None:
    with Demo(terminal=True) as demo:
        demo.expect("green tea")
        demo.type(b"\x03")
        assert demo.end() == 130
        assert demo.output.rindex("\x1b[?25h") > demo.output.rindex("\x1b[?25l")
        assert "Traceback" not in demo.output


def test_a_terminal_that_is_closed_leaves_nothing() -> None:
    with Demo(terminal=True) as demo:
        demo.expect("green tea")
        demo.hang_up()
        assert demo.end() == 129


# -- what is missing

WITHOUT_SERVER = """
import sys
import pgpubsub.testing.server

def find_binaries():
    raise FileNotFoundError

pgpubsub.testing.server.find_binaries = find_binaries
from pgpubsub.cli import main
sys.exit(main(["demo"]))
"""


def test_a_missing_extra_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_SERVER], capture_output=True, text=True, timeout=DEADLINE)
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'pgpubsub[binary,demo]'" in done.stderr
