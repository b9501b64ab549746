"""Who carries messages from this process to another, as they come: what those who do it with a table, a stream or a
queue have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from threading import Thread
from time import monotonic, monotonic_ns, sleep
from typing import TypeAlias

from bench.child import Pipe

__all__ = ["SIZE", "Append", "Desk", "Sends"]

SIZE = 16
"""Connections in a pool that sends."""

Append: TypeAlias = Callable[[str], Awaitable[object]]
Sends: TypeAlias = Callable[[str], AbstractAsyncContextManager[Append]]
"""By a DSN: what stores a message."""


class Desk:
    """In the receiver's process: notes when something came, and tells when asked."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._came: list[tuple[str, int]] = []

    def open(self) -> None:
        """The receiver is ready."""
        self._pipe.send("ready")
        Thread(target=self._answer, daemon=True).start()

    def take(self, payload: str) -> None:
        """It has `payload`."""
        self._came.append((payload, monotonic_ns()))

    def _answer(self) -> None:
        while True:
            try:
                first, expected, patience = self._pipe.recv()
            except EOFError:  # this is the end
                return
            before, deadline = 0, monotonic() + patience
            while (so_far := self._since(first)) < expected and monotonic() < deadline:
                if so_far > before:
                    before, deadline = so_far, monotonic() + patience
                sleep(0.01)
            came, self._came = self._came, []
            self._pipe.send(came)

    def _since(self, first: str) -> int:
        return sum(payload >= first for payload, _ in self._came)
