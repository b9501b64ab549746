"""Sample after sample, until somebody has seen enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Protocol

from pgpubsub.background import BackgroundCall
from pgpubsub.cli.top.attention import Attention
from pgpubsub.cli.top.hearing import Ears
from pgpubsub.cli.top.rates import View, changed
from pgpubsub.doctor.sampling import Sample, Sampler
from pgpubsub.drivers.psycopg3 import psycopg
from pgpubsub.errors import ConnectionFailed

__all__ = ["Audience", "Watch"]

TO_SETTLE = 3.0
"""Seconds that the first sample waits for channels to be listened to."""
TOO_SLOW = 2.0
"""Seconds after which it is said that the server does not answer."""
PATIENCE = 5.0
"""Seconds after which a connection that does not answer is given up."""


class Audience(Protocol):
    """To whom views are shown."""

    def show(self, view: View) -> None:
        """A new one."""

    def refresh(self, view: View) -> None:
        """Nothing new, but the time, or the size of the terminal."""


class Watch:
    """`first`: whether the first sample, which cannot have rates, is shown. `count`: of views, None: no limit."""

    def __init__(
        self, sampler: Sampler, ears: Ears, attention: Attention, audience: Audience, *, first: bool, count: int | None
    ) -> None:
        self._sampler = sampler
        self._ears = ears
        self._attention = attention
        self._audience = audience
        self._first = first
        self._count = count
        self._view: View | None = None
        self._call: BackgroundCall[Sample] | None = None

    def run(self, interval: float) -> None:
        """Returns when all were shown, or somebody typed q.

        Raises:
            ConnectionFailed, psycopg.OperationalError: there is not even a first sample.
        """
        if not self._first and not self._pause(lambda: self._ears.settled, TO_SETTLE):
            return
        shown = 0
        while True:
            begin = monotonic()
            begins = self._view is None
            if not self._look():
                return
            if self._first or not begins:
                assert self._view is not None
                self._audience.show(self._view)
                shown += 1
                if shown == self._count:
                    return
            took = monotonic() - begin
            # Never more than half of the time, so that a slow server is not kept busy.
            if not self._pause(lambda: False, max(interval - took, took)):
                return

    def _look(self) -> bool:
        """Take a sample; False when there was a key to end it."""
        self._call = call = BackgroundCall(self._sampler.sample, self._attention.wake)
        begin = monotonic()
        call.start()
        while not call.done:
            waited = monotonic() - begin
            if not self._pause(lambda: call.done, 1.0):
                return False
            if waited > TOO_SLOW and self._view is not None:
                self._view = replace(self._view, trouble=f"no answer for {waited:.0f} s")
                self._audience.refresh(self._view)
            if waited > PATIENCE:
                self._sampler.break_off()
        self._learn(call)
        return True

    def _learn(self, call: BackgroundCall[Sample]) -> None:
        try:
            sample = call.result()
        except (ConnectionFailed, psycopg.OperationalError) as error:
            if self._view is None:
                raise
            text = " ".join(str(error).split())
            self._view = replace(self._view, trouble=text, channels=self._ears.heard(), deaf=self._ears.trouble)
        else:
            self._view = changed(self._view, sample, self._ears.heard(), self._ears.trouble)

    def _pause(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until something is done, but no longer than that. False when there was a key to end it all."""
        deadline = monotonic() + seconds
        while not done() and (left := deadline - monotonic()) > 0:
            if not self._attention.wait(left):
                return False
            if self._view is not None:
                self._audience.refresh(self._view)
        return True

    def end(self) -> None:
        """Close the server's connection, as soon as nobody waits for an answer on it."""
        if self._call is not None:
            self._call.abandon(lambda sample: self._sampler.close())
            self._sampler.break_off()
