"""Channels with a type, over everything that receives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import AsyncHub, Channel, Gap, Hub, Notify, PayloadError, PubSub, Undecodable
from pgpubsub.aio.receiving import AsyncMailbox
from pgpubsub.channel import Types
from pgpubsub.classic.delivery import Inbox
from pgpubsub.hubs.mailbox import buffer
from pgpubsub.testing import MemoryServer
from tests.contract.faces import PATIENCE, RECEIVING_KINDS, AnyHub, Classic, take
from tests.contract.interruptions import every_moment, interrupt
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]


@dataclass
class Order:
    id: int


@pytest.fixture(params=RECEIVING_KINDS)
def face(request: pytest.FixtureRequest, dsn: str, new_hub_of: Callable[..., AnyHub]) -> Iterator[Any]:
    """Whatever has subscriptions."""
    if request.param == "PubSub":
        classic = Classic(dsn)
        yield classic
        classic.close()
    else:
        with new_hub_of(request.param) as hub:
            yield hub


@pytest.fixture
def orders(channel: str) -> Channel[Order]:
    return Channel(channel, Order)


def send(admin: Admin, channel: str | Channel[Any], *texts: str) -> None:
    """As a trigger would."""
    for text in texts:
        admin.execute("SELECT pg_notify(%s, %s)", [pgpubsub.channel.name_of(channel), text])


def receive(events: Any, count: int) -> list[Any]:
    """The next events, whatever their type."""
    return list(take(events, count))


def found(events: list[Any]) -> list[Any]:
    """Their payloads; of what is undecodable, the text."""
    return [event.raw if isinstance(event, Undecodable) else event.payload for event in events]


# -- receiving


def test_payloads_arrive_as_what_they_are(face: Any, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        face.notify(orders, Order(17))
        face.notify(orders.name, '{"id": 18}')
        first, second = receive(events, 2)
        assert first.payload == Order(17)
        assert second == Notify(first.pid, orders.name, Order(18))
        assert events.channels == {orders.name}


@pytest.mark.parametrize("method", ["get", "get_nowait", "iteration"])
def test_what_cannot_be_decoded_stands_among_the_others(
    face: Any, admin: Admin, orders: Channel[Order], method: str
) -> None:
    sent = ['{"id": 1}', "", '{"id": "2"}', "{", '{"id": 3}']
    with face.subscribe(orders) as events:
        send(admin, orders, *sent)
        received: list[Any] = []
        while len(received) < 5:
            if method == "get_nowait":
                received += filter(None, [events.get_nowait()])
            else:
                received.append(events.get(PATIENCE) if method == "get" else next(iter(events)))
        assert [type(event) for event in received] == [Notify, Undecodable, Undecodable, Undecodable, Notify]
        assert found(received) == [Order(1), "", '{"id": "2"}', "{", Order(3)]
        arrived: list[Any] = [event.event if isinstance(event, Undecodable) else event for event in received]
        assert {event.pid for event in arrived} == {admin.info.backend_pid}
        assert {event.channel for event in arrived} == {orders.name}
        send(admin, orders, '{"id": 4}')
        assert found(receive(events, 1)) == [Order(4)]


def test_plain_channels_and_several_types(face: Any, admin: Admin, new_channel: Callable[[], str]) -> None:
    plain, orders, numbers = new_channel(), Channel(new_channel(), Order), Channel(new_channel(), list[int])
    with face.subscribe(plain, orders, numbers) as events:
        send(admin, plain, "[1]")
        send(admin, numbers, "[1]")
        send(admin, orders, '{"id": 1}')
        assert found(receive(events, 3)) == ["[1]", [1], Order(1)]


def test_a_subscriber_decodes_for_itself(face: Any, admin: Admin, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as typed, face.subscribe(orders.name) as plain:
        send(admin, orders, '{"id": 1}')
        assert found(receive(typed, 1)) == [Order(1)]
        assert found(receive(plain, 1)) == ['{"id": 1}']


def test_a_gap_is_a_gap(face: Any, admin: Admin, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        send(admin, orders, '{"id": 1}')
        assert found(receive(events, 1)) == [Order(1)]
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN %%' || %s || '%%'"
            " AND pid <> pg_backend_pid()",
            [orders.name],
        )
        (gap,) = receive(events, 1)
        assert isinstance(gap, Gap)
        assert gap.channels == (orders.name,)
        send(admin, orders, '{"id": 2}')
        assert found(receive(events, 1)) == [Order(2)]


# -- adding and removing


def test_the_type_given_last_counts(face: Any, admin: Admin, channel: str) -> None:
    with face.subscribe(channel) as events:
        for added, payload in [
            (Channel(channel, list[int]), [1]),
            (Channel(channel, list[float]), [1.0]),
            (channel, "[1]"),
            (Channel(channel, list[str]), "[1]"),
        ]:
            events.add(added)
            send(admin, channel, "[1]")
            (event,) = receive(events, 1)
            assert repr(found([event])) == repr([payload])
            assert isinstance(event, Undecodable) == (added == Channel(channel, list[str]))


def test_a_channel_that_was_removed_is_forgotten(face: Any, admin: Admin, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        send(admin, orders, '{"id": 1}')
        assert found(receive(events, 1)) == [Order(1)]
        events.remove(orders)
        assert events.channels == set()
        events.add(orders.name)
        send(admin, orders, '{"id": 2}')
        assert found(receive(events, 1)) == ['{"id": 2}']


def test_no_type_is_kept_of_a_channel_that_was_removed() -> None:
    types, inbox = Types(), Inbox()
    mailbox = AsyncMailbox(buffer(1, 1, "clear"), types)
    for some in (types, inbox.types):
        some.learn(Channel("orders", Order))
    mailbox.forget("orders")
    inbox.forget(["orders"])
    assert not types
    assert not inbox.types


def test_what_cannot_be_listened_to_changes_nothing(face: Any, admin: Admin, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        for wrong in (3, None, b"", ("orders",)):
            with pytest.raises(TypeError, match="a channel name is a str, not "):
                events.add(wrong)
            with pytest.raises(TypeError, match="a channel name is a str, not "):
                events.remove(wrong)
        send(admin, orders, '{"id": 1}')
        assert found(receive(events, 1)) == [Order(1)]


def test_a_hub_refuses_what_is_no_channel_at_once(hub: AnyHub) -> None:
    with pytest.raises(TypeError, match="a channel name is a str, not type"):
        hub.subscribe(Order)


def test_a_hub_refuses_two_types_of_one_channel_at_once(hub: AnyHub, orders: Channel[Order]) -> None:
    with pytest.raises(ValueError, match="what comes on a channel has one type"):
        hub.subscribe(orders, Channel(orders.name, int))
    with hub.subscribe(orders, Channel(orders.name, Order)) as events:
        hub.notify(orders, Order(1))
        assert found(receive(events, 1)) == [Order(1)]


def test_another_type_counts_for_what_is_buffered_too(face: Any, admin: Admin, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        admin.execute("SELECT pg_notify(%s, v) FROM unnest(%s::text[]) v", [orders.name, ['{"id": 1}', '{"id": 2}']])
        assert found(receive(events, 1)) == [Order(1)]  # and the other has come with it
        events.add(Channel(orders.name, dict))
        assert found(receive(events, 1)) == [{"id": 2}]


# -- sending


def test_a_wrong_payload_is_not_sent(face: Any, orders: Channel[Order]) -> None:
    with face.subscribe(orders) as events:
        for wrong in ("17", 17, None, Order("17"), {"id": "17"}):  # type: ignore[arg-type]
            with pytest.raises(PayloadError, match=f"channel '{orders.name}' does not fit its type, Order: "):
                face.notify(orders, wrong)
        face.notify(orders, Order(17))
        assert found(receive(events, 1)) == [Order(17)]
        assert events.get_nowait() is None


def test_the_same_in_memory(orders: Channel[Order]) -> None:
    server = MemoryServer()
    with server.hub() as hub, hub.subscribe(orders) as events:
        hub.notify(orders, Order(17))
        server.notify(orders.name, "x")
        assert found(receive(events, 2)) == [Order(17), "x"]


# -- PubSub


def test_all_ways_to_receive_from_a_pubsub(pubsub: PubSub, admin: Admin, new_channel: Callable[[], str]) -> None:
    plain, orders = new_channel(), Channel(new_channel(), Order)
    pubsub.listen(plain)
    pubsub.listen(orders)
    assert pubsub.channels == {plain, orders.name}
    pubsub.notify(orders, Order(1))
    send(admin, orders, "x")
    send(admin, plain, "y")
    expected = [Order(1), "x", "y"]
    assert found([pubsub.get_event(PATIENCE) for _ in range(3)]) == expected

    pubsub.notify(orders, Order(1))
    send(admin, orders, "x")
    send(admin, plain, "y")
    received: list[Any] = []
    while len(received) < 3:
        received += pubsub.get_events(PATIENCE)
    assert found(received) == expected

    pubsub.notify(orders, Order(1))
    send(admin, orders, "x")
    send(admin, plain, "y")
    iteration = pubsub.events()
    assert found([next(iteration) for _ in range(3)]) == expected

    pubsub.unlisten(orders)
    assert pubsub.channels == {plain}


def test_unlistening_to_all_forgets_all_types(pubsub: PubSub, admin: Admin, orders: Channel[Order]) -> None:
    pubsub.listen(orders)
    pubsub.unlisten("*")
    pubsub.listen(orders.name)
    send(admin, orders, "{}")
    assert found([pubsub.get_event(PATIENCE)]) == ["{}"]


# -- NotificationHandler


def test_a_handler_gets_decoded_payloads(pubsub: PubSub, admin: Admin, orders: Channel[Order]) -> None:
    got: list[Any] = []
    handler = pubsub.notification_handler(orders, lambda arguments: got.append(arguments and arguments["extra"]))
    assert (handler.event, handler.stop_event) == (orders.name, f"stop_{orders.name}")
    for _ in range(2):  # it listens again
        handler.listen()
        send(admin, orders, '{"id": 1}', "x", '{"id": 3}')
        send(admin, handler.stop_event, "the end")
        handler()
        first, second, third, last = got
        assert (first, third, last) == (Order(1), Order(3), "the end")
        assert isinstance(second, Undecodable)
        assert second.raw == "x"
        got.clear()


def test_a_handler_whose_event_was_changed_gets_text(pubsub: PubSub, admin: Admin, orders: Channel[Order]) -> None:
    got: list[Any] = []
    handler = pubsub.notification_handler(orders, lambda arguments: got.append(arguments and arguments["extra"]))
    handler.event = f"other {orders.name}"
    handler.listen()
    send(admin, handler.event, '{"id": 1}')
    send(admin, handler.stop_event, "the end")
    handler()
    assert got == ['{"id": 1}', "the end"]


def test_a_handler_sends_what_its_event_carries(pubsub: PubSub, orders: Channel[Order]) -> None:
    got: list[Any] = []
    handler = pubsub.notification_handler(orders, lambda arguments: got.append(arguments and arguments["extra"]))
    handler.listen()
    handler.notify(payload=Order(17))
    with pytest.raises(PayloadError, match="does not fit its type, Order"):
        handler.notify(payload="17")
    handler.notify(stop=True, payload="the end")
    handler()
    assert got == [Order(17), "the end"]


# -- interruptions: an event that was being decoded is the next one


class Decoder:
    """Decodes numbers, and is interrupted by Ctrl-C for once."""

    def __init__(self) -> None:
        self.interrupt = True

    def __call__(self, text: str) -> int:
        if self.interrupt:
            self.interrupt = False
            raise KeyboardInterrupt
        return int(text)


METHODS: dict[str, Callable[[Any], Any]] = {
    "get": lambda events: events.get(PATIENCE),
    "get_nowait": lambda events: events.get_nowait(),
    "iteration": lambda events: next(iter(events)),
}


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_of_the_decoding_loses_nothing(dsn: str, admin: Admin, channel: str, method: str) -> None:
    numbers = Channel(channel, int, encode=str, decode=Decoder())
    with Hub(dsn) as hub, hub.subscribe(numbers) as events:
        send(admin, channel, "1", "2", "x")
        eventually(lambda: events.stats().depth == 3)
        with pytest.raises(KeyboardInterrupt):
            METHODS[method](events)
        assert events.stats().depth == 3
        assert found(receive(events, 3)) == [1, 2, "x"]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_for_tasks(dsn: str, channel: str, method: str) -> None:
    async def main() -> None:
        numbers = Channel(channel, int, encode=str, decode=Decoder())
        async with AsyncHub(dsn) as hub, hub.subscribe(numbers) as events:
            for text in ("1", "2", "x"):
                await hub.notify(channel, text)
            while events.stats().depth < 3:
                await asyncio.sleep(0.01)
            try:
                if method == "get":
                    await events.get(PATIENCE)
                elif method == "get_nowait":
                    events.get_nowait()
                else:
                    await anext(events)
            except KeyboardInterrupt:
                pass
            assert events.stats().depth == 3
            assert found([await events.get(PATIENCE) for _ in range(3)]) == [1, 2, "x"]

    asyncio.run(main())


CLASSIC_METHODS: dict[str, Callable[[PubSub], list[Any]]] = {
    "get_event": lambda pubsub: [pubsub.get_event(PATIENCE)],
    "get_events": lambda pubsub: pubsub.get_events(PATIENCE),
    "events": lambda pubsub: [next(kept(pubsub.events()))],
}

_kept: list[Iterator[Any]] = []


def kept(iteration: Iterator[Any]) -> Iterator[Any]:
    """It is not closed, and an interruption of that printed and forgotten, in the midst of a test."""
    _kept.append(iteration)
    return iteration


@pytest.mark.parametrize("method", CLASSIC_METHODS)
def test_the_same_for_a_pubsub(pubsub: PubSub, admin: Admin, channel: str, method: str) -> None:
    pubsub.listen(Channel(channel, int, encode=str, decode=Decoder()))
    send(admin, channel, "1", "2", "x")
    with pytest.raises(KeyboardInterrupt):
        CLASSIC_METHODS[method](pubsub)
    received: list[Any] = []
    while len(received) < 3:
        received += CLASSIC_METHODS[method](pubsub)
    assert found(received) == [1, 2, "x"]


def test_the_same_for_a_handler(pubsub: PubSub, admin: Admin, channel: str) -> None:
    got: list[Any] = []
    numbers = Channel(channel, int, encode=str, decode=Decoder())
    handler = pubsub.notification_handler(numbers, lambda arguments: got.append(arguments and arguments["extra"]))
    handler.listen()
    send(admin, channel, "1", "2")
    send(admin, handler.stop_event, "the end")
    with pytest.raises(KeyboardInterrupt):
        handler()
    handler()
    assert got == [1, 2, "the end"]


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(function: Callable[[], object], moment: int) -> bool:
    try:
        return interrupt(function, moment, raise_interrupt)
    except KeyboardInterrupt:
        return True


@pytest.mark.parametrize("method", METHODS)
def test_an_interruption_at_any_moment_loses_nothing(
    dsn: str, admin: Admin, orders: Channel[Order], method: str
) -> None:
    with Hub(dsn) as hub, hub.subscribe(orders) as events:

        def scenario(moment: int) -> bool:
            send(admin, orders, '{"id": 1}', "x", '{"id": 3}')
            eventually(lambda: events.stats().depth == 3)
            received: list[Any] = []
            was_interrupted = interrupted(
                lambda: received.extend(iter(lambda: METHODS[method](events) if len(received) < 3 else None, None)),
                moment,
            )
            received += receive(events, 3 - len(received))
            assert found(received) == [Order(1), "x", Order(3)], moment
            return was_interrupted

        every_moment(scenario)


@pytest.mark.parametrize("method", CLASSIC_METHODS)
def test_nor_in_a_pubsub(dsn: str, admin: Admin, orders: Channel[Order], method: str) -> None:
    with pgpubsub.connect(dsn) as pubsub:
        pubsub.listen(orders)

        def scenario(moment: int) -> bool:
            send(admin, orders, '{"id": 1}', "x")
            received: list[Any] = []
            was_interrupted = interrupted(lambda: received.extend(CLASSIC_METHODS[method](pubsub)), moment)
            while len(received) < 2:
                received += CLASSIC_METHODS[method](pubsub)
            assert found(received) == [Order(1), "x"], moment
            return was_interrupted

        every_moment(scenario)


# -- figures


def test_figures_speak_of_names(hub: AnyHub, orders: Channel[Order]) -> None:
    with hub.subscribe(orders) as events:
        hub.notify(orders, Order(1))
        receive(events, 1)
        assert events.stats().channels == (orders.name,)
        assert events.stats().delivered == 1
        assert orders.name in repr(events)
