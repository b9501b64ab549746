"""What is told of a peer beside its figures: which version, what of it is used, and on whose word."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

__all__ = ["Peer", "everyone", "url"]


@dataclass(frozen=True)
class Peer:
    """One library of others, or PostgreSQL's own."""

    name: str
    """As it is installed."""
    version: str
    """That the benchmarks are pinned to; empty: it comes with PostgreSQL."""
    uses: str
    """What is used of it, and how."""
    manual: str
    """The page of its documentation that recommends this."""
    absent: str = ""
    """In what it does not take part, and why."""


@cache
def everyone() -> tuple[Peer, ...]:
    """Each that has an adapter, by name."""
    here = Path(__file__).parent
    modules = [import_module(f"bench.peers.{found.name}") for found in iter_modules([str(here)])]
    found = {peer.name: peer for module in modules for peer in [getattr(module, "PEER", None)] if peer is not None}
    return tuple(found[name] for name in sorted(found, key=str.lower))


def url(dsn: str) -> str:
    """libpq's connection string as a URL, for those who do not read it."""
    from psycopg.conninfo import conninfo_to_dict

    return "postgresql://{user}@{host}:{port}/{dbname}".format(**conninfo_to_dict(dsn))
