"""PostgresChannelLayer: the specification of Channels, sentence by sentence, and what this layer adds to it."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import msgspec
import psycopg
import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull, MessageTooLarge
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import channel_layers
from channels.testing import WebsocketCommunicator
from django.test import override_settings
from psycopg.conninfo import make_conninfo

import pgpubsub
from pgpubsub import PubSubError
from pgpubsub.contrib.channels import PostgresChannelLayer, install, sql
from pgpubsub.contrib.channels.exchange import Exchange
from pgpubsub.contrib.channels.line import Line
from pgpubsub.contrib.channels.statements import Statements
from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.testing import Proxy
from tests.contract.faces import PATIENCE
from tests.contract.owners import use_django
from tests.contract.streams import identifier, new_role
from tests.system.frozen import FrozenServer

pytestmark = pytest.mark.usefixtures("_settings")

Make = Callable[..., PostgresChannelLayer]


@pytest.fixture
def _settings(dsn: str) -> None:
    use_django(dsn)


@pytest.fixture
def schema(dsn: str, channel: str) -> Iterator[str]:
    name = f"layer of {channel}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("SET client_min_messages = error")
        install(conn, name)
        install(conn, name)  # which may be repeated
        yield name
        conn.execute(f"DROP SCHEMA {identifier(name)} CASCADE")


@pytest.fixture
def make(dsn: str, schema: str) -> Iterator[Make]:
    """Makes layers: each is what a process of its own has."""
    made = []

    def make_one(conninfo: str = dsn, **options: Any) -> PostgresChannelLayer:
        made.append(PostgresChannelLayer(conninfo, **{"schema": schema} | options))
        return made[-1]

    yield make_one
    for layer in made:
        layer.close_now()


@pytest.fixture
def layer(make: Make) -> PostgresChannelLayer:
    return make()


def run(coroutine: Any) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(PATIENCE):
            return await coroutine

    return asyncio.run(bounded())


async def nothing_comes(layer: PostgresChannelLayer, channel: str) -> None:
    """What was sent before a message that has come would have come before it."""
    await layer.send(channel, {"type": "last"})
    assert await layer.receive(channel) == {"type": "last"}


# -- messages and channels


def test_a_message_has_all_types_that_the_specification_names(layer: PostgresChannelLayer) -> None:
    message = {
        "type": "test.message",
        "bytes": b"\x00\xff",
        "text": "žluťoučký \U0001f40e",
        "least": -(2**63),
        "most": 2**63 - 1,
        "float": 1.5e300,
        "list": [1, ["two"], {}],
        "tuple": (1, 2),
        "dict": {"a": {"b": None}},
        "true": True,
        "none": None,
    }

    async def main() -> None:
        await layer.send("some", message)
        assert await layer.receive("some") == message | {"tuple": [1, 2]}

    run(main())


@pytest.mark.parametrize(
    "message",
    ["text", None, [("type", "x")], {"type": object()}, {"big": 2**64}, {"\ud800": 1}, {"__asgi_channel__": "x"}],
)
def test_what_is_no_message_is_refused(layer: PostgresChannelLayer, message: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        run(layer.send("some", message))
    with pytest.raises((TypeError, ValueError)):
        run(layer.group_send("some", message))


@pytest.mark.parametrize("name", ["", "a b", "ž", "a!b!c", "x" * 101, b"bytes", None, "a\x00"])
def test_names_are_checked(layer: PostgresChannelLayer, name: Any) -> None:
    async def main() -> None:
        for call in (
            layer.send(name, {}),
            layer.receive(name),
            layer.group_add("group", name),
            layer.group_discard("group", name),
            layer.group_add(name, "channel"),
            layer.group_discard(name, "channel"),
            layer.group_send(name, {}),
        ):
            with pytest.raises(TypeError, match="name must be a valid unicode string"):
                await call

    run(main())


def test_names_have_a_hundred_characters(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        for channel in ("x" * 100, "specific." + "x" * 45 + "!" + "y" * 45):
            await layer.group_add("g" * 100, channel)
            await layer.group_send("g" * 100, {"a": 1})
            assert await layer.receive(channel) == {"a": 1}
            await layer.group_discard("g" * 100, channel)

    run(main())


def test_a_channel_is_first_in_first_out(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        for channel in ("some", await layer.new_channel()):
            for number in range(50):
                await layer.send(channel, {"number": number})
            assert [(await layer.receive(channel))["number"] for _ in range(50)] == list(range(50))

    run(main())


def test_a_message_goes_to_one_receiver(make: Make) -> None:
    layers = [make(capacity=1000) for _ in range(3)]
    received: list[int] = []

    async def receive(layer: PostgresChannelLayer) -> None:
        while True:
            received.append((await layer.receive("work"))["number"])

    async def main() -> None:
        receivers = [asyncio.create_task(receive(layer)) for layer in layers for _ in range(3)]
        for number in range(200):
            await layers[number % 3].send("work", {"number": number})
        while len(received) < 200:
            await asyncio.sleep(0.01)
        for task in receivers:
            task.cancel()
        await asyncio.gather(*receivers, return_exceptions=True)
        await nothing_comes(layers[0], "work")

    run(main())
    assert sorted(received) == list(range(200))


def test_one_process_does_not_take_what_others_could_handle(make: Make) -> None:
    """Of a normal channel, as many as it waits for."""
    one, other = make(), make()

    async def main() -> None:
        for number in range(3):
            await one.send("work", {"number": number})
        assert (await one.receive("work"))["number"] == 0
        assert [(await other.receive("work"))["number"] for _ in range(2)] == [1, 2]

    run(main())


def test_channels_of_a_process_are_told_apart(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        channels = [await layer.new_channel() for _ in range(20)]
        assert len(set(channels)) == 20
        assert (await layer.new_channel("http.response")).startswith("http.response.")
        receivers = [asyncio.create_task(layer.receive(channel)) for channel in channels]
        for channel in reversed(channels):
            await layer.send(channel, {"to": channel})
        assert [message["to"] for message in await asyncio.gather(*receivers)] == channels

    run(main())


def test_who_receives_for_a_process_is_told_for_which_channel(make: Make) -> None:
    one, other = make(), make()

    async def main() -> None:
        mine = await one.new_channel()
        whole = mine[: mine.index("!") + 1]
        receiver = asyncio.create_task(one.receive(whole))
        await other.send(mine, {"a": 1})
        assert await receiver == {"a": 1, "__asgi_channel__": mine}
        await other.send(whole + "else", {"a": 2})
        assert await one.receive(whole) == {"a": 2, "__asgi_channel__": whole + "else"}

    run(main())


def test_who_receives_for_a_process_gets_what_came_before(layer: PostgresChannelLayer) -> None:
    """Also if it came while only another channel of the process was received on."""

    async def main() -> None:
        asked, unasked = await layer.new_channel(), await layer.new_channel()
        await layer.send(unasked, {"number": 1})
        await layer.send(unasked, {"number": 2})
        await layer.send(asked, {})
        await layer.receive(asked)
        whole = asked[: asked.index("!") + 1]
        for number in (1, 2):
            assert await layer.receive(whole) == {"number": number, "__asgi_channel__": unasked}

    run(main())


@pytest.mark.parametrize("size", [1 << 20, 20 << 20], ids=["1 MiB", "20 MiB"])
def test_messages_of_any_size(make: Make, size: int) -> None:
    one, other = make(), make()

    async def main() -> None:
        await one.send("large", {"data": b"x" * size, "text": "ž" * 1000})
        message = await other.receive("large")
        assert (len(message["data"]), message["text"]) == (size, "ž" * 1000)

    run(main())


def test_a_message_over_the_limit_is_refused(make: Make) -> None:
    layer = make(max_message=1000)
    assert layer.MessageTooLarge is MessageTooLarge
    with pytest.raises(MessageTooLarge, match=r"has 10\d\d bytes, and max_message is 1000"):
        run(layer.send("some", {"data": b"x" * 1000}))
    with pytest.raises(MessageTooLarge):
        run(layer.group_send("some", {"data": b"x" * 1000}))


# -- capacity and expiry


@pytest.mark.parametrize("channel", ["some", "specific.one!a"])
def test_a_channel_over_capacity_is_full(make: Make, channel: str) -> None:
    layer = make(capacity=3)
    assert layer.ChannelFull is ChannelFull

    async def main() -> None:
        for number in range(3):
            await layer.send(channel, {"number": number})
        with pytest.raises(ChannelFull, match="over capacity"):
            await layer.send(channel, {"number": 3})
        await layer.send("another", {})
        assert (await layer.receive(channel))["number"] == 0
        await layer.send(channel, {"number": 4})

    run(main())


def test_channels_of_a_process_share_its_capacity(make: Make) -> None:
    layer = make(capacity=2)

    async def main() -> None:
        await layer.send("specific.one!a", {})
        await layer.send("specific.one!b", {})
        with pytest.raises(ChannelFull):
            await layer.send("specific.one!c", {})

    run(main())


def test_channels_sent_to_at_once_are_not_filled_beyond_capacity(make: Make) -> None:
    layer = make(capacity=3)

    async def main() -> None:
        outcomes = await asyncio.gather(*(layer.send("some", {}) for _ in range(50)), return_exceptions=True)
        assert sum(isinstance(outcome, ChannelFull) for outcome in outcomes) == 47

    run(main())


def test_capacities_by_pattern(make: Make) -> None:
    layer = make(capacity=3, channel_capacity={"http.request*": 1, "http.response!*": 2})

    async def main() -> None:
        for channel, capacity in (("http.request.x", 1), ("http.response!a", 2), ("other", 3)):
            for _ in range(capacity):
                await layer.send(channel, {})
            with pytest.raises(ChannelFull):
                await layer.send(channel, {})

    run(main())


def test_a_process_keeps_no_more_than_the_capacity_for_a_task_that_is_slow(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    layer = make(capacity=5)

    async def main() -> None:
        slow, quick = await layer.new_channel(), await layer.new_channel()
        await layer.send(slow, {"number": -1})
        await layer.receive(slow)
        for number in range(20):
            await layer.send(slow, {"number": number})
            await layer.send(quick, {"number": number})
            assert (await layer.receive(quick))["number"] == number
        assert [(await layer.receive(slow))["number"] for _ in range(5)] == list(range(5))

    run(main())
    assert "are dropped, as their channels are over capacity" in caplog.text


def test_messages_expire(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    one, other = make(expiry=0.05, capacity=1), make(expiry=60, capacity=1)

    async def main() -> None:
        await one.send("some", {"number": 0})
        while True:  # until there is room
            try:
                await other.send("some", {"number": 1})
                break
            except ChannelFull:
                await asyncio.sleep(0.01)
        assert (await one.receive("some"))["number"] == 1
        while "expired: nobody received" not in caplog.text:
            await asyncio.sleep(0.01)

    run(main())
    assert "1 messages on some expired" in caplog.text


def test_what_expires_in_a_process_is_not_received(make: Make) -> None:
    layer = make(expiry=0.2)

    async def main() -> None:
        channel = await layer.new_channel()
        await layer.send(channel, {"number": 0})
        await layer.receive(channel)
        await layer.send(channel, {"number": 1})
        await asyncio.sleep(0.3)
        await layer.send(channel, {"number": 2})
        assert (await layer.receive(channel))["number"] == 2

    run(main())


def test_what_was_fetched_for_those_who_wait_is_not_over_capacity(make: Make) -> None:
    layer, sender = make(capacity=1), make(capacity=1)

    async def main() -> None:
        receiving = [asyncio.create_task(layer.receive("some")) for _ in range(10)]
        for number in range(10):
            while True:
                try:
                    await sender.send("some", {"number": number})
                    break
                except ChannelFull:
                    await asyncio.sleep(0)
        assert sorted(message["number"] for message in await asyncio.gather(*receiving)) == list(range(10))

    run(main())


# -- groups


def test_groups(make: Make) -> None:
    one, other = make(), make()

    async def main() -> None:
        channels = [await layer.new_channel() for layer in (one, other) for _ in range(3)] + ["normal"]
        for channel in channels:
            await one.group_add("group", channel)
            await other.group_add("group", channel)  # it is a member already
        await other.group_discard("group", channels[0])
        await other.group_discard("group", "never.added")
        await other.group_discard("no.such.group", channels[0])
        await one.group_send("group", {"type": "hello"})
        await one.group_send("empty", {"type": "hello"})
        for channel in channels[1:]:
            assert await (one if channel in channels[:3] else other).receive(channel) == {"type": "hello"}
        await nothing_comes(one, channels[0])
        await nothing_comes(other, channels[-1])

    run(main())


def test_each_member_gets_a_message_of_its_own(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        channels = [await layer.new_channel() for _ in range(2)]
        for channel in channels:
            await layer.group_add("group", channel)
        await layer.group_send("group", {"list": []})
        first = await layer.receive(channels[0])
        first["list"].append("changed")
        assert await layer.receive(channels[1]) == {"list": []}

    run(main())


def test_members_over_capacity_miss_what_is_sent_to_a_group(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pgpubsub.channels")
    layer = make(capacity=2)

    async def main() -> None:
        for channel in ("full", "other"):
            await layer.group_add("group", channel)
        for number in range(2):
            await layer.send("full", {"number": number})
        await layer.group_send("group", {"number": 2})
        assert (await layer.receive("other"))["number"] == 2
        assert [(await layer.receive("full"))["number"] for _ in range(2)] == [0, 1]
        await nothing_comes(layer, "full")

    run(main())
    assert "1 of 2 receivers of group group are over capacity" in caplog.text


def test_members_expire_unless_they_are_added_again(make: Make, dsn: str, schema: str) -> None:
    layer = make(group_expiry=1000)
    assert layer.group_expiry == 1000

    async def main() -> None:
        for channel in ("stays", "goes"):
            await layer.group_add("group", channel)
        with psycopg.connect(dsn) as conn:
            conn.execute(f"UPDATE {identifier(schema)}.member SET expires = now()")
        await layer.group_add("group", "stays")
        await layer.group_send("group", {"type": "hello"})
        assert await layer.receive("stays") == {"type": "hello"}
        await nothing_comes(layer, "goes")

    run(main())


def test_a_message_sent_after_joining_is_received(make: Make) -> None:
    """And one sent before is not: what a task does one after the other, happens in that order."""
    one, other = make(), make()

    async def main() -> None:
        for number in range(20):
            channel = await one.new_channel()
            await other.group_send(f"group{number}", {"type": "early"})
            await one.group_add(f"group{number}", channel)
            await other.group_send(f"group{number}", {"type": "late"})
            assert await one.receive(channel) == {"type": "late"}

    run(main())


def test_flush_leaves_nothing_for_anybody(make: Make) -> None:
    one, other = make(), make()

    async def main() -> None:
        held = await other.new_channel()
        await other.group_add("group", held)
        await one.send(held, {"number": 0})
        await other.receive(held)
        await one.send(held, {"number": 1})
        await one.send("some", {"number": 2})
        await one.flush()
        await one.group_send("group", {"number": 3})
        await nothing_comes(one, "some")

    assert one.extensions == ["groups", "flush"]
    run(main())


def test_a_flush_drops_what_other_processes_hold(make: Make) -> None:
    one, other = make(), make()

    async def main() -> None:
        held = await other.new_channel()
        await other.group_add("group", held)
        await one.send(held, {"number": 0})
        await other.receive(held)
        await one.send(held, {"number": 1})
        await until(lambda: holds(other, held))
        await one.flush()
        await until(lambda: not holds(other, held))
        await nothing_comes(other, held)

    run(main())


@pytest.mark.parametrize("payload", ["garbage", "", "1" * 30, "9000000000000000000"])
def test_what_anybody_notifies_neither_ends_receiving_nor_drops_anything(
    make: Make, schema: str, admin: psycopg.Connection[Any], payload: str
) -> None:
    one, other = make(), make()

    async def main() -> None:
        held = await other.new_channel()
        await one.send(held, {"number": 0})
        await other.receive(held)
        await one.send(held, {"number": 1})
        await until(lambda: holds(other, held))
        admin.execute("SELECT pg_notify(%s, %s)", [Statements(schema).flushed, payload])
        await one.send(held, {"number": 2})
        await one.send("another", {"number": 3})
        assert (await other.receive("another"))["number"] == 3
        assert [(await other.receive(held))["number"] for _ in range(2)] == [1, 2]

    run(main())


def test_whoever_receives_is_told_of_a_fault_of_the_layer_s_own(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(exchange: Exchange, address: str) -> int:
        raise ArithmeticError("a fault")

    monkeypatch.setattr(Exchange, "_room", fail)
    with caplog.at_level(logging.ERROR, "pgpubsub.channels"), pytest.raises(ArithmeticError):
        run(make().receive("some"))
    assert "a fault of our own" in caplog.text


# -- tasks, threads, processes


def test_a_receiver_that_is_cancelled_has_taken_nothing(make: Make) -> None:
    """Wherever it is: before it listens, when it waits, when it is woken. What it left goes to another process."""
    one, other = make(capacity=1000), make(capacity=1000)
    got: list[int] = []

    async def receive(layer: PostgresChannelLayer, channel: str) -> None:
        got.append((await layer.receive(channel))["number"])

    async def main() -> None:
        sent = 0
        for turn in range(150):
            task = asyncio.create_task(receive(one, "work"))
            await other.send("work", {"number": sent})
            sent += 1
            for _ in range(turn % 30):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        while len(got) < sent:
            await receive(other, "work")

    run(main())
    assert sorted(got) == list(range(150))


def test_one_who_receives_with_a_time_limit_gets_all_in_order(make: Make) -> None:
    """What came too late for one call is stored again, and comes before what was sent afterwards."""
    layer, sender = make(capacity=1000), make(capacity=1000)
    received: list[int] = []
    late: list[int] = []

    async def receive() -> None:
        patience = 0.0  # grows until one is enough, however slow the machine is
        while len(received) < 500:
            try:
                async with asyncio.timeout(patience):
                    received.append((await layer.receive("work"))["number"])
                    patience = 0.001 * (len(received) % 4)
            except TimeoutError:
                late.append(len(received))
                patience += 0.0005

    async def send() -> None:
        for number in range(500):
            await sender.send("work", {"number": number})

    async def main() -> None:
        await asyncio.gather(receive(), send())

    run(main())
    assert received == list(range(500))
    assert late


def test_a_cancelled_receiver_leaves_the_message_to_the_next(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        channel = await layer.new_channel()
        for number in range(100):
            first, second = (asyncio.create_task(layer.receive(channel)) for _ in range(2))
            sending = asyncio.create_task(layer.send(channel, {"number": number}))
            for _ in range(number % 20):
                await asyncio.sleep(0)
            first.cancel()
            outcomes = await asyncio.gather(first, sending, return_exceptions=True)
            if isinstance(outcomes[0], BaseException):
                assert (await second)["number"] == number
            else:
                second.cancel()
                await asyncio.gather(second, return_exceptions=True)

    run(main())


def test_synchronous_code_may_send_from_any_thread(layer: PostgresChannelLayer) -> None:
    """Each call of `async_to_sync` has an event loop of its own."""
    received = []

    def send(number: int) -> None:
        for _ in range(5):
            async_to_sync(layer.send)("some", {"number": number})

    threads = [threading.Thread(target=send, args=[number]) for number in range(5)]
    for thread in threads:
        thread.start()
    for _ in range(25):
        received.append(async_to_sync(layer.receive)("some")["number"])
    for thread in threads:
        thread.join(PATIENCE)
    assert sorted(received) == sorted(list(range(5)) * 5)


def test_a_receiver_whose_event_loop_has_ended_keeps_nothing_from_others(layer: PostgresChannelLayer) -> None:
    async def wait_briefly() -> None:
        task = asyncio.create_task(layer.receive("some"))
        await asyncio.sleep(0.05)
        assert not task.done()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(wait_briefly())
    loop.close()  # with the task, as a careless program does
    run(layer.send("some", {"number": 1}))
    assert run(layer.receive("some")) == {"number": 1}


def test_a_forked_child_has_connections_and_channels_of_its_own(make: Make) -> None:
    layer = make()
    mine = run(layer.new_channel())
    run(layer.send("some", {"number": 1}))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        try:
            message = run(layer.receive("some"))
            new = run(layer.new_channel())
            os.write(writing, msgspec.json.encode([message, new]))
            layer.close_now()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        message, its = msgspec.json.decode(pipe.read())
    os.waitpid(child, 0)
    assert message == {"number": 1}
    assert its.split("!")[0] != mine.split("!")[0]
    run(layer.send(mine, {"number": 2}))
    assert run(layer.receive(mine)) == {"number": 2}


def test_a_layer_that_is_closed_tells_those_who_wait_and_can_be_used_again(layer: PostgresChannelLayer) -> None:
    async def main() -> None:
        waiting = asyncio.create_task(layer.receive("some"))
        await layer.send("other", {"number": 1})
        await layer.close()
        with pytest.raises(pgpubsub.Closed):
            await waiting
        assert await layer.receive("other") == {"number": 1}

    run(main())


def test_a_receiver_that_was_slow_to_wait_is_told_that_the_layer_is_closed(layer: PostgresChannelLayer) -> None:
    """It was woken for a message that somebody flushed, and comes to wait again when nothing will come any more."""

    async def main() -> None:
        channel = await layer.new_channel()
        receiving = asyncio.create_task(layer.receive(channel))
        await layer.send("other", {})
        await layer.receive("other")

        def meanwhile() -> None:
            async_to_sync(layer.send)(channel, {})
            async_to_sync(layer.flush)()
            layer.close_now()

        thread = threading.Thread(target=meanwhile)
        thread.start()
        thread.join(PATIENCE)  # while this event loop is busy
        with pytest.raises(pgpubsub.Closed):
            await receiving

    run(main())


def test_a_process_that_ends_leaves_to_others_what_it_had_not_handled(make: Make) -> None:
    ending, other = make(capacity=1000), make(capacity=1000)
    received: list[int] = []

    async def receive() -> None:
        while True:
            received.append((await ending.receive("work"))["number"])

    async def main() -> None:
        for turn in range(10):
            tasks = [asyncio.create_task(receive()) for _ in range(5)]
            for number in range(20):
                await other.send("work", {"number": 20 * turn + number})
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await ending.close()
        while len(received) < 200:
            received.append((await other.receive("work"))["number"])

    run(main())
    assert sorted(received) == list(range(200))


def test_whoever_uses_a_layer_whose_thread_was_ended_is_told(layer: PostgresChannelLayer, admin: Any) -> None:
    class FailFast(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit(1)

    handler = FailFast(logging.WARNING)

    async def main() -> None:
        receiving = asyncio.create_task(layer.receive("work"))
        await layer.send("other", {"number": 1})
        logging.getLogger("pgpubsub").addHandler(handler)
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
                [f"pgpubsub listen %{os.getpid()}@%"],
            )
            with pytest.raises(PubSubError, match=r"thread was ended: SystemExit\(1\)"):
                await asyncio.wait_for(receiving, PATIENCE)
        finally:
            logging.getLogger("pgpubsub").removeHandler(handler)
        with pytest.raises(PubSubError, match=r"thread was ended: SystemExit\(1\)"):
            await layer.receive("work")
        with pytest.raises(PubSubError, match=r"thread was ended: SystemExit\(1\)|before the server had answered"):
            await layer.send("work", {"number": 2})
        await layer.close()
        await layer.send("work", {"number": 3})
        assert await layer.receive("work") == {"number": 3}, "closed, it begins anew"

    run(main())


def test_a_layers_patience_holds_with_a_server_that_lets_it_in_and_is_silent(make: Make) -> None:
    with FrozenServer() as frozen:
        layer = make(conninfo=frozen.dsn(), timeout=1.0)
        started = monotonic()
        with pytest.raises(pgpubsub.NotLive, match="for 1 s: cannot connect to PostgreSQL: no answer within 1 s"):
            run(layer.send("work", {"number": 1}))
        assert monotonic() - started < 5, "psycopg, when it is cancelled, asks such a server to cancel what it does"


def test_what_was_sent_when_the_layer_is_closed_is_sent(make: Make) -> None:
    layer, other = make(), make()

    async def main() -> None:
        for number in range(20):
            sending = asyncio.create_task(layer.send("some", {"number": number}))
            for _ in range(number):
                await asyncio.sleep(0)
            await layer.close()
            await sending
            assert (await other.receive("some"))["number"] == number

    run(main())


def test_a_child_may_use_what_was_being_made_when_it_was_forked(layer: PostgresChannelLayer) -> None:
    begun, forked = threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        forked.wait(PATIENCE)
        return os.getpid()

    made = OfProcess(make)
    thread = threading.Thread(target=made.get)
    thread.start()
    begun.wait(PATIENCE)
    child = os.fork()
    if child == 0:  # pragma: no cover
        signal.alarm(int(PATIENCE))
        forked.set()
        os._exit(0 if made.get() == os.getpid() else 1)
    forked.set()
    thread.join(PATIENCE)
    assert os.waitpid(child, 0)[1] == 0


def test_a_layer_that_is_forgotten_leaves_no_connection(dsn: str, schema: str, admin: psycopg.Connection[Any]) -> None:
    name = f"forgotten {os.getpid()}"
    layer = PostgresChannelLayer(make_conninfo(dsn, application_name=name), schema=schema)
    run(layer.send("some", {}))
    assert connections_of(admin, name)
    del layer
    assert run(until(lambda: not connections_of(admin, name))) is None


def holds(layer: PostgresChannelLayer, channel: str) -> bool:
    """Whether the process of a layer has fetched a message that nobody has received."""
    return layer._process.get().exchange.inboxes.is_used(channel)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def connections_of(admin: psycopg.Connection[Any], name: str) -> list[int]:
    rows = admin.execute("SELECT pid FROM pg_stat_activity WHERE application_name = %s", [name])
    return [pid for (pid,) in rows]


# -- the tables


async def exchange(layer: PostgresChannelLayer, number: int) -> None:
    """Send many messages, and receive them."""
    channel = await layer.new_channel()

    async def send() -> None:
        for _ in range(number // 50):
            await layer.send(channel, {})

    async def receive() -> None:
        for _ in range(number):
            await layer.receive(channel)

    await asyncio.gather(receive(), *(send() for _ in range(50)))


def test_what_was_taken_is_vacuumed(make: Make, schema: str, admin: psycopg.Connection[Any]) -> None:
    layer = make(capacity=10_000)
    query = "SELECT vacuum_count FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'message'"

    def vacuumed() -> bool:
        return admin.execute(query, [schema]).fetchone() != (0,)

    async def main() -> None:
        await exchange(layer, 6000)
        await until(vacuumed)

    run(main())


def test_a_role_needs_no_more_than_the_rights_that_are_documented(
    make: Make, dsn: str, schema: str, admin: psycopg.Connection[Any]
) -> None:
    """And what only an owner may, is left to autovacuum."""
    role = f"role of {schema}"
    rights = "SELECT, INSERT, UPDATE, DELETE"
    within = f"SCHEMA {identifier(schema)}"
    new_role(admin, role, f"USAGE ON {within}", f"{rights} ON ALL TABLES IN {within}")
    layer = make(make_conninfo(dsn, user=role), capacity=10_000)

    async def main() -> None:
        await layer.group_add("group", "some")
        await layer.group_send("group", {"number": 1})
        assert await layer.receive("some") == {"number": 1}
        await layer.group_discard("group", "some")
        await exchange(layer, 6000)
        await layer.flush()

    run(main())


# -- outages


@pytest.mark.parametrize("of_process", [True, False], ids=["specific", "normal"])
def test_nothing_is_lost_while_a_process_reconnects(
    make: Make, dsn: str, admin: psycopg.Connection[Any], of_process: bool
) -> None:
    name = f"cut off {os.getpid()} {of_process}"
    there, sender = make(make_conninfo(dsn, application_name=name)), make()

    async def main() -> None:
        channel = await there.new_channel() if of_process else "normal"
        received: list[int] = []

        async def receive() -> None:
            while len(received) < 60:
                received.append((await there.receive(channel))["number"])

        receiving = asyncio.create_task(receive())
        for number in range(60):
            if number % 20 == 10:
                for pid in connections_of(admin, name):
                    admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            await sender.send(channel, {"number": number})
        await receiving
        assert received == list(range(60))

    run(main())


def test_a_statement_that_is_called_off_harms_nobody(
    make: Make, dsn: str, schema: str, admin: psycopg.Connection[Any]
) -> None:
    """Whether by hand, or because the role's statements have a time limit and somebody holds a lock."""
    name = f"called off {os.getpid()}"
    layer = make(make_conninfo(dsn, application_name=name, options="-c statement_timeout=50 -c lock_timeout=20"))

    async def main() -> None:
        channel = await layer.new_channel()
        receiving = asyncio.create_task(layer.receive(channel))
        await layer.send("other", {})
        await layer.receive("other")
        with psycopg.connect(dsn) as holder:
            holder.execute(f"LOCK {identifier(schema)}.message IN SHARE MODE".encode())
            sending = asyncio.create_task(layer.send(channel, {"number": 1}))
            query = (
                "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity"
                " WHERE application_name = %s AND wait_event_type = 'Lock'"
            )
            await until(lambda: admin.execute(query, [name]).fetchone() != (0,))
            await asyncio.sleep(0.1)
        await sending
        assert await receiving == {"number": 1}

    run(main())


def test_statements_on_one_line_do_not_disturb_each_other(dsn: str) -> None:
    async def address() -> str:
        return dsn

    async def main() -> None:
        line = Line(address, "any", PATIENCE / 2)
        try:
            rows = await asyncio.gather(*(line.run("SELECT pg_sleep(%s), %s::int", [0.001, i]) for i in range(200)))
        finally:
            line.close()
        assert [number for ((_, number),) in rows] == list(range(200))

    run(main())


def test_a_process_that_was_cut_off_sends_again(make: Make, dsn: str, admin: psycopg.Connection[Any]) -> None:
    name = f"sends again {os.getpid()}"
    layer = make(make_conninfo(dsn, application_name=name))

    async def main() -> None:
        for number in range(5):
            await layer.send("some", {"number": number})
            await layer.group_add("group", "member")
            for pid in connections_of(admin, name):
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
        assert [(await layer.receive("some"))["number"] for _ in range(5)] == list(range(5))

    run(main())


def test_calls_wait_for_a_server_that_cannot_be_reached(make: Make, dsn: str) -> None:
    with Proxy(dsn) as proxy:
        layer = make(proxy.dsn(), timeout=0.3)

        async def main() -> None:
            channel = await layer.new_channel()
            receiving = asyncio.create_task(layer.receive(channel))
            await layer.send("some", {})
            proxy.refuse()
            proxy.reset()
            with pytest.raises((pgpubsub.NotLive, pgpubsub.SendUncertain)):
                await layer.send("some", {})
            with pytest.raises(pgpubsub.NotLive, match=r"could not reach the server for 0\.3 s"):
                await layer.send("some", {})
            proxy.accept()
            while True:
                try:
                    await layer.send(channel, {"number": 1})
                    break
                except (pgpubsub.NotLive, pgpubsub.SendUncertain):
                    pass
            assert await receiving == {"number": 1}

        run(main())


def test_without_its_tables_the_layer_says_what_to_do(make: Make) -> None:
    layer = make(schema="nowhere")

    async def main() -> None:
        for call in (layer.send("some", {}), layer.receive("some"), layer.group_add("group", "some")):
            with pytest.raises(pgpubsub.ServerRefused, match=r"'nowhere'.*InstallChannelLayer"):
                await call

    run(main())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"expiry": 0}, "expiry"),
        ({"group_expiry": -1}, "group_expiry"),
        ({"expiry": float("inf")}, "expiry"),
        ({"capacity": 0}, "capacities"),
        ({"capacity": 2**31}, "capacities"),
        ({"channel_capacity": {"a*": -1}}, "capacities"),
        ({"max_message": 0}, "max_message"),
        ({"schema": ""}, "schema"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_options_are_refused(dsn: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises((ValueError, pgpubsub.ConninfoError), match=match):
        PostgresChannelLayer(dsn, **options)


@pytest.mark.parametrize("schema", ['a "b" c', "it's; DROP TABLE x", "100% %s", "日本語", "{schema}"])
def test_a_schema_may_have_any_name(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql(schema).encode())
        layer = PostgresChannelLayer(dsn, schema=schema)
        try:
            run(layer.send("some", {"a": 1}))
            assert run(layer.receive("some")) == {"a": 1}
            run(layer.flush())
        finally:
            layer.close_now()
            conn.execute(f"DROP SCHEMA {identifier(schema)} CASCADE")


# -- with Channels itself


class Chat(AsyncWebsocketConsumer):  # type: ignore[misc]
    groups = ("chat",)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        await self.channel_layer.group_send("chat", {"type": "chat.message", "text": text_data})

    async def chat_message(self, event: dict[str, Any]) -> None:
        await self.send(event["text"])


def test_consumers_of_channels_talk_through_it(dsn: str, schema: str) -> None:
    configuration = {
        "default": {
            "BACKEND": "pgpubsub.contrib.channels.PostgresChannelLayer",
            "CONFIG": {"schema": schema},  # and so the database is Django's
        }
    }

    async def main() -> None:
        sockets = [WebsocketCommunicator(Chat.as_asgi(), "/") for _ in range(3)]
        for socket in sockets:
            assert (await socket.connect(PATIENCE))[0]
        await sockets[0].send_to(text_data="hello")
        for socket in sockets:
            assert await socket.receive_from(PATIENCE) == "hello"
        await sockets[1].disconnect()
        await sockets[2].send_to(text_data="bye")
        for socket in (sockets[0], sockets[2]):
            assert await socket.receive_from(PATIENCE) == "bye"
            await socket.disconnect()
        await channel_layers["default"].close()

    with override_settings(CHANNEL_LAYERS=configuration):
        run(main())
