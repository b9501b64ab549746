"""Chromium, and pages in which nothing may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.e2e.chromium import SWITCHES, chromium_path
from tests.system.streams import database_with_streams

CHECKS = Path(__file__).with_name("checks.js")

_numbers = count(1)


@pytest.fixture(scope="module")
def database(dsn: str) -> Iterator[str]:
    with database_with_streams(dsn, "page") as its:
        yield its


@pytest.fixture
def admin(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "secret"
    from tests.e2e.gateway_page.driving import SECRET

    file.write_text(SECRET)
    return file


@pytest.fixture(scope="module")
def address(database: str, secret: Path) -> Iterator[str]:
    """Of a gateway at which everybody may read everything."""
    from tests.e2e.gateway_page.driving import gateway

    with gateway(database, secret, "--public", "*") as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    path = chromium_path()
    if path is None:
        pytest.skip("takes Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=path, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages. In the end, nothing may have gone wrong in any, and nothing may have been asked of other hosts."""
    wrong: list[str] = []
    with ExitStack() as stack:

        def open_page(address: str, *, refusals: bool = False, **options: Any) -> Any:
            context = chromium.new_context(**options)
            stack.callback(context.close)
            context.add_init_script(
                "addEventListener('securitypolicyviolation', (e) => console.error('policy: ' + e.violatedDirective))"
            )
            context.add_init_script(path=CHECKS)
            page = context.new_page()
            page.set_default_timeout(30_000)

            def on_console(message: Any) -> None:
                if message.type in ("error", "warning") and not (refusals and "Failed to load" in message.text):
                    wrong.append(message.text)

            def on_dialog(dialog: Any) -> None:
                wrong.append(f"dialog: {dialog.message}")
                dialog.dismiss()

            def on_request(request: Any) -> None:
                if urlsplit(request.url).netloc != urlsplit(address).netloc:
                    wrong.append(request.url)

            page.on("console", on_console)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", on_dialog)
            page.on("request", on_request)
            page.goto(address)
            return page

        yield open_page
    assert wrong == []


@pytest.fixture
def name() -> str:
    return f"name {next(_numbers)}"
