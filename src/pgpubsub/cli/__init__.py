"""The program `pgpubsub`.

Little is imported here: signals are in hand before the slow imports begin (but for that of pgpubsub itself), and
without the extra `cli` there is an error that names it.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Sequence
from typing import NoReturn

from pgpubsub.cli.interruption import Interruption
from pgpubsub.cli.statuses import FAILED, READER_GONE, USAGE, Ended

__all__ = ["main", "program"]

NEEDS_EXTRA = "pgpubsub: the program needs the extra 'cli': pip install 'pgpubsub[binary,cli]'"

EXTRA = ("typer", "rich")
CLICK_USAGE = 2
"""With which Typer exits when the command line is wrong."""
GRACE = 0.5
"""Seconds that whoever reads standard output has, when a signal has come, to make room for what is left."""


def program() -> NoReturn:
    """Run the program, and end the process with it."""
    status = main()
    if status > 128:  # a signal has come: a thread that still waits, as for a name server, is not waited for
        os._exit(status)
    sys.exit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status. For a process that ends with it: signals are not given back."""
    interruption = Interruption()
    _open_what_is_closed()
    try:
        status = _obey(arguments, interruption)
    except (Exception, SystemExit):
        if not interruption.status:
            raise
        status = interruption.status  # whatever it made fail, such as writing to a terminal that is gone
    finally:
        unwritten = _flush(interruption)
        interruption.over()
    return interruption.status or status or unwritten


def _obey(arguments: Sequence[str] | None, interruption: Interruption) -> int:
    try:
        from pgpubsub.cli.app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write(f"{NEEDS_EXTRA}\n")
        return FAILED
    interruption.check()
    try:
        run(arguments, interruption)
    except Ended as end:
        return end.status
    except SystemExit as end:
        if interruption.status:
            raise
        return USAGE if end.code == CLICK_USAGE else int(end.code or 0)
    return 0


def _open_what_is_closed() -> None:
    """Whoever started us may have closed the standard streams (`>&-`), which Python then has not."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  # until the end


def _flush(interruption: Interruption) -> int:
    """Write what is left. Have what cannot be written, to a pipe or terminal that is gone, forgotten: else Python
    complains at its end. Returns the exit status if it cannot."""
    try:
        if interruption.status and not select.select([], [sys.stdout], [], GRACE)[1]:
            raise BrokenPipeError
        with interruption.finishing():
            sys.stdout.flush()
    except (OSError, SystemExit) as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError | SystemExit):
            return READER_GONE
        sys.stderr.write(f"pgpubsub: standard output cannot be written: {error.strerror}\n")
        return FAILED
    return 0
