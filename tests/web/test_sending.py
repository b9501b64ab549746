"""What clients send by POST, and who may."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg
import pytest

from pgpubsub import Hub
from pgpubsub.web import Limits
from tests.contract.faces import payloads, take
from tests.web.conftest import Served, token

Serve = Callable[..., Served]

MAY = token(write=["*"])


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def told(self) -> Any:
        return json.loads(self.body)


def post(served: Served, path: str, body: bytes = b"", bearer: str | None = MAY, **headers: str) -> Answer:
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    its = {name.replace("_", "-"): value for name, value in headers.items()}
    if bearer is not None:
        its["Authorization"] = f"Bearer {bearer}"
    client.request("POST", path, body, its)
    response = client.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    client.close()
    return answer


def stored(admin: psycopg.Connection[Any], stream: str) -> list[tuple[Any, ...]]:
    with Hub(admin.info.dsn) as hub, hub.stream(stream).read(follow=False) as reader:
        return [(event.payload, event.key, event.headers) for event in reader]  # type: ignore[union-attr]


def test_a_channel_gets_the_body(served: Served, database: str, name: str) -> None:
    with Hub(database) as hub, hub.subscribe(name) as events:
        answer = post(served, f"/channels/{quote(name)}", "hällo\n".encode())
        assert (answer.status, answer.body) == (204, b"")
        assert post(served, f"/channels/{quote(name)}").status == 204
        assert payloads(take(events, 2)) == ["hällo\n", ""]


def test_a_stream_gets_the_body_with_its_key_and_headers(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    path = f"/streams/{quote(name)}"
    first = post(served, path + "?key=k&headers=" + quote('{"a": [1]}'), "hällo".encode())
    second = post(served, path, b"\x00\xff", content_type="application/octet-stream")
    assert (first.status, second.status) == (201, 201)
    assert first.told["id"] < second.told["id"]
    assert stored(admin, name) == [("hällo", "k", {"a": [1]}), (b"\x00\xff", None, None)]


def test_what_is_repeated_with_its_idempotency_key_is_stored_once(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    answers = [post(served, f"/streams/{quote(name)}", b"1", idempotency_key="i") for _ in range(3)]
    assert [answer.told for answer in answers] == [answers[0].told] * 3
    assert len(stored(admin, name)) == 1


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("/channels/a", b"\xff", {}, 400, "bad-payload"),
        ("/channels/a", b"\x00", {}, 400, "bad-payload"),
        ("/channels/a", b"\xff", {"content_type": "application/octet-stream"}, 415, "bad-payload"),
        ("/channels/a?key=k", b"", {}, 400, "bad-request"),
        ("/channels/" + "x" * 64, b"", {}, 400, "bad-name"),
        ("/channels/pgpubsub.heartbeat", b"", {}, 403, "reserved"),
        ("/channels/pgpubsub%20layer%20x", b"", {}, 403, "reserved"),
        ("/streams/a?headers=1", b"", {}, 400, "bad-request"),
        ("/streams/a?idempotency_key=i", b"", {}, 400, "bad-request"),
        ("/streams/a?headers={", b"", {}, 400, "bad-request"),
        ("/streams/" + "x" * 1001, b"", {}, 400, "bad-name"),
        ("/channels/a", b"x" * 1001, {}, 413, "too-large"),
        ("/events", b"", {}, 405, "method-not-allowed"),
    ],
)
def test_what_cannot_be_sent_is_refused(
    serve: Serve, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    served = serve(limits=Limits(message_bytes=1000))
    answer = post(served, path, body, **headers)
    assert (answer.status, answer.told["code"]) == (status, code)


def test_a_body_without_a_length_is_measured_as_it_comes(serve: Serve) -> None:
    served = serve(limits=Limits(message_bytes=1000))
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    client.request(
        "POST", "/channels/a", iter([b"x" * 600] * 3), {"Authorization": f"Bearer {MAY}"}, encode_chunked=True
    )
    assert client.getresponse().status == 413
    client.close()


@pytest.mark.parametrize(
    ("bearer", "status", "code"),
    [
        (None, 401, "unauthorized"),
        ("nonsense", 401, "bad-token"),
        (token(read=["*"]), 403, "forbidden"),
        (token(write=["streams/*", "channels/b"]), 403, "forbidden"),
        (token(write=["channels/a"], ends_in=-1), 401, "expired"),
    ],
)
def test_nobody_writes_without_a_token_that_says_so(served: Served, bearer: str | None, status: int, code: str) -> None:
    """Though everybody may read everything here."""
    answer = post(served, "/channels/a", b"", bearer)
    assert (answer.status, answer.told["code"]) == (status, code)
    assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_no_token_writes_where_there_are_no_keys(serve: Serve) -> None:
    assert post(serve(keys=None), "/channels/a").status == 401


@pytest.mark.parametrize("authorization", ["Basic dTpw", "Bearer", "Bearer  ", "Bearer " + "x" * 20_000, "x"])
def test_what_is_no_bearer_token_is_refused(served: Served, authorization: str) -> None:
    answer = post(served, "/channels/a", b"", None, authorization=authorization)
    assert (answer.status, answer.told["code"]) == (401, "bad-token")


def test_an_idempotency_key_in_the_query_is_told_where_it_belongs(served: Served) -> None:
    answer = post(served, "/streams/a?idempotency_key=i", b"1")
    assert "Idempotency-Key is a header" in answer.told["detail"]


def test_who_sends_too_often_is_told_when_to_go_on(serve: Serve) -> None:
    served = serve(limits=Limits(rate=0.5))
    other = token(write=["*"], sub="other")
    answers = [post(served, "/channels/a") for _ in range(6)]
    assert [answer.status for answer in answers] == [204] * 5 + [429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 2
    assert post(served, "/channels/a", b"", other).status == 204, "the limit is each one's own"


def test_a_full_disk_or_a_queue_is_not_told_in_the_servers_words(
    serve: Serve, admin: psycopg.Connection[Any], name: str
) -> None:
    admin.execute("CREATE ROLE reader LOGIN")
    try:
        admin.execute("GRANT USAGE ON SCHEMA pgpubsub TO reader")
        served = serve(psycopg.conninfo.make_conninfo(admin.info.dsn, user="reader"))
        answer = post(served, f"/streams/{quote(name)}", b"1")
        assert (answer.status, answer.told["code"]) == (502, "refused")
        assert "permission" not in answer.told["detail"]
    finally:
        admin.execute("DROP OWNED BY reader")
        admin.execute("DROP ROLE reader")
