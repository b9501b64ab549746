"""Publish and subscribe in PostgreSQL, over LISTEN and NOTIFY.

>>> import pgpubsub
>>> with pgpubsub.connect(dsn) as pubsub:
...     pubsub.listen("test")
...     pubsub.notify("test", "hello")
...     print(pubsub.get_event().payload)
hello
"""

from __future__ import annotations

from pgpubsub.aio import (
    AsyncBatch,
    AsyncConsumer,
    AsyncDelivery,
    AsyncHub,
    AsyncReader,
    AsyncStream,
    AsyncSubscription,
)
from pgpubsub.channel import Channel
from pgpubsub.classic.handler import NotificationHandler
from pgpubsub.classic.pubsub import PubSub, connect
from pgpubsub.core.position import BEGINNING, END
from pgpubsub.errors import (
    ChannelNameError,
    Closed,
    ConcurrentUse,
    ConnectionFailed,
    ConnectionLost,
    ConnectionUnusable,
    ConninfoError,
    GaveUp,
    LeaseLost,
    NotLive,
    PayloadError,
    PayloadTooLarge,
    PositionError,
    PubSubError,
    SendTimeout,
    SendUncertain,
    ServerInRecovery,
    ServerRefused,
    StreamsNotInstalled,
    SubscriberTooSlow,
    SubscriptionClosed,
    UnexpectedChannel,
    UnsupportedConnection,
    UnusableDeployment,
)
from pgpubsub.events import Entry, Gap, GapReason, Notify, Undecodable
from pgpubsub.groups.status import DeadLetter, GroupInfo, GroupMember, HeldUp
from pgpubsub.status import HubState, HubStats, HubStatus, Observation, SubscriptionStats
from pgpubsub.threads.consumer import Batch, Consumer, Delivery
from pgpubsub.threads.hub import Hub
from pgpubsub.threads.reader import Reader
from pgpubsub.threads.stream import Stream
from pgpubsub.threads.subscription import Subscription
from pgpubsub.transactional import append, append_async, notify, notify_async
from pgpubsub.triggers.change import Change

__all__ = [
    "BEGINNING",
    "END",
    "AsyncBatch",
    "AsyncConsumer",
    "AsyncDelivery",
    "AsyncHub",
    "AsyncReader",
    "AsyncStream",
    "AsyncSubscription",
    "Batch",
    "Change",
    "Channel",
    "ChannelNameError",
    "Closed",
    "ConcurrentUse",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionUnusable",
    "ConninfoError",
    "Consumer",
    "DeadLetter",
    "Delivery",
    "Entry",
    "Gap",
    "GapReason",
    "GaveUp",
    "GroupInfo",
    "GroupMember",
    "HeldUp",
    "Hub",
    "HubState",
    "HubStats",
    "HubStatus",
    "LeaseLost",
    "NotLive",
    "NotificationHandler",
    "Notify",
    "Observation",
    "PayloadError",
    "PayloadTooLarge",
    "PositionError",
    "PubSub",
    "PubSubError",
    "Reader",
    "SendTimeout",
    "SendUncertain",
    "ServerInRecovery",
    "ServerRefused",
    "Stream",
    "StreamsNotInstalled",
    "SubscriberTooSlow",
    "Subscription",
    "SubscriptionClosed",
    "SubscriptionStats",
    "Undecodable",
    "UnexpectedChannel",
    "UnsupportedConnection",
    "UnusableDeployment",
    "append",
    "append_async",
    "connect",
    "notify",
    "notify_async",
]

__version__ = "1.0.0.dev0"
