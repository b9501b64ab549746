"""Clients of the gateway: one that posts, and those that follow channels and streams and come again when cut off."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from threading import Event
from time import time
from typing import Any
from urllib.parse import quote, urlencode

import jwt
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from pgpubsub import SendTimeout
from tests.contract.browser import Browser

__all__ = ["SECRET", "Following", "Poster", "by_events", "by_web_socket"]

SECRET = "a secret of thirty-two bytes or more"

ALL = {"read": ["*"], "write": ["*"]}

SILENCE = 20.0
"""Seconds without a sign of life after which a client gives up: the gateway gives one every 15."""

PAUSE = 0.1

FAILURES = (OSError, http.client.HTTPException, WebSocketException, AssertionError, EOFError)

Following = Iterator[dict[str, Any]]
"""What comes, as the gateway's JSON has it: messages and gaps, and `{"type": "listening"}` when it begins."""


def bearer() -> str:
    """A token that allows everything, as a header."""
    return "Bearer " + jwt.encode({"sub": "chaos", "exp": int(time()) + 10**7, "pgpubsub": ALL}, SECRET, "HS256")


class Poster:
    """Sends by POST."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._headers = {"Authorization": bearer(), "Content-Type": "text/plain"}

    def post(self, kind: str, name: str, text: str, *, key: str | None = None) -> None:
        """Send it; `key` is for what may be repeated.

        Raises:
            SendTimeout: it was not sent.
            OSError: nobody knows.
        """
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=SILENCE)
        headers = self._headers if key is None else {**self._headers, "Idempotency-Key": quote(key)}
        try:
            try:
                client.connect()
            except OSError as error:
                raise SendTimeout(str(error)) from error
            client.request("POST", f"/{kind}/{quote(name)}", text.encode(), headers)
            status = client.getresponse().status
        except http.client.HTTPException as error:
            raise OSError(f"cut off: {error!r}") from error
        finally:
            client.close()
        if status in (429, 502, 503):
            raise SendTimeout(f"status {status}")
        if status not in (201, 204):
            raise OSError(f"status {status}")


def by_events(port: int, channels: Sequence[str], streams: Sequence[str]) -> Following:
    """Several, as server-sent events: `Last-Event-ID` says where to go on."""
    query = [*(("channel", name) for name in channels), *(("stream", name) for name in streams)]
    path, last = f"/events?{urlencode([*query, ('after', 'beginning')])}", ""
    while not Event().wait(PAUSE):
        with suppress(*FAILURES), Browser(port, path, last_event_id=last, Authorization=bearer()) as browser:
            assert browser.response.status == 200
            browser.socket.settimeout(SILENCE)
            browser.listening()
            last = browser.last_event_id
            yield {"type": "listening"}
            for event in browser:
                last = event.last_event_id
                if event.type in ("message", "gap"):
                    yield json.loads(event.data)


def by_web_socket(port: int, channels: Sequence[str], streams: Sequence[str]) -> Following:
    """A channel and a stream over a WebSocket, after the last position that came. That the channel may have lost
    something when it comes again it has to say itself."""
    (channel,), (stream,) = channels, streams
    after, heard = "beginning", ""
    headers = {"Authorization": bearer()}
    while not Event().wait(PAUSE):
        with (
            suppress(*FAILURES, TimeoutError),
            connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, open_timeout=SILENCE) as socket,
        ):
            socket.send(json.dumps({"type": "subscribe", "stream": stream, "after": after, "ref": 1}))
            socket.send(json.dumps({"type": "subscribe", "channel": channel, "ref": 2}))
            while True:
                frame = json.loads(socket.recv(SILENCE))
                if frame["type"] == "ok" and frame["ref"] == 1:
                    after = frame["position"]
                elif frame["type"] == "ok":
                    if heard:
                        yield {"type": "gap", "channel": channel, "reason": "away", "since": heard, "count": None}
                    heard = heard or datetime.now(UTC).isoformat()
                    yield {"type": "listening"}
                elif frame["type"] in ("message", "gap"):
                    after = frame.get("position", after)
                    if "channel" in frame:
                        heard = datetime.now(UTC).isoformat()
                    yield frame
                else:
                    break


def instant(text: str) -> float:
    """A `since`, in seconds of the wall clock."""
    return datetime.fromisoformat(text).timestamp()
