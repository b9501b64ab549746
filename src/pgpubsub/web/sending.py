"""Messages that clients send."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

from pgpubsub.web.gateway import Gateway
from pgpubsub.web.items import Topic
from pgpubsub.web.problems import Problem

__all__ = ["body_of", "check_headers", "send"]

BINARY = "application/octet-stream"


async def send(
    gateway: Gateway,
    topic: Topic,
    payload: str | bytes,
    *,
    key: str | None = None,
    headers: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
    context: Mapping[str, Any],
) -> int | None:
    """Send a message, and return its id if it went to a stream. It is committed then. `context`: what may say of which
    trace that is a part.

    Raises:
        Problem: a channel cannot carry this.
        PubSubError: as `notify` and `append`.
    """
    if topic.kind == "channel":
        if isinstance(payload, bytes):
            raise Problem(415, "bad-payload", "channels carry text: send it as text/plain or application/json")
        if key is not None or idempotency_key is not None:
            raise Problem(400, "bad-request", "a channel's messages have no key and no idempotency key: streams' have")
        with gateway.continuing(context):
            await gateway.hub.notify(topic.name, payload, headers=headers)
        gateway.counts.to_channels += 1
        return None
    stream = gateway.hub.stream(topic.name, schema=gateway.schema)
    with gateway.continuing(context):
        id = await stream.append(payload, key, headers, idempotency_key=idempotency_key)
    gateway.counts.to_streams += 1
    return id


async def body_of(request: Request, limit: int) -> str | bytes:
    """What a request carries: text, unless it says that it is binary.

    Raises:
        Problem: it is too long, or not UTF-8.
    """
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise too_long(int(length), limit)
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise too_long(len(body), limit)
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == BINARY:
        return bytes(body)
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, "bad-payload", f"this is no UTF-8 ({error}): send what is binary as {BINARY}") from None


def too_long(size: int, limit: int) -> Problem:
    """A message has `size` bytes, or more."""
    return Problem(413, "too-large", f"the message has {size} bytes or more, and {limit} are allowed here")


def check_headers(given: str | None) -> dict[str, Any] | None:
    """What is to be sent beside a payload.

    Raises:
        Problem: they are no JSON object.
    """
    if given is None:
        return None
    try:
        headers = json.loads(given)
    except (ValueError, RecursionError):
        headers = None
    if not isinstance(headers, dict):
        raise Problem(400, "bad-request", "headers is to be a JSON object")
    return headers
