"""channels_redis: two channel layers for Django, in Redis."""

from __future__ import annotations

from bench.layers.ways import CAPACITY, Place, Settings, settings
from bench.peers.peer import Peer

__all__ = ["PEER", "prepare"]

PEER = Peer(
    "channels_redis",
    "4.3.0",
    "its settings as shown, with the same large capacity as ours; Redis is the system's, which keeps nothing on disk",
    'https://github.com/django/channels_redis (its README, "Usage")',
    "all but channel layers: it is one",
)


def prepare(place: Place, *, backend: str) -> Settings:
    """As in its README, "Usage", with a host as in "hosts". From redis-py 8 on, a connection gives up after 5 seconds,
    which takes a consumer with it that waits so long; so that is turned off. Only `RedisChannelLayer` has a capacity:
    the other takes it and has none."""
    host = {"host": "127.0.0.1", "port": place.redis(), "socket_timeout": None}
    return settings(backend, {"hosts": [host], "capacity": CAPACITY})
