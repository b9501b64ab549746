"""Interrupting code at every single place at which that is possible, one after the other.

A task can be cancelled wherever it waits, before or after what it waits for has come. A thread can be interrupted by
a signal handler wherever CPython runs those: at the entry of a function, and after a call of one written in C.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import pgpubsub

__all__ = ["PACKAGE", "PLACES", "WHEN", "Cancellation", "cancel", "every_moment", "every_moment_async", "interrupt"]

WHEN = ["at once", "when it has come"]
"""Whether a task is cancelled when it begins to wait, or when what it waits for has come and it has not noticed."""

PACKAGE = str(Path(pgpubsub.__file__).parent)
PLACES = (PACKAGE, asyncio.__path__[0])


def interrupt(
    function: Callable[[], object], moment: int, handler: Callable[[], object], places: tuple[str, ...] = PLACES
) -> bool:
    """Call `function`, and `handler` at the given moment of that, as a signal would. Says whether it came to that."""
    count = 0

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_return") and frame.f_code.co_filename.startswith(places):
            count += 1
            if count == moment:
                sys.setprofile(None)
                handler()

    gc.disable()  # an interruption of a destructor is printed and forgotten, by the language's rules
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count >= moment


def every_moment(scenario: Callable[[int], bool]) -> None:
    """Run a scenario with moments 1, 2 and so on, until it says that it had ended before."""
    moment = 1
    while scenario(moment):
        moment += 1
    assert moment > 5


class Cancellation:
    """Runs a coroutine in a task that is cancelled when it waits for the given time."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], moment: int, when: str) -> None:
        self._left = moment
        self._when = when
        self._task = asyncio.create_task(self._of(coroutine))

    async def end(self) -> bool:
        """Wait for its end. Says whether it came to that."""
        await asyncio.wait({self._task}, timeout=20)
        assert self._task.done(), "it hangs"
        if not self._task.cancelled():
            self._task.result()
        return self._left <= 0

    async def _of(self, coroutine: Coroutine[Any, Any, object]) -> None:
        await self._drive(coroutine)

    @types.coroutine
    def _drive(self, coroutine: Coroutine[Any, Any, object]) -> Generator[Any, Any, None]:
        proceed: Callable[[], Any] = lambda: coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = proceed()
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                self._cancel(awaited)
            try:
                yield awaited
            except BaseException as error:
                thrown = error
                proceed = lambda: coroutine.throw(thrown)  # noqa: E731, B023
            else:
                proceed = lambda: coroutine.send(None)  # noqa: E731

    def _cancel(self, awaited: asyncio.Future[Any] | None) -> None:
        if self._when == "at once":
            self._task.cancel()
        elif awaited is None:
            asyncio.get_running_loop().call_soon(self._task.cancel)
        else:
            awaited.add_done_callback(lambda _: self._task.cancel())


async def cancel(coroutine: Coroutine[Any, Any, object], moment: int, when: str) -> bool:
    """Run `coroutine`, and cancel it when it waits for the given time. Says whether it came to that."""
    return await Cancellation(coroutine, moment, when).end()


async def every_moment_async(scenario: Callable[[int, str], Awaitable[bool]]) -> None:
    """As `every_moment`, in both ways to be cancelled."""
    for when in WHEN:
        moment = 1
        while await scenario(moment, when):
            moment += 1
        assert moment > 1
