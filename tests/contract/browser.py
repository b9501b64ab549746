"""A browser's `EventSource`, as far as it is needed: it reads a stream of events as the HTML standard says, and knows
the id with which it would connect again."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Browser", "Received", "parse"]


class Received(NamedTuple):
    """What a listener gets."""

    type: str
    data: str
    last_event_id: str = ""


class Parser:
    """Section 9.2.6, "Interpreting an event stream", line by line."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.comments: list[str] = []
        self.retry: int | None = None
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Received | None:
        if not line:
            return self._dispatch()
        if line.startswith(":"):
            self.comments.append(line[1:].removeprefix(" "))
            return None
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._type = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isdecimal():
            self.retry = int(value)
        return None

    def _dispatch(self) -> Received | None:
        self.last_event_id = self._id
        kind, data = self._type, self._data
        self._type, self._data = "", []
        return Received(kind or "message", "\n".join(data), self._id) if data else None


def parse(stream: Iterable[bytes]) -> list[Received]:
    """What a browser would get of all this."""
    text = b"".join(stream).decode().replace("\r\n", "\n").replace("\r", "\n")
    parser = Parser()
    return [event for line in text.split("\n") if (event := parser.feed(line)) is not None]


class Browser:
    """One that has connected, and has the head of the response."""

    def __init__(self, port: int, path: str, *, last_event_id: str = "", method: str = "GET", **others: str) -> None:
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        headers |= {name.replace("_", "-"): value for name, value in others.items()}
        self._client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.parser = Parser(last_event_id)
        try:
            self._client.request(method, path, headers=headers)
            assert self._client.sock is not None
            self.socket: socket.socket = self._client.sock
            self.response = self._client.getresponse()
        except BaseException:
            self._client.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def last_event_id(self) -> str:
        return self.parser.last_event_id

    def listening(self) -> Self:
        """Wait for the first comment."""
        try:
            assert self.response.status == 200, self.response.read()
            assert self.response.headers["content-type"].startswith("text/event-stream")
            assert self.response.headers["cache-control"] == "no-store"
            assert self.response.headers["x-accel-buffering"] == "no"
            while line := self.line():
                self.parser.feed(line)
            self.parser.feed("")
            assert self.parser.comments == ["listening"]
        except BaseException:
            self.close()
            raise
        return self

    def next(self) -> Received:
        """The next event."""
        for event in self:
            return event
        raise AssertionError("the stream has ended")

    def __iter__(self) -> Iterator[Received]:
        """Until the server ends the stream."""
        while (line := self.line()) is not None:
            if (event := self.parser.feed(line)) is not None:
                yield event

    def line(self) -> str | None:
        """The next one, or None at the end."""
        line = self.response.readline()
        return line.decode().removesuffix("\n") if line else None

    def close(self) -> None:
        """Leave the page."""
        self.response.close()
        self._client.close()
