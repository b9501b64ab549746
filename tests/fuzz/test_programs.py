"""What programs are given: payloads that are to be decoded, connection strings, lines of standard input, and what goes
out to browsers."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pydantic
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from pgpubsub import Change, Channel, Gap, GapReason, Notify, Undecodable
from pgpubsub.cli.incoming import Batch, batches
from pgpubsub.cli.lines import as_json, as_text, dumped, printable
from pgpubsub.contrib.sse import as_text as sse_text
from pgpubsub.contrib.sse import encode, frame
from pgpubsub.drivers.psycopg3 import parse_conninfo
from pgpubsub.errors import ConninfoError, PayloadError
from tests.fuzz.fuzzing import any_json, any_text, bounded, fuzzed, json_text, mutated

# -- payloads


@dataclass
class Order:
    id: int
    items: list[str]
    next: Order | None = None


class Model(pydantic.BaseModel):
    id: int
    note: str = ""


CHANNELS: list[Channel[Any]] = [
    Channel("a", Order),
    Channel("a", Model),
    Channel("a", Change[dict[str, Any]]),
    Channel("a", Change[Order]),
    Channel("a", list[int]),
    Channel("a", Any),
    Channel("a", str),
]

changes = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["insert", "update", "delete", "truncate", "upsert"]) | any_json,
        "schema": any_text,
        "table": any_text,
        "key": st.none() | any_json,
        "row": st.none() | any_json,
        "old": st.none() | any_json,
        "changed": st.none() | any_json,
        "reduced": st.sampled_from([None, "row", "keys", "nothing", "all"]),
        "xid": st.none() | st.integers(),
        "at": any_text,
    },
    optional={"count": st.integers(), "keys": st.lists(any_json, max_size=2), "more": any_json},
)
orders = st.fixed_dictionaries({"id": st.integers() | any_json, "items": st.lists(any_text, max_size=2)})
of_classic_triggers = st.builds("{}, {}, {}".format, any_text, st.integers(), any_text)
payloads = json_text | mutated((changes | orders).map(json.dumps)) | of_classic_triggers


@given(st.sampled_from(CHANNELS), payloads)
@fuzzed
@example(CHANNELS[0], '{"id":1,"items":[],"next":' * 100_000)
def test_a_payload_is_decoded_or_undecodable(channel: Channel[Any], payload: str) -> None:
    with bounded(len(payload) * 4):
        event = channel.decode(Notify(7, "a", payload))
    if isinstance(event, Undecodable):
        assert event.raw == payload
        assert isinstance(event.error, Exception)
    elif not isinstance(event.payload, float):  # NaN, for one, is written, but not as JSON
        again = channel.decode(Notify(7, "a", _encoded(channel, event.payload)))
        assert again == event


def _encoded(channel: Channel[Any], payload: Any) -> str:
    try:
        return channel.encode(payload)
    except PayloadError:  # what is read more loosely than it is written
        raise AssertionError(f"{payload!r} was decoded and cannot be encoded") from None


# -- connection strings

conninfos = st.sampled_from(
    ["host=a dbname=b", "postgresql://u:p@h:5432/db?sslmode=require", "postgres://[::1]/", "port='x y'", "password=\\'"]
)


@given(
    mutated(conninfos) | any_text,
    st.dictionaries(st.sampled_from(["host", "port", "database", "user", "odd"]), any_text, max_size=2),
)
@fuzzed
@example("host=\ud800", {})
@example("host=a\0b", {})
def test_a_connection_string_is_one_or_an_error(conninfo: str, keywords: dict[str, str]) -> None:
    try:
        parsed = parse_conninfo(conninfo, keywords)
    except ConninfoError as error:
        assert str(error)
        return
    assert parse_conninfo(parsed, {}) is not None
    for name, value in keywords.items():
        assert str(conninfo_to_dict(parsed)["dbname" if name == "database" else name]) == value


# -- standard input


@given(
    st.lists(st.binary(max_size=30) | any_text.map(lambda text: text.encode(errors="replace")), max_size=8),
    st.integers(1, 9),
)
@fuzzed
def test_standard_input_is_lines_or_an_error_that_names_the_line(parts: list[bytes], at_once: int) -> None:
    data = b"\n".join(parts)
    found: list[Batch] = []
    with patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))), patch("pgpubsub.cli.incoming.CHUNK", at_once):
        try:
            found.extend(batches())
        except PayloadError as error:
            assert "line " in str(error)
            number = sum(len(batch.lines) for batch in found) + 1
            assert f"line {number}" in str(error)
    lines = [line for batch in found for line in batch.lines]
    expected = data.split(b"\n")
    for line, part in zip(lines, expected, strict=False):
        assert line.encode() == part
    for batch in found:
        assert batch.first == 1 + sum(len(one.lines) for one in found[: found.index(batch)])


# -- what goes out

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
notifications = st.builds(Notify, st.just(7), any_text, any_text)
gaps = st.builds(
    Gap,
    st.sampled_from(list(GapReason)),
    st.lists(any_text, max_size=3).map(tuple),
    st.just(SINCE),
    st.none() | st.integers(0, 9),
    any_text,
)


@given(notifications | gaps)
@fuzzed
def test_an_event_is_a_line_that_commands_no_terminal(event: Notify | Gap) -> None:
    text = as_text(event, SINCE).plain
    assert text.isprintable()
    assert printable(text) == text
    line = dumped(as_json(event, SINCE), ascii_only=True)
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["kind"] in ("notify", "gap")


def browsers(data: bytes) -> list[tuple[str, str, str]]:
    """What an EventSource dispatches: type, data and last id (HTML standard, 9.2.6)."""
    found, kind, lines, last = [], "", list[str](), ""
    for line in data.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if lines:
                found.append((kind or "message", "\n".join(lines), last))
            kind, lines = "", []
        elif name == "data":
            lines.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last = value
    return found


@given(notifications | gaps | notifications.map(lambda event: Undecodable(event, ValueError())), st.booleans())
@fuzzed
def test_a_browser_gets_one_event_for_each(event: Notify | Gap | Undecodable, named: bool) -> None:
    [(kind, data, last)] = browsers(encode(event, named=named))
    assert not last
    if isinstance(event, Notify):
        sent = event.payload.encode(errors="replace").decode()
        assert data == sent.replace("\r\n", "\n").replace("\r", "\n")
        assert kind not in ("gap", "undecodable", "error", "open")
    else:
        assert kind == ("gap" if isinstance(event, Gap) else "undecodable")
        json.loads(data)


@given(st.none() | any_text, st.none() | any_text, st.none() | any_text, st.none() | any_text)
@fuzzed
def test_no_field_of_an_event_breaks_out_of_its_line(
    data: str | None, event: str | None, id: str | None, comment: str | None
) -> None:
    try:
        sent = frame(data, event=event, id=id, comment=comment)
    except ValueError:
        assert {"\r", "\n"} & {*(event or ""), *(id or "")} or "\0" in (id or "")
        return
    found = browsers(sent)
    assert len(found) == (data is not None)
    if found:
        assert found[0][0] == ((event or "").encode(errors="replace").decode() or "message")


@given(any_json | st.binary())
@fuzzed
def test_any_payload_is_data_or_an_error(payload: object) -> None:
    try:
        assert isinstance(sse_text(payload), str)
    except (TypeError, ValueError):
        pass
