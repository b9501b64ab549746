"""The alerts and the dashboard's queries in a real Prometheus, where one is installed (Debian: prometheus)."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import start_http_server

from tests.contract.test_handler import eventually
from tests.e2e.observed import DOCS, program
from tests.e2e.test_observability import QUERIES, RULES, VARIABLES
from tests.system.streams import database_with_streams
from tests.web.conftest import Served
from tests.web.test_operations import fetch

ALERTS = DOCS / "prometheus-alerts.yml"

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="Prometheus is not installed"
)


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- the rules

HUB = 'job="app", instance="a:1", hub="app"'
GROUP = 'job="app", instance="a:1", database="app", stream="orders", group="billing"'
DATABASE = 'job="app", instance="a:1", database="app"'

WELL = {
    f"pgpubsub_hub_live{{{HUB}}}": "1x60",
    f"pgpubsub_hub_can_send{{{HUB}}}": "1x60",
    f'pgpubsub_hub_gaps_total{{{HUB}, reason="connection_lost"}}': "0+0x60",
    f'pgpubsub_hub_gaps_total{{{HUB}, reason="rewound"}}': "0+0x60",
    f"pgpubsub_hub_notifications_dropped_total{{{HUB}}}": "7+0x60",
    f'pgpubsub_hub_send_seconds_count{{{HUB}, outcome="failed"}}': "0+0x60",
    f'pgpubsub_hub_append_seconds_count{{{HUB}, stream="", outcome="failed"}}': "0+0x60",
    f'pgpubsub_group_entries_handled_total{{{HUB}, stream="", group="billing"}}': "0+100x60",
    f'pgpubsub_group_entries_failed_total{{{HUB}, stream="", group="billing"}}': "0+1x60",
    f"pgpubsub_group_lag_seconds{{{GROUP}}}": "2x60",
    f"pgpubsub_group_lag_entries{{{GROUP}}}": "5x60",
    f"pgpubsub_group_members{{{GROUP}}}": "2x60",
    f"pgpubsub_group_dead_entries{{{GROUP}}}": "0x60",
    f"pgpubsub_database_notification_queue_ratio{{{DATABASE}}}": "0.01x60",
    f"pgpubsub_database_stuck_listening_sessions{{{DATABASE}}}": "0x60",
    f"pgpubsub_database_up{{{DATABASE}}}": "1x60",
    f'pgpubsub_database_part_seen{{{DATABASE}, part="groups"}}': "1x60",
}
"""Series, a value a minute."""

TROUBLES: dict[str, dict[str, str]] = {
    "PgpubsubNotLive": {"pgpubsub_hub_live": "0x60"},
    "PgpubsubCannotSend": {"pgpubsub_hub_can_send": "0x60"},
    "PgpubsubGaps": {'pgpubsub_hub_gaps_total{HUB, reason="connection_lost"}': "0+1x60"},
    "PgpubsubStreamHistoryChanged": {'pgpubsub_hub_gaps_total{HUB, reason="rewound"}': "0x25 1x35"},
    "PgpubsubNotificationsDropped": {"pgpubsub_hub_notifications_dropped_total": "0+5x60"},
    "PgpubsubSendingFails": {'pgpubsub_hub_append_seconds_count{HUB, stream="", outcome="failed"}': "0+1x60"},
    "PgpubsubGroupBehind": {"pgpubsub_group_lag_seconds": "400x60"},
    "PgpubsubGroupWithoutConsumers": {"pgpubsub_group_members": "0x60"},
    "PgpubsubDeadLetters": {"pgpubsub_group_dead_entries": "3x60"},
    "PgpubsubHandlingFails": {"pgpubsub_group_entries_failed_total": "0+30x60"},
    "PgpubsubNotificationQueueFilling": {"pgpubsub_database_notification_queue_ratio": "0.1x60"},
    "PgpubsubNotificationQueueHalfFull": {"pgpubsub_database_notification_queue_ratio": "0.6x60"},
    "PgpubsubListenerStuck": {"pgpubsub_database_stuck_listening_sessions": "1x60"},
    "PgpubsubDatabaseUnseen": {"pgpubsub_database_part_seen": "0x60"},
}
"""What is otherwise when it fires."""

ALSO = {"PgpubsubNotificationQueueHalfFull": "PgpubsubNotificationQueueFilling"}


def with_trouble(trouble: dict[str, str]) -> dict[str, str]:
    series = dict(WELL)
    for name, values in trouble.items():
        wanted = name.replace("HUB", HUB)
        (it,) = [one for one in WELL if one == wanted or one.startswith(f"{wanted}{{")]
        series[it] = values
    return series


def rules_alone(folder: Path) -> str:
    """The rules without what they say to people, and with no labels but their own, which is what is compared."""
    rules = [{**rule, "expr": f"count({rule['expr']}) > 0"} for rule in RULES]
    for rule in rules:
        del rule["annotations"]
    file = folder / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "pgpubsub", "rules": rules}]}))
    return str(file)


def test_the_rules_are_well_formed() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))


def test_every_rule_has_a_trouble_here() -> None:
    assert set(TROUBLES) == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("alert", ["", *TROUBLES])
def test_an_alert_fires_upon_its_trouble_and_no_other_does(alert: str, tmp_path: Path) -> None:
    severities = {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    series = with_trouble(TROUBLES.get(alert, {}))
    expected = {alert, ALSO.get(alert, "")} - {""}
    checks = {
        "rule_files": [rules_alone(tmp_path)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {
                        "eval_time": "30m",
                        "alertname": name,
                        "exp_alerts": [{"exp_labels": {"severity": severities[name]}}] if name in expected else [],
                    }
                    for name in severities
                ],
            }
        ],
    }
    file = tmp_path / "checks.yml"
    file.write_text(yaml.safe_dump(checks))
    promtool("test", "rules", str(file))


# -- a server


class Prometheus:
    """One that scrapes twice a second."""

    def __init__(self, folder: Path, targets: dict[str, int]) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            self._port = reserved.getsockname()[1]
        config = {
            "global": {"scrape_interval": "500ms", "scrape_timeout": "450ms", "evaluation_interval": "500ms"},
            "rule_files": [str(ALERTS)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
                for job, port in targets.items()
            ],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        promtool("check", "config", str(file))
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """What its API answers."""
        url = f"http://127.0.0.1:{self._port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            answer = json.load(response)
        assert answer["status"] == "success"
        return answer["data"]

    def ready(self) -> bool:
        try:
            return bool(self.ask("targets")["activeTargets"])
        except OSError:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            return False


@pytest.fixture(scope="module")
def prometheus(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """That has scraped a program and a gateway to which everything has happened."""
    folder = tmp_path_factory.mktemp("prometheus")
    with ExitStack() as stack:
        its = stack.enter_context(database_with_streams(dsn, "scraped"))
        registry = stack.enter_context(program(its))
        server, thread = start_http_server(0, "127.0.0.1", registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        served = stack.enter_context(Served(its, public=["*"], database_metrics=True))
        fetch(served.port, "/nowhere")
        prometheus = Prometheus(folder, {"app": server.server_port, "gateway": served.port})
        stack.callback(prometheus.close)
        eventually(prometheus.ready, 30)
        yield prometheus


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_what_the_dashboard_asks_has_an_answer(prometheus: Prometheus, title: str, query: str) -> None:
    query = query.replace("$__rate_interval", "20s")
    for name in VARIABLES:
        query = query.replace(f"${name}", ".*")
    eventually(lambda: prometheus.ask("query", query=query)["result"], 30)


def test_the_choices_of_the_dashboard_are_those_that_there_are(prometheus: Prometheus) -> None:
    def choices(name: str) -> set[str]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", VARIABLES[name]["query"]["query"])
        assert found is not None
        selector = found[1].replace("$job", ".*")
        return set(prometheus.ask(f"label/{found[2]}/values", **{"match[]": selector}))

    eventually(lambda: choices("hub") == {"app", "gateway"}, 30)
    assert choices("job") == {"app", "gateway"}
    eventually(lambda: choices("database") == {"app", "gateway"}, 30)
    assert "billing" in choices("group")


def test_the_rules_can_be_evaluated_and_tell_of_dead_letters(prometheus: Prometheus) -> None:
    def rules() -> list[Any]:
        return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]

    eventually(lambda: all(rule["health"] == "ok" for rule in rules()), 30)
    assert len(rules()) == len(RULES)

    def fired() -> list[Any]:
        (rule,) = [rule for rule in rules() if rule["name"] == "PgpubsubDeadLetters"]
        return [one for one in rule["alerts"] if one["state"] == "firing" and one["labels"]["database"] == "app"]

    eventually(fired, 30)
    (alert,) = fired()
    assert alert["annotations"]["summary"] == "Group billing of stream observed has set 1 entries aside"
