"""channels_postgres: a channel layer for Django, over psycopg 3."""

from __future__ import annotations

from psycopg.conninfo import conninfo_to_dict

from bench.child import Pipe, child
from bench.layers.ways import Place, Settings, configure, settings
from bench.peers.peer import Peer

__all__ = ["PEER", "prepare"]

PEER = Peer(
    "channels_postgres",
    "1.1.4",
    "its migrations, and its settings as shown, with a pool of ten connections; it has no capacity",
    'https://github.com/danidee10/channels_postgres (its README, "Usage", "Deviations from the channels spec")',
    "all but channel layers: it is one",
)


def prepare(place: Place) -> Settings:
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
    found = settings(
        "channels_postgres.core.PostgresChannelLayer",
        {**database, "PSYCOPG_OPTIONS": {"min_size": 10, "max_size": 10}},
        INSTALLED_APPS=["channels", "channels_postgres"],
        DATABASES={"default": database, "channels_postgres": database},
    )
    with child(_migrate, found) as pipe:  # a process has only one of Django's settings
        assert pipe.recv() == "migrated"
    return found


def _migrate(settings: Settings, pipe: Pipe) -> None:
    configure(settings)
    from django.core.management import call_command

    call_command("migrate", "channels_postgres", database="channels_postgres", verbosity=0)
    pipe.send("migrated")
