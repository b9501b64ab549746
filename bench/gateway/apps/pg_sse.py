"""pg-sse: its examples/chat.py, which it calls the recommended shape, with Starlette.

What differs is in its favour: a read is one round trip (autocommit), and of 10,000 messages in place of 500 (whoever is
further behind than that waits for the next message, or for a minute); an event's data is text and not JSON; and it lets
in as many clients as come, not 500. Its messages are rows of a table, as those of a stream are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from pg_sse import Event, Hub, IntCursor
from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

URL = os.environ["BENCH_URL"]

hub = Hub(URL, channel="room_change", max_subscribers=100_000)
cursors = IntCursor()
pool = AsyncConnectionPool(URL, open=False, timeout=600, kwargs={"autocommit": True})


async def read_after(room: str, after: int) -> list[Event]:
    async with pool.connection() as conn:
        cur = await conn.execute(
            "SELECT id, body FROM messages WHERE room = %s AND id > %s ORDER BY id LIMIT 10000", (room, after)
        )
        rows = await cur.fetchall()
    return [Event(body, id=id) for id, body in rows]


async def latest_id(room: str) -> int:
    async with pool.connection() as conn:
        cur = await conn.execute("SELECT coalesce(max(id), 0) FROM messages WHERE room = %s", (room,))
        row = await cur.fetchone()
    return row[0] if row else 0


async def stream(request: Request) -> Response:
    room = request.path_params["room"]
    cursor = cursors.parse_one(request.headers.get("last-event-id"))
    response: Response = hub.sse(room, read=partial(read_after, room), cursor=cursor, start=partial(latest_id, room))
    return response


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    await pool.open()
    try:
        async with hub.lifespan():
            yield
    finally:
        await pool.close()


app = Starlette(routes=[Route("/rooms/{room}/stream", stream)], lifespan=lifespan)
