"""What is measured, in the words of the conventions, and what hubs count."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from pgpubsub import AsyncHub, Hub, Notify, SendTimeout
from pgpubsub.contrib.opentelemetry import Telemetry
from pgpubsub.testing import MemoryServer
from tests.contract.faces import take
from tests.contract.sending import wait_until
from tests.contract.spans import Recorded, attributes

PATIENCE = 20.0


def about(operation: str, kind: str, **more: Any) -> frozenset[tuple[str, Any]]:
    its = {"messaging.system": "postgresql", "messaging.operation.name": operation, "messaging.operation.type": kind}
    return frozenset({**its, **{name.replace("_", "."): value for name, value in more.items()}}.items())


def test_calls_are_measured_with_how_they_ended() -> None:
    recorded, server = Recorded(), MemoryServer()
    with server.hub(tracing=recorded.telemetry, send_timeout=0.1) as hub:
        hub.notify("a", "1")
        hub.notify("a", "2")
        hub.notify_many([("a", "3"), ("b", "4"), ("b", "5")])
        server.stop()
        with pytest.raises(SendTimeout):
            hub.notify("a", "6")
    fine = about("notify", "send", messaging_destination_name="a")
    several = about("notify", "send")
    late = about("notify", "send", messaging_destination_name="a", error_type="SendTimeout")
    assert recorded.measured("messaging.client.operation.duration") == {fine: 2, several: 1, late: 1}
    assert recorded.measured("messaging.client.sent.messages") == {fine: 2, several: 3, late: 1}


def test_handling_is_measured_with_how_it_ended(installed: str, channel: str) -> None:
    recorded = Recorded()
    failing = iter([True])
    with Hub(installed, tracing=recorded.telemetry) as hub, hub.subscribe(channel) as events:
        hub.notify(channel, "17")
        with recorded.telemetry.processing(events.get(PATIENCE)):
            pass
        stream = hub.stream(channel)
        stream.append("17")

        def handle(entry: Any) -> None:
            assert not next(failing, False)

        stream.process("billing", handle, follow=False, backoff=0.001)
    its = {"messaging_destination_name": channel}
    grouped = {**its, "messaging_consumer_group_name": "billing"}
    assert recorded.measured("messaging.process.duration") == {
        about("process", "process", **its): 1,
        about("process", "process", **grouped): 1,
        about("process", "process", **grouped, error_type="AssertionError"): 1,
    }
    assert recorded.measured("messaging.client.sent.messages") == {
        about("notify", "send", **its): 1,
        about("append", "send", **its): 1,
    }


def test_where_there_are_very_many_names_their_template_stands_for_them() -> None:
    recorded = Recorded(template=lambda name: "user.{id}" if name.startswith("user.") else None)
    with MemoryServer().hub(tracing=recorded.telemetry) as hub:
        hub.notify("user.17")
        hub.notify("user.18")
        hub.notify("news")
    assert recorded.measured("messaging.client.sent.messages") == {
        about("notify", "send", messaging_destination_template="user.{id}"): 2,
        about("notify", "send", messaging_destination_name="news"): 1,
    }
    assert [span.name for span in recorded.sent] == ["notify user.{id}", "notify user.{id}", "notify news"]
    assert attributes(recorded.sent[0])["messaging.destination.name"] == "user.17"
    assert attributes(recorded.sent[0])["messaging.destination.template"] == "user.{id}"


def test_all_of_it_has_the_attributes_that_were_given() -> None:
    recorded = Recorded(attributes={"server.address": "db.example.com", "server.port": 5432})
    with MemoryServer().hub(tracing=recorded.telemetry) as hub:
        hub.notify("a")
    [measured] = recorded.measured("messaging.client.operation.duration")
    for its in (dict(measured), attributes(recorded.sent[0])):
        assert (its["server.address"], its["server.port"]) == ("db.example.com", 5432)


def test_a_hub_that_is_watched_tells_its_figures() -> None:
    recorded, server = Recorded(), MemoryServer()
    hub, other = server.hub(), server.hub()
    recorded.telemetry.watch(hub, {"hub": "one"})
    Telemetry(meter_provider=recorded.meters).watch(other, {"hub": "other"})
    one = frozenset({"messaging.system": "postgresql", "hub": "one"}.items())
    with hub, other, hub.subscribe("a") as events:
        for number in range(3):
            hub.notify("a", str(number))
        taken = take(events, 2)
        assert all(isinstance(event, Notify) for event in taken)
        [its] = [value for key, value in recorded.measured("messaging.client.consumed.messages").items() if one <= key]
        assert its == 2
        assert recorded.measured("pgpubsub.buffer.messages")[one] == 1
        assert recorded.measured("pgpubsub.buffer.size")[one] == 1
        assert recorded.measured("pgpubsub.hub.live")[one] == 1
        assert recorded.measured("pgpubsub.heartbeat.duration")[one] >= 0
        server.restart()
        events.get(PATIENCE)
        events.get(PATIENCE)
        assert recorded.measured("pgpubsub.gaps")[one] == 1
        assert recorded.measured("pgpubsub.reconnections")[one] == 1
    assert len(recorded.measured("pgpubsub.gaps")) == 2
    del hub, events
    gc.collect()
    assert len(recorded.measured("pgpubsub.gaps")) == 1, "it is not kept for its figures"


@pytest.mark.parametrize("face", ["threads", "tasks"])
def test_a_hub_that_is_not_used_or_closed_is_neither_live_nor_not(face: str) -> None:
    recorded, server = Recorded(), MemoryServer()
    seen = []

    def look() -> None:
        seen.append(list(recorded.measured("pgpubsub.hub.live").values()))

    def restart(is_live: Callable[[], bool]) -> None:
        server.stop()
        wait_until(lambda: not is_live())
        look()
        server.start()
        wait_until(is_live)
        look()

    async def main(hub: AsyncHub) -> None:
        async with hub:
            look()
            await asyncio.to_thread(restart, lambda: hub.state.live)

    if face == "tasks":
        tasks: AsyncHub = server.async_hub()
        recorded.telemetry.watch(tasks)
        look()
        asyncio.run(main(tasks))
    else:
        threads = server.hub()
        recorded.telemetry.watch(threads)
        look()
        with threads:
            look()
            restart(lambda: threads.state.live)
    look()
    assert seen == [[], [1], [0], [1], []]


def test_what_happens_is_counted() -> None:
    recorded, server = Recorded(), MemoryServer()
    with server.hub(observe=recorded.telemetry.observe) as hub, hub.subscribe("a") as events:
        hub.notify("a")
        events.get(PATIENCE)
        server.restart()
        events.get(PATIENCE)
    counts = {dict(its)["pgpubsub.event"]: count for its, count in recorded.measured("pgpubsub.hub.events").items()}
    assert {name: counts[name] for name in ("live", "gap")} == {"live": 2, "gap": 1}
    assert "sent" not in counts
