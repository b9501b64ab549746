"""What docs/reliability.md says of the soak is what was recorded."""

from __future__ import annotations

from tests.reliability import PAGE
from tests.soak.report import PICTURE, SECTION


def test_the_figures_are_those_of_the_last_run_that_was_recorded() -> None:
    assert PAGE.read_text() == SECTION.page(), "python -m tests.soak.report writes it anew"
    assert PICTURE.exists()


def test_the_slope_and_the_bound_stand_beside_each_line() -> None:
    figures = {
        "minutes": 30.0,
        **dict.fromkeys(("sent", "appended", "handled", "terminated"), 1),
        **dict.fromkeys(("server", "python", "driver"), "1"),
        "lines": {"rss": {"begun": 100.0, "ended": 102.0, "hourly": 4.0}},
    }
    # 4 MiB an hour are 1.7 in 26 minutes, of which 3 % and 2 MiB an hour may be.
    assert "| resident memory | 100 | 102 | MiB | +4 | +1.7 | 3.9 |" in SECTION.words(figures)
