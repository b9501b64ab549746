"""Processes of members, which stay through all rounds, and what they do in one turn.

In a turn the members begin to work while there is nothing to do: those who are told of what comes wait for it, and the
others wait until this process tells them. Then each handles a few entries that do not count (`bench.groups.yard`), and
whatever has to be done at first is done. Then what is to be handled is committed, at which the clock starts; and it
stops when all of it is acknowledged.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import SimpleQueue
from threading import Thread
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
        self._pipe = pipe
        self._told: SimpleQueue[bool] = SimpleQueue()
        self._handled = handled
        self._stop: Callable[[], object] = lambda: None
        self._listening = Thread(target=self._listen)

    def ready(self, stop: Callable[[], object] = lambda: None) -> None:
        """It is ready. `stop` is called in another thread when it is to end."""
        self._stop = stop
        self._pipe.send("ready")
        self._listening.start()

    def told(self) -> bool:
        """Wait until there is something to do, again and again; False: there will be nothing more. It is for those whom
        nobody else tells."""
        return self._told.get()

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
            while (word := self._pipe.recv()) == "go":
                self._told.put(True)
            assert word == "stop", word
        self._told.put(False)
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
        self._stack = ExitStack()
        self._handled: Sequence[Any] = [multiprocessing.get_context("spawn").Value("q", 0) for _ in range(size)]
        self._pipes: Sequence[Pipe] = ()

    def start(self) -> None:
        """Begin; return before they are there."""
        self._pipes = [self._stack.enter_context(child(_member, handled)) for handled in self._handled]

    def close(self) -> None:
        """End them."""
        self._stack.close()

    @contextmanager
    def members(self, number: int, work: Callable[[Post], None], dsn: str, batch: int) -> Iterator[Callable[[], None]]:
        """Have so many members ready. What this gives is to be called whenever there is something to do."""
        pipes = self._pipes[:number]
        for handled in self._handled:
            handled.value = 0
        for pipe in pipes:
            pipe.send((work, dsn, batch))
        for pipe in pipes:
            assert pipe.recv() == "ready"

        def go() -> None:
            for pipe in pipes:
                pipe.send("go")

        try:
            yield go
        finally:
            for pipe in pipes:
                pipe.send("stop")
            for pipe in pipes:
                assert pipe.recv() == "ended"

    def handled(self, members: int) -> list[int]:
        """How many each of so many members has handled."""
        return [handled.value for handled in self._handled[:members]]

    def wait(self, count: int) -> None:
        """Until so many were handled, since the members were made ready."""
        deadline = monotonic() + PATIENCE
        while (so_far := sum(handled.value for handled in self._handled)) < count:
            if monotonic() > deadline:
                raise TimeoutError(f"{so_far} of {count} were handled within {PATIENCE} s")
            sleep(0.0005)
        assert so_far == count, f"{so_far} were handled, of {count}"
