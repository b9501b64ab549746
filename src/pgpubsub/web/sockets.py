"""WebSockets: JSON frames in both directions, as docs/gateway.asyncapi.yaml has them. A client's requests are fulfilled
one after the other, and each is answered, with the `ref` that it had."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from time import monotonic, time
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from pgpubsub.core.sql import shown, text_fault
from pgpubsub.errors import PubSubError
from pgpubsub.web.access import Grant
from pgpubsub.web.asking import address, bearer, begin, check
from pgpubsub.web.gateway import Gateway
from pgpubsub.web.items import Topic, compact
from pgpubsub.web.outlet import Ending, Outlet
from pgpubsub.web.problems import Problem, note, of
from pgpubsub.web.responses import GONE, farewell
from pgpubsub.web.sending import send, too_long

__all__ = ["serve"]

LONGEST_REF = 200
"""Characters: answers have it, and some of them wait."""

TO_AUTHENTICATE = 10.0
"""Seconds within which a client that may do nothing has to say who it is."""

PENDING = 100
"""Answers that a client may leave untaken, before nothing more is read of it."""

FIELDS: Mapping[str, Mapping[str, type | tuple[type, ...]]] = {
    "authenticate": {"token": str},
    "subscribe": {"channel": str, "stream": str, "after": str},
    "unsubscribe": {"channel": str, "stream": str},
    "publish": {
        "channel": str,
        "stream": str,
        "payload": str,
        "base64": str,
        "key": (str, type(None)),
        "headers": (dict, type(None)),
        "idempotency_key": (str, type(None)),
    },
}
"""What each sort of request may have, beside `type` and `ref`."""


async def serve(gateway: Gateway, websocket: WebSocket) -> None:
    """Have a conversation with one client."""
    try:
        grant = gateway.grant(bearer(websocket))
        identity = grant.subject or address(websocket)
        outlet = gateway.admit(identity, grant)
        if not grant.read and not grant.write:
            outlet.expires = time() + TO_AUTHENTICATE
    except Problem as problem:
        await websocket.send_denial_response(problem.response())
        return
    conversation = _Conversation(gateway, websocket, outlet, grant)
    try:
        await websocket.accept()
        await conversation.run()
    except (WebSocketDisconnect, OSError, RuntimeError):  # the last is Starlette's for a socket that is closed
        pass
    finally:
        gateway.dismiss(outlet)


class _Conversation:
    def __init__(self, gateway: Gateway, websocket: WebSocket, outlet: Outlet, grant: Grant) -> None:
        self._gateway = gateway
        self._websocket = websocket
        self._outlet = outlet
        self._grant = grant
        self._answers: deque[str] = deque()
        self._room = asyncio.Event()
        self._requests = {
            "authenticate": self._authenticate,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "publish": self._publish,
        }

    async def run(self) -> None:
        """Until one of both ends it."""
        self._outlet.task = asyncio.current_task()
        listening = asyncio.create_task(self._listen())
        try:
            await self._talk()
        except asyncio.CancelledError:
            if not self._outlet.cut_off:
                raise
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    # -- to the client

    async def _talk(self) -> None:
        outlet = self._outlet
        while True:
            frames = self._due()
            if not frames:
                if outlet.ending is not None:
                    await self._end(outlet.ending)
                    return
                outlet.sent_at = monotonic()  # a WebSocket's silence is broken by the server below
                await outlet.wait()
            for frame in frames:
                if outlet.ending is not None and not outlet.ending.drained:
                    break
                outlet.stalled_since = outlet.sent_at = monotonic()
                await self._websocket.send_text(frame)
                outlet.stalled_since = None
                self._gateway.counts.bytes += len(frame)

    def _due(self) -> list[str]:
        frames = list(self._answers)
        self._answers.clear()
        self._room.set()
        ending = self._outlet.ending
        if ending is None or ending.drained:
            frames += [item.encoded("json").decode() for item in self._outlet.take()]
        return frames

    async def _end(self, ending: Ending) -> None:
        if ending is GONE:
            return
        self._outlet.stalled_since = monotonic()
        await self._websocket.send_text(compact({"type": "closing", **farewell(ending)}))
        await self._websocket.close(ending.close, ending.code)

    # -- from the client

    async def _listen(self) -> None:
        try:
            while True:
                message = await self._websocket.receive()
                self._gateway.check_expired(self._outlet)
                if message["type"] == "websocket.disconnect" or self._outlet.ending is not None:
                    break
                await self._answer(message.get("text") or message.get("bytes") or "")
                if len(self._answers) >= PENDING:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._outlet.end(GONE)

    async def _answer(self, text: str | bytes) -> None:
        ref = None
        try:
            self._gateway.rates.take(self._outlet.identity)
            if len(text) > self._gateway.limits.frame_bytes:
                raise too_long(len(text), self._gateway.limits.message_bytes)
            request = _parsed(text)
            ref = _ref(request)
            _check(request)
            answer = await self._requests[request.pop("type")](request)
        except (Problem, PubSubError, ValueError) as error:
            told = self._refusal(error)
            await asyncio.sleep(1 / self._gateway.limits.rate)  # so that these are counted, too
            self._answers.append(compact({"type": "error", "ref": ref, **told}))
        else:
            self._answers.append(compact({"type": "ok", "ref": ref, **answer}))
        self._outlet.wake()

    def _refusal(self, error: Exception) -> dict[str, Any]:
        """Not in `_answer`, whose frame would be kept, with what was sent, by an error that it names."""
        problem = of(error)
        note(problem, error)
        self._gateway.counts.refused[problem.status] += 1
        return problem.as_json()

    async def _authenticate(self, request: dict[str, Any]) -> dict[str, Any]:
        if "token" not in request:
            raise Problem(400, "bad-request", "authenticate takes a token")
        grant = self._gateway.grant(request["token"])
        for topic in self._outlet.topics:
            if not grant.read.match(topic.path):
                self._outlet.remove(topic)
        self._grant = grant
        self._outlet.expires = grant.expires
        self._outlet.identity = grant.subject or address(self._websocket)
        return {
            "expires": grant.expires and int(grant.expires),
            "following": [{topic.kind: topic.name} for topic in self._outlet.topics],
        }

    async def _subscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        topic = _topic(request)
        self._grant.check("read", [topic.path])
        if topic.kind == "channel" and "after" in request:
            raise Problem(400, "bad-request", "a channel has no past: only a stream has `after`")
        await self._gateway.follow(self._outlet, topic, begin(topic, request.get("after")))
        position = self._outlet.positions.get(topic)
        return {topic.kind: topic.name, **({} if position is None else {"position": position})}

    async def _unsubscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        topic = _topic(request)
        if topic not in self._outlet.topics:
            raise Problem(404, "not-followed", f"{topic.path} is not followed")
        self._outlet.remove(topic)
        return {topic.kind: topic.name}

    async def _publish(self, request: dict[str, Any]) -> dict[str, Any]:
        topic = _topic(request)
        self._grant.check("write", [topic.path])
        payload = _payload(request)
        size = len(payload if isinstance(payload, bytes) else payload.encode(errors="replace"))
        if size > self._gateway.limits.message_bytes:
            raise too_long(size, self._gateway.limits.message_bytes)
        key, headers, idempotency_key = (request.get(name) for name in ("key", "headers", "idempotency_key"))
        id = await send(
            self._gateway,
            topic,
            payload,
            key=key,
            headers=headers,
            idempotency_key=idempotency_key,
            context=headers or {},
        )
        return {} if id is None else {"id": id}


def _parsed(text: str | bytes) -> dict[str, Any]:
    """What a frame of a client says.

    Raises:
        Problem: that is not a request.
    """
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise Problem(400, "bad-request", "a frame is a JSON object")
    return request


def _ref(request: dict[str, Any]) -> str | int | float | None:
    """What the answer is to have, which is no part of the request any more."""
    ref = request.pop("ref", None)
    if not isinstance(ref, str | int | float | None):
        raise Problem(400, "bad-request", "ref is text or a number")
    if len(json.dumps(ref)) > LONGEST_REF or ref != ref or ref in (inf, -inf) or text_fault(str(ref)):
        raise Problem(400, "bad-request", f"ref has at most {LONGEST_REF} characters, and is valid")
    return ref


def _check(request: Mapping[str, Any]) -> None:
    """Make sure that it is a request.

    Raises:
        Problem: it is none.
    """
    kind = request.get("type")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise Problem(400, "bad-request", f'a frame has a "type": one of {", ".join(FIELDS)}')
    for name, value in request.items():
        if name == "type":
            continue
        if name not in FIELDS[kind]:
            raise Problem(400, "bad-request", f"{kind} has no {shown(name)}, but {', '.join(FIELDS[kind])}")
        if not isinstance(value, FIELDS[kind][name]):
            raise Problem(400, "bad-request", f"{name!r} of {kind} is not {json.dumps(value)[:80]}")


def _topic(request: Mapping[str, Any]) -> Topic:
    named = [Topic(kind, request[kind]) for kind in ("channel", "stream") if kind in request]
    if len(named) != 1:
        raise Problem(400, "bad-request", "either a channel or a stream is to be named")
    check(named[0])
    return named[0]


def _payload(request: Mapping[str, Any]) -> str | bytes:
    if "base64" in request and "payload" in request:
        raise Problem(400, "bad-request", "either payload or base64 is to be given")
    if "base64" not in request:
        return str(request.get("payload", ""))
    try:
        return base64.b64decode(request["base64"], validate=True)
    except ValueError as error:
        raise Problem(400, "bad-payload", f"base64: {error}") from None
