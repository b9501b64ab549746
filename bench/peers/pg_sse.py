"""pg-sse: server-sent events from tables, over psycopg 3: its example `chat.py`, with Starlette.

What differs is in its favour: a read is one round trip (autocommit), and of 10,000 messages in place of 500 (whoever is
further behind than that waits for the next message, or for a minute); an event's data is text and not JSON; and it lets
in as many clients as come, not 500. Its messages are rows of a table, as those of a stream are.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.peers.peer import Peer

if TYPE_CHECKING:
    import psycopg
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["INSERT", "PEER", "application", "prepare"]

PEER = Peer(
    "pg-sse",
    "0.5.0",
    "`trigger_sql()`, and `hub.sse()` behind Starlette with `IntCursor`, over psycopg's pool",
    'https://github.com/sansanth/pg-sse (its README, "Use it", and examples/chat.py)',
    "all but the gateway: it serves server-sent events, and nothing else",
)

INSERT = "INSERT INTO messages (room, body) VALUES ('bench', %s)"
CHAT = """
CREATE TABLE messages (
    id   bigserial PRIMARY KEY,
    room text NOT NULL,
    body text NOT NULL
);
CREATE INDEX messages_room_id ON messages (room, id);
"""


def prepare(connection: psycopg.Connection) -> None:
    """Make its table and trigger."""
    from pg_sse import trigger_sql

    connection.execute(CHAT)
    trigger = trigger_sql("messages", key_column="room", channel="room_change", order_column="id", on=("insert",))
    connection.execute(trigger.encode())


def application() -> Starlette:
    """See the module."""
    from pg_sse import Event, Hub, IntCursor
    from psycopg_pool import AsyncConnectionPool
    from starlette.applications import Starlette
    from starlette.routing import Route

    url = os.environ["BENCH_URL"]
    hub: Any = Hub(url, channel="room_change", max_subscribers=100_000)
    cursors = IntCursor()
    pool = AsyncConnectionPool(url, open=False, timeout=600, kwargs={"autocommit": True})

    async def read_after(room: str, after: int) -> list[Event]:
        async with pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT id, body FROM messages WHERE room = %s AND id > %s ORDER BY id LIMIT 10000", (room, after)
            )
            return [Event(body, id=id) for id, body in await cursor.fetchall()]

    async def latest_id(room: str) -> int:
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT coalesce(max(id), 0) FROM messages WHERE room = %s", (room,))
            row = await cursor.fetchone()
        return row[0] if row else 0

    async def respond(request: Request) -> Response:
        room = request.path_params["room"]
        cursor = cursors.parse_one(request.headers.get("last-event-id"))
        found: Response = hub.sse(room, read=partial(read_after, room), cursor=cursor, start=partial(latest_id, room))
        return found

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await pool.open()
        try:
            async with hub.lifespan():
                yield
        finally:
            await pool.close()

    return Starlette(routes=[Route("/rooms/{room}/stream", respond)], lifespan=lifespan)
