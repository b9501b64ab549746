"""The load on the gateway, which runs in a thread: clients that post, and those that follow by server-sent events and
by WebSockets, stay for seconds, leave, and come again with their last id."""

from __future__ import annotations

import http.client
import json
from itertools import count
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import psycopg
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

import pgpubsub.streams
from pgpubsub.web import Keys, Limits, tails
from tests.chaos.gateway import SECRET, Poster, bearer
from tests.contract.browser import Browser
from tests.soak.accounts import Cursor
from tests.soak.stage import UNSURE, Stage
from tests.web.conftest import Served

__all__ = ["Gateway"]

POSTS, POSTED = "soak posts", "soak posted"
"""A channel and a stream."""

KEPT = 100
"""Entries of it."""

BEHIND = 100
"""Events that a client may be behind, and places at which one may come in: so that logs have their size soon."""

STAYS = 5.0
"""Seconds after which a client leaves."""

FAILURES = (OSError, http.client.HTTPException, WebSocketException, AssertionError, EOFError)


class Gateway:
    """See the module.

    Args:
        stage: where.
        directory: for the secret that signs tokens.
    """

    def __init__(self, stage: Stage, directory: Path) -> None:
        tails.STANDS = BEHIND
        secret = directory / "secret"
        secret.write_text(SECRET)
        self._stage = stage
        self.server = Served(stage.dsn, keys=Keys(secret=secret), limits=Limits(buffer=BEHIND))
        new = stage.accounts.source
        self._to_channel, self._to_stream, self._by_socket = (
            new("POST to a channel"),
            new("POST to a stream"),
            new("ws"),
        )

    def install(self, conn: psycopg.Connection[Any]) -> None:
        """The stream."""
        pgpubsub.streams.create(conn, POSTED, max_entries=KEPT)

    def receive(self) -> None:
        """Begin to, in threads."""
        self._stage.receive(self._follow)
        self._stage.receive(self._follow_by_socket)
        self._stage.receive(self._come_and_go)

    def send(self) -> None:
        """Begin to."""
        for work in (self._post, self._append, self._publish):
            self._stage.send(work)

    # -- those who follow

    def _follow(self) -> None:
        """A channel and a stream at once, over one connection after the other."""
        on_channel = self._stage.accounts.cursor("server-sent events, channel", self._to_channel, from_now=True)
        on_stream = self._stage.accounts.cursor("server-sent events, stream", self._to_stream)
        query = urlencode([("channel", POSTS), ("stream", POSTED), ("after", "beginning")])
        last = ""
        while not self._stage.over.is_set():
            try:
                with Browser(
                    self.server.port, f"/events?{query}", last_event_id=last, Authorization=bearer()
                ) as browser:
                    browser.listening()
                    last = browser.last_event_id
                    leaves = monotonic() + STAYS
                    for event in browser:
                        last = event.last_event_id
                        self._took(json.loads(event.data), on_channel, on_stream, "server-sent events")
                        if monotonic() > leaves or self._stage.over.is_set():
                            break
            except FAILURES as error:
                self._failed(error)

    def _follow_by_socket(self) -> None:
        on_channel = self._stage.accounts.cursor("WebSocket, channel", self._to_channel, from_now=True)
        on_stream = self._stage.accounts.cursor("WebSocket, stream", self._to_stream)
        after = "beginning"
        while not self._stage.over.is_set():
            try:
                with self._socket() as socket:
                    on_channel.gap()  # a channel has no past, and a WebSocket no Last-Event-ID
                    socket.send(json.dumps({"type": "subscribe", "channel": POSTS, "ref": 1}))
                    socket.send(json.dumps({"type": "subscribe", "stream": POSTED, "after": after, "ref": 2}))
                    leaves = monotonic() + STAYS
                    while monotonic() < leaves and not self._stage.over.is_set():
                        frame = json.loads(socket.recv(20))
                        after = frame.get("position", after)
                        self._took(frame, on_channel, on_stream, "WebSocket")
            except (*FAILURES, TimeoutError) as error:
                self._failed(error)

    def _took(self, frame: dict[str, Any], on_channel: Cursor, on_stream: Cursor, name: str) -> None:
        cursor = on_stream if "stream" in frame else on_channel
        if frame["type"] == "message":
            self._stage.done[name] += 1
            message = cursor.came(frame["payload"])
            if message is not None and cursor is on_channel and name == "server-sent events":
                self._stage.latencies.since("POST", message.at)
        elif frame["type"] == "gap" and cursor is on_channel:
            self._stage.done["gaps of clients"] += 1
            cursor.gap()
        elif frame["type"] not in ("ok", "closing"):
            self._stage.accounts.complain(f"{name}: {frame}")

    def _come_and_go(self) -> None:
        """Clients that leave as soon as they are there, one way or another."""
        for number in count():
            if self._stage.over.wait(0.7):
                return
            channel = f"soak nobody's {number}"
            try:
                with Browser(
                    self.server.port, f"/events?{urlencode({'channel': channel})}", Authorization=bearer()
                ) as browser:
                    browser.listening()
                with self._socket() as socket:
                    for kind in ("subscribe", "unsubscribe"):
                        socket.send(json.dumps({"type": kind, "channel": channel, "ref": 1}))
                        json.loads(socket.recv(20))
                    if number % 2:
                        socket.socket.close()  # without a word
                self._stage.done["clients, passing"] += 1
            except (*FAILURES, TimeoutError) as error:
                self._failed(error)

    def _socket(self) -> ClientConnection:
        url = f"ws://127.0.0.1:{self.server.port}/ws"
        return connect(url, additional_headers={"Authorization": bearer()}, open_timeout=20)

    def _failed(self, error: BaseException) -> None:
        if not self._stage.over.is_set():
            self._stage.done[f"clients cut off, {type(error).__name__}"] += 1
            Event().wait(0.2)

    # -- those who send

    def _post(self) -> None:
        poster = Poster(self.server.port)
        for _ in self._stage.times(0.25):
            text = self._to_channel.next()
            try:
                poster.post("channels", POSTS, text)
            except (*UNSURE, OSError):
                self._to_channel.doubt()
            else:
                self._to_channel.committed()
            self._stage.done["POST to a channel"] += 1

    def _append(self) -> None:
        poster = Poster(self.server.port)
        for _ in self._stage.times(0.5):
            text = self._to_stream.next(100)
            while True:
                try:
                    poster.post("streams", POSTED, text, key=f"post {self._to_stream.last}")
                except (*UNSURE, OSError):
                    Event().wait(0.1)
                    continue
                break
            self._to_stream.committed()
            self._stage.done["POST to a stream"] += 1

    def _publish(self) -> None:
        """Over a WebSocket that stays."""
        while not self._stage.quiet.is_set():
            try:
                with self._socket() as socket:
                    for _ in self._stage.times(0.5):
                        frame = {"type": "publish", "channel": "soak by web socket", "payload": self._by_socket.next()}
                        socket.send(json.dumps({**frame, "ref": 1}))
                        socket.recv(20)
                        self._stage.done["publish by WebSocket"] += 1
            except (*FAILURES, TimeoutError) as error:
                self._failed(error)
