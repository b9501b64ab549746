"""The hubs that frameworks keep for as long as a process lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from django.test import override_settings
from flask import Flask

import pgpubsub
from pgpubsub import Hub
from pgpubsub.contrib import django
from pgpubsub.contrib.flask import PgPubSub
from pgpubsub.testing import TemporaryServer
from tests.contract.owners import use_django
from tests.system.standby import Standby
from tests.system.streams import until


@contextmanager
def of_django(dsn: str) -> Iterator[Hub]:
    with override_settings(PGPUBSUB={"default": {"conninfo": dsn}}):
        try:
            yield django.hub()
        finally:
            django.close_hubs()


@contextmanager
def of_flask(dsn: str) -> Iterator[Hub]:
    pubsub, app = PgPubSub(conninfo=dsn), Flask("of a test")
    pubsub.init_app(app)
    with app.app_context():
        try:
            yield pubsub.hub
        finally:
            pubsub.close()


@pytest.mark.parametrize("of_framework", [of_django, of_flask])
def test_a_process_that_begins_during_a_failover_has_a_hub_when_it_is_over(
    dsn: str,
    server: TemporaryServer,
    make_standby: Callable[[TemporaryServer], Standby],
    of_framework: Callable[[str], AbstractContextManager[Hub]],
) -> None:
    use_django(dsn)  # which outlives this test
    standby = make_standby(server)
    with of_framework(standby.dsn()) as hub:
        with pytest.raises(pgpubsub.NotLive):
            hub.wait_until_live(0.1)
        until(lambda: isinstance(hub.state.error, pgpubsub.ServerInRecovery))
        standby.promote()
        with hub.subscribe("a") as events:
            hub.notify("a", "1")
            assert isinstance(event := events.get(30), pgpubsub.Notify)
            assert event.payload == "1"
