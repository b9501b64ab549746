"""What may be given as a time-out, everywhere."""

from __future__ import annotations

from numbers import Real
from typing import Any, overload

__all__ = ["check_seconds", "check_timeout"]

FOR_EVER = 1e9
"""Seconds after which nobody will notice that the wait had an end."""


def check_seconds(name: str, seconds: Any) -> None:
    """Raise unless `seconds`, of the argument `name`, is a time that can pass.

    >>> check_seconds("heartbeat", 0)
    Traceback (most recent call last):
    ValueError: heartbeat is a positive number of seconds, not 0
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{name} is a number of seconds, not {seconds!r}")
    if not seconds > 0:
        raise ValueError(f"{name} is a positive number of seconds, not {seconds!r}")


@overload
def check_timeout(timeout: None) -> None: ...
@overload
def check_timeout(timeout: float) -> float: ...
@overload
def check_timeout(timeout: Any) -> float | None: ...
def check_timeout(timeout: Any) -> float | None:
    """Return a usable time-out: seconds, or None for no limit.

    Raises:
        TypeError: it is not a number.
        ValueError: it is negative, or not a number in floating point's own sense.

    >>> check_timeout(5)
    5.0
    """
    if timeout is None:
        return None
    is_number = isinstance(timeout, Real) and not isinstance(timeout, bool)
    if not is_number:
        raise TypeError(f"a timeout is a number of seconds or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout cannot be {timeout}: give seconds, 0 not to wait, or None to wait for ever")
    return float(min(timeout, FOR_EVER))
