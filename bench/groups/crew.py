"""Processes of members, which stay through all rounds, and what they do in one turn.

In a turn the members begin to work, or, those who cannot be held back, stand ready for it; then what is to be handled
is committed, at which the clock starts; and it stops when all of it is acknowledged.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from bench.child import Pipe, child

__all__ = ["PATIENCE", "Crew", "Post"]

PATIENCE = 100
"""Seconds in which all is handled."""


class Post:
    """In a member's process: what it is told, and tells."""

    def __init__(self, dsn: str, batch: int, pipe: Pipe, handled: Any) -> None:
        self.dsn = dsn
        self.batch = batch
        """How many are to be handled together."""
        self.go = Event()
        """Set when there is something to do."""
        self.stopped = Event()
        """Set when there will be nothing more."""
        self._pipe = pipe
        self._handled = handled
        self._stop: Callable[[], object] = lambda: None
        self._listening = Thread(target=self._listen)

    def ready(self, stop: Callable[[], object] = lambda: None) -> None:
        """It is ready. `stop` is called in another thread when it is to end."""
        self._stop = stop
        self._pipe.send("ready")
        self._listening.start()

    def count(self, number: int) -> None:
        """So many more were handled."""
        with self._handled.get_lock():
            self._handled.value += number

    def end(self) -> None:
        """It has ended."""
        self._listening.join()
        self._pipe.send("ended")

    def _listen(self) -> None:
        with suppress(EOFError):
            assert self._pipe.recv() == "go"
            self.go.set()
            assert self._pipe.recv() == "stop"
        self.go.set()
        self.stopped.set()
        with suppress(RuntimeError):  # its loop has ended already
            self._stop()


def _member(handled: Any, pipe: Pipe) -> None:
    with suppress(EOFError):  # this is the end
        while True:
            work, dsn, batch = pipe.recv()
            post = Post(dsn, batch, pipe, handled)
            work(post)
            post.end()


class Crew:
    """So many processes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._stack = ExitStack()
        self._handled: Any = multiprocessing.get_context("spawn").Value("q", 0)
        self._pipes: Sequence[Pipe] = ()

    def start(self) -> None:
        """Begin; return before they are there."""
        self._pipes = [self._stack.enter_context(child(_member, self._handled)) for _ in range(self._size)]

    def close(self) -> None:
        """End them."""
        self._stack.close()

    @contextmanager
    def members(self, number: int, work: Callable[[Post], None], dsn: str, batch: int) -> Iterator[Callable[[], None]]:
        """Have so many members ready. What this gives is to be called when there is something to do."""
        pipes = self._pipes[:number]
        self._handled.value = 0
        for pipe in pipes:
            pipe.send((work, dsn, batch))
        for pipe in pipes:
            assert pipe.recv() == "ready"

        def go() -> None:
            for pipe in pipes:
                pipe.send("go")

        yield go
        for pipe in pipes:
            pipe.send("stop")
        for pipe in pipes:
            assert pipe.recv() == "ended"

    def wait(self, count: int) -> None:
        """Until so many were handled."""
        deadline = monotonic() + PATIENCE
        while (so_far := self._handled.value) < count:
            if monotonic() > deadline:
                raise TimeoutError(f"{so_far} of {count} were handled within {PATIENCE} s")
            sleep(0.0005)
        assert so_far == count, f"{so_far} were handled, of {count}"
