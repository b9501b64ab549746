"""The gateway's page for all: by keyboard, for screen readers, in light and dark, at any width."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgpubsub
from tests.e2e.gateway_page.driving import DEADLINE, expect, followed, fragment, row, send, shows, token


def test_everything_has_a_name_and_a_place_in_the_structure(
    open_page: Callable[..., Any], address: str, database: str, admin: psycopg.Connection[Any], name: str
) -> None:
    with pgpubsub.Hub(database) as hub:
        hub.stream(name).append("one")
        with hub.stream(name).consume("billing") as deliveries:
            deliveries.get(timeout=30)
            page = open_page(address + fragment(channels=(name,), streams=(name,)))
            followed(page)
            shows(row(page, name, "groups"), "billing")
            admin.execute("SELECT pg_notify(%s, 'hello')", (name,))
            shows(page.locator("#messages"), "hello")
            unnamed = [one for one, its in page.evaluate("checks.names()") if not its]
            assert unnamed == []
            structure = page.evaluate("checks.structure()")
    assert structure.pop("language") == "en"
    assert structure.pop("title")
    assert structure.pop("landmarks") == [1, 1, 1]
    headings = structure.pop("headings")
    assert headings.count("H1") == 1
    assert headings[0] == "H1"
    assert not any(structure.values()), structure


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(
    open_page: Callable[..., Any], address: str, database: str, admin: psycopg.Connection[Any], name: str, scheme: str
) -> None:
    with pgpubsub.Hub(database) as hub:
        hub.stream(name).append("one")
        with hub.stream(name).consume("billing") as deliveries:
            deliveries.get(timeout=30)
        page = open_page(address + fragment(channels=(name,), streams=(name,)), refusals=True, color_scheme=scheme)
        followed(page)
        hub.stream(name).append("two", key="key")
    shows(row(page, name, "groups"), "billing")
    shows(page.locator("#messages"), "two")
    admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen%'"
    )
    shows(page.get_by_role("log"), "reconnected")
    shows(send(page, "channel", name, "x"), "Not sent")
    page.get_by_role("button", name="Pause").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(244, 245, 246)"
    assert dark == (scheme == "dark")
    measured = page.evaluate("checks.contrast()")
    assert len(measured["text"]) > 30
    assert [one for one in measured["text"] if one[0] < 4.5] == []
    assert [one for one in measured["edges"] + measured["lines"] if one[0] < 3] == []


def test_light_and_dark_can_be_chosen_and_are_remembered(open_page: Callable[..., Any], address: str) -> None:
    page = open_page(address, color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(colour)
    page.get_by_role("button", name="Dark").click()
    dark = page.evaluate(colour)
    assert dark != light
    page.reload()
    assert page.evaluate(colour) == dark
    page.get_by_role("button", name="Light").click()
    assert page.evaluate(colour) == light


def test_a_keyboard_is_enough(
    open_page: Callable[..., Any], address: str, admin: psycopg.Connection[Any], name: str
) -> None:
    page = open_page(address, refusals=True)
    followed(page)
    keyboard = page.keyboard

    def tab_to(wanted: str) -> None:
        for _ in range(60):
            keyboard.press("Tab")
            focused = page.evaluate("checks.focused()")
            assert focused["visible"], focused
            if focused["name"] == wanted:
                return
        raise AssertionError(f"{wanted} is not reached")

    tab_to("Skip to the content")
    keyboard.press("Enter")
    tab_to("follow-name")
    keyboard.type(name)
    keyboard.press("Enter")
    shows(row(page, name), "Unfollow")
    tab_to("pause")
    keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_have_attribute("aria-pressed", "true")
    keyboard.press("Space")
    tab_to("send-kind")
    tab_to("send-name")
    keyboard.type(name)
    tab_to("send-payload")
    keyboard.type("hello")
    keyboard.press("Control+Enter")
    shows(page.locator("#send-outcome"), "this takes a token")
    page.locator("body").press("Home")
    page.evaluate("document.activeElement.blur()")
    tab_to("token-open")
    keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.evaluate("checks.focused()")["name"] == "token-open"
    keyboard.press("Enter")
    keyboard.insert_text(token(write=["*"]))
    tab_to("Use")
    keyboard.press("Enter")
    shows(page.get_by_role("button", name="Token"), "in use")
    tab_to("send-payload")
    keyboard.press("Control+Enter")
    shows(page.locator("#send-outcome"), f"Sent on {name}")
    shows(page.locator("#messages"), "hello")
    page.evaluate("document.activeElement.blur()")
    tab_to("theme")
    tab_to("Unfollow")
    keyboard.press("Enter")
    expect(row(page, name).get_by_role("button", name=f"Follow channel {name}")).to_be_focused(timeout=DEADLINE)


def test_who_asks_for_less_motion_gets_none(open_page: Callable[..., Any], address: str) -> None:
    page = open_page(address, reduced_motion="reduce")
    followed(page)
    page.evaluate("document.getElementById('connection').dataset.state = 'waiting'")
    assert page.evaluate("getComputedStyle(document.getElementById('connection'), '::before').animationName") == "none"


@pytest.mark.parametrize("width", [360, 600, 940, 1280, 2200])
def test_it_fits(open_page: Callable[..., Any], address: str, name: str, width: int) -> None:
    page = open_page(
        address + fragment(channels=(f"{name} {'w' * 40}", name), streams=(name,)),
        viewport={"width": width, "height": 800},
    )
    followed(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """() => [...document.querySelectorAll("main button, main input, main select, main textarea, header *")]
      .filter((one) => one.checkVisibility() && !one.closest(".scroll, .hidden"))
      .filter((one) => one.getBoundingClientRect().right > innerWidth).map((one) => one.outerHTML)"""
    assert page.evaluate(outside) == []


def test_the_page_is_all_there_is() -> None:
    """No other host, and nothing inline that a policy would have to allow."""
    page = Path(pgpubsub.__file__).parent / "web" / "page"
    for file in page.iterdir():
        text = file.read_text()
        hosts = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {
            "http://www.w3.org/2000/svg",
            "http://localhost:8008/",
        }
        assert not hosts, (file, hosts)
        assert "innerHTML" not in text
        assert "insertAdjacentHTML" not in text
