"""A table of orders that is live: uvicorn examples.gateway_orders.orders:app

A trigger appends each change to a stream. The page reads the stream from the position at which the application has read
the table, so it misses nothing and shows nothing twice, whatever is written meanwhile and whoever writes it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
from fastapi import FastAPI
from fastapi.responses import FileResponse

import pgpubsub
from pgpubsub import streams, triggers
from pgpubsub.web import create_app

CONNINFO = "dbname=test user=postgres"

hub = pgpubsub.AsyncHub(CONNINFO)
gateway = create_app(hub, public=["streams/orders"])


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    with psycopg.connect(CONNINFO) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS orders (id int PRIMARY KEY, customer text, state text)")
        streams.install(conn)
        triggers.install(conn, "orders", to=triggers.stream("orders"))
    async with gateway.router.lifespan_context(gateway):
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/live", gateway)


@app.get("/orders")
async def orders() -> dict[str, Any]:
    """The table, and where its changes go on: first the position, then the rows, so that nothing lies between."""
    async with hub.stream("orders").read(pgpubsub.END) as reader:
        position = reader.position
    async with await psycopg.AsyncConnection.connect(CONNINFO) as conn:
        rows = await (await conn.execute("SELECT id, customer, state FROM orders ORDER BY id")).fetchall()
    return {"position": position, "rows": [dict(zip(("id", "customer", "state"), row, strict=True)) for row in rows]}


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("orders.html"))
