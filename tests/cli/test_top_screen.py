"""How `pgpubsub top` draws what it knows, and what it calculates."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from pgpubsub.cli.top.figures import Channel
from pgpubsub.cli.top.glyphs import ASCII, UNICODE, Glyphs
from pgpubsub.cli.top.rates import RECENT, View, as_json, changed
from pgpubsub.cli.top.screen import picture, shares
from pgpubsub.doctor.lag import Group, Groups
from pgpubsub.doctor.sampling import (
    Listener,
    Listeners,
    Queue,
    Sample,
    Server,
    Stream,
    Streams,
    Unseen,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SERVER = Server("shop", "db.example.org", 5432, "18.6", "reporter", False, True, NOW)
EVIL = "\x1b[2J\r\n\u202e\u200d" + "\N{LARGE RED CIRCLE}" * 300


def sample(time: float = 0.0, appended: int | None = None, *, many: int = 3, name: str = "some") -> Sample:
    return Sample(
        time,
        NOW,
        SERVER,
        Queue(0.42, 2),
        Listeners(
            many + 30,
            4,
            tuple(
                Listener(n, f"{name} {n}", name, "idle in transaction (aborted)", 1e6 * n, "ClientRead", n == 0)
                for n in range(many)
            ),
        ),
        Streams(many, tuple(Stream(f"{name} {n}", appended, n == 0, 1e9) for n in range(many))),
        Groups(many, tuple(Group(name, f"{name} {n}", 10_000, True, 1e9, 10_000, 10_000, 10_000) for n in range(many))),
    )


def drawn(view: View, width: int = 80, height: int | None = 24, glyphs: Glyphs = UNICODE) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as captured:
        console.print(picture(view, glyphs, "every 1 s, q quits", height=height))
    return captured.get().splitlines()


def channels(name: str, many: int) -> tuple[Channel, ...]:
    return tuple(Channel(f"{name} {n}", 10**9, 10**4, f"payload of {name}") for n in range(many))


@pytest.mark.parametrize("name", ["some", "a name that is rather longer than usual", EVIL])
@pytest.mark.parametrize("many", [0, 1, 5, 100])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 40), (200, 40), (200, 24), (80, None), (80, 16)])
def test_no_line_is_too_long_and_there_are_not_too_many(name: str, many: int, width: int, height: int | None) -> None:
    before = changed(None, sample(0, many=many, name=name), channels(name, many), None)
    lines = drawn(changed(before, sample(1.0, 10**9, many=many, name=name), channels(name, many), EVIL), width, height)
    assert max(map(cell_len, lines)) <= width
    assert height is None or len(lines) <= height
    assert all(line.isprintable() for line in lines)
    assert sum(title in line for line in lines for title in ("CHANNELS", "LISTENERS", "STREAMS", "GROUPS")) == 4


def test_figures_are_whole_in_80_columns() -> None:
    """What is cropped are names and payloads."""
    before = changed(None, sample(0, name="x" * 60), channels("x" * 60, 2), None)
    lines = drawn(changed(before, sample(1.0, 99_999, name="x" * 60), channels("x" * 60, 2), None))
    text = "\n".join(lines)
    for figure in ("99,999", "1,000,000,000", "11,574 d", "10,000+", "42.0 % full, 2 sessions wait for NOTIFY's lock"):
        assert figure in text


def test_what_there_is_no_room_for_is_counted() -> None:
    lines = drawn(View(sample(many=20), channels("channel", 20)), height=24)
    shown = sum(line.lstrip("! ").startswith(("some ", "channel ")) for line in lines)
    more = [int(line.split()[1]) for line in lines if line.startswith("and ")]
    assert len(more) == 4
    assert shown + sum(more) == 20 + 50 + 20 + 20


def test_says_that_the_figures_are_old() -> None:
    trouble = 'connection to server at "db.example.org" (192.0.2.1), port 5432 failed: Connection refused'
    lines = drawn(replace(View(sample()), trouble=trouble))
    assert lines[1].startswith("RECONNECTING  figures of ")
    assert lines[2].rstrip() == "Connection refused"


def test_says_how_to_name_channels() -> None:
    (line,) = (line for line in drawn(View(sample())) if line.startswith("CHANNELS"))
    assert line.rstrip() == "CHANNELS  none named. PostgreSQL has no list: pgpubsub top orders payments"


def test_what_cannot_be_seen_is_not_shown_as_zero() -> None:
    blind = replace(sample(), queue=Unseen("no queue"), listeners=Unseen("no listeners"), streams=Unseen("no streams"))
    lines = [line.rstrip() for line in drawn(View(blind))]
    assert {"NOTIFY queue  no queue", "LISTENERS  no listeners", "STREAMS  no streams"} <= set(lines)
    assert not any(line.startswith("GROUPS") for line in lines)  # nor is it said twice


def test_ascii_letters_are_enough() -> None:
    view = changed(View(sample(0), channels("c", 1)), sample(1), (Channel("c 0", 10**9 + 5, 0, "x"),), None)
    text = "\n".join(drawn(view, glyphs=ASCII, width=160))
    assert "#####......... 42.0 % full" in text
    assert "         # 1,000,000,005" in text
    assert text.isascii()


@given(st.lists(st.integers(0, 50), min_size=1, max_size=5), st.integers(0, 60))
def test_room_is_shared(wanted: list[int], room: int) -> None:
    given_ = shares(wanted, room)
    assert sum(given_) == min(room, sum(wanted))
    assert all(0 <= got <= want for got, want in zip(given_, wanted, strict=True))
    hungry = [got for got, want in zip(given_, wanted, strict=True) if got < want]
    assert not hungry or max(given_) - min(hungry) <= 1


def test_rates_are_per_second_of_the_time_that_has_passed() -> None:
    first = changed(None, sample(10.0), (Channel("c", 5, 0, None),), None)
    assert (first.seconds, first.channel_rates, first.stream_rates) == (None, {}, {})
    second = changed(first, sample(12.5, 100), (Channel("c", 30, 0, None),), None)
    assert second.seconds == 2.5
    assert second.channel_rates == {"c": 10.0}
    assert second.stream_rates["some 0"] == 40.0
    third = changed(replace(second, trouble="away"), sample(20.0), (Channel("c", 30, 1, None),), None)
    assert third.channel_rates == {"c": 0.0}
    assert third.stream_rates == {}  # unknown, as nobody looked meanwhile
    assert third.recent == {"c": (10.0, 0.0)}


def test_only_the_last_rates_are_remembered() -> None:
    view = changed(None, sample(0.0), (Channel("c", 0, 0, None),), None)
    for number in range(1, 30):
        view = changed(view, sample(float(number)), (Channel("c", number * (number + 1) // 2, 0, None),), None)
    assert view.recent["c"] == tuple(range(30 - RECENT, 30))


def test_json_has_no_old_figures() -> None:
    told = as_json(replace(View(sample()), trouble="away"))
    assert told == {"trouble": "away", "last_sample_at": NOW.isoformat(), "not_listening": None, "channels": []}
