"""Whether there are streams, whether this role may read them, and whether it should.

Who owns a table can turn it into a view, and functions in a view or in a schema run with the rights of whoever asks: a
superuser that looks at somebody's streams does what that somebody wants. So a role with such powers asks nothing of
streams of a role that could not take its place. This asks PostgreSQL's own catalogues alone, so that it harms nobody,
and leaves no error in the server's log where there are no streams, or no rights.

It does not protect a role without such powers: what that may do, code of the streams' owner may do in its name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from pgpubsub.core.sql import quote_identifier

__all__ = ["Access", "access_to"]

ACCESS = """
WITH its AS (SELECT oid, nspowner FROM pg_namespace WHERE nspname = %(schema)s),
relation AS (SELECT class.oid, relname, relowner FROM its JOIN pg_class AS class ON relnamespace = its.oid
              WHERE relname = ANY (%(relations)s) AND relkind IN ('r', 'v', 'm', 'f', 'p')),
owner AS (
  SELECT CASE WHEN rolname = 'pg_database_owner'
              THEN (SELECT datdba FROM pg_database WHERE datname = current_database()) ELSE role.oid END AS oid
    FROM (SELECT nspowner FROM its
          UNION SELECT relowner FROM relation
          UNION SELECT proowner FROM its JOIN pg_proc ON pronamespace = its.oid WHERE proname = 'covers') AS one (oid)
    JOIN pg_roles AS role USING (oid))
SELECT current_user AS role, session_user AS session_role,
       coalesce((SELECT has_schema_privilege(oid, 'USAGE') FROM its), true) AS may_use,
       ARRAY(SELECT relname::text FROM relation) AS relations,
       ARRAY(SELECT relname::text FROM relation WHERE has_any_column_privilege(oid, 'SELECT')) AS readable,
       (SELECT min(rolname::text) FROM owner JOIN pg_roles USING (oid)
         WHERE NOT pg_has_role(owner.oid, session_user, 'MEMBER')
           AND EXISTS (SELECT FROM pg_roles AS power
                        WHERE (rolsuper OR rolcreaterole OR rolname = ANY (%(powers)s))
                          AND pg_has_role(session_user, power.oid, 'MEMBER'))) AS stranger
"""
"""`stranger` is an owner who could not become this session's role, if that has powers. A superuser can become any."""

POWERS = (
    "pg_execute_server_program",
    "pg_read_server_files",
    "pg_write_server_files",
    "pg_read_all_data",
    "pg_write_all_data",
)
"""Beside being a superuser, or making roles, which leads to these."""

RELATIONS = (
    "birth",
    "consumer_group",
    "entry",
    "life",
    "member",
    "native_birth",
    "parked",
    "slot",
    "stream",
    "trimmed",
    "trimming",
    "version",
)
"""That anything is asked of."""


class Access(NamedTuple):
    """What this role may ask of the streams in a schema."""

    schema: str
    role: str
    session_role: str
    """Which any code can be again: SET ROLE gives up nothing."""
    may_use: bool
    relations: frozenset[str]
    readable: frozenset[str]
    stranger: str | None

    @property
    def installed(self) -> bool:
        """Whether there are streams, of whatever version."""
        return "version" in self.relations

    def refusal(self, asked: Collection[str] = RELATIONS) -> str | None:
        """Why these of their relations are not to be asked; None: they may be."""
        if self.stranger is not None:
            return (
                f"the streams in schema {self.schema!r} belong to role {self.stranger!r}, whose functions and views"
                f" would run with the powers of role {self.session_role!r}: look as {self.stranger!r}, or as a role"
                " without powers that may read them"
            )
        if missing := sorted(set(asked) - self.relations):
            return f"the streams in schema {self.schema!r} are of another version: there is no {', '.join(missing)}"
        unreadable = sorted(set(asked) - self.readable)
        if self.may_use and not unreadable:
            return None
        schema, role = quote_identifier(self.schema), quote_identifier(self.role)
        lacks = f"no SELECT on {', '.join(unreadable)}" if self.may_use else "no USAGE on the schema"
        return (
            f"role {self.role!r} may not read the streams in schema {self.schema!r} ({lacks}):"
            f" GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}"
        )


def access_to(schema: str, ask: Callable[[str, Mapping[str, Any]], list[Any]]) -> Access:
    """Ask for it. Raises whatever `ask` does."""
    parameters = {"schema": schema, "relations": list(RELATIONS), "powers": list(POWERS)}
    ((role, session_role, may_use, relations, readable, stranger),) = ask(ACCESS, parameters)
    return Access(schema, role, session_role, may_use, frozenset(relations), frozenset(readable), stranger)
