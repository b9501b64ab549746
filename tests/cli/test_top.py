"""What `pgpubsub top` shows of a server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import psycopg
import pytest

import pgpubsub.streams
from pgpubsub import Hub
from pgpubsub.testing import Proxy, TemporaryServer
from tests.cli.top import Top, run, sample
from tests.contract.test_handler import eventually
from tests.system.commits import held_up_commits
from tests.system.standby import Standby
from tests.system.streams import database_with_streams

WRITE_AND_NOTIFY = "WITH row AS (INSERT INTO t VALUES (1)) SELECT pg_notify('somewhere', '')"


@pytest.fixture
def at_end() -> Iterator[ExitStack]:
    """What has to be closed after the test, the last first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def database(dsn: str, channel: str) -> Iterator[str]:
    """A database with streams, for this test alone."""
    name = "top_" + channel.rpartition(" ")[2]
    with database_with_streams(dsn, name) as its:
        yield its


@contextmanager
def listening(dsn: str, application: str, **keywords: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, application_name=application, **keywords) as conn:
        conn.execute("LISTEN somewhere")
        conn.commit()
        conn.execute("LISTEN somewhere")  # in a transaction, unless the connection is in autocommit mode
        yield conn


def one(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_counts_what_comes_on_channels(dsn: str, new_channel: Callable[[], str]) -> None:
    one, other = new_channel(), new_channel()
    with Hub(dsn) as hub, Top(one, other, "--interval", "0.2", "--dsn", dsn) as top:
        top.expect(lambda: "CHANNELS 2" in top.text and "connecting" not in top.text)
        hub.notify_many([(one, f"number {n}") for n in range(1234)])
        top.expect(lambda: "1,234" in top.line(one) and "number 1233" in top.line(one))
        assert re.search(rf"{other}\s+0\s.*\s0\s+0$", top.line(other))
        top.expect(lambda: re.search(rf"{one}\s+0 ", top.line(one)))  # per second, as nothing comes any more


def test_puts_a_listener_in_a_transaction_first(database: str) -> None:
    with (
        listening(database, "idle one", autocommit=True),
        listening(database, "forgetful"),
        Top("--interval", "0.2", "--dsn", database) as top,
    ):
        top.expect(lambda: "idle one" in top.text)
        names = [number for number, line in enumerate(top.screen) if "forgetful" in line or "idle one" in line]
        assert names == sorted(names)
        assert "! forgetful" in top.screen[names[0]]
        assert "idle in transaction" in top.screen[names[0]]


def test_marks_a_listener_that_does_not_read(database: str) -> None:
    with (
        listening(database, "deaf one", autocommit=True),
        psycopg.connect(database, autocommit=True) as conn,
        Top("--interval", "0.2", "--dsn", database) as top,
    ):
        conn.execute("SELECT pg_notify('somewhere', repeat('x', 7000) || n) FROM generate_series(1, 3000) AS n")
        top.expect(lambda: re.search(r"^! deaf one .* ClientWrite$", top.text, re.MULTILINE))


def test_says_how_many_listeners_there_is_no_room_for(database: str, at_end: ExitStack) -> None:
    for number in range(20):
        at_end.enter_context(listening(database, f"listener {number}", autocommit=True))
    top = at_end.enter_context(Top("--dsn", database))
    top.expect(lambda: re.search(r"LISTENERS 2\d", top.text))
    shown = sum("listener " in line for line in top.screen)
    total = int(re.findall(r"LISTENERS (\d+)", top.text)[0])
    assert top.line("and ", " more").startswith(f"and {total - shown} more")


@pytest.mark.since_postgresql(17)
def test_shows_how_full_the_queue_is(small_queue: TemporaryServer) -> None:
    dsn = small_queue.dsn()
    with listening(dsn, "forgetful"), psycopg.connect(dsn, autocommit=True) as conn, Top("--dsn", dsn) as top:
        conn.execute("SELECT pg_notify('somewhere', repeat('x', 7000) || n) FROM generate_series(1, 32) AS n")
        usage = one(conn, "SELECT pg_notification_queue_usage()") * 100
        assert usage > 40
        top.expect(lambda: f"{usage:.1f} % full" in top.line("NOTIFY queue"))
        assert "\u2588" * 6 in top.line("NOTIFY queue")


def test_shows_who_waits_for_the_lock_of_notify(server: TemporaryServer, at_end: ExitStack) -> None:
    holder, other, admin = (at_end.enter_context(psycopg.connect(server.dsn(), autocommit=True)) for _ in range(3))
    admin.execute("CREATE TABLE t (number int)")
    pools = [at_end.enter_context(ThreadPoolExecutor(1)) for _ in range(2)]
    at_end.enter_context(held_up_commits(server.dsn()))
    for pool, conn in zip(pools, (holder, other), strict=True):
        pool.submit(conn.execute, WRITE_AND_NOTIFY)
    with Top("--dsn", server.dsn()) as top:
        top.expect(lambda: "1 session waits for NOTIFY's lock" in top.line("NOTIFY queue"))


def test_shows_streams_and_their_rates(database: str) -> None:
    with Hub(database) as hub, Top("--interval", "0.5", "--dsn", database) as top:
        invoices, audit = hub.stream("invoices"), hub.stream("audit")
        top.expect(lambda: "STREAMS 0" in top.text)
        audit.append("login")
        top.expect(lambda: re.search(r"audit +[\d.]+ +0 s ago", top.line("audit")))
        invoices.append_many([str(n) for n in range(500)])
        top.expect(lambda: re.search(r"invoices +[\d,]{3,} ", top.line("invoices")))
        rate = float(re.findall(r"invoices +([\d,.]+) ", top.line("invoices"))[0].replace(",", ""))
        assert 500 / 2 < rate <= 500 / 0.5
        assert top.text.index("invoices") < top.text.index("audit")  # the busiest first


def test_counts_entries_of_a_transaction_when_it_commits(database: str) -> None:
    with psycopg.connect(database) as late, Top("--interval", "0.2", "--dsn", database) as top:
        late.execute("SELECT pgpubsub.append('slow', 'x') FROM generate_series(1, 90)")
        with Hub(database) as hub:
            hub.stream("quick").append("y")
        top.expect(lambda: re.search(r"quick +0 ", top.line("quick")))
        late.commit()
        top.expect(lambda: re.search(r"slow +(3|4)\d\d ", top.line("slow")))


def test_shows_how_groups_stand(database: str) -> None:
    with Hub(database) as hub:
        orders = hub.stream("orders")
        orders.append_many(["good", "bad", "worse", "good"])
        for delivery in orders.consume("shipping", attempts=1, follow=False):
            delivery.fail("no") if delivery.entry.payload == "worse" else delivery.acknowledge()
        orders.append_many([str(n) for n in range(1500)])
        with orders.consume("shipping", attempts=2, backoff=3600) as consumer:
            for _ in range(5):
                consumer.get(timeout=10).acknowledge()
            consumer.get(timeout=10).fail("later")
            with Top("--interval", "0.3", "--dsn", database) as top:
                top.expect(lambda: re.search(r"shipping +orders +1,495 +\d+ s +1 +1 +1$", top.line("shipping")))
            asked = {info.name: info for info in orders.groups()}["shipping"]
            found = sample("--dsn", database)["groups"]["groups"][0]
            assert (found["lag"], found["at_least"], found["dead"]) == (asked.lag, False, asked.dead)
            assert abs(found["oldest"] - asked.lag_seconds) < 5


def test_does_not_count_a_long_backlog(database: str) -> None:
    with Hub(database) as hub:
        orders = hub.stream("orders")
        orders.append("first")
        for delivery in orders.consume("slow", follow=False):
            delivery.acknowledge()
        orders.append_many([str(n) for n in range(11_000)])
    with Top("--dsn", database) as top:
        top.expect(lambda: re.search(r"slow +orders +10,000\+ +\d+ s +0 ", top.line("slow")))


def test_without_streams_says_how_to_get_them(dsn: str) -> None:
    done = run("--schema", "elsewhere", "--interval", "0.1", "--dsn", dsn)
    assert done.returncode == 0
    assert "STREAMS  not installed in schema elsewhere: pgpubsub stream install does it" in done.stdout


def test_says_what_is_hidden_from_its_role(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute("DROP ROLE IF EXISTS nobody_special")
        conn.execute("CREATE ROLE nobody_special LOGIN")
    role = psycopg.conninfo.make_conninfo(database, user="nobody_special")
    with listening(database, "forgetful"), Hub(database):
        text = run("--interval", "0.1", "--dsn", role).stdout
        assert re.search(r"^pgpubsub listen .* \(hidden\) ", text, re.MULTILINE)
        assert re.search(
            r"^hidden from nobody_special: \d+ sessions?, which may listen \(GRANT pg_monitor\)$", text, re.M
        )
        assert "STREAMS  role 'nobody_special' may not read the streams in schema 'pgpubsub' (n" in text
        assert "NOTIFY queue" in text
        found = sample("--dsn", role)
        assert found["listeners"]["hidden"] > 0
        assert found["streams"]["why"].endswith('GRANT SELECT ON ALL TABLES IN SCHEMA "pgpubsub" TO "nobody_special"')


def test_goes_on_after_the_server_was_away(server: TemporaryServer, channel: str) -> None:
    with Top(channel, "--interval", "0.2", "--dsn", server.dsn()) as top:
        top.expect(lambda: top.line("connected since") and "not listening" not in top.text)
        server.stop("immediate")
        top.expect(lambda: top.line("RECONNECTING") and top.line("not listening"))
        assert "figures of " in top.line("RECONNECTING")
        server.start()
        top.expect(lambda: top.line("connected since") and "not listening" not in top.text)
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("SELECT pg_notify(%s, 'again')", [channel])
        top.expect(lambda: re.search(r" 1 +1 again", top.line(channel)))  # one notification, after one gap
        top.type(b"q")
        assert top.end() == 0


def test_says_that_the_server_does_not_answer(dsn: str, channel: str) -> None:
    with Proxy(dsn) as proxy, Top(channel, "--interval", "0.2", "--dsn", proxy.dsn()) as top:
        top.expect(lambda: top.line("connected since"))
        proxy.deafen()
        top.expect(lambda: top.line("RECONNECTING") and re.search(r"^no answer for \d s$", top.text, re.MULTILINE))
        proxy.reset()
        proxy.hear()
        top.expect(lambda: top.line("connected since") and "not listening" not in top.text)
        proxy.deafen()
        top.type(b"q")  # which need not wait for it
        assert top.end() == 0


def test_a_standby_is_shown_although_nobody_can_listen_there(server: TemporaryServer, channel: str) -> None:
    with psycopg.connect(server.dsn()) as conn:
        pgpubsub.streams.install(conn)
    with Hub(server.dsn()) as hub:
        hub.stream("audit").append("login")
        for delivery in hub.stream("audit").consume("security", follow=False):
            delivery.acknowledge()
        with Standby(server) as standby, Top(channel, "--interval", "0.2", "--dsn", standby.dsn()) as top:
            top.expect(lambda: top.line("(standby)") and top.line("not listening: ", "standby"))
            top.expect(lambda: re.search(r"audit +0 ", top.line("audit")))
            hub.stream("audit").append_many(["one", "two"])
            top.expect(lambda: re.search(r"security +audit +2 +0 s +0", top.line("security")))


def test_leaves_nothing_locked_and_no_session_behind(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgpubsub top %'"
        with Top("orders", "--interval", "0.1", "--dsn", database) as top:
            top.expect(lambda: "CHANNELS" in top.text and one(conn, sessions) >= 2)
            assert "pgpubsub top" not in "".join(top.screen[1:])  # among the listeners
            top.type(b"q")
            assert top.end() == 0
        eventually(lambda: one(conn, sessions) == 0)


def test_a_table_that_is_locked_is_not_waited_for(database: str) -> None:
    with psycopg.connect(database) as conn:
        conn.execute("LOCK TABLE pgpubsub.stream")
        text = run("--interval", "0.1", "--dsn", database).stdout
        assert "STREAMS  the server did not answer within 500 ms" in text
        assert "NOTIFY queue" in text
