"""The server is a hot standby, where LISTEN and NOTIFY are refused (PostgreSQL manual, "Hot Standby"); or it is now one
server and now another, and chance decides what works.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity

__all__ = ["check"]

FOLLOWS = "SELECT sender_host AS host, sender_port AS port FROM pg_catalog.pg_stat_wal_receiver"

WHICH = """
SELECT pg_catalog.pg_is_in_recovery() AS in_recovery,
       extract(epoch FROM pg_catalog.pg_postmaster_start_time())::float8 AS started
"""
"""Servers that follow each other share their identifier; when they were started they do not."""

TO_THE_PRIMARY = "name all servers in the connection string, with target_session_attrs=read-write"
STILL_READABLE = "Streams can be read from a standby: hub.stream(..., read_conninfo=...)"


def check(patient: Patient) -> Iterator[Finding | Fine]:
    """One finding, or fine."""
    (other,) = patient.rows(WHICH, on=patient.notifying)
    if other != (patient.who.in_recovery, patient.who.started):
        yield _different(patient, other)
    elif patient.who.in_recovery:
        yield _standby(patient)
    else:
        yield Fine("the server is a primary")


def _different(patient: Patient, other: Any) -> Finding:
    met = ((patient.who, patient.listening), (other, patient.notifying))
    kinds = sorted("a standby" if which.in_recovery else "a primary" for which, _ in met)
    return Finding(
        Severity.CRITICAL,
        f"two connections with the same connection string lead to different servers ({' and '.join(kinds)}): a hub that"
        " listens on one and sends to the other hears nothing, and a standby refuses LISTEN and NOTIFY",
        f"connect to the primary: {TO_THE_PRIMARY}, and without load_balance_hosts=random, or give the address of the"
        f" primary itself where one name stands for several servers. {STILL_READABLE}",
        {
            "connections": [
                {"pg_is_in_recovery()": which.in_recovery, "address": conn.info.hostaddr, "port": conn.info.port}
                for which, conn in met
            ]
        },
    )


def _standby(patient: Patient) -> Finding:
    follows = [f"{sender.host}:{sender.port}" for sender in patient.rows(FOLLOWS) if sender.host is not None]
    evidence = {
        "pg_is_in_recovery()": True,
        "host in the connection string": patient.options.get("host", ""),
        "address": patient.listening.info.hostaddr,
        "follows": follows,
    }
    return Finding(
        Severity.CRITICAL,
        "the server is a standby: it refuses LISTEN and NOTIFY, so hubs cannot work here",
        f"connect to the primary{''.join(f' (this one follows {sender})' for sender in follows)}: {TO_THE_PRIMARY}."
        f" {STILL_READABLE}",
        {name: value for name, value in evidence.items() if value},
    )
