"""What is particular to `AsyncHub`: tasks that are cancelled, wherever they happen to wait, and event loops."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any

import psycopg
import pytest

from pgpubsub import (
    AsyncHub,
    AsyncSubscription,
    ConcurrentUse,
    Gap,
    HubStatus,
    Notify,
    PayloadError,
    PubSub,
    SubscriptionClosed,
)
from pgpubsub.aio.receiving import IN_A_ROW
from tests.contract import test_handler
from tests.contract.faces import ASYNC_KINDS, last_statement, listening_pid, new_loop, payloads
from tests.contract.interruptions import Cancellation, cancel, every_moment_async

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=ASYNC_KINDS)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a coroutine, and sees that nothing is left behind and nobody has complained."""
    errors: list[dict[str, Any]] = []

    async def watched(coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await coroutine
        gc.collect()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with asyncio.Runner(loop_factory=partial(new_loop, str(request.param))) as runner:
        yield lambda coroutine: runner.run(watched(coroutine))
    assert not errors


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def next_payload(events: AsyncSubscription) -> str:
    return payloads([await events.get(20)])[0]


@asynccontextmanager
async def sending(dsn: str) -> AsyncIterator[Callable[..., Coroutine[Any, Any, None]]]:
    """Somebody else, who sends numbers in one transaction."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:

        async def send(channel: str, count: int, first: int = 1) -> None:
            query = "SELECT pg_notify(%s, i::text) FROM generate_series(%s::int, %s) i"
            await connection.execute(query, [channel, first, first + count - 1])

        yield send


# -- at every place


def test_entering_the_hub(run: Run, dsn: str, channel: str) -> None:
    async def scenario(moment: int, when: str) -> bool:
        hub = AsyncHub(dsn)
        was_cancelled = await cancel(hub.__aenter__(), moment, when)
        assert hub.state.status is (HubStatus.CLOSED if was_cancelled else HubStatus.LIVE)
        await hub.close()
        return was_cancelled

    run(every_moment_async(scenario))


def test_waiting_until_it_is_live(run: Run, dsn: str, channel: str) -> None:
    """It goes on connecting: others may wait for it."""

    async def scenario(moment: int, when: str) -> bool:
        hub = AsyncHub(dsn)
        was_cancelled = await cancel(hub.wait_until_live(), moment, when)
        await hub.wait_until_live(20)
        async with hub.subscribe(channel) as events:
            await hub.notify(channel, "x")
            assert await next_payload(events) == "x"
        await hub.close()
        return was_cancelled

    run(every_moment_async(scenario))


@pytest.mark.parametrize("others", [False, True])
def test_entering_a_subscription(run: Run, dsn: str, new_channel: Callable[[], str], others: bool) -> None:
    """It is as if nobody had entered it, and others who want the same get it."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub:

            async def scenario(moment: int, when: str) -> bool:
                channel = new_channel()
                events = hub.subscribe(channel, new_channel())
                other = hub.subscribe(channel)
                entering = asyncio.create_task(other.__aenter__()) if others else None
                was_cancelled = await cancel(events.__aenter__(), moment, when)
                if was_cancelled:
                    assert events.channels == frozenset()
                    with pytest.raises(SubscriptionClosed):
                        events.get_nowait()
                if entering is None:
                    entering = asyncio.create_task(other.__aenter__())
                await entering
                assert len(hub.stats().subscriptions) == (1 if was_cancelled else 2)
                await hub.notify(channel, "x")
                assert await next_payload(other) == "x"
                other.close()
                events.close()
                assert hub.stats().subscriptions == ()
                return was_cancelled

            await every_moment_async(scenario)
            received = hub.stats().received
            await hub.notify("nobody listens to this")
            assert hub.stats().received == received

    run(main())


def test_adding_and_removing(run: Run, dsn: str, new_channel: Callable[[], str]) -> None:
    """A channel is subscribed to or it is not, and `channels` tells which."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe() as events:

            async def scenario(moment: int, when: str, remove: bool) -> bool:
                fence, channel = new_channel(), new_channel()
                await events.add(fence)
                if remove:
                    await events.add(channel)
                change = (events.remove if remove else events.add)(channel)
                was_cancelled = await cancel(change, moment, when)
                assert (channel in events.channels) is not (remove or was_cancelled)
                await hub.notify(channel, "x")
                await hub.notify(fence, "y")
                if channel in events.channels:
                    assert await next_payload(events) == "x"
                assert await next_payload(events) == "y"
                await events.remove(fence)
                await events.remove(channel)
                return was_cancelled

            await every_moment_async(partial(scenario, remove=False))
            await every_moment_async(partial(scenario, remove=True))

    run(main())


def test_two_who_add_the_same_of_whom_one_is_cancelled(run: Run, dsn: str, new_channel: Callable[[], str]) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe() as events:

            async def scenario(moment: int, when: str, first: bool) -> bool:
                channel = new_channel()
                if first:
                    cancelled = Cancellation(events.add(channel), moment, when)
                    await asyncio.sleep(0)
                    await events.add(channel)
                else:
                    staying = asyncio.create_task(events.add(channel))
                    cancelled = Cancellation(events.add(channel), moment, when)
                    await staying
                assert events.channels == {channel}
                await hub.notify(channel, "x")
                assert await next_payload(events) == "x"
                was_cancelled = await cancelled.end()
                assert events.channels == {channel}
                await events.remove(channel)
                return was_cancelled

            await every_moment_async(partial(scenario, first=True))
            await every_moment_async(partial(scenario, first=False))

    run(main())


@pytest.mark.parametrize("timeout", [None, 20])
def test_getting(run: Run, dsn: str, channel: str, timeout: float | None) -> None:
    """What it was about to return is the next one's."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events:

            async def scenario(moment: int, when: str) -> bool:
                received: list[Notify | Gap] = []

                async def get() -> None:
                    received.append(await events.get(timeout))

                getting = Cancellation(get(), moment, when)
                await asyncio.sleep(0)
                await hub.notify(channel, "1")
                await hub.notify(channel, "2")
                was_cancelled = await getting.end()
                while len(received) < 2:
                    received.append(await events.get(20))
                assert payloads(received) == ["1", "2"]
                assert events.get_nowait() is None
                return was_cancelled

            await every_moment_async(scenario)

    run(main())


def test_since_is_before_what_came_while_the_loop_was_busy(run: Run, dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel, capacity=2) as events:
            with psycopg.connect(dsn, autocommit=True) as conn:  # which lets the loop wait
                conn.execute("SELECT pg_notify(%s, number::text) FROM generate_series(0, 2) AS number", [channel])
                committed = datetime.now(UTC)
            gap = await events.get(20)
            assert isinstance(gap, Gap)
            assert (gap.reason, gap.count) == ("overflow", 2)
            assert gap.since < committed
            assert await next_payload(events) == "2"

    run(main())


def test_iterating(run: Run, dsn: str, channel: str) -> None:
    """It waits where there is nothing, and every now and then for the sake of others."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events, sending(dsn) as send:

            async def scenario(moment: int, when: str) -> bool:
                received: list[Notify | Gap] = []

                async def iterate() -> None:
                    while len(received) < 900:
                        async for event in events:
                            received.append(event)
                            if len(received) == 900:
                                break

                iterating = Cancellation(iterate(), moment, when)
                await asyncio.sleep(0)
                await send(channel, 600)
                await send(channel, 300, 601)
                was_cancelled = await iterating.end()
                while len(received) < 900:
                    received.append(await events.get(20))
                assert payloads(received) == [str(number) for number in range(1, 901)]
                return was_cancelled

            await every_moment_async(scenario)

    run(main())


def test_what_a_cancelled_task_was_woken_for_is_another_ones(run: Run, dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events:
            first = Cancellation(events.get(), 1, "when it has come")
            await asyncio.sleep(0)
            second = asyncio.create_task(events.get(20))
            await asyncio.sleep(0)
            await hub.notify(channel, "x")
            assert payloads([await second]) == ["x"]
            assert await first.end()

    run(main())


def test_what_a_cancelled_task_held_is_another_ones(run: Run, dsn: str, channel: str) -> None:
    """The one that iterates has taken an event and lets others run, one of whom finds nothing and waits."""

    async def main() -> None:
        count = IN_A_ROW + 1
        async with AsyncHub(dsn) as hub, hub.subscribe(channel, capacity=count) as events, sending(dsn) as send:
            received: list[Notify | Gap] = []

            async def iterate() -> None:
                async for event in events:
                    received.append(event)

            await send(channel, count)
            await eventually(lambda: events.stats().depth == count)
            iterating = Cancellation(iterate(), 1, "at once")
            waiting = asyncio.create_task(events.get(20))
            assert await iterating.end()
            received.append(await waiting)
            assert payloads(received) == [str(number) for number in range(1, count + 1)]

    run(main())


def test_sending(run: Run, dsn: str, new_channel: Callable[[], str]) -> None:
    """It was sent or it was not, and never twice; the next one is in order."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub:

            async def scenario(moment: int, when: str, ahead: int) -> bool:
                channel = new_channel()
                async with hub.subscribe(channel) as events:
                    before = [asyncio.create_task(hub.notify(channel, "before")) for _ in range(ahead)]
                    was_cancelled = await cancel(hub.notify(channel, "x"), moment, when)
                    await asyncio.gather(*before)
                    await hub.notify(channel, "after")
                    received: list[str] = []
                    while "after" not in received:
                        received.append(await next_payload(events))
                expected = [["before"] * ahead + ["x"] * times + ["after"] for times in (0, 1)]
                assert received == expected[1] or (was_cancelled and received == expected[0])
                return was_cancelled

            for ahead in (0, 3):
                await every_moment_async(partial(scenario, ahead=ahead))

    run(main())


def test_closing(run: Run, dsn: str, channel: str) -> None:
    """It goes on, and whoever waits for it next sees it done."""

    async def scenario(moment: int, when: str) -> bool:
        hub = await AsyncHub(dsn).__aenter__()
        events = await hub.subscribe(channel).__aenter__()
        iterating = asyncio.create_task(take_all(events))
        was_cancelled = await cancel(hub.close(), moment, when)
        await hub.close()
        assert hub.state.status is HubStatus.CLOSED
        assert await iterating == []
        return was_cancelled

    run(every_moment_async(scenario))


async def take_all(events: AsyncSubscription) -> list[Notify | Gap]:
    return [event async for event in events]


# -- anywhere


def test_leaving_by_cancellation_frees_everything(run: Run, dsn: str, channel: str) -> None:
    async def subscribe(hub: AsyncHub) -> None:
        async with hub.subscribe(channel) as events:
            await events.get()

    async def main() -> None:
        async with AsyncHub(dsn) as hub:
            tasks = [asyncio.create_task(subscribe(hub)) for _ in range(20)]
            await eventually(lambda: len(hub.stats().subscriptions) == 20)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() for task in tasks)
            assert hub.stats().subscriptions == ()

    run(main())


def test_timeouts_of_the_users_own_lose_nothing(run: Run, dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events, sending(dsn) as send:
            received: list[Notify | Gap] = []

            async def keep_sending() -> None:
                for first in range(1, 501, 5):
                    await send(channel, 5, first)

            sender = asyncio.create_task(keep_sending())
            async with asyncio.timeout(20):
                while len(received) < 500:
                    with suppress(TimeoutError):
                        received.append(await asyncio.wait_for(events.get(), 0.0002))
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.0002):
                            received.append(await anext(events))
            await sender
            assert payloads(received) == [str(number) for number in range(1, 501)]

    run(main())


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_among_tasks_that_come_and_are_cancelled(run: Run, dsn: str, channel: str, seed: int) -> None:
    chance = random.Random(seed)
    total = 1500

    async def main() -> None:
        received: list[Notify | Gap] = []
        async with AsyncHub(dsn) as hub, hub.subscribe(channel, capacity=total) as events, sending(dsn) as send:

            async def keep_sending() -> None:
                first = 1
                while first <= total:
                    count = min(chance.randint(1, 40), total + 1 - first)
                    await send(channel, count, first)
                    first += count

            sender = asyncio.create_task(keep_sending())
            async with asyncio.timeout(20):
                await come_and_go(events, received, total, chance)
            await sender
        assert Counter(payloads(received)) == Counter(str(number) for number in range(1, total + 1))

    run(main())


async def come_and_go(
    events: AsyncSubscription, received: list[Notify | Gap], total: int, chance: random.Random
) -> None:
    """Have tasks take what comes, a few at a time, each until it is cancelled."""

    async def get() -> None:
        while True:
            received.append(await events.get())

    async def iterate() -> None:
        async for event in events:
            received.append(event)

    tasks: list[asyncio.Task[None]] = []
    while len(received) < total:
        tasks.append(asyncio.create_task(chance.choice([get, iterate])()))
        if len(tasks) > 4:
            tasks.pop(chance.randrange(len(tasks))).cancel()
        for _ in range(chance.randint(0, 5)):
            await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_many_that_cannot_be_encoded_are_refused_one_after_the_other(run: Run, dsn: str, channel: str) -> None:
    """They wait behind one that can, and the next is taken up when the one before is done."""

    async def main() -> None:
        async with AsyncHub(dsn, client_encoding="LATIN1") as hub, hub.subscribe(channel) as events:
            sent = ["é", *["日本"] * 2000, "à"]
            outcomes = await asyncio.gather(*[hub.notify(channel, one) for one in sent], return_exceptions=True)
            assert [type(outcome) for outcome in outcomes[1:-1]] == [PayloadError] * 2000
            assert outcomes[0] is outcomes[-1] is None
            assert [await next_payload(events), await next_payload(events)] == ["é", "à"]

    run(main())


# -- loops


def test_it_belongs_to_the_loop_that_it_was_first_used_in(dsn: str, new_channel: Callable[[], str]) -> None:
    channel = new_channel()
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        hub = home.run(AsyncHub(dsn).__aenter__())
        events = home.run(hub.subscribe(channel).__aenter__())
        for call in (
            lambda: hub.notify(channel),
            lambda: hub.subscribe(channel).__aenter__(),
            lambda: events.add(new_channel()),
            lambda: events.remove(channel),
            lambda: events.get(),
            lambda: events.get(1),
            lambda: anext(events),
            lambda: hub.wait_until_live(),
            lambda: hub.__aenter__(),
            lambda: hub.close(),
        ):
            with pytest.raises(ConcurrentUse, match="belongs to the event loop in which it was first used"):
                elsewhere.run(call())
        home.run(hub.notify(channel, "unharmed"))
        assert payloads([home.run(events.get(20))]) == ["unharmed"]
        events.close()
        home.run(hub.close())


def test_when_its_loop_has_ended_it_says_so(dsn: str, channel: str) -> None:
    hub = AsyncHub(dsn)
    asyncio.run(hub.notify(channel))
    for call in (lambda: hub.notify(channel), hub.__aenter__, hub.subscribe(channel).__aenter__):
        with asyncio.Runner() as runner, pytest.raises(ConcurrentUse, match="belongs to an event loop that has ended"):
            runner.run(call())


def test_closing_a_subscription_elsewhere_is_an_error_and_changes_nothing(
    run: Run, dsn: str, installed: str, channel: str
) -> None:
    """Who waits for it would not be woken."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub:
            stream = hub.stream(channel, str)
            for events in (hub.subscribe(channel), stream.read(), stream.consume("billing")):
                async with events:
                    waiting = asyncio.ensure_future(events.get())
                    await asyncio.sleep(0)
                    with pytest.raises(ConcurrentUse, match="belongs to the event loop in which it was first used"):
                        await asyncio.to_thread(events.close)
                    assert not waiting.done()
                    events.close()
                    with pytest.raises(SubscriptionClosed):
                        await waiting
                    await asyncio.to_thread(events.close)

    run(main())


def test_it_may_be_made_without_a_loop(run: Run, dsn: str, channel: str) -> None:
    hub = AsyncHub(dsn)
    events = hub.subscribe(channel)

    async def main() -> None:
        async with hub, events:
            await hub.notify(channel, "x")
            assert await next_payload(events) == "x"

    run(main())


def test_other_tasks_run_while_one_iterates_over_a_full_buffer(run: Run, dsn: str, channel: str) -> None:
    async def main() -> None:
        count = 8 * IN_A_ROW
        async with AsyncHub(dsn) as hub, hub.subscribe(channel, capacity=count) as events, sending(dsn) as send:
            await send(channel, count)
            await eventually(lambda: events.stats().depth == count)
            seen: list[int] = []

            async def watch() -> None:
                while events.stats().depth:
                    seen.append(events.stats().depth)
                    await asyncio.sleep(0)

            watching = asyncio.create_task(watch())
            taken = 0
            async for _ in events:
                taken += 1
                if taken == count:
                    break
            await watching
            assert len(seen) > 5

    run(main())


def test_a_quick_subscriber_keeps_up_with_a_flood(run: Run, dsn: str, channel: str) -> None:
    """It gets its turn whenever something was put into its buffer, which holds 1,000 and not the 5,000 of a burst."""

    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events, sending(dsn) as send:
            for burst in range(10):
                sent = asyncio.create_task(send(channel, 5000, burst * 5000))
                received = [await events.get(20) for _ in range(5000)]
                assert payloads(received) == [str(number) for number in range(burst * 5000, (burst + 1) * 5000)]
                await sent

    run(main())


def test_one_turn_of_the_loop_brings_less_than_a_buffer_holds(run: Run, dsn: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(dsn) as hub, hub.subscribe(channel) as events, sending(dsn) as send:
            in_turns = [hub.stats().received]

            def tick() -> None:
                in_turns.append(hub.stats().received)
                ticking[0] = asyncio.get_running_loop().call_soon(tick)

            ticking = [asyncio.get_running_loop().call_soon(tick)]
            sent = asyncio.create_task(send(channel, 30_000, 0))
            received = [await events.get(20) for _ in range(30_000)]
            ticking[0].cancel()
            await sent
            assert payloads(received) == [str(number) for number in range(30_000)]
            assert max(after - before for before, after in pairwise(in_turns)) <= 500

    run(main())


def test_what_comes_while_the_loop_is_busy_is_delivered_when_it_is_not(
    run: Run, dsn: str, admin: psycopg.Connection[Any], other: PubSub, new_channel: Callable[[], str]
) -> None:
    """One that comes together with the answer to a LISTEN, and after it, makes nothing readable any more."""
    channel = new_channel()
    other.listen(channel)

    async def main() -> None:
        async with AsyncHub(dsn, heartbeat=None) as hub, hub.subscribe(channel) as events:
            pid = listening_pid(admin)
            for number in range(10):
                name = new_channel()
                adding = asyncio.create_task(events.add(name))
                for _ in range(5):
                    await asyncio.sleep(0)
                test_handler.eventually(lambda: last_statement(admin, pid) == f'LISTEN "{name}"')  # noqa: B023
                admin.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
                assert other.get_event(10) is not None  # it has reached others, and so our socket
                await adding
                assert await next_payload(events) == str(number)

    run(main())
