"""Hubs in memory, beside the real ones: the same things happen for the same reasons."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

import pgpubsub
from pgpubsub import Gap, GapReason, Hub, Notify
from pgpubsub.testing import MemoryServer, TemporaryServer
from tests.contract.test_handler import eventually

Happening = Callable[[], object]


def story(hub: Hub, restart: Happening) -> list[object]:
    """What two subscribers see of one story."""
    seen: list[object] = []
    with hub, hub.subscribe("a", "b") as both, hub.subscribe("a", capacity=2, overflow="drop_oldest") as slow:
        for number in range(4):
            hub.notify("a", str(number))
        hub.notify("b", "é")
        eventually(lambda: both.stats().depth == 5)  # committed is not yet delivered, and a server that stops loses it
        restart()
        hub.wait_until_live(timeout=30)
        while not any(isinstance(event, Gap) and event.reason is GapReason.CONNECTION_LOST for event in seen[-1:]):
            seen.append(both.get(timeout=30))
        with hub.subscribe("c") as late:
            hub.notify("c", "x")
            seen.append(late.get(timeout=30))
        seen += [slow.get(timeout=30) for _ in range(4)]
        seen.append(slow.get_nowait())
        for payload in ("long " * 5000, "x" * 50_000):
            hub.notify("a", payload)
            seen.append(both.get(timeout=30))
        with pytest.raises(pgpubsub.PayloadTooLarge, match="50001 bytes and max_payload is 50000"):
            hub.notify("a", "x" * 50_001)
    seen += list(both)
    stats = hub.stats()
    seen.append((stats.delivered, stats.dropped, stats.gaps, stats.sent, stats.reconnects, str(hub.state.status)))
    return seen


def comparable(event: object) -> object:
    if isinstance(event, Notify):
        return event[1:]
    return (event.reason, event.channels, event.count) if isinstance(event, Gap) else event


def test_a_hub_in_memory_tells_the_same_story_as_a_real_one(server: TemporaryServer) -> None:
    memory = MemoryServer()
    told = [comparable(event) for event in story(memory.hub(max_payload=50_000), memory.restart)]
    real = Hub(server.dsn(), max_payload=50_000)
    assert told == [comparable(event) for event in story(real, server.restart)]
    assert ("a", "long " * 5000) in told
    assert (GapReason.OVERFLOW, ("a",), 2) in told
    assert (GapReason.CONNECTION_LOST, ("a", "b"), None) in told


def test_an_outage_is_seen_and_ends() -> None:
    server = MemoryServer()
    with server.hub(send_timeout=0.05) as hub, hub.subscribe("a") as events:
        server.stop()
        with pytest.raises(pgpubsub.SendTimeout, match="the server in memory was stopped"):
            hub.notify("a")
        server.start()
        assert isinstance(events.get(timeout=30), Gap)
        hub.wait_until_live(timeout=30)


def test_a_deaf_connection_is_found_by_the_heartbeat() -> None:
    server = MemoryServer()

    async def main() -> None:
        async with server.async_hub(heartbeat=0.05, heartbeat_timeout=0.05) as hub, hub.subscribe("a") as events:
            server.deafen()
            server.notify("a", "lost")
            gap = await events.get(timeout=30)
            assert isinstance(gap, Gap)
            assert gap.reason is GapReason.HEARTBEAT
            server.notify("a", "heard")
            event = await events.get(timeout=30)
            assert isinstance(event, Notify)
            assert event.payload == "heard"

    asyncio.run(main())


def test_a_large_batch_does_not_overflow_a_subscriber_that_keeps_up() -> None:
    async def main() -> list[object]:
        async with MemoryServer().async_hub() as hub, hub.subscribe("a") as events:
            sent = asyncio.ensure_future(hub.notify_many([("a", str(number)) for number in range(5000)]))
            received = [comparable(await events.get(timeout=30)) for _ in range(5000)]
            await sent
            return received

    assert asyncio.run(main()) == [("a", str(number)) for number in range(5000)]


def test_what_was_sent_before_the_server_stopped_is_delivered() -> None:
    server = MemoryServer()
    with server.hub() as hub, hub.subscribe("a", capacity=5000) as events:
        hub.notify_many([("a", str(number)) for number in range(2000)])
        server.restart()
        received = [comparable(events.get(timeout=30)) for _ in range(2001)]
        assert received[:2000] == [("a", str(number)) for number in range(2000)]
        assert received[2000] == (GapReason.CONNECTION_LOST, ("a",), None)


def test_hubs_of_one_server_hear_each_other_and_those_of_two_do_not() -> None:
    one, other = MemoryServer(), MemoryServer()
    with (
        one.hub() as first,
        one.hub() as second,
        other.hub() as third,
        second.subscribe("a") as near,
        third.subscribe("a") as far,
    ):
        first.notify("a", "1")
        third.notify("a", "2")
        assert [comparable(events.get(timeout=30)) for events in (near, far)] == [("a", "1"), ("a", "2")]
        assert (near.get_nowait(), far.get_nowait()) == (None, None)
