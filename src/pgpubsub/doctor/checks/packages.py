"""Two packages are installed that both have the import name pgpubsub, such as django-pgpubsub.

Which one is imported depends on the order in which they were installed, or in which their directories are searched; and
in the same directory the later one has overwritten files of the earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path

import pgpubsub
from pgpubsub.doctor.patient import Patient
from pgpubsub.doctor.report import Finding, Fine, Severity, Unseen

__all__ = ["check"]

OURS = "pgpubsub"

PROVIDES = re.compile(r"^\"?pgpubsub(?:/|\.py\b|$)", re.MULTILINE)
"""In the list of a package's files, or of the names that it has at the top."""


def check(patient: Patient) -> Iterator[Finding | Fine | Unseen]:
    """One finding, or fine."""
    # packages_distributions() takes a second for a hundred packages.
    others = dict(_others())
    if not others:
        yield Fine("no other installed package has the import name pgpubsub")
        return
    named = ", ".join(f"{name} {version}" for name, version in sorted(others.items()))
    yield Finding(
        Severity.WARNING,
        f"another package with the import name pgpubsub is installed beside this one, so that either may be imported,"
        f" or files of both: {named}",
        f"keep them in environments of their own. Here: pip uninstall pgpubsub {' '.join(sorted(others))}, and then"
        " install the one that is wanted",
        {"packages": dict(sorted(others.items())), "imported from": str(Path(pgpubsub.__file__).parent)},
    )


def _others() -> Iterator[tuple[str, str]]:
    """Their names and versions. Those of which the files cannot be read, and what has no name (any more), are left
    out."""
    for one in distributions():
        with suppress(OSError, UnicodeError, KeyError):
            # One that is installed to be edited has its files elsewhere, and none of them in RECORD.
            listed = f"{one.read_text('RECORD') or ''}\n{one.read_text('top_level.txt') or ''}"
            if PROVIDES.search(listed) and (name := one.metadata["Name"]) and name.lower() != OURS:
                yield name, one.version
