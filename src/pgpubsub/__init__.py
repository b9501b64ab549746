"""Publish and subscribe in PostgreSQL, over LISTEN and NOTIFY.

>>> import pgpubsub
>>> with pgpubsub.connect(dsn) as pubsub:
...     pubsub.listen("test")
...     pubsub.notify("test", "hello")
...     print(pubsub.get_event().payload)
hello
"""

from __future__ import annotations

from pgpubsub.aio import AsyncHub, AsyncSubscription
from pgpubsub.channel import Channel
from pgpubsub.classic.handler import NotificationHandler
from pgpubsub.classic.pubsub import PubSub, connect
from pgpubsub.errors import (
    ChannelNameError,
    Closed,
    ConcurrentUse,
    ConnectionFailed,
    ConnectionLost,
    ConnectionUnusable,
    ConninfoError,
    GaveUp,
    NotLive,
    PayloadError,
    PayloadTooLarge,
    PubSubError,
    SendTimeout,
    SendUncertain,
    ServerInRecovery,
    ServerRefused,
    SubscriberTooSlow,
    SubscriptionClosed,
    UnexpectedChannel,
    UnsupportedConnection,
    UnusableDeployment,
)
from pgpubsub.events import Gap, GapReason, Notify, Undecodable
from pgpubsub.status import HubState, HubStats, HubStatus, Observation, SubscriptionStats
from pgpubsub.threads.hub import Hub
from pgpubsub.threads.subscription import Subscription
from pgpubsub.transactional import notify, notify_async

__all__ = [
    "AsyncHub",
    "AsyncSubscription",
    "Channel",
    "ChannelNameError",
    "Closed",
    "ConcurrentUse",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionUnusable",
    "ConninfoError",
    "Gap",
    "GapReason",
    "GaveUp",
    "Hub",
    "HubState",
    "HubStats",
    "HubStatus",
    "NotLive",
    "NotificationHandler",
    "Notify",
    "Observation",
    "PayloadError",
    "PayloadTooLarge",
    "PubSub",
    "PubSubError",
    "SendTimeout",
    "SendUncertain",
    "ServerInRecovery",
    "ServerRefused",
    "SubscriberTooSlow",
    "Subscription",
    "SubscriptionClosed",
    "SubscriptionStats",
    "Undecodable",
    "UnexpectedChannel",
    "UnsupportedConnection",
    "UnusableDeployment",
    "connect",
    "notify",
    "notify_async",
]

__version__ = "1.0.0.dev0"
