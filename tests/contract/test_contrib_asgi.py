"""Starlette, FastAPI and Litestar: the hub lives as long as the application, and a response that has no end of its own
ends with the client, the hub and the server, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import fastapi
import httpx
import litestar
import pytest
import uvicorn
from litestar.connection import Request as LitestarRequest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

import pgpubsub.contrib.litestar as for_litestar
import pgpubsub.contrib.starlette as for_starlette
from pgpubsub import AsyncHub, ConnectionFailed
from pgpubsub.contrib.asgi import ending_with_server, respond
from pgpubsub.testing import MemoryServer
from tests.contract.browser import parse
from tests.contract.faces import PATIENCE

LISTENING = b": listening\n\n"


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server that runs the application in this loop."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="on"))
    running = asyncio.create_task(server.serve())
    while not server.started:
        assert not running.done(), running.result()
        await asyncio.sleep(0.001)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as client:
        yield client
    server.should_exit = True
    await running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)  # between two looks


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await test()

    asyncio.run(main())


# -- applications of one sort and another, with one path, /events, and perhaps another, /entries


async def pass_on(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return response


def of_starlette(hub: AsyncHub, **options: Any) -> Any:
    async def events(request: Request) -> Response:
        return for_starlette.EventStream(for_starlette.hub_of(request).subscribe("c"), **options)

    async def entries(request: Request) -> Response:
        return for_starlette.EventStream(for_starlette.resume(request, hub.stream("entries")))

    routes = [Route("/events", events), Route("/entries", entries)]
    return Starlette(routes=routes, lifespan=for_starlette.lifespan(hub))


def of_starlette_with_middleware(hub: AsyncHub, **options: Any) -> Any:
    inner = of_starlette(hub, **options)
    middleware = [Middleware(BaseHTTPMiddleware, dispatch=pass_on)]
    return Starlette(routes=[Mount("/", inner)], middleware=middleware, lifespan=for_starlette.lifespan(hub))


def of_fastapi(hub: AsyncHub, **options: Any) -> Any:
    app = fastapi.FastAPI(lifespan=for_starlette.lifespan(hub))

    @app.get("/events")
    async def events(hub: Annotated[AsyncHub, fastapi.Depends(for_starlette.hub_of)]) -> Response:
        return for_starlette.EventStream(hub.subscribe("c"), **options)

    @app.get("/entries")
    async def entries(request: fastapi.Request) -> Response:
        return for_starlette.EventStream(for_starlette.resume(request, hub.stream("entries")))

    return app


def of_litestar(hub: AsyncHub, **options: Any) -> Any:
    @litestar.get("/events")
    async def events(hub: for_litestar.HubDependency) -> for_litestar.EventStream:
        return for_litestar.EventStream(hub.subscribe("c"), **options)

    @litestar.get("/entries")
    async def entries(request: LitestarRequest[Any, Any, Any]) -> for_litestar.EventStream:
        return for_litestar.EventStream(for_litestar.resume(request, hub.stream("entries")))

    return litestar.Litestar([events, entries], plugins=[for_litestar.HubPlugin(hub)])


APPLICATIONS = [of_starlette, of_starlette_with_middleware, of_fastapi, of_litestar]

each = pytest.mark.parametrize("application", APPLICATIONS)


@each
def test_a_client_hears_what_is_sent_once_it_has_the_head(application: Callable[..., Any]) -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub()
        async with serving(application(hub, retry=7)) as client, client.stream("GET", "/events") as response:
            assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert "content-length" not in response.headers
            await hub.notify("c", "17")
            chunks = response.aiter_raw()
            got = b""
            while not parse([got]):
                got += await anext(chunks)
            assert got == b": listening\nretry: 7\n\nevent: message\ndata: 17\n\n"

    run(test)


@each
def test_a_client_that_leaves_frees_its_subscription_at_once(application: Callable[..., Any]) -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub()
        async with serving(application(hub)) as client:
            async with client.stream("GET", "/events"), client.stream("GET", "/events"):
                assert len(hub.stats().subscriptions) == 2
            await until(lambda: not hub.stats().subscriptions)  # the next keep-alive would be after 15 s

    run(test)


@each
def test_the_end_of_the_hub_is_the_end_of_the_stream(application: Callable[..., Any]) -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub()
        async with serving(application(hub)) as client, client.stream("GET", "/events") as response:
            await hub.close()
            assert await response.aread() == LISTENING

    run(test)


@each
def test_an_outage_is_503(application: Callable[..., Any]) -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub(send_timeout=0.05)
        async with serving(application(hub)) as client:
            server.stop()
            response = await client.get("/events")
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert "there are no events at present" in response.text
            assert not hub.stats().subscriptions

    run(test)


@each
def test_a_client_that_leaves_while_it_waits_for_the_database_is_not_waited_for(
    application: Callable[..., Any],
) -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub(send_timeout=600)
        async with serving(application(hub)) as client:
            server.stop()
            waiting = asyncio.create_task(client.get("/events"))
            await until(lambda: bool(hub.stats().subscriptions))
            waiting.cancel()
            await until(lambda: not hub.stats().subscriptions)

    run(test)


@each
def test_what_is_no_position_is_400(application: Callable[..., Any], dsn: str) -> None:
    async def test() -> None:
        async with serving(application(AsyncHub(dsn))) as client:
            response = await client.get("/entries", headers={"Last-Event-ID": "17"})
            assert response.status_code == 400
            assert "'17' is not a position" in response.text

    run(test)


# -- lifespans


def test_the_applications_own_lifespan_finds_the_hub_connected() -> None:
    server = MemoryServer()

    async def test() -> None:
        hub = server.async_hub()

        @asynccontextmanager
        async def inner(app: Any) -> AsyncIterator[dict[str, Any]]:
            assert hub.state.live
            yield {"mine": 17}
            assert hub.state.live

        async def show(request: Request) -> Response:
            return JSONResponse([request.state.mine, for_starlette.hub_of(request) is hub])

        app = Starlette(routes=[Route("/", show)], lifespan=for_starlette.lifespan(hub, inner))
        async with serving(app) as client:
            assert (await client.get("/")).json() == [17, True]
        assert str(hub.state.status) == "closed"

    run(test)


def test_an_application_that_makes_its_hub_can_be_started_again() -> None:
    server = MemoryServer()

    async def show(request: Request) -> Response:
        return JSONResponse(for_starlette.hub_of(request).state.live)

    @litestar.get("/")
    async def show_too(listening: for_litestar.HubDependency) -> bool:
        return listening.state.live

    async def test() -> None:
        for app in (
            Starlette(routes=[Route("/", show)], lifespan=for_starlette.lifespan(server.async_hub)),
            litestar.Litestar([show_too], plugins=[for_litestar.HubPlugin(server.async_hub, "listening")]),
        ):
            for _ in range(2):
                async with serving(app) as client:
                    assert (await client.get("/")).json() is True

    run(test)


@each
def test_an_application_whose_hub_cannot_connect_does_not_start(application: Callable[..., Any]) -> None:
    server = MemoryServer()
    server.stop()

    async def test() -> None:
        app = application(server.async_hub())
        lifespan = app.lifespan() if isinstance(app, litestar.Litestar) else app.router.lifespan_context(app)
        with pytest.raises((ConnectionFailed, ExceptionGroup)) as raised:  # Litestar puts it into a group
            await lifespan.__aenter__()
        assert "cannot connect" in repr(raised.value)

    run(test)


# -- a server that is told to end


@pytest.fixture
def told() -> Iterator[list[int]]:
    """What a server notes of SIGTERM."""
    noted: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: noted.append(number))
    yield noted
    signal.signal(signal.SIGTERM, before)


class Client:
    """One whose server is this test."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.body: list[bytes] = []
        self.gone = asyncio.Event()
        self.error: BaseException | None = None

    async def start(self) -> None:
        self.started.set()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.body.append(message["body"])


def test_a_signal_ends_streams_and_reaches_the_server_too(told: list[int]) -> None:
    async def test() -> None:
        async with MemoryServer().async_hub() as hub:
            theirs = signal.getsignal(signal.SIGTERM)
            with ending_with_server():
                client, late = Client(), Client()
                response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, client.send))
                await client.started.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                await response
                assert client.body == [LISTENING, b""], "it has come to a proper end"
                await hub.notify("c", "the hub itself goes on")
                await respond(hub.subscribe("c"), late.start, late.receive, late.send)
                assert b"".join(late.body) == b"", "and whoever comes late finds one, so that it tries again"
                assert not hub.stats().subscriptions
            assert signal.getsignal(signal.SIGTERM) is theirs
            assert told == [signal.SIGTERM]

    run(test)


def test_two_applications_of_one_loop_end_each_at_its_time(told: list[int]) -> None:
    async def test() -> None:
        async with MemoryServer().async_hub() as hub:
            first, second = ending_with_server(), ending_with_server()
            first.__enter__()
            second.__enter__()
            first.__exit__(None, None, None)
            client = Client()
            response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, client.send))
            await client.started.wait()
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(response, PATIENCE)
            second.__exit__(None, None, None)
            with ending_with_server():  # of a server that is started afterwards, and is told nothing yet
                client = Client()
                response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, client.send))
                await client.started.wait()
                await hub.notify("c", "17")
                await until(lambda: b"data: 17" in b"".join(client.body))
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(response, PATIENCE)
            assert told == [signal.SIGTERM] * 2

    run(test)


def test_a_process_that_nobody_lets_end_gracefully_ends_as_ever() -> None:
    async def test() -> None:
        before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with ending_with_server():
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signal.signal(signal.SIGTERM, before)

    run(test)


def test_who_waits_for_the_database_is_not_waited_for_either(told: list[int]) -> None:
    async def test() -> None:
        server = MemoryServer()
        async with server.async_hub(send_timeout=600) as hub:
            with ending_with_server():
                server.stop()
                client = Client()
                response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, client.send))
                await until(lambda: bool(hub.stats().subscriptions))
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(response, PATIENCE)
                assert client.started.is_set()
                assert b"".join(client.body) == b""

    run(test)


def test_an_end_that_a_client_does_not_take_is_not_waited_for(told: list[int]) -> None:
    async def test() -> None:
        async with MemoryServer().async_hub() as hub:
            with ending_with_server():
                client = Client()
                stuck = asyncio.Event()

                async def send(message: dict[str, Any]) -> None:
                    stuck.set()
                    await asyncio.Event().wait()

                response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, send))
                await stuck.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(response, PATIENCE)
                assert not hub.stats().subscriptions

    run(test)


def test_a_server_may_say_that_the_client_has_gone_by_an_error() -> None:
    async def test() -> None:
        async with MemoryServer().async_hub() as hub:
            client = Client()
            client.error = ConnectionResetError()
            await respond(hub.subscribe("c"), client.start, client.receive, client.send)
            assert not hub.stats().subscriptions

    run(test)


def test_a_response_that_is_cancelled_frees_its_subscription() -> None:
    async def test() -> None:
        async with MemoryServer().async_hub() as hub:
            client = Client()
            response = asyncio.create_task(respond(hub.subscribe("c"), client.start, client.receive, client.send))
            await client.started.wait()
            response.cancel()
            with pytest.raises(asyncio.CancelledError):
                await response
            assert not hub.stats().subscriptions

    run(test)


# -- extras


@pytest.mark.parametrize("response", [for_starlette.EventStream, for_litestar.EventStream])
def test_what_a_hub_of_threads_delivers_is_refused_at_once(response: Callable[[Any], object]) -> None:
    hub = MemoryServer().hub()
    with pytest.raises(TypeError, match="an AsyncHub: a Hub's are for threads"):
        response(hub.subscribe("c"))


@pytest.mark.parametrize("name", ["starlette", "litestar", "flask"])
def test_a_framework_that_is_not_there_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"pgpubsub.contrib.{name}", raising=False)
    with pytest.raises(ImportError, match=rf"pip install 'pgpubsub\[binary,{name}\]'"):
        importlib.import_module(f"pgpubsub.contrib.{name}")
