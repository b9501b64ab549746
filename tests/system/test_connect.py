"""`pgpubsub.connect()`: its arguments, and what is refused at once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

import pgpubsub
from pgpubsub import ConnectionFailed, ConninfoError, PubSub, ServerInRecovery
from pgpubsub.testing import TemporaryServer
from tests.system.standby import Standby


def as_keywords(dsn: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(dsn))


def works(pubsub: PubSub) -> bool:
    with pubsub:
        pubsub.listen("works")
        pubsub.notify("works", "yes")
        return [event.payload for event in pubsub.get_events(5)] == ["yes"]


def test_a_dsn_is_a_string_or_a_uri_by_position_or_by_name(dsn: str) -> None:
    part = as_keywords(dsn)
    uri = f"postgresql://{part['user']}@{part['host']}:{part['port']}/{part['dbname']}"
    assert works(pgpubsub.connect(dsn))
    assert works(pgpubsub.connect(uri))
    assert works(pgpubsub.connect(dsn=dsn))
    assert works(pgpubsub.connect(dsn=uri))


def test_keywords_alone_and_over_a_dsn(dsn: str) -> None:
    assert works(pgpubsub.connect(**as_keywords(dsn)))
    assert works(pgpubsub.connect("dbname=nowhere", **as_keywords(dsn)))
    assert works(pgpubsub.connect(dsn, password=None, application_name="mine"))


def test_database_is_dbname(dsn: str) -> None:
    part = as_keywords(dsn)
    database = part.pop("dbname")
    assert works(pgpubsub.connect(database=database, **part))
    with pytest.raises(ConninfoError, match="'database' or 'dbname'"):
        pgpubsub.connect(dsn, database=database, dbname=database)


def test_libpq_keywords_reach_the_server(dsn: str) -> None:
    with pgpubsub.connect(dsn, application_name="mine", options="-c statement_timeout=12345") as pubsub:
        row = pubsub.conn.execute("SELECT current_setting('application_name'), current_setting('statement_timeout')")
        assert row.fetchone() == ("mine", "12345ms")
    with pgpubsub.connect(dsn) as pubsub:
        assert pubsub.conn.execute("SELECT current_setting('application_name')").fetchone() == ("pgpubsub",)
        assert pubsub.conn.execute("SELECT current_setting('client_encoding')").fetchone() == ("UTF8",)
        assert pubsub.conn.autocommit


def test_the_environment_applies(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    part = as_keywords(dsn)
    for variable, name in (("PGHOST", "host"), ("PGPORT", "port"), ("PGUSER", "user"), ("PGDATABASE", "dbname")):
        monkeypatch.setenv(variable, str(part[name]))
    monkeypatch.setenv("PGAPPNAME", "from the environment")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    with pgpubsub.connect() as pubsub:
        assert pubsub.conn.execute("SELECT current_setting('application_name')").fetchone() == ("from the environment",)
        assert pubsub.conn.info.encoding == "utf-8"
    assert works(pgpubsub.connect())


@pytest.mark.parametrize("name", ["connection_factory", "cursor_factory", "async", "async_"])
def test_what_cannot_be_is_a_type_error_that_says_what_to_use(name: str) -> None:
    forbidden: dict[str, Any] = {name: object()}
    with pytest.raises(TypeError, match=rf"connect\(\) takes no '{name}': .*(PubSub|fileno)"):
        pgpubsub.connect("dbname=x", **forbidden)


def test_the_defaults_of_psycopg2_may_be_given(dsn: str) -> None:
    assert works(pgpubsub.connect(dsn, connection_factory=None, cursor_factory=None, async_=0))


@pytest.mark.parametrize(("dsn_", "keywords"), [("=", {}), ("postgresql://[", {}), ("", {"nonsense": 1}), ("x=1", {})])
def test_a_malformed_dsn_says_so(dsn_: str, keywords: dict[str, Any]) -> None:
    with pytest.raises(ConninfoError, match="invalid connection string or keyword"):
        pgpubsub.connect(dsn_, **keywords)
    with pytest.raises(TypeError, match=r"dsn is a str, not int; .*PubSub\(connection\)"):
        pgpubsub.connect(5)  # type: ignore[arg-type]


def test_a_string_of_sqlalchemys_says_what_to_leave_out() -> None:
    for connect in (pgpubsub.connect, pgpubsub.Hub):
        with pytest.raises(ConninfoError, match=r"libpq takes postgresql://.*: leave out '\+psycopg'") as caught:
            connect("postgresql+psycopg://me:secret@db/x")
        assert "secret" not in str(caught.value)


def test_an_unknown_database_raises_at_once(dsn: str) -> None:
    started = time.monotonic()
    with pytest.raises(ConnectionFailed, match='database "nowhere" does not exist') as caught:
        pgpubsub.connect(dsn, dbname="nowhere")
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert time.monotonic() - started < 5


def test_a_wrong_password_raises_at_once(session_server: TemporaryServer) -> None:
    with psycopg.connect(session_server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE ROLE careful LOGIN PASSWORD 'right'")
        row = admin.execute("SHOW hba_file").fetchone()
        assert row is not None
        file = Path(row[0])
        file.write_text("host all careful 127.0.0.1/32 scram-sha-256\n" + file.read_text())
        admin.execute("SELECT pg_reload_conf()")
        with pytest.raises(ConnectionFailed, match="password authentication failed"):
            pgpubsub.connect(session_server.dsn(user="careful", password="wrong"))
        assert works(pgpubsub.connect(session_server.dsn(user="careful", password="right")))


def test_nobody_there_raises_at_once() -> None:
    with pytest.raises(ConnectionFailed, match="refused"):
        pgpubsub.connect(host="127.0.0.1", port=1)
    with pytest.raises(ConnectionFailed, match=r"nowhere\.invalid"):
        pgpubsub.connect(host="nowhere.invalid")


def test_several_hosts_are_tried(session_server: TemporaryServer) -> None:
    port = session_server.port
    assert works(pgpubsub.connect(f"host=127.0.0.1,127.0.0.1 port=1,{port} user=postgres dbname=postgres"))


def test_a_standby_is_refused_by_name(
    session_server: TemporaryServer, make_standby: Callable[[TemporaryServer], Standby]
) -> None:
    standby = make_standby(session_server)
    with pytest.raises(ServerInRecovery, match="in recovery.*connect to the primary.*target_session_attrs=read-write"):
        pgpubsub.connect(standby.dsn())
    with psycopg.connect(standby.dsn(), autocommit=True) as brought, pytest.raises(ServerInRecovery, match="recovery"):
        PubSub(brought)
    standby.promote()
    assert works(pgpubsub.connect(standby.dsn()))


def test_without_libpq_the_import_says_what_to_install() -> None:
    """As on a machine with psycopg and neither libpq nor the extra."""
    code = "import sys; sys.modules['psycopg_c'] = sys.modules['psycopg_binary'] = None; import pgpubsub"
    environment = {**os.environ, "PSYCOPG_IMPL": "binary"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert "ImportError: pgpubsub needs psycopg 3 with the PostgreSQL client library libpq" in done.stderr
    assert "pip install 'pgpubsub[binary]'" in done.stderr


def test_importing_brings_no_other_driver() -> None:
    code = (
        "import sys, pgpubsub; print([name for name in ('psycopg2', 'pg', 'asyncpg', 'rich') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_an_idle_listener_is_not_sent_away(dsn: str) -> None:
    with pgpubsub.connect(dsn, options="-c idle_session_timeout=300ms") as pubsub:
        assert pubsub.conn.execute("SHOW idle_session_timeout").fetchone() == ("0",)


def test_a_service_file_is_obeyed(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = as_keywords(dsn)
    lines = ["[app]", *(f"{name}={value}" for name, value in part.items()), "connect_timeout=77"]
    (tmp_path / "services").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    with pgpubsub.connect("service=app") as pubsub:
        assert pubsub.conn.info.get_parameters()["connect_timeout"] == "77"
