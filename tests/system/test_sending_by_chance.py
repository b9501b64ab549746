"""Callers send all the time, connections break in every way, and in the end whatever each was told turns out true.

A failure names its seed, although threads and servers repeat nothing exactly; PGPUBSUB_SENDING_SECONDS=300 has it try
for longer.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import psycopg
import pytest

from pgpubsub import AsyncHub, Hub, PayloadError, PubSubError, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.testing import TemporaryServer
from tests.contract.faces import HUB_KINDS, AnyHub, Covered, Worker
from tests.contract.sending import Foreign, Gate, sending_pids
from tests.system.test_hub_server_faults import until

SECONDS = float(os.environ.get("PGPUBSUB_SENDING_SECONDS", "10")) / len(HUB_KINDS)
SEED = int(os.environ.get("PGPUBSUB_SENDING_SEED", random.SystemRandom().randrange(10**9)))


class Try(NamedTuple):
    """What a caller wants to send, and what it was told."""

    texts: list[tuple[str, str]]
    bad: bool
    outcome: BaseException | None

    @property
    def surely_sent(self) -> bool:
        return self.outcome is None

    @property
    def surely_not_sent(self) -> bool:
        return isinstance(self.outcome, SendTimeout | ServerRefused | PayloadError)


class Campaign:
    """Callers that send all the time, and what was told to each."""

    def __init__(self, seed: int, seconds: float) -> None:
        self.random = random.Random(seed)
        self.stop = threading.Event()
        self.timer = threading.Timer(seconds, self.stop.set)
        self.tries: list[list[Try]] = []

    def wishes(self, caller: int) -> Iterator[list[tuple[str, str]]]:
        """What a caller sends, one after the other: texts that nobody else has, and some that all have."""
        number = 0
        while not self.stop.is_set():
            number += 1
            text, channel = f"{caller} {number}", self.random.choice("ab")
            match self.random.choices(("one", "same", "long", "bad", "many", "bad many"), (10, 3, 2, 1, 3, 1))[0]:
                case "one":
                    yield [(channel, text)]
                case "same":
                    yield [(channel, "same")]
                case "long":
                    yield [(channel, f"{text} {'é' * self.random.randrange(3000, 12_000)}")]
                case "bad":
                    yield [(channel, f"日本 {text}")]
                case kind:
                    pairs = [(self.random.choice("ab"), f"{text} {self.random.randrange(9)}") for _ in range(12)]
                    yield pairs if kind == "many" else [*pairs, (channel, "日本")]

    def note(self, tries: list[Try], texts: list[tuple[str, str]], outcome: BaseException | None) -> None:
        bad = any("日本" in text for _, text in texts)
        tries.append(Try(texts, bad, outcome))

    def send_in_a_thread(self, hub: Hub, caller: int) -> None:
        tries: list[Try] = []
        self.tries.append(tries)
        for texts in self.wishes(caller):
            try:
                hub.notify(*texts[0]) if len(texts) == 1 else hub.notify_many(texts)
            except PubSubError as error:
                self.note(tries, texts, error)
            else:
                self.note(tries, texts, None)

    async def send_in_a_task(self, hub: AsyncHub, caller: int) -> None:
        """Now and then it is impatient."""
        tries: list[Try] = []
        self.tries.append(tries)
        for texts in self.wishes(caller):
            impatient = self.random.random() < 0.2
            try:
                async with asyncio.timeout(self.random.uniform(0, 0.005) if impatient else None):
                    await (hub.notify(*texts[0]) if len(texts) == 1 else hub.notify_many(texts))
            except (PubSubError, TimeoutError) as error:
                self.note(tries, texts, error)
            else:
                self.note(tries, texts, None)

    async def send_in_tasks(self, hub: AsyncHub) -> None:
        async with asyncio.TaskGroup() as group:
            for caller in range(12):
                group.create_task(self.send_in_a_task(hub, caller))

    def send(self, hub: AnyHub) -> list[Worker]:
        """Begin."""
        self.timer.start()
        if isinstance(hub, Covered):
            future = asyncio.run_coroutine_threadsafe(self.send_in_tasks(hub.hub), hub.loop.loop)
            return [Worker(future.result)]
        assert isinstance(hub, Hub)
        return [Worker(partial(self.send_in_a_thread, hub, caller)) for caller in range(12)]

    def harm(self, gate: Gate, admin: psycopg.Connection[Any]) -> None:
        """Break the connection that sends, in one way or another, until the end."""
        chance = self.random

        def terminate() -> None:
            for pid in sending_pids(admin):
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])

        def delay() -> None:
            gate.delay = chance.choice((0, 0, 0.001, 0.02))

        def have_an_outage() -> None:
            gate.refuse()
            gate.reset()
            self.stop.wait(chance.uniform(0, 1))
            gate.accept()

        def deafen() -> None:
            gate.deafen(chance.choice(("to_client", "to_server", "both")))
            self.stop.wait(chance.uniform(0, 1.5))
            gate.hear(resume=chance.random() < 0.7)

        patterns = (b"same", b"pgpubsub_all", b"pgpubsub/1")
        faults: list[Callable[[], object]] = [
            terminate,
            delay,
            have_an_outage,
            deafen,
            gate.reset,
            lambda: gate.cut_after(chance.randrange(2000)),
            lambda: gate.cut_before(chance.choice(patterns)),
            lambda: gate.break_after(chance.choice(patterns)),
        ]
        while not self.stop.wait(chance.uniform(0.02, 0.4)):
            chance.choice(faults)()
        gate.delay = 0

    def check(self, arrived: list[tuple[str, str]]) -> Counter[str]:
        """What each was told is true. Returns how often what was told."""
        counts = Counter(arrived)
        places = {pair: place for place, pair in reversed([*enumerate(arrived)])}
        told: Counter[str] = Counter()
        for tries in self.tries:
            last = -1
            for one in tries:
                told[type(one.outcome).__name__] += 1
                if one.texts[0][1] != "same":
                    last = self.check_one(one, counts, places, last, arrived)
        same = [one for tries in self.tries for one in tries if one.texts[0][1] == "same"]
        for channel in "ab":
            sure = [one.surely_sent for one in same if not one.surely_not_sent and one.texts[0][0] == channel]
            assert sum(sure) <= counts[channel, "same"] <= len(sure)
        assert not [text for _, text in arrived if "日本" in text]
        return told

    def check_one(
        self, one: Try, counts: Counter[tuple[str, str]], places: dict[tuple[str, str], int], last: int, arrived: Any
    ) -> int:
        wanted = Counter(one.texts)
        got = {pair: counts[pair] for pair in wanted}
        assert got == wanted or not any(got.values()), f"in part, or twice: {one}"
        assert not (one.bad and one.surely_sent), one
        assert one.bad or not isinstance(one.outcome, ServerRefused | PayloadError), f"it was another's fault: {one}"
        assert got == wanted or not one.surely_sent, f"it was not sent: {one}"
        assert got != wanted or not one.surely_not_sent, f"it was sent: {one}"
        if got != wanted:
            return last
        place = places[one.texts[0]]
        assert arrived[place : place + len(one.texts)] == one.texts, "out of order, or something stands between"
        if not one.surely_sent:
            return last  # it may have come late, when nobody waited for it any more
        assert place > last, f"out of order: {one}"
        return place


@pytest.fixture
def latin1(session_server: TemporaryServer) -> Iterator[str]:
    """A database that cannot express every text."""
    with psycopg.connect(session_server.dsn(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
        yield session_server.dsn(dbname="latin1")
        admin.execute("DROP DATABASE latin1 WITH (FORCE)")


@pytest.mark.timeout(SECONDS * 3 + 120)
def test_whatever_happens_what_each_is_told_is_true(new_hub: Callable[..., AnyHub], hub_kind: str, latin1: str) -> None:
    campaign = Campaign(SEED + HUB_KINDS.index(hub_kind), SECONDS)
    encoding = campaign.random.choice(("UTF8", "LATIN1"))  # where it is refused: by the server or before
    with (
        Gate(latin1) as gate,
        Foreign(latin1, "a", "b") as foreign,
        psycopg.connect(latin1, autocommit=True) as admin,
        gate.hub(new_hub, latin1, send_timeout=1.0, client_encoding=encoding, connect_timeout=2) as hub,
    ):
        workers = campaign.send(hub)
        harming = Worker(partial(campaign.harm, gate, admin))
        while any(worker.busy for worker in workers):
            foreign.look()
        assert [worker.outcome() for worker in [*workers, harming]] == [None] * (len(workers) + 1)
        ends = [f"end {number}" for number in range(1000)]
        until(lambda: sent(hub, ends))
        foreign.until(ends[0])
        try:
            told = campaign.check(foreign.joined)
        except AssertionError as error:
            error.add_note(f"PGPUBSUB_SENDING_SEED={SEED}")
            raise
        print(told)
        assert told["NoneType"]
        assert told["SendUncertain"]


def sent(hub: AnyHub, texts: list[str]) -> bool:
    """Send the first of `texts`, which is left if that has succeeded: what breaks connections may still be armed."""
    try:
        hub.notify("a", texts[0])
    except (SendUncertain, SendTimeout):
        del texts[0]
        return False
    return True
