"""How the benchmarks run, and whom they are pinned to."""

import doctest
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Self, cast

import pytest

import bench
from bench import pins, report
from bench.contestants import Contestant, Role
from bench.ground import Effort, Ground
from bench.parts import FULL, PARTS
from bench.peers.peer import Peer, everyone
from bench.rounds import Figures, play


@dataclass(frozen=True)
class Measured:
    """A measurement that fails from a round on."""

    name: str
    fails_in: int
    played: list[int]
    contestants: Sequence[Contestant[Any]] = ()
    most_rounds: int | None = None

    def play(self, ground: Ground) -> Mapping[str, Figures]:
        self.played.append(1)
        if len(self.played) == self.fails_in:
            raise OSError("no more")
        return {"ours": {"us": 1.0}}

    def among(self, contestants: Sequence[Contestant[Any]]) -> Self:
        return replace(self, contestants=contestants)


def test_a_measurement_that_fails_is_told_and_loses_nothing_of_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    good, bad = Measured("hub-good", 99, []), Measured("hub-bad", 2, [])
    with ExitStack() as stack:
        ground = Ground("", cast(Any, None), Effort(rounds=3), stack)
        played = play([bad, good], ground, lambda number: None)
    assert played.failures == {"hub-bad": "OSError('no more')"}
    assert [[*one] for one in played.rounds] == [["hub-bad", "hub-good"], ["hub-good"], ["hub-good"]]
    assert list(played.seconds) == ["hub-bad", "hub-good"]
    assert "no more" in capfd.readouterr().err


@pytest.mark.parametrize("peer", everyone(), ids=lambda peer: peer.name)
def test_a_peer_is_pinned_to_the_version_that_its_adapter_was_written_for(peer: Peer) -> None:
    assert peer.version == pins.pinned().get(peer.name, ""), "read its adapter again, and the page that it names"
    assert peer.uses
    assert "https://" in peer.manual


def test_another_version_than_the_pinned_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins, "pinned", lambda: {"pytest": "0.1", "not-there-at-all": "1.0"})
    assert pins.differing() == [f"pytest is {pytest.__version__}, and the benchmarks are pinned to 0.1"]


@pytest.mark.parametrize(("loads", "waits"), [([0.1], 0), ([9.0, 9.0, 0.1], 2)])
def test_a_run_begins_when_the_machine_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, loads: list[float], waits: int
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("os.getloadavg", lambda: (loads[len(pauses)], 0, 0))
    monkeypatch.setattr(report, "sleep", pauses.append)
    report.await_quiet()
    assert len(pauses) == waits


def test_a_run_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (9.0, 0, 0))
    report.await_quiet(patience=0)


@pytest.mark.parametrize("name", PARTS)
def test_what_is_shown_is_measured(name: str) -> None:
    """Each metric is of a measurement, and is beside those who take part in one of them."""
    measured = {one.name: one.contestants for one in PARTS[name].measurements(FULL)}
    names = {one.name for contestants in measured.values() for one in contestants}
    for metric in PARTS[name].metrics(FULL):
        assert metric.part == name
        assert {*metric.beside} <= {*names, "the fastest peer"}, metric
        assert {aim.beside for aim in metric.aims} <= {*metric.beside, "itself"}, metric
        assert any(one.role is Role.SUBJECT for one in measured[metric.measurement])


@pytest.mark.parametrize("module", [one.name for one in pkgutil.walk_packages(bench.__path__, "bench.")])
def test_examples_in_docstrings_are_true(module: str) -> None:
    assert doctest.testmod(import_module(module)).failed == 0
