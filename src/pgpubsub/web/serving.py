"""The gateway as a program, by way of uvicorn: what `pgpubsub serve` does.

Each worker is a process with an application and a hub of its own. It gets the options in an environment variable.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from pgpubsub.aio import AsyncHub
from pgpubsub.contrib.prometheus import HubMetrics
from pgpubsub.contrib.prometheus.sharing import SEVERAL
from pgpubsub.logs import EventLog
from pgpubsub.status import Observation
from pgpubsub.web.access import Keys
from pgpubsub.web.app import create_app
from pgpubsub.web.limits import Limits
from pgpubsub.web.metrics import NAME
from pgpubsub.web.records import log_config

if TYPE_CHECKING:
    from pgpubsub.contrib.opentelemetry import Telemetry

__all__ = ["Options", "app", "run"]

logger = EventLog("gateway")

APPLICATION = "pgpubsub.web.serving:app"

OPTIONS = "PGPUBSUB_GATEWAY"
"""The environment variable that workers get them in, as JSON."""

GRACE = 7
"""Seconds that clients have, when the server ends, to take what has come by then, and to get answers. The gateway gives
them five, and then takes two to close its connections: all in all it ends within ten."""

MOST_AT_ONCE = 64 << 10
"""Bytes that are written past all that is between; more goes the long way, where it is waited for."""

STARTUP_FAILURE = 3
"""What a worker of uvicorn ends with that could not start. Which of uvicorn's modules has it depends on the version."""

NO_ADDRESS = 1
"""What the program ends with that cannot serve."""

COLLECT_AFTER = (10_000, 10, 10)
"""When Python looks for garbage in cycles (`gc.set_threshold`): for each event, every client makes an object that waits
for the next. With Python's own thresholds, that took a fifth of the time with 5,000 clients (bench/gateway)."""


@dataclass(frozen=True)
class Options:
    """What the application is made of, as text and numbers."""

    dsn: str = ""
    public: list[str] = field(default_factory=list)
    jwt_key: str | None = None
    jwt_secret_file: str | None = None
    jwt_audience: str | None = None
    jwt_issuer: str | None = None
    origins: list[str] = field(default_factory=list)
    schema: str = "pgpubsub"
    page: bool = True
    database_metrics: bool = False
    opentelemetry: bool = False
    limits: dict[str, Any] = field(default_factory=dict)

    def application(self, telemetry: Telemetry | None = None) -> Starlette:
        """An application of these.

        Raises:
            ValueError, PubSubError: something is not possible.
            OSError: a file cannot be read.
        """
        keys = None
        if self.jwt_key is not None or self.jwt_secret_file is not None:
            keys = Keys(
                key=self.jwt_key, secret=self.jwt_secret_file, audience=self.jwt_audience, issuer=self.jwt_issuer
            )
        metrics = HubMetrics(None)
        count = metrics.observer(NAME)

        def observe(seen: Observation) -> None:
            count(seen)
            if telemetry is not None:
                telemetry.observe(seen)

        hub = AsyncHub(self.dsn, wait_for_primary=True, tracing=telemetry, observe=observe)
        if telemetry is not None:
            telemetry.watch(hub)
        return create_app(
            hub,
            public=self.public,
            keys=keys,
            origins=self.origins,
            limits=Limits(**self.limits),
            schema=self.schema,
            page=self.page,
            metrics=metrics,
            database_metrics=self.dsn if self.database_metrics else False,
        )


def app() -> Starlette:
    """The application of a worker."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    options = Options(**json.loads(os.environ[OPTIONS]))
    _end_upon_hangup()
    _Protocol.stalled = Limits(**options.limits).stalled
    return _traced(options) if options.opentelemetry else options.application()


def _end_upon_hangup() -> None:
    """As upon SIGTERM, which servers know. Who was started to ignore it, as by nohup, goes on."""
    before = signal.getsignal(signal.SIGHUP)
    if before is signal.SIG_IGN:
        return

    def end(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGHUP, end)


def _traced(options: Options) -> Starlette:
    from pgpubsub.contrib.opentelemetry import Telemetry

    telemetry = Telemetry()
    if not telemetry.has_sdk:
        logger.warning(
            "not_traced",
            "nothing is traced: there is no SDK of OpenTelemetry. Run `opentelemetry-instrument pgpubsub serve"
            " --opentelemetry`, which configures one",
        )
    app = options.application(telemetry)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def until_exported(app: Starlette) -> AsyncIterator[Any]:
        async with lifespan(app) as state:
            yield state
        await asyncio.to_thread(telemetry.flush)  # the signal that ends the process leaves no other time for it

    app.router.lifespan_context = until_exported
    return app


def run(options: Options, *, host: str, port: int, workers: int, access_log: bool, log_format: str) -> None:
    """Serve until a signal ends it.

    Raises:
        ValueError, PubSubError: something is not possible.
        OSError: a file cannot be read.
        SystemExit: the address cannot be had, or the application could not start; the log says why. Several workers
            were ended by a signal.
    """
    options.application()  # what is wrong with them is told before anything begins
    logging = log_config(log_format)
    limits = Limits(**options.limits)
    os.environ[OPTIONS] = json.dumps(asdict(options))
    settings: dict[str, Any] = {
        "factory": True,
        "host": host,
        "port": port,
        "http": _Protocol,
        "loop": "asyncio",
        "access_log": access_log,
        "log_config": logging,
        "timeout_graceful_shutdown": GRACE,
        "ws_max_size": limits.frame_bytes,
        "ws_per_message_deflate": False,
        "ws_max_queue": 2,
        "server_header": False,
    }
    if workers == 1:
        _run_alone(uvicorn.Config(APPLICATION, **settings))
        return
    with tempfile.TemporaryDirectory(prefix="pgpubsub-metrics-") as directory:
        os.environ[SEVERAL] = directory
        config = uvicorn.Config(APPLICATION, workers=workers, **settings)
        try:
            sock = config.bind_socket()
        except SystemExit:
            raise SystemExit(NO_ADDRESS) from None
        supervisor = _Supervisor(config, [sock])
        supervisor.run()
        raise SystemExit(supervisor.status)


def _run_alone(config: uvicorn.Config) -> None:
    server = _Server(config)
    with suppress(KeyboardInterrupt):  # by which a signal that has ended it is told where nobody has a handler
        server.run()
    if not server.started:
        raise SystemExit(STARTUP_FAILURE)


class _Server(uvicorn.Server):
    """Says by its status what it could not start for."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit:
            if self.lifespan.should_exit:
                raise
            raise SystemExit(NO_ADDRESS) from None


class _Supervisor(Multiprocess):
    """Goes on when a worker cannot be replaced just now. uvicorn's own would end, and the other workers with it. And it
    knows what it was ended by."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        heeds_hangup = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
        super().__init__(config, sockets)
        if not heeds_hangup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self.status = STARTUP_FAILURE
        """To end with: as a shell reports a signal. Without one, it has ended as no worker could start."""

    def handle_int(self) -> None:
        self.status = 128 + signal.SIGINT
        super().handle_int()

    def handle_term(self) -> None:
        self.status = 128 + signal.SIGTERM
        super().handle_term()

    def handle_hup(self) -> None:
        self.status = 128 + signal.SIGHUP
        self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        if self.should_exit.is_set():  # as a signal wants it
            return
        try:
            super().keep_subprocess_alive()
            self._replace_those_that_did_not_start()
        except OSError as error:  # no process, or no descriptor, is to be had
            logger.warning(
                "worker_not_replaced", "a worker has ended, and there can be no other yet: %(error)s", error=error
            )

    def _replace_those_that_did_not_start(self) -> None:
        """The others serve, so what kept these from starting may pass: in a failover much looks hopeless."""
        failed = [number for number, one in enumerate(self.processes) if one.exitcode == STARTUP_FAILURE]
        if not failed or not any(one.exitcode is None and one.is_ready() for one in self.processes):
            return
        self.should_exit.clear()
        for number in failed:
            logger.warning("worker_not_started", "a worker could not start; others serve, so there will be another")
            self.processes[number] = Process(self.config, self.sockets)
            self.processes[number].start()


class _Protocol(HttpToolsProtocol):
    """Lets go a client which takes nothing, and tells the application how to: ASGI has no word for that, nor for
    writing what thousands of clients get without waking a task for each (bench/gateway: half of the delay)."""

    stalled = Limits().stalled

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(self.stalled * 2000))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        write = partial(_write, self.flow, self.transport)
        ours: dict[object, object] = {"abort": self.transport.abort, "write": write}
        self.scope["extensions"] = {**(self.scope.get("extensions") or {}), "pgpubsub": ours}


def _write(flow: FlowControl, transport: asyncio.Transport, body: bytes) -> bool:
    """Write a piece of a response's body right now, past all that is between. False: that cannot be, and nothing was
    written."""
    if flow.write_paused or transport.is_closing() or len(body) > MOST_AT_ONCE:
        return False
    transport.write(_encoded(body))
    return True


@lru_cache(maxsize=16)
def _encoded(body: bytes) -> bytes:
    """As a chunk (RFC 9112, section 7.1), as uvicorn sends what has no length. Most clients are sent the same one."""
    return b"%x\r\n%b\r\n" % (len(body), body)
