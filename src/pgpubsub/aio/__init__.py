"""The hub for asyncio: one connection that listens, one that sends, and any number of tasks that subscribe.

    hub.py            AsyncHub: what the user sees; puts the rest together
    subscription.py   AsyncSubscription: what one subscriber sees
    receiver.py       who has subscribed to what; brings the server in line, and hands out what arrives
    sender.py         notifications to be sent, one after the other
    link.py           keeps one connection alive, as `core.session` decides

Dependencies point downwards.
"""

from __future__ import annotations

from pgpubsub.aio.hub import AsyncHub
from pgpubsub.aio.subscription import AsyncSubscription

__all__ = ["AsyncHub", "AsyncSubscription"]
