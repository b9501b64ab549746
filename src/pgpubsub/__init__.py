"""Publish and subscribe in PostgreSQL, over LISTEN and NOTIFY.

>>> import pgpubsub
>>> with pgpubsub.connect(dsn) as pubsub:
...     pubsub.listen("test")
...     pubsub.notify("test", "hello")
...     print(pubsub.get_event().payload)
hello
"""

from __future__ import annotations

from pgpubsub.errors import (
    ChannelNameError,
    Closed,
    ConcurrentUse,
    ConnectionFailed,
    ConnectionLost,
    ConnectionUnusable,
    ConninfoError,
    PayloadError,
    PubSubError,
    SendUncertain,
    ServerInRecovery,
    ServerRefused,
    UnexpectedChannel,
    UnsupportedConnection,
)
from pgpubsub.events import Gap, GapReason, Notify
from pgpubsub.handler import NotificationHandler
from pgpubsub.pubsub import PubSub, connect

__all__ = [
    "ChannelNameError",
    "Closed",
    "ConcurrentUse",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionUnusable",
    "ConninfoError",
    "Gap",
    "GapReason",
    "NotificationHandler",
    "Notify",
    "PayloadError",
    "PubSub",
    "PubSubError",
    "SendUncertain",
    "ServerInRecovery",
    "ServerRefused",
    "UnexpectedChannel",
    "UnsupportedConnection",
    "connect",
]

__version__ = "1.0.0.dev0"
