"""Connection strings: what libpq makes of them, and what we add."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

try:
    import psycopg
except ImportError as error:
    raise ImportError(
        "pgpubsub needs psycopg 3 with the PostgreSQL client library libpq: install both with"
        " pip install 'pgpubsub[binary]', or install libpq with your system's packages (Debian: libpq5)."
        f" The import said: {error}"
    ) from error

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo, timeout_from_conninfo

from pgpubsub.errors import ConninfoError

__all__ = ["LIBPQ_KEYWORDS", "parse_conninfo", "pq", "psycopg", "seconds_to_connect", "settled"]

DEFAULTS: Mapping[str, str] = {
    "fallback_application_name": "pgpubsub",
    "client_encoding": "UTF8",
    "connect_timeout": "10",
    # A listener is silent for hours: without these a peer that vanished would be noticed after two hours,
    # or never (PostgreSQL manual, "Parameter Key Words"). They concern TCP only.
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
"""libpq keywords used where the caller does not say otherwise. What the environment or a service file says
comes first too, but for `client_encoding`: it is there for terminals, and we speak Unicode."""


NOT_LEFT_TO_LIBPQ = ("host", "hostaddr", "port", "connect_timeout", "target_session_attrs", "load_balance_hosts")
"""What psycopg goes by itself when it tries one address after another. It reads no service file."""


LIBPQ_KEYWORDS = frozenset(option.keyword.decode() for option in pq.Conninfo.get_defaults())
"""The names of connection parameters."""


def parse_conninfo(dsn: str | None, keywords: Mapping[str, Any], *, application_name: str | None = None) -> str:
    """Merge a DSN (key=value string or URI), libpq keywords and our defaults into one connection string.

    As in psycopg2, a keyword overrides the DSN, `database` is `dbname`, and None means "not given".
    `application_name` is for when nothing else says one.

    Raises:
        ConninfoError: libpq does not understand it, or `database` and `dbname` are both given.
    """
    given = {name: value for name, value in keywords.items() if value is not None}
    if "database" in given:
        if "dbname" in given:
            raise ConninfoError("give 'database' or 'dbname', which mean the same, not both")
        given["dbname"] = given.pop("database")
    if dsn is not None and not isinstance(dsn, str):
        raise TypeError(f"dsn is a str, not {type(dsn).__name__}; to use an open connection: PubSub(connection)")
    if any("\0" in str(text) for text in (dsn or "", *given.values())):
        raise ConninfoError("invalid connection string or keyword: it contains NUL, behind which libpq reads nothing")
    if found := re.match(r"\s*\w+(\+\w+)://", dsn or ""):
        raise ConninfoError(
            f"libpq takes postgresql://..., without the name of a driver, as SQLAlchemy has it: leave out {found[1]!r}"
        )
    try:
        conninfo = make_conninfo(dsn or "", **given)
    except (psycopg.ProgrammingError, UnicodeEncodeError) as error:
        words = " ".join(str(error).split())
        if "://" in (dsn or ""):  # what libpq cites may be a part of the password
            words = re.sub(r'"[^"]*"', '"..."', words)
        raise ConninfoError(f"invalid connection string or keyword: {words}") from error
    if not re.fullmatch(r"\s*[-+]?\d+\s*", seconds := str(conninfo_to_dict(conninfo).get("connect_timeout", "0"))):
        raise ConninfoError(f"connect_timeout is a whole number of seconds, not {seconds!r}")
    options, said = settled(conninfo), conninfo_to_dict(conninfo).keys()
    defaults = {**DEFAULTS, "fallback_application_name": application_name or DEFAULTS["fallback_application_name"]}
    added = {name: defaults[name] for name in defaults.keys() - (options.keys() - {"client_encoding"}) - said}
    if "service" in options:
        added |= {name: options[name] for name in NOT_LEFT_TO_LIBPQ if name in options and name not in said}
    return make_conninfo(conninfo, **added)


def settled(conninfo: str) -> dict[str, str]:
    """What libpq takes from a connection string, the environment, a service file and its own defaults together; nothing
    if it cannot read them.

    It says so only of a connection. So one is begun that cannot be, and that reads no password file either.
    """
    impossible = {"sslmode": "none", "password": "-"}
    options = pq.PGconn.connect_start(make_conninfo(conninfo, **impossible).encode()).info
    found = {option.keyword.decode(): option.val.decode(errors="replace") for option in options if option.val}
    return {name: value for name, value in found.items() if name not in impossible}


def seconds_to_connect(options: Mapping[str, str]) -> int:
    """The time that each address has, of `settled` options. There is always a limit."""
    return timeout_from_conninfo(dict(options))
