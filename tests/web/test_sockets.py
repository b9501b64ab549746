"""WebSockets."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time
from typing import Any

import psycopg
import pytest
import websockets.exceptions
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import ClientConnection, connect

import pgpubsub
from pgpubsub import Hub
from pgpubsub.web import Limits
from pgpubsub.web.sockets import FIELDS
from tests.contract.faces import payloads, take
from tests.contract.test_handler import eventually
from tests.web.conftest import Served, token
from tests.web.described import check_frame

Serve = Callable[..., Served]


class Client:
    """One that numbers its requests."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self._ref = 0
        self.events: list[Any] = []

    def ask(self, type: str, **fields: Any) -> Any:
        """The answer; what comes before it is kept."""
        self._ref += 1
        request = {"type": type, "ref": self._ref, **fields}
        self.socket.send(json.dumps(request))
        while (told := self.receive())["type"] not in ("ok", "error") or told["ref"] != self._ref:
            self.events.append(told)
        if told["type"] == "ok":
            check_frame(request)
        return told

    def receive(self) -> Any:
        told = json.loads(self.socket.recv(timeout=30))
        check_frame(told)
        return told

    def next(self) -> Any:
        """The next event."""
        return self.events.pop(0) if self.events else self.receive()


@contextmanager
def client(served: Served, bearer: str | None = None, **options: Any) -> Iterator[Client]:
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    with connect(f"ws://127.0.0.1:{served.port}/ws", additional_headers=headers, proxy=None, **options) as socket:
        yield Client(socket)


def test_a_channel_is_followed_until_it_is_left(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    with client(served) as it:
        assert it.ask("subscribe", channel=name) == {"type": "ok", "ref": 1, "channel": name}
        pgpubsub.notify(admin, name, "hällo")
        assert it.next() == {"type": "message", "channel": name, "payload": "hällo"}
        assert it.ask("unsubscribe", channel=name) == {"type": "ok", "ref": 2, "channel": name}
        pgpubsub.notify(admin, name, "nobody gets this")
        assert it.ask("subscribe", channel=name + "!")["type"] == "ok"
        pgpubsub.notify(admin, name + "!", "1")
        assert it.next()["payload"] == "1"


def test_a_stream_is_followed_from_a_position(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    for payload in ("1", b"\xff", "3"):
        pgpubsub.append(admin, name, payload, key="k")
    with client(served) as it:
        assert it.ask("subscribe", stream=name, after="beginning")["type"] == "ok"
        entries = [it.next() for _ in range(3)]
        assert [entry.get("payload") for entry in entries] == ["1", None, "3"]
        assert entries[1]["base64"] == "/w=="
        assert {entry["key"] for entry in entries} == {"k"}
    with client(served) as it:
        assert it.ask("subscribe", stream=name, after=entries[0]["position"])["position"] == entries[0]["position"]
        assert [it.next()["id"] for _ in range(2)] == [entry["id"] for entry in entries[1:]]


def test_what_is_published_is_sent_when_it_is_answered(served: Served, database: str, name: str) -> None:
    with Hub(database) as hub, hub.subscribe(name) as events, client(served, token(write=["*"])) as it:
        assert it.ask("publish", channel=name, payload="1") == {"type": "ok", "ref": 1}
        assert payloads(take(events, 1)) == ["1"]
        first = it.ask("publish", stream=name, payload="1", key="k", headers={"a": 1}, idempotency_key="i")
        assert it.ask("publish", stream=name, payload="1", idempotency_key="i")["id"] == first["id"]
        assert it.ask("publish", stream=name, base64="/w==")["id"] > first["id"]
        with hub.stream(name).read(follow=False) as reader:
            assert [(one.payload, one.key, one.headers) for one in reader] == [  # type: ignore[union-attr]
                ("1", "k", {"a": 1}),
                (b"\xff", None, None),
            ]


def test_who_follows_what_it_publishes_gets_it(served: Served, name: str) -> None:
    with client(served, token(write=["*"])) as it:
        it.ask("subscribe", channel=name)
        for number in range(100):
            assert it.ask("publish", channel=name, payload=str(number))["type"] == "ok"
        assert [it.next()["payload"] for _ in range(100)] == [str(number) for number in range(100)]


@pytest.mark.parametrize(
    ("frame", "status", "code"),
    [
        ("", 400, "bad-request"),
        ("{", 400, "bad-request"),
        ("[]", 400, "bad-request"),
        ("[" * 5000, 400, "bad-request"),
        ('{"type": "shout"}', 400, "bad-request"),
        ('{"type": ["subscribe"]}', 400, "bad-request"),
        ('{"type": "subscribe"}', 400, "bad-request"),
        ('{"type": "subscribe", "channel": "a", "stream": "b"}', 400, "bad-request"),
        ('{"type": "subscribe", "channel": 1}', 400, "bad-request"),
        ('{"type": "subscribe", "chanel": "a"}', 400, "bad-request"),
        ('{"type": "subscribe", "channel": "a", "after": "end"}', 400, "bad-request"),
        ('{"type": "subscribe", "channel": ""}', 400, "bad-name"),
        ('{"type": "subscribe", "stream": "a", "after": "x"}', 400, "bad-position"),
        ('{"type": "subscribe", "channel": "pgpubsub.heartbeat"}', 403, "reserved"),
        ('{"type": "unsubscribe", "channel": "a"}', 404, "not-followed"),
        ('{"type": "publish", "channel": "a"}', 401, "unauthorized"),
        ('{"type": "authenticate"}', 400, "bad-request"),
        ('{"type": "authenticate", "token": "x"}', 401, "bad-token"),
        ('{"type": "subscribe", "channel": "a", "ref": {}}', 400, "bad-request"),
    ],
)
def test_what_cannot_be_is_answered_and_the_socket_goes_on(
    served: Served, name: str, frame: str, status: int, code: str
) -> None:
    with client(served) as it:
        it.socket.send(frame)
        told = it.receive()
        assert (told["type"], told["status"], told["code"]) == ("error", status, code)
        assert it.ask("subscribe", channel=name)["type"] == "ok"
        assert it.ask("subscribe", channel=name)["code"] == "followed"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"channel": "a", "payload": "\0"}, "bad-payload"),
        ({"channel": "a", "payload": "x", "base64": "x"}, "bad-request"),
        ({"channel": "a", "base64": "/w=="}, "bad-payload"),
        ({"stream": "a", "base64": "!"}, "bad-payload"),
        ({"channel": "a", "key": "k"}, "bad-request"),
        ({"channel": "a", "payload": "\ud800"}, "bad-payload"),
        ({"channel": "a", "payload": "x" * 1001}, "too-large"),
        ({"channel": "a", "payload": "é" * 501}, "too-large"),
        ({"stream": "a", "payload": "1", "headers": [1]}, "bad-request"),
    ],
)
def test_what_cannot_be_published_is_refused(serve: Serve, fields: dict[str, Any], code: str) -> None:
    with client(serve(limits=Limits(message_bytes=1000)), token(write=["*"])) as it:
        told = it.ask("publish", **fields)
        assert (told["type"], told["code"]) == ("error", code)


def test_what_was_sent_is_not_sent_back_in_full(served: Served) -> None:
    """Who takes no answers has them kept: they are short."""
    long = "x" * 100_000
    refused = [
        {"type": "subscribe", "channel": long},
        {"type": "subscribe", "channel": long + "\0"},
        {"type": "subscribe", "stream": long},
        {"type": "subscribe", "stream": "a", "after": long},
        {"type": "subscribe", "channel": [long]},
        {"type": "subscribe", long: "a"},
        {"type": long},
        {"type": "authenticate", "token": long},
        {"type": "subscribe", "channel": "a", "ref": long},
        {"type": "publish", "channel": long, "payload": "1"},
        {"type": "publish", "stream": "a", "key": [long], "payload": "1"},
    ]
    with client(served, token(write=["*"])) as it:
        for request in refused:
            it.socket.send(json.dumps(request))
            told = it.receive()
            assert told["type"] == "error"
            assert len(json.dumps(told)) < 500


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5),
    st.sampled_from(sorted(FIELDS)),
    st.dictionaries(
        st.sampled_from(["channel", "stream", "after", "payload", "ref", "token", "key", "x"]), st.text(), max_size=4
    ),
)
def test_whatever_comes_is_answered(serve: Serve, value: Any, kind: str, fields: dict[str, str]) -> None:
    served = serve() if not hasattr(serve, "served") else serve.served
    serve.served = served  # type: ignore[attr-defined]
    with client(served) as it:
        for frame in (value, {"type": kind, **fields}, {"type": kind, **fields, "channel": value}):
            it.socket.send(json.dumps(frame))
            assert it.receive()["type"] in ("ok", "error")


def test_a_token_may_come_later_and_be_renewed(serve: Serve, admin: psycopg.Connection[Any], name: str) -> None:
    served = serve(public=[])
    with client(served) as it:
        assert it.ask("subscribe", channel=name)["code"] == "unauthorized"
        short = token(read=[f"channels/{name}", "channels/other"], ends_in=2)
        assert it.ask("authenticate", token=short)["expires"] == pytest.approx(time() + 2, abs=2)
        it.ask("subscribe", channel=name)
        it.ask("subscribe", channel="other")
        answer = it.ask("authenticate", token=token(read=[f"channels/{name}"], ends_in=60))
        assert answer["following"] == [{"channel": name}]
        eventually(lambda: time() > json.loads(json.dumps(answer["expires"])) - 57)  # the first has ended
        pgpubsub.notify(admin, "other", "not this")
        pgpubsub.notify(admin, name, "1")
        assert it.next()["payload"] == "1"
        assert it.ask("authenticate", token=short)["code"] == "expired"
        assert it.ask("publish", channel=name)["code"] == "forbidden"


def test_the_end_of_the_token_closes_the_socket(serve: Serve, name: str) -> None:
    served = serve(public=[])
    with client(served, token(read=["*"], ends_in=2)) as it:
        it.ask("subscribe", channel=name)
        assert it.receive() == {
            "type": "closing",
            "reason": "expired",
            "detail": "the token has expired: connect again with a new one",
        }
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            it.receive()
    assert caught.value.rcvd is not None
    assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "expired")


def test_the_end_of_the_server_closes_the_socket_after_what_has_come(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    with client(served) as it:
        it.ask("subscribe", channel=name)
        pgpubsub.notify(admin, name, "1")
        eventually(lambda: served.gateway.counts.received)
        served.end()
        assert it.next()["payload"] == "1"
        assert it.next()["reason"] == "shutdown"
        with pytest.raises(websockets.exceptions.ConnectionClosed) as caught:
            it.receive()
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1012


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer x"}, {"Origin": "https://elsewhere.example"}])
def test_who_may_not_connect_is_told_before(served: Served, headers: dict[str, str]) -> None:
    with pytest.raises(websockets.exceptions.InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{served.port}/ws", additional_headers=headers, proxy=None)
    response = caught.value.response
    assert response.status_code == (403 if "Origin" in headers else 401)
    assert json.loads(response.body or b"")["code"] in ("origin", "bad-token")


def test_a_frame_that_is_far_too_long_closes_the_socket(serve: Serve) -> None:
    with client(serve(limits=Limits(message_bytes=1000))) as it:
        it.socket.send("x" * 7000)
        assert it.receive()["code"] == "too-large"


def test_sockets_that_have_gone_leave_nothing(served: Served, name: str) -> None:
    for _ in range(5):
        with client(served) as it:
            it.ask("subscribe", channel=name)
    eventually(lambda: not served.gateway.outlets)
    assert served.gateway.channels.followers(name) == 0
