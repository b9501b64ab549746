"""Which errors come from a signal handler, and not from the code in whose midst Python called it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType

__all__ = ["was_raised_by_a_signal_handler"]


def was_raised_by_a_signal_handler(error: BaseException) -> bool:
    """Python runs those in the midst of whatever it does. It may be a time-out, which is nobody's there.

    Only a signal handler is given the very frame that it was called from, so that is how it is told from other
    functions, whatever it is wrapped in. One that has deleted its argument before it raises is not recognised.
    """
    step = error.__traceback__ and error.__traceback__.tb_next  # after the caller's own
    while step is not None:
        caller = step.tb_frame.f_back
        if caller is not None and any(one is caller for one in _given(step.tb_frame)):
            return True
        step = step.tb_next
    return False


def _given(frame: FrameType) -> Iterator[object]:
    """The positional arguments of a function; other functions keep their caller's frame in variables of their own."""
    code, values = frame.f_code, frame.f_locals
    for name in code.co_varnames[: code.co_argcount]:
        yield values.get(name)
    if code.co_flags & inspect.CO_VARARGS:
        yield from values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount], ())
