"""Server-sent events over ASGI, for whatever framework: until the receiver, the client or the server ends.

A server that is told to end waits for the responses that are open, and runs the application's own shutdown only then. A
stream of events has no end of its own, so it would wait for ever, or for its time-out, after which it cancels what is
left and logs that as errors. No part of ASGI tells a response that its server wants to end, so `ending_with_server`
listens to the signals that tell the server.

It promises an end within seconds where SIGTERM or SIGINT reaches a process whose event loop runs in the main thread, as
below uvicorn and its workers. A server that ends for another reason, such as uvicorn's `--limit-max-requests`, is not
noticed: its own time-out (`--timeout-graceful-shutdown`) is for that.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Unpack
from weakref import WeakKeyDictionary

from pgpubsub.aio import AsyncReader, AsyncSubscription
from pgpubsub.contrib.sse import Options, follow
from pgpubsub.errors import SubscriptionClosed

__all__ = ["ending_with_server", "respond", "server_ends"]

GRACE = 1.0
"""Seconds that a client has, when the server ends, to take what was sent to it."""


@dataclass
class _Ending:
    """What the applications of one event loop share, as a signal is for all of a process."""

    told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when their servers are told to end."""
    lifespans: int = 0
    """How many are to be told."""


_endings: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ending] = WeakKeyDictionary()


def _ending() -> _Ending:
    return _endings.setdefault(asyncio.get_running_loop(), _Ending())


@contextmanager
def ending_with_server() -> Iterator[None]:
    """While this lasts, in an application's lifespan, SIGTERM and SIGINT end what `respond` sends in this event loop.
    The server's own handlers of these signals, which are there by then, are called as ever."""
    loop, ending = asyncio.get_running_loop(), _ending()
    replaced: dict[signal.Signals, Any] = {}

    def on_signal(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed, and nothing is left to end
            loop.call_soon_threadsafe(ending.told.set)
        replaced[signal.Signals(number)](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if callable(handler := signal.getsignal(number)):  # otherwise nobody would wait for what is open
                replaced[number] = handler
                signal.signal(number, on_signal)
    ending.lifespans += 1
    try:
        yield
    finally:
        ending.lifespans -= 1
        for number, handler in replaced.items():
            if signal.getsignal(number) is on_signal:
                signal.signal(number, handler)
        if not ending.lifespans:  # the next server of this loop is told anew
            del _endings[loop]


async def server_ends() -> None:
    """Wait until the server is told to end: below `ending_with_server`."""
    await _ending().told.wait()


async def respond(
    receiver: AsyncSubscription[Any] | AsyncReader[Any],
    start: Callable[[], Awaitable[object]],
    receive: Callable[[], Awaitable[Any]],
    send: Callable[[Any], Awaitable[object]],
    **options: Unpack[Options],
) -> None:
    """Send what `receiver` delivers as a response, and close it.

    Args:
        receiver: not entered yet.
        start: sends the head of the response, once the receiver is entered: a client that sees it is listening.
        receive, send: as ASGI gives them.
        options: as for `follow`.

    Raises:
        PubSubError: as `follow`. Before `start` is called, so that there may be another response, if it is one of
            entering the receiver.
    """
    streaming = asyncio.create_task(_stream(receiver, start, send, options))
    gone = asyncio.create_task(_gone(receive))
    ending = asyncio.create_task(server_ends())
    try:
        await asyncio.wait({streaming, gone, ending}, return_when=asyncio.FIRST_COMPLETED)
        if ending.done():
            receiver.close()
            await asyncio.wait({streaming, gone}, timeout=GRACE, return_when=asyncio.FIRST_COMPLETED)
        if streaming.done():
            streaming.result()
    finally:
        for task in (streaming, gone, ending):
            task.cancel()
        await asyncio.gather(streaming, gone, ending, return_exceptions=True)


async def _stream(
    receiver: AsyncSubscription[Any] | AsyncReader[Any],
    start: Callable[[], Awaitable[object]],
    send: Callable[[Any], Awaitable[object]],
    options: Options,
) -> None:
    async with aclosing(follow(receiver, **options)) as events:
        try:
            opening = await anext(events)
        except SubscriptionClosed:  # by us: the server ends
            opening = b""
        with suppress(OSError):  # how a server says that the client has gone
            await start()
            await send({"type": "http.response.body", "body": opening, "more_body": True})
            async for chunk in events:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Callable[[], Awaitable[Any]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
