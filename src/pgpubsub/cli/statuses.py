"""The exit statuses of the program."""

from __future__ import annotations

__all__ = ["FAILED", "NO_CONNECTION", "READER_GONE", "TIMED_OUT", "USAGE", "Ended"]

FAILED = 1
"""Something went wrong; standard error says what. Of the doctor: a warning."""
NO_CONNECTION = 3
"""There is no connection to be had, or notifications cannot arrive on it. Of the doctor also: not all could be looked
at."""
TIMED_OUT = 4
"""What was waited for did not come within `--timeout`."""
USAGE = 64
"""The command line is wrong (EX_USAGE of sysexits.h), so that 2 can be what monitoring plugins mean by it: critical."""
READER_GONE = 141
"""Whoever read standard output has read enough: what a shell reports of a program that SIGPIPE ended."""


class Ended(Exception):
    """The program ends with this status; all has been said."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
