"""The gateway as an application: its routes, and its life."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from pgpubsub.aio import AsyncHub
from pgpubsub.contrib.asgi import ending_with_server, server_ends
from pgpubsub.contrib.prometheus import DatabaseCollector, HubMetrics
from pgpubsub.errors import PubSubError
from pgpubsub.web.access import Keys, check_patterns
from pgpubsub.web.endpoints import Endpoints
from pgpubsub.web.gateway import Gateway
from pgpubsub.web.limits import Limits
from pgpubsub.web.metrics import NAME
from pgpubsub.web.origins import Origins, check_origins
from pgpubsub.web.problems import Problem, note, of

__all__ = ["create_app"]


PAGE = Path(__file__).with_name("page")

SENT_BY_PAGES = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"]
TRACE_CONTEXT = ["traceparent", "tracestate", "baggage"]


def create_app(
    hub: AsyncHub | str = "",
    *,
    public: Iterable[str] = (),
    keys: Keys | None = None,
    origins: Iterable[str] = (),
    limits: Limits | None = None,
    schema: str = "pgpubsub",
    keep_alive: float = 15.0,
    page: bool = True,
    metrics: HubMetrics | None = None,
    database_metrics: bool | str = False,
) -> Starlette:
    """The gateway: channels and streams over HTTP, as an ASGI application to run or to mount.

    An application that it is mounted in has to run its lifespan, `app.router.lifespan_context`: at the start the hub is
    connected, and clients are told when the server ends.

    Args:
        hub: an `AsyncHub` of this application's own, not entered yet, or a connection string. With that, a server in
            recovery is waited for.
        public: patterns of what everybody may read, such as `channels/news.*`. By default nothing.
        keys: to verify tokens with. Without any, nobody may write.
        origins: of pages that may use it, such as `https://example.com`, beside those of its own host.
        limits: of each client.
        schema: where streams are installed.
        keep_alive: seconds of silence after which clients are sent a comment.
        page: whether there is a page at `/`.
        metrics: whose `observer("gateway")` an `AsyncHub` was given as `observe`, so that `/metrics` tells of reasons
            and durations. Where `hub` is a connection string, that is done here.
        database_metrics: whether `/metrics` tells of the database too: streams and groups by name, how far groups are
            behind, the notification queue. With an `AsyncHub` it is a connection string.

    Raises:
        ValueError: a pattern, an origin, a time or `database_metrics` is not possible.
        ConninfoError: the connection string is malformed.

    >>> app = create_app(dsn, public=["channels/news.*"])
    """
    if keep_alive <= 0:
        raise ValueError(f"keep_alive is a number of seconds above 0, not {keep_alive}")
    if database_metrics is True and not isinstance(hub, str):
        raise ValueError("database_metrics is a connection string where hub is an AsyncHub")
    database = hub if database_metrics is True else database_metrics
    hubs = metrics or HubMetrics(None)
    gateway = Gateway(
        AsyncHub(hub, wait_for_primary=True, observe=hubs.observer(NAME)) if isinstance(hub, str) else hub,
        keys=keys,
        public=check_patterns(public),
        limits=limits or Limits(),
        schema=schema,
        keep_alive=keep_alive,
        hubs=hubs,
        database=DatabaseCollector({NAME: database}, None, schema=schema) if isinstance(database, str) else None,
    )
    allowed = check_origins(origins)
    routes = Endpoints(gateway).routes()
    if page:
        routes.append(Mount("/", _Page(directory=PAGE, html=True)))
    app = Starlette(
        routes=routes,
        lifespan=_lifespan(gateway),
        middleware=[
            Middleware(Origins, allowed=allowed),
            Middleware(
                CORSMiddleware,
                allow_origins=list(allowed),
                allow_methods=["GET", "POST"],
                allow_headers=SENT_BY_PAGES + TRACE_CONTEXT,
                expose_headers=["Retry-After"],
            ),
        ],
        exception_handlers={Problem: _refuse, PubSubError: _refuse, HTTPException: _refuse_by_starlette},
    )
    app.state.gateway = gateway
    return app


def _lifespan(gateway: Gateway):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        with ending_with_server():
            async with gateway.running():
                told = asyncio.create_task(_shut_down(gateway))
                try:
                    yield
                finally:
                    told.cancel()

    return lifespan


async def _shut_down(gateway: Gateway) -> None:
    await server_ends()
    gateway.shut_down()


async def _refuse(request: Request, error: Exception) -> Response:
    problem = of(error)
    note(problem, error)
    request.app.state.gateway.counts.refused[problem.status] += 1
    return problem.response()


async def _refuse_by_starlette(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    problem = Problem(error.status_code, error.detail.lower().replace(" ", "-"), error.detail)
    request.app.state.gateway.counts.refused[problem.status] += 1
    response = problem.response()
    response.headers.update(error.headers or {})
    return response


class _Page(StaticFiles):
    """The page, which loads nothing from elsewhere and stands in no frame."""

    def file_response(self, *arguments, **keywords) -> Response:  # type: ignore[no-untyped-def]
        response = super().file_response(*arguments, **keywords)
        response.headers["Content-Security-Policy"] = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-cache"
        return response
