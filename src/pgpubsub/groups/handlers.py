"""Functions that are given to be called: which of them would do nothing when they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["check_handler", "check_on_gap", "check_result", "is_asynchronous"]


def is_asynchronous(function: Callable[..., Any]) -> bool:
    """Whether it returns a coroutine."""
    return _is(inspect.iscoroutinefunction, function)


def check_handler(handler: Any) -> None:
    """Raise unless `process` can call this.

    Raises:
        TypeError: it is no function, or has `yield` in it.
    """
    if not callable(handler):
        raise TypeError(f"the handler is a function that takes an entry, not {type(handler).__name__}")
    if _has_yield(handler):
        raise TypeError(f"{handler!r} has a yield in it: to call it would run nothing. Let it do its work and return")


def check_result(result: Any) -> None:
    """Raise if a handler has returned what it was to do.

    Raises:
        TypeError: it is a generator.
    """
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError("the handler has returned a generator, of which nothing has been run: let it do its work")


def check_on_gap(on_gap: Any) -> None:
    """Raise unless this can be told of gaps.

    Raises:
        TypeError: it is no function, or one that has to be awaited or iterated.
    """
    if not callable(on_gap):
        raise TypeError(f"on_gap is a function that takes a Gap, not {type(on_gap).__name__}")
    if is_asynchronous(on_gap) or _has_yield(on_gap):
        raise TypeError(f"on_gap is a plain function, which takes notes, and nobody would await {on_gap!r}")


def _has_yield(function: Callable[..., Any]) -> bool:
    return _is(inspect.isgeneratorfunction, function) or _is(inspect.isasyncgenfunction, function)


def _is(kind: Callable[[Any], bool], function: Callable[..., Any]) -> bool:
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004
