"""What a hub asks of whoever traces what it sends and handles: the argument `tracing`.

Everything here is called by the task or thread that sends, or handles, so that whoever implements it finds the context
of that. `pgpubsub.contrib.opentelemetry` does. Whatever is raised here is raised where somebody wanted to send, so
nothing should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol

__all__ = ["Operation", "Outgoing", "Sending", "Tracing", "check_tracing"]

Operation = Literal["notify", "append"]


class Outgoing(NamedTuple):
    """What is about to be sent, in one transaction. It was checked, and can be."""

    operation: Operation
    destination: str | None
    """The channel or the stream; None for notifications on several channels."""
    messages: int | None
    """How many there are; None where it was a call for one."""
    size: int | None
    """Bytes of payload of the one."""


class Sending(Protocol):
    """A call that sends."""

    def carried(self, own: dict[str, Any] | None, /) -> Mapping[str, Any] | None:
        """The headers that a message is to carry, given its `own`: those, or others. If it would become too long with
        others, it goes with its own."""


class Tracing(Protocol):
    """See the module."""

    def sending(self, outgoing: Outgoing, /) -> AbstractContextManager[Sending]:
        """Around a call of `notify` or `append`, or of their like for many. What leaves it is how that ended, a
        cancellation too."""

    def handling(self, in_hand: Any, /) -> AbstractContextManager[object]:
        """Around each attempt of a handler that a stream's `process` calls. `in_hand` is a delivery or a batch, as
        `consume` hands them out. What leaves it has failed the attempt."""

    def continuing(self, headers: Mapping[str, Any], /) -> AbstractContextManager[object]:
        """Around what is sent on behalf of somebody who may have given the context of a trace in `headers`, as those
        of HTTP."""


def check_tracing(tracing: Tracing | None) -> None:
    """Raise unless a hub can be given this.

    Raises:
        TypeError: it cannot.
    """
    methods = [getattr(tracing, name, None) for name in ("sending", "handling", "continuing")]
    if tracing is not None and (isinstance(tracing, type) or not all(map(callable, methods))):
        raise TypeError(
            "tracing is an object such as pgpubsub.contrib.opentelemetry.Telemetry(), not"
            f" {type(tracing).__name__}: {tracing!r}"
        )
