"""Gaps and reconnections on the gateway's page, as they happen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

import pgpubsub
from tests.e2e.gateway_page.driving import DEADLINE, expect, followed, fragment, gateway, row, shows
from tests.e2e.test_servers import free_port


def test_a_cut_to_the_database_is_shown_as_a_gap_and_a_reconnection(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(channels=(name, f"{name} too"), streams=(name,)))
    followed(page)
    shows(page.locator("#log-empty"), "None since")
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = 'page' AND application_name LIKE 'pgpubsub listen%'"
    )
    log = page.get_by_role("log")
    shows(log, f"{name}, {name} too: connection lost, some may be missing")
    shows(log, "The gateway has reconnected to the database")
    shows(page.locator("#gaps"), "2")
    expect(row(page, name).get_by_role("img")).to_have_attribute("aria-label", re.compile("; a gap$"), timeout=DEADLINE)
    admin.execute("SELECT pg_notify(%s, 'back')", (name,))
    shows(page.locator("#messages"), "back")
    assert log.get_attribute("aria-live") == "polite"


def test_a_gateway_that_is_replaced_is_shown_and_streams_lose_nothing(
    open_page: Callable[..., Any], database: str, secret: Path, name: str
) -> None:
    port = free_port()
    with gateway(database, secret, "--public", "*", port=port) as address:
        page = open_page(address + fragment(channels=(name,), streams=(name,)), refusals=True)
        followed(page)
        with pgpubsub.Hub(database) as hub:
            hub.stream(name).append("before")
        shows(page.locator("#messages"), "before")
    shows(page.locator("#connection"), "does not answer")
    shows(page.get_by_role("log"), "The gateway does not answer")
    shows(page.get_by_role("log"), "What is followed does not arrive")
    shows(row(page, name, "streams"), "Unfollow")
    with pgpubsub.Hub(database) as hub:
        hub.stream(name).append("meanwhile")
        with gateway(database, secret, "--public", "*", port=port):
            followed(page)
            shows(page.get_by_role("log"), "What is followed arrives again")
            shows(page.get_by_role("log"), "The gateway answers again")
            shows(page.get_by_role("log"), f"{name}: connection lost")
            hub.stream(name).append("after")
            expect(page.locator("#messages pre")).to_have_text(["after", "meanwhile", "before"], timeout=DEADLINE)


def test_following_more_keeps_what_is_followed(
    open_page: Callable[..., Any], address: str, database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(streams=(name,)))
    followed(page)
    with pgpubsub.Hub(database) as hub:
        stream = hub.stream(name)
        for number in range(20):
            stream.append(f"entry {number}")
            if number % 4 == 0:
                page.get_by_label("Its name").fill(f"{name} {number}")
                page.keyboard.press("Enter")
    expect(page.locator("#messages pre")).to_have_text(
        [f"entry {number}" for number in range(19, -1, -1)], timeout=DEADLINE
    )
    for number in range(0, 20, 4):
        shows(row(page, f"{name} {number}").locator("td").nth(3), "1")
    admin.execute("SELECT pg_notify(%s, 'here')", (f"{name} 0",))
    shows(page.locator("#messages li").first, "here")
