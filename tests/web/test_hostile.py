"""What clients may try."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
import websockets.exceptions

from pgpubsub import Hub, Notify
from pgpubsub.web import Keys, Limits, create_app
from pgpubsub.web.access import Patterns
from pgpubsub.web.problems import Problem
from tests.contract.conftest import database_in
from tests.contract.faces import Worker
from tests.contract.test_handler import eventually
from tests.web.conftest import SECRET, Served, token
from tests.web.test_app import get
from tests.web.test_sockets import client

Serve = Callable[..., Served]


@pytest.mark.parametrize("pattern", ["channels/*.*.*.*.*.*.*.*z", "channels/*a*a*a*a*a*a*a*a*z"])
def test_no_pattern_takes_long(pattern: str) -> None:
    """With regular expressions, some take longer than the universe is old."""
    patterns = Patterns([pattern])
    assert not patterns.match("channels/" + ".a" * 500)
    assert patterns.match("channels/" + ".a" * 500 + "z")


def test_refused_frames_leave_nothing(serve: Serve) -> None:
    served = serve(public=[], limits=Limits(rate=10_000, message_bytes=1 << 20))
    with client(served) as it:
        for _ in range(20):
            it.socket.send("x" * (2 << 20))
            it.receive()
        before = resident()
        for _ in range(200):
            it.socket.send("x" * (2 << 20))
            it.receive()
        assert resident() - before < 100 << 20


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_cannot_be_listened_to_is_followed_by_nobody(serve: Serve, database: str) -> None:
    """What is followed costs a client nothing to ask for."""
    with database_in("LATIN1", database) as other:
        served = serve(psycopg.conninfo.make_conninfo(database, dbname=other))
        for _ in range(2):
            with served.open(f"/channels/{quote('日本')}") as browser:
                assert browser.response.status == 502
            assert "日本" not in served.gateway.channels
            assert len(served.gateway.channels) == 0
        served.end()


@pytest.mark.parametrize("ref", ["x" * 201, "\ud800", float("nan"), float("inf"), 10**300])
def test_a_ref_is_short_and_can_be_sent_back(serve: Serve, ref: Any) -> None:
    with client(serve()) as it:
        it.socket.send(json.dumps({"type": "subscribe", "channel": "a", "ref": ref}))
        assert it.receive()["code"] == "bad-request"


def test_nobody_publishes_when_the_token_has_ended(serve: Serve, database: str, name: str) -> None:
    """However busy the connection is."""
    served = serve(limits=Limits(rate=100_000))
    end = time() + 2
    with (
        Hub(database) as hub,
        hub.subscribe(name, capacity=10**6) as heard,
        client(served, token(write=["*"], ends_in=2)) as it,
    ):

        def publish() -> None:
            while True:
                it.socket.send(json.dumps({"type": "publish", "channel": name, "payload": str(time())}))

        publishing = Worker(publish)
        told = it.receive()
        while told["type"] == "ok":
            told = it.receive()
        assert told["reason"] == "expired"
        assert isinstance(publishing.outcome(), websockets.exceptions.ConnectionClosed)
        sent = []
        while (event := heard.get_nowait()) is not None:
            assert isinstance(event, Notify)
            sent.append(float(event.payload))
        assert sent
        assert max(sent) < end + 0.2


def test_a_client_that_may_do_nothing_says_soon_who_it_is(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgpubsub.web.sockets.TO_AUTHENTICATE", 0.2)
    served = serve(public=[])
    with client(served) as it:
        assert it.receive()["reason"] == "expired"
    with client(served) as it:
        assert it.ask("authenticate", token=token(read=["*"]))["type"] == "ok"
        begun = perf_counter()
        eventually(lambda: perf_counter() > begun + 1)
        assert it.ask("subscribe", channel="a")["type"] == "ok"


@pytest.mark.parametrize(
    "origin", ["http://[", "file://gateway", "chrome-extension://gateway", "http://", "https://x y"]
)
def test_what_is_no_origin_is_refused(served: Served, origin: str) -> None:
    assert get(served, "/healthz", origin=origin, host="gateway")[0] == 403


@pytest.mark.parametrize(
    "origin", ["https://A.example", "https://a.example:443", "https://*.a.example", "https://u:p@a.example", "https://"]
)
def test_an_origin_that_no_browser_sends_is_an_error(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        create_app("", origins=[origin])


@pytest.mark.parametrize("place", ["t999999999999999", "t1.x", "t", "..", "t1..", "x" * 10_000])
def test_a_place_that_is_none_is_refused(served: Served, place: str) -> None:
    with served.open("/streams/a", last_event_id=place) as browser:
        assert browser.response.status == 400


def test_what_the_server_says_of_itself_stays_here(
    serve: Serve, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgpubsub.web.gateway.TO_CONNECT", 0.2)
    served = serve("host=127.0.0.1 port=1 user=secretuser dbname=secretdb connect_timeout=2")
    status, _, text = get(served, "/readyz")
    assert (status, text) == (503, "the database cannot be reached\n")
    assert "port 1 failed" in caplog.text


def test_what_the_database_refuses_is_in_the_log(
    serve: Serve, admin: psycopg.Connection[Any], caplog: pytest.LogCaptureFixture
) -> None:
    admin.execute("CREATE ROLE visitor LOGIN")
    try:
        served = serve(psycopg.conninfo.make_conninfo(admin.info.dsn, user="visitor"))
        with served.open("/streams/a") as browser:
            assert browser.response.status in (502, 503)
            assert b"permission" not in browser.response.read()
        assert "permission denied" in caplog.text
    finally:
        admin.execute("DROP ROLE visitor")


@pytest.mark.parametrize("content", ["-----BEGIN PUBLIC KEY-----\n" + "x" * 60, '{"keys": []}' + " " * 60])
def test_a_key_is_not_taken_for_a_secret(tmp_path: Path, content: str) -> None:
    (tmp_path / "secret").write_text(content)
    with pytest.raises(ValueError, match="--jwt-key"):
        Keys(secret=tmp_path / "secret")


@pytest.mark.parametrize("content", ['{"keys": ["a"]}', '{"keys": null}', '{"keys": [{"kty": "RSA"}]}', "{"])
def test_keys_that_are_none_are_an_error_that_names_the_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "keys").write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        Keys(key=tmp_path / "keys")


def test_keys_that_cannot_be_read_any_more_are_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "secret"
    path.write_text(SECRET)
    keys = Keys(secret=path)
    path.unlink()
    for _ in range(3):
        assert keys.grant(token())
    assert caplog.text.count("cannot be read") == 1
    with pytest.raises(Problem):
        keys.grant("x")


@pytest.mark.parametrize("path", ["/channels/x*4000", "/events?format=x*4000&channel=a", "/events?x*4000=a"])
def test_what_was_asked_is_not_told_back_in_full(served: Served, path: str) -> None:
    status, _, text = get(served, path.replace("x*4000", "x" * 4000))
    assert status == 400
    assert len(text) < 500


@pytest.mark.parametrize("path", ["/channels/a", "/overview"])
def test_a_head_is_answered_and_over(served: Served, path: str) -> None:
    with served.open(path, method="HEAD") as browser:
        assert browser.response.status == 200
        assert browser.response.headers["content-type"].startswith("text/event-stream")
    assert not served.gateway.outlets
