"""pgpubsub in Django projects (the extra `django`; nothing has to be added to INSTALLED_APPS).

`notify` and `append` take part in `transaction.atomic`. `hub` and `async_hub` are there for views and tasks, one for
each process and event loop, started when they are first used. Migrations have operations for triggers and for streams
in `pgpubsub.contrib.django.operations`. docs/django.md is the manual.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("django") is None:
    raise ImportError("pgpubsub.contrib.django needs Django: pip install 'pgpubsub[binary,django]'")

from pgpubsub.contrib.django.hubs import async_hub, close_hubs, conninfo, hub
from pgpubsub.contrib.django.transactions import aappend, anotify, append, notify

__all__ = ["aappend", "anotify", "append", "async_hub", "close_hubs", "conninfo", "hub", "notify"]
