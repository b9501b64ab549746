"""The hub's face for threads: the same engine, in an event loop on a thread of its own."""

from __future__ import annotations

from pgpubsub.threads.hub import Hub
from pgpubsub.threads.reader import Reader
from pgpubsub.threads.stream import Stream
from pgpubsub.threads.subscription import Subscription

__all__ = ["Hub", "Reader", "Stream", "Subscription"]
