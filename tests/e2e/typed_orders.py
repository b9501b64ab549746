"""A program that type checkers read, and nobody runs. What they have to refuse is marked as ignored, which they refuse
where nothing is wrong."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import pgpubsub
from pgpubsub import AsyncHub, AsyncSubscription, Channel, Gap, Hub, Notify, Subscription, Undecodable


@dataclass
class Order:
    id: int


@dataclass
class Payment:
    cents: int


orders = Channel("orders", Order)
payments = Channel("payments", Payment)
perhaps: Channel[Order | None] = Channel("perhaps", Order | None)
keys = Channel("keys", bytes, encode=bytes.hex, decode=bytes.fromhex)

assert_type(orders, Channel[Order])
assert_type(keys, Channel[bytes])
assert_type(Channel("numbers", list[int]), Channel[list[int]])
Channel("keys", bytes, encode=bytes.hex, decode=str)  # type: ignore


def by_name(hub: Hub) -> None:
    events = hub.subscribe("orders", "payments")
    assert_type(events, Subscription)
    assert_type(events, Subscription[Notify[str]])
    for event in events:
        if isinstance(event, Gap):
            continue
        assert_type(event, Notify)
        assert_type(event.payload, str)
    assert_type(events.get_nowait(), Notify | Gap | None)


def by_excluding(hub: Hub) -> None:
    with hub.subscribe(orders) as events:
        assert_type(events, Subscription[Notify[Order] | Undecodable])
        for event in events:
            if isinstance(event, Gap):
                continue
            assert_type(event.payload, Order)
            if isinstance(event, Undecodable):
                assert_type(event.raw, str)
                continue
            assert_type(event, Notify[Order])
            assert_type(event.headers, dict[str, Any] | None)
        event = events.get(timeout=1)
        if isinstance(event, Notify):
            assert_type(event.payload, Order)
        print(events.get().payload)  # type: ignore  # of a gap


async def by_matching(hub: AsyncHub) -> None:
    async with hub.subscribe(orders) as events:
        assert_type(events, AsyncSubscription[Notify[Order] | Undecodable])
        async for event in events:
            match event:
                case Notify(payload=order):
                    assert_type(order, Order)
                case Undecodable(raw=raw, error=error):
                    assert_type(raw, str)
                    assert_type(error, Exception)
                case Gap():
                    assert_type(event, Gap)
            match event:
                case Notify(_, "orders", Order(id=number)):
                    assert_type(number, int)
                case _:
                    pass
        assert_type(await events.get(), Notify[Order] | Undecodable | Gap)


def of_several_kinds(hub: Hub) -> None:
    assert_type(hub.subscribe(orders, payments), Subscription[Notify[Order] | Notify[Payment] | Undecodable])
    assert_type(hub.subscribe("plain", orders), Subscription[Notify[Order] | Notify[str] | Undecodable])
    assert_type(hub.subscribe(orders, orders, capacity=3), Subscription[Notify[Order] | Undecodable])
    assert_type(hub.subscribe(orders, payments, keys), Subscription[Notify[Any] | Undecodable])
    hub.subscribe(orders).add(payments)
    hub.subscribe(Order)  # type: ignore
    hub.subscribe(orders, capacity="many")  # type: ignore


def sending(hub: Hub, pubsub: pgpubsub.PubSub) -> None:
    hub.notify("orders")
    hub.notify("orders", "17")
    hub.notify(orders, Order(17))
    hub.notify(perhaps, None)
    hub.notify(keys, b"key")
    hub.notify(orders, "17")  # type: ignore
    hub.notify(orders, Payment(17))  # type: ignore
    hub.notify(orders)  # type: ignore
    hub.notify("orders", Order(17))  # type: ignore
    hub.notify("orders", None)  # type: ignore
    pubsub.notify("orders", "17")
    pubsub.notify(orders, Order(17))
    pubsub.notify(orders, "17")  # type: ignore
    orders.encode("17")  # type: ignore


async def sending_from_a_task(hub: AsyncHub) -> None:
    await hub.notify("orders", "17")
    await hub.notify(orders, Order(17))
    await hub.notify(orders, "17")  # type: ignore
    await hub.notify("orders", Order(17))  # type: ignore


def in_the_classic_way(pubsub: pgpubsub.PubSub) -> None:
    pubsub.listen(orders)
    assert_type(pubsub.get_event(), Notify[Any] | None)
    assert_type(pubsub.get_events(yield_gaps=True), list[Notify[Any] | Gap])
    pubsub.listen(Order)  # type: ignore
    pubsub.notification_handler(orders, print)


def anything(event: Notify, any_event: Notify[object]) -> None:
    any_event = event  # what is received is not changed, so a notification of text is one of an object
    print(any_event.payload)
