"""What becomes of single notifications that many send at the same time. A gate before the server makes it so."""

from __future__ import annotations

import asyncio
import select
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgpubsub import AsyncHub, Closed, GaveUp, PayloadError, SendUncertain, ServerRefused
from tests.contract.faces import ASYNC_KINDS, PATIENCE, AnyHub, Covered, Worker, payloads, take, together, unsettled
from tests.contract.sending import Foreign, Gate, arrived, begin, begin_all, in_flight, transactions, wait_until, words
from tests.contract.test_handler import eventually

Admin = psycopg.Connection[Any]
NewHub = Callable[..., AnyHub]

ASYNC = pytest.mark.parametrize("hub_kind", ASYNC_KINDS)


# -- together


def test_what_waits_goes_out_in_one_statement(
    gated: AnyHub, gate: Gate, admin: Admin, foreign: Foreign, channel: str
) -> None:
    before = transactions(admin)
    with gate.shut():
        workers = begin_all(gated, channel, words(101))
    assert [worker.outcome() for worker in workers] == [None] * 101
    assert transactions(admin) - before in (2, 3)  # the first, the others, and maybe the server's own
    assert foreign.until("good 100") == words(101)
    assert gated.stats().sent == 101


def test_threads_and_tasks_share_a_hub_and_its_statements(
    gate: Gate, new_hub_of: NewHub, dsn: str, admin: Admin, foreign: Foreign, channel: str
) -> None:
    with gate.hub(partial(new_hub_of, "Hub"), dsn) as any_hub:
        hub: Any = any_hub
        before = transactions(admin)

        async def several() -> list[object]:
            return list(await asyncio.gather(*[hub.notify_async(channel, f"task {n}") for n in range(50)]))

        with gate.shut():
            workers = begin_all(hub, channel, words(50))
            loop = Worker(lambda: asyncio.run(several()))
            wait_until(lambda: unsettled(hub) == 100)
        assert [worker.outcome() for worker in workers] == [None] * 50
        assert loop.outcome() == [None] * 50
        assert transactions(admin) - before in (2, 3)
        hub.notify(channel, "end")
        assert sorted(foreign.until("end")) == sorted([*words(50), *[f"task {n}" for n in range(50)], "end"])


def test_a_task_that_sends_through_the_hub_of_threads_may_be_cancelled(
    gate: Gate, new_hub_of: NewHub, dsn: str, foreign: Foreign, channel: str
) -> None:
    async def give_up(hub: Any) -> None:
        async with asyncio.timeout(0.01):
            await hub.notify_async(channel, "late")

    with gate.hub(partial(new_hub_of, "Hub"), dsn) as any_hub:
        hub: Any = any_hub
        with gate.shut():
            first = begin(hub, lambda: hub.notify(channel, "first"))
            with pytest.raises(TimeoutError):
                asyncio.run(give_up(hub))
        assert first.outcome() is None
        hub.notify(channel, "end")
        assert foreign.until("end") == ["first", "end"]
        hub.close()
        with pytest.raises(Closed):
            asyncio.run(hub.notify_async(channel, "too late"))


def test_a_call_on_its_own_goes_out_at_once(gated: AnyHub, admin: Admin, channel: str) -> None:
    before = transactions(admin)
    for text in words(5):
        gated.notify(channel, text)
    assert transactions(admin) - before in (5, 6)


@pytest.mark.parametrize("position", [1, 25, 51])
def test_of_many_the_one_that_cannot_be_encoded_fails_alone(
    gate: Gate, new_hub: NewHub, dsn: str, foreign: Foreign, channel: str, position: int
) -> None:
    texts = words(52)
    texts[position] = "日本"
    with gate.hub(new_hub, dsn, client_encoding="LATIN1") as hub:
        with gate.shut():
            workers = begin_all(hub, channel, texts)
        outcomes = [worker.outcome() for worker in workers]
        bad = outcomes.pop(position)
        assert isinstance(bad, PayloadError)
        assert f"NOTIFY '{channel}': the connection's client_encoding cannot express it" in str(bad)
        assert outcomes == [None] * 51
        hub.notify(channel, "end")
        texts[position : position + 1] = []
        assert foreign.until("end") == [*texts, "end"]
        assert hub.stats().sent == 52


def test_in_a_storm_of_equal_calls_each_has_its_own_outcome(
    new_hub: NewHub, dsn: str, latin1: str, channel: str
) -> None:
    """They go out in one round trip, in transactions of their own. Some contain what the database cannot express."""
    texts = ["", "wake", "日本", "wake", "é", *["wake", "日本", "wake"] * 10, "", "日本"]
    there = make_conninfo(dsn, dbname=latin1)
    with Gate(there) as gate, Foreign(there, channel) as foreign, gate.hub(new_hub, there) as hub:
        with gate.shut():
            workers = begin_all(hub, channel, texts)
        outcomes = [worker.outcome() for worker in workers]
        assert [type(outcome) for outcome in outcomes] == [
            ServerRefused if text == "日本" else type(None) for text in texts
        ]
        hub.notify(channel, "end")
        good = [text for text in texts if text != "日本"]
        assert Counter(foreign.until("end")) == Counter([*good, "end"])
        assert hub.stats().reconnects == 0


def test_equal_calls_that_nobody_can_encode_fail_and_leave_the_hub_usable(
    gate: Gate, new_hub: NewHub, dsn: str, foreign: Foreign, channel: str
) -> None:
    with gate.hub(new_hub, dsn, client_encoding="LATIN1") as hub:
        with gate.shut():
            workers = begin_all(hub, channel, ["first", *["日本"] * 20])
        assert [type(worker.outcome()) for worker in workers] == [type(None), *[PayloadError] * 20]
        hub.notify(channel, "end")
        assert foreign.until("end") == ["first", "end"]


def test_of_many_those_that_the_server_refuses_fail_alone(new_hub: NewHub, dsn: str, latin1: str, channel: str) -> None:
    """Its database cannot express them: in a payload, in a channel's name, or in one part of many."""
    texts = words(50)
    texts[10] = "日本"
    texts[33] = "x" * 20_000 + "日本"
    there = make_conninfo(dsn, dbname=latin1)
    with Gate(there) as gate, Foreign(there, channel) as foreign, gate.hub(new_hub, there) as hub:
        with gate.shut():
            workers = begin_all(hub, channel, texts)
            workers.insert(40, begin(hub, lambda: hub.notify("日本", "on a channel")))
            workers.append(begin(hub, lambda: hub.notify_many([(channel, "1"), (channel, "日本"), (channel, "2")])))
        outcomes = [worker.outcome() for worker in workers]
        for position in (51, 40, 33, 10):
            error = outcomes.pop(position)
            assert isinstance(error, ServerRefused)
            assert error.sqlstate == "22P05"
            assert error.__cause__ is not None
        assert outcomes == [None] * 48
        hub.notify(channel, "end")
        good = [text for text in texts if text.startswith("good")]
        assert foreign.until("end") == [*good, "end"]
        assert hub.stats().sent == 49


def test_a_callers_own_order_holds_over_the_failures_of_others(
    new_hub: NewHub, dsn: str, foreign: Foreign, channel: str
) -> None:
    """Many send what cannot be encoded now and then, so that what goes out together is divided all the time."""

    def send(caller: int) -> list[int]:
        refused = []
        for number in range(50):
            text = f"{caller} {number}"
            try:
                hub.notify(channel, f"日本 {text}" if (number + caller) % 7 == 0 else text)
            except PayloadError:
                refused.append(number)
        return refused

    with new_hub(dsn, client_encoding="LATIN1") as hub:
        outcomes = together([partial(send, caller) for caller in range(20)])
        hub.notify(channel, "end")
    received = foreign.until("end")
    for caller, refused in enumerate(outcomes):
        assert refused == [number for number in range(50) if (number + caller) % 7 == 0]
        sent = [f"{caller} {number}" for number in range(50) if number not in refused]
        assert [text for text in received if text.split()[0] == str(caller)] == sent
    assert len(received) == sum(50 - len(refused) for refused in outcomes) + 1


@ASYNC
def test_tasks_send_in_the_order_in_which_they_were_made(
    new_hub: NewHub, dsn: str, foreign: Foreign, channel: str
) -> None:
    texts = [f"日本 {number}" if number % 5 == 1 else f"good {number}" for number in range(3000)]

    async def main(hub: AsyncHub) -> list[object]:
        return await asyncio.gather(*[hub.notify(channel, text) for text in texts], return_exceptions=True)

    with new_hub(dsn, client_encoding="LATIN1") as hub:
        assert isinstance(hub, Covered)
        outcomes = hub.loop.run(main(hub.hub))
        hub.notify(channel, "end")
    assert foreign.until("end") == [*[text for text in texts if text.startswith("good")], "end"]
    assert [type(outcome) for outcome in outcomes] == [
        PayloadError if text.startswith("日本") else type(None) for text in texts
    ]


# -- equal ones


def test_what_many_send_alike_arrives_as_often_and_as_plain_text(
    gated: AnyHub, gate: Gate, foreign: Foreign, channel: str
) -> None:
    """The server merges equal notifications of a transaction."""
    with gated.subscribe(channel) as events:
        with gate.shut():
            workers = begin_all(gated, channel, ["same", "same", "other", "same", *["same", ""] * 20, "other"])
        assert [worker.outcome() for worker in workers] == [None] * 45
        gated.notify(channel, "end")
        expected = Counter({"same": 23, "other": 2, "": 20, "end": 1})
        assert Counter(payloads(take(events, 46))) == expected
    assert Counter(foreign.until("end")) == expected


def test_equal_texts_from_many_at_once_and_for_long(gated: AnyHub, foreign: Foreign, channel: str) -> None:
    def send() -> None:
        for _ in range(30):
            gated.notify(channel, "same")

    assert together([send] * 20) == [None] * 20
    gated.notify(channel, "end")
    assert foreign.until("end") == ["same"] * 600 + ["end"]


# -- connections that break


@pytest.mark.parametrize("hub_kind", ["AsyncHub on asyncio"])  # uvloop may be silent about a reset
def test_what_cannot_be_handed_over_any_more_is_not_taken_for_sent(
    gated: Covered, gate: Gate, foreign: Foreign, channel: str
) -> None:
    """The answer to what went before is there, and the connection broken; what comes next is so long that this shows
    while it is written, and not only when its answer is waited for."""

    async def main(hub: AsyncHub) -> None:
        connection: Any = hub._engine._sending.connection
        with gate.shut():
            tasks = [await in_flight(hub, channel, "first")]
            tasks += [asyncio.create_task(hub.notify(channel, text)) for text in ("second " * 5000, *words(3))]
            await asyncio.sleep(0)
        assert select.select([connection._wire.fd], [], [], PATIENCE)[0]  # the loop stands still
        gate.reset()
        first, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert first is None
        assert [type(outcome) for outcome in others] == [SendUncertain] * 4

    gated.loop.run(main(gated.hub))
    assert arrived(gated, channel, foreign) == ["first"]
    assert gated.stats().sent == 2


@ASYNC
def test_when_the_hub_gives_up_those_among_what_is_being_refused_are_told_too(
    new_hub: NewHub, dsn: str, gate: Gate, channel: str
) -> None:
    """What was refused together would have been divided and sent again."""

    async def keep_sending(hub: AsyncHub, sender: int) -> GaveUp:
        while True:
            try:
                await hub.notify(channel, f"日本 {sender}")
            except PayloadError:
                pass
            except GaveUp as error:
                return error

    async def main(hub: AsyncHub) -> list[GaveUp]:
        gate.refuse()
        gate.reset()
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*[keep_sending(hub, sender) for sender in range(300)])

    with new_hub(gate.dsn(), notify_conninfo=dsn, client_encoding="LATIN1", give_up_after=0.5) as hub:
        assert isinstance(hub, Covered)
        assert len({id(error) for error in hub.loop.run(main(hub.hub))}) == 300


# -- the end


def test_what_waits_is_sent_before_the_hub_closes(
    gated: AnyHub, gate: Gate, foreign: Foreign, channel: str, dsn: str
) -> None:
    with gate.shut():
        workers = begin_all(gated, channel, words(20))
        closing = Worker(partial(gated.close, 20))
        eventually(lambda: isinstance(refusal(gated.subscribe().__enter__), Closed))
    assert closing.outcome() is None
    assert [worker.outcome() for worker in workers] == [None] * 20
    with psycopg.connect(dsn, autocommit=True) as sender:
        sender.execute("SELECT pg_notify(%s, 'end')", [channel])
    assert foreign.until("end") == [*words(20), "end"]
    assert gated.stats().sent == 20


def refusal(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def test_closing_without_patience_tells_each_what_became_of_it(
    gated: AnyHub, gate: Gate, foreign: Foreign, channel: str, dsn: str
) -> None:
    gate.deafen()
    first, *others = begin_all(gated, channel, words(5))
    gated.close(0)
    assert isinstance(first.outcome(), SendUncertain)
    assert [type(worker.outcome()) for worker in others] == [Closed] * 4
    gate.hear(resume=True)
    with psycopg.connect(dsn, autocommit=True) as sender:
        sender.execute("SELECT pg_notify(%s, 'end')", [channel])
    assert set(foreign.until("end")) <= {"good 0", "end"}
