"""What the subscriptions of `Hub` and `AsyncHub` do: entering and leaving, sharing, and what a full buffer does."""

from __future__ import annotations

import gc
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import psycopg
import pytest

from pgpubsub import (
    ChannelNameError,
    Closed,
    ConcurrentUse,
    Gap,
    GapReason,
    Notify,
    ServerRefused,
    SubscriberTooSlow,
    SubscriptionClosed,
)
from tests.contract.faces import (
    AnyHub,
    Events,
    Worker,
    last_statement,
    listening_pid,
    payloads,
    take,
    texts,
    together,
)
from tests.contract.test_handler import eventually
from tests.contract.test_pubsub import terminate

Admin = psycopg.Connection[Any]


def send(admin: Admin, channel: str, count: int, first: int = 1) -> None:
    """Numbers, in one transaction."""
    last = first + count - 1
    admin.execute("SELECT pg_notify(%s, i::text) FROM generate_series(%s::int, %s) i", [channel, first, last])


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


# -- entering and leaving


def test_it_needs_to_be_entered(hub: AnyHub, channel: str) -> None:
    events = hub.subscribe(channel)
    calls = (
        events.get,
        lambda: events.get(1),
        events.get_nowait,
        lambda: events.add(channel),
        lambda: next(iter(events)),
    )
    for call in calls:
        with pytest.raises(SubscriptionClosed, match="use it in a with statement"):
            call()
    with pytest.raises(SubscriptionClosed, match="use it in a with statement"):
        next(events)
    assert events.channels == frozenset()
    assert hub.stats().subscriptions == ()
    with events:
        hub.notify(channel, "x")
        assert payloads(take(events, 1)) == ["x"]


def test_closed_before_it_was_entered_it_stays_closed(hub: AnyHub, channel: str) -> None:
    events = hub.subscribe(channel)
    events.close()
    with pytest.raises(SubscriptionClosed), events:
        pass
    with pytest.raises(SubscriptionClosed):
        events.get(1)
    assert hub.stats().subscriptions == ()


def test_it_is_for_one_with_statement(hub: AnyHub, channel: str) -> None:
    events = hub.subscribe(channel)
    with events:
        with pytest.raises(ConcurrentUse, match="was entered before"):
            events.__enter__()
        hub.notify(channel, "still open")
        assert payloads(take(events, 1)) == ["still open"]
    with pytest.raises(SubscriptionClosed), events:
        pass
    eventually(lambda: hub.stats().subscriptions == ())


def test_it_may_begin_without_channels(hub: AnyHub, new_channel: Callable[[], str]) -> None:
    one, other = new_channel(), new_channel()
    with hub.subscribe() as events:
        assert events.channels == frozenset()
        assert events.get_nowait() is None
        events.add(one)
        events.add(other)
        assert events.channels == {one, other}
        hub.notify(one, "1")
        hub.notify(other, "2")
        assert payloads(take(events, 2)) == ["1", "2"]


def test_an_exception_leaves_it_closed(hub: AnyHub, admin: Admin, channel: str) -> None:
    pid = listening_pid(admin)
    with pytest.raises(ZeroDivisionError), hub.subscribe(channel) as events:
        raise ZeroDivisionError
    with pytest.raises(SubscriptionClosed):
        events.get(1)
    eventually(lambda: last_statement(admin, pid) == f'UNLISTEN "{channel}"')


def test_the_server_listens_when_entering_returns(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> None:
    for number in range(200):
        channel = new_channel()
        with hub.subscribe(channel) as events:
            admin.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
            assert payloads(take(events, 1)) == [str(number)]


def test_the_server_listens_when_adding_returns(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> None:
    with hub.subscribe() as events:
        for number in range(100):
            channel = new_channel()
            events.add(channel)
            admin.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
            assert payloads(take(events, 1)) == [str(number)]


def test_the_server_listens_for_everybody_who_adds_the_same_at_once(
    hub: AnyHub, dsn: str, new_channel: Callable[[], str]
) -> None:
    def add_and_send(events: Events, channel: str) -> None:
        with psycopg.connect(dsn, autocommit=True) as sender:
            barrier.wait(10)
            events.add(channel)
            sender.execute("SELECT pg_notify(%s, 'x')", [channel])

    for _ in range(10):
        channel = new_channel()
        barrier = threading.Barrier(4)
        with hub.subscribe() as events:
            assert together([partial(add_and_send, events, channel)] * 4) == [None] * 4
            assert payloads(take(events, 4)) == ["x"] * 4


def test_statements_that_are_due_together_go_out_together(
    new_hub: Callable[..., AnyHub], dsn: str, admin: Admin
) -> None:
    """A connection that is waited for makes them due together; what the backend has executed last tells them all."""
    connectable = threading.Event()

    def wait_for_it() -> str:
        assert connectable.wait(20)
        return dsn

    hub = new_hub(wait_for_it)
    channels = [f"c{os.getpid()} {number:02}" for number in range(40)]  # the server keeps 1,024 bytes of a statement
    entering = [Worker(hub.subscribe(channel).__enter__) for channel in channels]
    eventually(lambda: len(hub.stats().subscriptions) == 40)
    connectable.set()
    subscriptions = [worker.outcome() for worker in entering]
    statement = last_statement(admin, listening_pid(admin))
    assert statement.count("LISTEN") == 41
    assert all(f'LISTEN "{channel}"' in statement for channel in channels)
    for events in subscriptions:
        events.close()
    assert {events.channels for events in subscriptions}


def test_channels_of_one_subscription_go_out_together(
    hub: AnyHub, admin: Admin, new_channel: Callable[[], str]
) -> None:
    channels = [new_channel() for _ in range(20)]
    with hub.subscribe(*channels):
        assert last_statement(admin, listening_pid(admin)) == "; ".join(f'LISTEN "{channel}"' for channel in channels)


def test_the_last_one_out_unlistens(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> None:
    pid, shared = listening_pid(admin), new_channel()
    with hub.subscribe(shared) as last:
        with hub.subscribe(shared) as first:
            assert last_statement(admin, pid) == f'LISTEN "{shared}"'
        eventually(lambda: first.channels == frozenset())
        received = hub.stats().received
        with hub.subscribe(shared, new_channel()) as another:
            send(admin, shared, 3)
            assert payloads(take(another, 3)) == payloads(take(last, 3)) == ["1", "2", "3"]
        last.remove(shared)
        eventually(lambda: f'UNLISTEN "{shared}"' in last_statement(admin, pid))
        last.add(shared)
        send(admin, shared, 1)
        assert payloads(take(last, 1)) == ["1"]
        assert hub.stats().received == received + 4
    eventually(lambda: last_statement(admin, pid) == f'UNLISTEN "{shared}"')


def test_whoever_comes_while_the_last_one_leaves_gets_everything(hub: AnyHub, admin: Admin, channel: str) -> None:
    """UNLISTEN and LISTEN overtake each other, in every way that comes by chance."""
    for number in range(50):
        leaving = hub.subscribe(channel).__enter__()
        together([leaving.close, lambda: None])
        with hub.subscribe(channel) as events:
            admin.execute("SELECT pg_notify(%s, %s)", [channel, str(number)])
            assert payloads(take(events, 1)) == [str(number)]


def test_a_subscription_that_is_dropped_frees_its_channels(hub: AnyHub, admin: Admin, channel: str) -> None:
    pid = listening_pid(admin)
    events = hub.subscribe(channel)
    events.__enter__()
    assert len(hub.stats().subscriptions) == 1
    del events
    gc.collect()
    eventually(lambda: last_statement(admin, pid) == f'UNLISTEN "{channel}"')
    eventually(lambda: hub.stats().subscriptions == ())


def test_nothing_of_a_removed_channel_is_left(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> None:
    gone, kept = new_channel(), new_channel()
    with hub.subscribe(gone, kept) as events, hub.subscribe(gone) as others:
        send(admin, gone, 3)
        send(admin, kept, 3)
        eventually(lambda: events.stats().depth == 6)
        events.remove(gone)
        assert events.stats().depth == 3
        assert payloads(take(events, 3)) == ["1", "2", "3"]
        assert payloads(take(others, 3)) == ["1", "2", "3"]
        send(admin, gone, 1)
        assert payloads(take(others, 1)) == ["1"]
        assert events.get_nowait() is None


def test_a_channel_that_is_removed_while_it_is_added_holds_up_nobody(
    hub: AnyHub, new_channel: Callable[[], str]
) -> None:
    """Whichever of the two comes later counts, and neither waits for ever."""
    with hub.subscribe() as events:
        for _ in range(100):
            channel = new_channel()
            outcomes = together([partial(events.add, channel), partial(events.remove, channel)])
            assert outcomes == [None, None]
            if channel in events.channels:
                hub.notify(channel, channel)
                assert payloads(take(events, 1)) == [channel]


def test_a_subscription_that_is_closed_while_channels_are_added_says_so(
    hub: AnyHub, new_channel: Callable[[], str]
) -> None:
    for _ in range(50):
        events = hub.subscribe().__enter__()
        outcomes = together([partial(events.add, new_channel()), events.close])
        assert outcomes[0] is None or isinstance(outcomes[0], SubscriptionClosed)
        eventually(lambda: not events.channels)  # noqa: B023


def test_many_subscribe_at_once(hub: AnyHub, new_channel: Callable[[], str]) -> None:
    shared = new_channel()
    barrier = threading.Barrier(40)

    def use(number: int) -> list[str]:
        own = new_channel()
        with hub.subscribe(own, shared) as events:
            barrier.wait(20)
            hub.notify(own, str(number))
            hub.notify(shared, str(number))
            found = payloads(take(events, 41))
            barrier.wait(20)
        return sorted(found, key=int)

    outcomes = together([partial(use, number) for number in range(40)])
    assert outcomes == [sorted([*numbers(0, 39), str(number)], key=int) for number in range(40)]
    eventually(lambda: hub.stats().subscriptions == ())


# -- what the server refuses


def test_a_refused_channel_is_told_to_those_who_asked_for_it_and_to_nobody_else(
    new_hub: Callable[..., AnyHub], dsn: str, latin1: str, new_channel: Callable[[], str]
) -> None:
    good, refused = new_channel(), "日本"
    with new_hub(dsn, dbname=latin1) as hub, hub.subscribe(good) as events:
        for _ in range(3):
            subscriptions = [
                hub.subscribe(*channels)
                for channels in ((refused,), (new_channel(),), (new_channel(), refused), (refused, good), (good,))
            ]
            outcomes = together([events.__enter__ for events in subscriptions])
            for index in (0, 2, 3):
                assert isinstance(outcomes[index], ServerRefused), outcomes[index]
                assert outcomes[index].sqlstate == "22P05"
                assert f'LISTEN "{refused}"' in str(outcomes[index])
                assert subscriptions[index].channels == frozenset()
            assert outcomes[1] is subscriptions[1]
            assert outcomes[4] is subscriptions[4]
            assert len(hub.stats().subscriptions) == 3
            with pytest.raises(ServerRefused):
                subscriptions[4].add(refused)
            assert subscriptions[4].channels == {good}
            hub.notify(good, "all is well")
            for one in (events, subscriptions[4]):
                assert payloads(take(one, 1)) == ["all is well"]
            for one in subscriptions:
                one.close()
            eventually(lambda: len(hub.stats().subscriptions) == 1)
        with pytest.raises(ServerRefused, match="22P05|encoding"):
            hub.notify(refused)
        with pytest.raises(ServerRefused):
            hub.notify(good, refused)
        assert hub.state.live
        assert hub.stats().reconnects == 0
        assert events.get_nowait() is None


def test_names_that_another_encoding_expresses_are_as_good_as_any(
    new_hub: Callable[..., AnyHub], dsn: str, latin1: str
) -> None:
    with new_hub(dsn, dbname=latin1) as hub, hub.subscribe("é" * 31) as events:
        hub.notify("é" * 31, "naïve")
        assert payloads(take(events, 1)) == ["naïve"]


def test_a_name_that_is_longer_at_the_server_is_refused_and_not_cut_off(
    new_hub: Callable[..., AnyHub], dsn: str, euc_jp: str
) -> None:
    fitting = "日" * 21
    with new_hub(dsn, dbname=euc_jp) as hub, hub.subscribe(fitting, "д" * 31) as events:
        with pytest.raises(ServerRefused, match=r'refused LISTEN "ééé.*channel name too long'):
            events.add("é" * 31)  # 93 bytes there
        hub.notify(fitting, "17")
        assert payloads(take(events, 1)) == ["17"]
        assert hub.stats().reconnects == 0


def test_a_bad_name_does_no_harm_to_the_others(hub: AnyHub, channel: str) -> None:
    with pytest.raises(ChannelNameError):
        hub.subscribe(channel, "x" * 64)
    with pytest.raises(TypeError):
        hub.subscribe(channel, None)
    gc.collect()
    assert hub.stats().subscriptions == ()


@pytest.mark.parametrize(
    "keywords", [{"capacity": 0}, {"capacity": -1}, {"capacity_bytes": 0}, {"overflow": "drop_newest"}]
)
def test_impossible_buffers_are_refused(hub: AnyHub, channel: str, keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="at least 1|overflow is one of clear, drop_oldest, latest, close"):
        hub.subscribe(channel, **keywords)


# -- one subscription, several who take


def test_each_event_goes_to_exactly_one_of_several(hub: AnyHub, admin: Admin, channel: str) -> None:
    with hub.subscribe(channel, capacity=5000) as events:
        workers = [Worker(partial(list, events)) for _ in range(8)]
        for first in range(1, 2001, 100):
            send(admin, channel, 100, first)
        eventually(lambda: hub.stats().delivered == 2000)
        hub.close()
        shares = [payloads(worker.outcome()) for worker in workers]
    assert sorted(int(text) for share in shares for text in share) == list(range(1, 2001))
    for share in shares:
        assert share == sorted(share, key=int)


def test_one_event_wakes_one_of_those_who_wait(hub: AnyHub, admin: Admin, channel: str) -> None:
    with hub.subscribe(channel) as events:
        workers = [Worker(lambda: events.get(20)) for _ in range(5)]
        for number in range(5):
            send(admin, channel, 1, number)
        assert sorted(payloads(worker.outcome() for worker in workers)) == numbers(0, 4)


def test_whoever_leaves_early_takes_nothing_from_the_others(hub: AnyHub, admin: Admin, channel: str) -> None:
    """Half of them wait for no time, or for next to none; what they do not get the others do."""
    total, received, lock = 2000, Counter[str](), threading.Lock()

    def note(event: Notify | Gap) -> None:
        with lock:
            received.update(payloads([event]))

    def impatient() -> None:
        while received.total() < total:
            for timeout in (0.0001, 0, 0.002):
                with suppress(TimeoutError):
                    note(events.get(timeout))

    def patient() -> None:
        for event in events:
            note(event)

    with hub.subscribe(channel, capacity=total) as events:
        patients, others = [Worker(patient) for _ in range(3)], [Worker(impatient) for _ in range(3)]
        for first in range(1, total + 1, 10):
            send(admin, channel, 10, first)
        for worker in others:
            assert worker.outcome() is None
        events.close()
        for worker in patients:
            assert worker.outcome() is None
    assert received == Counter(numbers(1, total))


def test_leaving_a_loop_takes_nothing_from_the_next(hub: AnyHub, admin: Admin, channel: str) -> None:
    with hub.subscribe(channel) as events:
        send(admin, channel, 700)
        found: list[str] = []
        while len(found) < 700:
            for event in islice(events, 7):
                found += payloads([event])
        assert found == numbers(1, 700)


# -- full buffers


@pytest.fixture
def settled(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> Iterator[Callable[[], None]]:
    """Returns when all that was sent before has been handed out."""
    channel = new_channel()
    with hub.subscribe(channel) as fence:

        def wait() -> None:
            admin.execute("SELECT pg_notify(%s, '')", [channel])
            fence.get(20)

        yield wait


def rest_of(events: Events) -> list[Notify | Gap]:
    """What is there."""
    return list(iter(events.get_nowait, None))


def test_clear_leaves_a_gap_and_the_newest(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], new_channel: Callable[[], str]
) -> None:
    one, other = new_channel(), new_channel()
    with hub.subscribe(one, other, capacity=3) as events:
        send(admin, one, 7)
        send(admin, other, 1, 8)
        settled()
        gap, *kept = rest_of(events)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.channels, gap.count) == (GapReason.OVERFLOW, (one,), 6)
        assert payloads(kept) == ["7", "8"]
        send(admin, other, 3)
        assert payloads(take(events, 3)) == ["1", "2", "3"]
        assert (events.stats().delivered, events.stats().dropped, events.stats().gaps) == (5, 6, 1)


def test_drop_oldest_leaves_a_gap_and_as_many_as_fit(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], channel: str
) -> None:
    with hub.subscribe(channel, capacity=3, overflow="drop_oldest") as events:
        send(admin, channel, 10)
        settled()
        gap, *kept = rest_of(events)
        assert isinstance(gap, Gap)
        assert (gap.reason, gap.channels, gap.count) == (GapReason.OVERFLOW, (channel,), 7)
        assert payloads(kept) == ["8", "9", "10"]


def test_latest_keeps_the_newest_of_each_channel(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], new_channel: Callable[[], str]
) -> None:
    one, other = new_channel(), new_channel()
    with hub.subscribe(one, other, overflow="latest") as events:
        send(admin, one, 3)
        send(admin, other, 4)
        send(admin, one, 1, 5)
        settled()
        assert texts(rest_of(events)) == [(other, "4"), (one, "5")]
        assert (events.stats().delivered, events.stats().dropped, events.stats().gaps) == (2, 6, 0)


def test_close_delivers_what_fitted_and_then_says_why(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], channel: str
) -> None:
    with hub.subscribe(channel, capacity=3, overflow="close") as events:
        send(admin, channel, 10)
        settled()
        assert events.channels == frozenset()
        assert payloads(islice(events, 3)) == ["1", "2", "3"]
        for call in (lambda: next(iter(events)), lambda: list(events), events.get_nowait, lambda: events.get(1)):
            with pytest.raises(SubscriberTooSlow, match="buffer of 3 notifications was full"):
                call()
        with pytest.raises(SubscriberTooSlow):
            events.add(channel)
    assert issubclass(SubscriberTooSlow, SubscriptionClosed)


def test_close_tells_everybody_who_waits(hub: AnyHub, admin: Admin, channel: str) -> None:
    with hub.subscribe(channel, capacity=1, overflow="close") as events:
        workers = [Worker(lambda: events.get(15)) for _ in range(6)]
        send(admin, channel, 3)
        outcomes = [worker.outcome() for worker in workers]
    assert payloads(outcome for outcome in outcomes if isinstance(outcome, Notify)) == ["1"]
    assert sum(isinstance(outcome, SubscriberTooSlow) for outcome in outcomes) == 5


def test_bytes_are_counted_too(hub: AnyHub, admin: Admin, settled: Callable[[], None], channel: str) -> None:
    with (
        hub.subscribe(channel, capacity_bytes=2500, overflow="drop_oldest") as oldest,
        hub.subscribe(channel, capacity_bytes=2500) as clear,
        hub.subscribe(channel, capacity_bytes=2500, overflow="close") as closing,
    ):
        admin.execute("SELECT pg_notify(%s, rpad(i::text, 1000, '.')) FROM generate_series(1, 5) i", [channel])
        settled()
        assert (oldest.stats().depth, oldest.stats().bytes) == (3, 2000)
        assert [getattr(event, "payload", "")[:1] for event in rest_of(oldest)] == ["", "4", "5"]
        assert [getattr(event, "payload", "")[:1] for event in rest_of(clear)] == ["", "5"]
        assert [text[:1] for text in payloads(islice(closing, 2))] == ["1", "2"]
        with pytest.raises(SubscriberTooSlow):
            closing.get(1)


def test_a_gap_of_the_connection_and_one_of_the_buffer_both_stand(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], channel: str
) -> None:
    with hub.subscribe(channel, capacity=2, overflow="drop_oldest") as events:
        send(admin, channel, 3)
        settled()
        pid = listening_pid(admin)
        terminate(admin, pid)
        eventually(lambda: events.stats().depth == 4)
        send(admin, channel, 1, 4)
        settled()  # which too gets a gap first
        settled()
        reasons = [event.reason if isinstance(event, Gap) else event.payload for event in rest_of(events)]
        assert reasons == [GapReason.OVERFLOW, "3", GapReason.CONNECTION_LOST, "4"]


def test_one_that_is_slow_delays_nobody(hub: AnyHub, admin: Admin, channel: str) -> None:
    with hub.subscribe(channel, capacity=10) as slow, hub.subscribe(channel, capacity=10_000) as fast:
        for first in range(1, 5001, 500):
            send(admin, channel, 500, first)
        received = payloads(take(fast, 5000))
        assert received == numbers(1, 5000)
        eventually(lambda: slow.stats().dropped + slow.stats().depth >= 5000)
        gap, *kept = rest_of(slow)
        assert isinstance(gap, Gap)
        assert gap.count is not None
        assert payloads(kept) == numbers(gap.count + 1, 5000)


def test_the_figures_add_up(hub: AnyHub, admin: Admin, settled: Callable[[], None], channel: str) -> None:
    before = hub.stats()
    with hub.subscribe(channel, capacity=10) as one:
        with hub.subscribe(channel) as other:
            send(admin, channel, 25)
            settled()
            gap, *kept = rest_of(one)
            assert isinstance(gap, Gap)
            assert payloads(take(other, 5)) == numbers(1, 5)
            stats = hub.stats()
            assert stats.received == before.received + 26
            assert (stats.delivered, stats.dropped, stats.gaps) == (len(kept) + 5 + 1, gap.count, 1)
            by_gaps = {figures.gaps: figures for figures in stats.subscriptions if channel in figures.channels}
            assert by_gaps[1] == one.stats()
            assert by_gaps[0] == other.stats()
            assert (one.stats().channels, one.stats().depth, one.stats().bytes) == ((channel,), 0, 0)
            assert one.stats().delivered + one.stats().dropped == 25
            assert (other.stats().delivered, other.stats().depth) == (5, 20)
            assert other.stats().bytes == len("".join(numbers(6, 25)))
        hub.notify(channel, "x")
        assert payloads(take(one, 1)) == ["x"]
        assert hub.stats().sent == before.sent + 1
    eventually(lambda: len(hub.stats().subscriptions) == 1)
    after = hub.stats()
    assert (after.delivered, after.dropped, after.gaps) == (stats.delivered + 1, stats.dropped, 1)


# -- the end of the hub


def test_closing_the_hub_ends_every_iteration_after_what_was_buffered(
    hub: AnyHub, admin: Admin, settled: Callable[[], None], new_channel: Callable[[], str]
) -> None:
    full, empty = new_channel(), new_channel()
    with hub.subscribe(full) as buffered, hub.subscribe(empty) as waited_for:
        send(admin, full, 100)
        settled()
        workers = [Worker(partial(list, waited_for)) for _ in range(3)]
        waiting = Worker(lambda: waited_for.get(15))
        eventually(lambda: all(worker.busy for worker in (*workers, waiting)))
        hub.close()
        assert [worker.outcome() for worker in workers] == [[], [], []]
        assert isinstance(waiting.outcome(), SubscriptionClosed)
        assert payloads(take(buffered, 1)) == ["1"]
        assert payloads([event for event in [buffered.get_nowait()] if event]) == ["2"]
        assert payloads(buffered) == numbers(3, 100)
        for call in (buffered.get_nowait, lambda: buffered.get(1)):
            with pytest.raises(SubscriptionClosed, match="the hub was closed"):
                call()
        with pytest.raises(Closed):
            buffered.add(empty)
        with pytest.raises(Closed):
            buffered.remove(full)
        buffered.close()


def test_closing_the_hub_ends_many_at_once_in_time(hub: AnyHub, admin: Admin, new_channel: Callable[[], str]) -> None:
    channels = [new_channel() for _ in range(30)]
    subscriptions = [hub.subscribe(channel).__enter__() for channel in channels]
    workers = [Worker(partial(list, events)) for events in subscriptions]
    for channel in channels:
        send(admin, channel, 2)
    eventually(lambda: hub.stats().delivered == 60)
    begun = time.monotonic()
    hub.close()
    assert [payloads(worker.outcome()) for worker in workers] == [["1", "2"]] * 30
    assert time.monotonic() - begun < 4
