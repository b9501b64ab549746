"""Litestar: a hub that lives as long as the application, and server-sent events of what it receives.

    @get("/events")
    async def events(hub: HubDependency) -> EventStream:
        return EventStream(hub.subscribe("orders"))

    app = Litestar([events], plugins=[HubPlugin(pgpubsub.AsyncHub("dbname=app"))])

With the plugin, open streams end as soon as the server is told to end: see `pgpubsub.contrib.asgi`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from pgpubsub.aio import AsyncHub, AsyncReader, AsyncStream, AsyncSubscription
from pgpubsub.contrib import sse
from pgpubsub.contrib.asgi import ending_with_server, respond
from pgpubsub.contrib.sse.following import check_receiver
from pgpubsub.core.position import END, Start
from pgpubsub.errors import PositionError

try:
    from litestar.di import NamedDependency, Provide
    from litestar.exceptions import ClientException, ServiceUnavailableException
    from litestar.plugins import InitPluginProtocol
    from litestar.response.streaming import ASGIStreamingResponse
except ImportError as error:
    raise ImportError(
        "pgpubsub.contrib.litestar needs Litestar: pip install 'pgpubsub[binary,litestar]'", name=error.name
    ) from error

if TYPE_CHECKING:
    from litestar import Litestar
    from litestar.config.app import AppConfig
    from litestar.connection import ASGIConnection
    from litestar.types import Receive, Scope, Send

__all__ = ["EventStream", "HubDependency", "HubPlugin", "resume"]

HubDependency = NamedDependency[AsyncHub]
"""The type of a handler's parameter for the hub."""


class HubPlugin(InitPluginProtocol):
    """Connects a hub when the application starts, closes it in the end, and hands it to whoever has a parameter for it.

    Args:
        hub: or a function that makes one at each start, for an application that is started more than once, as tests do.
        dependency: the name of such parameters.
    """

    __slots__ = ("_dependency", "_entered", "_hub")

    def __init__(self, hub: AsyncHub | Callable[[], AsyncHub], dependency: str = "hub") -> None:
        self._hub = hub
        self._dependency = dependency
        self._entered: AsyncHub | None = None

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Called by Litestar."""
        app_config.lifespan.insert(0, self._lifespan)  # so that the application's own find it connected
        app_config.dependencies[self._dependency] = Provide(self._provide, sync_to_thread=False)
        return app_config

    @asynccontextmanager
    async def _lifespan(self, app: Litestar) -> AsyncIterator[None]:
        async with self._hub if isinstance(self._hub, AsyncHub) else self._hub() as self._entered:
            with ending_with_server():
                yield

    def _provide(self) -> AsyncHub:
        assert self._entered is not None, "the application was not started"
        return self._entered


def resume(
    request: ASGIConnection[Any, Any, Any, Any], stream: AsyncStream[Any], otherwise: str | Start = END
) -> AsyncReader[Any]:
    """A reader of `stream` that goes on where this browser stopped, by its `Last-Event-ID`.

    Args:
        request: of the browser.
        stream: the one that it reads.
        otherwise: where to begin if it has not got anything yet.

    Raises:
        ClientException: 400, it did not send a position of this stream.
    """
    try:
        return sse.resume(stream, request.headers.get("Last-Event-ID"), otherwise)
    except PositionError as error:
        raise ClientException(str(error)) from error


class EventStream(ASGIStreamingResponse):
    """What a subscription or a reader delivers, as a response. It begins when the receiver is entered, and both end
    when the client is gone, the hub is closed, or the server is told to end.

    Args:
        receiver: a subscription or a reader, not entered yet.
        headers: more of them.
        options: as for `pgpubsub.contrib.sse.follow`: `text`, `named`, `keep_alive` and `retry`.

    Raises:
        TypeError: the receiver is not an `AsyncHub`'s.
        ServiceUnavailableException: while it is called, 503: the receiver could not be entered.
    """

    __slots__ = ("_options", "_receiver")

    def __init__(
        self,
        receiver: AsyncSubscription[Any] | AsyncReader[Any],
        headers: Mapping[str, str] | None = None,
        **options: Unpack[sse.Options],
    ) -> None:
        check_receiver(receiver, asynchronous=True)
        super().__init__(iterator=(), headers={**sse.HEADERS, **(headers or {})}, media_type=sse.MEDIA_TYPE)
        self._receiver = receiver
        self._options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by Litestar."""
        try:
            await respond(self._receiver, partial(self.start_response, send), receive, send, **self._options)
        except sse.UNAVAILABLE as error:
            raise ServiceUnavailableException("there are no events at present", headers={"Retry-After": "5"}) from error
        await self.after_response()
