"""The examination as a whole: in time, without a trace, whatever the server is like and whoever asks."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import psycopg
import pytest

import pgpubsub
from pgpubsub import ConnectionFailed, ConninfoError, doctor
from pgpubsub.core.sql import quote_identifier
from pgpubsub.doctor import Severity
from pgpubsub.doctor.checks import CHECKS
from pgpubsub.testing import Proxy, TemporaryServer
from tests.contract.test_handler import eventually
from tests.doctor.schemas import Schema, schema
from tests.system.pgbouncer import PgBouncer

__all__ = ["schema"]

Admin = psycopg.Connection[Any]

NAMES = [check.__name__.rpartition(".")[2].replace("_", "-") for check in CHECKS]
ROOT = Path(__file__).parents[2]

DEFAULT_POOL_SIZE = 20
"""PgBouncer's."""


@pytest.fixture
def nobody(dsn: str, admin: Admin) -> Iterator[str]:
    """A connection string for a role without any rights."""
    admin.execute("CREATE ROLE doctor_nobody LOGIN")
    yield psycopg.conninfo.make_conninfo(dsn, user="doctor_nobody")
    admin.execute("DROP OWNED BY doctor_nobody")
    admin.execute("DROP ROLE doctor_nobody")


def test_every_check_is_made_and_in_the_manual_and_tested() -> None:
    manual = (ROOT / "docs" / "doctor.md").read_text()
    assert re.findall(r"^### `?([a-z-]+)`?$", manual, re.MULTILINE) == NAMES
    for name in NAMES:
        assert (ROOT / "tests" / "doctor" / f"test_{name.replace('-', '_')}.py").exists()


def test_a_healthy_server_is_fine(server: TemporaryServer) -> None:
    report = doctor.examine(server.dsn())
    assert report.severity is None or report.severity is Severity.NOTICE, report
    assert [one.check for one in report.checks] == NAMES
    assert all(one.fine or one.findings for one in report.checks)
    assert not any(one.unseen for one in report.checks)
    assert report.incomplete == ()
    assert re.fullmatch(r"postgres on 127\.0\.0\.1:\d+, PostgreSQL [\d.]+", report.server)
    assert json.loads(json.dumps(report.as_dict()))["checks"][0]["check"] == "pooler"


def test_nothing_stays_behind(dsn: str, admin: Admin) -> None:
    def traces() -> Any:
        return admin.execute(
            "SELECT (SELECT count(*) FROM pg_class),"
            " (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables),"
            " (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpubsub doctor')"
        ).fetchone()

    before = traces()
    doctor.examine(dsn)
    eventually(lambda: traces() == before)


def test_a_role_without_rights_can_ask_and_is_told_what_it_cannot_see(nobody: str) -> None:
    report = doctor.examine(nobody)
    assert all(one.fine or one.findings or one.unseen for one in report.checks)
    unseen = " ".join(why for one in report.checks for why in one.unseen)
    assert "GRANT pg_monitor TO" in unseen
    assert report.incomplete == ()


def test_a_check_that_fails_itself_ends_no_other(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(patient: Any) -> Iterator[Any]:
        yield 1 / 0

    monkeypatch.setattr(CHECKS[0], "check", broken)
    report = doctor.examine(dsn)
    first, *others = report.checks
    assert report.incomplete == ("pooler",)
    assert first.unseen == (
        "the check itself failed, which is a bug of pgpubsub: ZeroDivisionError('division by zero')",
    )
    assert not any(one.unseen for one in others)


def test_functions_of_others_are_not_taken_for_postgresqls(server: TemporaryServer) -> None:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute("CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$ SELECT 1/0 || '' $$")
        conn.execute("ALTER ROLE postgres SET search_path = public, pg_catalog")
    assert not any(one.unseen for one in doctor.examine(server.dsn()).checks)


def test_several_can_examine_at_once(dsn: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for report in pool.map(doctor.examine, [dsn] * 8):
            assert report["pooler"].findings == ()


def test_what_a_role_has_set_changes_nothing(dsn: str, admin: Admin, nobody: str) -> None:
    admin.execute("ALTER ROLE doctor_nobody SET extra_float_digits = -15")
    admin.execute("ALTER ROLE doctor_nobody SET default_transaction_isolation = serializable")
    admin.execute("ALTER ROLE doctor_nobody SET default_transaction_deferrable = on")
    with psycopg.connect(dsn) as writing:
        writing.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        writing.execute("SELECT pg_current_xact_id()")
        report = doctor.examine(nobody)
    assert report.incomplete == ()
    assert report["clock"].findings == ()


def test_rows_that_a_policy_hides_are_unseen(dsn: str, nobody: str, schema: Schema) -> None:
    with pgpubsub.Hub(dsn) as hub:
        orders = hub.stream("orders", schema=schema.name)
        orders.append("17")
        orders.process("billing", _reject, attempts=1, follow=False)
    quoted = quote_identifier(schema.name)
    schema.do(f"GRANT USAGE ON SCHEMA {quoted} TO doctor_nobody")
    schema.do(f"GRANT SELECT ON ALL TABLES IN SCHEMA {quoted} TO doctor_nobody")
    assert doctor.examine(nobody, schema=schema.name)["dead-letters"].findings
    schema.do("ALTER TABLE {}.parked ENABLE ROW LEVEL SECURITY")
    found = doctor.examine(nobody, schema=schema.name)["dead-letters"]
    assert (found.findings, found.fine) == ((), ())
    assert "row-level security" in found.unseen[0]


def _reject(entry: object) -> None:
    raise ValueError("no customer")


def test_what_there_is_no_time_for_is_unseen(dsn: str) -> None:
    with Proxy(dsn) as proxy:
        proxy.delay = 0.05
        begin = monotonic()
        report = doctor.examine(proxy.dsn(), within=1.4)
        assert monotonic() - begin < 5
        assert report["standby"].fine == ("the server is a primary",)
        assert report.checks[-1].unseen == ("not looked at to the end: the time was up",)
        assert "dead-letters" in report.incomplete
        assert "standby" not in report.incomplete
        assert json.loads(json.dumps(report.as_dict()))["incomplete"] == list(report.incomplete)
        assert doctor.examine(proxy.dsn(), within=30).incomplete == ()


def test_what_waits_for_a_lock_is_unseen(dsn: str, schema: Schema) -> None:
    with schema.conn.transaction():
        schema.do("LOCK TABLE {}.parked")
        report = doctor.examine(dsn, schema=schema.name)
    assert "dead-letters" in report.incomplete
    assert re.search("longer than [0-9]+ ms", report["dead-letters"].unseen[0])


def test_a_server_that_falls_silent_holds_nobody_up(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy(dsn) as proxy:

        def falls_silent(patient: Any) -> Iterator[Any]:
            proxy.deafen()
            yield patient.rows("SELECT 1")

        monkeypatch.setattr(CHECKS[1], "check", falls_silent)
        begin = monotonic()
        report = doctor.examine(proxy.dsn(), within=1)
        assert monotonic() - begin < 5
    assert report["pooler"].fine
    assert report["standby"].unseen == ("not looked at to the end: the server did not answer within 1 s",)
    assert report["queue"].unseen == ("not looked at to the end: the time was up",)
    assert report["clog-bug"].fine or report["clog-bug"].findings  # for which there is nothing to ask
    assert "standby" in report.incomplete


def test_a_session_that_is_ended_is_told_in_the_servers_words(
    dsn: str, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(patient: Any) -> Iterator[Any]:
        admin.execute("SELECT pg_terminate_backend(%s)", [patient.listening.info.backend_pid])
        yield patient.rows("SELECT pg_sleep(10)")

    monkeypatch.setattr(CHECKS[1], "check", ended)
    report = doctor.examine(dsn)
    assert "terminating connection due to administrator command" in report["standby"].unseen[0]
    assert {"standby", "queue"} <= set(report.incomplete)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As Python is by itself; pytest may have been started in the background, where SIGINT is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_ends_it_at_once(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Event()
    with Proxy(dsn) as proxy:

        def interrupted(patient: Any) -> Iterator[Any]:
            proxy.deafen()
            os.kill(os.getpid(), signal.SIGINT)
            try:
                yield patient.rows("SELECT 1")
            finally:
                asked.set()

        monkeypatch.setattr(CHECKS[0], "check", interrupted)
        begin = monotonic()
        with pytest.raises(KeyboardInterrupt):
            doctor.examine(proxy.dsn(), within=60)
        assert monotonic() - begin < 3
        assert asked.wait(3)  # nothing goes on in the background


def test_it_may_be_given_any_time(dsn: str) -> None:
    assert doctor.examine(dsn, within=1e10, connect_within=float("inf")).incomplete == ()


def test_a_pooler_without_a_free_connection_is_thought_of(server: TemporaryServer) -> None:
    with PgBouncer(server, "transaction") as pgbouncer, ExitStack() as stack:
        for _ in range(DEFAULT_POOL_SIZE):
            stack.enter_context(psycopg.connect(pgbouncer.dsn())).execute("SELECT 1")
        with pytest.raises(ConnectionFailed, match=r"within 0\.5 s: .* or a pooler .* has no free connection"):
            doctor.examine(pgbouncer.dsn(), within=0.5)


def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(dsn: str) -> None:
    with Proxy(dsn) as proxy:
        proxy.deafen()
        with pytest.raises(ConnectionFailed, match="no answer within"):
            doctor.examine(proxy.dsn(), connect_within=0.2)


@pytest.mark.parametrize("conninfo", ["host=127.0.0.1 port=1", "host=nowhere.invalid"])
def test_no_connection(conninfo: str) -> None:
    with pytest.raises(ConnectionFailed, match="cannot connect to PostgreSQL"):
        doctor.examine(conninfo)


def test_what_cannot_be_asked(dsn: str) -> None:
    with pytest.raises(ConninfoError):
        doctor.examine("foo=bar")
    with pytest.raises(ValueError, match="schema"):
        doctor.examine(dsn, schema="")
    with pytest.raises(ValueError, match="within"):
        doctor.examine(dsn, within=0)


def test_severities_compare() -> None:
    assert Severity.NOTICE < Severity.WARNING < Severity.CRITICAL
    assert max(Severity) is Severity.CRITICAL
    assert Severity.WARNING >= Severity.NOTICE
    assert Severity.WARNING <= Severity.WARNING
    assert not Severity.WARNING > Severity.CRITICAL
