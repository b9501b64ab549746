"""How long to wait before the next attempt, as a generator that does not wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator

__all__ = ["backoff"]


def backoff(
    random: Callable[[], float], *, initial: float = 0.1, factor: float = 2.0, maximum: float = 30.0
) -> Iterator[float]:
    """Yield delays in seconds, for ever: none, then growing ones, each jittered.

    The first attempt after a loss is immediate, because most losses are short. The others follow
    "equal jitter": half of the delay is fixed, so that no attempt comes at once, and half is random, so
    that a thousand clients of a server that restarts do not come back together
    (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        random: returns a float in [0, 1), such as `random.random`.
        initial: the largest first delay, in seconds, before jitter.
        factor: what the delay is multiplied with after each attempt.
        maximum: the largest delay, in seconds, before jitter.

    >>> delays = backoff(lambda: 0.5, initial=1.0)
    >>> [next(delays) for _ in range(5)]
    [0.0, 0.75, 1.5, 3.0, 6.0]
    """
    yield 0.0
    delay = initial
    while True:
        yield delay * (0.5 + 0.5 * random())
        delay = min(delay * factor, maximum)
