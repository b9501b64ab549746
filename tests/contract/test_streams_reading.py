"""What readers of a stream get: every committed entry, once, wherever they begin and whatever happens on the way."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import BEGINNING, END, AsyncHub, Entry, NotLive, PositionError, SubscriptionClosed
from tests.contract.faces import ASYNC_KINDS, PATIENCE, AnyHub, Covered, Worker
from tests.contract.sending import Gate, words
from tests.contract.streams import (
    KINDS,
    AnyStream,
    all_payloads,
    backends,
    everything,
    following,
    open_stream,
    payloads_of,
)

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ASYNC = pytest.mark.parametrize("hub_kind", ASYNC_KINDS)


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def insert(admin: Admin, name: str, count: int, size: int = 1) -> None:
    """Entries of somebody who tells nobody."""
    admin.execute(
        "INSERT INTO pgpubsub.entry (stream, payload)"
        " SELECT pgpubsub.stream_id(%s), repeat('x', %s) || number FROM generate_series(0, %s - 1) AS number",
        [name, size - 1, count],
    )


def numbers(payloads: list[str]) -> list[int]:
    return [int(payload.lstrip("x")) for payload in payloads]


# -- where to begin


def test_from_the_beginning_all_entries_come_in_order(stream: AnyStream, admin: Admin) -> None:
    ids = [stream.append(text) for text in words(5)]
    with stream.read(BEGINNING) as reader:
        entries = [reader.get(PATIENCE) for _ in range(5)]
        assert [entry.id for entry in entries] == ids
        assert [entry.payload for entry in entries] == words(5)
        assert entries[0].appended_at <= entries[4].appended_at
        assert reader.get_nowait() is None
    with stream.read() as reader:  # which is where it begins by default
        assert following(reader, 5) == words(5)


def test_from_the_end_only_what_is_committed_later_comes(stream: AnyStream, installed: str, admin: Admin) -> None:
    """Also what was under way at that moment."""
    stream.append_many(words(3))
    with psycopg.connect(installed) as early, psycopg.connect(installed) as never:
        pgpubsub.append(early, stream.name, "early")
        pgpubsub.append(never, stream.name, "never")
        stream.append("before")
        with stream.read(END) as reader:
            position = reader.position
            stream.append("first")
            assert following(reader, 1) == ["first"]
            early.commit()
            never.rollback()
            assert following(reader, 1) == ["early"]
            stream.append("last")
            assert following(reader, 1) == ["last"]
            assert reader.get_nowait() is None
    assert all_payloads(stream, position) == ["early", "first", "last"]


def test_the_end_of_nothing_is_the_beginning(stream: AnyStream) -> None:
    with stream.read(END) as reader:
        position = reader.position
        stream.append("a")
        assert following(reader, 1) == ["a"]
    assert all_payloads(stream, position) == ["a"]


def test_the_end_is_fixed_though_nobody_asks_for_entries(stream: AnyStream) -> None:
    with stream.read(END) as first:
        stream.append_many(words(3))
        with stream.read(END) as second:
            stream.append("later")
            assert following(first, 4) == [*words(3), "later"]
            assert following(second, 1) == ["later"]


def test_behind_an_entry_the_next_one_comes(stream: AnyStream) -> None:
    stream.append_many(words(20))
    for text in words(20, "single"):
        stream.append(text)
    entries = everything(stream)
    for number, entry in enumerate(entries):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,2048}", entry.position)
        assert [one.id for one in everything(stream, entry.position)] == [one.id for one in entries[number + 1 :]]


def test_a_reader_goes_on_in_another_hub(new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        stream.append_many(words(10))
        with stream.read() as reader:
            assert following(reader, 4) == words(10)[:4]
            position = reader.position
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        with stream.read(position) as reader:
            assert reader.position is not None
            assert following(reader, 6) == words(10)[4:]
            stream.append("11")
            assert following(reader, 1) == ["11"]


def test_and_in_another_process(stream: AnyStream, installed: str) -> None:
    stream.append_many(words(10))
    position = everything(stream)[3].position
    code = """
import sys, pgpubsub
dsn, name, position = sys.argv[1:]
with pgpubsub.Hub(dsn) as hub, hub.stream(name).read(position, follow=False) as entries:
    for entry in entries:
        print(entry.payload)
"""
    command = [sys.executable, "-W", "error", "-c", code, installed, stream.name, position]
    assert subprocess.check_output(command, text=True, timeout=60).splitlines() == words(10)[4:]


def test_an_open_transaction_delays_nobody_and_comes_when_it_is_committed(stream: AnyStream, installed: str) -> None:
    with psycopg.connect(installed) as first, psycopg.connect(installed) as second:
        for connection in (first, second):
            pgpubsub.append(connection, stream.name, "under way")
        with stream.read() as reader:
            for number in range(5):
                stream.append(str(number))
                assert following(reader, 1) == [str(number)]
                if number == 2:
                    first.commit()
                    assert following(reader, 1) == ["under way"]
            position = reader.position
        second.commit()
        assert all_payloads(stream, position) == ["under way"]
    assert all_payloads(stream) == ["under way", "under way", "0", "1", "2", "3", "4"]  # by their ids


def test_a_position_is_one_of_its_stream_or_none(stream: AnyStream, hub: AnyHub) -> None:
    stream.append_many(words(5))
    position = everything(stream)[2].position
    with pytest.raises(PositionError, match="is one of another stream"):
        open_stream(hub, f"{stream.name} 2").read(position)
    broken = [
        "",
        "nonsense",
        position[:-1],
        position[1:],
        position + "A",
        position + "=",
        position.swapcase(),
        position + " ",
        "é",
        "A" * 5000,
    ]
    for text in broken:
        with pytest.raises(PositionError, match="is not a position, or not a whole one"):
            stream.read(text)
    for number in range(0, len(position), 7):
        other = "A" if position[number] != "A" else "B"
        with pytest.raises(PositionError):
            stream.read(position[:number] + other + position[number + 1 :])
    for wrong in (None, 17, position.encode()):
        with pytest.raises(TypeError, match="a position is a str, BEGINNING or END"):
            stream.read(wrong)


# -- the protocol of all that receives


def test_without_following_it_comes_to_an_end(stream: AnyStream) -> None:
    assert everything(stream) == []
    stream.append_many(words(3))
    with stream.read(follow=False) as reader:
        assert following(reader, 3) == words(3)
        with pytest.raises(SubscriptionClosed, match="the reader has come to the end"):
            reader.get(PATIENCE)
        with pytest.raises(StopIteration):
            next(reader)
        with pytest.raises(SubscriptionClosed):
            reader.get_nowait()
        position = reader.position
    stream.append("later")
    assert all_payloads(stream, position) == ["later"]
    assert all_payloads(stream, END) == []


def test_get_waits_as_long_as_it_is_told(stream: AnyStream) -> None:
    with stream.read() as reader:
        begin = time.monotonic()
        with pytest.raises(TimeoutError):
            reader.get(timeout=0.05)
        assert time.monotonic() - begin < PATIENCE / 2
        with pytest.raises(TimeoutError):
            reader.get(timeout=0)
        assert reader.get_nowait() is None
        waiting = Worker(reader.get)
        stream.append("a")
        assert waiting.outcome().payload == "a"
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                reader.get(wrong)


def test_a_reader_is_used_while_it_is_entered_and_once(stream: AnyStream) -> None:
    reader = stream.read()
    assert reader.position is None
    for call in (partial(reader.get, 1), reader.get_nowait, partial(next, reader)):
        with pytest.raises(SubscriptionClosed, match=r"the reader is not open: .* `with stream.read\(...\) as reader`"):
            call()
    with reader:
        assert "open, 0 buffered" in repr(reader)
        stream.append("a")
        assert following(reader, 1) == ["a"]
    assert "closed" in repr(reader)
    for call in (lambda: reader.get(1), reader.get_nowait, lambda: reader.__enter__()):
        with pytest.raises(SubscriptionClosed):
            call()
    with pytest.raises(StopIteration):
        next(reader)
    reader.close()


def test_closing_ends_what_waits(stream: AnyStream) -> None:
    with stream.read() as reader:
        stream.append("a")
        assert following(reader, 1) == ["a"]
        get, iteration = Worker(reader.get), Worker(lambda: list(reader))
        reader.close()
        assert isinstance(get.outcome(), SubscriptionClosed)
        assert iteration.outcome() == []


def test_closing_the_hub_ends_iterations_when_they_have_what_is_buffered(
    new_hub: NewHub, installed: str, channel: str, admin: Admin
) -> None:
    insert(admin, channel, 1800)
    with new_hub() as hub:
        stream = open_stream(hub, channel)
        with stream.read() as reader, stream.read(END) as idle:
            waiting = Worker(lambda: list(idle))
            assert numbers(following(reader, 1)) == [0]
            hub.close()
            assert waiting.outcome() == []
            rest = [event.payload for event in list[Any](reader)]
            assert numbers(rest) == list(range(1, len(rest) + 1))
            assert len(rest) > 1000
            with pytest.raises(SubscriptionClosed):
                reader.get(1)


def test_two_fields_of_an_entry_and_what_it_is_equal_to(stream: AnyStream, hub: AnyHub, admin: Admin) -> None:
    stream.append("a", "k", {"h": 1})
    (entry,) = everything(stream)
    assert entry == everything(stream)[0]
    assert hash(entry) == hash(everything(stream)[0])
    assert entry != "a"
    assert repr(entry) == f"Entry({entry.id}, key='k', payload='a', headers={{'h': 1}})"
    now: Any = admin.execute("SELECT clock_timestamp()").fetchone()
    assert abs((now[0] - entry.appended_at).total_seconds()) < PATIENCE


# -- one reader for many


def test_those_who_share_a_reader_share_its_entries(stream: AnyStream) -> None:
    with stream.read() as reader:

        def take_all() -> list[str]:
            found = []
            while (event := reader.get(PATIENCE)).payload != "end":
                found.append(event.payload)
            return found

        workers = [Worker(take_all) for _ in range(8)]
        stream.append_many(words(2000))
        stream.append_many(["end"] * 8)
        shares = [worker.outcome() for worker in workers]
    assert Counter(text for share in shares for text in share) == Counter(words(2000))
    assert all(share == sorted(share, key=words(2000).index) for share in shares)


@ASYNC
def test_to_cancel_a_get_loses_nothing(new_hub: NewHub, installed: str, channel: str) -> None:
    async def main(hub: AsyncHub) -> list[Any]:
        stream = hub.stream(channel)
        found: list[Any] = []
        async with stream.read() as reader:
            appending = asyncio.create_task(append_all(stream))
            while len(found) < 300:
                tasks: list[Any] = [asyncio.create_task(reader.get()) for _ in range(5)]
                await asyncio.wait(tasks, timeout=0.002)
                for task in tasks[::2]:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks[::2], return_exceptions=True)
                found += [one.payload for one in outcomes if isinstance(one, Entry)]
                for task in tasks[1::2]:
                    if len(found) < 300 or task.done():
                        found.append((await task).payload)
                    else:
                        task.cancel()
            await appending
        return found

    async def append_all(stream: Any) -> None:
        for text in words(310):
            await stream.append(text)

    with new_hub() as hub:
        assert isinstance(hub, Covered)
        found = hub.loop.run(main(hub.hub))
    assert Counter(found) == Counter(words(310)[: len(found)])


# -- how much


def test_more_than_several_pages(stream: AnyStream, admin: Admin) -> None:
    insert(admin, stream.name, 10_000)
    assert numbers(all_payloads(stream)) == list(range(10_000))
    with stream.read() as reader:
        first = [reader.get(PATIENCE) for _ in range(4321)]
        position = reader.position
    assert numbers([entry.payload for entry in first]) == list(range(4321))
    assert position == first[-1].position
    with stream.read(position) as reader:
        assert numbers(following(reader, 5679)) == list(range(4321, 10_000))
        stream.append("10000")
        assert following(reader, 1) == ["10000"]


def test_large_entries_come_a_few_at_a_time(stream: AnyStream, admin: Admin) -> None:
    size = 3 << 20
    insert(admin, stream.name, 20, size)
    with stream.read() as reader:
        for number in range(20):
            (payload,) = following(reader, 1)
            assert numbers([payload]) == [number]
            assert len(payload) >= size
    (last,) = everything(stream)[-1:]
    assert all_payloads(stream, last.position) == []


def test_pages_that_end_anywhere_bring_everything_once(stream: AnyStream, admin: Admin, installed: str) -> None:
    """Of entries of very different lengths, while a transaction is open whose entries are among them."""
    sizes = [1, 2 << 20, 1, 1, 5 << 20, 1, 3 << 20, 1 << 20, 1, 4 << 20, 1]
    with psycopg.connect(installed) as connection:
        for number, size in enumerate(sizes):
            payload = "x" * (size - 1) + str(number)
            stream.append(payload)
            pgpubsub.append(connection, stream.name, payload)
        entries = everything(stream)
        assert numbers([entry.payload for entry in entries]) == list(range(len(sizes)))
        middle = entries[4].position
        connection.commit()
    later = numbers(all_payloads(stream, middle))
    assert Counter(later) == Counter([*range(len(sizes)), *range(5, len(sizes))])
    assert numbers(all_payloads(stream)) == [number for number in range(len(sizes)) for _ in range(2)]


def test_one_follows_while_many_append(stream: AnyStream, installed: str, admin: Admin) -> None:
    def append(caller: int) -> None:
        with psycopg.connect(installed) as connection:
            for number in range(30):
                pgpubsub.append(connection, stream.name, f"{caller} {number}")
                (connection.rollback if number % 5 == 4 else connection.commit)()

    def append_over_the_hub(caller: int) -> None:
        for number in range(60):
            stream.append(f"{caller} {number}")

    with stream.read() as reader:
        workers = [Worker(partial(append, caller)) for caller in range(6)]
        workers += [Worker(partial(append_over_the_hub, caller)) for caller in range(6, 12)]
        found = following(reader, 6 * 24 + 6 * 60)
        assert [worker.outcome() for worker in workers] == [None] * 12
        assert reader.get_nowait() is None
    assert Counter(found) == Counter(payloads_of(admin, stream.name))
    for caller in range(12):
        own = [int(text.split()[1]) for text in found if text.split()[0] == str(caller)]
        assert own == sorted(own), "in the order in which it was appended"


def test_readers_stop_and_go_on_and_get_every_entry_once(stream: AnyStream, installed: str, admin: Admin) -> None:
    def append(caller: int) -> None:
        with psycopg.connect(installed) as connection:
            for number in range(40):
                for part in range(3):
                    pgpubsub.append(connection, stream.name, f"{caller} {number} {part}")
                connection.commit()

    workers = [Worker(partial(append, caller)) for caller in range(6)]
    found: list[str] = []
    position: Any = BEGINNING
    for count in range(1, 1000):
        with stream.read(position) as reader:
            for _ in range(count):
                if len(found) < 720:
                    found += following(reader, 1)
            position = reader.position
        if len(found) == 720:
            break
    assert [worker.outcome() for worker in workers] == [None] * 6
    assert Counter(found) == Counter(payloads_of(admin, stream.name))
    assert all_payloads(stream, position) == []


@ASYNC
def test_readers_of_many_streams_share_a_few_connections(
    new_hub: NewHub, installed: str, channel: str, admin: Admin
) -> None:
    async def main(hub: AsyncHub) -> list[str]:
        streams = [hub.stream(f"{channel} {number}") for number in range(200)]
        readers = [stream.read() for stream in streams]
        await asyncio.gather(*[reader.__aenter__() for reader in readers])
        gets: list[Any] = [asyncio.create_task(reader.get(PATIENCE)) for reader in readers]
        await asyncio.gather(*[stream.append(stream.name) for stream in streams])
        found = [(await get).payload for get in gets]
        counts.update({role: len(backends(admin, role)) for role in ("listen", "notify", "append", "read")})
        for reader in readers:
            reader.close()
        return found

    counts: dict[str, int] = {}
    before = {role: len(backends(admin, role)) for role in ("listen", "notify", "append", "read")}
    with new_hub() as hub:
        assert isinstance(hub, Covered)
        assert hub.loop.run(main(hub.hub)) == [f"{channel} {number}" for number in range(200)]
    more = {role: counts[role] - before[role] for role in counts}
    assert more["listen"] == more["notify"] == more["append"] == 1
    assert 1 <= more["read"] <= 4


# -- what breaks


@pytest.mark.parametrize("role", ["listen", "notify", "append", "read"])
def test_a_connection_that_is_ended_is_no_loss(stream: AnyStream, admin: Admin, role: str) -> None:
    """Nor is it a gap: the reader goes on over another one."""
    with stream.read() as reader:
        stream.append("before")
        assert following(reader, 1) == ["before"]
        for _ in range(3):
            for pid in backends(admin, role):
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
            pgpubsub.append(admin, stream.name, "meanwhile")
            assert following(reader, 1) == ["meanwhile"]
    assert all_payloads(stream) == ["before", *["meanwhile"] * 3]


def test_whatever_breaks_again_and_again_nothing_is_lost_and_nothing_comes_twice(
    stream: AnyStream, installed: str, admin: Admin
) -> None:
    insert(admin, stream.name, 6000)
    found: list[int] = []
    with stream.read() as reader:
        for number in range(10):
            found += numbers(following(reader, 600))
            for pid in backends(admin, "read") + (backends(admin, "listen") if number % 3 else []):
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
    assert found == list(range(6000))


def test_what_nobody_told_it_of_is_found_by_the_poll(hub: AnyHub, installed: str, channel: str, admin: Admin) -> None:
    with open_stream(hub, channel, poll_interval=0.1).read() as reader:
        for _ in range(3):
            insert(admin, channel, 2)
            assert numbers(following(reader, 2)) == [0, 1]


def test_many_who_poll_for_many_streams_all_find_theirs(
    new_hub_of: NewHub, installed: str, channel: str, admin: Admin
) -> None:
    with new_hub_of("Hub") as hub:
        readers = [open_stream(hub, f"{channel} {number}", poll_interval=0.1).read() for number in range(50)]
        for reader in readers:
            reader.__enter__()
        for number in range(50):
            insert(admin, f"{channel} {number}", 1)
        assert [numbers(following(reader, 1)) for reader in readers] == [[0]] * 50
        for reader in readers:
            reader.close()


def test_when_hints_do_not_arrive_the_poll_finds_it(
    gate: Gate, new_hub: NewHub, installed: str, channel: str, admin: Admin
) -> None:
    """The connection that listens leads through a gate that lets nothing through."""
    with new_hub(gate.dsn(), notify_conninfo=installed, heartbeat=None) as hub:
        stream = open_stream(hub, channel, poll_interval=0.1, read_conninfo=installed)
        with stream.read() as reader, gate.shut():
            for text in words(3):
                stream.append(text)
                assert following(reader, 1) == [text]


def test_a_hub_that_is_not_live_says_so_in_time(gate: Gate, new_hub: NewHub, installed: str, channel: str) -> None:
    with new_hub(gate.dsn(), send_timeout=0.3) as hub:
        stream = open_stream(hub, channel)
        gate.refuse()
        gate.reset()
        for follow in (True, False):
            with pytest.raises(NotLive), stream.read(follow=follow):
                pass
        gate.accept()
        hub.wait_until_live(PATIENCE)


def test_reads_may_go_elsewhere(new_hub: NewHub, installed: str, channel: str, gate: Gate) -> None:
    with new_hub() as hub:
        for read_conninfo in (gate.dsn(), gate.dsn, lambda: gate.dsn()):
            stream = open_stream(hub, channel, read_conninfo=read_conninfo)
            before = gate.connections
            stream.append("a")
            assert all_payloads(stream)[-1] == "a"
            assert gate.connections > before
