"""Clients in other languages on our channels: psql in plain text, Node.js in frames too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from pgpubsub import Hub, Notify
from tests.unit.test_frame_vectors import VECTORS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "frames.md").read_text()
NODE_CLIENT = ROOT / "examples" / "node_client.js"
NODE_MODULES = ["/usr/share/nodejs", "/usr/lib/node_modules", "/usr/local/lib/node_modules"]
"""Where Debian's packages and `npm install --global` put modules; the latter does not tell node."""

LONG = "é日本€🐘" * 20_000
"""100,000 characters, 280,000 bytes in UTF-8."""


@pytest.fixture(scope="module")
def environment(dsn: str) -> dict[str, str]:
    """Says where the server is, in libpq's way."""
    part = conninfo_to_dict(dsn)
    names = {"PGHOST": "host", "PGPORT": "port", "PGPASSWORD": "password", "PGUSER": "user", "PGDATABASE": "dbname"}
    modules = os.pathsep.join([*os.environ.get("NODE_PATH", "").split(os.pathsep), *NODE_MODULES])
    ours = {"NODE_PATH": modules, "PGCLIENTENCODING": "UTF8"}
    return {**os.environ, **ours} | {variable: str(part[name]) for variable, name in names.items() if part.get(name)}


@pytest.fixture(scope="module")
def psql(environment: dict[str, str]) -> list[str]:
    found = shutil.which("psql")
    if found is None:
        pytest.skip("psql is not installed (Debian: apt-get install postgresql-client)")
    return [found, "-X", "-q", "-v", "ON_ERROR_STOP=1"]


@pytest.fixture(scope="module")
def node(environment: dict[str, str]) -> list[str]:
    found = shutil.which("node")
    if found is None:
        pytest.skip("node is not installed (Debian: apt-get install nodejs npm)")
    looked = subprocess.run([found, "-e", "require('pg')"], env=environment, capture_output=True, text=True)
    if looked.returncode:
        pytest.skip("node's package pg is not installed (npm install --global pg, or Debian: apt-get install node-pg)")
    return [found, str(NODE_CLIENT)]


@contextmanager
def talking(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A program that runs while we talk with it. It has to end well, and by itself."""
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        yield process
        process.communicate(timeout=30)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """What it prints next."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def tell(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    process.stdin.flush()


# -- psql


def test_psql_sends_what_the_page_says(psql: list[str], dsn: str, environment: dict[str, str]) -> None:
    [statements] = re.findall(r"```sql\n(LISTEN .*?)```", PAGE, re.DOTALL)
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen("orders")
        done = subprocess.run(psql, input=statements, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        assert 'Asynchronous notification "orders" with payload "plain text" received' in done.stdout
        event = pubsub.get_event(20)
        assert event is not None
        assert event[1:] == ("orders", "plain text")


@pytest.mark.parametrize("payload", ["", "été 日本 🐘", "x" * 7999, "é" * 3999, "pgpubsub/ is text", '{"a": "it\'s"}'])
def test_psqls_plain_text_arrives_as_it_is(
    psql: list[str], dsn: str, environment: dict[str, str], channel: str, payload: str
) -> None:
    quoted = payload.replace("'", "''")
    with pgpubsub.connect(dsn) as pubsub, Hub(dsn) as hub, hub.subscribe(channel) as events:
        pubsub.listen(channel)
        subprocess.run(
            psql, input=f"NOTIFY \"{channel}\", '{quoted}'", env=environment, text=True, timeout=30, check=True
        )
        for event in (pubsub.get_event(20), events.get(20)):
            assert isinstance(event, Notify)
            assert event[1:] == (channel, payload)
        assert pubsub.gaps == 0


def test_psql_sees_our_plain_text_as_it_is_and_frames_as_they_are(
    psql: list[str], dsn: str, environment: dict[str, str], channel: str
) -> None:
    payloads = ["17", "x" * 7999, "été 日本 🐘"]
    with talking(psql, environment) as process, pgpubsub.connect(dsn) as pubsub:
        tell(process, f'LISTEN "{channel}";\n\\echo listening\n')
        assert line(process) == "listening"
        for payload in [*payloads, "x" * 8000]:
            pubsub.notify(channel, payload)
        tell(process, "SELECT 1 WHERE false;\n\\q\n")
        output = process.communicate(timeout=30)[0]
    seen = re.findall(r'^Asynchronous notification "(.*)" with payload "(.*)" received', output, re.MULTILINE)
    assert [payload for name, payload in seen if name == channel][:3] == payloads
    chunks = [re.fullmatch(r"pgpubsub/1 [0-9a-f]{16} ([12])/2 (x+)", payload) for _, payload in seen[3:]]
    assert [(chunk[1], len(chunk[2])) for chunk in chunks if chunk] == [("1", 7936), ("2", 64)]


def test_the_statement_of_the_page_sends_frames(dsn: str) -> None:
    [statement] = re.findall(r"```sql\n(SELECT .*?);\n```", PAGE, re.DOTALL)
    with psycopg.connect(dsn, autocommit=True) as sender, pgpubsub.connect(dsn) as pubsub:
        pubsub.listen("orders")
        chunks = [f"pgpubsub/1 0123456789abcdef {index + 1}/3 {'é' * 3900}" for index in range(3)]
        psycopg.RawCursor(sender).execute(statement.encode(), [chunks])
        event = pubsub.get_event(20)
        assert event is not None
        assert event[1:] == ("orders", "é" * 11_700)


# -- Node.js


@pytest.mark.parametrize(
    "payload",
    ["plain", "", "x" * 7999, "é" * 4000, LONG, "pgpubsub/1 0123456789abcdef 1/2 looks like a frame", "x" * 50_000],
    ids=["plain", "empty", "7999", "two bytes", "long", "looks like a frame", "ascii"],
)
def test_what_node_sends_arrives(
    node: list[str], dsn: str, environment: dict[str, str], channel: str, payload: str
) -> None:
    with pgpubsub.connect(dsn) as pubsub, Hub(dsn) as hub, hub.subscribe(channel) as events:
        pubsub.listen(channel)
        command = [*node, "send", channel]
        subprocess.run(command, input=payload.encode(), env=environment, timeout=30, check=True)
        for event in (pubsub.get_event(20), events.get(20)):
            assert isinstance(event, Notify)
            assert event[1:] == (channel, payload)
        assert pubsub.gaps == 0


def test_node_receives_what_we_send(node: list[str], dsn: str, environment: dict[str, str], channel: str) -> None:
    payloads = ["plain", "", LONG, "x" * 7999, "x" * 8000, "pgpubsub/1 0123456789abcdef 1/1 text", "same", "same"]
    with (
        pgpubsub.connect(dsn) as pubsub,
        psycopg.connect(dsn, autocommit=True) as stranger,
        Hub(dsn) as hub,
        talking([*node, "listen", channel, str(2 * len(payloads) + 2)], environment) as process,
    ):
        assert line(process) == "listening"
        for payload in payloads:
            pubsub.notify(channel, payload)
        hub.notify_many([(channel, payload) for payload in payloads])
        stranger.execute("SELECT pg_notify(%s, 'pgpubsub/1 0123456789abcdef 2/3 one of three')", [channel])
        hub.notify(channel, "after")
        for expected in [*payloads, *payloads, None, "after"]:
            assert json.loads(line(process)) == expected


def test_headers_travel_both_ways(node: list[str], dsn: str, environment: dict[str, str], channel: str) -> None:
    headers = {"by": "Ann", "é": [1, None, {"two": "lines\n"}]}
    with Hub(dsn) as hub, hub.subscribe(channel) as events:
        for payload in ("17", LONG):
            command = [*node, "send", channel, json.dumps(headers)]
            subprocess.run(command, input=payload.encode(), env=environment, timeout=30, check=True)
            event = events.get(20)
            assert isinstance(event, Notify)
            assert (event.payload, event.headers) == (payload, headers)
        with talking([*node, "listen", channel, "3"], environment) as process:
            assert line(process) == "listening"
            for payload in ("17", LONG):
                hub.notify(channel, payload, headers=headers)
                assert json.loads(line(process)) == {"payload": payload, "headers": headers}
            hub.notify(channel, "17", headers={})
            assert json.loads(line(process)) == "17"


def test_node_agrees_with_the_vectors(node: list[str], environment: dict[str, str]) -> None:
    """The example is what others begin with."""
    script = """
        const { pack, Joiner } = require(process.argv[1]);
        const { sending, receiving } = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const written = (text) => typeof text === "string" ? text : text.map(([part, n]) => part.repeat(n)).join("");
        const join = (payloads) => {
            const joiner = new Joiner();
            return payloads.flatMap((payload) => joiner.take({ processId: 1, channel: "c", payload }));
        };
        console.log(JSON.stringify({
            sent: sending.map(({ texts, headers }) => texts.flatMap((text) => pack(written(text), headers))),
            delivered: receiving.map(({ received }) => join(received)),
        }));
    """
    sending = [vector for vector in VECTORS["sending"] if "repetition" not in vector["name"]]
    receiving = [vector for vector in VECTORS["receiving"] if "max_payload" not in vector]
    done = subprocess.run(
        [node[0], "-e", script, node[1]],
        input=json.dumps({"sending": sending, "receiving": receiving}),
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["delivered"] == [vector["delivered"] for vector in receiving]
    for vector, payloads in zip(sending, result["sent"], strict=True):
        assert lengths(payloads) == lengths(vector["sent"]), vector["name"]


def lengths(payloads: Sequence[str | dict[str, int]]) -> list[int]:
    """Their bytes; names are random, and of one length."""
    return [len(payload.encode()) if isinstance(payload, str) else payload["bytes"] for payload in payloads]


def test_the_example_is_as_short_as_the_page_says() -> None:
    lines = NODE_CLIENT.read_text().count("\n")
    assert f"in {round(lines, -1)} lines" in PAGE
