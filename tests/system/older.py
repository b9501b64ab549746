"""An older PostgreSQL, as the package pgserver has it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["packaged_binaries"]


def packaged_binaries() -> list[Path]:
    """The directory with the programs of PostgreSQL 16.2, if the package is installed: it has builds for Python up to
    3.12. It is not imported, since that makes directories."""
    spec = find_spec("pgserver")
    places = (spec.submodule_search_locations or []) if spec else []
    return [Path(place) / "pginstall" / "bin" for place in places]
