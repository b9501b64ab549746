"""Server-sent events: a response that goes on until the client, its token or the server ends."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from time import monotonic, time
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pgpubsub.contrib.sse import HEADERS, KEEP_ALIVE, MEDIA_TYPE, frame
from pgpubsub.events import Gap, GapReason
from pgpubsub.web.asking import Asked, mark
from pgpubsub.web.gateway import Gateway
from pgpubsub.web.items import Item, compact
from pgpubsub.web.outlet import Ending, Outlet

__all__ = ["EventStream", "farewell"]

RETRY = (1000, 5000)
"""Milliseconds, from and to, after which a client that is sent away is to come again: each another, so that they do not
come all at once."""

GONE = Ending("gone", "the client has gone", 1000)


def farewell(ending: Ending) -> dict[str, Any]:
    """What a client is told of the end of its connection, and after how many milliseconds it is to come again."""
    retry = {"retry": random.randint(*RETRY)} if ending.again else {}  # noqa: S311
    return {"reason": ending.code, "detail": ending.detail, **retry}


class EventStream(Response):
    """A response of what an outlet has.

    Args:
        outlet: which follows already what is asked for. It is dismissed in the end.
    """

    media_type = MEDIA_TYPE

    def __init__(self, gateway: Gateway, outlet: Outlet, asked: Asked) -> None:
        super().__init__(headers=HEADERS, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._gateway = gateway
        self._outlet = outlet
        self._asked = asked
        self._positions = outlet.positions
        self._time = f"t{round(time() * 1000)}" if any(topic.kind == "channel" for topic in outlet.topics) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outlet = self._outlet
        outlet.task = asyncio.current_task()
        write = scope.get("extensions", {}).get("pgpubsub", {}).get("write")
        if write is not None and self._asked.plain and scope["method"] == "GET":
            outlet.write_by(write)
        gone = asyncio.create_task(_gone(receive, outlet))
        try:
            with suppress(OSError):  # how a server says that the client has gone
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._stream(send)
        except asyncio.CancelledError:
            if not outlet.cut_off:
                raise
            await _abort(scope, gone)
        finally:
            self._gateway.dismiss(outlet)
            gone.cancel()

    async def _stream(self, send: Send) -> None:
        outlet, counts = self._outlet, self._gateway.counts
        take = outlet.take_chunk if self._asked.plain else self._take
        chunk = self._opening()
        while True:
            outlet.stalled_since = outlet.sent_at = monotonic()
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            outlet.stalled_since = None
            counts.bytes += len(chunk)
            while not (chunk := b"" if outlet.ending is not None and not outlet.ending.drained else take()):
                if outlet.ending is not None:
                    await self._end(send, outlet.ending)
                    return
                if monotonic() > outlet.sent_at + self._gateway.keep_alive:
                    chunk = self._keep_alive()
                    break
                await outlet.wait()

    async def _end(self, send: Send, ending: Ending) -> None:
        if ending is GONE:
            return
        told = farewell(ending)
        self._outlet.stalled_since = monotonic()
        body = frame(compact(told), event="closing", retry=told.get("retry"))
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _opening(self) -> bytes:
        """Once a client has this, it is listening; and it knows where to go on even if nothing comes."""
        opening = frame(comment="listening", id=self._mark())
        if self._asked.away_since is None:
            return opening
        why = "the client was away"
        for topic in self._outlet.topics:
            if topic.kind == "channel":
                gap = Gap(GapReason.CONNECTION_LOST, (topic.name,), self._asked.away_since, None, why)
                item = Item(topic, gap, 0, round(time() * 1000))
                opening += item.encoded("plain") if self._asked.plain else self._encoded(item)
        return opening

    def _keep_alive(self) -> bytes:
        """Who has got nothing for long goes on behind what nobody will get, such as what retention has removed."""
        self._positions = self._outlet.positions
        return frame(comment="", id=self._mark()) if self._positions else KEEP_ALIVE

    def _take(self) -> bytes:
        return b"".join([self._encoded(item) for item in self._outlet.take()])

    def _encoded(self, item: Item) -> bytes:
        """With an id that is about all that the client gets."""
        if item.place is not None:
            if item.topic.kind == "channel":
                self._time = item.place
            else:
                self._positions[item.topic] = item.place
        return b"id: " + self._mark().encode() + b"\n" + item.encoded("event")

    def _mark(self) -> str:
        return mark(self._time, self._positions.values())


async def _gone(receive: Receive, outlet: Outlet) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    outlet.end(GONE)


async def _abort(scope: Scope, gone: asyncio.Task[None]) -> None:
    """Break the connection, so that what the client does not take is not kept for it."""
    abort = scope.get("extensions", {}).get("pgpubsub", {}).get("abort")
    if abort is not None:
        abort()
        await gone
