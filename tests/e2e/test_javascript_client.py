"""The JavaScript client follows and sends, in Node.js and in Chromium, by way of a real gateway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pgpubsub import Hub
from pgpubsub.testing import Proxy
from tests.e2e.javascript.surroundings import FAST, Gateway, Runtime, browser, gateway, proxy, runtime, token, until

__all__ = ["browser", "gateway", "proxy", "runtime"]


def follow(runtime: Runtime, proxy: Proxy, topics: dict[str, Any], *, token: str | None = None, **more: Any) -> None:
    """By way of the proxy, until it is live."""
    url = f"http://127.0.0.1:{proxy.port}/"
    runtime.run("(asked) => record(asked)", {"topics": topics, "url": url, "token": token, "timing": FAST, **more})
    until(lambda: runtime.run("() => feed.state") in ("live", "closed"))


def payloads(runtime: Runtime) -> list[Any]:
    events: list[dict[str, Any]] = runtime.run("() => events")
    return [event["payload"] if event["type"] == "message" else event["reason"] for event in events]


def test_what_it_sends_is_delivered(runtime: Runtime, proxy: Proxy, new_channel: Callable[[], str]) -> None:
    channel, stream = f"été/{new_channel()}?&#", f"a stream/{new_channel()}+%"
    follow(runtime, proxy, {"channels": [channel], "streams": {stream: "beginning"}}, token=token())
    long = "é日本🐘" * 20_000
    ids = runtime.run(
        """async ([channel, stream, long]) => {
            await gateway.notify(channel, "line\\none\\r\\n");
            await gateway.notify(channel, "");
            await gateway.notify(channel, long, { headers: { a: ["é&="] } });
            return [
                await gateway.append(stream, "text", { key: "k&=é", headers: { a: ["é"] } }),
                await gateway.append(stream, new Uint8Array([0, 10, 13, 255])),
                await gateway.append(stream, long),
            ];
        }""",
        [channel, stream, long],
    )
    until(lambda: runtime.run("() => events.length") == 6)
    events = runtime.run("() => events")
    on_channel = [event for event in events if event.get("channel") == channel]
    assert [event["payload"] for event in on_channel] == ["line\none\r\n", "", long]
    assert [event.get("headers") for event in on_channel] == [None, None, {"a": ["é&="]}]
    entries = [event for event in events if event.get("stream") == stream]
    assert [entry["payload"] for entry in entries] == ["text", [0, 10, 13, 255], long]
    assert [entry["id"] for entry in entries] == ids
    assert [(entry["key"], entry["headers"]) for entry in entries] == [
        ("k&=é", {"a": ["é"]}),
        (None, None),
        (None, None),
    ]
    assert runtime.run("() => feed.positions") == {stream: entries[-1]["position"]}
    runtime.run("() => feed.close()")
    assert [entry["state"] for entry in runtime.run("() => states")] == ["connecting", "live", "closed"]


def test_it_is_iterated_and_resumed_later(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    """Each entry comes once, however many feeds one takes them from."""
    streams = [f"{channel} {number}" for number in range(3)]
    with Hub(dsn) as hub:
        for number in range(30):
            hub.stream(streams[number % 3]).append(str(number))
    taken = runtime.run(
        """async ({ url, token, streams }) => {
            const gateway = new Gateway(url, { token });
            const taken = [];
            let positions = Object.fromEntries(streams.map((name) => [name, "beginning"]));
            while (taken.length < 30) {
                const feed = gateway.follow({ streams: positions }, { buffer: 2 });
                let some = 0;
                for await (const event of feed) {
                    taken.push(event.payload);
                    positions = feed.positions;
                    if (++some === 4 || taken.length === 30) break;
                }
                if (feed.state !== "closed") throw new Error("leaving the loop closes it");
                if (!(await feed.next()).done) throw new Error("it is done then");
            }
            return taken;
        }""",
        {"url": f"http://127.0.0.1:{proxy.port}", "token": token(), "streams": streams},
    )
    assert sorted(taken, key=int) == [str(number) for number in range(30)]
    for remainder in range(3):
        mine = [int(payload) for payload in taken if int(payload) % 3 == remainder]
        assert mine == sorted(mine)


def test_names_alone_are_followed_from_their_end(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    with Hub(dsn) as hub:
        hub.stream(channel).append("before")
        follow(runtime, proxy, {"streams": [channel]}, token=token())
        until(lambda: runtime.run("([name]) => feed.positions[name] !== 'end'", [channel]))  # even if nothing has come
        hub.stream(channel).append("after")
    until(lambda: payloads(runtime) == ["after"])
    runtime.run("() => feed.close()")


@pytest.mark.parametrize("style", ["callbacks", "iterated"])
def test_what_is_refused_ends_it(runtime: Runtime, proxy: Proxy, channel: str, style: str) -> None:
    refused: dict[str, tuple[dict[str, Any], str | None, int, str]] = {
        "nothing": ({}, token(), 400, "bad-request"),
        "position": ({"streams": {channel: "nonsense"}}, token(), 400, "bad-position"),
        "forbidden": ({"channels": [channel]}, token(read=()), 403, "forbidden"),
        "no token": ({"channels": [channel]}, None, 401, "unauthorized"),
        "expired": ({"channels": [channel]}, token(-60), 401, "expired"),
    }
    for topics, given, status, code in refused.values():
        if style == "callbacks":
            follow(runtime, proxy, topics, token=given)
            [error] = runtime.run("() => errors")
            assert [entry["state"] for entry in runtime.run("() => states")] == ["connecting", "closed"]
        else:
            error = runtime.run(
                """async ([topics, url, token]) => {
                    const feed = new Gateway(url, { token }).follow(topics);
                    try { for await (const event of feed) return event; } catch (error) { return told(error); }
                }""",
                [topics, f"http://127.0.0.1:{proxy.port}/", given],
            )
        assert (error["name"], error["status"], error["code"]) == ("GatewayError", status, code)
        assert not error["temporary"]
        assert error["message"]


def test_an_aborted_signal_ends_it_and_what_is_being_sent(runtime: Runtime, proxy: Proxy, channel: str) -> None:
    results = runtime.run(
        """async ({ url, token, channel }) => {
            const gateway = new Gateway(url, { token });
            const aborted = AbortSignal.abort();
            const results = [gateway.follow({ channels: [channel] }, { signal: aborted }).state];
            const controller = new AbortController();
            const states = [];
            const feed = gateway.follow({ channels: [channel] }, {
                signal: controller.signal,
                onState: (state) => {
                    states.push(state);
                    if (state === "live") setTimeout(() => controller.abort());
                },
            });
            for await (const event of feed) states.push(event);
            for (const send of [() => gateway.notify(channel, "x", { signal: aborted }),
                                () => gateway.append(channel, "x", { signal: aborted })]) {
                try { await send(); } catch (error) { results.push(error.name); }
            }
            return [...results, ...states];
        }""",
        {"url": f"http://127.0.0.1:{proxy.port}/", "token": token(), "channel": channel},
    )
    assert results == ["closed", "AbortError", "AbortError", "connecting", "live", "closed"]
    until(lambda: runtime.name == "chromium" or proxy.connections == 0)  # pages keep some that are idle


def test_what_cannot_be_sent_as_it_is_is_refused(runtime: Runtime, proxy: Proxy, channel: str) -> None:
    """Half of a surrogate pair would become another character, and `..` another URL."""
    follow(runtime, proxy, {"channels": [channel]}, token=token())
    errors = runtime.run(
        """async (channel) => {
            const errors = [];
            const refused = [
                () => gateway.notify(channel, "\\ud800"),
                () => gateway.notify(channel, new Uint8Array(1)),
                () => gateway.append("..", "x"),
                () => gateway.notify("\\ud800", "x"),
            ];
            for (const send of refused) await send().catch((error) => errors.push(error.name));
            return errors;
        }""",
        channel,
    )
    assert errors == ["TypeError", "TypeError", "TypeError", "URIError"]
    runtime.run("() => feed.close()")


def test_a_new_token_is_asked_for_when_one_ends(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    """And the stream goes on without a loss; with the same token again, it ends."""
    tokens = [token(3), token(5), token(60)]
    runtime.run(
        """([tokens, url, stream]) => {
            globalThis.asked = 0;
            record({ topics: { channels: [], streams: { [stream]: "beginning" } }, url,
                     token: async () => tokens[Math.min(asked++, tokens.length - 1)] });
        }""",
        [tokens, f"http://127.0.0.1:{proxy.port}/", channel],
    )
    with Hub(dsn) as hub:
        appended = 0
        while runtime.run("() => states.filter(({ state }) => state === 'live').length") < 3:
            appended += 1
            hub.stream(channel).append(str(appended))
        until(lambda: runtime.run("() => events.length") == appended)
    assert payloads(runtime) == [str(number + 1) for number in range(appended)]
    lost = [entry["error"] for entry in runtime.run("() => states") if entry["state"] == "waiting"]
    assert [error["code"] for error in lost] == ["expired", "expired"]
    runtime.run("() => feed.close()")

    for source in ("token", "async () => token"):
        code = f"([token, url, stream]) => record({{ topics: {{ streams: [stream] }}, url, token: {source} }})"
        runtime.run(code, [token(2), f"http://127.0.0.1:{proxy.port}/", channel])
        until(lambda: runtime.run("() => feed.state") == "closed")
        [error] = runtime.run("() => errors")
        assert (error["status"], error["code"]) == (401, "expired")


def test_a_token_that_cannot_be_had_is_asked_for_again(runtime: Runtime, proxy: Proxy, channel: str) -> None:
    runtime.run(
        """([good, url, channel]) => {
            let asked = 0;
            const source = () => {
                if (++asked < 3) throw new Error("the application is away");
                return good;
            };
            record({ topics: { channels: [channel] }, url, token: source, timing: { firstDelay: 10 } });
        }""",
        [token(), f"http://127.0.0.1:{proxy.port}/", channel],
    )
    until(lambda: runtime.run("() => feed.state") == "live")
    lost = [entry["error"] for entry in runtime.run("() => states") if entry["state"] == "waiting"]
    assert [(error["code"], error["message"]) for error in lost] == [
        ("token", "there is no token: the application is away")
    ] * 2
    runtime.run("() => feed.close()")


def test_sending_asks_for_another_token_when_one_has_ended(runtime: Runtime, proxy: Proxy, channel: str) -> None:
    asked = runtime.run(
        """async ([tokens, url, name]) => {
            let asked = 0;
            const gateway = new Gateway(url, { token: () => tokens[asked++] });
            await gateway.notify(name, "one");
            await gateway.append(name, "two");
            return asked;
        }""",
        [[token(-60), token()], f"http://127.0.0.1:{proxy.port}/", channel],
    )
    assert asked == 2


def test_an_error_of_a_callback_ends_it(runtime: Runtime, proxy: Proxy, dsn: str, channel: str) -> None:
    """Even one that looks as if the connection were lost."""
    runtime.run(
        """([token, url, stream]) => {
            globalThis.seen = [];
            new Gateway(url, { token }).follow({ streams: { [stream]: "beginning" } }, {
                onEvent: async (event, feed) => {
                    seen.push(event.payload);
                    await null;
                    if (seen.length === 2) throw new GatewayError("of another request");
                },
                onError: (error, feed) => void seen.push(error.message, feed.state),
            });
        }""",
        [token(), f"http://127.0.0.1:{proxy.port}/", channel],
    )
    with Hub(dsn) as hub:
        for number in range(5):
            hub.stream(channel).append(str(number))
    until(lambda: runtime.run("() => seen.length") >= 4)
    assert runtime.run("() => seen") == ["0", "1", "of another request", "closed"]


def test_who_takes_slowly_loses_nothing_of_a_stream(
    runtime: Runtime, proxy: Proxy, dsn: str, gateway: Gateway, channel: str
) -> None:
    """And of a channel, gaps say how many: what came and what is missing is what was sent."""
    runtime.run(
        """async ([token, url, name]) => {
            globalThis.slow = new Gateway(url, { token }).follow(
                { channels: [name], streams: { [name]: "end" } }, { buffer: 10 });
            while (slow.state !== "live") await new Promise((resolve) => setTimeout(resolve, 10));
        }""",
        [token(), f"http://127.0.0.1:{proxy.port}/", channel],
    )
    sent, body = 0, "x" * 7_000
    received, delivered = gateway.count("events_received"), gateway.count("events_delivered")
    with Hub(dsn) as hub:
        while gateway.count("events_received") - received < gateway.count("events_delivered") - delivered + 1500:
            hub.notify_many([(channel, f"{number} {body}") for number in range(sent, sent + 200)])
            sent += 200
        hub.stream(channel).append_many([f"{number} {body}" for number in range(2000)])
    result = runtime.run(
        """async ([name, sent]) => {
            const entries = [], notified = [], gaps = [];
            let missed = 0;
            while (entries.length < 2000 || notified.length + missed < sent) {
                const { value: event } = await slow.next();
                if (event.type === "gap") missed += gaps[gaps.push(event) - 1].count;
                else (event.stream === name ? entries : notified).push(parseInt(event.payload));
            }
            slow.close();
            return { entries, notified, gaps };
        }""",
        [channel, sent],
    )
    assert result["entries"] == list(range(2000))
    assert {(gap["reason"], gap["channel"]) for gap in result["gaps"]} == {("overflow", channel)}
    assert result["notified"] == sorted(set(result["notified"]))
    assert len(result["notified"]) + sum(gap["count"] for gap in result["gaps"]) == sent
