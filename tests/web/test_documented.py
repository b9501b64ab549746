"""What the manual says of the gateway, beside what it does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pgpubsub import GapReason
from pgpubsub.web import Limits, gateway
from pgpubsub.web.outlet import Ending
from pgpubsub.web.problems import STATUSES
from pgpubsub.web.sockets import FIELDS
from tests.web.described import DOCUMENT, SCHEMAS

ROOT = Path(__file__).parents[2]
MANUAL = (ROOT / "docs" / "gateway.md").read_text()
SOURCES = "".join(file.read_text() for file in (ROOT / "src" / "pgpubsub" / "web").glob("*.py"))

PROBLEM = re.compile(r'Problem\(\s*(\d+),\s*"([a-z-]+)"')


@pytest.mark.parametrize("kind", FIELDS)
def test_requests_have_the_fields_that_are_described(kind: str) -> None:
    assert set(SCHEMAS[kind]["properties"]) == {"type", "ref", *FIELDS[kind]}


def test_all_messages_are_described_and_belong_to_an_operation() -> None:
    messages = set(DOCUMENT["channels"]["socket"]["messages"])
    assert messages == set(DOCUMENT["components"]["messages"])
    operations = DOCUMENT["operations"].values()
    used = [one["$ref"] for operation in operations for one in operation["messages"]]
    used += [one["$ref"] for operation in operations for one in operation.get("reply", {}).get("messages", [])]
    assert {one.rpartition("/")[2] for one in used} == messages


def test_reasons_are_all_described() -> None:
    assert set(SCHEMAS["gap"]["properties"]["reason"]["enum"]) == set(GapReason)
    endings = {one.code for one in vars(gateway).values() if isinstance(one, Ending)}
    assert set(SCHEMAS["closing"]["properties"]["reason"]["enum"]) == endings


def test_codes_of_errors_are_in_the_manual_with_their_statuses() -> None:
    table = dict(re.findall(r"^\| (4\d\d|5\d\d)[^|]*\| (.*) \|$", MANUAL, re.M))
    used = {(status, code) for status, code in PROBLEM.findall(SOURCES)}
    used |= {(str(status), code) for _, status, code in STATUSES}
    assert len(used) > 15
    missing = [(status, code) for status, code in sorted(used) if f"`{code}`" not in table.get(status, "")]
    assert not missing


def test_limits_are_in_the_manual() -> None:
    for name in ("max-subscriptions", "max-topics", "max-behind", "max-message", "rate", "slow"):
        assert f"| `--{name}` |" in MANUAL
    defaults = Limits()
    assert (defaults.subscriptions, defaults.topics, defaults.buffer, defaults.rate) == (100, 20_000, 1000, 100)
