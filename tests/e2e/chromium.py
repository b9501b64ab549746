"""Debian's Chromium, as Playwright is to start it for tests: quiet, and also as root."""

from __future__ import annotations

import shutil

__all__ = ["SWITCHES", "chromium_path"]

NAMES = ["chromium", "chromium-browser", "google-chrome"]
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
SWITCHES += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]


def chromium_path() -> str | None:
    """Where it is; None: it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)
