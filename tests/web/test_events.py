"""What clients of server-sent events get of channels and streams."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import pgpubsub
from pgpubsub import Hub
from tests.contract.browser import Browser, Received
from tests.contract.faces import Worker
from tests.contract.test_handler import eventually
from tests.system.test_hub_server_faults import backend
from tests.web.conftest import Served, token

Serve = Callable[..., Served]


def append(conn: psycopg.Connection[Any], stream: str, *payloads: str | bytes) -> None:
    for payload in payloads:
        pgpubsub.append(conn, stream, payload)


def data(events: list[Received]) -> list[Any]:
    return [json.loads(event.data) for event in events]


def take(browser: Browser, count: int) -> list[Received]:
    return [browser.next() for _ in range(count)]


@pytest.mark.parametrize("text", ["17", "", "two\nlines", '{"id": 17}', "日本\u2028語", "x" * 100_000])
def test_a_channels_payload_is_the_data(served: Served, admin: psycopg.Connection[Any], name: str, text: str) -> None:
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        with Hub(admin.info.dsn) as hub:
            hub.notify(name, text)
        event = browser.next()
        assert (event.type, event.data) == ("message", text)
        assert event.last_event_id[0] == "t"


@pytest.mark.parametrize("name", ["a/b", "a b?c=d&e", "日本", "%41", "../up", "x\ny", '"; DROP'])
def test_names_are_what_the_url_says(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    with served.open(f"/channels/{quote(name, safe='')}").listening() as browser:
        pgpubsub.notify(admin, name, "17")
        assert browser.next().data == "17"


def test_a_streams_entries_have_their_positions_as_ids(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    append(admin, name, "1", b"\x00\xff", "3")
    with served.open(f"/streams/{quote(name)}?after=beginning").listening() as browser:
        assert [event.data for event in take(browser, 3)] == ["1", base64.b64encode(b"\x00\xff").decode(), "3"]
        position = browser.last_event_id
    append(admin, name, "4")
    for how in ({"last_event_id": position}, {}):
        path = f"/streams/{quote(name)}" + ("" if how else f"?after={position}")
        with served.open(path, **how).listening() as browser:
            assert browser.next().data == "4"


def test_without_a_place_a_stream_begins_with_what_comes_next(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    append(admin, name, "before")
    with served.open(f"/streams/{quote(name)}").listening() as browser:
        append(admin, name, "after")
        assert browser.next().data == "after"


def test_the_first_comment_says_where_a_stream_goes_on(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    append(admin, name, "before")
    with served.open(f"/streams/{quote(name)}").listening() as browser:
        position = browser.last_event_id
    append(admin, name, "missed")
    with served.open(f"/streams/{quote(name)}", last_event_id=position).listening() as browser:
        assert browser.next().data == "missed"


def test_several_come_over_one_connection_and_are_told_apart(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    one, other, stream = name + " 1", name + " 2", name + " 3"
    query = f"channel={quote(one)}&channel={quote(other)}&stream={quote(stream)}"
    with served.open(f"/events?{query}").listening() as browser:
        pgpubsub.notify(admin, one, "a")
        assert data([browser.next()]) == [{"type": "message", "channel": one, "payload": "a"}]
        pgpubsub.append(admin, stream, "b", key="k", headers={"h": 1})
        entry = data([browser.next()])[0]
        assert (entry["stream"], entry["payload"], entry["key"], entry["headers"]) == (stream, "b", "k", {"h": 1})
        pgpubsub.append(admin, stream, b"\xff")
        assert data([browser.next()])[0]["base64"] == "/w=="
        pgpubsub.notify(admin, other, "c")
        assert data([browser.next()]) == [{"type": "message", "channel": other, "payload": "c"}]
        place = browser.last_event_id
        assert place.split(".")[1] != entry["position"], "it is behind the second entry"
    append(admin, stream, "d")
    with served.open(f"/events?{query}", last_event_id=place).listening() as browser:
        events = take(browser, 3)
    assert [event.type for event in events] == ["gap", "gap", "message"]
    told = data(events)
    assert [one_of["channel"] for one_of in told[:2]] == [one, other]
    assert told[2]["payload"] == "d", "and nothing twice"


def test_notifications_of_several_channels_keep_their_order(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    names = [f"{name} {number}" for number in range(3)]
    query = "&".join(f"channel={quote(one)}" for one in names)
    with served.open(f"/events?{query}").listening() as browser:
        chosen = [random.Random(number).choice(names) for number in range(2000)]
        with Hub(admin.info.dsn) as hub:
            hub.notify_many((one, str(number)) for number, one in enumerate(chosen))
        told = data(take(browser, 2000))
    assert [(event["channel"], event["payload"]) for event in told] == [
        (one, str(number)) for number, one in enumerate(chosen)
    ]


def test_who_was_away_from_a_channel_gets_a_gap_since_the_last_message(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        pgpubsub.notify(admin, name, "1")
        place = browser.next().last_event_id
    pgpubsub.notify(admin, name, "missed")
    eventually(lambda: served.gateway.counts.received == 2)  # it still listens for a while, as clients come back
    with served.open(f"/channels/{quote(name)}", last_event_id=place).listening() as browser:
        gap = browser.next()
        assert gap.type == "gap"
        told = json.loads(gap.data)
        assert (told["reason"], told["count"]) == ("connection_lost", None)
        assert "channel" not in told
        pgpubsub.notify(admin, name, "2")
        assert browser.next().data == "2"


def test_a_lost_connection_to_the_database_is_a_gap_for_channels_and_nothing_for_streams(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    with (
        served.open(f"/channels/{quote(name)}").listening() as channel,
        served.open(f"/streams/{quote(name)}").listening() as stream,
    ):
        admin.execute("SELECT pg_terminate_backend(%s)", [backend(admin, "listen")])
        gap = channel.next()
        assert (gap.type, json.loads(gap.data)["reason"]) == ("gap", "connection_lost")
        pgpubsub.notify(admin, name, "1")
        append(admin, name, "1")
        assert channel.next().data == "1"
        assert stream.next().data == "1"


def test_a_gap_names_only_what_its_client_follows(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    with (
        served.open(f"/events?channel={quote(name)}").listening() as browser,
        served.open(f"/channels/secret-{quote(name)}").listening(),
    ):
        admin.execute("SELECT pg_terminate_backend(%s)", [backend(admin, "listen")])
        line = browser.next().data
        assert "secret" not in line
        assert json.loads(line)["channel"] == name


def test_silence_is_broken_by_comments(serve: Serve, name: str) -> None:
    with serve(keep_alive=0.1).open(f"/channels/{quote(name)}").listening() as browser:
        assert [browser.line() for _ in range(4)] == [":", "", ":", ""]


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/events", 400, "nothing is asked for"),
        ("/events?channel=a&channel=a", 400, "twice"),
        ("/events?chanel=a", 400, "chanel"),
        ("/channels/" + "x" * 64, 400, "63"),
        ("/channels/pgpubsub.heartbeat", 403, "library's own"),
        ("/streams/" + "x" * 1001, 400, "1,000"),
        ("/streams/a?after=yesterday", 400, "not a position"),
        ("/events?stream=a&stream=b&stream=c&after=end&after=end", 400, "2 positions for 3 streams"),
        ("/events?channel=a&channel=b&format=plain", 400, "format=json"),
        ("/channels/a?format=xml", 400, "xml"),
        ("/events?" + "&".join(f"channel={n}" for n in range(101)), 403, "100 at most"),
        ("/nowhere", 404, "Not Found"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(served: Served, path: str, status: int, words: str) -> None:
    with served.open(path) as browser:
        told = json.loads(browser.response.read())
        assert browser.response.status == told["status"] == status
        assert browser.response.headers["content-type"] == "application/problem+json"
        assert words in told["detail"]
    eventually(lambda: not served.gateway.outlets)


def test_one_payload_may_have_its_envelope(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    with served.open(f"/channels/{quote(name)}?format=json").listening() as browser:
        pgpubsub.notify(admin, name, "1")
        assert data([browser.next()]) == [{"type": "message", "channel": name, "payload": "1"}]


def test_no_streams_here_is_503(admin: psycopg.Connection[Any], database: str, serve: Serve, name: str) -> None:
    admin.execute("CREATE DATABASE streamless")
    with serve(psycopg.conninfo.make_conninfo(database, dbname="streamless")).open(
        f"/streams/{quote(name)}"
    ) as browser:
        assert browser.response.status == 503
        assert json.loads(browser.response.read())["code"] == "unavailable"
    admin.execute("DROP DATABASE streamless WITH (FORCE)")


def test_the_end_of_a_token_ends_its_connection(serve: Serve, name: str) -> None:
    served = serve(public=[])
    bearer = token(read=[f"channels/{name}"], ends_in=2)
    with served.open(f"/channels/{quote(name)}", authorization=f"Bearer {bearer}").listening() as browser:
        (event,) = list(browser)
    assert (event.type, json.loads(event.data)["reason"]) == ("closing", "expired")
    assert "retry" not in json.loads(event.data)
    with served.open(f"/channels/{quote(name)}", authorization=f"Bearer {bearer}") as browser:
        assert browser.response.status == 401
        assert json.loads(browser.response.read())["code"] == "expired"


def test_the_end_of_the_server_is_told_after_what_has_come(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        pgpubsub.notify(admin, name, "1")
        eventually(lambda: served.gateway.counts.received)
        served.end()
        events = list(browser)
    assert [event.type for event in events] == ["message", "closing"]
    told = json.loads(events[-1].data)
    assert told["reason"] == "shutdown"
    assert 1000 <= told["retry"] <= 5000
    assert browser.parser.retry == told["retry"]


def test_clients_that_have_gone_leave_nothing(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    browsers = [served.open(f"/events?channel={quote(name)}&stream={quote(name)}").listening() for _ in range(10)]
    assert len(served.gateway.outlets) == 10
    for browser in browsers:
        browser.close()
    eventually(lambda: not served.gateway.outlets)
    assert served.gateway.channels.followers(name) == 0


# -- many readers of one stream


EACH, WRITERS = 120, 4


def write(database: str, stream: str, number: int, chance: random.Random) -> None:
    """Append, three in a transaction, of which some are rolled back first."""
    with psycopg.connect(database) as conn:
        for first in range(0, EACH, 3):
            rolls_back = chance.random() < 0.3
            for end in (conn.rollback, conn.commit) if rolls_back else (conn.commit,):
                for count in range(first, first + 3):
                    pgpubsub.append(conn, stream, f"{number} {count}")
                end()


def read(gateways: list[Served], stream: str, events: list[str], chance: random.Random) -> None:
    """All there will be; now and then from another gateway."""
    place = ""
    path = f"/streams/{quote(stream)}?after=beginning"
    while len(events) < EACH * WRITERS:
        with chance.choice(gateways).open(path, last_event_id=place).listening() as browser:
            for event in take(browser, min(chance.randrange(1, 60), EACH * WRITERS - len(events))):
                events.append(event.data)
                place = event.last_event_id


def test_every_client_gets_every_entry_once_wherever_it_stops(serve: Serve, database: str, name: str) -> None:
    """Writers that overlap and roll back; clients that stop and come again, at one gateway or the other."""
    seed = random.SystemRandom().randrange(10**9)
    print("seed", seed)
    gateways = [serve(), serve()]
    got: list[list[str]] = [[] for _ in range(6)]
    workers = [
        Worker(partial(write, database, name, number, random.Random(seed + number))) for number in range(WRITERS)
    ]
    workers += [Worker(partial(read, gateways, name, events, random.Random(seed - n))) for n, events in enumerate(got)]
    for worker in workers:
        assert worker.outcome() is None
    expected = [[f"{number} {count}" for count in range(EACH)] for number in range(WRITERS)]
    for events in got:
        assert [[event for event in events if event.startswith(f"{number} ")] for number in range(WRITERS)] == expected


def test_clients_that_have_caught_up_share_one_reader(
    served: Served, admin: psycopg.Connection[Any], name: str, at_end: ExitStack
) -> None:
    append(admin, name, *map(str, range(100)))
    path = f"/streams/{quote(name)}?after=beginning"
    browsers = [at_end.enter_context(served.open(path)).listening() for _ in range(5)]
    for browser in browsers:
        assert [event.data for event in take(browser, 100)] == [str(number) for number in range(100)]
    tail = served.gateway.tails.tails[name]

    def all_share() -> bool:
        return all(cursor.log is tail.log for outlet in served.gateway.outlets for cursor in outlet._cursors.values())

    eventually(all_share)
    append(admin, name, "last")
    assert [browser.next().data for browser in browsers] == ["last"] * 5
