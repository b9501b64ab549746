import json
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

import pgpubsub

hub = pgpubsub.AsyncHub("dbname=test user=postgres")


@asynccontextmanager
async def lifespan(app):
    async with hub:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/events/{channel}")
async def events(channel: str):
    async def stream():
        async with hub.subscribe(channel) as events:
            yield ": listening\n\n"
            async for event in events:
                if isinstance(event, pgpubsub.Gap):
                    yield f"event: gap\ndata: {json.dumps(event.detail)}\n\n"
                else:
                    yield f"event: message\ndata: {json.dumps(event.payload)}\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")
