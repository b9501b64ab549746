"""What the JavaScript client is made of: its parser beside a browser's, its delays, and its types."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.e2e.javascript.surroundings import CLIENT, HERE, Node, browser, node

__all__ = ["browser", "node"]

TYPES = CLIENT.with_suffix(".d.ts")

Event = tuple[str, str, str]
"""Its type, data and id."""

CASES: dict[str, tuple[bytes, list[Event]]] = {
    "ends of lines": (
        b"data:1\n\ndata:2\r\rdata:3\r\n\r\ndata:4\r\n\rdata:5\n\r\ndata:6\r\n\n",
        [("message", str(number), "") for number in range(1, 7)],
    ),
    "mixed ends in one": (b"data:a\rdata:b\ndata:c\r\ndata\rdata:\n\n", [("message", "a\nb\nc\n\n", "")]),
    "a byte order mark": (
        b"\xef\xbb\xbfdata:a\n\n\xef\xbb\xbfdata:b\n\ndata:\xef\xbb\xbfc\n\n",
        [("message", "a", ""), ("message", "\ufeffc", "")],
    ),
    "spaces": (b"data:  a \ndata:b\n data:c\ndata :d\n\n", [("message", " a \nb", "")]),
    "no data": (b"event:a\nid:1\n\ndata:b\n\n", [("message", "b", "1")]),
    "empty data": (
        b"data\n\ndata:\n\ndata\ndata\n\n",
        [("message", "", ""), ("message", "", ""), ("message", "\n", "")],
    ),
    "types": (
        b"event:a\nevent:b\ndata:1\n\ndata:2\n\nevent:c\nevent:\ndata:3\n\n",
        [("b", "1", ""), ("message", "2", ""), ("message", "3", "")],
    ),
    "ids": (
        b"id:1\ndata:a\n\ndata:b\n\nid\ndata:c\n\nid:2\n\ndata:d\n\nid: 3\nid: 4\ndata:e\n\n",
        [
            ("message", "a", "1"),
            ("message", "b", "1"),
            ("message", "c", ""),
            ("message", "d", "2"),
            ("message", "e", "4"),
        ],
    ),
    "an id with NUL": (
        b"id:1\ndata:a\n\nid:2\x003\ndata:b\n\ndata:c\x00\n\n",
        [("message", "a", "1"), ("message", "b", "1"), ("message", "c\x00", "1")],
    ),
    "comments": (b":\n:data:x\n: \n\ndata:a\n:data:b\ndata:c\n\n:", [("message", "a\nc", "")]),
    "other fields": (b"nothing:x\nDATA:x\ndata:a\ndat:x\ndatas\nid2:3\n\n", [("message", "a", "")]),
    "colons": (b"data::a\ndata:b:c: d\n\n", [("message", ":a\nb:c: d", "")]),
    "Unicode": (
        "data:é日本🐘\u2028\u2029\x85\x0b\x0c\nid:ü🐘\nevent:message\n\n".encode(),
        [("message", "é日本🐘\u2028\u2029\x85\x0b\x0c", "ü🐘")],
    ),
    "no Unicode": (b"data:\xff\xc3\ndata:\xf0\x9f\n\n", [("message", "\ufffd\ufffd\n\ufffd", "")]),
    "cut off": (b"data:a\n\ndata:b\n", [("message", "a", "")]),
    "cut off within a line": (b"data:a\n\ndata:b\n\nid:1\ndata:c", [("message", "a", ""), ("message", "b", "")]),
    "retry": (b"retry:7000\nretry:1x\nretry:-1\nretry\nretry: 1.5\ndata:a\n\n", [("message", "a", "")]),
}


@pytest.mark.parametrize("case", CASES)
def test_events_are_the_same_however_they_are_cut(node: Node, case: str) -> None:
    """In two pieces at every place, and byte by byte."""
    text, expected = CASES[case]
    found = node.run(
        """(bytes) => {
            const parse = (...pieces) => {
                const parser = new EventParser();
                const blocks = pieces.flatMap((piece) => parser.push(new Uint8Array(piece)));
                const events = blocks.filter(({ data }) => data !== undefined);
                return JSON.stringify(events.map(({ type, data, id }) => [type, data, id ?? ""]));
            };
            const found = new Set([parse(bytes), parse(...bytes.flatMap((byte) => [[byte], []]))]);
            for (let place = 0; place <= bytes.length; place++)
                for (let other = place; other <= Math.min(bytes.length, place + 4); other++)
                    found.add(parse(bytes.slice(0, place), bytes.slice(place, other), bytes.slice(other)));
            return [...found].map((text) => JSON.parse(text));
        }""",
        list(text),
    )
    assert found == [[list(event) for event in expected]]


def test_an_id_without_data_is_told(node: Node) -> None:
    """As the gateway's first comment has one."""
    code = """(text) => {
        const parser = new EventParser();
        return [parser.push(new TextEncoder().encode(text)), parser.retry];
    }"""
    blocks, retry = node.run(code, ": listening\nid: 1.2\n\n: alive\n\nretry: 1700\nevent: closing\ndata: {}\n\n")
    assert [(block["type"], block.get("data"), block["id"]) for block in blocks] == [
        ("message", None, "1.2"),
        ("closing", "{}", "1.2"),
    ]
    assert retry == 1700


def test_a_browser_finds_the_same_events(browser: Callable[[], Any]) -> None:
    """Its `EventSource` is the standard's."""

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            case = CASES.get(unquote(self.path.removeprefix("/")))
            self.send_response(200 if case or self.path == "/" else 404)
            self.send_header("Content-Type", "text/event-stream" if case else "text/html")
            self.end_headers()
            self.wfile.write(case[0] if case else b"<!doctype html><title>events</title>")

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nowhere."""

    code = """({ name, types }) => new Promise((resolve) => {
        const events = [], source = new EventSource(encodeURIComponent(name));
        for (const type of types)
            source.addEventListener(type, ({ type, data, lastEventId }) => events.push([type, data, lastEventId]));
        source.onerror = () => { source.close(); resolve(events); };
    })"""
    with ThreadingHTTPServer(("127.0.0.1", 0), Serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser().new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/")
        for name in CASES:
            found = page.evaluate(code, {"name": name, "types": ["message", "a", "b", "c"]})
            assert found == [list(event) for event in CASES[name][1]], name
        context.close()
        server.shutdown()


def test_delays_double_and_a_random_part_of_them_is_waited(node: Node) -> None:
    longest, none, told = node.run(
        """() => {
            const longest = new Backoff({ random: () => 1 }), none = new Backoff({ random: () => 0 });
            const nine = (backoff) => Array.from({ length: 9 }, () => backoff.next());
            const first = nine(longest);
            longest.reset();
            return [[first, longest.next()], nine(none), [none.next(1700), none.next(1e12)]];
        }"""
    )
    assert longest == [[250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000], 250]
    assert none == [0] * 9
    assert told == [1700, 3_600_000]


def test_delays_differ(node: Node) -> None:
    delays = node.run("() => Array.from({ length: 100 }, () => new Backoff().next())")
    assert len(set(delays)) > 50
    assert all(0 <= delay < 250 for delay in delays)


def test_it_asks_below_the_address_of_the_gateway(node: Node) -> None:
    """Wherever that is mounted; and what is in a name is not taken for a part of the URL."""
    asked = node.run(
        """async () => {
            const asked = [];
            const fetch = async (url, { method }) => {
                asked.push(`${method ?? "GET"} ${url}`);
                return method ? new Response('{"id": 1}') : new Response("{}", { status: 403 });
            };
            for (const url of ["http://example/app", new URL("http://example/app/")]) {
                const gateway = new Gateway(url, { fetch });
                await gateway.append("../a?b", "text", { key: "#" });
                const topics = { channels: ["a&b", "c d"], streams: { "e+f": "end", 1: undefined } };
                await gateway.follow(topics).next().catch(() => {});
            }
            return asked;
        }"""
    )
    assert (
        asked
        == [
            "POST http://example/app/streams/..%2Fa%3Fb?key=%23",
            "GET http://example/app/events?channel=a%26b&channel=c%20d&stream=1&after=end&stream=e%2Bf&after=end",
        ]
        * 2
    )


# -- types


def declared() -> dict[str, set[str]]:
    """The classes of the types, and their members."""
    text = re.sub(r"/\*.*?\*/", "", TYPES.read_text(), flags=re.DOTALL)
    classes = re.findall(r"^export (?:declare )?class (\w+)[^{]*\{(.*?)^\}", text, re.DOTALL | re.MULTILINE)
    member = re.compile(r"^  (?:private |readonly )*(\[?[\w.]+\]?)[?(:]", re.MULTILINE)
    return {name: set(member.findall(body)) for name, body in classes}


def test_the_types_are_those_of_the_code(node: Node) -> None:
    found = node.run(
        """() => {
            const made = {
                Gateway: new Gateway("http://localhost"),
                GatewayError: new GatewayError("text"),
                Feed: new Gateway("http://localhost").follow({}, { signal: AbortSignal.abort() }),
                Backoff: new Backoff(),
                EventParser: new EventParser(),
            };
            const named = (name) => (typeof name === "symbol" ? `[${name.description}]` : name);
            return Object.fromEntries(Object.entries(made).map(([name, one]) => [
                name, [...Reflect.ownKeys(one), ...Reflect.ownKeys(Object.getPrototypeOf(one))].map(named)]));
        }"""
    )
    of_errors = {"stack", "message", "name", "cause"}
    assert {name: set(members) - of_errors for name, members in found.items()} == {
        name: members | {"constructor"} for name, members in declared().items()
    }
    exported = re.findall(r"^export class (\w+)", CLIENT.read_text(), re.MULTILINE)
    assert set(exported) == set(declared())


def test_a_type_checker_accepts_what_is_right_and_nothing_else(tmp_path: Path) -> None:
    """Where there is one: the test above needs none."""
    tsc = shutil.which("tsc")
    if tsc is None:
        return
    for path in (TYPES, HERE / "typed_feed.ts"):
        shutil.copy(path, tmp_path)
    options = ["--strict", "--noEmit", "--target", "es2022", "--module", "nodenext", "--lib", "es2023,dom"]
    done = subprocess.run([tsc, *options, "typed_feed.ts"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
