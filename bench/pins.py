"""The versions that the benchmarks are pinned to, in pyproject.toml, and those that are there."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["differing", "found", "pinned"]

PROJECT = Path(__file__).parent.parent / "pyproject.toml"
GROUPS = ("bench", "pygresql")
PIN = re.compile(r"(?P<name>[\w.-]+)(\[[^]]*\])?==(?P<version>[\w.]+)")


@cache
def pinned() -> Mapping[str, str]:
    """By the name of the package."""
    groups = tomllib.loads(PROJECT.read_text())["dependency-groups"]
    pins = [PIN.match(line) for group in GROUPS for line in groups[group]]
    return {pin["name"]: pin["version"] for pin in pins if pin}


def found(package: str) -> str | None:
    """The version that is installed, if one is."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def differing() -> list[str]:
    """A sentence for each package that is installed in another version than it is pinned to."""
    versions = {package: found(package) for package in pinned()}
    return [
        f"{package} is {there}, and the benchmarks are pinned to {pinned()[package]}"
        for package, there in versions.items()
        if there not in (None, pinned()[package])
    ]
