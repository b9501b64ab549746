"""How much a consumer reads before it is asked for: little, where entries are long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgpubsub.core.position import stream_id
from tests.contract.faces import PATIENCE
from tests.contract.groups import consume, handle, info
from tests.contract.sending import wait_until, words
from tests.contract.streams import KINDS, AnyStream

Admin = psycopg.Connection[Any]


@pytest.fixture(params=KINDS)
def hub_kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


LONG = "x" * 400_000


def ahead(consumer: Any) -> tuple[int, int]:
    """The bytes that a consumer has read ahead, and the parked entries."""

    async def look() -> tuple[int, int]:
        share = member.deliveries.share
        return sum(len(item.entry.payload) for item in share._fresh), len(share._due)

    inner = getattr(consumer, "inner", consumer)
    member = inner._joined()
    found: tuple[int, int] = consumer.loop.run(look()) if consumer is not inner else inner._thread.call(look)
    return found


def test_little_is_read_ahead_of_long_entries(stream: AnyStream) -> None:
    """As a reader does: what is left of a page, and one more."""
    stream.append_many([LONG] * 60)
    most = 0
    with consume(stream, "billing") as consumer:
        for _ in range(60):
            with consumer.get(PATIENCE):
                most = max(most, ahead(consumer)[0])
    assert 0 < most < 6 << 20
    assert info(stream, "billing").lag == 0


@pytest.fixture
def fail_all(admin: Admin) -> Callable[..., None]:
    """Appends entries, all of which are to come again, and may by now."""

    def fail_all(stream: AnyStream, values: list[str], key: str | None = None) -> None:
        stream.append_many(values, key=key)
        its_group = [stream_id(stream.name)]

        def failed() -> bool:
            if (delivery := consumer.get_nowait()) is not None:
                delivery.fail("no")
            found = admin.execute(
                "SELECT count(*) FROM pgpubsub.parked JOIN pgpubsub.consumer_group AS known"
                " ON consumer_group = known.id WHERE stream = %s",
                its_group,
            )
            return found.fetchone() == (len(values),)

        with consume(stream, "billing", backoff=1000) as consumer:
            wait_until(failed)
        admin.execute(
            "UPDATE pgpubsub.parked SET due_at = now() FROM pgpubsub.consumer_group AS known"
            " WHERE known.stream = %s AND consumer_group = known.id",
            its_group,
        )

    return fail_all


def test_nor_of_long_ones_that_are_to_come_again(stream: AnyStream, fail_all: Callable[..., None]) -> None:
    fail_all(stream, [LONG] * 20)
    most = 0
    with consume(stream, "billing") as consumer:
        for _ in range(20):
            with consumer.get(PATIENCE) as delivery:
                assert delivery.attempt == 2
                most = max(most, ahead(consumer)[1])
    assert 0 < most < 6
    assert info(stream, "billing").lag == 0


def test_what_waits_for_a_handler_is_not_read_on_and_takes_no_others_place(
    stream: AnyStream, fail_all: Callable[..., None]
) -> None:
    fail_all(stream, [LONG] * 20, "a")
    with consume(stream, "billing", backoff=0) as consumer:
        slow = consumer.get(PATIENCE)
        for value in words(5):
            stream.append(value, key=value)
            consumer.get(PATIENCE).fail("once")
            with consumer.get(PATIENCE) as again:
                assert (again.payload, again.attempt) == (value, 2)
        assert ahead(consumer)[1] < 6
        slow.acknowledge()
        assert handle(consumer, 19) == [LONG] * 19
