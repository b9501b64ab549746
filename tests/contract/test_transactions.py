"""What is sent in somebody's own transaction, whoever's that is, goes out with it or not at all."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

import pgpubsub
from pgpubsub import Channel, ChannelNameError, PayloadError, PayloadTooLarge
from tests.contract.owners import OWNERS, Owner, connected

Heard = Callable[[], list[str]]

ODD_TEXT = "é:a %s %(a)s $1 {\"b\\\\c\"} 'd' \U0001f418\n"


class Changed(Exception):
    """The owner's mind."""


@pytest.fixture(params=OWNERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def owner(kind: str, dsn: str) -> Iterator[Owner]:
    with connected(kind, dsn) as owner:
        yield owner


@pytest.fixture
def heard(dsn: str, channel: str) -> Iterator[Heard]:
    """Tells the payloads that were delivered since it was last asked: those that come before one of its own, since
    notifications are delivered in the order of their commits."""
    with pgpubsub.connect(dsn) as listener, pgpubsub.connect(dsn) as other:
        listener.listen(channel)
        numbers = itertools.count()

        def ask() -> list[str]:
            marker = f"marker {next(numbers)}"
            other.notify(channel, marker)
            events = iter(lambda: listener.get_event(10), None)
            return [event.payload for event in itertools.takewhile(lambda event: event.payload != marker, events)]

        yield ask


def test_it_is_delivered_once_the_transaction_is_committed(owner: Owner, channel: str, heard: Heard) -> None:
    with owner.transaction():
        owner.notify(channel, "17")
        owner.notify(channel)
        assert heard() == []
    assert heard() == ["17", ""]


def test_it_is_not_delivered_when_the_transaction_is_rolled_back(owner: Owner, channel: str, heard: Heard) -> None:
    with suppress(Changed), owner.transaction():
        owner.notify(channel, "17")
        owner.notify(channel, "x" * 10_000)
        raise Changed
    assert heard() == []


def test_what_was_sent_since_a_savepoint_goes_with_it(owner: Owner, channel: str, heard: Heard) -> None:
    with owner.transaction():
        owner.notify(channel, "before")
        with suppress(Changed), owner.savepoint():
            owner.notify(channel, "inside")
            raise Changed
        with owner.savepoint():
            owner.notify(channel, "inside another")
    assert heard() == ["before", "inside another"]


def test_it_is_sent_at_once_in_autocommit_mode(kind: str, dsn: str, channel: str, heard: Heard) -> None:
    with connected(kind, dsn, autocommit=True) as owner:
        owner.notify(channel, "17")
        assert heard() == ["17"]
        owner.notify(channel, "x" * 10_000)
        assert heard() == ["x" * 10_000]


def test_any_text_arrives_as_it_was(owner: Owner, channel: str, heard: Heard) -> None:
    long = (ODD_TEXT * 10_000)[:100_000]
    framed = "pgpubsub/1 0123456789abcdef 1/2 text"
    with owner.transaction():
        for payload in (ODD_TEXT, long, framed, "x" * 7999):
            owner.notify(channel, payload)
    assert heard() == [ODD_TEXT, long, framed, "x" * 7999]


@pytest.mark.parametrize("name", ["it's %s %(a)s :a", "日本語", '"$1"'])
def test_any_name_is_a_channel(owner: Owner, dsn: str, name: str) -> None:
    sent = [(name, "short"), (name, "x" * 8000)]
    with pgpubsub.connect(dsn) as listener:
        listener.listen(name)
        with owner.transaction():
            for channel, payload in sent:
                owner.notify(channel, payload)
        received = [listener.get_event(10), listener.get_event(10)]
    assert [event[1:] for event in received if event] == sent


def test_equal_ones_of_a_transaction_are_delivered_once(owner: Owner, channel: str, heard: Heard) -> None:
    with owner.transaction():
        for payload in ("17", "18", "17"):
            owner.notify(channel, payload)
    assert heard() == ["17", "18"]


def test_unless_they_are_longer_than_7999_bytes(owner: Owner, channel: str, heard: Heard) -> None:
    with owner.transaction():
        for _ in range(2):
            owner.notify(channel, "x" * 8000)
    assert heard() == ["x" * 8000] * 2


def test_a_typed_channel_encodes_its_payloads(owner: Owner, channel: str, heard: Heard) -> None:
    orders = Channel(channel, dict[str, int])
    with owner.transaction():
        owner.notify(orders, {"id": 17})
        with pytest.raises(PayloadError):
            owner.notify(orders, {"id": "seventeen"})
    assert heard() == ['{"id":17}']


def test_what_cannot_be_sent_is_refused_and_the_transaction_goes_on(owner: Owner, channel: str, heard: Heard) -> None:
    with owner.transaction():
        owner.notify(channel, "17")
        with pytest.raises(ChannelNameError, match="64 bytes"):
            owner.notify("x" * 64, "17")
        with pytest.raises(PayloadError, match="NUL"):
            owner.notify(channel, "a\0b")
        with pytest.raises(PayloadTooLarge, match="has 16777217 bytes and max_payload is 16777216"):
            owner.notify(channel, "x" * (2**24 + 1))
        with pytest.raises(PayloadTooLarge, match="has 4 bytes and max_payload is 3"):
            owner.notify(channel, "éé", max_payload=3)
        with pytest.raises(TypeError, match="is a str, not int"):
            owner.notify(channel, 17)
        with pytest.raises(TypeError, match="a channel name is a str, not NoneType"):
            owner.notify(None, "17")
        owner.notify(channel, "18")
    assert heard() == ["17", "18"]


def test_errors_are_those_of_the_driver(owner: Owner, channel: str, heard: Heard) -> None:
    with suppress(Changed), owner.transaction():
        with pytest.raises(Exception, match="division by zero"):
            owner.execute("SELECT 1/0")
        with pytest.raises(owner.error):
            owner.notify(channel, "17")
        raise Changed
    with owner.transaction():
        owner.notify(channel, "18")
    assert heard() == ["18"]


def test_other_drivers_are_not_imported(dsn: str) -> None:
    code = """
import sys, psycopg, pgpubsub
with psycopg.connect(sys.argv[1]) as conn:
    pgpubsub.notify(conn, "channel")
print({"psycopg2", "pg", "pgdb", "asyncpg", "sqlalchemy", "django"} & sys.modules.keys())
"""
    command = [sys.executable, "-c", code, dsn]
    assert subprocess.check_output(command, text=True, timeout=60) == "set()\n"
