"""Tokens, sending, and gateways of other kinds, on their page."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

import pgpubsub
from tests.e2e.gateway_page.driving import followed, fragment, gateway, send, shows, token, use_token
from tests.e2e.test_servers import free_port, until
from tests.system.processes import answers


def test_sending_says_what_became_of_it(
    open_page: Callable[..., Any], address: str, database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(channels=(name,), streams=(name,)), refusals=True)
    followed(page)
    shows(send(page, "channel", name, "hello"), "Not sent: this takes a token")
    use_token(page, token(write=[f"channels/{name}", f"streams/{name}"]))
    shows(page.get_by_role("button", name="Token"), "in use")
    followed(page)
    shows(send(page, "channel", name, "hello"), f"Sent on {name} at")
    shows(page.locator("#messages li").first, "hello")
    shows(send(page, "stream", name, "stored", "key 1"), re.compile(rf"Stored in {name} as entry \d+"))
    shows(page.locator("#messages li").first, "key key 1")
    with pgpubsub.Hub(database) as hub, hub.stream(name).read(pgpubsub.BEGINNING, follow=False) as entries:
        (entry,) = entries
    assert isinstance(entry, pgpubsub.Entry)
    assert (entry.payload, entry.key) == ("stored", "key 1")
    shows(send(page, "channel", f"{name} other", "hello"), "Not sent: the token does not allow to write")
    shows(send(page, "channel", "x" * 64, "hello"), re.compile("Not sent: .*limit is 63"))
    use_token(page, "nonsense")
    shows(send(page, "channel", name, "hello"), re.compile(r"Not sent: the token is not valid.*\(401 bad-token\)"))


def test_a_token_opens_what_is_not_public_and_stays_in_the_tab(
    open_page: Callable[..., Any], database: str, secret: Path, admin: psycopg.Connection[Any], name: str
) -> None:
    with gateway(database, secret) as address:
        page = open_page(address + fragment(channels=(name, f"{name} other")), refusals=True)
        shows(page.locator("#connection"), "A token is needed")
        shows(page.get_by_role("alert"), "takes a token")
        shows(page.get_by_role("log"), "to read channels/")
        given = token(read=[f"channels/{name}"])
        use_token(page, given)
        followed(page)
        shows(page.get_by_role("log"), f"{name} other: the token does not allow to read")
        admin.execute("SELECT pg_notify(%s, 'secret'), pg_notify(%s, 'hidden')", (name, f"{name} other"))
        shows(page.locator("#messages"), "secret")
        assert "hidden" not in page.locator("#messages").inner_text()
        assert given not in page.url
        kept = page.evaluate("[JSON.stringify(localStorage), JSON.stringify(sessionStorage)]")
        assert given not in kept[0]
        assert given in kept[1]
        page.reload()
        followed(page)
        page.get_by_role("button", name="Token").click()
        shows(page.get_by_role("dialog"), f"Reads channels/{name}; writes nothing; until")
        page.get_by_role("button", name="Forget").click()
        shows(page.locator("#connection"), "A token is needed")
        assert page.evaluate("sessionStorage.length") == 0


def test_where_streams_are_not_installed_it_says_how_to(
    open_page: Callable[..., Any], dsn: str, secret: Path, admin: psycopg.Connection[Any]
) -> None:
    admin.execute("CREATE DATABASE bare")
    try:
        with gateway(psycopg.conninfo.make_conninfo(dsn, dbname="bare"), secret, "--public", "*") as address:
            page = open_page(address)
            shows(page.locator("#streams-empty"), "Streams are not installed in this database")
            shows(page.locator("#streams-empty code"), "pgpubsub stream install")
    finally:
        admin.execute("DROP DATABASE bare WITH (FORCE)")


MOUNTED = """
import sys
from contextlib import asynccontextmanager
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from pgpubsub.web import create_app

gateway = create_app(sys.argv[1], public=["*"])

@asynccontextmanager
async def lifespan(_):
    async with gateway.router.lifespan_context(gateway):
        yield

app = Starlette(routes=[Mount("/some/where", gateway)], lifespan=lifespan)
uvicorn.run(app, port=int(sys.argv[2]), log_level="error")
"""


def test_it_works_below_a_prefix(
    open_page: Callable[..., Any], database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", MOUNTED, database, str(port)])
    try:
        until(lambda: answers(port) or process.poll() is not None)
        page = open_page(f"http://127.0.0.1:{port}/some/where{fragment(channels=(name,))}")
        followed(page)
        admin.execute("SELECT pg_notify(%s, 'hello')", (name,))
        shows(page.locator("#messages"), "hello")
    finally:
        process.terminate()
        process.wait(30)
