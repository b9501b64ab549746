"""The doctor's check of keepalives, of both sides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from conftest import server_binaries
from pgpubsub.doctor import Examined, Severity
from pgpubsub.testing import TemporaryServer

GOOD = {"tcp_keepalives_idle": "30", "tcp_keepalives_interval": "10", "tcp_keepalives_count": "3"}


@pytest.fixture(scope="module")
def careful() -> Iterator[TemporaryServer]:
    """A server that looks after its clients."""
    with TemporaryServer(server_binaries(), tcp=True, settings=GOOD) as server:
        yield server


def test_a_connection_string_that_turns_them_off_is_told_of(
    careful: TemporaryServer, examined: Callable[..., Examined]
) -> None:
    (finding,) = examined(careful.dsn(keepalives=0)).findings
    assert finding.severity is Severity.WARNING
    assert finding.cause.startswith("this side notices never that the server vanished")
    assert "in the connection string, leave out keepalives," in finding.cure
    assert finding.evidence["SO_KEEPALIVE"] is False


def test_hours_are_too_long(careful: TemporaryServer, examined: Callable[..., Examined]) -> None:
    (finding,) = examined(careful.dsn(keepalives_idle=3600)).findings
    assert finding.cause.startswith("this side notices after 3630 s that the server vanished")
    assert finding.evidence == {"SO_KEEPALIVE": True, "idle": 3600, "interval": 10, "count": 3}


def test_a_service_file_may_say_it_and_need_not(
    careful: TemporaryServer, examined: Callable[..., Examined], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pg_service.conf"
    given = "\n".join(f"{name}={value}" for name, value in conninfo_to_dict(careful.dsn()).items())
    file.write_text(f"[app]\n{given}\nkeepalives_idle=7200\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    (finding,) = examined("service=app").findings
    assert "in the section of the service file, leave out keepalives," in finding.cure
    file.write_text(f"[app]\n{given}\n")
    assert examined("service=app").findings == ()
    file.write_text(f"[app]\n{given}\nkeepalives_idle=30\nkeepalives_interval=10\nkeepalives_count=3\n")
    assert examined("service=app").findings == ()


def test_pgpubsubs_own_values_and_a_server_that_has_good_ones_are_fine(
    careful: TemporaryServer, examined: Callable[..., Examined]
) -> None:
    found = examined(careful.dsn())
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine == (
        "a server that vanished is noticed here after 60 s",
        "a client that vanished is noticed by the server after 60 s",
    )


def test_a_server_with_the_values_of_its_system_is_worth_knowing(dsn: str, examined: Callable[..., Examined]) -> None:
    (finding,) = examined(dsn).findings
    assert finding.severity is Severity.NOTICE
    assert finding.cause.startswith(
        "the server notices after 7875 s that a client vanished, and never that one stopped"
    )
    assert "tcp_keepalives_idle = 30" in finding.cure
    assert finding.evidence["tcp_user_timeout"] == 0


def test_a_user_timeout_of_the_server_suffices(dsn: str, examined: Callable[..., Examined]) -> None:
    found = examined(f"{dsn} options='-c tcp_user_timeout=20s'")
    assert found.findings == ()
    assert "a client that vanished is noticed by the server after 20 s" in found.fine


def test_unix_sockets_need_none(careful: TemporaryServer, examined: Callable[..., Examined]) -> None:
    found = examined(careful.dsn(host=careful.directory, keepalives=0))
    assert (found.findings, found.unseen) == ((), ())
    assert found.fine[0] == "the connection is a Unix socket, which needs no keepalives"
