"""Clients that do not keep up, and others beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.client import IncompleteRead
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from pgpubsub import Hub
from pgpubsub.web import Limits
from tests.contract.faces import Worker
from tests.contract.test_handler import eventually
from tests.web.conftest import Served

Serve = Callable[..., Served]

LONG = "x" * 7500
"""Three thousand of these are more than the operating system buffers between the gateway and a client."""


def send(conn: psycopg.Connection[Any], channel: str, first: int, last: int) -> None:
    for number in range(first, last):
        conn.execute("SELECT pg_notify(%s, %s)", [channel, f"{number} {LONG}"])


def number(data: str) -> int:
    return int(data.partition(" ")[0])


def test_a_client_that_reads_nothing_delays_nobody(serve: Serve, admin: psycopg.Connection[Any], name: str) -> None:
    served = serve(limits=Limits(buffer=100))
    path = f"/channels/{quote(name)}"
    with served.open(path).listening(), served.open(path).listening() as quick:
        for first in range(0, 3000, 50):
            send(admin, name, first, first + 50)
            assert [number(quick.next().data) for _ in range(50)] == list(range(first, first + 50))


def test_a_slow_client_of_a_channel_goes_on_with_what_is_new_and_is_told_how_many_it_missed(
    serve: Serve, admin: psycopg.Connection[Any], name: str
) -> None:
    served = serve(limits=Limits(buffer=100))
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        send(admin, name, 0, 3000)
        eventually(lambda: served.gateway.counts.received >= 3000)
        expected = missed = 0
        sending = Worker(lambda: send(admin, name, 3000, 4000))
        while expected < 4000:
            event = browser.next()
            if event.type == "gap":
                gap = json.loads(event.data)
                assert gap["reason"] == "overflow"
                missed += gap["count"]
                expected += gap["count"]
            else:
                assert number(event.data) == expected, "something is missing, and no gap stands there"
                expected += 1
        assert missed > 0
        assert sending.outcome() is None
        assert served.gateway.counts.skipped == missed


def test_a_slow_client_may_be_sent_away(serve: Serve, admin: psycopg.Connection[Any], name: str) -> None:
    served = serve(limits=Limits(buffer=100, slow="close"))
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        send(admin, name, 0, 3000)
        events = list(browser)
        *messages, gap, closing = events
        assert [number(event.data) for event in messages] == list(range(len(messages)))
        assert (gap.type, json.loads(gap.data)["reason"]) == ("gap", "overflow")
        assert (closing.type, json.loads(closing.data)["reason"]) == ("closing", "too-slow")


def test_a_slow_client_of_a_stream_gets_all_of_it(serve: Serve, admin: psycopg.Connection[Any], name: str) -> None:
    served = serve(limits=Limits(buffer=100))
    path = f"/streams/{quote(name)}?after=beginning"
    with (
        served.open(path).listening() as browser,
        served.open(path).listening() as quick,
        Hub(admin.info.dsn) as hub,
    ):
        stream = hub.stream(name)
        for first in range(0, 3000, 250):
            stream.append_many([f"{number} {LONG}" for number in range(first, first + 250)])
            assert [number(quick.next().data) for _ in range(250)] == list(range(first, first + 250))
        assert [number(browser.next().data) for _ in range(3000)] == list(range(3000))
        stream.append("3000 last")
        assert browser.next().data == quick.next().data == "3000 last"


@pytest.mark.parametrize("kind", ["channels", "streams"])
def test_who_takes_nothing_for_long_is_cut_off(
    serve: Serve, admin: psycopg.Connection[Any], name: str, kind: str
) -> None:
    served = serve(limits=Limits(stalled=1))
    with served.open(f"/{kind}/{quote(name)}").listening() as browser:
        if kind == "channels":
            send(admin, name, 0, 3000)
        else:
            with Hub(admin.info.dsn) as hub:
                hub.stream(name).append_many([f"{number} {LONG}" for number in range(3000)])
        eventually(lambda: not served.gateway.outlets, 20)
        assert served.gateway.counts.cut_off == 1
        with pytest.raises((ConnectionError, IncompleteRead)):
            list(browser)


def test_what_all_clients_have_is_forgotten(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        send(admin, name, 0, 100)
        assert [number(browser.next().data) for _ in range(100)] == list(range(100))
        log = served.gateway.channels.logs[name]
        eventually(lambda: log.bytes == 0)
        send(admin, name, 100, 101)
        assert number(browser.next().data) == 100
