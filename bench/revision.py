"""Which state of the project it is that is measured or tested."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["revision"]


def revision() -> str:
    """The commit, and whether there is more than that; "unknown" where nobody can tell."""
    command = ("git", "describe", "--always", "--dirty")
    try:
        told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told.stdout.strip()
