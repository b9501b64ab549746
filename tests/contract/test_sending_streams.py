"""`notify_stream`, which sends without end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import psycopg
import pytest

from pgpubsub import AsyncHub, Closed, PayloadError
from tests.contract.faces import ASYNC_KINDS, AnyHub, Covered, Worker, unsettled
from tests.contract.sending import Foreign, Gate, arrived, numbered, numbers, transactions
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ASYNC = pytest.mark.parametrize("hub_kind", ASYNC_KINDS)

PIECE = 1000
"""Notifications that `notify_stream` sends in one transaction, at most."""


def stream(
    hub: AnyHub, pairs: Iterable[Any], on_progress: Callable[[int], object] | None = None, *, sync: bool = True
) -> int:
    """Send a stream of a plain iterable, or of the same as an asynchronous one."""
    if sync:
        return hub.notify_stream(pairs, on_progress=on_progress)
    assert isinstance(hub, Covered)
    return hub.loop.run(hub.hub.notify_stream(asynchronous(pairs), on_progress=on_progress))


async def asynchronous(pairs: Iterable[Any]) -> AsyncIterator[Any]:
    for pair in pairs:
        await asyncio.sleep(0)
        yield pair


SORTS = [*[(kind, True) for kind in ("Hub", *ASYNC_KINDS)], *[(kind, False) for kind in ASYNC_KINDS]]

EVERY_SORT = pytest.mark.parametrize(
    ("hub_kind", "sync"), SORTS, ids=[f"{kind}, {'plain' if sync else 'asynchronous'}" for kind, sync in SORTS]
)
"""Every kind of hub, and of iterable that it takes."""


@EVERY_SORT
def test_a_stream_is_sent_in_pieces_and_taken_as_it_is_sent(
    quiet: AnyHub, admin: Admin, foreign: Foreign, channel: str, sync: bool
) -> None:
    taken = 0
    progress: list[tuple[int, int]] = []

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal taken
        for text in numbers(2500):
            taken += 1
            yield channel, text

    before = transactions(admin)
    assert stream(quiet, pairs(), lambda sent: progress.append((sent, taken)), sync=sync) == 2500
    assert progress == [(1000, 1000), (2000, 2000), (2500, 2500)]
    assert transactions(admin) - before in (3, 4)
    foreign.look()
    assert foreign.joined == numbered(channel, 2500)
    assert all(not payload.startswith("pgpubsub/") for payload in foreign.payloads)
    assert quiet.stats().sent == 2500


@EVERY_SORT
def test_a_stream_of_long_payloads_is_sent_in_pieces_of_a_mebibyte(quiet: AnyHub, channel: str, sync: bool) -> None:
    """So that not many of them are in memory."""
    taken = 0
    progress: list[tuple[int, int]] = []

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield channel, str(number) * (300 << 10)

    assert stream(quiet, pairs(), lambda sent: progress.append((sent, taken)), sync=sync) == 40
    assert len(progress) > 5
    assert all(taken - sent <= 4 for sent, taken in progress)


@EVERY_SORT
def test_a_stream_may_have_repetitions_and_be_empty(hub: AnyHub, foreign: Foreign, channel: str, sync: bool) -> None:
    assert stream(hub, [], sync=sync) == 0
    progress: list[int] = []
    assert stream(hub, [], progress.append, sync=sync) == 0
    assert progress == []
    assert stream(hub, [(channel, "same")] * 1500, sync=sync) == 1500
    assert arrived(hub, channel, foreign) == ["same"] * 1500
    assert foreign.payloads[0] == foreign.payloads[PIECE] == "same"


@EVERY_SORT
@pytest.mark.parametrize("count", [0, 500, 1000, 2300])
def test_an_error_of_the_iterable_comes_after_what_came_before_it(
    hub: AnyHub, foreign: Foreign, channel: str, sync: bool, count: int
) -> None:
    def failing() -> Iterator[tuple[str, str]]:
        yield from numbered(channel, count)
        raise ZeroDivisionError("the user's own")

    progress: list[int] = []
    with pytest.raises(ZeroDivisionError, match="the user's own") as caught:
        stream(hub, failing(), progress.append, sync=sync)
    assert caught.value.__notes__ == [f"{count} notifications had been sent before."]
    assert progress[-1:] == ([count] if count else [])
    assert arrived(hub, channel, foreign) == numbers(count)


@EVERY_SORT
@pytest.mark.parametrize("count", [0, 500, 1000, 2300])
def test_a_bad_pair_of_a_stream_is_an_error_after_what_came_before_it(
    hub: AnyHub, foreign: Foreign, channel: str, sync: bool, count: int
) -> None:
    pairs = [*numbered(channel, count), (channel, None), *numbered(channel, 10)]
    with pytest.raises(TypeError, match="is a str, not NoneType") as caught:
        stream(hub, pairs, sync=sync)
    notes = [f"This was pair number {count + 1}.", f"{count} notifications had been sent before."]
    assert caught.value.__notes__ == notes
    assert arrived(hub, channel, foreign) == numbers(count)


@EVERY_SORT
def test_a_piece_of_a_stream_that_is_refused_ends_it(
    new_hub: NewHub, dsn: str, foreign: Foreign, channel: str, sync: bool
) -> None:
    taken: list[int] = []

    def pairs() -> Iterator[tuple[str, str]]:
        for number in range(100_000):
            taken.append(number)
            yield channel, "日本" if number == 1500 else str(number)

    with new_hub(dsn, client_encoding="LATIN1") as hub:
        with pytest.raises(PayloadError, match="client_encoding cannot express it") as caught:
            stream(hub, pairs(), sync=sync)
        assert caught.value.__notes__ == ["1000 notifications had been sent before."]
        assert len(taken) <= 2000
        assert arrived(hub, channel, foreign) == numbers(1000)


@EVERY_SORT
def test_what_on_progress_raises_ends_a_stream(hub: AnyHub, foreign: Foreign, channel: str, sync: bool) -> None:
    def stop(sent: int) -> None:
        raise InterruptedError(sent)

    with pytest.raises(InterruptedError, match="1000") as caught:
        stream(hub, numbered(channel, 5000), stop, sync=sync)
    assert caught.value.__notes__ == ["1000 notifications had been sent before."]
    assert arrived(hub, channel, foreign) == numbers(1000)


@ASYNC
@pytest.mark.parametrize("sync", [True, False])
def test_a_stream_that_is_cancelled_has_sent_whole_pieces(
    new_hub: NewHub, dsn: str, foreign: Foreign, channel: str, sync: bool
) -> None:
    """Cancelled while its third piece is in flight: that is sent once, and nothing after it."""
    ended: list[str] = []

    async def pairs() -> AsyncIterator[tuple[str, str]]:
        try:
            for pair in numbered(channel, 100_000):
                yield pair
        finally:
            ended.append("it")

    async def main(hub: AsyncHub, gate: Gate) -> None:
        def on_progress(sent: int) -> None:
            if sent == 2 * PIECE:
                gate.deafen()

        given = numbered(channel, 100_000) if sync else pairs()
        sending = asyncio.create_task(hub.notify_stream(given, on_progress=on_progress))
        while not (hub.stats().sent == 2 * PIECE and hub._engine._sender._core.in_flight):
            await asyncio.sleep(0.001)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert unsettled(hub) == 0
        gate.hear(resume=True)
        await asyncio.sleep(0)

    with Gate(dsn) as gate, gate.hub(new_hub, dsn) as hub:
        assert isinstance(hub, Covered)
        hub.loop.run(main(hub.hub, gate))
        assert arrived(hub, channel, foreign) == numbers(3 * PIECE)
        assert hub.stats().sent == 3 * PIECE + 1
    if not sync:
        eventually(lambda: ended == ["it"])


def test_two_hundred_thousand_arrive(hub: AnyHub, foreign: Foreign, channel: str) -> None:
    """And single ones of others come in between."""
    done = threading.Event()

    def send_others() -> int:
        count = 0
        while not done.is_set():
            hub.notify(channel, "another's")
            count += 1
        return count

    sending = Worker(send_others)
    progress: list[int] = []
    assert hub.notify_stream(((channel, str(n)) for n in range(200_000)), on_progress=progress.append) == 200_000
    done.set()
    assert progress == list(range(PIECE, 200_001, PIECE))
    received = arrived(hub, channel, foreign)
    assert [text for text in received if text != "another's"] == numbers(200_000)
    assert len(received) - 200_000 == sending.outcome()


def test_closing_the_hub_ends_a_stream(hub: AnyHub, foreign: Foreign, channel: str, dsn: str) -> None:
    """What the error says was sent was sent, and nothing else."""
    progress: list[int] = []
    sending = Worker(lambda: hub.notify_stream(endless(channel), on_progress=progress.append))
    eventually(lambda: len(progress) >= 3)
    hub.close()
    error = sending.outcome()
    assert isinstance(error, Closed)
    assert error.__notes__ == [f"{progress[-1]} notifications had been sent before."]
    with psycopg.connect(dsn, autocommit=True) as sender:
        sender.execute("SELECT pg_notify(%s, 'end')", [channel])
    assert foreign.until("end") == [*numbers(progress[-1]), "end"]


def endless(channel: str) -> Iterator[tuple[str, str]]:
    number = 0
    while True:
        yield channel, str(number)
        number += 1
