"""A channel layer: what stands in Django's settings for it, and what it needs before.

A layer that has a capacity has the same large one, so that nobody waits for room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import psycopg

__all__ = ["CAPACITY", "Place", "Settings", "Way", "configure", "open_layer", "ours", "settings"]

CAPACITY = 10_000

Settings: TypeAlias = Mapping[str, Any]
"""Django's."""


class Place(Protocol):
    """Where there are servers."""

    def database(self, name: str) -> str:
        """The DSN of a new database."""

    def redis(self) -> int:
        """The port of Redis on this machine."""


Way: TypeAlias = Callable[[Place], Settings]
"""Prepares a place for a channel layer."""


def ours(place: Place) -> Settings:
    """PostgresChannelLayer, in a database of its own."""
    from pgpubsub.contrib import channels

    dsn = place.database("layers_ours")
    with psycopg.connect(dsn) as connection:
        channels.install(connection)
    return settings("pgpubsub.contrib.channels.PostgresChannelLayer", {"conninfo": dsn, "capacity": CAPACITY})


def settings(backend: str, config: Mapping[str, Any], **more: Any) -> Settings:
    """Of a channel layer."""
    layers = {"default": {"BACKEND": backend, "CONFIG": config}}
    return {"INSTALLED_APPS": ["channels"], "CHANNEL_LAYERS": layers, **more}


def open_layer(settings: Settings) -> Any:
    """The channel layer of this process, as consumers have it."""
    configure(settings)
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    assert layer is not None, "a setting is missing"
    return layer


def configure(settings: Settings) -> None:
    """Django with them; a process has only one set of them."""
    import django
    from django.conf import settings as of_django

    of_django.configure(**settings)
    django.setup()
