"""A connection to PostgreSQL for each client, which listens: what one writes first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route


async def events(_: Request) -> StreamingResponse:
    return StreamingResponse(_events(), media_type="text/event-stream")


async def _events() -> AsyncIterator[str]:
    queue: asyncio.Queue[str] = asyncio.Queue()

    def on_notification(_connection: Any, _pid: int, _channel: str, payload: object) -> None:
        queue.put_nowait(str(payload))

    connection = await asyncpg.connect(os.environ["BENCH_URL"])
    try:
        await connection.add_listener("bench", on_notification)
        yield ": listening\n\n"
        while True:
            yield f"data: {await queue.get()}\n\n"
    finally:
        await connection.close()


app = Starlette(routes=[Route("/events", events)])
