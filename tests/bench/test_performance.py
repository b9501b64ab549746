"""docs/performance.md is what was measured, and nothing else claims figures."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench.comparison import FASTEST, ITSELF, Aim, Comparison, Metric, Spread, compare
from bench.contestants import Contestant, Role
from bench.parts import FULL, PARTS
from bench.performance.better import aimed, better
from bench.performance.charts import DIRECTORY, digest, lines
from bench.performance.page import page
from bench.performance.results import THE_SAME, PartResult, Results, condense, load, store
from bench.performance.tables import tables
from bench.performance.words import anchor, title

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
TABLES = ROOT / "docs" / "performance-figures.md"
AGAIN = "run python -m bench.performance"

ELSEWHERE = {
    "cli.md": {"0.7 ms", "500 ms"},  # what it prints in an example, and a setting
    "doctor.md": {"100 ms"},  # a line that somebody may have
    "explanation/grouped-sending.md": {"1 ms"},  # a disk
    "groups.md": {"500 entries a second"},  # what is appended
    "operations/sizing.md": {"500 entries a second"},
    "sending.md": {"0.1 ms", "1 ms", "2,960 transactions per second", "15,000 transactions per second"},
    "streams.md": {"1 ms"},
}
"""By page: what looks like a claim and is none, or, in sending.md, stands beside how it was measured."""

RECORDS = ("decisions", "performance", "reliability")
"""What the names of pages begin with that say what was found when, or are made of what was measured."""

SPEED = re.compile(
    r"(?<![\w.])(\d[\d,.]*)\s*(?:µs|ms|microseconds?|milliseconds?"
    r"|(?:[\w-]+ )?(?:a|per) second|times (?:as|more|less|faster|slower))"
)


def contestants(**roles: Role) -> list[Contestant[None]]:
    return [Contestant(name, role, lambda: None) for name, role in roles.items()]


THREE = contestants(ours=Role.SUBJECT, quick=Role.PEER, slow=Role.PEER, limit=Role.LIMIT)
METRIC = Metric("part-thing", "us", "A thing", "µs", (FASTEST, "slow"), aims=(Aim(1.2, FASTEST), Aim(2, "slow")))


def compared(*rounds: tuple[float, float, float, float], metric: Metric = METRIC) -> Comparison:
    names = [one.name for one in THREE]
    return compare(
        metric,
        THREE,
        [{"part-thing": {name: {"us": us} for name, us in zip(names, one, strict=True)}} for one in rounds],
    )


def test_the_page_is_what_the_committed_figures_make() -> None:
    assert PAGE.read_text() == page(load()), AGAIN
    assert TABLES.read_text() == tables(load()), AGAIN


def test_the_charts_are_of_the_committed_figures() -> None:
    for name, part in load().parts.items():
        if drawn := lines(part.comparisons):
            assert digest(drawn) in (DIRECTORY / f"performance-{name}.svg").read_text(), f"{name}: {AGAIN}"


def test_the_readme_claims_no_speed_that_was_not_measured() -> None:
    assert unmeasured((ROOT / "README.md").read_text()) == set()


def unmeasured(text: str) -> set[str]:
    """What a text claims and the pages do not say."""
    measured = PAGE.read_text() + TABLES.read_text()
    claims = {" ".join(found[0].split()) for found in SPEED.finditer(text)}
    return {claim for claim in claims if not re.search(rf"(?<![\d.,]){re.escape(claim)}", measured)}


@pytest.mark.parametrize(
    "name",
    [
        name
        for file in ROOT.glob("docs/**/*.md")
        if not (name := str(file.relative_to(ROOT / "docs"))).startswith(RECORDS)
    ],
)
def test_the_manual_claims_no_speed_that_was_not_measured(name: str) -> None:
    assert unmeasured((ROOT / "docs" / name).read_text()) <= ELSEWHERE.get(name, set())


def test_causes_have_no_figures_of_their_own() -> None:
    """The tables have them, and those of the next run are others."""
    causes = {aim.cause for part in PARTS.values() for metric in part.metrics(FULL) for aim in metric.aims}
    assert [cause for cause in causes if SPEED.search(cause) or re.search(r"\d\.\d", cause)] == []


def test_links_into_the_pages_lead_somewhere() -> None:
    texts = [file.read_text() for file in (ROOT / "README.md", *ROOT.glob("docs/**/*.md"))]
    wanted = {found for text in texts for found in re.findall(r"performance(?:-figures)?\.md#([\w-]+)", text)}
    assert wanted
    assert wanted <= {anchor(title(name)) for name in PARTS}


@pytest.mark.parametrize("claim", ["0.15 ms", "ten 17 times as many", "640,000 deliveries a second"])
def test_a_claim_is_recognised(claim: str) -> None:
    assert SPEED.search(claim)


def test_a_peer_is_better_when_the_quartiles_are_on_its_side_too() -> None:
    (one,) = better([compared((10, 5, 10.5, 1), (10, 5, 9.5, 1), (10, 5, 10, 1))])
    assert one.ours.contestant == "ours"
    assert [(row.contestant, spread) for row, spread in one.peers] == [("quick", Spread(2, 2, 2))]


def test_where_more_is_better_so_is_the_peer_that_has_more() -> None:
    more = replace(METRIC, more_is_better=True)
    (one,) = better([compared((10, 5, 20, 99), (10, 5, 20, 99), metric=more)])
    assert [row.contestant for row, _ in one.peers] == ["slow"]


def test_a_single_round_has_no_spread() -> None:
    assert list(better([compared((10, 5, 5, 1))])) == []


def test_a_metric_may_be_about_some_of_them() -> None:
    found = compared((10, 5, 10, 1), (10, 5, 10, 1), metric=replace(METRIC, among=("ours", "slow")))
    assert [row.contestant for row in found.rows] == ["ours", "slow"]
    assert found.fastest == "slow"


def test_a_limit_is_no_peer() -> None:
    assert list(better([compared((10, 20, 20, 1), (10, 20, 20, 1))])) == []


def test_aims_are_told_of_as_met_or_missed() -> None:
    found = {one.peer: one.met for one in aimed([compared((10, 5, 10, 1), (10, 5, 10, 1))])}
    assert found == {"quick": False, "slow": True}


def test_an_aim_may_be_about_the_figure_itself() -> None:
    (one,) = aimed([compared((10, 5, 9, 1), (10, 5, 9, 1), metric=replace(METRIC, aims=(Aim(9, ITSELF),)))])
    assert not one.met


def test_what_cannot_be_told_from_nothing_has_no_ratio() -> None:
    metric = replace(METRIC, least=0.5, aims=(Aim(1 / 4, "slow"),))
    found = compared((0, 5, 4, 1), (0.1, 5, 4, 1), metric=metric)
    assert found.rows[0].ratios == {}
    assert found.rows[0].met == {"slow": True}, "0.5 would do, too"
    assert compared((0, 5, 1, 1), metric=metric).rows[0].met == {"slow": False}
    text = _tables(found)
    assert "| slow (the fastest peer) | none to be measured: met | 4 |" in text
    assert "| **ours** |  | less than 0.5 |" in text
    assert Comparison.from_json(found.as_json()) == found


def test_a_peer_of_which_nothing_can_be_measured_is_better() -> None:
    (one,) = better([compared((2, 0, 4, 1), (2, 0, 4, 1), metric=replace(METRIC, least=0.5, aims=()))])
    assert [(row.contestant, spread) for row, spread in one.peers] == [("quick", None)]
    assert lines([one.comparison]) == []


def overtaken(*names: str) -> Comparison:
    """A metric in which these cannot keep up."""
    figures = {one.name: {"us": 10.0, "behind": float(one.name in names)} for one in THREE}
    return compare(replace(METRIC, behind="behind"), THREE, [{"part-thing": figures}] * 2)


def test_who_cannot_keep_up_has_no_ratio() -> None:
    found = overtaken("slow")
    ours = found.rows[0]
    assert "slow" not in ours.ratios
    assert ours.met == {FASTEST: True, "slow": True}
    assert "| slow | cannot keep up: met | cannot keep up |  |" in _tables(found)
    assert Comparison.from_json(found.as_json()) == found


def test_ours_that_cannot_keep_up_misses_its_aims_and_is_worse() -> None:
    found = overtaken("ours")
    assert found.rows[0].met == {FASTEST: False, "slow": False}
    assert [[row.contestant for row, _ in one.peers] for one in better([found])] == [["quick", "slow"]]


def test_fewer_than_five_rounds_have_no_quartiles() -> None:
    four = [(us, 5, 10, 1) for us in (4, 8, 12, 16)]
    few, enough = compared(*four), compared(*four, (20, 5, 10, 1))
    assert (few.rows[0].figure, enough.rows[0].figure) == (Spread(10, 4, 16), Spread(12, 8, 16))
    assert "| median | lowest and highest |" in _tables(few)
    assert "| median | quartiles |" in _tables(enough)


def _tables(comparison: Comparison) -> str:
    part = PartResult({}, [comparison])
    return tables(Results({}, {"pubsub": part}))


def test_a_comparison_is_the_same_after_it_was_kept() -> None:
    kept = compared((10, 5, 10, 1), (12, 5, 9, 1), (11, 6, 8, 2))
    assert Comparison.from_json(kept.as_json()) == kept


def run(
    *parts: str, measurements: Sequence[str] = ("thing",), kind: str = "full", **environment: object
) -> dict[str, object]:
    machine = dict.fromkeys(THE_SAME, 1)
    told = {"date": "today", "commit": "abc", "load average": [0.1], "warnings": []}
    comparisons = [
        {**compared((10, 5, 10, 1)).as_json(), "measurement": f"{part}-{one}", "rounds": len(parts)}
        for part in parts
        for one in measurements
    ]
    return {
        "kind": kind,
        "environment": {**machine, **told, **environment},
        "seconds": {f"{part}-{one}": 60.4 for part in parts for one in measurements},
        "failures": {},
        "comparisons": comparisons,
    }


def test_a_later_run_replaces_the_parts_that_it_has_measured(tmp_path: Path) -> None:
    file = tmp_path / "performance.json"
    store(condense([run("hub", "cost", "pubsub", commit="old"), run("hub", commit="new")]), file)
    store(condense([run("cost", commit="newest")], json.loads(file.read_text())), file)
    kept = load(file)
    assert {name: (part.run["commit"], part.comparisons[0].rounds) for name, part in kept.parts.items()} == {
        "hub": ("new", 1),
        "cost": ("newest", 1),
        "pubsub": ("old", 3),
    }


def test_runs_on_different_machines_are_not_put_together() -> None:
    with pytest.raises(SystemExit, match="'server' differs"):
        condense([run("hub"), run("cost", server=2)])
    with pytest.raises(SystemExit, match="'server' differs"):
        condense([run("cost", server=2)], condense([run("hub")]))


def test_a_run_of_less_replaces_nothing() -> None:
    kept = condense([run("hub", measurements=("wake", "drain"))])
    with pytest.raises(SystemExit, match=r"lacks hub-wake.*--only hub"):
        condense([run("hub", measurements=("drain",))], kept)
    with pytest.raises(SystemExit, match="quick"):
        condense([run("hub", measurements=("wake", "drain"), kind="quick")], kept)


def test_a_quick_run_is_marked_on_the_page() -> None:
    results = load()
    for kind, marked in (("quick", True), ("full", False)):
        parts = {name: PartResult({**part.run, "kind": kind}, part.comparisons) for name, part in results.parts.items()}
        assert ("placeholder" in page(Results(results.environment, parts))) is marked


def test_what_a_run_has_against_it_stands_on_the_page() -> None:
    results = load()
    name, part = next(iter(results.parts.items()))
    told = {**part.run, "warnings": ["the machine was busy"], "failures": {"hub-wake": "OSError()"}}
    text = page(Results(results.environment, {**results.parts, name: PartResult(told, part.comparisons)}))
    assert "the machine was busy; hub-wake failed: OSError()" in text
