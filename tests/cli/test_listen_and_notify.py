"""`pgpubsub listen` and `pgpubsub notify`."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub.testing import Proxy, TemporaryServer
from tests.cli.conftest import Outcome
from tests.cli.program import Program
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]
Command = Callable[..., Outcome]
Start = Callable[..., Program]

TIME = r"\d\d:\d\d:\d\d\.\d\d\d"


def listens(admin: Admin, channel: str) -> bool:
    """Whether somebody's last statement was to listen there."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE %s"
    row = admin.execute(query, [f'%LISTEN "{channel}"%']).fetchone()
    return row is not None and row[0] > 0


@pytest.fixture
def listening(program: Start, admin: Admin, channel: str) -> Callable[..., Program]:
    """Starts the program, and returns when it listens on `channel`."""

    def listening(*arguments: str, **popen: Any) -> Program:
        started = program("listen", channel, *arguments, **popen)
        eventually(lambda: listens(admin, channel), 30)
        return started

    return listening


def send(admin: Admin, channel: str, *payloads: str) -> None:
    for payload in payloads:
        admin.execute("SELECT pg_notify(%s, %s)", [channel, payload])


# -- listen


def test_a_line_is_a_time_a_channel_and_a_payload(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--count", "2")
    send(admin, channel, "17", "eighteen orders")
    assert started.end() == (0, "")
    first, second = started.output.splitlines()
    assert re.fullmatch(rf"{TIME}  {channel}  17", first)
    assert re.fullmatch(rf"{TIME}  {channel}  eighteen orders", second)


def test_what_arrives_is_shown_at_once_also_in_a_pipe(listening: Start, admin: Admin, channel: str) -> None:
    started = listening()
    send(admin, channel, "now")
    started.expect("now\n")
    assert started.process.poll() is None


def test_channels_are_aligned(program: Start, admin: Admin, channel: str) -> None:
    other = f"{channel}, the other"
    started = program("listen", channel, other, "--count", "2")
    eventually(lambda: listens(admin, other), 30)
    send(admin, channel, "1")
    send(admin, other, "2")
    assert started.end() == (0, "")
    first, second = started.output.splitlines()
    assert first.rindex("  1") == second.rindex("  2")


def test_a_payload_cannot_command_the_terminal_nor_end_the_line(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--count", "1")
    send(admin, channel, "\x1b[2J\x07two\nlines\u202e\x9b")
    assert started.end() == (0, "")
    assert started.output.endswith(r"\x1b[2J\x07two\nlines\u202e\x9b" + "\n")
    assert started.output.count("\n") == 1


HEADERS = {"tries": 3, "by": "me"}


@pytest.mark.parametrize(
    "options",
    [
        ["--json"],
        ["--exec", """printf '{"payload":"%s","headers":%s}\\n' "$(cat)" "${PGPUBSUB_HEADERS:-null}\""""],
    ],
    ids=["JSON", "a command"],
)
def test_headers_are_sent_and_told(listening: Start, command: Command, channel: str, options: list[str]) -> None:
    given = ["--header", "tries=3", "--header", "by=me"]
    started = listening("--count", "3", *options)
    assert command("notify", channel, "17", *given)[0] == 0
    assert command("notify", channel, "-", *given, stdin="18\n")[0] == 0
    assert command("notify", channel, "19")[0] == 0
    assert started.end() == (0, "")
    told = [json.loads(line) for line in started.output.splitlines()]
    assert [(one["payload"], one["headers"]) for one in told] == [("17", HEADERS), ("18", HEADERS), ("19", None)]


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        *((text, text) for text in ("NaN", "Infinity", "-Infinity", "1e999", "[1, NaN]", "ready")),
        ("1.5", 1.5),
        ('["NaN"]', ["NaN"]),
        ("null", None),
    ],
)
def test_a_header_that_is_no_json_is_text(
    listening: Start, command: Command, channel: str, given: str, sent: object
) -> None:
    started = listening("--count", "1", "--json")
    assert command("notify", channel, "17", "--header", f"state={given}") == (0, "", "")
    assert started.end() == (0, "")
    assert json.loads(started.output)["headers"] == {"state": sent}


def test_a_header_that_is_none_is_wrong_usage(command: Command, channel: str) -> None:
    status, _, err = command("notify", channel, "17", "--header", "no equals sign")
    assert status == 64
    assert "'no equals sign' is not NAME=VALUE" in " ".join(err.split())


def test_json_has_all_of_it(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--json", "--count", "2")
    send(admin, channel, 'two\n"lines" é 🎉', "")
    assert started.end() == (0, "")
    one, other = map(json.loads, started.output.splitlines())
    assert one.pop("at")
    payload = 'two\n"lines" é 🎉'
    pid = admin.info.backend_pid
    assert one == {"kind": "notify", "channel": channel, "payload": payload, "headers": None, "pid": pid}
    assert other["payload"] == ""


def test_a_long_payload_arrives_whole(listening: Start, command: Command, channel: str) -> None:
    started = listening("--count", "1")
    assert command("notify", channel, "-", stdin=b"x" * 100_000).status == 0
    assert started.end() == (0, "")
    assert started.output.endswith("x" * 100_000 + "\n")


@pytest.mark.parametrize("as_json", [False, True])
def test_a_gap_is_shown_plainly(server: TemporaryServer, program: Start, as_json: bool) -> None:
    with Proxy(server.dsn()) as proxy, psycopg.connect(server.dsn(), autocommit=True) as admin:
        options = ["--json"] if as_json else []
        started = program("listen", "orders", "--count", "1", "--dsn", proxy.dsn(), *options)
        eventually(lambda: listens(admin, "orders"), 30)
        proxy.reset()
        started.expect("connection_lost")
        send(admin, "orders", "after it")
        status, err = started.end()
    assert status == 0
    assert "connection lost" in err
    gap, after = started.output.splitlines()
    assert "after it" in after
    if as_json:
        found = json.loads(gap)
        assert (found["kind"], found["reason"], found["channels"]) == ("gap", "connection_lost", ["orders"])
        assert found["count"] is None
    else:
        assert re.match(rf"{TIME}  GAP: any number may be missing on orders since {TIME}: connection_lost, ", gap)


def test_a_command_is_run_for_each(listening: Start, admin: Admin, channel: str, tmp_path: Path) -> None:
    told = tmp_path / "told"
    line = f'{{ echo "$PGPUBSUB_KIND $PGPUBSUB_CHANNEL $PGPUBSUB_PID"; cat; echo; }} >> {told}'
    started = listening("--count", "2", "--exec", line)
    send(admin, channel, "$(touch owned)", "x" * 7000)
    assert started.end() == (0, "")
    about = f"notify {channel} {admin.info.backend_pid}"
    assert told.read_text().splitlines() == [about, "$(touch owned)", about, "x" * 7000]


def test_a_command_that_fails_is_told_of_and_the_rest_goes_on(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--count", "3", "--exec", 'read -r line; echo "got $line"; test "$line" != bad')
    send(admin, channel, "good", "bad", "better")
    status, err = started.end()
    assert status == 1
    assert started.output.splitlines() == ["got good", "got bad", "got better"]
    assert "ended with status 1" in err


def test_a_gap_is_told_to_the_command(server: TemporaryServer, program: Start, tmp_path: Path) -> None:
    line = f'printf "%s %s\\n" "$PGPUBSUB_KIND" "$PGPUBSUB_GAP" >> {tmp_path}/told; cat >> {tmp_path}/told'
    with Proxy(server.dsn()) as proxy, psycopg.connect(server.dsn(), autocommit=True) as admin:
        started = program("listen", "a", "b", "--count", "1", "--dsn", proxy.dsn(), "--exec", line)
        eventually(lambda: listens(admin, "b"), 30)
        proxy.reset()
        eventually((tmp_path / "told").exists, 30)
        send(admin, "b", "after it")
        started.end()
    kind, _, gap = (tmp_path / "told").read_text().splitlines()[0].partition(" ")
    assert kind == "gap"
    assert json.loads(gap)["channels"] == ["a", "b"]


def test_a_command_that_there_is_not_ends_it(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--exec", "no-such-command-anywhere")
    send(admin, channel, "1")
    status, err = started.end()
    assert status == 1
    assert "no-such-command-anywhere cannot be run: status 127" in err


def test_ctrl_c_is_not_for_the_command_in_hand_but_a_second_one_is(
    listening: Start, admin: Admin, channel: str, tmp_path: Path
) -> None:
    wait = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; touch {tmp_path}/done"
    first = listening("--exec", wait, terminal=True)
    send(admin, channel, "1")
    eventually((tmp_path / "begun").exists, 30)
    first.write("\x03")
    (tmp_path / "go").touch()
    assert first.end()[0] == 130
    assert (tmp_path / "done").exists()
    for name in ("begun", "go", "done"):
        (tmp_path / name).unlink()
    other = listening("--exec", wait, terminal=True)
    send(admin, channel, "1")
    eventually((tmp_path / "begun").exists, 30)
    while other.process.poll() is None:  # two that come at once are one
        other.write("\x03")
        select.select([], [], [], 0.05)
    assert other.process.returncode == 130
    (tmp_path / "go").touch()
    assert not (tmp_path / "done").exists()


def test_a_burst_arrives_whole(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--count", "20000")
    admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(1, 20000) i", [channel])
    assert started.end() == (0, "")
    assert "GAP" not in started.output


def test_a_signal_counts_also_while_nobody_reads(listening: Start, admin: Admin, channel: str) -> None:
    started = listening()
    admin.execute("SELECT pg_notify(%s, repeat('x', 7000) || i) FROM generate_series(1, 50) i", [channel])
    started.expect("xxx")  # and no more: the pipe is full before all is written
    started.process.send_signal(signal.SIGTERM)
    assert started.process.wait(30) == 143


def test_a_command_that_reads_nothing_is_no_failure(listening: Start, admin: Admin, channel: str) -> None:
    started = listening("--count", "1", "--exec", "true")
    send(admin, channel, "x" * 7000)
    assert started.end() == (0, "")


def test_time_is_up(command: Command, channel: str) -> None:
    assert command("listen", channel, "--timeout", "0.01") == (0, "", "")
    status, out, err = command("listen", channel, "--timeout", "0.01", "--count", "1")
    assert (status, out) == (4, "")
    assert "0 of 1 came within 0.01 s" in err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_cleanly(listening: Start, admin: Admin, channel: str, number: int, status: int) -> None:
    started = listening()
    send(admin, channel, "before")
    started.expect("before")
    started.signal(number)
    assert started.end() == (status, "")


def test_a_signal_lets_the_command_in_hand_end(listening: Start, admin: Admin, channel: str, tmp_path: Path) -> None:
    flag, done = tmp_path / "begun", tmp_path / "done"
    started = listening("--exec", f"touch {flag}; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; touch {done}")
    send(admin, channel, "1", "2")
    eventually(flag.exists)
    started.process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert started.end()[0] == 143
    assert done.exists()


def test_it_ends_in_peace_when_its_reader_has_read_enough(listening: Start, admin: Admin, channel: str) -> None:
    started = listening()
    started.close_output()
    send(admin, channel, "1")
    assert started.process.wait(30) == 141
    assert started.process.stderr is not None
    assert started.process.stderr.read() == b""


def test_it_looks_good_on_a_terminal(listening: Start, admin: Admin, channel: str) -> None:
    started = listening(terminal=True)
    started.expect("Ctrl-C ends it")
    send(admin, channel, "an order")
    started.expect("an order")
    started.write("\x03")
    assert started.end()[0] == 130
    plain = re.sub(r"\x1b\[[0-9;]*m", "", started.output)
    assert f"pgpubsub: listening on {channel}; Ctrl-C ends it" in plain
    assert re.search(rf"{TIME}  {channel}  an order\r\n", plain)
    assert "\x1b[36m" in started.output  # there are colours


def test_without_colour(listening: Start, admin: Admin, channel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    started = listening("--count", "1", terminal=True)
    send(admin, channel, "17")
    started.end()
    assert not re.search(r"\x1b\[[0-9;]*3\dm", started.output)


# -- notify


@pytest.fixture
def heard(dsn: str, channel: str) -> Callable[[int], list[str]]:
    """What was sent on `channel` since the test began."""
    pubsub = pgpubsub.connect(dsn)
    pubsub.listen(channel)

    def heard(count: int) -> list[str]:
        payloads: list[str] = []
        while len(payloads) < count:
            event = pubsub.get_event(10)
            assert event is not None, payloads
            payloads.append(event.payload)
        assert pubsub.get_event() is None
        pubsub.close()
        return payloads

    return heard


@pytest.mark.parametrize("payload", [(), ("17",), ("--", "-x")])
def test_it_sends_one(command: Command, heard: Any, channel: str, payload: tuple[str, ...]) -> None:
    assert command("notify", channel, *payload) == (0, "", "")
    assert heard(1) == ["".join(payload[-1:])]


def test_it_sends_lines_as_they_are(command: Command, heard: Any, channel: str) -> None:
    given = "one\n\nequal\nequal\n  spaces \r\nlast, without an end"
    status, out, err = command("notify", channel, "-", stdin=given)
    assert (status, out, err) == (0, "", "pgpubsub: sent 6\n")
    assert heard(6) == given.split("\n")


def test_it_sends_many(command: Command, heard: Any, channel: str) -> None:
    lines = [str(number) for number in range(20_000)]
    assert command("notify", channel, "-", stdin="\n".join(lines)).err == "pgpubsub: sent 20,000\n"
    assert heard(20_000) == lines


def test_a_line_is_sent_when_it_comes(program: Start, heard: Any, channel: str) -> None:
    started = program("notify", channel, "-", stdin=True)
    started.write("at once\n")
    assert heard(1) == ["at once"]
    started.signal(signal.SIGINT)
    status, err = started.end()
    assert status == 130
    assert re.fullmatch(r"pgpubsub: sent at least [01]\n", err)  # it may not have been told yet


def test_progress_is_shown_on_a_terminal(program: Start, channel: str) -> None:
    started = program("notify", channel, "-", terminal=True, stdin=True)
    started.write("1\n2\n")
    started.expect_that(lambda: re.search(r"sent 2 ", re.sub(r"\x1b\[[0-9;]*m", "", started.output)) is not None)
    started.close_input()
    assert started.end()[0] == 0
    assert "pgpubsub: sent 2" in started.output


def test_of_a_file_it_is_shown_how_much_is_done(program: Start, channel: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("".join(f"{number}\n" for number in range(100_000)))
    with (tmp_path / "lines").open("rb") as lines:
        started = program("notify", channel, "-", terminal=True, stdin=lines)
        assert started.end()[0] == 0
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", started.output)
    assert re.search(r"sent [\d,]+ +\S+ +[1-9]\d?% ", plain)
    assert "pgpubsub: sent 100,000\r\n" in plain


def test_what_is_no_text_is_told_of_with_its_place(command: Command, heard: Any, channel: str) -> None:
    status, _, err = command("notify", channel, "-", stdin=b"one\ntwo\nth\xffree\nfour\n")
    assert status == 1
    assert "standard input is not UTF-8 at byte 3 of line 3, so that line was not sent" in err
    assert "sent 2" in err
    assert heard(2) == ["one", "two"]


def test_what_cannot_be_sent_is_told_of_and_how_many_were(command: Command, heard: Any, channel: str) -> None:
    status, _, err = command("notify", channel, "-", stdin="one\ntwo\nth\0ree\nfour\n")
    assert status == 1
    assert "pgpubsub: line 3 of standard input: " in err
    assert "NUL" in err
    assert "sent 2" in err
    assert heard(2) == ["one", "two"]


def test_a_line_without_end_is_refused(program: Start, channel: str) -> None:
    started = program("notify", channel, "-", stdin=True)
    with suppress(BrokenPipeError):
        for _ in range(20):
            started.write("x" * (1 << 20))
    status, err = started.end()
    assert status == 1
    assert "line 1 of standard input has over 16777216 bytes" in err
    assert "sent 0" in err


# -- standard streams


@pytest.mark.parametrize(
    ("redirection", "status", "words"),
    [
        ("> /dev/full", 1, "pgpubsub: standard output cannot be written: No space left on device"),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&-", 0, ""),
        ("| true", 0, ""),
    ],
)
def test_odd_standard_streams(stream: str, dsn: str, redirection: str, status: int, words: str) -> None:
    command = f"{sys.executable} -m pgpubsub stream append '{stream}' 17 {redirection}"
    environment = {**os.environ, "PGPUBSUB_DSN": dsn}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (status, words)


# -- connections


@pytest.mark.parametrize("password", ["sek ret", "sekret%zz"])
def test_a_password_is_not_repeated(command: Command, password: str) -> None:
    status, _, err = command("notify", "a", "--dsn", f"postgresql://u:{password}@127.0.0.1:1/d")
    assert status == 64
    assert "sek" not in err
    assert "ret" not in err.replace("...", "")


@pytest.mark.parametrize("words", [("listen", "orders"), ("notify", "orders", "17"), ("stream", "read", "orders")])
def test_no_connection_is_a_status_of_its_own_and_one_line(command: Command, words: tuple[str, ...]) -> None:
    status, out, err = command(*words, "--dsn", "host=127.0.0.1 port=1")
    assert (status, out) == (3, "")
    assert err.startswith("pgpubsub: cannot connect to PostgreSQL: ")
    assert err.count("\n") == 1


def test_a_server_that_does_not_answer_can_be_interrupted(dsn: str, program: Start) -> None:
    with Proxy(dsn) as proxy:
        proxy.deafen()
        started = program("listen", "orders", "--dsn", proxy.dsn())
        eventually(lambda: proxy.connections > 0, 30)
        started.signal(signal.SIGINT)
        assert started.end()[0] == 130


def test_libpqs_environment_counts(dsn: str, command: Command, monkeypatch: pytest.MonkeyPatch, channel: str) -> None:
    options = psycopg.conninfo.conninfo_to_dict(dsn)
    monkeypatch.delenv("PGPUBSUB_DSN")
    for name, keyword in (("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user"), ("PGDATABASE", "dbname")):
        monkeypatch.setenv(name, str(options[keyword]))
    assert command("notify", channel).status == 0


def test_a_channel_that_cannot_be_is_wrong_usage(command: Command) -> None:
    status, _, err = command("listen", "x" * 64)
    assert status == 64
    assert "has 64 bytes and PostgreSQL's limit is 63" in err
