"""What the gateway tells about itself, and to whom."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import pgpubsub
import pgpubsub.streams
from pgpubsub.testing import TemporaryServer
from pgpubsub.web import Keys
from tests.contract.browser import Browser
from tests.contract.test_handler import eventually
from tests.web.conftest import Served, token

LOOKING = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub overview %'"


def until(browser: Browser, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The first overview for which it holds."""
    for _ in range(60):
        kind, data, _id = browser.next()
        assert kind == "overview"
        told: dict[str, Any] = json.loads(data)
        if condition(told):
            return told
    raise AssertionError(f"not in a minute: {told}")


def named(told: dict[str, Any], kind: str = "streams") -> list[str]:
    return [one["name"] for one in told[kind] or ()]


def bearer(**claims: Any) -> str:
    return f"Bearer {token(**claims)}"


def test_it_tells_of_channels_streams_and_groups(served: Served, database: str, name: str) -> None:
    with pgpubsub.Hub(database) as hub, served.open("/overview") as browser:
        stream = hub.stream(name)
        stream.append_many(["1", "2", "3"])
        with (
            stream.consume("billing") as deliveries,
            served.open(f"/events?channel={quote(name)}&stream={quote(name)}") as follower,
        ):
            follower.listening()
            deliveries.get(timeout=30).acknowledge()
            told = until(browser, lambda told: named(told, "channels") == [name] and name in named(told))
            assert told["server"]["live"]
            assert told["server"]["error"] is None
            assert told["clients"] == 1, "those who watch do not count"
            assert told["channels"] == [{"name": name, "followers": 1, "received": 0}]

            def its(told: dict[str, Any]) -> dict[str, Any]:
                return next(one for one in told["streams"] if one["name"] == name)

            told = until(browser, lambda told: its(told)["groups"] and its(told)["groups"][0]["lag"] == 2)
            assert its(told)["followers"] == 1
            assert its(told)["last"].startswith("20")
            (group,) = its(told)["groups"]
            assert group["name"] == "billing"
            assert group["members"] == 1
            assert group["dead"] == group["held_up"] == 0
            hub.notify(name, "x")
            until(browser, lambda told: told["channels"][0]["received"] == 1)
            stream.append_many(["more"] * 50)
            assert until(browser, lambda told: its(told)["rate"])["unseen"] is None


def test_only_what_may_be_read_is_told(serve: Callable[..., Served], database: str, name: str) -> None:
    served = serve(public=[f"channels/{name} public"])
    with pgpubsub.Hub(database) as hub:
        for suffix in ("", " too"):
            hub.stream(name + suffix).append("x")
    both = f"/events?channel={quote(name)}&channel={quote(name)}%20public"
    with (
        served.open(both, authorization=bearer(read=["*"])) as follower,
        served.open("/overview") as everybody,
        served.open("/overview", authorization=bearer(read=[f"streams/{name}"])) as customer,
        served.open("/overview", authorization=bearer(read=["*"])) as operator,
    ):
        follower.listening()
        told = until(operator, lambda told: told["streams"] and len(told["channels"]) == 2)
        assert {name, f"{name} too"} <= set(named(told))
        told = until(customer, lambda told: told["streams"] and told["channels"])
        assert named(told) == [name]
        assert named(told, "channels") == [f"{name} public"]
        assert told["more"] == 0
        told = until(everybody, lambda told: told["streams"] is not None and told["channels"])
        assert told["streams"] == []
        assert named(told, "channels") == [f"{name} public"]


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"authorization": "Bearer x.y.z"}, 401), ({"authorization": None}, 403)]
)
def test_who_may_read_nothing_is_told_nothing(
    serve: Callable[..., Served], headers: dict[str, str | None], status: int
) -> None:
    served = serve(public=[])
    given = {header: value or bearer(write=["*"]) for header, value in headers.items()}
    with served.open("/overview", **given) as browser:
        assert browser.response.status == status


def test_the_database_is_asked_once_for_all_and_only_while_somebody_watches(
    served: Served, admin: psycopg.Connection[Any]
) -> None:
    def looking() -> int:
        row = admin.execute(LOOKING).fetchone()
        assert row is not None
        return int(row[0])

    assert looking() == 0
    watching = [served.open("/overview", authorization=bearer(read=[f"streams/{one}*"])) for one in range(20)]
    for browser in watching:
        until(browser, lambda told: told["streams"] is not None)
    assert looking() == 1
    for browser in watching:
        browser.close()
    eventually(lambda: looking() == 0)
    with served.open("/overview") as browser:  # and it begins again
        until(browser, lambda told: told["streams"] is not None)


def test_a_lost_connection_is_replaced(served: Served, admin: psycopg.Connection[Any]) -> None:
    terminate = LOOKING.replace("count(*)", "pg_terminate_backend(pid)")
    with served.open("/overview") as browser:
        until(browser, lambda told: told["streams"] is not None)
        admin.execute(terminate)
        until(browser, lambda told: told["unseen"] is None and told["streams"] is not None)
        eventually(lambda: admin.execute(LOOKING).fetchone() == (1,))


def test_a_server_that_does_not_answer_holds_up_nobody(
    server: TemporaryServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgpubsub.web.overview.STUCK", 1.5)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        pgpubsub.streams.install(admin)
        with Served(server.dsn(), public=["*"], keys=keys) as served, served.open("/overview") as browser:
            until(browser, lambda told: told["streams"] is not None)
            row = admin.execute(LOOKING.replace("count(*)", "pid")).fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGSTOP)
            try:
                told = until(browser, lambda told: told["unseen"])
                assert told["unseen"]["code"] == "unavailable"
                assert told["server"]["live"]
                until(browser, lambda told: told["streams"] is not None)  # over another connection
            finally:
                os.kill(row[0], signal.SIGCONT)


def test_ten_thousand_streams_are_no_problem(dsn: str, keys: Keys) -> None:
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("CREATE DATABASE many")
    its = psycopg.conninfo.make_conninfo(dsn, dbname="many")
    try:
        with psycopg.connect(its, autocommit=True) as conn:
            pgpubsub.streams.install(conn)
            conn.execute(
                "SELECT pgpubsub.create_stream('stream ' || one, 'notify') FROM generate_series(1, 10000) AS one"
            )
        with pgpubsub.Hub(its) as hub:
            for one in range(300):
                hub.stream(f"stream {7 * one + 1}").append("x")
            narrow = bearer(read=["streams/stream 1", "streams/stream 9999"])
            with (
                Served(its, keys=keys) as served,
                served.open("/overview", authorization=bearer(read=["*"])) as browser,
                served.open("/overview", authorization=narrow) as customer,
            ):
                told = until(browser, lambda told: told["streams"])
                assert len(told["streams"]) == 200
                assert told["more"] == 9800
                assert told["streams"][0]["name"] == f"stream {7 * 299 + 1}", "the newest first"
                hub.stream("stream 10000").append("x")
                told = until(browser, lambda told: told["streams"][0]["name"] == "stream 10000")
                assert told["streams"][0]["rate"] > 0
                told = until(customer, lambda told: told["streams"])
                assert named(told) == ["stream 1", "stream 9999"], "however old its last entry is"
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("DROP DATABASE many WITH (FORCE)")


def test_streams_that_are_not_there_are_said_to_be_missing(serve: Callable[..., Served]) -> None:
    with serve(schema="elsewhere").open("/overview") as browser:
        told = until(browser, lambda told: told["unseen"])
        assert told["streams"] is None
        assert told["unseen"]["code"] == "not-installed"


def test_a_superuser_does_not_run_what_a_stranger_has_put_there(
    serve: Callable[..., Served], database: str, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Views and functions run with the rights of whoever asks."""
    admin.execute("CREATE ROLE mallory")
    admin.execute("CREATE SCHEMA trap AUTHORIZATION mallory")
    try:
        with psycopg.connect(database) as conn:
            pgpubsub.streams.install(conn, schema="trap")
        admin.execute("CREATE SEQUENCE public.sprung")
        admin.execute(
            "CREATE FUNCTION trap.spring() RETURNS text LANGUAGE sql AS $$ SELECT nextval('public.sprung')::text $$"
        )
        admin.execute("ALTER TABLE trap.stream RENAME TO real_stream")
        admin.execute("CREATE VIEW trap.stream AS SELECT id, name || trap.spring() AS name FROM trap.real_stream")
        admin.execute("ALTER VIEW trap.stream OWNER TO mallory")
        with serve(schema="trap").open("/overview") as browser:
            told = until(browser, lambda told: told["unseen"])
            assert told["unseen"]["code"] == "refused"
            assert "mallory" not in json.dumps(told), "what is inside is for the log"
            assert told["streams"] is None
        assert admin.execute("SELECT is_called FROM public.sprung").fetchone() == (False,)
        assert [one for one in caplog.messages if "belong to role 'mallory'" in one]
        assert len([one for one in caplog.messages if "the page cannot show streams" in one]) == 1, "told once"
    finally:
        admin.execute("DROP SCHEMA trap CASCADE")
        admin.execute("DROP SEQUENCE IF EXISTS public.sprung")
        admin.execute("DROP ROLE mallory")


def test_a_token_that_expires_ends_it(serve: Callable[..., Served]) -> None:
    served = serve(public=[])
    with served.open("/overview", authorization=bearer(read=["*"], ends_in=3)) as browser:
        events = list(browser)
        assert events[-1].type == "closing"
        assert json.loads(events[-1].data)["reason"] == "expired"


def test_who_watches_is_told_of_the_end(served: Served) -> None:
    with served.open("/overview") as browser:
        until(browser, lambda told: told["streams"] is not None)
        served.end()
        assert list(browser)[-1].type == "closing"


def test_without_the_database_it_goes_on_telling(serve: Callable[..., Served], dsn: str) -> None:
    with serve(psycopg.conninfo.make_conninfo(dsn, port="1", connect_timeout="2")).open("/overview") as browser:
        told = until(browser, lambda told: told["unseen"])
        assert told["unseen"] == {"code": "unavailable", "detail": "the database cannot be reached"}
        assert not told["server"]["live"]
        assert told["server"]["error"] == "the database cannot be reached"
