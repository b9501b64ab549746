"""Starlette and FastAPI: a hub that lives as long as the application, and server-sent events of what it receives.

    hub = pgpubsub.AsyncHub("dbname=app")
    app = FastAPI(lifespan=lifespan(hub))

    @app.get("/events")
    async def events():
        return EventStream(hub.subscribe("orders"))

With `lifespan`, open streams end as soon as the server is told to end: see `pgpubsub.contrib.asgi`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Unpack

from pgpubsub.aio import AsyncHub, AsyncReader, AsyncStream, AsyncSubscription
from pgpubsub.contrib import sse
from pgpubsub.contrib.asgi import ending_with_server, respond
from pgpubsub.contrib.sse.following import check_receiver
from pgpubsub.core.position import END, Start
from pgpubsub.errors import PositionError

try:
    from starlette.background import BackgroundTask
    from starlette.exceptions import HTTPException
    from starlette.requests import HTTPConnection
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send
except ImportError as error:
    raise ImportError(
        "pgpubsub.contrib.starlette needs Starlette: pip install 'pgpubsub[binary,starlette]'", name=error.name
    ) from error

__all__ = ["EventStream", "hub_of", "lifespan", "resume"]

Lifespan = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]


def lifespan(
    hub: AsyncHub | Callable[[], AsyncHub], inner: Lifespan | None = None
) -> Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """The lifespan of an application that has a hub: it connects at the start, and is closed at the end.

    Args:
        hub: or a function that makes one at each start, for an application that is started more than once, as tests do.
        inner: the application's own lifespan, which finds the hub connected.

    Raises:
        at the start, what entering the hub raises: the server then says why it does not start.
    """

    @asynccontextmanager
    async def with_hub(app: Any) -> AsyncIterator[Mapping[str, Any]]:
        mine = hub if isinstance(hub, AsyncHub) else hub()
        async with mine:
            with ending_with_server():
                if inner is None:
                    yield {_STATE: mine}
                    return
                async with inner(app) as state:
                    yield {**(state or {}), _STATE: mine}

    return with_hub


_STATE = "pgpubsub_hub"


def hub_of(connection: HTTPConnection) -> AsyncHub:
    """The hub of the application that has got this request or web socket, if it has our `lifespan`. In FastAPI it is a
    dependency: `hub: Annotated[AsyncHub, Depends(hub_of)]`."""
    hub: AsyncHub = getattr(connection.state, _STATE)
    return hub


def resume(request: HTTPConnection, stream: AsyncStream[Any], otherwise: str | Start = END) -> AsyncReader[Any]:
    """A reader of `stream` that goes on where this browser stopped, by its `Last-Event-ID`.

    Args:
        request: of the browser.
        stream: the one that it reads.
        otherwise: where to begin if it has not got anything yet.

    Raises:
        HTTPException: 400, it did not send a position of this stream.
    """
    try:
        return sse.resume(stream, request.headers.get("Last-Event-ID"), otherwise)
    except PositionError as error:
        raise HTTPException(400, str(error)) from error


class EventStream(Response):
    """What a subscription or a reader delivers, as a response. It begins when the receiver is entered, and both end
    when the client is gone, the hub is closed, or the server is told to end.

    Args:
        receiver: a subscription or a reader, not entered yet.
        status_code, headers, background: as for any response.
        options: as for `pgpubsub.contrib.sse.follow`: `text`, `named`, `keep_alive` and `retry`.

    Raises:
        TypeError: the receiver is not an `AsyncHub`'s.
        HTTPException: while it is called, 503: the receiver could not be entered.
    """

    media_type = sse.MEDIA_TYPE

    def __init__(
        self,
        receiver: AsyncSubscription[Any] | AsyncReader[Any],
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
        background: BackgroundTask | None = None,
        **options: Unpack[sse.Options],
    ) -> None:
        check_receiver(receiver, asynchronous=True)
        self.status_code = status_code
        self.background = background
        self.init_headers({**sse.HEADERS, **(headers or {})})
        self._receiver = receiver
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = partial(send, {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":  # which Starlette lets pass for GET, and which must have an end
            await start()
            await send({"type": "http.response.body", "body": b""})
        else:
            try:
                await respond(self._receiver, start, receive, send, **self._options)
            except sse.UNAVAILABLE as error:
                raise HTTPException(503, "there are no events at present", {"Retry-After": "5"}) from error
        if self.background is not None:
            await self.background()
