import json

from fastapi import FastAPI

import pgpubsub
from pgpubsub.contrib.starlette import EventStream, lifespan

hub = pgpubsub.AsyncHub("dbname=test user=postgres")
app = FastAPI(lifespan=lifespan(hub))


@app.get("/events/{channel}")
async def events(channel: str):
    return EventStream(hub.subscribe(channel), text=json.dumps)
