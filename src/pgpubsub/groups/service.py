"""Beginning to consume, and what can be asked and said of groups."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypedDict

from pgpubsub.core.entries import NAME_LIMIT, check_name
from pgpubsub.core.position import BEGINNING, Start
from pgpubsub.core.timeouts import FOR_EVER, check_seconds
from pgpubsub.errors import NotLive, SubscriptionClosed, again
from pgpubsub.events import Gap
from pgpubsub.groups.handlers import check_on_gap
from pgpubsub.groups.inbox import ClaimInbox
from pgpubsub.groups.member import Member, Settings
from pgpubsub.hubs.engine import Engine
from pgpubsub.logs import EventLog
from pgpubsub.randomness import spread
from pgpubsub.streams.description import Description
from pgpubsub.streams.service import Streams

__all__ = ["Backoff", "GroupOptions", "begin", "check_concurrency", "check_group", "check_number", "settings"]

Backoff = float | Callable[[int], float]
"""Seconds from one attempt to the next, or a function that returns them, given how many attempts there were."""


logger = EventLog("groups")


class GroupOptions(TypedDict, total=False):
    """What `consume` takes beside the group and the size of batches."""

    follow: bool
    attempts: int
    backoff: Backoff | None
    lease: float
    start: str | Start
    on_gap: Callable[[Gap], object] | None


CALLS: Mapping[str, Sequence[str]] = {
    "consume": ("batch", *GroupOptions.__annotations__),
    "process": ("concurrency", "batch", *GroupOptions.__annotations__),
}
"""What can be given by name, beside the group and the handler."""

LONGEST_LEASE = 86400.0

LONGEST = 300.0
"""Seconds from one attempt to the next, unless they are given."""

MOST = 100_000
"""Entries in a batch."""


def settings(
    call: str, description: Description[Any], group: str, batch: int | None, options: GroupOptions
) -> Settings:
    """Check what a consumer is asked for, in a call of `consume` or `process`.

    Raises:
        TypeError, ValueError: it is not possible.
        PositionError: `start` is no position of the stream.
    """
    for name in options:
        if name not in CALLS[call]:
            raise TypeError(f"{call}() takes no argument {name!r}, but these: {', '.join(CALLS[call])}")
    return _settings(description, group, batch, **options)


def _settings(
    description: Description[Any],
    group: str,
    batch: int | None,
    *,
    follow: bool = True,
    attempts: int = 5,
    backoff: Backoff | None = None,
    lease: float = 30.0,
    start: str | Start = BEGINNING,
    on_gap: Callable[[Gap], object] | None = None,
) -> Settings:
    check_group(group)
    check_number("batch", 1 if batch is None else batch, MOST)
    check_number("attempts", attempts, 1 << 30)
    check_seconds("lease", lease)
    if lease > LONGEST_LEASE:
        raise ValueError(f"lease is at most a day: so long may nobody take over what a dead member has, not {lease!r}")
    delays = _checked(backoff) if callable(backoff) else _exponential if backoff is None else _constant(backoff)
    if on_gap is not None:
        check_on_gap(on_gap)

    def tell(gap: Gap) -> None:
        logger.warning(
            "gap",
            "group %(group)r of stream %(stream)r may have missed something: %(detail)s",
            reason=str(gap.reason),
            stream=description.name,
            group=group,
            detail=gap.detail,
        )
        if on_gap is not None:
            try:
                on_gap(gap)
            except Exception:
                logger.exception(
                    "on_gap_failed", "the function that is told of gaps failed", stream=description.name, group=group
                )

    return Settings(group, batch or 1, follow, attempts, delays, float(lease), description.start(start), tell)


def _checked(backoff: Callable[[int], float]) -> Callable[[int], float]:
    """`backoff`, unless it raises or returns what is no time."""

    def checked(attempts: int) -> float:
        try:
            seconds = backoff(attempts)
            if seconds != 0:
                check_seconds("what backoff returns", seconds)
            return min(float(seconds), FOR_EVER)
        except Exception:
            logger.exception(
                "backoff_failed",
                "the backoff after %(attempt)d attempts could not be had: the default is taken",
                attempt=attempts,
            )
            return _exponential(attempts)

    return checked


def _constant(seconds: float) -> Callable[[int], float]:
    if seconds != 0:
        check_seconds("backoff", seconds)
    return lambda attempts: min(float(seconds), FOR_EVER)


def check_concurrency(concurrency: int) -> None:
    """Raise unless so many entries can be handled at the same time."""
    check_number("concurrency", concurrency, 10_000)


def check_number(name: str, number: Any, most: int) -> None:
    """Raise unless `number` is one from 1 to `most`."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TypeError(f"{name} is a number, not {number!r}")
    if not 1 <= number <= most:
        raise ValueError(f"{name} is a number from 1 to {most}, not {number}")


def check_group(name: str) -> None:
    """Raise unless a group can have this name. See `core.entries.check_name`."""
    check_name("group", name, NAME_LIMIT)


def _exponential(attempts: int) -> float:
    return min(LONGEST, spread(2.0 ** min(attempts - 1, 20)))


async def begin(
    engine: Engine, streams: Streams, description: Description[Any], settings: Settings, inbox: ClaimInbox
) -> Member:
    """Become a member, and hand out to `inbox`.

    Raises:
        NotLive: the server could not be reached within the hub's `send_timeout`.
    """
    engine.start()
    member = Member(engine, streams, description, settings, inbox)
    loop = asyncio.get_running_loop()

    def on_low() -> None:
        with suppress(RuntimeError):  # the loop has ended, and so has the member
            loop.call_soon_threadsafe(member.wake)

    def on_gap() -> None:
        streams.cut()
        member.retry()

    inbox.on_low, inbox.on_gap, inbox.on_end, inbox.on_channels = on_low, on_gap, member.stop, member.on_hint
    inbox.own_pid = lambda: engine.sending_pid
    await engine.open(inbox, member.channels)
    try:
        running = streams.spawn(member.run())
        await asyncio.wait({running, member.joined}, timeout=engine.send_timeout, return_when=asyncio.FIRST_COMPLETED)
        if inbox.closed is not None and not member.joined.done():
            raise again(inbox.closed)
        if not member.joined.done():
            within = f"within {engine.send_timeout:g} s"
            why = member.error or "the server has not answered"
            raise NotLive(f"group {settings.group!r} could not be joined {within}: {why}") from member.error
    except BaseException:
        engine.leave(inbox, SubscriptionClosed("the consumer could not be entered"))
        raise
    return member
