"""A program with streams that type checkers read, and nobody runs: see `typed_orders.py`."""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

import pgpubsub
from pgpubsub import (
    AsyncBatch,
    AsyncHub,
    AsyncReader,
    AsyncStream,
    Consumer,
    Delivery,
    Entry,
    Gap,
    GroupInfo,
    Hub,
    Reader,
    Stream,
    Undecodable,
)


@dataclass
class Order:
    id: int
    customer: str


def without_a_type(hub: Hub) -> None:
    stream = hub.stream("orders")
    assert_type(stream, Stream[str | bytes])
    assert_type(stream.append("17", "customer 4", {"by": "shop"}), int)
    stream.append(b"17", idempotency_key="17")
    stream.append(17)  # type: ignore
    with stream.read(pgpubsub.END) as entries:
        assert_type(entries, Reader[Entry[Any] | Undecodable])
        for entry in entries:
            if not isinstance(entry, Entry):
                continue
            assert_type(entry, Entry[Any])
            assert_type(entry.position, str)
            assert_type(entry.key, str | None)
            assert_type(entry.headers, dict[str, Any] | None)
            print(entry.appended_at.isoformat())
    assert_type(entries.get_nowait(), Entry[Any] | Undecodable | Gap | None)
    assert_type(entries.position, str | None)


def with_a_type(hub: Hub) -> None:
    stream = hub.stream("orders", Order, poll_interval=0.5)
    assert_type(stream, Stream[Order])
    stream.append(Order(17, "4"))
    stream.append("17")  # type: ignore
    assert_type(stream.append_many([Order(17, "4")], key=lambda order: order.customer), list[int])
    with stream.read(pgpubsub.BEGINNING, follow=False) as entries:
        assert_type(entries, Reader[Entry[Order] | Undecodable])
        for entry in entries:
            match entry:
                case Gap(reason=reason):
                    print(reason)
                case Undecodable(raw=raw, error=error):
                    print(raw, error)
                case Entry(payload=payload):
                    assert_type(payload, Order)


async def asynchronously(hub: AsyncHub) -> None:
    stream = hub.stream("keys", bytes, encode=bytes.hex, decode=bytes.fromhex)
    assert_type(stream, AsyncStream[bytes])
    assert_type(await stream.append(b"17"), int)
    async with stream.read("a position") as entries:
        assert_type(entries, AsyncReader[Entry[bytes] | Undecodable])
        assert_type(await entries.get(), Entry[bytes] | Undecodable | Gap)
    stream.read(17)  # type: ignore


def charge(entry: Entry[Order]) -> None:
    print(entry.payload.customer)


def print_text(entry: Entry[str]) -> None:
    print(entry.payload)


def in_groups(hub: Hub) -> None:
    stream = hub.stream("orders", Order)
    stream.process("billing", charge, concurrency=4, backoff=lambda attempts: 2.0**attempts)
    stream.process("billing", print_text)  # type: ignore
    hub.stream("texts").process("billing", print_text)
    with stream.consume("billing") as consumer:
        assert_type(consumer, Consumer[Delivery[Order]])
        for delivery in consumer:
            with delivery:
                assert_type(delivery.payload, Order)
                assert_type(delivery.entry, Entry[Order])
            with delivery.transaction() as conn:
                conn.execute("SELECT 1")
    stream.consume("billing", leas=5)  # type: ignore
    assert_type(stream.groups(), list[GroupInfo])
    assert_type([letter.entry for letter in stream.dead("billing")], list[Entry[Order] | Undecodable])


async def in_groups_asynchronously(hub: AsyncHub) -> None:
    stream = hub.stream("orders", Order)
    async for batch in stream.consume("billing", batch=100):
        assert_type(batch, AsyncBatch[Order])
        async with batch:
            for entry in batch:
                assert_type(entry, Entry[Order] | Undecodable)
        await batch.acknowledge()
