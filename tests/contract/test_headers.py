"""Headers of notifications, over every way to send and to receive them."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import AsyncHub, Channel, Gap, GapReason, Hub, Notify, PayloadError, PayloadTooLarge, PubSub, Undecodable
from pgpubsub.testing import MemoryServer
from tests.contract.faces import payloads, take
from tests.contract.owners import OWNERS, connected

PATIENCE = 20.0
HEADERS = {"by": "Ann", "é": [1, None, {"two": "lines\n"}]}


def described(events: Any) -> list[Any]:
    return [(event.payload, event.headers) for event in events]


def test_the_classic_interface_sends_and_receives_them(pubsub: PubSub, other: PubSub, channel: str) -> None:
    pubsub.listen(channel)
    for sender in (pubsub, other):
        sender.notify(channel, "17", headers=HEADERS)
        sender.notify(channel, "18")
        sender.notify(channel, "x" * 20_000, headers={"by": "Bob"})
    received: list[Notify] = []
    while len(received) < 6:
        received += pubsub.get_events(PATIENCE)
    assert described(received) == [("17", HEADERS), ("18", None), ("x" * 20_000, {"by": "Bob"})] * 2
    pid, its_channel, payload = received[0]
    assert (pid, its_channel, payload) == (pubsub.backend_pid, channel, "17")


@pytest.mark.parametrize("kind", OWNERS)
def test_they_go_out_in_a_transaction_of_ones_own(kind: str, dsn: str, channel: str) -> None:
    with Hub(dsn) as hub, hub.subscribe(channel) as events, connected(kind, dsn) as owner:
        with owner.transaction():
            owner.notify(channel, "17", headers=HEADERS)
        assert described([events.get(PATIENCE)]) == [("17", HEADERS)]


def test_hubs_send_and_receive_them(dsn: str, channel: str) -> None:
    async def main() -> list[Any]:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events:
            await hub.notify(channel, "1", headers=HEADERS)
            await hub.notify_many([(channel, "2"), (channel, "2")], headers=HEADERS)
            await hub.notify_stream([(channel, "3")], headers=HEADERS)
            return [await events.get(PATIENCE) for _ in range(4)]

    expected = [("1", HEADERS), ("2", HEADERS), ("2", HEADERS), ("3", HEADERS)]
    assert described(asyncio.run(main())) == expected
    with Hub(dsn) as hub, hub.subscribe(channel) as events:
        hub.notify(channel, "1", headers=HEADERS)
        hub.notify_many([(channel, "2"), (channel, "2")], headers=HEADERS)
        hub.notify_stream([(channel, "3")], headers=HEADERS)
        asyncio.run(hub.notify_async(channel, "4", headers=HEADERS))
        assert described(take(events, 5)) == [*expected, ("4", HEADERS)]


def test_typed_payloads_have_them_too(dsn: str, channel: str) -> None:
    numbers = Channel(channel, int)
    with Hub(dsn) as hub, hub.subscribe(numbers) as events, pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(numbers)
        hub.notify(numbers, 17, headers=HEADERS)
        hub.notify(channel, "seventeen", headers=HEADERS)
        for one, other in ((events.get(PATIENCE), events.get(PATIENCE)), islice(pubsub.events(PATIENCE), 2)):
            assert isinstance(one, Notify)
            assert (one.payload, one.headers) == (17, HEADERS)
            assert isinstance(other, Undecodable)
            assert other.event.headers == HEADERS


def test_the_server_in_memory_has_them_too() -> None:
    server = MemoryServer()
    with server.hub() as hub, hub.subscribe("a") as events:
        hub.notify("a", "17", headers=HEADERS)
        server.notify("a", "18", headers=HEADERS)
        assert described(take(events, 2)) == [("17", HEADERS), ("18", HEADERS)]


def test_none_and_empty_ones_leave_a_notification_plain(dsn: str, channel: str, admin: psycopg.Connection[Any]) -> None:
    admin.execute(f'LISTEN "{channel}"')
    with Hub(dsn) as hub:
        hub.notify(channel, "1", headers=None)
        hub.notify(channel, "2", headers={})
    assert [event.payload for event in admin.notifies(timeout=PATIENCE, stop_after=2)] == ["1", "2"]


@pytest.mark.parametrize(
    ("headers", "error"),
    [("text", TypeError), ({"a": b""}, PayloadError), ({"a": "x" * (1 << 16)}, PayloadTooLarge)],
    ids=["no mapping", "no JSON", "too long"],
)
def test_what_cannot_be_sent_is_told_before_anything_is(
    headers: Any, error: type[Exception], dsn: str, channel: str
) -> None:
    with Hub(dsn) as hub, hub.subscribe(channel) as events, pgpubsub.connect(dsn) as pubsub:
        for notify in (hub.notify, pubsub.notify):
            with pytest.raises(error, match=f"for channel '{channel}'"):
                notify(channel, "17", headers=headers)
        hub.notify(channel, "after")
        assert payloads(take(events, 1)) == ["after"]


def test_frames_of_others_with_headers_that_cannot_be_read_are_a_gap(
    dsn: str, channel: str, admin: psycopg.Connection[Any]
) -> None:
    with Hub(dsn) as hub, hub.subscribe(channel) as events:
        admin.execute("SELECT pg_notify(%s, 'pgpubsub/2 0123456789abcdef 1/1 {')", [channel])
        admin.execute("SELECT pg_notify(%s, %s)", [channel, 'pgpubsub/2 0123456789abcdef 1/1 {"by":"Ann"}\n17'])
        gap = events.get(PATIENCE)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.channels, gap.count) == (GapReason.INCOMPLETE, (channel,), 1)
        assert "with headers that cannot be read" in gap.detail
        assert described([events.get(PATIENCE)]) == [("17", {"by": "Ann"})]


def test_callers_who_send_equal_ones_at_once_are_all_heard(dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events:
            await asyncio.gather(*[hub.notify(channel, "17", headers=HEADERS) for _ in range(50)])
            assert described([await events.get(PATIENCE) for _ in range(50)]) == [("17", HEADERS)] * 50

    asyncio.run(main())
