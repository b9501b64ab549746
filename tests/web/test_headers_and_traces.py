"""Headers beside what is sent and followed, and the traces that go through a gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

import pgpubsub
from pgpubsub import AsyncHub, Hub
from tests.contract.faces import take
from tests.contract.spans import Recorded, attributes, is_child, links
from tests.web.conftest import Served, token
from tests.web.test_app import get
from tests.web.test_sending import MAY, post, stored
from tests.web.test_serving import Gateway
from tests.web.test_sockets import client

Serve = Callable[..., Served]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def tracing(serve: Serve, database: str, recorded: Recorded) -> Served:
    """A gateway that traces."""
    return serve(AsyncHub(database, tracing=recorded.telemetry))


# -- headers


def test_a_channels_messages_have_headers_too(served: Served, database: str, name: str) -> None:
    with Hub(database) as hub, hub.subscribe(name) as events:
        assert post(served, f"/channels/{quote(name)}?headers=" + quote('{"by": ["Ann"]}'), b"17").status == 204
        with client(served, MAY) as it:
            assert it.ask("publish", channel=name, payload="18", headers={"by": "Bob"})["type"] == "ok"
            assert it.ask("publish", channel=name, payload="19", headers=None)["type"] == "ok"
        received: list[Any] = take(events, 3)
    assert [(event.payload, event.headers) for event in received] == [
        ("17", {"by": ["Ann"]}),
        ("18", {"by": "Bob"}),
        ("19", None),
    ]


def test_headers_are_shown_where_there_are_some(served: Served, admin: psycopg.Connection[Any], name: str) -> None:
    path = f"/channels/{quote(name)}"
    with (
        served.open(path).listening() as plain,
        served.open(path + "?format=json").listening() as browser,
        client(served) as it,
    ):
        it.ask("subscribe", channel=name)
        pgpubsub.notify(admin, name, "17", headers={"by": "Ann"})
        pgpubsub.notify(admin, name, "18")
        one = {"type": "message", "channel": name, "payload": "17", "headers": {"by": "Ann"}}
        other = {"type": "message", "channel": name, "payload": "18"}
        assert [plain.next().data, plain.next().data] == ["17", "18"]
        assert [json.loads(browser.next().data) for _ in range(2)] == [one, other]
        assert [it.next(), it.next()] == [one, other]


@pytest.mark.parametrize("headers", ["[]", '{"a":"\\u0000"}', '{"a":"' + "x" * (1 << 16) + '"}'])
def test_headers_that_cannot_be_sent_are_refused(served: Served, name: str, headers: str) -> None:
    with client(served, MAY) as it:
        answer = it.ask("publish", channel=name, payload="17", headers=json.loads(headers))
    assert (answer["type"], answer["status"] in (400, 413)) == ("error", True)


@pytest.mark.parametrize("depth", [50, 900, 940, 960, 970, 980, 990])
@pytest.mark.parametrize("kind", ["channel", "stream"])
def test_headers_however_deep_end_nobodys_connection(served: Served, name: str, kind: str, depth: int) -> None:
    """At some depth they can be read, and are too deep for whoever writes them further up."""
    with client(served, token(write=["*"], read=["*"])) as it:
        it.ask("subscribe", **{kind: name})
        deep = '{"a":' * depth + "1" + "}" * depth
        for payload, headers in (("deep", deep), ("after", "{}")):
            it.socket.send(
                f'{{"type":"publish","{kind}":{json.dumps(name)},"payload":"{payload}","headers":{headers}}}'
            )
        while '"payload":"after"' not in (frame := it.socket.recv(timeout=30)):
            assert '"type":"closing"' not in frame


# -- traces


def test_one_trace_runs_from_a_request_to_a_stream_and_who_follows_it(
    tracing: Served, recorded: Recorded, admin: psycopg.Connection[Any], database: str, name: str
) -> None:
    path = f"/streams/{quote(name)}"
    with tracing.open(path + "?format=json").listening() as browser:
        answer = post(tracing, path + "?headers=" + quote('{"by": "Ann"}'), b"17", traceparent=PARENT)
        assert answer.status == 201
        followed = json.loads(browser.next().data)["headers"]
    [sent] = recorded.sent
    assert sent.context is not None
    assert sent.parent is not None
    assert f"{sent.context.trace_id:032x}" == TRACE
    assert f"{sent.parent.span_id:x}" == "b7ad6b7169203331"
    assert followed == {"by": "Ann", "traceparent": f"00-{TRACE}-{sent.context.span_id:016x}-01"}
    with Hub(database, tracing=recorded.telemetry) as hub:
        hub.stream(name).process("billing", lambda entry: None, follow=False)
    [processed] = recorded.processed
    assert is_child(processed, sent)
    assert links(processed, sent)


def test_a_request_to_a_channel_has_a_span_in_its_trace_and_stays_plain_text(
    tracing: Served, recorded: Recorded, database: str, name: str
) -> None:
    with Hub(database) as hub, hub.subscribe(name) as events:
        assert post(tracing, f"/channels/{quote(name)}", b"17", traceparent=PARENT).status == 204
        [event] = take(events, 1)
    assert (event.payload, event.headers) == ("17", None)  # type: ignore[union-attr]
    [sent] = recorded.sent
    assert sent.parent is not None
    assert f"{sent.parent.span_id:x}" == "b7ad6b7169203331"


def test_what_comes_over_a_websocket_has_its_context_in_its_headers(
    tracing: Served, recorded: Recorded, admin: psycopg.Connection[Any], name: str
) -> None:
    with client(tracing, MAY) as it:
        assert it.ask("publish", stream=name, payload="17", headers={"traceparent": PARENT})["type"] == "ok"
        assert it.ask("publish", stream=name, payload="18")["type"] == "ok"
    one, other = recorded.sent
    assert one.context is not None
    assert f"{one.context.trace_id:032x}" == TRACE
    assert other.parent is None
    assert stored(admin, name)[0][2] == {"traceparent": PARENT}


@pytest.mark.parametrize("context", ["", "nonsense", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_request_without_a_valid_context_begins_a_trace(
    tracing: Served, recorded: Recorded, name: str, context: str
) -> None:
    assert post(tracing, f"/streams/{quote(name)}", b"17", traceparent=context).status == 201
    [sent] = recorded.sent
    assert sent.parent is None


def test_a_request_that_is_refused_by_the_database_ends_its_span(
    serve: Serve, recorded: Recorded, dsn: str, name: str
) -> None:
    served = serve(AsyncHub(dsn, tracing=recorded.telemetry), schema="nowhere")
    assert post(served, f"/streams/{quote(name)}", b"17", traceparent=PARENT).status == 503
    [sent] = recorded.sent
    assert attributes(sent)["error.type"] == "StreamsNotInstalled"
    assert recorded.open == 0


def test_without_tracing_a_context_is_nobodys_business(
    served: Served, admin: psycopg.Connection[Any], name: str
) -> None:
    assert post(served, f"/streams/{quote(name)}", b"17", traceparent=PARENT).status == 201
    assert stored(admin, name) == [("17", None, None)]


def test_pages_of_other_origins_may_send_a_context(serve: Serve) -> None:
    served = serve(origins=["https://example.com"])
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "traceparent,tracestate"}
    status, headers, _ = get(served, "/channels/a", "OPTIONS", origin="https://example.com", **asked)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://example.com")


# -- the program


def test_the_program_traces_as_the_environment_of_opentelemetry_says(database: str, tmp_path: Any, name: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    environment = {
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "console",
        "OTEL_LOGS_EXPORTER": "none",
    }
    options = ("--dsn", database, "--jwt-secret-file", str(secret), "--opentelemetry")
    instrumented = [os.path.join(os.path.dirname(sys.executable), "opentelemetry-instrument")]
    with Gateway(*options, environment=environment, before=instrumented) as gateway:
        answer = post(gateway, f"/streams/{quote(name)}", b"17", traceparent=PARENT)  # type: ignore[arg-type]
        assert answer.status == 201
    spans = [line for line in gateway.output.splitlines() if f"append {name}" in line]
    assert len(spans) == 1, gateway.output
    assert TRACE in gateway.output
    assert "messaging.client.sent.messages" in gateway.output
    assert "pgpubsub.reconnections" in gateway.output
    assert "nothing is traced" not in gateway.output


def test_the_program_says_that_there_is_nothing_to_trace_with(database: str) -> None:
    with Gateway("--dsn", database, "--opentelemetry") as gateway:
        assert gateway.port
    assert "nothing is traced: there is no SDK of OpenTelemetry" in gateway.output


def test_the_option_says_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "import pgpubsub.cli; sys.argv = ['pgpubsub', 'serve', '--opentelemetry']; pgpubsub.cli.program()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "needs the extra 'opentelemetry': pip install" in done.stderr
