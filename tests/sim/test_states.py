"""docs/states.md says what the core does: it is drawn again, and compared."""

from __future__ import annotations

from contextlib import suppress

import pytest

from pgpubsub.core.session import Session
from tests.sim import simulations
from tests.sim.machines import MACHINES
from tests.sim.states import FILE, draw, fixed, gaps
from tests.sim.transitions import Recorder, Seen


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    recorder = Recorder(list(MACHINES.values()))
    fixed(recorder)
    return recorder


def test_the_states_are_drawn_as_they_are(recorder: Recorder) -> None:
    assert draw(recorder) == FILE.read_text(), "make states draws docs/states.md anew"


def test_every_fact_and_every_state_of_the_core_is_met(recorder: Recorder) -> None:
    assert not list(gaps(recorder))


def test_what_the_core_does_differently_is_seen(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulations' own rules are not what finds it."""
    here = Recorder([MACHINES["session"]])
    monkeypatch.setattr(Session, "on_heard", lambda session, now: session.on_lost(session.number, now, "heard"))
    simulation = simulations()["session"]
    with simulation.made_small(here):
        for seed in range(20):
            with suppress(AssertionError):
                simulation.run(seed)
    assert Seen("session", "new", "on_executed", "down") in here.seen.keys() - recorder.seen.keys()
