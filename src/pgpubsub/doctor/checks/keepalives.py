"""Connections have no keepalives, so that a peer that vanished is noticed after hours, or never.

A listener sends nothing, so that a machine that lost its power, or a firewall that forgot the connection, shows only by
TCP's keepalives (hubs have a heartbeat beside). On the other side, a session whose client vanished stays, with what it
listens to, until the server notices. What is in force is asked of the socket here, and of the server there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen

__all__ = ["check"]

LONG = 600.0
"""Seconds after which a peer that vanished should have been noticed. Firewalls and load balancers forget a silent
connection after four minutes to an hour; Linux notices after 131 minutes unless it is told otherwise."""

OF_SERVER = """
SELECT current_setting('tcp_keepalives_idle')::int AS idle, current_setting('tcp_keepalives_interval')::int AS interval,
       current_setting('tcp_keepalives_count')::int AS count,
       current_setting('tcp_user_timeout')::int / 1000 AS user_timeout
"""
"""Those of this session, as its socket has them; 0 where it is no TCP connection."""

GOOD = "keepalives_idle=30 keepalives_interval=10 keepalives_count=3"


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine, for each side."""
    yield _here(patient)
    yield _there(patient)


def _here(patient: Patient) -> Finding | Fine | Unseen:
    try:
        found = _of_socket(patient.listening.pgconn.socket)
    except (OSError, AttributeError) as error:
        return Unseen(f"this system does not tell which keepalives its connections have: {error!r}")
    if found is None:
        return Fine("the connection is a Unix socket, which needs no keepalives")
    on, idle, interval, count = found
    seconds = idle + interval * count
    evidence = {"SO_KEEPALIVE": on, "idle": idle, "interval": interval, "count": count}
    if on and seconds <= LONG:
        return Fine(f"a server that vanished is noticed here after {seconds} s")
    noticed = f"after {seconds} s" if on else "never"
    where = "section of the service file" if "service" in patient.settings else "connection string"
    cure = (
        f"in the {where}, leave out keepalives, keepalives_idle, keepalives_interval and keepalives_count,"
        f" for which pgpubsub has good values, or write {GOOD}"
    )
    return Finding(
        Severity.WARNING,
        f"this side notices {noticed} that the server vanished: until then whoever listens without a hub, which has a"
        " heartbeat, waits and misses everything",
        cure,
        evidence,
    )


def _of_socket(descriptor: int) -> tuple[bool, int, int, int] | None:
    """Whether keepalives are on, then idle, interval and count; None: not over TCP."""
    with socket.socket(fileno=os.dup(descriptor)) as its:
        if its.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        idle = getattr(socket, "TCP_KEEPIDLE", None) or socket.TCP_KEEPALIVE  # type: ignore[attr-defined]  # macOS
        options = (idle, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        seconds, interval, count = (its.getsockopt(socket.IPPROTO_TCP, option) for option in options)
        return bool(its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), seconds, interval, count


def _there(patient: Patient) -> Finding | Fine:
    ((idle, interval, count, user_timeout),) = patient.rows(OF_SERVER)
    seconds = idle + interval * count
    if not seconds:
        return Fine("the server's side of the connection is a Unix socket, or its system has no such settings")
    if seconds <= LONG or 0 < user_timeout <= LONG:
        return Fine(f"a client that vanished is noticed by the server after {user_timeout or seconds:.0f} s")
    return Finding(
        Severity.NOTICE,
        f"the server notices after {seconds} s that a client vanished, and never that one stopped reading: until then"
        " its session stays, and what it listens to holds back the NOTIFY queue of all databases (hubs set this for"
        " their own sessions)",
        "in postgresql.conf: tcp_keepalives_idle = 30, tcp_keepalives_interval = 10, tcp_keepalives_count = 3,"
        " tcp_user_timeout = 30s (or each by ALTER SYSTEM SET), and then SELECT pg_reload_conf()",
        {
            "tcp_keepalives_idle": idle,
            "tcp_keepalives_interval": interval,
            "tcp_keepalives_count": count,
            "tcp_user_timeout": user_timeout,
        },
    )
