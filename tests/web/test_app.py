"""What the gateway says of itself, whose pages may use it, and where it can be mounted."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

import pgpubsub
from pgpubsub.testing import Proxy
from pgpubsub.web import Limits, channels, create_app
from tests.contract.test_handler import eventually
from tests.system.test_hub_server_faults import backend
from tests.web.conftest import Served

Serve = Callable[..., Served]

OURS, THEIRS = "https://ours.example", "https://theirs.example"


def get(served: Served, path: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    client = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    client.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
    response = client.getresponse()
    found = response.status, response.headers, response.read().decode()
    client.close()
    return found


def samples(served: Served) -> dict[str, float]:
    families = text_string_to_metric_families(get(served, "/metrics")[2])
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_it_is_ready_while_notifications_arrive(serve: Serve, database: str) -> None:
    with Proxy(database) as proxy:
        served = serve(proxy.dsn())
        status, _, text = get(served, "/readyz")
        assert (status, text[:4]) == (200, "live")
        proxy.refuse()
        proxy.reset()
        eventually(lambda: get(served, "/readyz")[0] == 503)
        assert get(served, "/healthz")[0] == 200
        proxy.accept()
        eventually(lambda: get(served, "/readyz")[0] == 200)


def test_it_starts_without_a_database_and_says_so(serve: Serve, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgpubsub.web.gateway.TO_CONNECT", 0.2)
    with Proxy(database) as proxy:
        proxy.refuse()
        served = serve(proxy.dsn())
        assert get(served, "/readyz")[0] == 503
        proxy.accept()
        eventually(lambda: get(served, "/readyz")[0] == 200)


def test_metrics_say_what_happened(served: Served, admin: psycopg.Connection[object], name: str) -> None:
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        for number in range(3):
            pgpubsub.notify(admin, name, str(number))
            browser.next()
        admin.execute("SELECT pg_terminate_backend(%s)", [backend(admin, "listen")])
        browser.next()
        get(served, "/channels/" + "x" * 64)
        found = samples(served)
    assert found["pgpubsub_gateway_clients_present"] == 1
    assert found["pgpubsub_gateway_clients_total"] == 1
    assert found["pgpubsub_gateway_events_received_total"] == found["pgpubsub_gateway_events_delivered_total"] == 4
    assert found["pgpubsub_gateway_requests_refused_total"] == 1
    assert found["pgpubsub_hub_live"] == found["pgpubsub_hub_reconnects_total"] == 1
    assert found["pgpubsub_gateway_bytes_sent_total"] > 100
    eventually(lambda: samples(served)["pgpubsub_gateway_clients_present"] == 0)


def test_there_are_only_so_many_clients(serve: Serve) -> None:
    served = serve(limits=Limits(clients=2))
    with served.open("/channels/a").listening(), served.open("/channels/a").listening():
        status, headers, text = get(served, "/channels/a")
        assert status == 503
        assert '"full"' in text
        assert headers["Retry-After"]
    eventually(lambda: not served.gateway.outlets)
    with served.open("/channels/a").listening():
        pass


@pytest.mark.parametrize("kind", ["channel", "stream"])
def test_there_are_only_so_many_channels_and_streams_of_all_clients(serve: Serve, name: str, kind: str) -> None:
    served = serve(limits=Limits(topics=2))
    with served.open(f"/events?channel={quote(name)}&stream={quote(name)}").listening():
        status, headers, text = get(served, f"/{kind}s/other")
        assert status == 503
        assert '"full"' in text
        assert headers["Retry-After"]
        with connect(f"ws://127.0.0.1:{served.port}/ws") as socket:
            socket.send(json.dumps({"type": "subscribe", kind: "other"}))
            told = json.loads(socket.recv(30))
            assert (told["status"], told["code"]) == (503, "full")
        with served.open(f"/{kind}s/{quote(name)}").listening():
            pass  # as somebody follows it already


def test_what_nobody_follows_anymore_makes_room(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "LINGER", 0.1)
    served = serve(limits=Limits(topics=1))
    for one in ("a", "b"):
        with served.open(f"/channels/{one}").listening():
            pass
        eventually(lambda: not len(served.gateway.channels))


def test_who_asks_for_too_much_that_nobody_follows_is_told_when_to_go_on(serve: Serve) -> None:
    served = serve(limits=Limits(rate=0.5))
    asked = "/events?" + "&".join(f"channel={number}" for number in range(50))
    with served.open(asked).listening():
        for _ in range(10):
            with served.open(asked).listening():
                pass  # who comes again is welcome
        status, headers, text = get(served, "/channels/another")
    assert (status, '"too-often"' in text) == (429, True)
    assert headers["Retry-After"]


# -- pages of other origins


def test_pages_of_other_origins_are_refused(serve: Serve) -> None:
    served = serve(origins=[OURS])
    assert get(served, "/readyz", origin=THEIRS)[0] == 403
    assert get(served, "/readyz", origin="null")[0] == 403
    assert get(served, "/readyz", origin=f"http://127.0.0.1:{served.port}")[0] == 200
    assert get(served, "/readyz", origin="https://gateway.example", host="gateway.example:443")[0] == 200
    assert get(served, "/readyz", origin="https://gateway.example:444", host="gateway.example")[0] == 403
    status, headers, _ = get(served, "/readyz", origin=OURS)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, OURS)


def test_pages_of_allowed_origins_may_send_tokens(serve: Serve) -> None:
    served = serve(origins=[OURS])
    asked = {"access_control_request_method": "POST", "access_control_request_headers": "authorization,content-type"}
    status, headers, _ = get(served, "/channels/a", "OPTIONS", origin=OURS, **asked)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, OURS)
    assert "authorization" in headers["Access-Control-Allow-Headers"].lower()
    assert get(served, "/channels/a", "OPTIONS", origin=THEIRS, **asked)[0] == 403


def test_all_origins_can_be_allowed(serve: Serve) -> None:
    served = serve(origins=["*"])
    assert get(served, "/readyz", origin=THEIRS)[1]["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("origin", ["example.com", "https://example.com/", "https://example.com/path", "ftp://a", ""])
def test_what_is_no_origin_is_an_error(origin: str) -> None:
    with pytest.raises(ValueError, match="is no origin"):
        create_app("", origins=[origin])


# -- mounted


def test_it_can_be_mounted_with_its_lifespan(
    database: str, admin: psycopg.Connection[object], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = create_app(database, public=["*"])
    app = FastAPI(lifespan=gateway.router.lifespan_context)

    @app.get("/own")
    def own() -> str:
        return "mine"

    app.mount("/live", gateway)
    with Served(database, app=app, gateway=gateway) as served:
        assert get(served, "/own")[2] == '"mine"'
        assert get(served, "/live/readyz")[0] == 200
        with served.open(f"/live/channels/{quote(name)}").listening() as browser:
            pgpubsub.notify(admin, name, "1")
            assert browser.next().data == "1"
        assert "<title>" in get(served, "/live/")[2]


def test_without_its_lifespan_it_connects_when_it_is_used(
    database: str, admin: psycopg.Connection[object], name: str
) -> None:
    gateway = create_app(database, public=["*"])
    app = FastAPI()
    app.mount("/live", gateway)
    with Served(database, app=app, gateway=gateway) as served:
        with served.open(f"/live/channels/{quote(name)}").listening() as browser:
            pgpubsub.notify(admin, name, "1")
            assert browser.next().data == "1"
            served.end()
            assert [event.type for event in browser] == ["closing"]
        served.wait(gateway.state.gateway.close())


@pytest.mark.parametrize("limits", [{"rate": 0}, {"buffer": -1}, {"slow": "wait"}])
def test_a_limit_that_cannot_be_is_an_error(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="rate|buffer|slow"):
        Limits(**limits)


@pytest.mark.parametrize("options", [{"keep_alive": 0}, {"public": ["orders"]}])
def test_what_cannot_be_is_an_error_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="keep_alive|orders"):
        create_app("", **options)
