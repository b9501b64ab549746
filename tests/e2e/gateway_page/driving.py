"""What the tests of the gateway's page do with it, and a gateway as a process."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.e2e.test_servers import free_port, until
from tests.system.processes import answers

jwt = pytest.importorskip("jwt")
pytest.importorskip("starlette")
expect = pytest.importorskip("playwright.sync_api").expect

SECRET = "0123456789abcdef0123456789abcdef"

DEADLINE = 30_000.0
"""Milliseconds that anything may take."""


def token(*, read: list[str] | None = None, write: list[str] | None = None) -> str:
    claims = {"exp": time() + 600, "pgpubsub": {"read": read or [], "write": write or []}}
    return str(jwt.encode(claims, SECRET, "HS256"))


@contextmanager
def gateway(database: str, secret: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """A gateway in a process of its own. Gives its address."""
    port = port or free_port()
    command = ["serve", "--dsn", database, "--port", str(port), "--jwt-secret-file", str(secret), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "pgpubsub", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        until(lambda: answers(port) or process.poll() is not None)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert b"Traceback" not in output, output.decode()


def fragment(*, channels: tuple[str, ...] = (), streams: tuple[str, ...] = ()) -> str:
    parts = {"channels": channels, "streams": streams}
    return "#" + "&".join(
        f"{kind}={','.join(quote(name, safe='') for name in names)}" for kind, names in parts.items() if names
    )


def followed(page: Any) -> None:
    """Wait until what is sent now arrives."""
    expect(page.locator("#connection")).to_contain_text("Live since", timeout=DEADLINE)


def row(page: Any, name: str, table: str = "channels") -> Any:
    return page.locator(f"#{table} tbody tr").filter(has=page.get_by_text(name, exact=True))


def shows(place: Any, text: str | re.Pattern[str]) -> None:
    expect(place).to_contain_text(text, timeout=DEADLINE)


def use_token(page: Any, text: str) -> None:
    page.get_by_role("button", name="Token").click()
    page.get_by_role("dialog").get_by_label("Token").fill(text)
    page.keyboard.press("Tab")
    page.get_by_role("button", name="Use", exact=True).click()


def send(page: Any, kind: str, name: str, payload: str, key: str = "") -> Any:
    form = page.get_by_role("form", name="Send")
    form.get_by_label("To").select_option(kind)
    form.get_by_label("Name").fill(name)
    if kind == "stream":
        form.get_by_label("Key").fill(key)
    form.get_by_label("Payload").fill(payload)
    form.get_by_role("button", name="Send").click()
    return page.locator("#send-outcome")
