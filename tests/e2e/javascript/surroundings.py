"""What the JavaScript client is tried in: Node.js and Chromium, with a gateway that is stopped and started again."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any, Protocol

import jwt
import psycopg
import pytest

import pgpubsub.streams
from pgpubsub.testing import Proxy
from tests.e2e.chromium import SWITCHES, chromium_path
from tests.e2e.test_servers import free_port, until

__all__ = [
    "FAST",
    "Gateway",
    "Node",
    "Page",
    "Runtime",
    "browser",
    "gateway",
    "node",
    "proxy",
    "runtime",
    "token",
    "until",
]

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CLIENT = ROOT / "src" / "pgpubsub" / "web" / "page" / "pgpubsub.js"
SECRET = "a secret of more than 32 bytes, for tests"
RECORDER = (HERE / "recorder.js").read_text().partition("\n")[2].rstrip().removesuffix(";")
FAST = {"firstDelay": 20, "longestDelay": 200}
"""Delays of a client for which no test waits long."""


def token(seconds: float = 600, read: tuple[str, ...] = ("*",), write: tuple[str, ...] = ("*",)) -> str:
    """One that is good for so long."""
    claims = {"sub": "tester", "exp": int(time() + seconds), "pgpubsub": {"read": read, "write": write}}
    return jwt.encode(claims, SECRET, algorithm="HS256")


class Gateway:
    """A process, always on the same port."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self._folder = folder
        (folder / "secret").write_text(SECRET)
        self.port = free_port()
        command = [sys.executable, "-m", "pgpubsub", "serve", "--dsn", dsn, "--port", str(self.port)]
        self._command = [*command, "--public", "channels/public*", "--jwt-secret-file", str(folder / "secret")]
        self._command += ["--rate", "10000", "--allow-origin", "*"]
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log, preexec_fn=_heed_signals)
        until(lambda: self.is_ready() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log()

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(30)

    def is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self.url}readyz", timeout=5) as response:
            return bool(response.status == 200)
        return False

    def count(self, what: str) -> int:
        """One of its metrics."""
        with urllib.request.urlopen(f"{self.url}metrics", timeout=30) as response:
            lines = response.read().decode().splitlines()
        [line] = [line for line in lines if line.startswith(f"pgpubsub_gateway_{what}_total ")]
        return round(float(line.split()[1]))

    def log(self) -> str:
        return (self._folder / "log").read_text()


def _heed_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Runtime(Protocol):
    """Where JavaScript runs. `Gateway` and what else the client exports are global there."""

    name: str

    def run(self, code: str, argument: Any = None) -> Any:
        """What the function of this text returns; its argument and its result are JSON."""


class Node:
    name = "node"

    def __init__(self) -> None:
        found = shutil.which("node")
        if found is None:
            pytest.skip("node is not installed (Debian: apt-get install nodejs)")
        self._folder = tempfile.TemporaryDirectory()
        module = shutil.copy(CLIENT, Path(self._folder.name) / "pgpubsub.mjs")  # as Node.js names what is a module
        command = [found, str(HERE / "driver.mjs"), str(module)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")
        self.run(RECORDER)

    def run(self, code: str, argument: Any = None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"code": code, "argument": argument}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def close(self) -> None:
        """It ends well: nothing was thrown that nobody caught."""
        try:
            _, error = self._process.communicate(timeout=30)
        finally:
            self._process.kill()
            self._process.wait()
            self._folder.cleanup()
        assert (self._process.returncode, error) == (0, "")


class Page:
    """An empty page of an origin, in Chromium. It is never asked for there, and neither is an icon: what goes to the
    origin is the client's alone."""

    name = "chromium"

    def __init__(self, browser: Any, origin: str) -> None:
        self.context = browser.new_context()
        self.page = self.context.new_page()
        self._errors: list[str] = []
        self.page.on("pageerror", lambda error: self._errors.append(str(error)))
        empty = '<!doctype html><link rel="icon" href="data:,">'
        self.page.route(f"{origin}/empty", lambda route: route.fulfill(body=empty, content_type="text/html"))
        self.open(f"{origin}/empty")

    def open(self, url: str) -> None:
        """Go to another page, and have the client there."""
        self.page.goto(url)
        self.run("async () => { Object.assign(globalThis, await import('/pgpubsub.js')) }")
        self.run(RECORDER)

    def run(self, code: str, argument: Any = None) -> Any:
        return self.page.evaluate(code, argument)

    def close(self) -> None:
        """Nothing was thrown that nobody caught."""
        self.context.close()
        assert self._errors == []


@pytest.fixture(scope="module")
def gateway(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with psycopg.connect(dsn) as connection:
        pgpubsub.streams.install(connection)
    gateway = Gateway(dsn, tmp_path_factory.mktemp("gateway"))
    try:
        yield gateway
    finally:
        if gateway.process.poll() is None:
            gateway.stop()
    assert "Traceback" not in gateway.log(), gateway.log()


@pytest.fixture
def proxy(gateway: Gateway) -> Iterator[Proxy]:
    """Before the gateway."""
    with Proxy(f"host=127.0.0.1 port={gateway.port}") as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser() -> Iterator[Callable[[], Any]]:
    """Gives Chromium, which is started when it is first asked for."""
    started: list[Any] = []

    def browser() -> Any:
        path = chromium_path()
        if path is None:
            pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
        if not started:
            playwright = pytest.importorskip("playwright.sync_api").sync_playwright().start()
            started.extend([playwright, playwright.chromium.launch(executable_path=path, args=SWITCHES)])
        return started[1]

    yield browser
    if started:
        started[1].close()
        started[0].stop()


@pytest.fixture(params=["node", "chromium"])
def runtime(
    request: pytest.FixtureRequest, browser: Callable[[], Any], gateway: Gateway, proxy: Proxy
) -> Iterator[Runtime]:
    """A page at the proxy before the gateway, or Node.js."""
    runtime = Node() if request.param == "node" else Page(browser(), f"http://127.0.0.1:{proxy.port}")
    yield runtime
    runtime.close()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.close()
