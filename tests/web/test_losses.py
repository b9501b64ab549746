"""Where a gateway could lose something in silence, or tell of a loss that there is none of."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg

import pgpubsub
import pgpubsub.streams
from pgpubsub import Hub
from pgpubsub.testing import TemporaryServer
from pgpubsub.web import Limits
from tests.contract.browser import Browser
from tests.contract.test_handler import eventually
from tests.system.streams import one
from tests.system.test_hub_server_faults import backend
from tests.system.test_streams_crashes import crash_and_restart, nothing_flushed_in_between
from tests.web.conftest import Served

Serve = Callable[..., Served]


def take(browser: Browser, count: int) -> list[tuple[str, str]]:
    events = [browser.next() for _ in range(count)]
    return [(event.type, event.data) for event in events]


def test_what_a_crash_has_taken_back_is_told_wherever_a_client_comes_again(
    server: TemporaryServer, serve: Serve
) -> None:
    """Others have the ids of the transactions that were lost: only the entries themselves tell them apart."""
    dsn = server.dsn()
    newest = "SELECT max(xid::text::bigint) FROM pgpubsub.entry"
    with psycopg.connect(dsn) as conn:
        pgpubsub.streams.install(conn)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("ALTER SYSTEM SET synchronous_commit = off")
        admin.execute("SELECT pg_reload_conf()")
        eventually(lambda: one(admin, "SHOW synchronous_commit") == "off")
        pgpubsub.append(admin, "s", "kept")
        admin.execute("CHECKPOINT")
        served, other = serve(dsn), serve(dsn)
        with served.open("/streams/s?after=beginning").listening() as browser, nothing_flushed_in_between(server):
            assert take(browser, 1) == [("message", "kept")]
            for number in range(3):
                pgpubsub.append(admin, "s", f"lost {number}")
            assert len(take(browser, 3)) == 3
            place, last = browser.last_event_id, one(admin, newest)
            restart = crash_and_restart(server)
        restart()
    with psycopg.connect(dsn, autocommit=True) as admin:
        assert one(admin, "SELECT count(*) FROM pgpubsub.entry") == 1, "they were flushed, and nothing is lost"
        while one(admin, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint") < last:
            admin.execute("SELECT pg_current_xact_id()")
        pgpubsub.append(admin, "s", "new")
        assert one(admin, newest) == last, "it has the id of one that was lost"
    for gateway in (served, other):
        with gateway.open("/streams/s", last_event_id=place).listening() as browser:
            events = take(browser, 1)
            while events[-1][1] != "new":
                events += take(browser, 1)
        assert json.loads(events[0][1])["reason"] == "rewound"


def test_a_burst_is_no_gap_for_who_is_quick(serve: Serve, database: str, name: str) -> None:
    served = serve(limits=Limits(buffer=100))
    with served.open(f"/channels/{quote(name)}").listening() as browser, Hub(database) as hub:
        hub.notify_many((name, str(number)) for number in range(3000))
        assert take(browser, 3000) == [("message", str(number)) for number in range(3000)]


def test_a_burst_lets_nobody_fall_out_of_the_shared_reader(serve: Serve, database: str, name: str) -> None:
    served = serve(limits=Limits(buffer=100))
    with served.open(f"/streams/{quote(name)}").listening() as browser, Hub(database) as hub:
        log = served.gateway.tails.tails[name].log
        hub.stream(name).append_many(map(str, range(3000)))
        assert take(browser, 3000) == [("message", str(number)) for number in range(3000)]
        assert [outlet_log for outlet in served.gateway.outlets for outlet_log, _ in outlet.places()] == [log]


def test_what_retention_removes_while_a_client_waits_at_the_beginning_is_told(
    serve: Serve, admin: psycopg.Connection[Any], name: str
) -> None:
    served, other = serve(keep_alive=0.1), serve()
    with served.open(f"/streams/{quote(name)}?after=beginning").listening() as browser:
        begun = browser.last_event_id
        while browser.last_event_id == begun:
            browser.parser.feed(browser.line() or "")  # a comment says that it stands somewhere else
    pgpubsub.streams.create(admin, name, max_entries=10)
    with Hub(admin.info.dsn) as hub:
        hub.stream(name).append_many(map(str, range(100)))
    pgpubsub.streams.trim(admin, name)
    with other.open(f"/streams/{quote(name)}", last_event_id=browser.last_event_id).listening() as browser:
        (gap, first) = take(browser, 2)
    assert json.loads(gap[1])["reason"] == "trimmed"
    assert first == ("message", "90")


def test_an_entry_with_headers_beyond_pythons_json_is_delivered(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    path = f"/streams/{quote(name)}"
    with served.open(path).listening() as browser:
        pgpubsub.append(admin, name, "1")
        headers = '{"n": ' + "1" * 5000 + "}"
        admin.execute("SELECT pgpubsub.append(%s, '2', NULL, %s::jsonb)", [name, headers])
        pgpubsub.append(admin, name, "3")
        assert [data for _, data in take(browser, 3)] == ["1", "2", "3"]
    with served.open(path + "?after=beginning").listening() as browser:
        assert [data for _, data in take(browser, 3)] == ["1", "2", "3"]


def test_a_gap_that_is_skipped_leaves_no_count(serve: Serve, admin: psycopg.Connection[Any], name: str) -> None:
    """Of a client that takes nothing while the connection to the database is lost as well."""
    served = serve(limits=Limits(buffer=100))
    long = "x" * 7500
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        log = served.gateway.channels.logs[name]
        for _ in range(2):
            for number in range(1500):
                admin.execute("SELECT pg_notify(%s, %s)", [name, f"{number} {long}"])
            gap = log.incomplete
            admin.execute("SELECT pg_terminate_backend(%s)", [backend(admin, "listen")])
            eventually(lambda: log.incomplete > gap)  # noqa: B023  # which comes when the channel is live again
        for number in range(1000):
            admin.execute("SELECT pg_notify(%s, %s)", [name, f"{number} {long}"])
        admin.execute("SELECT pg_notify(%s, 'end')", [name])
        eventually(lambda: [getattr(item.event, "payload", "") for item in log.items(log.end - 1, log.end)] == ["end"])
        event = browser.next()
        while event.type != "gap" or json.loads(event.data)["reason"] != "overflow":
            event = browser.next()
        assert json.loads(event.data)["count"] is None
