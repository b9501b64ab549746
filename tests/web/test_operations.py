"""What those who run the gateway see of it: its metrics, with workers that die, and its log."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

import pgpubsub
from pgpubsub import AsyncHub
from pgpubsub.contrib.prometheus import HubMetrics
from pgpubsub.web import create_app
from tests.contract.browser import Browser
from tests.contract.test_handler import eventually
from tests.web.conftest import Served
from tests.web.test_serving import Gateway


def fetch(port: int, path: str) -> tuple[int, str]:
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    client.request("GET", path)
    response = client.getresponse()
    found = response.status, response.read().decode()
    client.close()
    return found


def metric(port: int, name: str, **labels: str) -> float | None:
    status, text = fetch(port, "/metrics")
    assert status == 200
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (sample.name, sample.labels) == (name, labels):
                return float(sample.value)
    return None


def workers_of(gateway: Gateway) -> list[int]:
    """The processes that serve, or did, as its log has them."""
    return [int(pid) for pid in re.findall(r"Started server process \[(\d+)\]", gateway.output)]


# -- what it needs


@pytest.mark.parametrize("missing", ["starlette", "jwt", "uvicorn", "prometheus_client"])
def test_without_its_extra_it_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from pgpubsub.cli import program; program()"
    done = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("pgpubsub: serve needs the extra 'web'")
    assert missing in done.stderr
    assert "pip install 'pgpubsub[binary,cli,web]'" in done.stderr


# -- metrics


def test_the_hub_of_the_gateway_has_the_metrics_of_any_hub(served: Served, database: str, name: str) -> None:
    port = served.port
    with served.open(f"/channels/{quote(name)}").listening() as browser:
        with psycopg.connect(database, autocommit=True) as admin:
            pgpubsub.notify(admin, name, "1")
            browser.next()
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE %s",
                [f"pgpubsub listen {os.getpid()}@%"],
            )
        browser.next()
        assert metric(port, "pgpubsub_hub_live", hub="gateway") == 1
        assert metric(port, "pgpubsub_hub_gaps_total", hub="gateway", reason="connection_lost") == 1
        assert metric(port, "pgpubsub_hub_connections_lost_total", hub="gateway", link="listening") == 1
        assert metric(port, "pgpubsub_database_up", database="gateway") is None, "nobody has asked for it"


def test_the_database_is_told_of_where_that_is_asked_for(
    serve: Callable[..., Served], database: str, name: str
) -> None:
    served = serve(database_metrics=True)
    with pgpubsub.Hub(database) as hub:
        stream = hub.stream(name)
        stream.append_many(["1", "2"])
        stream.process("billing", lambda _: None, follow=False)
        its = {"database": "gateway", "stream": name, "group": "billing"}
        assert metric(served.port, "pgpubsub_group_lag_entries", **its) == 0
    assert metric(served.port, "pgpubsub_database_up", database="gateway") == 1


def test_a_hub_of_ones_own_has_the_same_metrics(serve: Callable[..., Served], database: str) -> None:
    with pytest.raises(ValueError, match="is a connection string where hub is an AsyncHub"):
        create_app(AsyncHub(database), database_metrics=True)
    metrics = HubMetrics(None)
    hub = AsyncHub(database, observe=metrics.observer("gateway"))
    served = serve(hub, metrics=metrics, database_metrics=database)
    assert metric(served.port, "pgpubsub_hub_live", hub="gateway") == 1
    assert metric(served.port, "pgpubsub_hub_until_live_seconds_count", hub="gateway") == 1
    assert metric(served.port, "pgpubsub_database_up", database="gateway") == 1


def test_gauges_of_a_worker_that_was_killed_go_and_its_counters_stay(database: str, name: str) -> None:
    with Gateway("--dsn", database, "--public", "*", "--workers", "2") as gateway, ExitStack() as stack:
        eventually(lambda: len(workers_of(gateway)) == 2, 30)
        before, path = workers_of(gateway), f"/channels/{quote(name)}"
        for _ in range(20):
            stack.enter_context(Browser(gateway.port, path)).listening()
        eventually(lambda: metric(gateway.port, "pgpubsub_gateway_clients_present") == 20, 20)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(workers_of(gateway)) == 4, 30)

        def present() -> float | None:
            try:
                return metric(gateway.port, "pgpubsub_gateway_clients_present")
            except OSError:  # it is not served yet
                return None

        eventually(lambda: present() == 0, 30)
        assert metric(gateway.port, "pgpubsub_gateway_clients_total") == 20
        assert metric(gateway.port, "pgpubsub_hub_live", hub="gateway") == 1


# -- the log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_as_json_each_line_of_the_log_is_an_object(
    database: str, admin: psycopg.Connection[Any], name: str, workers: str
) -> None:
    options = ("--dsn", database, "--public", "*", "--workers", workers, "--access-log", "--log-format", "json")
    with Gateway(*options) as gateway:
        with Browser(gateway.port, f"/channels/{quote(name)}").listening() as browser:
            pids = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen %%@%%'"
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({pids}) AS its")
            browser.next()
        fetch(gateway.port, "/healthz?a=%20b")
        eventually(lambda: "connection_lost" in gateway.output and "%20b" in gateway.output)
        gateway.tell(signal.SIGTERM)
        gateway.wait()
    records = [json.loads(line) for line in gateway.output.splitlines()]
    assert {tuple(record)[:6] for record in records} == {("time", "level", "logger", "event", "message", "fields")}
    lost = next(record for record in records if record["event"] == "connection_lost")
    assert (lost["logger"], lost["level"]) == ("pgpubsub.connection", "WARNING")
    assert lost["fields"]["link"] == "listening"
    request = next(record for record in records if "%20b" in record["message"])
    assert request["event"] == "request"
    assert request["fields"] | {"client": ""} == {
        "client": "",
        "method": "GET",
        "path": "/healthz?a=%20b",
        "http": "1.1",
        "status": 200,
    }
    assert any("running on http" in record["message"] for record in records)
    assert not any("color_message" in record["fields"] for record in records)


def test_as_text_the_log_is_as_uvicorn_has_it(database: str, admin: psycopg.Connection[Any], name: str) -> None:
    with Gateway(environment={"PGPUBSUB_DSN": database, "PGPUBSUB_PUBLIC": "*"}) as gateway:
        with Browser(gateway.port, f"/channels/{quote(name)}").listening() as browser:
            pids = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub listen %%@%%'"
            admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({pids}) AS its")
            browser.next()
        line = re.compile(r"^WARNING:  pgpubsub.connection: listening connection lost: ", re.M)
        eventually(lambda: line.search(gateway.output))
        assert len(line.findall(gateway.output)) == 1


def test_another_format_is_refused() -> None:
    gateway = Gateway("--log-format", "xml")
    assert gateway.wait() == 64
    gateway._reading.join()
    gateway._process.stdout.close()  # type: ignore[union-attr]
    assert "'text' or 'json', not 'xml'" in gateway.output
