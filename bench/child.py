"""A process for something that must not share ours."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

__all__ = ["Pipe", "child"]

Pipe: TypeAlias = "Connection[Any, Any]"


@contextmanager
def child(function: Callable[..., None], *args: object) -> Iterator[Pipe]:
    """Run `function` in a new process, with the other end of a pipe as its last argument. When the block is left,
    or this process ends in whatever way, it is ended. If it failed, reading from the pipe says so."""
    context = multiprocessing.get_context("spawn")
    pipe, other_end = context.Pipe()
    process = context.Process(target=_run, args=(function, *args, other_end), daemon=True)
    process.start()
    other_end.close()
    try:
        yield pipe
    finally:
        pipe.close()
        process.terminate()
        process.join()


def _run(function: Callable[..., None], *args: object) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(KeyboardInterrupt):
        function(*args)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
