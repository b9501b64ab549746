"""What docs/reliability.md says of the soak is what was recorded."""

from __future__ import annotations

from tests.reliability import PAGE
from tests.soak.report import PICTURE, SECTION


def test_the_figures_are_those_of_the_last_run_that_was_recorded() -> None:
    assert PAGE.read_text() == SECTION.page(), "python -m tests.soak.report writes it anew"
    assert PICTURE.exists()
