"""Names and payloads that are anybody's, on the gateway's page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pgpubsub
from tests.e2e.gateway_page.driving import DEADLINE, expect, followed, fragment, shows

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(
    "name", [HOSTILE, "'\"&amp;<svg/onload=alert(1)>", "\u202eabc مرحبا 🙂\u2066", "a,b&streams=c#%2F/..", "__proto__"]
)
def test_hostile_names_and_payloads_are_text(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(channels=(name,)))
    followed(page)
    page.wait_for_function(
        "name => [...document.querySelectorAll('#channels th bdi')].some((one) => one.textContent === name)", arg=name
    )
    payloads = [
        f"{HOSTILE}<script>alert(2)</script>",
        "\u202e\u202a\u2067 right to left",
        "{{7*7}}${7*7}",
        "\x01\x7f\n\tend",
    ]
    for payload in payloads:
        admin.execute("SELECT pg_notify(%s, %s)", (name, payload))
    expect(page.locator("#messages li")).to_have_count(len(payloads), timeout=DEADLINE)
    shown = page.locator("#messages pre").all()
    assert [one.evaluate("one => one.textContent") for one in shown] == payloads[::-1]
    assert page.locator("main img, main script, main svg[onload]").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_hostile_stream_and_a_long_payload_are_text(
    open_page: Callable[..., Any], address: str, database: str
) -> None:
    name = f"{HOSTILE}{'x' * 900}"
    page = open_page(address + fragment(streams=(name,)))
    followed(page)
    long = HOSTILE + "0123456789" * 1000
    with pgpubsub.Hub(database) as hub:
        hub.stream(name).append(long, key=HOSTILE, headers={HOSTILE: HOSTILE})
        hub.stream(name).append(b"\x00\xff")
    shows(page.locator("#messages li").first, "00 ff")
    entry = page.locator("#messages li").nth(1)
    shows(entry, "(10,028 characters)")
    shows(entry, f"key {HOSTILE}")
    entry.locator("summary").click()
    shows(entry.locator("pre"), long)
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
