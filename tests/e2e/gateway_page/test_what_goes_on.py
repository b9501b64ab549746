"""Channels, streams and messages on the gateway's page, in headless Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg

import pgpubsub
from tests.e2e.gateway_page.driving import DEADLINE, expect, followed, fragment, row, shows


def test_a_channel_that_is_named_shows_its_messages_and_its_rate(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address)
    followed(page)
    page.get_by_label("Its name").fill(name)
    page.get_by_role("form", name="Follow").get_by_role("button", name="Follow").click()
    shows(row(page, name), "Unfollow")
    followed(page)
    chart = row(page, name).get_by_role("img")
    expect(chart).to_have_attribute("aria-label", re.compile(": 0 a second now"), timeout=DEADLINE)
    before = chart.locator(".line").get_attribute("d")
    for number in range(50):
        admin.execute("SELECT pg_notify(%s, %s)", (name, f"message {number}"))
    shows(page.locator("#messages li").first, "message 49")
    shows(page.locator("#messages-count"), "50 messages")
    expect(chart).to_have_attribute("aria-label", re.compile(r": [1-9]\d* a second now, \d+ at most"), timeout=DEADLINE)
    assert chart.locator(".line").get_attribute("d") != before
    shows(row(page, name).locator("td").nth(2), "50")
    assert page.evaluate("location.hash") == fragment(channels=(name,))


def test_streams_are_shown_with_their_groups_and_lag(
    open_page: Callable[..., Any], address: str, database: str, name: str
) -> None:
    with pgpubsub.Hub(database) as hub:
        stream = hub.stream(name)
        stream.append_many([str(number) for number in range(30)])
        with stream.consume("billing") as deliveries:
            for _ in range(10):
                deliveries.get(timeout=30).acknowledge()
            page = open_page(address)
            shows(row(page, name, "streams"), "Follow")
            shows(row(page, name, "streams").locator("td").nth(2), re.compile("now|ago"))
            group = row(page, name, "groups")
            shows(group, "billing of")
            shows(group.locator("td").nth(1), "20")
            shows(group.locator("td").nth(3), "1")
        row(page, name, "streams").get_by_role("button", name=f"Follow stream {name}").click()
        shows(row(page, name, "streams"), "Unfollow")
        followed(page)
        stream.append("seen", key="customer 7")
    shows(page.locator("#messages li").first, "key customer 7")
    shows(page.locator("#messages li").first, "seen")


def test_what_others_follow_is_offered(open_page: Callable[..., Any], address: str, name: str) -> None:
    other = open_page(address + fragment(channels=(name,)))
    followed(other)
    page = open_page(address)
    row(page, name).get_by_role("button", name=f"Follow channel {name}").click()
    shows(row(page, name).locator("td").nth(3), "2")
    row(page, name).get_by_role("button", name=f"Unfollow channel {name}").click()
    shows(row(page, name).locator("td").nth(3), "1")
    assert page.evaluate("location.hash") == ""


def test_messages_are_held_back_while_they_are_paused(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(channels=(name,)))
    followed(page)
    page.get_by_role("button", name="Pause").click()
    admin.execute("SELECT pg_notify(%s, 'one'), pg_notify(%s, 'two')", (name, name))
    shows(page.locator("#messages-count"), "2 messages, 2 held back")
    assert page.locator("#messages li").count() == 0
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#messages pre")).to_have_text(["two", "one"], timeout=DEADLINE)


def test_the_list_of_messages_is_bounded(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address + fragment(channels=(name,)))
    followed(page)
    admin.execute("SELECT pg_notify(%s, 'message ' || number) FROM generate_series(1, 900) AS number", (name,))
    shows(page.locator("#messages-count"), "900 messages")
    shows(page.locator("#messages li").first, "message 900")
    assert page.locator("#messages li").count() == 200
