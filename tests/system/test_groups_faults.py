"""Groups whose consumers, writers, connections and servers die, stand still and come back, in processes of their own.

PGPUBSUB_GROUPS_ROUNDS and PGPUBSUB_GROUPS_ENTRIES (in a round) make the campaign longer, as `make chaos` does, and
PGPUBSUB_GROUPS_SEED repeats its choices, although processes repeat nothing exactly.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest

import pgpubsub
from pgpubsub.testing import Proxy, TemporaryServer
from tests.system.commits import be_synchronous
from tests.system.groups import TABLES, Consuming, Line, Program, Writing
from tests.system.standby import Standby
from tests.system.streams import connect, one, until
from tests.system.test_streams_crashes import kill_a_backend, nothing_flushed_in_between

SEED = int(os.environ.get("PGPUBSUB_GROUPS_SEED", random.SystemRandom().randrange(10**9)))
ROUNDS = int(os.environ.get("PGPUBSUB_GROUPS_ROUNDS", "10"))
ENTRIES = int(os.environ.get("PGPUBSUB_GROUPS_ENTRIES", "150"))

LEASE = 1.5

KINDS = {
    "plain": ("plain", "plain", "tasks", "process"),
    "effects": ("transaction", "own_transaction", "tasks_transaction"),
}
"""Of consumers, by group."""

ENDED = (0, -signal.SIGTERM)
"""Exit statuses of who was told to end, perhaps before it had begun."""

Row = tuple[Any, ...]


class Campaign:
    """Writers and consumers of two groups, and what befalls them.

    Args:
        dsn: to the primary, whichever that is.
        directory: for journals.
        proxies: in front of it, one for each group, for a consumer of that.
    """

    def __init__(self, dsn: str, directory: Path, proxies: Sequence[Proxy] = ()) -> None:
        print(f"PGPUBSUB_GROUPS_SEED={SEED}")
        self.dsn = dsn
        self.faults: Counter[str] = Counter()
        self.rounds = 0
        self._begun = monotonic()
        self._directory = directory
        self._random = random.Random(SEED)
        self._proxies = dict(zip(KINDS, proxies, strict=False))
        self._programs: list[Program] = []
        self._writers: list[Program] = []
        self._isolated: set[Program] = set()  # that stood still, or could not hear, at some time
        self._consumers: list[tuple[str, Proxy | None, Program]] = []

    def __enter__(self) -> Self:
        with connect(self.dsn) as admin:
            admin.execute(TABLES)
        try:
            for group in KINDS:
                for proxy in (self._proxies.get(group), None):
                    self._consumers.append((group, proxy, self._consumer(group, proxy)))
            self._writers += [self._writer() for _ in range(2)]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._explain()
        finally:
            self._end()

    def _end(self) -> None:
        for program in self._programs:
            program.kill()

    def _explain(self) -> None:
        print(f"after {self.summary}")
        for program in self._programs:
            if program.process.poll() is None or not program.killed:
                status = program.process.poll()
                print(program.name, status, program.settings, program.journal[-3:], program.errors[-3000:])
        for (id,) in self.rows("SELECT id FROM effects GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 3"):
            print(f"{id} twice:", self.rows("SELECT * FROM effects WHERE id = %s", id))
            print(
                sorted((line, program.name) for program in self._programs for line in program.journal if id in line.ids)
            )
        for table in ("slot", "member", "parked", "acknowledged"):
            print(f"{table}:", self.rows(f"SELECT * FROM pgpubsub.{table} LIMIT 40"))

    @property
    def summary(self) -> str:
        outcomes = Counter(line.what for line in self._lines if line.what != "begin")
        seconds = monotonic() - self._begun
        return (
            f"{self.rounds} rounds, {self.entries} entries, {len(self._programs)} processes, {seconds:.0f} s;"
            f" faults: {dict(self.faults)}; outcomes: {dict(outcomes)}"
        )

    @property
    def entries(self) -> int:
        """That are known to be committed."""
        return sum(program.entries("committed") for program in self._programs)

    @property
    def _lines(self) -> Iterator[Line]:
        for program in self._programs:
            yield from program.journal

    # -- those who take part

    def _start(self, make: Callable[[str], Consuming | Writing]) -> Program:
        program = Program(make, self._directory)
        self._programs.append(program)
        return program

    def _writer(self) -> Program:
        name, seed = f"w{len(self._programs)}", self._random.randrange(10**9)
        return self._start(lambda journal: Writing(self.dsn, journal, name, seed))

    def _consumer(self, group: str, proxy: Proxy | None = None, *, follow: bool = True) -> Program:
        kind, seed = self._random.choice(KINDS[group]), self._random.randrange(10**9)
        batch = self._random.choice((None, None, 7))
        dsn = self.dsn if proxy is None else proxy.dsn()
        return self._start(
            lambda journal: Consuming(
                dsn, self.dsn, journal, group, kind, seed, batch, LEASE, follow=follow, failing=0.02
            )
        )

    def _replace_consumer(self, number: int) -> None:
        group, proxy, _ = self._consumers[number]
        self._consumers[number] = (group, proxy, self._consumer(group, proxy))

    def rows(self, query: Any, *parameters: object) -> list[Row]:
        """What the server says as soon as it answers."""
        found: list[list[Row]] = []

        def asked() -> bool:
            try:
                with connect(self.dsn) as admin:
                    found.append(admin.execute(query, parameters).fetchall())
            except psycopg.OperationalError:
                return False
            return True

        until(asked, "an answer")
        return found[-1]

    def lag(self, *groups: str) -> int:
        """Of the one that is further behind."""
        query = """
        SELECT coalesce(max(entries), (SELECT count(*) FROM pgpubsub.entry))
          FROM pgpubsub.consumer_group CROSS JOIN pgpubsub.group_lag(id) WHERE name = ANY (%s)
        """
        return int(self.rows(query, list(groups or KINDS))[0][0])

    # -- rounds

    def round(self, faults: Sequence[Callable[[], Callable[[], object] | None]], times: int | None = None) -> None:
        """Have writers write, and let one to three things happen meanwhile."""
        share = ENTRIES // len(self._writers)
        before, begun = self.entries, monotonic()
        names = []
        self._round_of = [(writer, len(writer.begun("done"))) for writer in self._writers]
        for writer in self._writers:
            writer.tell(share)
        ends = []
        times = times or self._random.choice((1, 1, 2, 3))
        for place in sorted(self._random.random() for _ in range(times)):
            until(lambda: self._written or self.entries > before + place * ENTRIES * 0.8, "entries")  # noqa: B023
            fault = self._random.choice(faults)
            names.append(fault.__name__)
            ends.append(fault())
        until(lambda: self._written, "entries")
        self._random.shuffle(ends)
        for end in ends:
            if end is not None:
                end()
        until(lambda: self.lag() < 3 * ENTRIES, "the consumers")
        self.rounds += 1
        self.faults.update(names)
        print(f"{self.rounds}: {', '.join(names)}; {monotonic() - begun:.1f} s")
        self._check_up_to_now()

    @property
    def _written(self) -> bool:
        return all(len(writer.begun("done")) > before for writer, before in self._round_of)

    def _settle_down(self, program: Program) -> None:
        """Wait until others have taken over from it, or cannot, since it holds a transaction open."""
        deadline = monotonic() + 3 * LEASE
        query = "SELECT FROM pgpubsub.member WHERE name = %s"
        until(lambda: monotonic() > deadline or not self.rows(query, program.name), "the end of a lease")

    # -- faults

    def kill_consumer(self) -> None:
        number = self._random.randrange(len(self._consumers))
        self._consumers[number][2].kill()
        self._replace_consumer(number)

    def kill_writer(self) -> None:
        number = self._random.randrange(len(self._writers))
        self._writers[number].kill()
        self._writers[number] = writer = self._writer()
        self._round_of[number] = (writer, 0)
        writer.tell(ENTRIES // len(self._writers))

    def pause_consumer(self) -> Callable[[], object]:
        _, _, program = self._random.choice(self._consumers)
        self._isolated.add(program)
        program.send(signal.SIGSTOP)

        def resume() -> None:
            self._settle_down(program)
            program.send(signal.SIGCONT)

        return resume

    def terminate_backends(self) -> None:
        pids = self._backends()
        some = self._random.sample(pids, self._random.randint(1, len(pids)))
        self.rows("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", some)

    def kill_backend(self) -> None:
        try:
            os.kill(self._random.choice(self._backends()), signal.SIGKILL)
        except ProcessLookupError:  # it has ended meanwhile
            pass

    def _backends(self) -> list[int]:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        pids: list[int] = []

        def found() -> bool:
            pids[:] = sorted(pid for (pid,) in self.rows(query))
            return bool(pids)

        until(found, "backends")
        return pids

    def deafen(self) -> Callable[[], object]:
        _, proxy, program = self._random.choice([one for one in self._consumers if one[1] is not None])
        assert proxy is not None
        self._isolated.add(program)
        proxy.deafen(self._random.choice(("to_client", "to_server", "both")))
        resume = self._random.random() < 0.5

        def hear() -> None:
            self._settle_down(program)
            if not resume:
                proxy.reset()
            proxy.hear(resume=resume)

        return hear

    def cut(self) -> None:
        _, proxy, _ = self._random.choice([one for one in self._consumers if one[1] is not None])
        assert proxy is not None
        how: list[Callable[[], object]] = [
            proxy.reset,
            lambda: proxy.cut_after(self._random.randrange(3000)),
            *[partial(proxy.cut_before, pattern) for pattern in (b"COMMIT", b"_pg3_", b"pgpubsub")],
            *[partial(proxy.break_after, pattern) for pattern in (b"COMMIT", b"COMMIT", b"_pg3_", b"pgpubsub")],
        ]
        self._random.choice(how)()

    # -- the end

    def drain(self) -> None:
        """End consumers, one way or the other, and have others handle what is left."""
        for number, (_, _, program) in enumerate(self._consumers):
            if number % 2:
                program.kill()
            else:
                program.send(signal.SIGTERM)
                assert program.wait() in ENDED, program.errors
        members = "SELECT FROM pgpubsub.member JOIN pgpubsub.consumer_group AS its ON its.id = consumer_group"
        for group in KINDS:
            until(lambda: self._finish(group), f"the end of {group}", 120)  # noqa: B023
        until(lambda: not self.rows(members), "the end of memberships")

    def _finish(self, group: str) -> bool:
        program = self._consumer(group, follow=False)
        assert program.wait(120) == 0, program.errors
        members = """
        SELECT FROM pgpubsub.member JOIN pgpubsub.consumer_group AS its ON its.id = consumer_group WHERE its.name = %s
        """
        return self.lag(group) == 0 and not self.rows(members, group)

    # -- what has to be true

    def _check_up_to_now(self) -> None:
        assert self.rows("SELECT id, count(*) FROM effects GROUP BY id HAVING count(*) > 1") == []
        strange = "SELECT id FROM effects UNION ALL SELECT id FROM handled EXCEPT SELECT id FROM pgpubsub.entry"
        assert self.rows(strange) == [], "they were not committed"
        acknowledged = Counter(id for line in self._lines if line.what == "acknowledged" for id in line.ids)
        assert [id for id, times in acknowledged.items() if times > 1] == [], "acknowledged twice"
        for program in self._programs:
            assert program.killed or program.process.poll() in (None, *ENDED), program.errors
            assert program.errors == ""
            assert [line for line in program.journal if line.what.startswith(("stopped", "gap"))] == []

    def check(self) -> None:
        """All was handled, once where that can be promised, and in order; and nothing is left behind."""
        self._check_up_to_now()
        ids = {id for (id,) in self.rows("SELECT id FROM pgpubsub.entry")}
        committed = {id for line in self._lines if line.what == "committed" for id in line.ids}
        assert ids >= committed.union(id for (id,) in self.rows("SELECT id FROM written")), "the writers are mistaken"
        assert ids - {id for (id,) in self.rows("SELECT id FROM handled")} == set()
        assert ids - {id for (id,) in self.rows("SELECT id FROM effects")} == set()
        sums = "SELECT coalesce(key, ''), sum(length(payload)) FROM pgpubsub.entry GROUP BY 1"
        assert set(self.rows(sums)) == set(self.rows("SELECT key, sum FROM total"))
        for table in ("effects", "handled"):
            assert self.rows(DISORDER.format(table=table)) == [], table
        self._check_acknowledged()
        assert self.rows("SELECT * FROM pgpubsub.slot WHERE member IS NOT NULL OR in_flight || held <> '{}'") == []
        for table in ("member", "parked", "acknowledged"):
            assert self.rows(f"SELECT * FROM pgpubsub.{table}") == [], table

    def _check_acknowledged(self) -> None:
        """Only who could not know that gets an entry afterwards, and is told at last that the lease was lost, unless
        its handler has failed by itself before it came to acknowledge."""
        at = {id: line.at for line in self._lines if line.what == "acknowledged" for id in line.ids}
        for program in self._programs:
            if program.settings.group != "plain":
                continue
            for begin, after in pairwise([*program.journal, Line(0, "", [], 0)]):
                if begin.what == "begin":
                    again = [id for id in begin.ids if begin.at > at.get(id, begin.at)]
                    assert not again or after.what != "acknowledged", f"{program.name}: {begin} {after}"
                    late = [id for id in again if begin.at > at[id] + 2]
                    assert not late or program in self._isolated, f"{program.name}: {begin}"


DISORDER = """
SELECT * FROM (
    SELECT key, id, lag(id) OVER (PARTITION BY key ORDER BY first.n) AS before
      FROM (SELECT id, min(n) AS n FROM {table} GROUP BY id) AS first JOIN pgpubsub.entry USING (id)
     WHERE key IS NOT NULL) AS line
 WHERE id < before
"""


@pytest.mark.timeout(ROUNDS * 20 + 180)
def test_everything_is_handled_whatever_happens(
    stream_server: TemporaryServer, tmp_path: Path, at_end: ExitStack
) -> None:
    def restart_fast() -> None:
        stream_server.restart("fast")

    def restart_immediate() -> None:
        stream_server.restart("immediate")

    proxies = [at_end.enter_context(Proxy(stream_server.dsn())) for _ in KINDS]
    with Campaign(stream_server.dsn(), tmp_path, proxies) as campaign:
        often = [campaign.kill_consumer, campaign.pause_consumer, campaign.terminate_backends, campaign.cut]
        faults = [*often, *often, campaign.deafen, campaign.kill_writer, campaign.kill_backend]
        for _ in range(ROUNDS):
            campaign.round([*faults, restart_fast, restart_immediate])
        campaign.drain()
        campaign.check()
        print(campaign.summary)


# -- one at a time


@pytest.fixture
def start(stream_server: TemporaryServer, tmp_path: Path, at_end: ExitStack) -> Callable[..., Program]:
    """Starts consumers of a group on an empty stream."""
    with connect(stream_server.dsn()) as admin:
        admin.execute(TABLES)
    dsn = stream_server.dsn()

    def start(kind: str, **options: Any) -> Program:
        options = {"lease": LEASE, **options}
        return at_end.enter_context(Program(lambda path: Consuming(dsn, dsn, path, "g", kind, **options), tmp_path))

    return start


def append(dsn: str, *payloads: str, key: str | None = None) -> list[int]:
    with connect(dsn) as admin:
        return [pgpubsub.append(admin, "s", payload, key) for payload in payloads]


def handled(admin: psycopg.Connection[Any], kind: str) -> list[int]:
    """Ids, in the order of handling."""
    query: Any = f"SELECT id FROM {'effects' if 'transaction' in kind else 'handled'} ORDER BY n"
    return [id for (id,) in admin.execute(query)]


def lag(admin: psycopg.Connection[Any]) -> int:
    query = "SELECT coalesce(sum(entries), -1) FROM pgpubsub.consumer_group CROSS JOIN pgpubsub.group_lag(id)"
    return int(one(admin, query))


def is_clean(admin: psycopg.Connection[Any]) -> bool:
    """Whether a group that nobody consumes has left nothing."""
    query = """
    SELECT count(*) FROM (
        SELECT FROM pgpubsub.member UNION ALL SELECT FROM pgpubsub.parked UNION ALL SELECT FROM pgpubsub.acknowledged
        UNION ALL SELECT FROM pgpubsub.slot WHERE member IS NOT NULL OR in_flight || held <> '{}') AS rest
    """
    return int(one(admin, query)) == 0


def end(*programs: Program) -> None:
    for program in programs:
        program.send(signal.SIGTERM)
        assert program.wait() == 0, program.errors
        assert program.errors == ""


@pytest.mark.parametrize("kind", ["plain", "transaction", "own_transaction"])
def test_who_slept_through_the_lease_counts_no_more(
    stream_server: TemporaryServer, start: Callable[..., Program], kind: str
) -> None:
    ids = append(stream_server.dsn(), "a", "b", "c", key="k")
    sleeping = start(kind, gate="after", lease=1)
    sleeping.until("after")
    with connect(stream_server.dsn()) as admin:
        sleeping.send(signal.SIGSTOP)
        other = start(kind)
        until(lambda: lag(admin) == 0, "the end")
        assert other.begun()[0].ids == ids[:1]
        assert other.begun()[0].attempt == 2
        sleeping.send(signal.SIGCONT)
        sleeping.tell()
        sleeping.until("lost" if kind == "plain" else "over")
        expected = [ids[0], *ids] if kind == "plain" else ids  # it had noted that before
        assert handled(admin, kind) == expected
        for program in (sleeping, other):
            end(program)
        assert len(sleeping.journal) == 3
        assert handled(admin, kind) == expected
        until(lambda: is_clean(admin))


def test_a_lease_does_not_end_before_the_transaction_that_acknowledged(
    stream_server: TemporaryServer, start: Callable[..., Program]
) -> None:
    ids = append(stream_server.dsn(), "a", "b", "c", key="k")
    sleeping = start("own_transaction", gate="acknowledged", lease=1)
    sleeping.until("acknowledged")
    with connect(stream_server.dsn()) as admin:
        sleeping.send(signal.SIGSTOP)
        other = start("own_transaction")
        until(lambda: one(admin, "SELECT count(*) FROM pgpubsub.member") == 2)
        over = "SELECT until < clock_timestamp() FROM pgpubsub.member WHERE name = %s"
        until(lambda: one(admin, over, sleeping.name), "the end of the lease")
        others = "SELECT until FROM pgpubsub.member WHERE name = %s"
        before = one(admin, others, other.name)
        until(lambda: one(admin, others, other.name) > before, "another look at it")
        assert not other.begun()
        sleeping.send(signal.SIGCONT)
        sleeping.tell()
        sleeping.until("over")
        assert handled(admin, "own_transaction")[:1] == ids[:1]
        sleeping.kill()
        until(lambda: lag(admin) == 0, "the end")
        assert handled(admin, "own_transaction") == ids
        assert other.begun()[0].ids == ids[1:2]
        until(lambda: one(admin, "SELECT count(*) FROM pgpubsub.member") == 1, "the end of the killed one's lease")
        end(other)
        until(lambda: is_clean(admin))


def test_who_was_killed_is_replaced_within_seconds_although_its_lease_is_long(
    stream_server: TemporaryServer, start: Callable[..., Program]
) -> None:
    ids = append(stream_server.dsn(), "a", "b", key="k")
    killed = start("transaction", gate="after", lease=1000)
    killed.until("after")
    other = start("transaction", lease=1000)
    with connect(stream_server.dsn()) as admin:
        until(lambda: one(admin, "SELECT count(*) FROM pgpubsub.member") == 2)
        killed.kill()
        begun = monotonic()
        until(lambda: lag(admin) == 0, "the end")
        assert monotonic() - begun < 15
        assert [(line.ids, line.attempt) for line in other.begun()] == [([ids[0]], 2), ([ids[1]], 1)]
        end(other)
        until(lambda: is_clean(admin))


@pytest.mark.parametrize("kind", ["plain", "transaction", "own_transaction", "process"])
def test_a_consumer_whose_backends_are_terminated_goes_on(
    stream_server: TemporaryServer, start: Callable[..., Program], kind: str
) -> None:
    """While it has something in hand, and while it waits."""
    first = append(stream_server.dsn(), "a", "b", key="k")
    consumer = start(kind, gate="after", lease=1000)
    with connect(stream_server.dsn()) as admin:
        for number in range(3):
            consumer.until("after", number + 1)
            admin.execute(TERMINATE)
            consumer.tell()
        for _ in first:
            consumer.tell()
        until(lambda: lag(admin) == 0, lambda: f"the end {consumer.journal} {consumer.errors}")
        admin.execute(TERMINATE)
        last = append(stream_server.dsn(), "c", key="k")
        for _ in range(5):
            consumer.tell()
        until(lambda: lag(admin) == 0, "the end")
        firsts = list(dict.fromkeys(handled(admin, kind)))
        assert firsts == first + last
        if "transaction" in kind:
            assert handled(admin, kind) == firsts
        end(consumer)
        until(lambda: is_clean(admin))


TERMINATE = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


def test_what_was_begun_before_a_crash_counts_once_after_it(
    stream_server: TemporaryServer, start: Callable[..., Program]
) -> None:
    """A handler goes on, and acknowledges, before its consumer knows. That it had begun may be forgotten."""
    consumer = start("own_transaction", gate="after", lease=1000)
    with connect(stream_server.dsn()) as admin:
        until(lambda: one(admin, "SELECT count(member) FROM pgpubsub.slot") == 32, "the slots")
        member = one(admin, "SELECT id FROM pgpubsub.member")
    with nothing_flushed_in_between(stream_server):
        ids = append(stream_server.dsn(), "a")
        consumer.until("after")
        consumer.send(signal.SIGSTOP)
        recover = kill_a_backend(stream_server)
    recover()
    with connect(stream_server.dsn()) as admin:
        with suppress(psycopg.errors.ObjectNotInPrerequisiteState), admin.transaction():
            admin.execute("INSERT INTO effects (consumer, id) VALUES ('the handler', %s)", ids)
            admin.execute("SELECT pgpubsub.acknowledge(%s, %s::bigint[])", [member, ids])
        consumer.send(signal.SIGCONT)
        for _ in range(3):
            consumer.tell()
        until(lambda: lag(admin) == 0, "the end")
        end(consumer)
        until(lambda: is_clean(admin))
        assert handled(admin, "own_transaction") == ids


def test_a_prepared_transaction_that_acknowledges_outlives_a_crash(stream_server: TemporaryServer) -> None:
    """The membership has ended with the server, but what was prepared in its name may still be committed."""
    dsn = stream_server.dsn()
    with pgpubsub.Hub(dsn) as hub:
        stream = hub.stream("s")
        stream.append("a")
        with stream.consume("billing", lease=1) as consumer:
            delivery = consumer.get(20)
            with connect(dsn) as user:
                user.execute("CREATE TABLE once (id bigint)")
                user.execute("BEGIN")
                user.execute("INSERT INTO once VALUES (%s)", [delivery.id])
                delivery.acknowledge(user)
                user.execute("PREPARE TRANSACTION 'handled'")
            stream_server.restart("immediate")
            stream.append("b")
            with pytest.raises(TimeoutError):  # that member's slots are free when it is known what became of it
                consumer.get(3)
            with connect(dsn) as admin:
                admin.execute("COMMIT PREPARED 'handled'")
                found = consumer.get(20)
                found.acknowledge()
                assert found.payload == "b"
                until(lambda: lag(admin) == 0, "the end")
                assert one(admin, "SELECT count(*) FROM once") == 1
                admin.execute("DROP TABLE once")


@pytest.mark.parametrize("kind", ["process", "tasks_process"])
@pytest.mark.parametrize("concurrency", [1, 3])
def test_what_is_in_hand_upon_sigterm_is_finished(
    stream_server: TemporaryServer, start: Callable[..., Program], kind: str, concurrency: int
) -> None:
    append(stream_server.dsn(), *map(str, range(100)))
    consumer = start(kind, gate="after", concurrency=concurrency)
    consumer.until("after", concurrency)
    consumer.send(signal.SIGTERM)

    def has_ended() -> bool:
        consumer.tell()
        return consumer.process.poll() is not None

    until(has_ended, "its end")
    assert (consumer.wait(), consumer.errors) == (0, "")
    with connect(stream_server.dsn()) as admin:
        finished = len(consumer.begun())
        assert concurrency <= finished == 100 - lag(admin) < 50
        other = start("plain", follow=False)
        assert other.wait() == 0, other.errors
        assert [line.attempt for line in other.begun()] == [1] * (100 - finished)
        assert lag(admin) == 0
        until(lambda: is_clean(admin))


@pytest.mark.parametrize("batch", [None, 10])
def test_what_kills_its_consumer_each_time_is_set_aside_at_last(
    stream_server: TemporaryServer, start: Callable[..., Program], batch: int | None
) -> None:
    """Somebody starts the process again whenever it has died."""
    ids = append(stream_server.dsn(), *(["good"] * 7), "poison", *(["good"] * 7))
    deaths = 0
    with connect(stream_server.dsn()) as admin:
        while lag(admin):
            consumer = start("process", poison="poison", attempts=3, follow=False, batch=batch, lease=1000)
            status = consumer.wait()
            assert status in (0, 1)
            assert consumer.errors == ""
            deaths += status
            assert deaths < 10
        assert deaths == 3
        assert set(handled(admin, "process")) == set(ids) - {ids[7]}
        letters = admin.execute("SELECT id, attempts, error FROM pgpubsub.parked").fetchall()
        assert letters == [(ids[7], 3, "the member that had it ended, or lost its lease")]
        until(lambda: not admin.execute("SELECT FROM pgpubsub.member").fetchall())


# -- failover


@pytest.mark.timeout(180)
def test_a_synchronous_standby_takes_over_and_everything_is_handled(
    stream_server: TemporaryServer, make_stream_standby: Callable[..., Standby], tmp_path: Path
) -> None:
    standby = make_stream_standby()
    dsn = (
        f"host=127.0.0.1,127.0.0.1 port={stream_server.port},{standby.server.port} user=postgres dbname=postgres"
        " target_session_attrs=read-write"
    )

    def fail_over() -> None:
        stream_server.stop("immediate")
        standby.promote()

    with Campaign(dsn, tmp_path) as campaign:
        with connect(stream_server.dsn()) as admin:
            be_synchronous(admin)
        campaign.round([campaign.kill_consumer, campaign.terminate_backends])
        campaign.round([fail_over], 1)
        campaign.round([campaign.kill_consumer, campaign.terminate_backends])
        campaign.drain()
        campaign.check()
        print(campaign.summary)
