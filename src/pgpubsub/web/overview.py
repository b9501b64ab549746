"""What goes on at the gateway, about every second, for its page: the connection, channels, streams and their groups.

Whoever asks is told only of what their patterns let them read. However many watch, the database is asked once for all
of them, and only while somebody does. What is told of channels and clients is this process's part of it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from heapq import nlargest
from time import monotonic
from typing import Any

from psycopg.conninfo import make_conninfo
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from pgpubsub.contrib.sse import HEADERS, MEDIA_TYPE, frame
from pgpubsub.doctor.lag import Group
from pgpubsub.errors import PubSubError
from pgpubsub.web.access import Patterns
from pgpubsub.web.asking import Asked, address, bearer
from pgpubsub.web.gateway import Gateway
from pgpubsub.web.items import compact
from pgpubsub.web.looking import UNREACHABLE, Eye, Seen, Stream, Unseen
from pgpubsub.web.outlet import Outlet
from pgpubsub.web.problems import Problem
from pgpubsub.web.responses import EventStream

__all__ = ["Overview"]

EVERY = 1.0
"""Seconds from one look at the database to the next, if looks are short."""

SHARE = 4
"""How many times as long as a look takes there is none after it: a database with much to tell is not kept busy."""

SOON = 0.25
"""Seconds after a look in which there is no other, whoever comes."""

STUCK = 10.0
"""Seconds after which a look is broken off: the server ends its questions long before, if it answers."""

VIEWERS = 100
"""That may watch at once."""

SHOWN = 200
"""Channels that a viewer is told of: those that most follow."""

OWN_NAME = f"pgpubsub overview {os.getpid()}@{socket.gethostname()}".encode()[:63].decode(errors="ignore")

NOTHING = Asked((), (), False, None)


class Overview:
    """See the module."""

    def __init__(self, gateway: Gateway) -> None:
        self.number = 0
        """Of the latest look, so that viewers see that there is another."""
        self._gateway = gateway
        self._viewers: dict[Outlet, Patterns] = {}
        self._seen: Seen | Unseen | None = None
        self._watching: asyncio.Task[None] | None = None
        self._somebody_new = asyncio.Event()
        self._encoded: dict[tuple[str, ...], bytes] = {}

    async def respond(self, request: Request) -> Response:
        """`GET /overview`: server-sent events.

        Raises:
            Problem: whoever asks may read nothing, or there are too many.
        """
        gateway = self._gateway
        grant = gateway.grant(bearer(request))
        identity = grant.subject or address(request)
        if not grant.read:
            if grant.expires is None:
                raise Problem(401, "unauthorized", "to see what goes on takes a token: Authorization: Bearer ...")
            raise Problem(403, "forbidden", "the token does not allow to read anything")
        if request.method == "HEAD":
            return Response(headers=HEADERS, media_type=MEDIA_TYPE)
        if len(self._viewers) >= VIEWERS:
            raise Problem(503, "full", f"{VIEWERS} watch already: try again later", retry_after=10)
        gateway.rates.take(identity)
        return _Telling(self, gateway, gateway.admit(identity, grant), grant.read)

    def enter(self, outlet: Outlet, patterns: Patterns) -> None:
        """Somebody watches."""
        self._viewers[outlet] = patterns
        self._somebody_new.set()
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())

    def leave(self, outlet: Outlet) -> None:
        """They do not any more."""
        del self._viewers[outlet]
        self._somebody_new.set()

    def told(self, patterns: Patterns) -> bytes:
        """The latest, as an event for those with such patterns."""
        encoded = self._encoded.get(patterns.given)
        if encoded is None:
            encoded = frame(compact(self._all(patterns)), event="overview")
            self._encoded[patterns.given] = encoded
        return encoded

    # -- looking

    async def _watch(self) -> None:
        """Look, and tell, until nobody watches."""
        eye = Eye(self._gateway.schema)
        looking: asyncio.Task[Seen | Unseen] | None = None
        began = ended = 0.0
        told_at = look_at = monotonic()
        try:
            while self._viewers:
                now = monotonic()
                if looking is None and now >= look_at:
                    began, looking = now, asyncio.create_task(self._look(eye))
                if looking is not None and now > began + STUCK:
                    eye.break_off()
                await self._wait(looking, until=min(told_at + 1.5 * EVERY, look_at if looking is None else now + EVERY))
                now = monotonic()
                if looking is not None and looking.done():
                    self._seen, looking, ended = looking.result(), None, now
                    look_at = max(began + EVERY, now + SHARE * (now - began))
                    told_at = self._tell(now)
                elif now >= told_at + 1.5 * EVERY:
                    told_at = self._tell(now)
                if self._somebody_new.is_set():
                    self._somebody_new.clear()
                    look_at = min(look_at, max(ended + SOON, now))
        finally:
            eye.break_off()
            if looking is not None:
                await asyncio.wait({looking})
            eye.close()
            self._watching = self._seen = None
        if self._viewers:  # somebody has come meanwhile
            self._watching = asyncio.create_task(self._watch())

    async def _wait(self, looking: asyncio.Task[Any] | None, until: float) -> None:
        """Until then, until it is done, or until somebody comes."""
        coming = asyncio.create_task(self._somebody_new.wait())
        waited = {coming} if looking is None else {coming, looking}
        try:
            timeout = max(0.0, until - monotonic())
            await asyncio.wait(waited, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            coming.cancel()

    async def _look(self, eye: Eye) -> Seen | Unseen:
        try:
            conninfo = await self._gateway.hub._streams.handling_address()
        except PubSubError:
            return Unseen("unavailable", UNREACHABLE)
        wanted = {patterns.given: patterns for patterns in self._viewers.values()}
        conninfo = make_conninfo(conninfo, fallback_application_name=OWN_NAME)
        return await asyncio.to_thread(eye.look, conninfo, wanted.values())

    def _tell(self, now: float) -> float:
        self.number += 1
        self._encoded.clear()
        for outlet in self._viewers:
            outlet.wake()
        return now

    # -- telling

    def _all(self, patterns: Patterns) -> dict[str, Any]:
        gateway, seen = self._gateway, self._seen
        shown = seen.shown.get(patterns.given) if isinstance(seen, Seen) else None
        return {
            "server": self._server(),
            "clients": len(gateway.outlets) - len(self._viewers),
            "channels": self._channels(patterns),
            "streams": None if shown is None else [self._stream(stream) for stream in shown],
            "more": seen.more.get(patterns.given, 0) if isinstance(seen, Seen) else 0,
            "unseen": {"code": seen.code, "detail": seen.detail} if isinstance(seen, Unseen) else None,
        }

    def _server(self) -> dict[str, Any]:
        state, stats = self._gateway.hub.state, self._gateway.hub.stats()
        return {
            "live": state.live,
            "since": state.since.isoformat(),
            "error": None if state.live else UNREACHABLE,
            "heartbeat": stats.heartbeat_seconds,
            "reconnects": stats.reconnects,
            "gaps": stats.gaps,
        }

    def _channels(self, patterns: Patterns) -> list[dict[str, Any]]:
        channels = self._gateway.channels
        visible = [
            {"name": name, "followers": channels.followers(name), "received": log.end}
            for name, log in channels.logs.items()
            if patterns.match(f"channels/{name}")
        ]
        return nlargest(SHOWN, visible, key=lambda one: one["followers"])

    def _stream(self, stream: Stream) -> dict[str, Any]:
        tail = self._gateway.tails.tails.get(stream.name)
        return {
            "name": stream.name,
            "followers": 0 if tail is None else tail.followers,
            "last": stream.last,
            "rate": None if stream.rate is None else round(stream.rate, 2),
            "groups": [_group(group) for group in stream.groups],
        }


def _group(group: Group) -> dict[str, Any]:
    return {
        "name": group.name,
        "lag": group.lag,
        "at_least": group.at_least,
        "oldest": group.oldest,
        "members": group.members,
        "held_up": group.held_up,
        "dead": group.dead,
    }


class _Telling(EventStream):
    """A response of overviews: the latest, whenever there is another."""

    def __init__(self, overview: Overview, gateway: Gateway, outlet: Outlet, patterns: Patterns) -> None:
        super().__init__(gateway, outlet, NOTHING)
        self._overview = overview
        self._patterns = patterns
        self._number = -1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._overview.enter(self._outlet, self._patterns)
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._overview.leave(self._outlet)

    def _opening(self) -> bytes:
        return frame(comment="listening")

    def _take(self) -> bytes:
        if self._number == self._overview.number:
            return b""
        self._number = self._overview.number
        return self._overview.told(self._patterns)
