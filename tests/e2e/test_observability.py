"""What the manual says of metrics and of log records, beside what a program tells and what stands in the source."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pgpubsub.logs import RESERVED
from tests.e2e.observed import DOCS, MANUAL, METRICS, Described, metric_of, program, words
from tests.e2e.test_examples import ROOT, environment, run  # noqa: F401  # a fixture
from tests.system.streams import database_with_streams
from tests.web.conftest import Served
from tests.web.test_operations import fetch

SOURCES = ROOT / "src" / "pgpubsub"

EXAMPLES = re.findall(r"```python\n([^`]*)```\n```text\n([^`]*)```", MANUAL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_an_example_prints_what_the_manual_says(
    code: str,
    output: str,
    environment: dict[str, str],  # noqa: F811
) -> None:
    assert run("-c", code, environment=environment) == output


# -- metrics


def described(text: str) -> dict[str, Described]:
    """What is exposed, as the manual has it."""
    found = {}
    for family in text_string_to_metric_families(text):
        if not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            assert family.samples, f"nothing has happened that {name} tells"
            assert len({tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples}) == 1, name
            found[name] = Described(family.type, frozenset(labels))
    return found


@pytest.fixture(scope="module")
def exposed(dsn: str) -> dict[str, Described]:
    """By a program with a hub and a database, and by a gateway."""
    with database_with_streams(dsn, "observed") as its, program(its) as registry, Served(its, public=["*"]) as served:
        fetch(served.port, "/nowhere")
        of_program = described(generate_latest(registry).decode())
        status, text = fetch(served.port, "/metrics")
        assert status == 200
        text = re.sub(r"(?ms)^# HELP pgpubsub_group.*?(?=^# HELP|\Z)", "", text)  # it consumes nothing
        of_gateway = described(text)
    assert all(of_program.get(name, its) == its for name, its in of_gateway.items())
    return of_program | of_gateway


def test_all_that_is_exposed_is_in_the_manual(exposed: dict[str, Described]) -> None:
    assert {name: its for name, its in exposed.items() if METRICS.get(name) != its} == {}


def test_all_that_is_in_the_manual_is_exposed(exposed: dict[str, Described]) -> None:
    assert len(METRICS) > 50
    assert set(METRICS) - set(exposed) == set()


def test_names_follow_the_conventions_of_prometheus() -> None:
    for name, its in METRICS.items():
        assert name.endswith("_total") == (its.type == "counter"), name
        assert not re.search(r"_(ms|millis|milliseconds|minutes|kb|mb|percent)\b", name), name
        if its.type == "histogram":
            assert name.endswith("_seconds"), name


# -- the dashboard

DASHBOARD = json.loads((DOCS / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


def check_query(query: str) -> None:
    """All metrics in it exist, and have the labels that it names."""
    for name in re.findall(r"\bpgpubsub_\w+", query):
        assert metric_of(name) or (name.endswith("_") and any(one.startswith(name) for one in METRICS)), name
    for name, selector in re.findall(r"\b(pgpubsub_\w+)\{([^}]*)\}", query):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", selector))
        metric = metric_of(name)
        assert metric is not None
        assert labels <= METRICS[metric].labels | {"job", "instance"}, (name, labels)


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_what_the_dashboard_asks_for_exists(title: str, query: str) -> None:
    check_query(query)
    assert set(re.findall(r"\$(\w+)", query)) <= set(VARIABLES) | {"__rate_interval"}


def test_all_metrics_are_on_the_dashboard() -> None:
    shown = {metric_of(name) for _, query in QUERIES for name in re.findall(r"\bpgpubsub_\w+", query)}
    assert set(METRICS) - shown == set()


def test_variables_of_the_dashboard_are_of_what_exists() -> None:
    assert VARIABLES["datasource"]["type"] == "datasource"
    for variable in VARIABLES.values():
        if variable["type"] == "query":
            check_query(variable["query"]["query"])
            assert variable["datasource"]["uid"] == "${datasource}"


def test_legends_name_labels_that_the_query_keeps() -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            kept = {
                label.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(",")
            }
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, panel["title"]


def test_the_dashboard_has_what_grafana_needs() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert {"title", "uid", "panels", "templating", "time", "refresh"} <= set(DASHBOARD)
    assert "id" not in DASHBOARD, "that is the Grafana's in which it was made"
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        "Hubs",
        "Streams and groups",
        "Gateway",
        "Database",
    ]
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
        assert "unit" in panel["fieldConfig"]["defaults"]


def test_panels_do_not_overlap() -> None:
    def cells(panel: dict[str, Any]) -> Iterator[tuple[int, int]]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        yield from ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))

    for one, other in combinations(DASHBOARD["panels"], 2):
        assert not set(cells(one)) & set(cells(other)), (one["title"], other["title"])


# -- alerts

RULES = [
    rule for group in yaml.safe_load((DOCS / "prometheus-alerts.yml").read_text())["groups"] for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_a_rule_asks_for_what_exists_and_says_what_to_do(rule: dict[str, Any]) -> None:
    check_query(rule["expr"])
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    runbook = rule["annotations"]["runbook"]
    assert len(runbook) > 40
    assert runbook.endswith(".")
    for page in re.findall(r"docs/[\w.-]+\.md", runbook):
        assert (ROOT / page).exists()
    for event in re.findall(
        r"\b[a-z]+_[a-z_]+\b", runbook.replace("pg_terminate_backend", "").replace("pg_monitor", "")
    ):
        known = {name for _, name in DOCUMENTED} | {"drop_group", "sending_error", "notify_conninfo", "connection_lost"}
        assert event in known, event


# -- log records

ROW = re.compile(r"^\| `(pgpubsub\.\w+)` \| `(\w+)` \| ([a-z, ]+) \|([^|]*)\|", re.M)

DOCUMENTED = {
    (logger, event): (set(re.split(r", | or ", levels)), set(words(fields)))
    for logger, event, levels, fields in ROW.findall(MANUAL)
}

LEVELS = {"exception": {"error"}, "log": {"info", "warning", "error"}}


def logged() -> dict[tuple[str, str], tuple[set[str], set[str]]]:
    """All events of the source: their levels and fields."""
    found: dict[tuple[str, str], tuple[set[str], set[str]]] = defaultdict(lambda: (set(), set()))
    for file in SOURCES.rglob("*.py"):
        tree = ast.parse(file.read_text())
        names = {
            node.targets[0].id: f"pgpubsub.{node.value.args[0].value!s}"
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
            if isinstance(node.targets[0], ast.Name) and isinstance(node.value.func, ast.Name)
            if node.value.func.id == "EventLog" and isinstance(node.value.args[0], ast.Constant)
        }
        for call in ast.walk(tree):
            if (
                isinstance(call, ast.Call)
                and isinstance(call.func, ast.Attribute)
                and isinstance(call.func.value, ast.Name)
                and call.func.value.id in names
            ):
                _note(found, names[call.func.value.id], call.func.attr, call)
    return dict(found)


def _note(found: dict[tuple[str, str], tuple[set[str], set[str]]], logger: str, method: str, call: ast.Call) -> None:
    event, sentence = call.args[1:3] if method == "log" else call.args[:2]
    assert isinstance(event, ast.Constant), f"line {call.lineno}: the name of an event is a constant"
    assert isinstance(sentence, ast.Constant), f"line {call.lineno}: so is the sentence"
    assert isinstance(event.value, str)
    assert isinstance(sentence.value, str)
    fields = {keyword.arg for keyword in call.keywords}
    assert None not in fields
    in_sentence = set(re.findall(r"%\((\w+)\)", sentence.value))
    assert in_sentence <= fields, f"{event.value}: the sentence has fields that are not given"
    assert "%" not in re.sub(r"%\(\w+\)[sdr]", "", sentence.value)
    if "exc_info" in fields or method == "exception":
        fields = fields - {"exc_info"} | {"error"}
    levels, known = found[logger, event.value]
    assert not levels or known == fields, f"{event.value} has other fields elsewhere"
    levels.update(LEVELS.get(method, {method}))
    known.update(str(field) for field in fields)


def test_all_events_are_in_the_manual_and_no_others() -> None:
    source = logged()
    assert len(source) > 30
    assert {key: its for key, its in source.items() if DOCUMENTED.get(key) != its} == {}
    assert set(DOCUMENTED) == set(source)


def test_fields_are_nobody_elses_attributes() -> None:
    of_formatters = {
        "event",
        "event_name",
        "level",
        "logger",
        "timestamp",
        "time",
        "fields",
        "exception",
        "stack",
        "_record",
    }
    for _, fields in logged().values():
        assert not fields & (RESERVED | of_formatters)


def test_nothing_is_logged_in_another_way() -> None:
    own = {"logs.py", "terminal.py", "show.py"}  # that define it, and show it
    users = {file.name for file in SOURCES.rglob("*.py") if "getLogger" in file.read_text()}
    assert users <= own
