"""How `pgpubsub top` behaves in a terminal, in a pipe, and when it is interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import termios

import pytest
from rich.cells import cell_len

from pgpubsub import Hub
from tests.cli.top import ALTERNATE_ON, PROGRAM, Top, run


def test_fits_into_24_lines_of_80_columns(dsn: str, channel: str) -> None:
    with Hub(dsn) as hub, Top(channel, "--interval", "0.2", "--dsn", dsn) as top:
        payload = "\x1b[31m\n\u202e" + "\N{LARGE RED CIRCLE}" * 200 + "\ud800".encode("utf-8", "replace").decode()

        def shown() -> bool:  # from when on it listens, nothing shows
            hub.notify(channel, payload)
            return "\N{LARGE RED CIRCLE}" in top.text

        top.expect(shown)
        assert len(top.screen) == 24
        assert max(map(cell_len, top.screen)) <= 80
        assert "\\x1b[31m\\n\\u202e" in top.line(channel)
        assert top.screen[0].startswith("pgpubsub top  ")
        assert "q quits" in top.screen[1]


def test_is_drawn_anew_in_another_size(dsn: str) -> None:
    with Top("--interval", "3600", "--dsn", dsn) as top:
        top.expect(lambda: len(top.screen) == 24)
        top.resize(40, 200)
        top.expect(lambda: len(top.screen) == 40 and cell_len(top.screen[0]) > 190)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"COLORTERM": "truecolor", "TERM": "xterm-256color"}])
def test_says_the_same_with_and_without_colour(dsn: str, environment: dict[str, str]) -> None:
    with Top("--interval", "0.2", "--dsn", dsn, environment=environment) as top:
        top.expect(lambda: "connected since" in top.text)
        coloured = re.search(r"\x1b\[[0-9;]*3[0-9]m", top.output)
        assert bool(coloured) == ("NO_COLOR" not in environment)


def test_a_terminal_that_cannot_draw_gets_pages(dsn: str) -> None:
    with Top("--interval", "0.1", "--count", "2", "--dsn", dsn, environment={"TERM": "dumb"}) as top:
        assert top.end() == 0
        assert "\x1b" not in top.output
        assert top.output.count("NOTIFY queue") == 2


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x04"])
def test_a_key_ends_it(dsn: str, key: bytes) -> None:
    with Top("--interval", "3600", "--dsn", dsn) as top:
        top.expect(lambda: "NOTIFY queue" in top.text)
        top.type(b"x" + key)
        assert top.end() == 0
        assert ALTERNATE_ON in top.output


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it(dsn: str, channel: str, number: int, status: int) -> None:
    with Top(channel, "--interval", "3600", "--dsn", dsn) as top:
        top.expect(lambda: "NOTIFY queue" in top.text)
        top.process.send_signal(number)
        assert top.end() == status


def test_ctrl_c_ends_it_and_ctrl_z_does_not_stop_it(dsn: str) -> None:
    with Top("--interval", "0.1", "--dsn", dsn) as top:
        top.expect(lambda: "NOTIFY queue" in top.text)
        top.type(b"\x1a")
        shown = len(top.output)
        top.expect(lambda: len(top.output) > shown + 5000)
        # A process group like this one, without a shell above it, would not be stopped in any case.
        assert top.current_settings()[6][termios.VSUSP] == b"\x00"
        top.type(b"\x03")
        assert top.end() == 130


def test_ctrl_c_ends_it_in_a_pipe(dsn: str) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--count", "100", "--interval", "0.1", "--json", "--dsn", dsn], stdout=-1
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["trouble"] is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_pipe_gets_one_page_of_80_columns(dsn: str, channel: str) -> None:
    done = run(channel, "\N{LARGE RED CIRCLE}" * 15, "--interval", "0.1", "--dsn", dsn, TERM="xterm-256color")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "\x1b" not in done.stdout
    assert max(map(cell_len, lines)) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert done.stdout.count("NOTIFY queue") == 1
    assert f"\n{channel} " in done.stdout


def test_where_letters_are_ascii_so_is_the_page(dsn: str, channel: str) -> None:
    done = run("gr\u00fcn", "--interval", "0.1", "--dsn", dsn, PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert ".............. 0.0 % full" in done.stdout
    assert "gr?n " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_has_an_object_for_each_sample(dsn: str, channel: str) -> None:
    done = run(channel, "--json", "--count", "3", "--interval", "0.1", "--dsn", dsn)
    samples = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(samples) == 3
    for one in samples:
        assert one["trouble"] is None
        assert one["not_listening"] is None
        assert one["channels"] == [{"name": channel, "total": 0, "gaps": 0, "last": None, "per_second": 0.0}]
        assert 0 < one["seconds"] < 10
        assert one["server"]["database"] == "postgres"
        assert one["queue"] == {"usage": 0.0, "waiting": 0}
        assert {"total", "hidden", "sessions"} == one["listeners"].keys()


def test_json_has_rates(dsn: str, channel: str) -> None:
    with subprocess.Popen(
        [*PROGRAM, channel, "--json", "--count", "9", "--interval", "0.3", "--dsn", dsn], stdout=-1
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["channels"][0]["total"] == 0
        with Hub(dsn) as hub:
            hub.notify_many([(channel, str(n)) for n in range(300)])
        samples = [json.loads(line) for line in process.stdout]
    counted = sum(one["channels"][0]["per_second"] * one["seconds"] for one in samples)
    assert round(counted) == samples[-1]["channels"][0]["total"] == 300


def test_a_reader_that_has_read_enough_ends_it(dsn: str) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--json", "--count", "100", "--interval", "0.1", "--dsn", dsn], stdout=-1, stderr=-1
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("x" * 64,), "63"), (("--interval", "0"), "not a number of seconds above 0"), (("--schema", ""), "schema")],
)
def test_a_wrong_command_line_is_explained(arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (64, "")
    assert words in " ".join(done.stderr.split())


def test_without_a_server_it_says_so_and_ends() -> None:
    done = run("orders", "--dsn", "host=/nonexistent")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("pgpubsub: cannot connect to PostgreSQL: ")


def test_an_unknown_role_is_not_shown_a_screen(dsn: str) -> None:
    with Top("--dsn", f"{dsn} user=stranger") as top:
        assert top.end() == 3
        assert 'role "stranger" does not exist' in top.output
