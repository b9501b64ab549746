"""`pgpubsub stream`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub import BEGINNING, Hub
from tests.cli.conftest import Outcome
from tests.cli.program import Program
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]
Command = Callable[..., Outcome]
Start = Callable[..., Program]


@pytest.fixture
def filled(command: Command, stream: str) -> str:
    """A stream with three entries."""
    assert command("stream", "append", stream, "-", "--key", "k", stdin="one\ntwo\nthree\n").status == 0
    return stream


def payloads(dsn: str, stream: str) -> list[Any]:
    with Hub(dsn) as hub, hub.stream(stream).read(after=BEGINNING, follow=False) as entries:
        return [event.payload for event in entries if isinstance(event, pgpubsub.Entry)]


def by_json(outcome: Outcome) -> list[dict[str, Any]]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.lines]


# -- install, create, trim


def test_install_installs_and_may_be_repeated(command: Command, admin: Admin, channel: str) -> None:
    schema = f"{channel} streams"
    assert command("stream", "append", channel, "1", "--schema", schema).status == 1
    for _ in range(2):
        assert command("stream", "install", "--schema", schema) == (0, "", "")
    assert command("stream", "append", channel, "1", "--schema", schema).status == 0
    admin.execute(f'DROP SCHEMA "{schema}" CASCADE')


def test_where_streams_are_not_installed_the_command_is_named(command: Command) -> None:
    status, _, err = command("stream", "read", "orders", "--schema", "nowhere")
    assert status == 1
    assert "there are no streams in schema 'nowhere'" in err
    assert "the command for it is: pgpubsub stream install" in err


def test_install_prints_what_it_would_run(command: Command) -> None:
    outcome = command("stream", "install", "--print", "--schema", "somewhere", "--dsn", "host=nowhere.invalid")
    assert outcome.status == 0
    assert outcome.out.strip() == pgpubsub.streams.sql("somewhere").strip()


def test_create_sets_what_is_given_and_leaves_the_rest(command: Command, admin: Admin, stream: str) -> None:
    def settings() -> Any:
        query = "SELECT wake, max_age::text, max_entries, keep_unconsumed FROM pgpubsub.stream WHERE name = %s"
        return admin.execute(query, [stream]).fetchone()

    given = ["--wake", "poll", "--max-age", "1.5h", "--max-entries", "3", "--keep-unconsumed"]
    assert command("stream", "create", stream, *given) == (0, "", "")
    assert settings() == ("poll", "01:30:00", 3, True)
    assert command("stream", "create", stream, "--max-age", "never", "--drop-unconsumed") == (0, "", "")
    assert settings() == ("poll", None, 3, False)
    assert command("stream", "create", stream, "--max-entries", "never").status == 0
    assert settings() == ("poll", None, None, False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-age", "3x"], "'3x' is no age: 30d, 12h, 90m, 3600s or never"),
        (["--max-age", "0s"], "max_age is a positive number of seconds"),
        (["--max-entries", "many"], "'many' is no number of entries, nor never"),
        (["--max-entries", "0"], "max_entries is a positive number"),
        (["--wake", "shout"], "'shout' is not one of"),
    ],
)
def test_create_explains_what_cannot_be(command: Command, stream: str, options: list[str], words: str) -> None:
    status, _, err = command("stream", "create", stream, *options)
    assert status == 64
    assert words in " ".join(err.split())


def test_trim_says_how_many_it_removed(command: Command, dsn: str, filled: str) -> None:
    command("stream", "create", filled, "--max-entries", "1")
    assert command("stream", "trim", filled) == (0, "2\n", "")
    assert payloads(dsn, filled) == ["three"]


# -- append


def test_append_prints_the_id(command: Command, dsn: str, stream: str) -> None:
    given = ["--key", "customer 4", "--header", "tries=3", "--header", "by=me", "--header", "no="]
    status, out, err = command("stream", "append", stream, "17", *given)
    assert (status, err) == (0, "")
    with Hub(dsn) as hub, hub.stream(stream).read() as entries:
        entry = entries.get(10)
    assert isinstance(entry, pgpubsub.Entry)
    assert (str(entry.id), entry.payload, entry.key) == (out.strip(), "17", "customer 4")
    assert entry.headers == {"tries": 3, "by": "me", "no": ""}


def test_append_with_an_idempotency_key_stores_once(command: Command, dsn: str, stream: str) -> None:
    one, other = (command("stream", "append", stream, "17", "--idempotency-key", "a") for _ in range(2))
    assert one == other
    assert payloads(dsn, stream) == ["17"]


def test_append_takes_lines(command: Command, dsn: str, stream: str) -> None:
    lines = [str(number) for number in range(5000)]
    status, out, err = command("stream", "append", stream, "-", stdin="\n".join(lines))
    assert (status, err) == (0, "pgpubsub: appended 5,000\n")
    ids = list(map(int, out.split()))
    assert len(ids) == 5000
    assert ids == sorted(ids)
    assert payloads(dsn, stream) == lines


def test_a_line_is_appended_when_it_comes(program: Start, dsn: str, stream: str) -> None:
    started = program("stream", "append", stream, "-", stdin=True)
    started.write("at once\n")
    started.expect("\n")
    assert payloads(dsn, stream) == ["at once"]


@pytest.mark.parametrize(
    ("options", "words"),
    [(["1", "--header", "x"], "'x' is not NAME=VALUE"), (["-", "--idempotency-key", "a"], "it is for one entry")],
)
def test_append_explains_what_cannot_be(command: Command, stream: str, options: list[str], words: str) -> None:
    status, out, err = command("stream", "append", stream, *options)
    assert (status, out) == (64, "")
    assert words in " ".join(err.split())


# -- read


def test_read_shows_a_line_for_each_and_where_to_go_on(command: Command, filled: str) -> None:
    status, out, err = command("stream", "read", filled, "--count", "2")
    assert status == 0
    assert [line.split("  ")[2:] for line in out.splitlines()] == [["k", "one"], ["k", "two"]]
    position = err.strip().rpartition(" ")[2]
    assert [line.split("  ")[-1] for line in command("stream", "read", filled, "--after", position).lines] == ["three"]
    assert command("stream", "read", filled, "--after", "end").out == ""


def test_read_has_all_in_json(command: Command, filled: str) -> None:
    first, *others = by_json(command("stream", "read", filled, "--json"))
    assert [one["payload"] for one in others] == ["two", "three"]
    assert (first["kind"], first["key"], first["headers"]) == ("entry", "k", None)
    assert by_json(command("stream", "read", filled, "--json", "--after", first["position"]))[0]["payload"] == "two"


def test_a_stream_that_there_is_not_is_told_of(command: Command, stream: str) -> None:
    """Not one that has no entries."""
    outcome = command("stream", "read", stream)
    assert (outcome.status, outcome.out) == (0, "")
    assert f"there is no stream '{stream}' yet" in outcome.err
    command("stream", "create", stream)
    assert command("stream", "read", stream) == (0, "", "")


def test_bytes_are_shown_as_postgresql_does(command: Command, dsn: str, stream: str) -> None:
    with Hub(dsn) as hub:
        hub.stream(stream).append(b"\x00\xff")
    assert command("stream", "read", stream).out.endswith("  -  \\x00ff\n")
    assert by_json(command("stream", "read", stream, "--json"))[0]["payload_base64"] == "AP8="


def test_read_follows(program: Start, command: Command, filled: str) -> None:
    started = program("stream", "read", filled, "--follow")
    started.expect("three\n")
    command("stream", "append", filled, "four")
    started.expect("four\n")
    started.signal(signal.SIGINT)
    status, err = started.end()
    assert status == 130
    assert err == ""


def test_read_waits_for_as_many_as_asked(command: Command, filled: str) -> None:
    assert command("stream", "read", filled, "-f", "--count", "3", "--timeout", "20").status == 0
    assert command("stream", "read", filled, "-f", "--count", "4", "--timeout", "0.1").status == 4


def test_a_position_that_is_none_is_wrong_usage(command: Command, filled: str) -> None:
    status, _, err = command("stream", "read", filled, "--after", "yesterday")
    assert status == 64
    assert "yesterday" in err


# -- groups


def test_consume_shows_and_acknowledges(command: Command, filled: str) -> None:
    status, out, err = command("stream", "consume", filled, "billing", "--no-follow", "--count", "2")
    assert (status, err) == (0, "")
    assert [line.split("  ")[-1] for line in out.splitlines()] == ["one", "two"]
    assert by_json(command("stream", "consume", filled, "billing", "--no-follow", "--json"))[0]["payload"] == "three"
    assert command("stream", "consume", filled, "billing", "--no-follow").out == ""


def test_consume_starts_where_it_is_told(command: Command, filled: str) -> None:
    assert command("stream", "consume", filled, "new", "--no-follow", "--start", "end").out == ""


def test_consume_by_a_command(command: Command, admin: Admin, stream: str, tmp_path: Path) -> None:
    command("stream", "append", stream, "the payload", "--key", "k", "--header", "a=1")
    line = f'{{ echo "$PGPUBSUB_STREAM $PGPUBSUB_GROUP $PGPUBSUB_KEY $PGPUBSUB_HEADERS"; cat; }} > {tmp_path}/told'
    assert command("stream", "consume", stream, "billing", "--no-follow", "--exec", line).status == 0
    assert (tmp_path / "told").read_text() == f'{stream} billing k {{"a": 1}}\nthe payload'
    assert by_json(command("stream", "groups", stream, "--json"))[0]["lag"] == 0


def test_what_a_command_fails_for_is_set_aside_and_comes_again_when_asked(command: Command, stream: str) -> None:
    command("stream", "append", stream, "-", stdin="good\nbad\n")
    fails = ["stream", "consume", stream, "billing", "--no-follow", "--attempts", "1", "--exec", "! grep -q bad"]
    status, _, err = command(*fails)
    assert status == 1
    assert "! grep -q bad ended with status 1" in err
    assert len(err.splitlines()) == 1
    (line,) = command("stream", "dead", stream, "billing").lines
    assert line.split("  ")[2:] == ["1", "-", "bad", "! grep -q bad ended with status 1"]
    (letter,) = by_json(command("stream", "dead", stream, "billing", "--json"))
    assert (letter["payload"], letter["attempts"]) == ("bad", 1)
    assert command("stream", "redrive", stream, "billing", str(letter["id"])) == (0, "1\n", "")
    assert command(*fails).status == 1
    assert command("stream", "discard", stream, "billing") == (0, "1\n", "")
    assert command("stream", "dead", stream, "billing").out == ""
    assert command("stream", "redrive", stream, "billing").out == "0\n"


def test_an_entry_that_is_lost_meanwhile_comes_again_and_the_consumer_goes_on(
    program: Start, command: Command, admin: Admin, filled: str, tmp_path: Path
) -> None:
    wait = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; cat >> {tmp_path}/handled"
    started = program("stream", "consume", filled, "billing", "--count", "3", "--exec", wait)
    eventually((tmp_path / "begun").exists, 30)
    name = f"pgpubsub % {started.process.pid}@%"
    admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s", [name])
    (tmp_path / "go").touch()
    status, err = started.end()
    assert status == 0
    assert "comes again" in err
    assert (tmp_path / "handled").read_text() == "oneonetwothree"


def test_headers_that_are_too_long_for_a_command_fail_alone(command: Command, dsn: str, stream: str) -> None:
    with Hub(dsn) as hub:
        hub.stream(stream).append("long", headers={"x": "y" * 300_000})
        hub.stream(stream).append("short")
    given = ["stream", "consume", stream, "billing", "--no-follow", "--attempts", "1", "--exec", "cat"]
    status, _, err = command(*given)
    assert status == 1
    assert "cat could not be started, with 300," in err
    (letter,) = by_json(command("stream", "dead", stream, "billing", "--json"))
    assert (letter["kind"], letter["payload"]) == ("dead_letter", "long")
    assert "Argument list too long" in letter["error"]


def test_a_command_that_there_is_not_sets_nothing_aside(command: Command, filled: str) -> None:
    given = ["stream", "consume", filled, "billing", "--attempts", "1", "--exec", "no-such-command-anywhere"]
    assert command(*given).status == 1
    assert command("stream", "dead", filled, "billing").out == ""


def test_a_line_that_cannot_be_appended_is_named_and_those_before_it_are(
    command: Command, dsn: str, stream: str
) -> None:
    status, _, err = command("stream", "append", stream, "-", stdin="one\ntwo\nth\0ree\nfour\n")
    assert status == 1
    assert "line 3 of standard input: " in err
    assert "appended 2" in err
    assert payloads(dsn, stream) == ["one", "two"]


def test_what_is_in_hand_when_a_signal_comes_is_finished(
    program: Start, command: Command, filled: str, tmp_path: Path
) -> None:
    wait = f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    started = program("stream", "consume", filled, "billing", "--exec", wait)
    eventually((tmp_path / "begun").exists, 30)
    started.process.send_signal(signal.SIGTERM)
    (tmp_path / "go").touch()
    assert started.end() == (143, "")
    assert by_json(command("stream", "groups", filled, "--json"))[0]["lag"] == 2


def test_groups_are_a_table(command: Command, filled: str) -> None:
    command("stream", "consume", filled, "billing", "--no-follow", "--count", "1")
    heading, row = command("stream", "groups", filled).lines
    assert heading.split("  ")[0] == "group"
    assert row.split()[:2] == ["billing", "2"]
    assert max(map(len, (heading, row))) <= 80


def test_seek(command: Command, filled: str) -> None:
    command("stream", "consume", filled, "billing", "--no-follow")
    for place, lag in (("beginning", 3), ("end", 0), ("2026-01-01T00:00:00", 3), ("2099-01-01", 0)):
        assert command("stream", "seek", filled, "billing", place) == (0, "", "")
        assert by_json(command("stream", "groups", filled, "--json"))[0]["lag"] == lag, place
    status, _, err = command("stream", "seek", filled, "billing", "somewhere")
    assert status == 64
    assert "'somewhere' is no time, such as 2026-01-31T12:00:00" in err


def test_seek_takes_a_position_that_begins_with_a_hyphen(command: Command, filled: str) -> None:
    """As in one database of 64."""
    for place in ("-oAbC_d", "--AbC_d"):
        status, _, err = command("stream", "seek", filled, "billing", place)
        assert status == 64
        assert f"{place!r} is no time" in err
    assert "No such option" not in err


def test_a_group_that_is_not_there_is_told_of(command: Command, filled: str) -> None:
    status, _, err = command("stream", "dead", filled, "nobody")
    assert status == 1
    assert "has no group 'nobody'" in err
