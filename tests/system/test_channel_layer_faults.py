"""The channel layer when its server restarts, crashes, freezes, and when connections break at random."""

from __future__ import annotations

import asyncio
import functools
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from channels.exceptions import ChannelFull
from psycopg.conninfo import make_conninfo

import pgpubsub
from pgpubsub.contrib.channels import PostgresChannelLayer, install
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import PATIENCE
from tests.contract.owners import use_django
from tests.system.pgbouncer import PgBouncer, PoolMode
from tests.system.processes import with_children
from tests.system.standby import Standby
from tests.system.test_hub_server_faults import frozen

Make = Callable[..., PostgresChannelLayer]

SECONDS = float(os.environ.get("PGPUBSUB_LAYER_SECONDS", "4"))


@pytest.fixture
def make(dsn: str) -> Iterator[Make]:
    """Makes layers: each is what a process of its own has."""
    use_django(dsn)
    made = []

    def make_one(conninfo: Any, **options: Any) -> PostgresChannelLayer:
        made.append(PostgresChannelLayer(conninfo, **options))
        return made[-1]

    yield make_one
    for layer in made:
        layer.close_now()


def run(coroutine: Any, seconds: float = PATIENCE) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(seconds):
            return await coroutine

    return asyncio.run(bounded())


def prepare(dsn: str) -> None:
    with psycopg.connect(dsn) as conn:
        install(conn)


async def certainly(send: Callable[[], Any]) -> None:
    """Send until nobody doubts that it was sent."""
    while True:
        try:
            await send()
            break
        except (pgpubsub.NotLive, pgpubsub.SendUncertain, ChannelFull):
            await asyncio.sleep(0.01)


def test_messages_survive_a_restart_and_groups_a_crash(server: TemporaryServer, make: Make) -> None:
    prepare(server.dsn())
    one, other = make(server.dsn()), make(server.dsn())

    async def main() -> None:
        mine = await one.new_channel()
        await one.group_add("group", mine)
        await one.send(mine, {"number": 0})
        assert await one.receive(mine) == {"number": 0}
        await other.send("waiting", {"number": 1})
        receiving = asyncio.create_task(one.receive(mine))
        await asyncio.to_thread(server.restart)
        assert await one.receive("waiting") == {"number": 1}
        await certainly(lambda: other.group_send("group", {"number": 2}))
        assert (await receiving)["number"] == 2

        receiving = asyncio.create_task(one.receive(mine))
        await asyncio.to_thread(server.restart, "immediate")
        await certainly(lambda: other.group_send("group", {"number": 3}))
        assert (await receiving)["number"] == 3

    run(main())


def test_a_server_that_freezes_holds_nobody_up_for_longer_than_the_timeout(server: TemporaryServer, make: Make) -> None:
    prepare(server.dsn())
    layer = make(server.dsn(), timeout=1.0)

    async def main() -> None:
        await layer.send("some", {"number": 0})
        with frozen(*with_children(server.pid)), pytest.raises((pgpubsub.NotLive, pgpubsub.SendUncertain)):
            await layer.send("some", {"number": 1})
        assert await layer.receive("some") == {"number": 0}

    run(main(), 60)


def test_a_name_that_leads_to_a_standby_for_a_while_is_no_end(
    server: TemporaryServer, make_standby: Callable[[TemporaryServer], Standby], make: Make
) -> None:
    prepare(server.dsn())
    standby = make_standby(server)
    where = [server.dsn()]
    layer = make(lambda: where[0], timeout=1.0)

    async def main() -> None:
        mine = await layer.new_channel()
        await layer.send(mine, {"number": 0})
        assert await layer.receive(mine) == {"number": 0}
        receiving = [asyncio.create_task(layer.receive(channel)) for channel in (mine, "normal")]
        where[0] = standby.dsn()
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )
        with pytest.raises(pgpubsub.NotLive, match="it is a standby"):
            await layer.send("some", {})
        where[0] = server.dsn()
        for channel in (mine, "normal"):
            await certainly(functools.partial(layer.send, channel, {"number": 1}))
        assert await asyncio.gather(*receiving) == [{"number": 1}] * 2

    run(main(), 60)


def test_a_standby_that_is_met_first_is_waited_for(
    server: TemporaryServer, make_standby: Callable[[TemporaryServer], Standby], make: Make
) -> None:
    prepare(server.dsn())
    standby = make_standby(server)
    layer = make(standby.dsn(), timeout=1.0)

    async def main() -> None:
        with pytest.raises(pgpubsub.NotLive, match="standby"):
            await layer.send("some", {"number": 0})
        standby.promote()
        await certainly(functools.partial(layer.send, "some", {"number": 1}))
        assert await layer.receive("some") == {"number": 1}

    run(main(), 60)


def test_a_transaction_pooler_is_refused(
    session_server: TemporaryServer, make_pgbouncer: Callable[[TemporaryServer, PoolMode], PgBouncer], make: Make
) -> None:
    prepare(session_server.dsn())
    layer = make(make_pgbouncer(session_server, "transaction").dsn())
    with pytest.raises(pgpubsub.UnusableDeployment, match="pool"):
        run(layer.receive("some"))


class Campaign:
    """Writers and readers of some channels, who count."""

    def __init__(self, writer: PostgresChannelLayer, reader: PostgresChannelLayer) -> None:
        self.writer = writer
        self.reader = reader
        self.until = asyncio.get_running_loop().time() + SECONDS
        self.sent: dict[str, list[int]] = {}
        self.doubtful: set[tuple[str, int]] = set()
        self.received: dict[str, list[int]] = {}

    @property
    def goes_on(self) -> bool:
        return asyncio.get_running_loop().time() < self.until

    async def run(self, channel: str) -> None:
        self.sent[channel], self.received[channel] = [], []
        await asyncio.gather(self.write(channel), self.read(channel))

    async def write(self, channel: str) -> None:
        number = 0
        while self.goes_on:
            number += 1
            try:
                await self.writer.send(channel, {"number": number})
                self.sent[channel].append(number)
            except pgpubsub.SendUncertain:
                self.doubtful.add((channel, number))
            except (pgpubsub.NotLive, ChannelFull):
                await asyncio.sleep(0.01)
        await certainly(lambda: self.writer.send(channel, {"number": -1}))

    async def read(self, channel: str) -> None:
        while (number := (await self.reader.receive(channel))["number"]) >= 0:
            self.received[channel].append(number)

    async def break_connections(self, admin: psycopg.Connection[Any], name: str, chance: random.Random) -> None:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        while self.goes_on:
            await asyncio.sleep(chance.uniform(0.02, 0.3))
            pids = [pid for (pid,) in admin.execute(query, [name])]
            for pid in chance.sample(pids, min(len(pids), chance.randrange(1, 4))):
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])

    def check(self) -> None:
        for channel, numbers in self.received.items():
            doubtful = {number for its, number in self.doubtful if its == channel}
            assert numbers == sorted(set(numbers)), "in order, and once"
            assert set(self.sent[channel]) <= set(numbers) <= set(self.sent[channel]) | doubtful
        assert sum(map(len, self.received.values())) > 100


def test_whatever_breaks_nothing_is_lost_and_nothing_comes_twice(session_server: TemporaryServer, make: Make) -> None:
    """Connections of all are ended at random. What `send` said was sent is received, in order, once; what it was
    uncertain of, at most once."""
    prepare(session_server.dsn())
    name = f"campaign {os.getpid()}"
    dsn = make_conninfo(session_server.dsn(), application_name=name)
    writer, reader = make(dsn, capacity=1000), make(dsn, capacity=1000)
    seed = random.randrange(2**32)
    print("seed", seed)

    async def main() -> None:
        campaign = Campaign(writer, reader)
        channels = [await reader.new_channel() for _ in range(6)] + ["normal"]
        with psycopg.connect(session_server.dsn(), autocommit=True) as admin:
            breaking = campaign.break_connections(admin, name, random.Random(seed))
            await asyncio.gather(breaking, *map(campaign.run, channels))
        campaign.check()

    run(main(), SECONDS + 60)
