"""Whose channel layer: what stands in Django's settings for it, as its own manual has it, and what it needs before.

A layer that has a capacity has the same large one, so that nobody waits for room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bench.child import Pipe, child

__all__ = ["Place", "Settings", "Way", "channels_postgres", "channels_redis", "open_layer", "ours"]

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
    return _settings("pgpubsub.contrib.channels.PostgresChannelLayer", {"conninfo": dsn, "capacity": CAPACITY})


def channels_postgres(place: Place) -> Settings:
    """As in its README: "Run migrations", "Update DATABASES dictionary", and "Usage", which shows a pool of ten
    connections. It has no capacity ("Deviations from the channels spec")."""
    known = conninfo_to_dict(place.database("layers_channels_postgres"))
    names = {"NAME": "dbname", "USER": "user", "HOST": "host", "PORT": "port"}
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "PASSWORD": "",
        "TIME_ZONE": None,  # else it finds no connection parameters
        **{name: known[its] for name, its in names.items()},
    }
    settings = _settings(
        "channels_postgres.core.PostgresChannelLayer",
        {**database, "PSYCOPG_OPTIONS": {"min_size": 10, "max_size": 10}},
        INSTALLED_APPS=["channels", "channels_postgres"],
        DATABASES={"default": database, "channels_postgres": database},
    )
    with child(_migrate, settings) as pipe:  # a process has only one of Django's settings
        assert pipe.recv() == "migrated"
    return settings


def channels_redis(place: Place, *, backend: str) -> Settings:
    """As in its README, "Usage", with a host as in "hosts". From redis-py 8 on, a connection gives up after 5 seconds,
    which takes a consumer with it that waits so long; so that is turned off. Only `RedisChannelLayer` has a capacity:
    the other takes it and has none."""
    host = {"host": "127.0.0.1", "port": place.redis(), "socket_timeout": None}
    return _settings(backend, {"hosts": [host], "capacity": CAPACITY})


def _settings(backend: str, config: Mapping[str, Any], **more: Any) -> Settings:
    layers = {"default": {"BACKEND": backend, "CONFIG": config}}
    return {"INSTALLED_APPS": ["channels"], "CHANNEL_LAYERS": layers, **more}


def _migrate(settings: Settings, pipe: Pipe) -> None:
    _configure(settings)
    from django.core.management import call_command

    call_command("migrate", "channels_postgres", database="channels_postgres", verbosity=0)
    pipe.send("migrated")


def open_layer(settings: Settings) -> Any:
    """The channel layer of this process, as consumers have it."""
    _configure(settings)
    from channels.layers import get_channel_layer

    layer = get_channel_layer()
    assert layer is not None, "a setting is missing"
    return layer


def _configure(settings: Settings) -> None:
    import django
    from django.conf import settings as of_django

    of_django.configure(**settings)
    django.setup()
