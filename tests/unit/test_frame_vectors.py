"""The test vectors of docs/frames.md, against which other languages are tested too."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pgpubsub.core.frames import CHUNK, HEADER, MAX_PAYLOAD, Partial, Run, Unjoined, join, pack
from pgpubsub.core.headers import HEADERS_LIMIT, with_headers
from pgpubsub.core.sql import PAYLOAD_LIMIT
from pgpubsub.events import Notify

PAGE = (Path(__file__).parents[2] / "docs" / "frames.md").read_text()
[BLOCK] = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(BLOCK)


def written(text: str | list[tuple[str, int]]) -> str:
    """A text of the vectors."""
    return text if isinstance(text, str) else "".join(part * times for part, times in text)


def described(payload: str, example: object) -> object:
    """A payload in the way in which the vectors tell it."""
    if isinstance(example, str):
        return payload
    data = payload.encode()
    return {"bytes": len(data), "sha256": sha256(data).hexdigest()}


def received(payloads: Sequence[str], limit: int, at_once: int) -> list[object]:
    """What becomes of them, if so many come at once."""
    partial: Partial | None = None
    events = [Notify(7, "channel", payload) for payload in payloads]
    all_runs: list[Run] = []
    for start in range(0, len(events), at_once):
        runs, partial = join(partial, events[start : start + at_once], limit)
        all_runs += runs
    assert partial is None
    delivered: list[object] = []
    for run in all_runs:
        delivered += [None] if isinstance(run, Unjoined) else [told(event) for event in run]
    return delivered


def told(event: Notify) -> object:
    """An event in the way in which the vectors tell it."""
    return event.payload if event.headers is None else {"payload": event.payload, "headers": event.headers}


@pytest.mark.parametrize("vector", VECTORS["sending"], ids=lambda vector: str(vector["name"]))
def test_sending(vector: dict[str, Any]) -> None:
    texts = [written(text) for text in vector["texts"]]
    names = iter(vector.get("names", []))
    headers = vector.get("headers", {})
    packed = pack([with_headers(("channel", text), headers, MAX_PAYLOAD) for text in texts], lambda: next(names))
    assert {channel for channel, _ in packed} == {"channel"}
    payloads = [payload for _, payload in packed]
    assert len(payloads) == len(vector["sent"])
    assert [described(*pair) for pair in zip(payloads, vector["sent"], strict=True)] == vector["sent"]
    assert next(names, None) is None
    assert max(len(payload.encode()) for payload in payloads) <= PAYLOAD_LIMIT
    for at_once in (1, 2, len(payloads)):
        expected = [{"payload": text, "headers": headers} for text in texts] if headers else texts
        assert received(payloads, MAX_PAYLOAD, at_once) == expected


@pytest.mark.parametrize("vector", VECTORS["receiving"], ids=lambda vector: str(vector["name"]))
@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_receiving(vector: dict[str, Any], at_once: int) -> None:
    limit = vector.get("max_payload", MAX_PAYLOAD)
    assert received(vector["received"], limit, at_once) == vector["delivered"]


def test_the_vectors_cover_what_the_page_tells() -> None:
    names = {vector["name"] for part in VECTORS.values() for vector in part}
    assert len(names) == len(VECTORS["sending"]) + len(VECTORS["receiving"]) == 30
    assert all(set(vector) <= {"name", "texts", "headers", "names", "sent"} for vector in VECTORS["sending"])
    assert all(set(vector) <= {"name", "max_payload", "received", "delivered"} for vector in VECTORS["receiving"])


def test_the_figures_of_the_page_are_those_of_the_code() -> None:
    for figure in (PAYLOAD_LIMIT, CHUNK, CHUNK // 2):
        assert f"{figure:,} bytes" in PAGE
    assert f"{MAX_PAYLOAD >> 20} MiB" in PAGE
    assert f"{HEADERS_LIMIT:,} bytes" in PAGE
    shortest, longest = (f"pgpubsub/1 0123456789abcdef {number}/{number} " for number in ("1", "999999999"))
    assert all(HEADER.fullmatch(header) for header in (shortest, longest))
    assert f"{len(shortest)} to {len(longest)} bytes" in PAGE
    assert CHUNK + len(longest) <= PAYLOAD_LIMIT
