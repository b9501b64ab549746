"""A run of seconds: that each kind of load does something, that all of it is delivered, and that a leak is found."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.soak.__main__ import show
from tests.soak.lines import LINES
from tests.soak.run import run

KINDS = {
    *(
        "notify",
        "notify_many",
        "notify_stream",
        "notify in a transaction",
        "notify, typed",
        "Hub, all",
        "AsyncHub, all",
    ),
    *(f"{hub}, {policy}" for hub in ("Hub", "AsyncHub") for policy in ("clear", "drop_oldest", "latest", "close")),
    *("Hub, passing", "AsyncHub, passing", "AsyncHub, cancelled", "channels added and removed", "gaps, overflow"),
    *("append", "append_many", "append in a task", "append in a transaction", "append a job"),
    *("reader", "reader in a task", "reader of what there is", "reader, passing"),
    *("group, process", "group, transactions", "group, batches", "group, process, again"),
    *(
        "PubSub",
        "PubSub, passing",
        "NotificationHandler",
        "rows written",
        "trigger to a channel",
        "trigger to a stream",
    ),
    *("POST to a channel", "POST to a stream", "publish by WebSocket"),
    *("server-sent events", "WebSocket", "clients, passing", "gaps of clients"),
}


@pytest.mark.timeout(240)
def test_each_kind_of_load_does_something_and_all_is_delivered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(12, tmp_path)
    assert not found.wrong
    assert {kind for kind in KINDS if not found.done.get(kind)} == set()
    assert found.terminated
    assert LINES.keys() - found.lines.keys() == set()
    show(found)
    assert "backends terminated" in capsys.readouterr().out
    assert json.loads(json.dumps(asdict(found)))["lines"].keys() == found.lines.keys()


@pytest.mark.timeout(240)
def test_a_leak_is_found_and_named(tmp_path: Path) -> None:
    found = run(15, tmp_path, "descriptors", leak_every=0.5)
    assert any("open file descriptors grows" in words for words in found.verdict()), found.verdict()
