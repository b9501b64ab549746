"""A stream that browsers read, each from where it stopped: uvicorn examples.starlette_sse:app"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

import pgpubsub
from pgpubsub.contrib.starlette import EventStream, hub_of, lifespan, resume


async def append(request: Request) -> JSONResponse:
    text = (await request.body()).decode()
    return JSONResponse(await hub_of(request).stream("chat").append(text))


async def read(request: Request) -> EventStream:
    return EventStream(resume(request, hub_of(request).stream("chat")), retry=1000)


app = Starlette(
    routes=[Route("/chat", append, methods=["POST"]), Route("/chat", read)],
    lifespan=lifespan(pgpubsub.AsyncHub("dbname=test user=postgres")),
)
