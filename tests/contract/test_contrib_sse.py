"""Server-sent events: what a browser makes of them is what was sent, nothing is lost to a keep-alive, and whoever stops
to look leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgpubsub
from pgpubsub import AsyncHub, Channel, Gap, GapReason, Hub, Notify, PositionError, Undecodable
from pgpubsub.contrib import sse
from pgpubsub.testing import MemoryServer
from tests.contract.browser import Parser, Received, parse
from tests.contract.faces import PATIENCE, LoopInThread, Worker
from tests.contract.sending import wait_until

FACES = ["follow", "follow_blocking"]
LISTENING = b": listening\n\n"


@dataclass
class Order:
    id: int
    note: str = ""


class Following:
    """`follow` or `follow_blocking`, made alike."""

    def __init__(self, hub: Any, loop: LoopInThread | None) -> None:
        self.hub = hub
        self.loop = loop

    def open(self, receiver: Any, **options: Any) -> Generator[bytes, None, None]:
        if self.loop is None:
            return sse.follow_blocking(receiver, **options)
        return self._covered(sse.follow(receiver, **options), self.loop)

    @staticmethod
    def _covered(events: AsyncGenerator[bytes, None], loop: LoopInThread) -> Generator[bytes, None, None]:
        async def following() -> bytes:
            return await anext(events, b"")

        async def close() -> None:
            await events.aclose()

        try:
            while chunk := loop.run(following()):
                yield chunk
        finally:
            loop.run(close())

    def run(self, call: Any) -> Any:
        """What becomes of a method of the hub."""
        return call if self.loop is None else self.loop.run(call)

    def subscriptions(self) -> int:
        return len(self.hub.stats().subscriptions)


@pytest.fixture(params=FACES)
def following(request: pytest.FixtureRequest, dsn: str) -> Iterator[Following]:
    if request.param == "follow_blocking":
        with Hub(dsn) as hub:
            yield Following(hub, None)
        return
    loop = LoopInThread(asyncio.SelectorEventLoop())
    async_hub = AsyncHub(dsn)
    loop.run(async_hub.__aenter__())
    yield Following(async_hub, loop)
    loop.run(async_hub.close())
    loop.end()


# -- events to bytes

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(ANY_TEXT, ANY_TEXT)
def test_any_payload_on_any_channel_is_one_event_for_a_browser(payload: str, channel: str) -> None:
    for named in (False, True):
        stream = sse.encode(Notify(1, channel, payload), named=named) + sse.encode(Notify(1, "next", "that is all"))
        as_a_browser_has_it = payload.replace("\r\n", "\n").replace("\r", "\n")
        reserved = channel in ("gap", "undecodable", "error", "open")  # and rarely made here: see below
        name = channel.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")
        name = name if named and not reserved else "message"
        assert parse([stream]) == [
            Received(name or "message", as_a_browser_has_it),
            Received("message", "that is all"),
        ]


def test_line_breaks_cannot_be_used_to_make_fields() -> None:
    for channel in ("a\nid: 1", "a\rdata: x", "a\r\n\r\nevent: gap"):
        (event,) = parse([sse.encode(Notify(1, channel, "data\n\nid: 2\revent: gap\r\ndata: y"), named=True)])
        assert "\n" not in event.type
        assert event.last_event_id == ""
        assert event.data == "data\n\nid: 2\nevent: gap\ndata: y"
    for fields in ({"event": "a\nb"}, {"event": "a\rb"}, {"id": "a\nb"}, {"id": "a\0b"}):
        with pytest.raises(ValueError, match="one line without NUL"):
            sse.frame("x", **fields)  # type: ignore[arg-type]


def test_an_empty_payload_is_an_event_and_a_comment_is_none() -> None:
    assert parse([sse.encode(Notify(1, "c", "")), sse.KEEP_ALIVE, sse.frame(comment="two\nlines", retry=5)]) == [
        Received("message", "")
    ]


def test_what_is_not_text_is_base64_or_json() -> None:
    assert sse.as_text(b"\x89P") == "iVA="
    assert json.loads(sse.as_text({"é": [1, None]})) == {"é": [1, None]}
    assert parse([sse.encode(Notify(1, "c", "a\udc80b"))]) == [Received("message", "a?b")]
    with pytest.raises(TypeError):
        sse.encode(Notify(1, "c", object()))
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not JSON compliant"):  # a browser could not parse it
            sse.encode(Notify(1, "c", {"a": [number]}))
    with pytest.raises(TypeError, match="delivers no str"):
        sse.encode("17")


def test_a_gap_is_told_without_the_words_of_the_server() -> None:
    gap = Gap(GapReason.OVERFLOW, ("a", "b\n"), datetime(2026, 1, 2, tzinfo=UTC), 17, "it was\nfull")
    unnamed, named = parse([sse.encode(gap), sse.encode(gap, named=True)])
    assert unnamed.type == named.type == "gap"
    told = {"reason": "overflow", "since": "2026-01-02T00:00:00+00:00", "count": 17}
    assert json.loads(unnamed.data) == told
    assert json.loads(named.data) == {**told, "channels": ["a", "b\n"]}


def test_what_does_not_fit_its_type_is_told_without_its_payload() -> None:
    undecodable = Undecodable(Notify(1, "orders", "secret"), ValueError("secret"))
    assert parse([sse.encode(undecodable), sse.encode(undecodable, named=True)]) == [
        Received("undecodable", "{}"),
        Received("undecodable", '{"channel": "orders"}'),
    ]


@pytest.mark.parametrize("channel", ["gap", "undecodable", "error", "open"])
def test_a_channel_cannot_pass_for_what_is_told_of_the_connection(channel: str) -> None:
    assert parse([sse.encode(Notify(1, channel, "forged"), named=True)]) == [Received("message", "forged")]
    for other in (channel.upper(), f"{channel}\n", f" {channel}"):
        (event,) = parse([sse.encode(Notify(1, other, "17"), named=True)])
        assert event.type not in {channel, "message"}


# -- following


def test_what_comes_is_yielded_after_a_comment(following: Following, channel: str) -> None:
    with closing(following.open(following.hub.subscribe(channel), retry=2000)) as events:
        assert next(events) == b": listening\nretry: 2000\n\n"
        following.run(following.hub.notify(channel, "17"))
        following.run(following.hub.notify(channel, "two\nlines"))
        assert parse([next(events), next(events)]) == [Received("message", "17"), Received("message", "two\nlines")]


def test_payloads_with_a_type_are_json_of_that_type(
    following: Following, channel: str, caplog: pytest.LogCaptureFixture
) -> None:
    orders = Channel(channel, Order)
    with closing(following.open(following.hub.subscribe(orders))) as events, caplog.at_level(logging.WARNING):
        next(events)
        following.run(following.hub.notify(orders, Order(17)))
        following.run(following.hub.notify(channel, "seventeen"))
        following.run(following.hub.notify(channel, '{"id": 18, "of nobody\'s concern": 1}'))
        order, wrong, other = parse([next(events), next(events), next(events)])
    assert json.loads(order.data) == {"id": 17, "note": ""}
    assert wrong == Received("undecodable", "{}")
    assert json.loads(other.data)["id"] == 18
    assert "concern" not in other.data
    assert [record.name for record in caplog.records] == ["pgpubsub.sse"]
    assert channel in caplog.text


def test_one_can_make_text_of_payloads_oneself(following: Following, channel: str) -> None:
    receiver = following.hub.subscribe(Channel(channel, Order), "other")
    with closing(following.open(receiver, text=lambda order: f"no. {order.id}", named=True)) as events:
        next(events)
        following.run(following.hub.notify(channel, '{"id": 17}'))
        assert parse([next(events)]) == [Received(channel, "no. 17")]


def test_an_error_in_text_ends_it_and_frees_the_subscription(following: Following, channel: str) -> None:
    with closing(following.open(following.hub.subscribe(channel), text=lambda payload: str(1 // 0))) as events:
        next(events)
        following.run(following.hub.notify(channel, "17"))
        with pytest.raises(ZeroDivisionError):
            next(events)
        wait_until(lambda: following.subscriptions() == 0)


def test_silence_brings_keep_alives_and_they_cost_no_event(
    following: Following, channel: str, other: pgpubsub.PubSub
) -> None:
    sent = [str(number) for number in range(300)]
    silent = threading.Semaphore(0)

    def send() -> None:
        for text in sent:
            assert silent.acquire(timeout=PATIENCE)
            other.notify(channel, text)  # and so it arrives about when a keep-alive is due

    got: list[str] = []
    with closing(following.open(following.hub.subscribe(channel), keep_alive=0.0002)) as events:
        assert next(events) == LISTENING
        sender = Worker(send)
        while len(got) < len(sent):
            chunk = next(events)
            if chunk == sse.KEEP_ALIVE:
                silent.release()
            got += [event.data for event in parse([chunk])]
        assert sender.outcome() is None
    assert got == sent


@pytest.mark.parametrize("keep_alive", [0, -1])
def test_a_keep_alive_takes_time(following: Following, channel: str, keep_alive: float) -> None:
    with pytest.raises(ValueError, match="keep_alive"):
        next(following.open(following.hub.subscribe(channel), keep_alive=keep_alive))


def test_closing_it_frees_the_subscription(following: Following, channel: str) -> None:
    events = following.open(following.hub.subscribe(channel))
    next(events)
    assert following.subscriptions() == 1
    events.close()
    wait_until(lambda: following.subscriptions() == 0)


def test_it_ends_when_the_hub_is_closed(following: Following, channel: str) -> None:
    with closing(following.open(following.hub.subscribe(channel))) as events:
        next(events)
        following.run(following.hub.notify(channel, "17"))
        wait_until(lambda: following.hub.stats().subscriptions[0].depth == 1)
        following.run(following.hub.close())
        assert parse(events) == [Received("message", "17")]


def test_a_hub_that_has_given_up_is_an_error() -> None:
    server = MemoryServer()
    with server.hub(give_up_after=0.01) as hub, closing(sse.follow_blocking(hub.subscribe("c"))) as events:
        next(events)
        server.stop()
        with pytest.raises(pgpubsub.GaveUp):
            list(events)


def test_what_a_browser_is_not_told_of_a_gap_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = MemoryServer()
    with server.hub() as hub, closing(sse.follow_blocking(hub.subscribe("secret", "c", capacity=1))) as events:
        next(events)
        with caplog.at_level(logging.INFO, "pgpubsub.sse"):
            hub.notify_many([("secret", "1"), ("secret", "2"), ("secret", "3")])
            while (event := parse([next(events)])[0]).type != "gap":
                pass
    told = json.loads(event.data)
    assert (told["reason"], told["count"]) == ("overflow", 2)
    assert set(told) == {"reason", "since", "count"}
    (record,) = [record for record in caplog.records if record.name == "pgpubsub.sse"]
    assert "'secret': overflow: " in record.getMessage()


def test_a_subscriber_that_is_cut_off_is_an_end() -> None:
    server = MemoryServer()
    with server.hub() as hub:
        receiver = hub.subscribe("c", capacity=1, overflow="close")
        with closing(sse.follow_blocking(receiver)) as events:
            next(events)
            hub.notify_many([("c", "1"), ("c", "2")])
            assert parse(events) == [Received("message", "1")]


def test_a_task_that_is_cancelled_while_it_waits_frees_the_subscription(dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub:
            listening = asyncio.Event()

            async def consume() -> None:
                async with aclosing(sse.follow(hub.subscribe(channel))) as events:
                    async for _ in events:
                        listening.set()

            task = asyncio.create_task(consume())
            await listening.wait()
            await cancelled(task)
            assert hub.stats().subscriptions == ()

    asyncio.run(main())


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_blocking_one_ends_when_it_is_told(dsn: str, channel: str) -> None:
    told = threading.Event()
    with Hub(dsn) as hub, closing(sse.follow_blocking(hub.subscribe(channel), ended=told.is_set)) as events:
        next(events)
        threading.Timer(0.05, told.set).start()
        assert parse(events) == []
        wait_until(lambda: hub.stats().subscriptions == ())


# -- streams


def test_a_browser_resumes_a_stream_where_it_stopped(following: Following, installed: str, channel: str) -> None:
    stream = following.hub.stream(channel)
    following.run(stream.append("before"))
    seen: list[str] = []
    browser = Parser()
    for appended in ([], ["1"], [], ["2\n", "3", "4"], ["5"]):
        for text in appended:
            following.run(stream.append(text))  # while it is away
        with closing(following.open(sse.resume(stream, browser.last_event_id))) as events:
            opening = next(events)
            assert opening.startswith(b": listening\nid: ")
            browser = Parser(browser.last_event_id)
            for chunk in [opening, *(next(events) for _ in appended)]:
                seen += [event.data for line in chunk.decode().split("\n")[:-1] if (event := browser.feed(line))]
    assert seen == ["1", "2\n", "3", "4", "5"]


def test_entries_with_a_type_and_those_that_do_not_fit_can_be_resumed_behind(
    following: Following, installed: str, channel: str
) -> None:
    plain, typed = following.hub.stream(channel), following.hub.stream(channel, Order)
    following.run(plain.append("seventeen"))
    following.run(typed.append(Order(18)))
    following.run(plain.append(b"\x89P"))
    with closing(following.open(sse.resume(typed, None, pgpubsub.BEGINNING))) as events:
        wrong, order = parse([next(events), next(events), next(events)])
    assert wrong.type == "undecodable"
    assert set(json.loads(wrong.data)) == {"id"}
    assert json.loads(order.data) == {"id": 18, "note": ""}
    with closing(following.open(sse.resume(plain, wrong.last_event_id))) as events:
        assert [event.data for event in parse([next(events), next(events), next(events)])] == [order.data, "iVA="]


def test_a_header_that_is_no_position_is_told_apart(following: Following, installed: str, channel: str) -> None:
    for header in ("17", "é", "x" * 5000, "\n"):
        with pytest.raises(PositionError, match="not a position"):
            sse.resume(following.hub.stream(channel), header)
