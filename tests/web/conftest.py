"""What the tests of the gateway share: a database with streams, and gateways in this process, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from itertools import count
from time import time
from types import TracebackType
from typing import Any, Self

import jwt
import psycopg
import pytest
import uvicorn
from starlette.applications import Starlette

from pgpubsub.web import Keys, create_app
from pgpubsub.web.gateway import Gateway
from pgpubsub.web.serving import _Protocol
from tests.contract.browser import Browser
from tests.system.streams import database_with_streams

SECRET = "0123456789abcdef0123456789abcdef"

_numbers = count(1)


def token(
    *, read: list[str] | None = None, write: list[str] | None = None, ends_in: float = 3600, **claims: Any
) -> str:
    """One that the gateways here accept."""
    ours = {"read": read or [], "write": write or []}
    return jwt.encode({"exp": time() + ends_in, "pgpubsub": ours, **claims}, SECRET, "HS256")


class Served:
    """A gateway with its server, in a thread of its own.

    Args:
        dsn: the hub's.
        app: in which `gateway` is mounted, if it is.
        options: for `create_app`.
    """

    def __init__(self, dsn: str, app: Any = None, gateway: Starlette | None = None, **options: Any) -> None:
        gateway = gateway or create_app(dsn, **options)
        self.app = app or gateway
        self.gateway: Gateway = gateway.state.gateway
        config = uvicorn.Config(
            self.app,
            port=0,
            http=_Protocol,
            loop="asyncio",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=5,
        )
        self._server = uvicorn.Server(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def end(self) -> None:
        """Tell it to end, as a signal does where it runs in the main thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.gateway.shut_down)
        self._server.should_exit = True

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Wait for something in its event loop."""
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    @property
    def port(self) -> int:
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    def open(self, path: str, **options: Any) -> Browser:
        """A browser that follows `path`."""
        return Browser(self.port, path, **options)

    def _run(self) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            serving = asyncio.ensure_future(self._server.serve())
            while not self._server.started and not serving.done():
                await asyncio.sleep(0.005)
            self._started.set()
            await serving

        try:
            asyncio.run(main())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()


@pytest.fixture(scope="session")
def database(dsn: str) -> Iterator[str]:
    """With streams, for the tests of the gateway."""
    with database_with_streams(dsn, "gateway") as its:
        yield its


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Which verify what `token` makes."""
    file = tmp_path_factory.mktemp("keys") / "secret"
    file.write_text(SECRET + "\n")
    return Keys(secret=file)


@pytest.fixture
def serve(database: str, keys: Keys) -> Iterator[Callable[..., Served]]:
    """Starts gateways, at which everybody may read everything unless `public` says otherwise."""
    with ExitStack() as stack:

        def serve(dsn: str = database, **options: Any) -> Served:
            return stack.enter_context(Served(dsn, **{"public": ["*"], "keys": keys, **options}))

        yield serve


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """What has to be closed after the test, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def name() -> str:
    """Of a channel or stream that nobody else uses."""
    return f"name {next(_numbers)}"
