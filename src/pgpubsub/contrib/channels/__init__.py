"""A channel layer for Django Channels in PostgreSQL (the extra `channels`).

Messages wait in a table until their reader takes them, so that none is lost while a process reconnects; a notification
tells the reader that there is something. docs/channel-layer.md is the manual.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("channels") is None or find_spec("msgspec") is None:
    raise ImportError("pgpubsub.contrib.channels needs Channels and msgspec: pip install 'pgpubsub[binary,channels]'")

from pgpubsub.contrib.channels.layer import PostgresChannelLayer
from pgpubsub.contrib.channels.statements import install, sql

__all__ = ["PostgresChannelLayer", "install", "sql"]
