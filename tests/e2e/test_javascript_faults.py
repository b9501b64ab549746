"""The JavaScript client comes again after faults: nothing of a stream is missing or twice, and channels show gaps."""

from __future__ import annotations

import signal
import threading
from time import time
from typing import Any

import pytest

from pgpubsub import Hub
from pgpubsub.testing import Proxy
from tests.e2e.javascript.surroundings import (
    FAST,
    Gateway,
    Page,
    Runtime,
    browser,
    gateway,
    proxy,
    runtime,
    token,
    until,
)

__all__ = ["browser", "gateway", "proxy", "runtime"]


def follow(runtime: Runtime, proxy: Proxy, topics: dict[str, Any], **timing: Any) -> None:
    """By way of the proxy, until it is live."""
    url = f"http://127.0.0.1:{proxy.port}/"
    asked = {"topics": topics, "url": url, "token": token(), "timing": {**FAST, **timing}}
    runtime.run("(asked) => record(asked)", asked)
    until(lambda: state(runtime) in ("live", "closed"))


def state(runtime: Runtime) -> str:
    return str(runtime.run("() => feed.state"))


def states(runtime: Runtime) -> list[str]:
    return [entry["state"] for entry in runtime.run("() => states")]


def entries(runtime: Runtime) -> list[str]:
    code = "() => events.filter(({ type, stream }) => type === 'message' && stream).map(({ payload }) => payload)"
    return list(runtime.run(code))


def test_a_broken_connection_is_replaced(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    follow(runtime, proxy, {"channels": [channel], "streams": {channel: "beginning"}})
    with Hub(dsn) as hub:
        hub.notify(channel, "one")
        until(lambda: runtime.run("() => events.length") == 1)
        proxy.refuse()
        proxy.reset()
        until(lambda: state(runtime) == "waiting")
        hub.notify(channel, "two")
        hub.stream(channel).append("while it was away")
        proxy.accept()
        until(lambda: state(runtime) == "live")
        hub.notify(channel, "three")
        until(lambda: runtime.run("() => events.length") == 4)
    events = runtime.run("() => events")
    told = [event.get("payload", event.get("reason")) for event in events if event.get("channel")]
    assert told == ["one", "connection_lost", "three"]
    assert entries(runtime) == ["while it was away"]
    lost = next(entry for entry in runtime.run("() => states") if entry["state"] == "waiting")
    assert (lost["error"]["code"], lost["error"]["status"], lost["error"]["temporary"]) == ("unreachable", 0, True)
    runtime.run("() => feed.close()")


@pytest.mark.parametrize("cut", range(0, 400, 57))
def test_an_event_that_is_cut_off_comes_whole(runtime: Runtime, proxy: Proxy, dsn: str, channel: str, cut: int) -> None:
    follow(runtime, proxy, {"streams": [channel]})
    with Hub(dsn) as hub:
        proxy.cut_after(cut)
        hub.stream(channel).append_many(["é日本", "🐘"])
        until(lambda: "waiting" in states(runtime))
        until(lambda: len(entries(runtime)) == 2)
        hub.stream(channel).append("three")
        until(lambda: len(entries(runtime)) == 3)
    assert entries(runtime) == ["é日本", "🐘", "three"]
    runtime.run("() => feed.close()")


def test_it_follows_a_gateway_that_is_replaced(
    runtime: Runtime, gateway: Gateway, proxy: Proxy, dsn: str, channel: str
) -> None:
    follow(runtime, proxy, {"channels": [channel], "streams": [channel]})
    gateway.stop()
    until(lambda: state(runtime) == "waiting")
    waiting = next(entry for entry in runtime.run("() => states") if entry["state"] == "waiting")
    assert waiting["error"]["code"] == "shutdown"
    assert 1000 <= waiting["delay"] <= 5200  # as the gateway says, and not a moment before
    with Hub(dsn) as hub:
        hub.stream(channel).append("while there was none")
    gateway.start()
    until(lambda: runtime.run("() => events.length") == 2)
    [gap] = [event for event in runtime.run("() => events") if event["type"] == "gap"]
    assert (gap["channel"], gap["reason"], gap["count"]) == (channel, "connection_lost", None)
    assert entries(runtime) == ["while there was none"]
    runtime.run("() => feed.close()")


def test_each_entry_comes_once_whatever_happens(
    runtime: Runtime, gateway: Gateway, proxy: Proxy, dsn: str, channel: str
) -> None:
    """While entries are appended all the time, to three streams."""
    streams = [f"{channel} {number}" for number in range(3)]
    follow(runtime, proxy, {"channels": [channel], "streams": dict.fromkeys(streams, "beginning")})
    enough = threading.Event()
    appended: list[int] = [0]

    def append() -> None:
        with Hub(dsn) as hub:
            while not enough.is_set():
                hub.stream(streams[appended[0] % 3]).append(str(appended[0]))
                appended[0] += 1

    writer = threading.Thread(target=append)
    writer.start()
    try:
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, None, None, None):
            seen = len(entries(runtime))
            until(lambda seen=seen: len(entries(runtime)) > seen)  # type: ignore[misc]
            if number is None:
                proxy.reset()
                continue
            gateway.stop(number)
            gateway.start()
    finally:
        enough.set()
        writer.join()
    until(lambda: len(entries(runtime)) >= appended[0])
    arrived = entries(runtime)
    for remainder, name in enumerate(streams):
        code = "(name) => events.filter(({ stream }) => stream === name).map(({ payload }) => payload)"
        assert runtime.run(code, name) == [str(number) for number in range(remainder, appended[0], 3)]
    assert len(arrived) == appended[0]
    assert runtime.run("() => errors") == []
    runtime.run("() => feed.close()")


def test_a_connection_that_is_dead_is_noticed(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    """Nobody says that it is: nothing comes."""
    follow(runtime, proxy, {"streams": [channel]}, silence=1500)
    proxy.deafen()
    until(lambda: state(runtime) == "waiting")
    lost = [entry for entry in runtime.run("() => states") if entry["state"] == "waiting"][-1]
    assert "nothing came for 1500 ms" in lost["error"]["message"]
    with Hub(dsn) as hub:
        hub.stream(channel).append("meanwhile")
    proxy.hear()
    until(lambda: entries(runtime) == ["meanwhile"])
    runtime.run("() => feed.close()")


def test_delays_grow_until_it_works(runtime: Runtime, gateway: Gateway, proxy: Proxy, dsn: str, channel: str) -> None:
    url = f"http://127.0.0.1:{proxy.port}/"
    runtime.run(
        """({ url, token, stream }) => record({ topics: { streams: { [stream]: "beginning" } }, url, token,
            timing: { firstDelay: 10, longestDelay: 80, random: () => 1 } })""",
        {"url": url, "token": token(), "stream": channel},
    )
    until(lambda: state(runtime) == "live")
    proxy.refuse()
    proxy.reset()
    until(lambda: states(runtime).count("waiting") >= 6)
    proxy.accept()
    until(lambda: state(runtime) == "live")
    before = states(runtime).count("waiting")
    proxy.reset()  # it was live, but has brought nothing, and not for long
    until(lambda: states(runtime).count("waiting") > before)
    until(lambda: state(runtime) == "live")
    with Hub(dsn) as hub:
        hub.stream(channel).append("it works")
    until(lambda: entries(runtime) == ["it works"])
    proxy.reset()
    until(lambda: states(runtime).count("waiting") > before + 1)
    delays = [entry["delay"] for entry in runtime.run("() => states") if entry["state"] == "waiting"]
    assert delays[:5] == [10, 20, 40, 80, 80]
    assert delays[before : before + 2] == [80, 10]
    runtime.run("() => feed.close()")


def test_what_the_server_asks_for_is_waited(runtime: Runtime) -> None:
    """`Retry-After`, in seconds or as a date; and what is refused for good is not tried again."""
    delays = runtime.run(
        """async () => {
            const date = new Date(Date.now() + 9000).toUTCString();
            const delays = [];
            for (const [status, after] of [[503, "2"], [502, date], [429, "99999999999"]]) {
                const fetch = async () => new Response("<html>", { status, headers: { "Retry-After": after } });
                const gateway = new Gateway("http://localhost/", { fetch, timing: { random: () => 0 } });
                await new Promise((resolve) => {
                    gateway.follow({}, {
                        onEvent() {},
                        onState(state, { delay }, feed) {
                            if (state !== "waiting") return;
                            delays.push(delay);
                            feed.close();
                            resolve();
                        },
                    });
                });
            }
            return delays;
        }"""
    )
    assert delays[0] == 2000
    assert 7000 <= delays[1] <= 9000
    assert delays[2] == 3_600_000


@pytest.mark.parametrize("runtime", ["chromium"], indirect=True)
def test_a_page_of_another_origin_resumes_too(
    runtime: Page, gateway: Gateway, proxy: Proxy, dsn: str, channel: str
) -> None:
    """A browser asks the gateway first which headers it may send there."""
    runtime.open(f"http://127.0.0.1:{proxy.port}/healthz")  # one that no server sent could connect to nothing else
    with Proxy(f"host=127.0.0.1 port={gateway.port}") as another:
        follow(runtime, another, {"channels": [channel], "streams": [channel]})
        runtime.run("(name) => gateway.append(name, 'one')", channel)
        until(lambda: entries(runtime) == ["one"])
        another.reset()
        until(lambda: "waiting" in states(runtime))
        runtime.run("(name) => gateway.append(name, 'two')", channel)
        until(lambda: entries(runtime) == ["one", "two"])
        until(lambda: len(runtime.run("() => events")) == 3)
        runtime.run("() => feed.close()")


@pytest.mark.parametrize("runtime", ["chromium"], indirect=True)
@pytest.mark.parametrize("cause", ["online", "resume"])
def test_a_page_that_is_back_does_not_wait(runtime: Page, proxy: Proxy, channel: str, cause: str) -> None:
    """When the network is there again, or the page is not frozen any more: without a screen, no page is, so that event
    is made up."""
    follow(runtime, proxy, {"channels": [channel]}, firstDelay=1e9, longestDelay=1e9)
    runtime.context.set_offline(cause == "online")
    proxy.reset()
    until(lambda: state(runtime) == "waiting")
    runtime.context.set_offline(False)
    if cause == "resume":
        runtime.run("() => void document.dispatchEvent(new Event('resume'))")
    until(lambda: [event["reason"] for event in runtime.run("() => events")] == ["connection_lost"])
    assert states(runtime) == ["connecting", "live", "waiting", "connecting", "live"]
    runtime.run("() => feed.close()")


@pytest.mark.parametrize("runtime", ["chromium"], indirect=True)
@pytest.mark.parametrize("dead", [False, True])
def test_a_page_that_slept_looks_for_what_has_come_first(
    runtime: Page, proxy: Proxy, dsn: str, channel: str, dead: bool
) -> None:
    """It may have been the page that stood still, and not the connection."""
    clock = runtime.page.clock
    clock.install()
    clock.pause_at(time() + 10)
    follow(runtime, proxy, {"channels": [channel]})
    if dead:
        proxy.deafen()
    clock.fast_forward(3_600_000)  # its timers come too late
    assert state(runtime) == "live"
    with Hub(dsn) as hub:
        hub.notify(channel, "there")
    if not dead:
        until(lambda: runtime.run("() => events.length"))
    clock.run_for(6_000)
    if dead:
        until(lambda: "waiting" in states(runtime))
    else:
        assert states(runtime) == ["connecting", "live"]
    runtime.run("() => feed.close()")


def test_an_entry_is_stored_once_if_its_answer_is_lost(
    runtime: Runtime, gateway: Gateway, proxy: Proxy, channel: str
) -> None:
    follow(runtime, proxy, {"streams": [channel]})
    proxy.break_after(b"once and no more")
    id = runtime.run("(stream) => gateway.append(stream, 'once and no more')", channel)
    until(lambda: entries(runtime) == ["once and no more"])

    gateway.stop()
    runtime.run(
        """([url, token, stream]) => {
            const patient = new Gateway(url, { token, timing: { firstDelay: 1000, random: () => 1 } });
            globalThis.later = patient.append(stream, "later");
        }""",
        [f"http://127.0.0.1:{proxy.port}/", token(), channel],
    )
    gateway.start()
    later = runtime.run("() => later")
    until(lambda: entries(runtime) == ["once and no more", "later"])
    assert later > id
    runtime.run("() => feed.close()")


def test_a_notification_is_not_repeated_and_the_error_says_so(
    runtime: Runtime, proxy: Proxy, dsn: str, channel: str
) -> None:
    """Node.js knows when nothing was sent. A page does not; and it may repeat a request by itself, if the connection
    was in use before, as any browser does."""
    follow(runtime, proxy, {"channels": [channel]})
    tell = "(channel) => gateway.notify(channel, 'at most once').then(() => null, (error) => told(error))"
    if runtime.name == "chromium":
        proxy.refuse()
        proxy.reset()
        error = runtime.run(tell, channel)
        assert (error["name"], error["code"], error["uncertain"]) == ("GatewayError", "unreachable", True)
        runtime.run("() => feed.close()")
        return
    with Hub(dsn) as hub, hub.subscribe(channel) as heard:
        proxy.break_after(b"at most once")
        error = runtime.run(tell, channel)
        assert (error["name"], error["code"], error["uncertain"]) == ("GatewayError", "unreachable", True)
        assert heard.get(20).payload == "at most once"  # type: ignore[union-attr]
        hub.notify(channel, "the end")
        assert heard.get(20).payload == "the end"  # type: ignore[union-attr]
        proxy.refuse()
        proxy.reset()
        assert not runtime.run(tell, channel)["uncertain"]
    runtime.run("() => feed.close()")
