"""What is looked for, a module each: `check(patient)` yields a `Finding`, `Fine` or `Unseen` for each thing it sees.

A check asks by `patient.rows` and nothing else, changes nothing, and may leave errors of the server and of time to its
caller. Its name is the module's, with hyphens. Each has a paragraph in docs/doctor.md.
"""

from __future__ import annotations

from pgpubsub.doctor.checks import (
    clock,
    clog_bug,
    dead_letters,
    groups,
    idle_listeners,
    keepalives,
    many_listeners,
    notify_lock,
    packages,
    pooler,
    queue,
    retention,
    schema,
    standby,
    stuck_listeners,
    triggers,
)

__all__ = ["CHECKS"]

CHECKS = (
    pooler,
    standby,
    queue,
    stuck_listeners,
    idle_listeners,
    many_listeners,
    notify_lock,
    clog_bug,
    keepalives,
    clock,
    packages,
    schema,
    triggers,
    groups,
    retention,
    dead_letters,
)
"""In the order in which they are made and told: first what makes all else pointless."""
