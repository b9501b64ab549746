"""`pgpubsub doctor`."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub.doctor import Examined, Finding, Report, Severity
from pgpubsub.testing import Proxy, TemporaryServer
from tests.cli.conftest import Outcome
from tests.cli.program import Program
from tests.contract.test_handler import eventually
from tests.system.standby import Standby

Command = Callable[..., Outcome]
Start = Callable[..., Program]


@pytest.fixture
def listener_in_transaction(server: TemporaryServer) -> Iterator[psycopg.Connection[Any]]:
    """What the doctor warns of."""
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("LISTEN orders")
        yield connection


@pytest.fixture
def dead_letters(server: TemporaryServer) -> Iterator[pgpubsub.Stream[Any]]:
    """An entry that a group has set aside: what the doctor warns of."""
    with psycopg.connect(server.dsn()) as connection:
        pgpubsub.streams.install(connection)
    with pgpubsub.Hub(server.dsn()) as hub:
        orders = hub.stream("orders")
        orders.append("17")
        orders.process("[bold]billing", _reject, attempts=1, follow=False)
        yield orders


def _reject(entry: object) -> None:
    raise ValueError("unexpected closing tag [/b]\x1b[31m")


def until(command: Command, condition: Callable[[Outcome], bool], *arguments: str) -> Outcome:
    """Again and again, until an outcome fulfils a condition."""
    for _ in range(100):
        outcome = command("doctor", *arguments)
        if condition(outcome):
            return outcome
    raise AssertionError(outcome)


def test_a_healthy_server(command: Command, server: TemporaryServer) -> None:
    status, out, err = command("doctor", "--dsn", server.dsn())
    assert (status, err) == (0, "")
    assert "postgres on 127.0.0.1:" in out
    assert re.search(r"standby +the server is a primary", out)
    assert max(map(len, out.splitlines())) <= 80


def test_a_warning_is_status_1_and_told_with_cause_cure_and_evidence(
    command: Command, server: TemporaryServer, listener_in_transaction: psycopg.Connection[Any]
) -> None:
    outcome = until(command, lambda outcome: outcome.status == 1, "--dsn", server.dsn())
    text = " ".join(outcome.out.split())
    assert "WARNING idle-listeners" in text
    assert "cure " in text
    assert f"pid: {listener_in_transaction.info.backend_pid}" in text
    assert max(map(len, outcome.lines)) <= 80


def test_something_critical_is_status_2_and_comes_first(command: Command, server: TemporaryServer) -> None:
    with Standby(server) as standby:
        outcome = command("doctor", "--dsn", standby.dsn())
    assert outcome.status == 2
    assert outcome.lines[2].split() == ["CRITICAL", "standby"]


def test_text_from_elsewhere_is_shown_as_it_is(
    command: Command, server: TemporaryServer, dead_letters: pgpubsub.Stream[Any]
) -> None:
    outcome = command("doctor", "--dsn", server.dsn())
    assert (outcome.status, outcome.err) == (1, "")
    text = " ".join(outcome.out.split())
    assert "group '[bold]billing' of stream 'orders'" in text
    assert "unexpected closing tag [/b]\\x1b[31m" in text


def test_what_was_not_looked_at_is_not_healthy(
    command: Command, server: TemporaryServer, dead_letters: pgpubsub.Stream[Any]
) -> None:
    with Proxy(server.dsn()) as proxy:
        proxy.delay = 0.05
        status, out, err = command("doctor", "--dsn", proxy.dsn(), "--within", "1")
        assert (status, err) == (3, "")
        text = " ".join(out.split())
        assert "Not looked at to the end, so that more may be wrong. Examine again, with more time" in text
        assert "dead-letters not looked at to the end: the time was up" in text
        outcome = command("doctor", "--dsn", proxy.dsn(), "--within", "1", "--json")
        assert outcome.status == 3
        assert "dead-letters" in json.loads(outcome.out)["incomplete"]
        outcome = command("doctor", "--dsn", proxy.dsn(), "--within", "30")
        assert outcome.status == 1
        assert "Not looked at to the end" not in outcome.out


def test_a_warning_is_worse_than_what_was_not_looked_at(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    of_groups = Examined("groups", unseen=("the time was up",), incomplete=True)
    for severity, status in ((Severity.NOTICE, 3), (Severity.WARNING, 1), (Severity.CRITICAL, 2)):
        examined = Examined("queue", (Finding(severity, "it fills", "empty it"),))
        show(monkeypatch, Report("a server", (examined, of_groups), 0.1))
        assert command("doctor").status == status


def show(monkeypatch: pytest.MonkeyPatch, *reports: Report) -> None:
    """Have the doctor give these reports, one after the other, and then end."""
    left = iter(reports)

    def examine(*arguments: Any, **keywords: Any) -> Report:
        for report in left:
            return report
        raise SystemExit(0)

    monkeypatch.setattr("pgpubsub.cli.doctor.examine", examine)


@pytest.mark.parametrize("within", ["0", "-1", "nan", "1e10"])
def test_within_is_a_time_that_can_pass(command: Command, within: str) -> None:
    assert command("doctor", "--within", within).status == 64


def test_ctrl_c_ends_it_at_once_where_the_server_does_not_answer(
    program: Start, dsn: str, admin: psycopg.Connection[Any]
) -> None:
    asking = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'pgpubsub doctor' AND query LIKE '%BEGIN%'"
    with Proxy(dsn) as proxy:
        proxy.delay = 0.1  # so that it takes seconds
        started = program("doctor", "--dsn", proxy.dsn(), "--within", "60")
        eventually(lambda: admin.execute(asking).fetchone())
        proxy.deafen()
        begin = monotonic()
        started.signal(signal.SIGINT)
        assert started.end() == (130, "")
        assert monotonic() - begin < 3


def test_no_connection_is_status_3(command: Command) -> None:
    status, out, err = command("doctor", "--dsn", "host=127.0.0.1 port=1", "--json")
    assert (status, out) == (3, "")
    assert err.startswith("pgpubsub: cannot connect to PostgreSQL")


def test_json(command: Command, server: TemporaryServer) -> None:
    outcome = command("doctor", "--dsn", server.dsn(), "--json")
    assert outcome.status == 0
    (report,) = map(json.loads, outcome.lines)
    assert report["severity"] in (None, "notice")
    assert [one["check"] for one in report["checks"]][:2] == ["pooler", "standby"]


def test_watch_tells_what_changes(program: Start, server: TemporaryServer) -> None:
    started = program("doctor", "--dsn", server.dsn(), "--watch", "0.05")
    started.expect("Fine")
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("LISTEN orders")
        started.expect("  WARNING  idle-listeners: ")
    started.expect("  OVER  idle-listeners: ")
    server.stop()
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("LISTEN orders")
        started.expect_that(lambda: started.output.count("  WARNING  idle-listeners: ") == 2)
    started.signal(signal.SIGINT)
    status, err = started.end()
    assert status == 130
    assert re.fullmatch(r"(pgpubsub: \d\d:\d\d:\d\d\.\d{3} .*\n)*", err)


def groups(*findings: Finding, **keywords: Any) -> Report:
    """What came of one check."""
    return Report("a server", (Examined("groups", findings, **keywords),), 0.1)


def test_watch_tells_findings_apart_by_what_they_are_about(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (Finding(Severity.WARNING, f"group {name} is behind", "", subject=name) for name in "abc")
    worse = Finding(Severity.CRITICAL, "group c is far behind", "", subject="c")
    show(monkeypatch, groups(a, b), groups(b), groups(c), groups(worse), groups(fine=("all is well",)))
    outcome = command("doctor", "--watch", "0.001")
    assert outcome.status == 0
    assert [line[14:] for line in outcome.lines if re.match(r"\d\d:\d\d:\d\d\.", line)] == [
        "OVER  groups: group a is behind",
        "WARNING  groups: group c is behind",
        "OVER  groups: group b is behind",
        "CRITICAL  groups: group c is far behind",
        "OVER  groups: group c is far behind",
    ]


def test_watch_says_not_that_it_is_over_where_it_could_not_look(
    program: Start, server: TemporaryServer, dead_letters: pgpubsub.Stream[Any]
) -> None:
    started = program("doctor", "--dsn", server.dsn(), "--watch", "0.05")
    started.expect("Fine")
    with psycopg.connect(server.dsn()) as connection:
        connection.execute("LOCK TABLE pgpubsub.parked")
        started.expect("  NOT SEEN  dead-letters: ")
    started.expect("  OVER  dead-letters: not looked at to the end: ")
    dead_letters.discard("[bold]billing")
    started.expect("  OVER  dead-letters: 1 entry was set aside")
    started.signal(signal.SIGINT)
    assert started.end() == (130, "")
    assert started.output.count("  OVER  dead-letters: 1 entry was set aside") == 1
    assert "WARNING  dead-letters: " not in started.output


def test_watch_gives_one_object_each_time(program: Start, server: TemporaryServer) -> None:
    started = program("doctor", "--dsn", server.dsn(), "--watch", "0.05", "--json")
    started.expect_that(lambda: started.output.count("\n") >= 3)
    started.signal(signal.SIGTERM)
    assert started.end() == (143, "")
    assert all(json.loads(line)["checks"] for line in started.output.splitlines())
