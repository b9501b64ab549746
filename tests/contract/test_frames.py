"""Long payloads, which travel in frames, on a real server: they arrive whole, as they were, and in order."""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgpubsub
from pgpubsub import (
    Gap,
    GapReason,
    Hub,
    NotificationHandler,
    Notify,
    PayloadTooLarge,
    PubSub,
)
from tests.contract.conftest import BROUGHT, KINDS, connect_with, run_on
from tests.contract.faces import HUB_KINDS, AnyHub, Events, together
from tests.contract.interruptions import PACKAGE, every_moment, interrupt

Admin = psycopg.Connection[Any]

HUBS = [*HUB_KINDS]

LONG = "é日本€🐘x" * 20_000
"""280,000 bytes in UTF-8, and characters of one to four."""

TEXTS = [
    "short",
    "x" * 7999,
    "x" * 8000,
    "",
    "é" * 4000,
    LONG,
    "x" * 7936 * 2,
    *["x" * shift + "🐘" * 2500 for shift in range(4)],
    *["x" * shift + "日" * 3000 for shift in range(3)],
    "'\"\\{}%s$1,NULL\t\r\n" * 1000,
    "pgpubsub/",
    "pgpubsub/1 0123456789abcdef 1/2 looks like the beginning of a message",
    "pgpubsub/3 0123456789abcdef looks like one of a later version",
    "pgpubsub/1 0123456789abcdef 1/1 " + "x" * 9000,
    "end",
]

_names = itertools.count(1)


def frames(text: str, parts: int = 3, name: str | None = None) -> list[str]:
    """A message in frames, written by hand."""
    name = name or f"{next(_names):016x}"
    size = -(-len(text) // parts)
    return [f"pgpubsub/1 {name} {n + 1}/{parts} {text[n * size : (n + 1) * size]}" for n in range(parts)]


def send(admin: Admin, channel: str, *texts: str) -> None:
    """Send as a stranger does, in one statement."""
    admin.execute("SELECT pg_notify(%s, text) FROM unnest(%s::text[]) AS text", [channel, list(texts)])


# -- whoever receives


class Receiver(Protocol):
    """Listens, and sends to itself."""

    def notify(self, channel: str, payload: str) -> object: ...
    def get(self, timeout: float) -> Notify | Gap | None: ...


class ByPubSub:
    """A `PubSub`."""

    def __init__(self, pubsub: PubSub, channels: Sequence[str]) -> None:
        self.notify = pubsub.notify
        self.get: Any = partial(pubsub.get_event, yield_gaps=True)
        for channel in channels:
            pubsub.listen(channel)


class ByHub:
    """A subscription of a hub."""

    def __init__(self, hub: AnyHub, events: Events) -> None:
        self.notify = hub.notify
        self.get = events.get


@pytest.fixture
def listen_by(dsn: str, new_hub_of: Callable[..., AnyHub]) -> Iterator[Callable[..., Receiver]]:
    """Makes receivers of a kind, on channels."""
    opened: list[Any] = []

    def listen(kind: str, *channels: str, max_payload: int | None = None) -> Receiver:
        keywords: dict[str, Any] = {} if max_payload is None else {"max_payload": max_payload}
        if kind in HUBS:
            hub = new_hub_of(kind, **keywords).__enter__()
            return ByHub(hub, hub.subscribe(*channels).__enter__())
        if kind == "connect()":
            pubsub = pgpubsub.connect(dsn, **keywords)
        else:
            pubsub = PubSub(connect_with(kind, dsn), **keywords)
        opened.append(pubsub)
        return ByPubSub(pubsub, channels)

    yield listen
    for pubsub in opened:
        pubsub.close()


@pytest.fixture(params=[*KINDS, *HUBS])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def listen(kind: str, listen_by: Callable[..., Receiver]) -> Callable[..., Receiver]:
    return partial(listen_by, kind)


def until_end(receiver: Receiver) -> list[Notify | Gap]:
    """All events before the one that says "end"."""
    events: list[Notify | Gap] = []
    while True:
        event = receiver.get(20)
        assert event is not None
        if isinstance(event, Notify) and event.payload == "end":
            return events
        events.append(event)


def told(events: Sequence[Notify | Gap]) -> list[str | None]:
    """Their payloads; None for a gap."""
    return [event.payload if isinstance(event, Notify) else None for event in events]


# -- what is whole


def test_long_payloads_arrive_as_they_were_and_in_order(
    listen: Callable[..., Receiver], other: PubSub, channel: str
) -> None:
    receiver = listen(channel)
    for notify in (receiver.notify, other.notify):
        for text in TEXTS:
            notify(channel, text)
        assert told(until_end(receiver)) == TEXTS[:-1]


def test_a_long_notification_is_the_senders(listen: Callable[..., Receiver], other: PubSub, channel: str) -> None:
    receiver = listen(channel)
    other.notify(channel, LONG)
    assert receiver.get(20) == Notify(other.backend_pid, channel, LONG)


def test_the_longest_payload_arrives_and_a_longer_one_is_refused(listen: Callable[..., Receiver], channel: str) -> None:
    receiver = listen(channel)
    longest = "é" * (8 << 20)
    receiver.notify(channel, longest)
    with pytest.raises(PayloadTooLarge, match="has 16777217 bytes and max_payload is 16777216") as caught:
        receiver.notify(channel, "x" + longest)
    assert (caught.value.size, caught.value.limit) == (16777217, 16777216)
    receiver.notify(channel, "end")
    [event] = until_end(receiver)
    assert isinstance(event, Notify)
    assert event.payload == longest


def test_whoever_sends_too_much_sends_nothing(listen: Callable[..., Receiver], channel: str) -> None:
    receiver = listen(channel, max_payload=10_000)
    receiver.notify(channel, "é" * 5000)
    for text in ("é" * 5000 + "x", "x" * 10_001):
        with pytest.raises(PayloadTooLarge, match="has 10001 bytes and max_payload is 10000") as caught:
            receiver.notify(channel, text)
        assert (caught.value.size, caught.value.limit) == (10_001, 10_000)
    receiver.notify(channel, "end")
    assert told(until_end(receiver)) == ["é" * 5000]


def test_frames_by_strangers_are_understood(listen: Callable[..., Receiver], admin: Admin, channel: str) -> None:
    receiver = listen(channel)
    text = "été 日本 " * 1000
    for parts in (2, 3, 17):
        send(admin, channel, "before", *frames(text, parts), "after")
    send(admin, channel, *frames("", 1), *frames("ab", 2, "ffffffffffffffff"), *frames("x" * 100, 100))
    send(
        admin, channel, f"pgpubsub/1 {'0' * 16} 1/3 a", f"pgpubsub/1 {'0' * 16} 2/3 ", f"pgpubsub/1 {'0' * 16} 3/3  b "
    )
    send(admin, channel, "end")
    assert told(until_end(receiver)) == ["before", text, "after"] * 3 + ["", "ab", "x" * 100, "a b "]


@pytest.mark.parametrize(
    "text",
    [
        "pgpubsub",
        "pgpubsub/",
        "pgpubsub/1",
        "pgpubsub/1 0123456789abcdef",
        "pgpubsub/1 0123456789abcdef ",
        "pgpubsub/1 0123456789abcdef text",
        "pgpubsub/1 0123456789abcdef 1/2",
        "pgpubsub/1 0123456789abcdef 1/2\ttext",
        "pgpubsub/1 0123456789abcdef 2/1 text",
        "pgpubsub/1 0123456789abcdef 0/1 text",
        "pgpubsub/1 0123456789abcdef 01/1 text",
        "pgpubsub/1 0123456789abcdef 1/1000000000 text",
        "pgpubsub/1 0123456789ABCDEF 1/1 text",
        "pgpubsub/1 0123456789abcde 1/1 text",
        "pgpubsub/1  0123456789abcdef 1/1 text",
        "pgpubsub/12345 0123456789abcdef text",
        "pgpubsub/\u0661 0123456789abcdef 1/1 text",
        "PGPUBSUB/1 0123456789abcdef 1/1 text",
        " pgpubsub/1 0123456789abcdef 1/1 text",
    ],
)
def test_what_only_resembles_a_frame_is_a_strangers_plain_text(
    connect_pubsub: Callable[[str], PubSub], admin: Admin, channel: str, text: str
) -> None:
    pubsub = connect_pubsub("connect()")
    pubsub.listen(channel)
    send(admin, channel, text, "end")
    pubsub.notify(channel, text)
    send(admin, channel, "end")
    receiver = ByPubSub(pubsub, ())
    assert told(until_end(receiver)) == [text]
    assert told(until_end(receiver)) == [text]
    assert pubsub.gaps == 0


def test_a_transactions_end_decides(listen: Callable[..., Receiver], dsn: str, channel: str) -> None:
    receiver = listen(channel)
    with psycopg.connect(dsn) as sender:
        send(sender, channel, "1", *frames("x" * 9000))
        with sender.transaction(force_rollback=True):
            send(sender, channel, *frames("undone"), "undone")
        with sender.transaction():
            send(sender, channel, *frames("y" * 9000))
        receiver.notify(channel, "sent later, committed earlier")
        sender.commit()
        send(sender, channel, *frames("rolled back"))
        sender.rollback()
        send(sender, channel, "end")
    assert told(until_end(receiver)) == ["sent later, committed earlier", "1", "x" * 9000, "y" * 9000]


def test_senders_do_not_mix(listen: Callable[..., Receiver], dsn: str, channel: str) -> None:
    receiver = listen(channel)
    with Hub(dsn) as hub, pgpubsub.connect(dsn) as one, pgpubsub.connect(dsn) as two:
        senders: list[Callable[[str, str], object]] = [hub.notify, one.notify, two.notify, receiver.notify]

        def send_some(number: int) -> None:
            for count in range(10):
                senders[number](channel, f"{number} {count} " + "é" * 9000)
                senders[number](channel, f"{number} {count}")

        if "PubSub" in type(receiver).__name__:  # in the thread that receives
            send_some(3)
            assert together([partial(send_some, number) for number in range(3)]) == [None] * 3
        else:
            assert together([partial(send_some, number) for number in range(4)]) == [None] * 4
        one.notify(channel, "end")
    received = [str(text).replace("é" * 9000, "long") for text in told(until_end(receiver))]
    assert len(received) == 80
    for number in range(4):
        expected = [f"{number} {count}{rest}" for count in range(10) for rest in (" long", "")]
        assert [text for text in received if text.startswith(str(number))] == expected


# -- several receivers


def test_one_who_joins_a_channel_gets_what_comes_from_then_on(
    dsn: str, hub_kind: str, new_hub_of: Callable[..., AnyHub], channel: str
) -> None:
    with new_hub_of(hub_kind) as hub, hub.subscribe(channel) as first:
        hub.notify(channel, "1" + LONG)
        assert told([first.get(20)]) == ["1" + LONG]
        with hub.subscribe(channel) as second:
            hub.notify(channel, "2" + LONG)
            hub.notify(channel, "end")
            assert told(until_end(ByHub(hub, second))) == ["2" + LONG]
        assert told(until_end(ByHub(hub, first))) == ["2" + LONG]


def test_every_receiver_of_a_connection_gets_its_own(
    connect_raw: Callable[[str], Any], admin: Admin, new_channel: Callable[[], str]
) -> None:
    for kind in BROUGHT:
        one, other = new_channel(), new_channel()
        connection = connect_raw(kind)
        first, second = PubSub(connection), PubSub(connection)
        receivers = [ByPubSub(first, [one]), ByPubSub(second, [one, other])]
        send(admin, one, "1", *frames(LONG, 100), *frames("incomplete")[:2])
        send(admin, other, *frames(LONG[1:], 100), *frames("incomplete")[1:])
        send(admin, one, "end")
        assert told(until_end(receivers[0])) == ["1", LONG, None]
        assert told(until_end(receivers[1])) == ["1", LONG, None, LONG[1:], None]
        assert first.gaps == second.gaps == 2


# -- what is not whole


def named(count: int, *indexes: int) -> Callable[[], list[str]]:
    """Makes messages of `count` frames, of which only those at `indexes` are sent."""

    def make() -> list[str]:
        chunks = frames("abcdefgh", count)
        return [chunks[index - 1] for index in indexes]

    return make


def twice() -> list[str]:
    """As in a repetition by a sender who was not sure; equal ones of a transaction would be merged."""
    name = f"{next(_names):016x}"
    return [f"pgpubsub/1 {name} {index}/4 {text}" for index, text in [(1, "a"), (2, "b"), (2, "B"), (3, "c"), (4, "d")]]


def of_another_count() -> list[str]:
    name = f"{next(_names):016x}"
    return [*frames("abcdef", 3, name)[:2], frames("abcdefgh", 4, name)[2]]


def of_a_later_version(version: int, rest: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        name = f"{next(_names):016x}"
        return [f"pgpubsub/{version} {name} {rest} {index}" for index in range(3)]

    return make


INCOMPLETE = "came without all of its [23468] parts"
LATER = "a later version of the frame format: a newer pgpubsub understands it"

BROKEN: dict[str, tuple[Callable[[], list[str]], str]] = {
    "the last is missing": (named(3, 1, 2), INCOMPLETE),
    "all but the first are missing": (named(2, 1), INCOMPLETE),
    "the first is missing": (named(3, 2, 3), INCOMPLETE),
    "all but the last are missing": (named(3, 3), INCOMPLETE),
    "one within is missing": (named(4, 1, 3, 4), INCOMPLETE),
    "two are exchanged": (named(4, 1, 3, 2, 4), INCOMPLETE),
    "one comes twice": (twice, INCOMPLETE),
    "they count differently": (of_another_count, INCOMPLETE),
    "a later version": (of_a_later_version(3, "1/3 text"), LATER),
    "a later version of another form": (of_a_later_version(9999, "{"), LATER),
}


def check(gap: Notify | Gap, channel: str, since: datetime, words: str) -> None:
    assert isinstance(gap, Gap)
    assert (gap.reason, gap.channels, gap.count) == (GapReason.INCOMPLETE, (channel,), 1)
    assert since <= gap.since <= datetime.now(UTC)
    assert re.search(words, gap.detail), gap.detail


@pytest.mark.parametrize("what", BROKEN)
def test_a_message_that_is_not_whole_is_one_gap_at_its_place(
    listen: Callable[..., Receiver], admin: Admin, channel: str, what: str
) -> None:
    make, words = BROKEN[what]
    started = datetime.now(UTC)
    receiver = listen(channel)
    send(admin, channel, "1", *make(), "2", *make(), *frames(LONG, 100), *make(), *frames("3", 1), *make())
    send(admin, channel, "4", *make())
    send(admin, channel, "end")
    events = until_end(receiver)
    assert told(events) == ["1", None, "2", None, LONG, None, "3", None, "4", None]
    for gap in events[1::2]:
        check(gap, channel, started, words)


def test_nothing_that_is_out_of_order_hides_anything_else(
    listen: Callable[..., Receiver], admin: Admin, channel: str
) -> None:
    """It may be told more than once; nobody who keeps to the format sends such a thing."""
    receiver = listen(channel)
    again = "fedcba9876543210"
    backwards = named(3, 3, 2, 1)
    for broken, expected in (
        (backwards(), [None]),
        ([frames("ab", 2, again)[0], "between", frames("ab", 2, again)[1]], [None, "between", None]),
        ([*frames("abc", 3, again)[:2], *frames("ABC", 3, again)], [None, "ABC"]),
        ([*frames("abc", 3, again)[1:], *frames("ABC", 3, again)], [None, "ABC"]),
        ([frames("abc", 3, again)[0], *frames("ABC", 3, again)], [None, "ABC"]),
    ):
        send(admin, channel, "before", *broken, "after")
        send(admin, channel, "end")
        runs = [text for text, _ in itertools.groupby(told(until_end(receiver)))]
        assert runs == ["before", *expected, "after"]


def test_only_the_channel_of_an_incomplete_message_is_concerned(
    listen: Callable[..., Receiver], admin: Admin, new_channel: Callable[[], str]
) -> None:
    one, other, foreign = new_channel(), new_channel(), new_channel()
    receivers = [listen(one), listen(one, other)]
    chunks = frames("abcdef")
    send(admin, one, chunks[0])
    send(admin, foreign, chunks[1])
    send(admin, other, *chunks, "1")
    send(admin, one, chunks[2])
    for channel in (one, other):
        send(admin, channel, "end")
    assert told(until_end(receivers[0])) == [None]
    events = until_end(receivers[1])
    assert [event if isinstance(event, Notify) else event.channels for event in events] == [
        (one,),
        Notify(admin.info.backend_pid, other, "abcdef"),
        Notify(admin.info.backend_pid, other, "1"),
        (one,),
    ]


def test_the_same_name_from_two_senders_or_on_two_channels_is_two_messages(
    listen: Callable[..., Receiver], admin: Admin, other: PubSub, new_channel: Callable[[], str]
) -> None:
    one, two = new_channel(), new_channel()
    receiver = listen(one, two)
    chunks = frames("abcdef", 2)
    send(admin, one, chunks[0])
    run_on(other.conn, f"SELECT pg_notify('{one}', '{chunks[1]}')")
    send(admin, one, chunks[0])
    send(admin, two, chunks[1])
    other.notify(two, "end")
    events = until_end(receiver)
    assert {type(event) for event in events} == {Gap}
    assert {name for event in events if isinstance(event, Gap) for name in event.channels} == {one, two}


@pytest.mark.parametrize("parts", [1, 2, 7])
def test_what_is_too_long_for_this_receiver_is_one_gap_at_its_place(
    listen: Callable[..., Receiver], admin: Admin, channel: str, parts: int
) -> None:
    started = datetime.now(UTC)
    receiver = listen(channel, max_payload=999)
    for text, length in (("x", 999), ("é", 499), ("日", 333)):
        fits, too_long = text * length, text * (length + 1)
        send(admin, channel, "1", *frames(fits, parts), *frames(too_long, parts), "2", *frames(too_long, parts))
        send(admin, channel, *frames(fits, parts), too_long, "end")
        events = until_end(receiver)
        assert told(events) == ["1", fits, None, "2", None, fits, too_long], "plain text needs no putting together"
        for gap in (events[2], events[4]):
            check(gap, channel, started, "longer than max_payload, 999 bytes: receive with a larger one")


def test_a_hub_counts_and_logs_them(
    dsn: str,
    hub_kind: str,
    new_hub_of: Callable[..., AnyHub],
    admin: Admin,
    channel: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with new_hub_of(hub_kind) as hub, hub.subscribe(channel) as events:
        send(admin, channel, *frames("abc")[1:], "1", *frames("abc")[:2], *frames("abc")[:1], "end")
        received = until_end(ByHub(hub, events))
        assert [text for text, _ in itertools.groupby(told(received))] == [None, "1", None]
        gaps = [event for event in received if isinstance(event, Gap)]
        assert sum([gap.count or 0 for gap in gaps]) == 3, "neighbours become one, if they meet"
        assert events.stats().gaps == len(gaps)
    messages = [record.getMessage() for record in caplog.records if record.name == "pgpubsub.gap"]
    assert all(channel in message and "without all of its 3 parts" in message for message in messages)
    assert sum(int(re.findall(r"missing, (\d+) times", message)[0]) for message in messages) == 3


@pytest.mark.parametrize("method", ["get_event", "get_events", "events"])
def test_a_pubsub_counts_them_and_logs_what_nobody_asked_for(
    pubsub_kind: str,
    connect_pubsub: Callable[[str], PubSub],
    admin: Admin,
    channel: str,
    method: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    pubsub = connect_pubsub(pubsub_kind)
    pubsub.listen(channel)
    send(admin, channel, *frames("abc")[1:], "1", *frames("abc")[:2], "2")
    received: list[Notify] = []
    while len(received) < 2:
        result: Any = next(pubsub.events(20)) if method == "events" else getattr(pubsub, method)(20)
        received += result if method == "get_events" else [result]
    assert told(received) == ["1", "2"]
    assert pubsub.gaps == 2
    warnings = [record for record in caplog.records if record.name == "pgpubsub.gap"]
    assert [record.levelno for record in warnings] == [logging.WARNING] * 2
    assert all(channel in record.getMessage() for record in warnings)
    assert all("without all of its 3 parts" in record.getMessage() for record in warnings)


@pytest.fixture(params=KINDS)
def pubsub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- callbacks


def test_a_handler_gets_long_payloads(
    pubsub_kind: str,
    dsn: str,
    connect_raw: Callable[[str], Any],
    admin: Admin,
    other: PubSub,
    channel: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    db = pgpubsub.connect(dsn) if pubsub_kind == "connect()" else connect_raw(pubsub_kind)
    extras: list[str] = []
    handler = NotificationHandler(db, channel, lambda news: extras.append(news["extra"] if news else "timed out"))
    handler.listen()
    handler.notify(payload=LONG)
    handler.notify(connect_raw("psycopg3"), payload=LONG[1:])  # a driver's own connection, and one of ours
    handler.notify(other, payload=LONG[2:])
    for kind in BROUGHT:
        handler.notify(connect_raw(kind), payload=kind + LONG)
    send(admin, channel, *frames("incomplete")[:2], *frames("4" + LONG, 100))
    handler.notify(stop=True, payload="pgpubsub/" + LONG)
    handler()
    own = [kind + LONG for kind in BROUGHT]
    assert extras == [LONG, LONG[1:], LONG[2:], *own, "4" + LONG, "pgpubsub/" + LONG]
    warnings = [record for record in caplog.records if record.name == "pgpubsub.gap"]
    assert [record.levelno for record in warnings] == [logging.WARNING]
    assert channel in warnings[0].getMessage()
    handler.close()


def test_a_handler_has_the_cap_of_its_connection(dsn: str, other: PubSub, channel: str) -> None:
    extras: list[str] = []
    with pgpubsub.connect(dsn, max_payload=9000) as pubsub:
        handler = pubsub.notification_handler(channel, lambda news: extras.append(news["extra"] if news else ""))
        handler.listen()
        for sender in (None, other):
            with pytest.raises(PayloadTooLarge, match="has 9001 bytes and max_payload is 9000"):
                handler.notify(sender, payload="x" * 9001)
        other.notify(channel, "x" * 9001)
        handler.notify(payload="x" * 9000)
        handler.notify(stop=True)
        handler()
        assert pubsub.gaps == 1
    assert extras == ["x" * 9000, ""]


# -- other encodings


@pytest.fixture(scope="module")
def database(dsn: str) -> Iterator[Callable[[str], str]]:
    """Makes databases, and tells how to connect to them."""
    made: list[str] = []
    with psycopg.connect(dsn, autocommit=True) as admin:

        def of_encoding(encoding: str) -> str:
            name = f"pgpubsub_test_{encoding.lower()}"
            if name not in made:
                admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
                made.append(name)
            return make_conninfo(dsn, dbname=name)

        yield of_encoding
        for name in made:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


WIDE = "é" * 3900
"""7,800 bytes in UTF-8, 11,700 in EUC_JP."""

EXPRESSIBLE = {
    "LATIN1": ["é" * 40_000, "x" * 9000 + "é", "ÿé" * 4000],
    "EUC_JP": ["é" * 40_000, "日本" * 20_000, "x" * 9000 + "é", "xé" * 10_000, "é" * 4000, WIDE, "é" * 2000],
    "SQL_ASCII": [LONG, "é" * 40_000, "x" * 9000 + "é"],
    "UTF8": [LONG],
}


@pytest.mark.parametrize("encoding", EXPRESSIBLE)
def test_long_texts_arrive_in_databases_of_any_encoding(
    kind: str, database: Callable[[str], str], new_hub_of: Callable[..., AnyHub], channel: str, encoding: str
) -> None:
    dsn = database(encoding)
    texts = EXPRESSIBLE[encoding]
    with pgpubsub.connect(dsn) as other:
        if kind in HUBS:
            with new_hub_of(kind, dsn) as hub, hub.subscribe(channel) as events:
                exchange(ByHub(hub, events), other, channel, texts)
        elif kind == "connect()":
            with pgpubsub.connect(dsn) as pubsub:
                exchange(ByPubSub(pubsub, [channel]), other, channel, texts)
        else:
            with PubSub(connect_in(kind, dsn, "UTF8")) as pubsub:
                exchange(ByPubSub(pubsub, [channel]), other, channel, texts)


def connect_in(kind: str, dsn: str, client_encoding: str) -> Any:
    connection = connect_with(kind, dsn)
    if kind == "psycopg2":  # which has to know
        connection.set_client_encoding(client_encoding)
    else:
        run_on(connection, f"SET client_encoding TO '{client_encoding}'")
    return connection


def exchange(receiver: Receiver, other: PubSub, channel: str, texts: list[str]) -> None:
    for sender in (receiver, other):
        for text in texts:
            sender.notify(channel, text)
        sender.notify(channel, "end")
        assert told(until_end(receiver)) == texts


@pytest.mark.parametrize("driver", ["psycopg3", "psycopg2"])
@pytest.mark.parametrize(
    ("encoding", "client_encoding"), [("EUC_JP", "EUC_JP"), ("UTF8", "LATIN1"), ("UTF8", "EUC_JP")]
)
def test_long_texts_pass_brought_connections_of_any_encoding(
    database: Callable[[str], str], channel: str, driver: str, encoding: str, client_encoding: str
) -> None:
    dsn = database(encoding)
    with pgpubsub.connect(dsn) as other, PubSub(connect_in(driver, dsn, client_encoding)) as pubsub:
        exchange(ByPubSub(pubsub, [channel]), other, channel, ["é" * 40_000, "x" * 9000 + "é", "xé" * 4000])


def test_long_texts_pass_connections_without_an_encoding(database: Callable[[str], str], channel: str) -> None:
    """Both ends are SQL_ASCII, where nobody knows what the bytes mean."""
    dsn = database("SQL_ASCII")
    connection = connect_in("psycopg3", dsn, "SQL_ASCII")
    with pgpubsub.connect(dsn) as other, PubSub(connection) as pubsub:
        pubsub.listen(channel)
        for sender in (other, pubsub):
            sender.notify(channel, LONG)
            event = pubsub.get_event(20)
            assert event is not None
            assert event.payload.encode("ascii", "surrogateescape").decode() == LONG
        assert pubsub.gaps == 0


# -- signal handlers that raise


def raise_interrupt() -> None:
    raise KeyboardInterrupt


def interrupted(function: Callable[[], object], moment: int) -> bool:
    """Call it, and raise KeyboardInterrupt at the given moment. Says whether it came to that."""
    try:
        return interrupt(function, moment, raise_interrupt, (PACKAGE,))
    except KeyboardInterrupt:
        return True


BATCH = ["1", "pgpubsub/", "é" * 9000, "2", None, "x" * 20_000]


def send_batch(admin: Admin, channel: str) -> None:
    send(admin, channel, "1", *frames("pgpubsub/", 2), *frames("é" * 9000, 8), "2", *frames("abc")[1:])
    send(admin, channel, *frames("x" * 20_000))
    send(admin, channel, "end")


def take_by(method: str, pubsub: PubSub, received: list[Notify | Gap]) -> Callable[[], None]:
    """Makes what receives until the end, with one of the methods."""
    iteration = pubsub.events(20, yield_gaps=True)  # out here, since its end is a place for interruptions too

    def take() -> None:
        while told(received[-1:]) != ["end"]:
            if method == "get_events":
                received.extend(pubsub.get_events(20, yield_gaps=True))
            else:
                event = next(iteration) if method == "events" else pubsub.get_event(20, yield_gaps=True)
                assert event is not None
                received.append(event)

    return take


@pytest.mark.parametrize("method", ["get_event", "get_events", "events"])
def test_an_interrupted_pubsub_loses_and_tears_nothing(
    pubsub_kind: str, connect_pubsub: Callable[[str], PubSub], admin: Admin, channel: str, method: str
) -> None:
    pubsub = connect_pubsub(pubsub_kind)
    pubsub.listen(channel)

    def scenario(moment: int) -> bool:
        received: list[Notify | Gap] = []
        send_batch(admin, channel)
        gaps = pubsub.gaps
        was_interrupted = interrupted(take_by(method, pubsub, received), moment)
        take_by(method, pubsub, received)()
        assert told(received) == [*BATCH, "end"], moment
        assert pubsub.gaps == gaps + 1, moment
        return was_interrupted

    every_moment(scenario)


def test_an_interruption_between_the_parts_of_a_message_tears_nothing(
    pubsub_kind: str, connect_pubsub: Callable[[str], PubSub], admin: Admin, channel: str
) -> None:
    """The beginning of one has been read before, and the end of another comes later."""
    pubsub = connect_pubsub(pubsub_kind)
    pubsub.listen(channel)

    def receive(received: list[Notify | Gap], last: str) -> None:
        while told(received[-1:]) != [last]:
            received.extend(pubsub.get_events(20, yield_gaps=True))

    def scenario(moment: int) -> bool:
        received: list[Notify | Gap] = []
        one, other = frames("x" * 9000), frames("é" * 4000)
        send(admin, channel, "0", one[0])
        receive(received, "0")
        send(admin, channel, *one[1:], "1", other[0])
        was_interrupted = interrupted(partial(receive, received, "1"), moment)
        receive(received, "1")
        send(admin, channel, *other[1:], "2")
        receive(received, "2")
        assert told(received) == ["0", "x" * 9000, "1", "é" * 4000, "2"], moment
        return was_interrupted

    every_moment(scenario)
    assert pubsub.gaps == 0


def test_an_interrupted_handler_loses_and_tears_nothing(
    pubsub_kind: str, dsn: str, connect_raw: Callable[[str], Any], admin: Admin, channel: str
) -> None:
    db = pgpubsub.connect(dsn) if pubsub_kind == "connect()" else connect_raw(pubsub_kind)
    extras: list[str] = []
    handler = NotificationHandler(db, channel, lambda news: extras.append(news["extra"] if news else ""), timeout=20)
    expected = [text for text in BATCH if text is not None]

    def scenario(moment: int) -> bool:
        extras.clear()
        handler.listen()
        send_batch(admin, channel)
        handler.notify(stop=True, payload="stop" + "é" * 4000)
        was_interrupted = interrupted(handler, moment)
        if extras[-1:] != ["stop" + "é" * 4000]:
            handler()
        assert extras == [*expected, "end", "stop" + "é" * 4000], moment
        return was_interrupted

    every_moment(scenario)
    handler.close()
