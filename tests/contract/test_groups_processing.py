"""What `process` does beside calling the handler: tasks and threads, what ends it, and what does not."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg
import pytest

from pgpubsub import AsyncHub, StreamsNotInstalled
from tests.contract.faces import PATIENCE, AnyHub, Worker
from tests.contract.groups import administer, consume, info, process
from tests.contract.sending import wait_until, words
from tests.contract.streams import KINDS, AnyStream, open_stream

NewHub = Callable[..., AnyHub]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_in_hand_is_finished_when_the_hub_is_closed(new_hub: NewHub, installed: str, channel: str) -> None:
    hub, other = new_hub(installed), open_stream(new_hub(installed), channel)
    other.append_many(words(3))
    begun, go_on = threading.Event(), threading.Event()

    def handler(entry: Any) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    working = Worker(lambda: process(open_stream(hub, channel), "billing", handler))
    assert begun.wait(PATIENCE)
    closing = Worker(lambda: hub.close(PATIENCE))
    assert closing.busy
    go_on.set()
    assert working.outcome() is None
    assert closing.outcome() is None
    assert info(other, "billing").lag == 2
    with consume(other, "billing") as consumer:
        assert [consumer.get(PATIENCE).attempt for _ in range(2)] == [1, 1]


def test_as_many_handlers_may_block_as_are_asked_for(stream: AnyStream) -> None:
    stream.append_many(words(40))
    together = threading.Barrier(40)
    process(stream, "billing", lambda entry: together.wait(PATIENCE), concurrency=40, follow=False)
    assert info(stream, "billing").lag == 0


def test_what_stands_in_the_way_is_raised_as_it_is(hub: AnyHub, dsn: str, channel: str) -> None:
    stream = open_stream(hub, channel, schema="nowhere")
    with pytest.raises(StreamsNotInstalled):
        process(stream, "billing", print, concurrency=3)


@pytest.mark.parametrize("hub_kind", ["Hub"])  # a loop ends at once with it
def test_what_is_no_exception_ends_all_workers(stream: AnyStream) -> None:
    stream.append_many(words(5))

    def handler(entry: Any) -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        process(stream, "billing", handler, concurrency=3, attempts=100)


def test_sigterm_ends_a_program_in_which_nothing_is_processed_any_more(installed: str, channel: str) -> None:
    """Also if the last one was in another thread, where nobody may say what a signal does."""
    program = """if True:
        import os, signal, sys, threading
        import pgpubsub

        other_has_begun, main_is_done = threading.Event(), threading.Event()

        def wait(entry):
            other_has_begun.set()
            main_is_done.wait()

        with pgpubsub.Hub(sys.argv[1]) as hub:
            stream = hub.stream(sys.argv[2])
            stream.append("a")
            other = threading.Thread(target=lambda: stream.process("other", wait, follow=False))

            def begin(entry):
                other.start()
                other_has_begun.wait()

            stream.process("main", begin, follow=False)
            main_is_done.set()
            other.join()
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(1)
        """
    command = [sys.executable, "-c", program, installed, channel]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM, "")


PROGRAMS = {
    "Hub": """if True:
        import sys, time
        import pgpubsub

        def handle(entry):
            print("handling", flush=True)
            time.sleep(1000)

        with pgpubsub.Hub(sys.argv[1]) as hub:
            hub.stream(sys.argv[2]).process("billing", handle)
        """,
    "AsyncHub on asyncio": """if True:
        import asyncio, sys, time
        import pgpubsub

        def handle(entry):
            print("handling", flush=True)
            time.sleep(1000)

        async def main():
            async with pgpubsub.AsyncHub(sys.argv[1]) as hub:
                await hub.stream(sys.argv[2]).process("billing", handle)

        asyncio.run(main())
        """,
}


def test_a_second_sigterm_does_not_wait_for_a_handler_that_never_ends(
    stream: AnyStream, installed: str, hub_kind: str
) -> None:
    stream.append("a")
    command = [sys.executable, "-c", PROGRAMS[hub_kind], installed, stream.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "handling\n"
        program.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.5)
        program.send_signal(signal.SIGTERM)
        try:
            assert program.wait(PATIENCE) == -signal.SIGTERM
        finally:
            program.kill()


def roll_back() -> None:
    raise psycopg.Rollback


def test_a_handler_that_rolls_back_has_failed(stream: AnyStream) -> None:
    stream.append("a")
    with consume(stream, "billing", attempts=1) as consumer:
        with consumer.get(PATIENCE).transaction():
            roll_back()
        wait_until(lambda: info(stream, "billing").dead == 1)
    assert administer(stream, "dead", "billing")[0].error == "the handler has rolled back"


def generates(entry: Any) -> Any:
    yield entry


async def generates_asynchronously(entry: Any) -> Any:
    yield entry


class Generates:
    __call__ = staticmethod(generates)


async def is_awaited(gap: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "match"),
    [
        (generates, "generates at .* has a yield in it: to call it would run nothing"),
        (partial(generates), "has a yield in it"),
        (generates_asynchronously, "has a yield in it"),
        (Generates(), "has a yield in it"),
        ("generates", "the handler is a function that takes an entry, not str"),
    ],
)
def test_what_would_not_run_is_no_handler(stream: AnyStream, handler: Any, match: str) -> None:
    with pytest.raises(TypeError, match=match):
        process(stream, "billing", handler, follow=False)


@pytest.mark.parametrize("call", ["consume", "process"])
def test_an_argument_that_there_is_not_is_told_with_those_that_there_are(stream: AnyStream, call: str) -> None:
    calls: dict[str, Any] = {"consume": consume, "process": partial(process, handler=print)}
    those = "batch, follow, attempts, backoff, lease, start, on_gap"
    with pytest.raises(TypeError, match=rf"{call}\(\) takes no argument 'retries', but these: .*{those}$"):
        calls[call](stream, "billing", retries=3)


@pytest.mark.parametrize("function", [generates, generates_asynchronously])
def test_a_handler_that_returns_what_it_was_to_do_has_failed(stream: AnyStream, function: Any) -> None:
    stream.append("a")
    process(stream, "billing", lambda entry: function(entry), follow=False, attempts=1)
    (letter,) = administer(stream, "dead", "billing")
    assert letter.error.startswith("TypeError: the handler has returned a generator, of which nothing has been run")


def test_so_has_one_that_is_awaited_and_returns_that(installed: str, channel: str) -> None:
    async def handler(entry: Any) -> Any:
        return generates(entry)

    async def main() -> None:
        async with AsyncHub(installed) as hub:
            stream = hub.stream(channel)
            await stream.append("a")
            await stream.process("billing", handler, follow=False, attempts=1)
            (letter,) = await stream.dead("billing")
            assert "has returned a generator" in str(letter.error)

    asyncio.run(main())


@pytest.mark.parametrize("on_gap", [is_awaited, generates, generates_asynchronously])
def test_who_is_told_of_gaps_is_a_plain_function(stream: AnyStream, on_gap: Any) -> None:
    with pytest.raises(TypeError, match="on_gap is a plain function, which takes notes, and nobody would await"):
        consume(stream, "billing", on_gap=on_gap)


@pytest.mark.parametrize("statement", ["ROLLBACK", "COMMIT"])
def test_a_handler_that_ends_the_transaction_by_a_statement_has_failed(stream: AnyStream, statement: str) -> None:
    """Nothing would be committed with the acknowledgement any more."""
    stream.append_many(words(2))
    for delivery in consume(stream, "billing", follow=False, attempts=2, backoff=0):
        with delivery.transaction() as conn:
            conn.execute("SELECT pg_current_xact_id()")
            if delivery.payload == words(2)[0]:
                conn.execute(statement)
    (letter,) = administer(stream, "dead", "billing")
    assert letter.entry.payload == words(2)[0]
    assert letter.error == "the handler has ended the transaction, by COMMIT or ROLLBACK: leave that to transaction()"
    assert info(stream, "billing").lag == 0


def test_a_handler_that_raises_stop_iteration_has_failed(stream: AnyStream) -> None:
    """A future cannot hold that, and a generator takes it for its end."""
    stream.append("a")
    attempts: list[int] = []

    def handler(entry: Any) -> None:
        attempts.append(len(attempts))
        next(iter(()))

    process(stream, "billing", handler, follow=False, attempts=2, backoff=0)
    assert attempts == [0, 1]
    (letter,) = administer(stream, "dead", "billing")
    assert "StopIteration" in letter.error


def test_a_handler_that_waits_for_a_cancelled_task_has_failed(installed: str, channel: str) -> None:
    """That is not this task's end."""

    async def main() -> None:
        async with AsyncHub(installed) as hub:
            stream = hub.stream(channel)
            await stream.append_many(words(3))
            handled: list[str] = []

            async def handler(entry: Any) -> None:
                if not handled:
                    handled.append("")
                    task = asyncio.ensure_future(asyncio.sleep(60))
                    task.cancel()
                    await task
                handled.append(entry.payload)

            await stream.process("billing", handler, follow=False, backoff=0)
            assert sorted(handled[1:]) == sorted(words(3))
            assert [(group.lag, group.dead) for group in await stream.groups()] == [(0, 0)]

    asyncio.run(main())


def test_a_processing_that_is_cancelled_leaves_what_it_had_to_others(installed: str, channel: str) -> None:
    async def main() -> None:
        async with AsyncHub(installed) as hub:
            stream = hub.stream(channel)
            await stream.append("a")
            begun = asyncio.Event()

            async def handler(entry: Any) -> None:
                begun.set()
                await asyncio.sleep(60)

            task = asyncio.ensure_future(stream.process("billing", handler, backoff=0))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with stream.consume("billing") as consumer, asyncio.timeout(PATIENCE):
                assert (await consumer.get()).attempt == 2

    asyncio.run(main())


def test_dead_letters_that_are_sent_again_while_others_are_handled_come_and_in_order(
    new_hub: NewHub, installed: str, channel: str
) -> None:
    """Each of them changes the line that the consumer is working on."""
    stream = open_stream(new_hub(installed), channel)
    stream.append_many(map(str, range(60)), key="a")
    with consume(stream, "billing", attempts=1, backoff=0) as consumer:
        for _ in range(30):
            consumer.get(PATIENCE).fail("dead")
    letters = [letter.entry.id for letter in administer(stream, "dead", "billing")]
    assert len(letters) == 30
    seen: list[str] = []
    again = open_stream(new_hub(installed), channel)
    with consume(again, "billing", attempts=100, backoff=0) as consumer:

        def handle() -> None:
            for number in range(90):
                delivery = consumer.get(PATIENCE)
                if delivery.attempt == 1 and number % 3 == 0:
                    delivery.fail("once")
                else:
                    delivery.acknowledge()
                    seen.append(delivery.payload)
                if len(seen) == 60:
                    return

        worker = Worker(handle)
        for letter in letters:
            assert administer(stream, "redrive", "billing", [letter]) == 1
        assert worker.outcome() is None
    assert sorted(seen, key=int) == [str(number) for number in range(60)]
    assert [payload for payload in seen if int(payload) >= 30] == [str(number) for number in range(30, 60)]
