"""`notify_many`, which sends all in one transaction or none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgpubsub import AsyncHub, Channel, ChannelNameError, Gap, Hub, Notify, PayloadError, PayloadTooLarge, ServerRefused
from tests.contract.faces import ASYNC_KINDS, AnyHub, Covered, CoveredEvents, Events, payloads, take, together
from tests.contract.interruptions import every_moment
from tests.contract.sending import Foreign, arrived, numbered, numbers, transactions
from tests.contract.test_handler import eventually
from tests.contract.test_hub_threads import interrupted

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ASYNC = pytest.mark.parametrize("hub_kind", ASYNC_KINDS)

PIECE = 1000
"""Notifications that `notify_stream` sends in one transaction, at most."""


def test_many_go_out_in_one_transaction_as_plain_text(
    quiet: AnyHub, admin: Admin, foreign: Foreign, channel: str
) -> None:
    before = transactions(admin)
    assert quiet.notify_many(numbered(channel, 5000)) == 5000
    assert transactions(admin) - before in (1, 2)
    foreign.look()
    assert foreign.payloads == numbers(5000)
    assert quiet.stats().sent == 5000


def test_repetitions_arrive_as_often_as_they_are_given_and_in_order(
    hub: AnyHub, foreign: Foreign, new_channel: Callable[[], str], channel: str
) -> None:
    """The first is plain text for everybody; the others are frames, which only this package understands."""
    other = new_channel()
    texts = ["a", "b", "a", "", "a", "", "x" * 8000, "x" * 8000, "b"]
    pairs = [pair for text in texts for pair in ((channel, text), (other, text))]
    with hub.subscribe(channel) as events, hub.subscribe(other) as others:
        assert hub.notify_many(pairs) == 18
        assert payloads(take(events, 9)) == payloads(take(others, 9)) == texts
    assert arrived(hub, channel, foreign) == texts
    plain = [payload for payload in foreign.payloads if not payload.startswith("pgpubsub/")]
    assert plain == ["a", "b", "", "end"]


def test_many_of_several_callers_do_not_mix(hub: AnyHub, foreign: Foreign, channel: str) -> None:
    def send(caller: int) -> None:
        for _ in range(5):
            hub.notify_many([(channel, f"{caller} {number % 5}") for number in range(50)])
            hub.notify(channel, f"{caller} alone")

    assert together([partial(send, caller) for caller in range(8)]) == [None] * 8
    received = arrived(hub, channel, foreign)
    assert len(received) == 8 * 5 * 51
    for caller in range(8):
        own = [text for text in received if text.startswith(f"{caller} ")]
        assert own == ([f"{caller} {number % 5}" for number in range(50)] + [f"{caller} alone"]) * 5
    begins = [
        at for at, text in enumerate(received) if text.endswith(" 0") and (at == 0 or received[at - 1][-1] != "4")
    ]
    for at in begins:
        assert len({text.split()[0] for text in received[at : at + 50]}) == 1, "somebody else's stands between"


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (("c", "x\0"), PayloadError, "NUL"),
        (("c", "x" * 101), PayloadTooLarge, "101 bytes and max_payload is 100"),
        (("x" * 64, "x"), ChannelNameError, "64 bytes"),
        (("", "x"), ChannelNameError, "empty"),
        (("c", None), TypeError, "the payload for channel 'c' is a str, not NoneType"),
        (("c", 7), TypeError, "encodes it, or convert it first"),
        ((b"c", "x"), TypeError, "a channel name is a str, not bytes"),
        (("c",), TypeError, r"notifications are pairs of a channel and a payload, not \('c',\)"),
        (("c", "x", "y"), TypeError, "notifications are pairs"),
        ("cxy", TypeError, "notifications are pairs of a channel and a payload, not 'cxy'"),
        (None, TypeError, "notifications are pairs of a channel and a payload, not None"),
        ((Channel("c", int), "seven"), PayloadError, "does not fit its type, int"),
    ],
)
@pytest.mark.parametrize("position", [0, 49])
def test_one_bad_pair_and_nothing_is_sent(
    new_hub: NewHub, foreign: Foreign, channel: str, bad: Any, error: type[Exception], words: str, position: int
) -> None:
    with new_hub(max_payload=100) as hub:
        pairs: list[Any] = numbered(channel, 49)
        pairs.insert(position, bad)
        with pytest.raises(error, match=words) as caught:
            hub.notify_many(pairs)
        assert caught.value.__notes__ == [f"This was pair number {position + 1}."]
        assert arrived(hub, channel, foreign) == []
        assert hub.stats().sent == 1


def test_what_the_server_refuses_is_not_sent_in_part(new_hub: NewHub, dsn: str, latin1: str, channel: str) -> None:
    there = make_conninfo(dsn, dbname=latin1)
    with new_hub(there) as hub, Foreign(there, channel) as foreign:
        with pytest.raises(ServerRefused) as caught:
            hub.notify_many([*numbered(channel, 1000), (channel, "日本")])
        assert caught.value.sqlstate == "22P05"
        assert arrived(hub, channel, foreign) == []
        assert hub.notify_many(numbered(channel, 10)) == 10


def test_what_goes_out_with_others_is_refused_as_a_whole_and_they_are_not(
    new_hub: NewHub, dsn: str, foreign: Foreign, channel: str
) -> None:
    def send_good(caller: int) -> None:
        for number in range(30):
            hub.notify(channel, f"good {caller} {number}")

    def send_bad() -> None:
        for number in range(30):
            with pytest.raises(PayloadError, match="client_encoding cannot express it"):
                hub.notify_many([(channel, f"bad {number}"), (channel, "日本")])

    with new_hub(dsn, client_encoding="LATIN1") as hub:
        outcomes = together([*[partial(send_good, caller) for caller in range(5)], *[send_bad] * 3])
        assert outcomes == [None] * 8
        received = arrived(hub, channel, foreign)
    assert sorted(received) == sorted(f"good {caller} {number}" for caller in range(5) for number in range(30))


def test_typed_pairs_are_encoded_and_wrong_ones_refused(hub: AnyHub, foreign: Foreign, channel: str) -> None:
    typed = Channel(channel, int)
    assert hub.notify_many([(typed, 1), (channel, "two"), (typed, 3)]) == 3
    with pytest.raises(PayloadError, match=f"the payload for channel '{channel}' does not fit its type, int") as caught:
        hub.notify_many([(typed, 1), (typed, "two")])
    assert caught.value.__notes__ == ["This was pair number 2."]
    assert arrived(hub, channel, foreign) == ["1", "two", "3"]


def test_many_may_be_none_at_all_or_come_from_a_generator(
    quiet: AnyHub, admin: Admin, foreign: Foreign, channel: str
) -> None:
    before = transactions(admin)
    empties: list[Iterable[tuple[str, str]]] = [[], (), iter(()), (("x", text) for text in "")]
    assert [quiet.notify_many(pairs) for pairs in empties] == [0] * 4
    assert transactions(admin) - before in (0, 1)
    assert quiet.notify_many((channel, text) for text in numbers(3)) == 3
    assert quiet.notify_many({channel: "a dictionary's items"}.items()) == 1
    assert arrived(quiet, channel, foreign) == [*numbers(3), "a dictionary's items"]


def test_an_error_of_the_iterables_own_is_raised_and_nothing_sent(hub: AnyHub, foreign: Foreign, channel: str) -> None:
    def failing() -> Iterator[tuple[str, str]]:
        yield channel, "1"
        raise ZeroDivisionError("the user's own")

    with pytest.raises(ZeroDivisionError, match="the user's own") as caught:
        hub.notify_many(failing())
    assert not hasattr(caught.value, "__notes__")
    assert arrived(hub, channel, foreign) == []


def test_a_hundred_thousand_arrive(hub: AnyHub, foreign: Foreign, channel: str) -> None:
    with hub.subscribe(channel, capacity=100_001) as events:
        assert hub.notify_many(numbered(channel, 100_000)) == 100_000
        eventually(lambda: events.stats().depth == 100_000)
        assert payloads(rest_of(events)) == numbers(100_000)
    foreign.look()
    assert foreign.payloads == numbers(100_000)


def rest_of(events: Events) -> list[Notify | Gap]:
    """What is in a buffer."""
    if not isinstance(events, CoveredEvents):
        return list(iter(events.get_nowait, None))
    get_nowait = events.events.get_nowait
    return events.loop.call(lambda: list(iter(get_nowait, None)))


@ASYNC
def test_other_tasks_run_while_many_are_prepared(hub: Covered, channel: str) -> None:
    async def main(hub: AsyncHub) -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())

        def pairs() -> Iterator[tuple[str, str]]:
            for number in range(100_000):
                seen.append(turns)
                yield channel, str(number)

        seen: list[int] = []
        await hub.notify_many(pairs())
        counting.cancel()
        return len(set(seen))

    assert hub.loop.run(main(hub.hub)) >= 20


def test_an_interruption_while_many_are_sent(dsn: str, foreign: Foreign, channel: str) -> None:
    """All of them were sent or none, and never twice."""
    with Hub(dsn) as hub:

        def scenario(moment: int) -> bool:
            del foreign.events[:]
            was_interrupted = interrupted(lambda: hub.notify_many([(channel, text) for text in "aba"]), moment)
            received = arrived(hub, channel, foreign)
            assert received == ["a", "b", "a"] or (was_interrupted and received == []), moment
            return was_interrupted

        every_moment(scenario)
