"""Calling a handler from a task: one that is awaited, or one that may block, in a thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from pgpubsub.groups.handlers import check_result, is_asynchronous

__all__ = ["awaited"]


def awaited(handler: Callable[[Any], Any], concurrency: int) -> Callable[[Any], Awaitable[Any]]:
    """`handler` as something to be awaited. One that may block is called in as many threads as there may be."""
    return _checked(handler) if is_asynchronous(handler) else _in_threads(handler, concurrency)


def _checked(handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
    async def call(subject: Any) -> None:
        check_result(await handler(subject))

    return call


def _in_threads(handler: Callable[[Any], Any], concurrency: int) -> Callable[[Any], Awaitable[Any]]:
    pool = ThreadPoolExecutor(concurrency, "pgpubsub handler")

    async def call(subject: Any) -> None:
        running = asyncio.get_running_loop().run_in_executor(
            pool, partial(copy_context().run, _called, handler, subject)
        )
        try:
            result = await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait({running})  # nobody else is to have the entry as long as the thread is at work
            raise
        if inspect.isawaitable(result):  # it only looked like one that may block
            result = await result
        check_result(result)

    return call


def _called(handler: Callable[[Any], Any], subject: Any) -> Any:
    try:
        return handler(subject)
    except StopIteration as error:  # no future can hold it, so that whoever waits would do so for ever
        raise RuntimeError("the handler raised StopIteration") from error
