"""`pgpubsub.testing.fixtures`, in the tests of somebody who has installed pgpubsub."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

THEIR_CONFTEST = """
pytest_plugins = ["pgpubsub.testing.fixtures"]
"""

THEIR_TESTS = """
import pgpubsub
import pytest

@pytest.fixture(scope="module")
def seen():
    return []

@pytest.mark.parametrize("number", [1, 2])
def test_a_loss_is_told(pgpubsub_server, pgpubsub_proxy, seen, number):
    seen.append((pgpubsub_server.pid, pgpubsub_proxy.port))
    with pgpubsub.connect(pgpubsub_proxy.dsn()) as pubsub, pgpubsub.connect(pgpubsub_server.dsn()) as sender:
        pubsub.listen("channel")
        pgpubsub_proxy.reset()
        assert isinstance(pubsub.get_event(20, yield_gaps=True), pgpubsub.Gap)
        sender.notify("channel", "after")
        assert pubsub.get_event(20).payload == "after"

def test_the_server_is_for_all_tests_and_a_proxy_for_one(seen):
    assert len({pid for pid, _ in seen}) == 1
    assert len({port for _, port in seen}) == 2

def test_a_hub_is_live(pgpubsub_hub):
    with pgpubsub_hub.subscribe("channel") as events:
        pgpubsub_hub.notify("channel", "payload")
        assert events.get(timeout=20).payload == "payload"

@pytest.mark.parametrize("number", [1, 2])
def test_hubs_in_memory_have_the_same_gaps(pgpubsub_memory_server, number):
    with pgpubsub_memory_server.hub() as hub, hub.subscribe("channel") as events:
        pgpubsub_memory_server.restart()
        assert events.get(timeout=20).reason is pgpubsub.GapReason.CONNECTION_LOST
        assert hub.stats().reconnects == 1
"""


def test_a_users_tests_run_with_them(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(THEIR_CONFTEST)
    pytester.makepyfile(THEIR_TESTS)
    pytester.runpytest_subprocess("-W", "error").assert_outcomes(passed=6)


def test_the_server_and_the_proxy_do_without_pytest() -> None:
    code = "import sys, pgpubsub.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
