"""Many who send at once: how many calls are completed per second.

A turn opens what they call, has each of them call a few times, so that whatever is prepared or cached is, and then
counts the calls that are completed in a while.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import closing

from bench.callers import WARM_UP, Called
from bench.ground import Ground
from bench.sending.audience import audience

__all__ = ["call_at_once"]


def call_at_once(make: Callable[[], Called], size: int, ground: Ground, *, callers: int, equal: bool = False) -> float:
    """Completed calls per second, over `size` connections."""
    listeners = audience(ground)
    called = make()
    gc.collect()
    called.open(listeners.dsn, size)
    with closing(called):
        first = called.call(callers, 60, times=WARM_UP, equal=equal)
        listeners.expect(first.completed)
        calls = called.call(callers, ground.effort.calling_seconds, equal=equal)
    listeners.expect(calls.completed)
    return 1e9 * calls.completed / calls.took
