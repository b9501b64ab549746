"""broadcaster over PostgreSQL: its README's "complete example", with server-sent events in place of a WebSocket.

One subscriber is there from the start and takes what comes: while broadcaster begins to listen to a channel, others
that subscribe to it fail ("another operation is in progress").
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from broadcaster import Broadcast
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

broadcast = Broadcast(os.environ["BENCH_URL"])


async def events(_: Request) -> StreamingResponse:
    return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[str]:
    async with broadcast.subscribe(channel="bench") as subscriber:
        events: Any = subscriber  # whose types say less than it is
        async for event in events:
            yield f"data: {event.message}\n\n"


async def _keep_listening(listening: asyncio.Event) -> None:
    async with broadcast.subscribe(channel="bench") as subscriber:
        listening.set()
        while True:
            await subscriber.get()


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with broadcast, asyncio.TaskGroup() as tasks:
        listening = asyncio.Event()
        task = tasks.create_task(_keep_listening(listening))
        await listening.wait()
        yield
        task.cancel()


app = Starlette(routes=[Route("/events", events)], lifespan=lifespan)
