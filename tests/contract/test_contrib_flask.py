"""Flask: one hub for each process and application, and responses whose clients are forgotten when they have gone."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask, Response
from werkzeug.serving import make_server

from pgpubsub import AsyncHub, Hub
from pgpubsub.contrib.flask import EventStream, PgPubSub, resume
from pgpubsub.testing import MemoryServer
from tests.contract.browser import Browser, Received, parse
from tests.contract.faces import together
from tests.contract.sending import wait_until

Pair = tuple[Flask, PgPubSub]


@pytest.fixture
def pair(dsn: str, channel: str) -> Iterator[Pair]:
    """An application and its extension."""
    pubsub = PgPubSub(heartbeat=60)
    app = Flask("of a test")
    app.config["PGPUBSUB_CONNINFO"] = dsn
    pubsub.init_app(app)

    @app.get("/events")
    def events() -> Response:
        return EventStream(pubsub.hub.subscribe(channel), {"X-Mine": "17"}, keep_alive=0.05)

    @app.get("/entries")
    def entries() -> Response:
        return EventStream(resume(pubsub.hub.stream(channel)))

    yield app, pubsub
    with app.app_context():
        pubsub.close()


@contextmanager
def serving(app: Flask) -> Iterator[int]:
    """The port of a server with threads."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def hub_of(pair: Pair) -> Hub:
    app, pubsub = pair
    with app.app_context():
        return pubsub.hub


# -- responses


def test_a_client_hears_what_is_sent_and_is_forgotten_when_it_has_gone(pair: Pair, channel: str) -> None:
    hub = hub_of(pair)
    with serving(pair[0]) as port:
        with Browser(port, "/events") as browser:
            browser.listening()
            assert browser.response.headers["x-mine"] == "17"
            hub.notify(channel, "two\nlines")
            assert browser.next() == Received("message", "two\nlines")
        wait_until(lambda: not hub.stats().subscriptions)


def test_a_browser_resumes_a_stream(pair: Pair, installed: str, channel: str) -> None:
    stream = hub_of(pair).stream(channel)
    with serving(pair[0]) as port:
        with Browser(port, "/entries") as browser:
            browser.listening()
            stream.append("1")
            assert browser.next().data == "1"
        stream.append_many(["2", "3"])
        with Browser(port, "/entries", last_event_id=browser.last_event_id) as again:
            again.listening()
            assert [again.next().data, again.next().data] == ["2", "3"]
        with Browser(port, "/entries", last_event_id="17") as wrong:
            assert wrong.response.status == 400
            assert b"is not a position" in wrong.response.read()
        hub_of(pair).close()  # or the last would be noticed after 15 s


def test_the_test_client_of_flask_can_follow(pair: Pair, channel: str) -> None:
    hub = hub_of(pair)
    with pair[0].test_client() as client:
        response = client.get("/events")
        hub.notify(channel, "17")
        chunks = iter(response.response)
        got: list[Any] = []
        while not parse(got):
            got.append(next(chunks))
        assert got[0] == b": listening\n\n"
        assert parse(got) == [Received("message", "17")]
        response.close()
    wait_until(lambda: not hub.stats().subscriptions)


def test_an_outage_is_503() -> None:
    server = MemoryServer()
    app = Flask("of a test")
    with server.hub(send_timeout=0.05) as hub:

        @app.get("/events")
        def events() -> Response:
            return EventStream(hub.subscribe("c"))

        server.stop()
        response = app.test_client().get("/events")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "there are no events at present" in response.text
        wait_until(lambda: not hub.stats().subscriptions)


def test_a_response_that_is_not_sent_leaves_nothing_behind(pair: Pair) -> None:
    app, _ = pair
    hub = hub_of(pair)

    @app.after_request
    def fail(response: Response) -> Response:
        raise LookupError("after the request")

    gc.disable()  # or it might tidy up what the error's traceback holds
    try:
        response = app.test_client().get("/events")
        assert response.status_code == 500
        assert not hub.stats().subscriptions
    finally:
        gc.enable()


def test_a_function_after_the_request_may_change_what_is_sent(pair: Pair) -> None:
    app, _ = pair

    @app.after_request
    def shout(response: Response) -> Response:
        inner: Iterable[Any] = response.response
        response.response = (chunk.upper() for chunk in inner)
        return response

    response = app.test_client().get("/events")
    assert next(iter(response.response)) == b": LISTENING\n\n"
    response.close()
    wait_until(lambda: not hub_of(pair).stats().subscriptions)


def test_a_head_has_an_end(pair: Pair) -> None:
    hub = hub_of(pair)
    response = pair[0].test_client().head("/events")
    assert (response.status_code, response.mimetype, response.data) == (200, "text/event-stream", b"")
    assert not hub.stats().subscriptions


# -- hubs


def test_all_threads_of_a_process_share_a_hub_that_connects_when_it_is_used(pair: Pair) -> None:
    hubs = together([lambda: hub_of(pair)] * 8)
    assert len(set(map(id, hubs))) == 1
    assert str(hubs[0].state.status) == "idle"


def test_each_application_has_a_hub_of_its_own(dsn: str) -> None:
    pubsub = PgPubSub(conninfo=dsn)
    apps = [Flask("one"), Flask("other")]
    for app in apps:
        pubsub.init_app(app)
    hubs = [hub_of((app, pubsub)) for app in apps]
    assert hubs[0] is not hubs[1]
    for app in apps:
        with app.app_context():
            pubsub.close()
            pubsub.close()


def test_a_hub_that_was_closed_is_replaced(pair: Pair, channel: str) -> None:
    app, pubsub = pair
    with app.app_context():
        before = pubsub.hub
        before.notify(channel, "17")
        pubsub.close()
        assert pubsub.hub is not before
        pubsub.hub.notify(channel, "18")


FORKING = """
import os, signal, sys
from flask import Flask
from pgpubsub.contrib.flask import PgPubSub

pubsub = PgPubSub(app := Flask("forks"), sys.argv[1])
with app.app_context(), pubsub.hub as hub, hub.subscribe("fork") as events:
    hub.notify("fork", "from the parent, before")
    child = os.fork()
    if not child:
        signal.alarm(20)  # it shall not hang
        assert pubsub.hub is not hub
        pubsub.hub.notify("fork", "from the child")
        pubsub.close()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pubsub.hub is hub
    hub.notify("fork", "from the parent")
    for _ in range(3):
        print(events.get(timeout=20).payload)
"""


def test_after_a_fork_the_child_has_a_hub_of_its_own(dsn: str) -> None:
    command = [sys.executable, "-W", "error::ResourceWarning", "-c", FORKING, dsn]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["from the parent, before", "from the child", "from the parent"], done.stderr
    assert "was not closed" not in done.stderr


def test_what_an_asynchronous_hub_delivers_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="a Hub: an AsyncHub's are for tasks"):
        EventStream(AsyncHub("").subscribe("c"))  # type: ignore[arg-type]


def test_what_was_not_made_ready_is_said() -> None:
    with Flask("of a test").app_context(), pytest.raises(RuntimeError, match="init_app"):
        PgPubSub().hub  # noqa: B018
    with pytest.raises(RuntimeError, match="application context"):
        PgPubSub().hub  # noqa: B018
