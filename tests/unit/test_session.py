"""The session's rules, one by one. `tests/sim` has them all at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from pgpubsub.core.registry import Changes
from pgpubsub.core.session import Connect, Execute, Report, Session, Stop, Wait


def delays() -> Iterator[float]:
    yield from (0.0, 1.0, 2.0)
    while True:
        yield 4.0


@pytest.fixture
def session() -> Session[str]:
    """Connected at time 0 and listening to `a`."""
    session = Session[str](True, delays, healthy_after=10.0)
    session.on_connected(0)
    session.registry.add("one", "a")
    execute(session, 0)
    return session


def execute(session: Session[str], now: float) -> Execute:
    step = session.next_step(now)
    assert isinstance(step, Execute)
    session.on_executed(step, now)
    return step


def test_a_new_session_connects_and_then_listens_to_all_that_is_wanted_in_one_round_trip() -> None:
    session = Session[str](True, delays)
    for channel in ("a", 'B "c"'):
        session.registry.add("one", channel)
    assert session.next_step(0) == Connect()
    session.on_connected(0)
    assert (session.up, session.number) == (True, 1)
    assert execute(session, 0).script == 'LISTEN "a"; LISTEN "B ""c"""'
    assert session.next_step(0) == Wait(None)


def test_asking_changes_nothing(session: Session[str]) -> None:
    session.registry.discard("one", "a")
    assert session.next_step(1) == session.next_step(2) == Execute(1, Changes(unlisten=("a",)))


def test_unlistening_comes_before_listening_and_a_sweep_is_one_statement(session: Session[str]) -> None:
    session.registry.discard("one", "a")
    session.registry.add("one", "b")
    assert execute(session, 1).script == 'UNLISTEN "a"; LISTEN "b"'
    session.registry.discard_all("one")
    session.registry.sweep()
    assert execute(session, 1).script == "UNLISTEN *"


def test_a_loss_is_reported_once_and_only_when_the_channels_are_live_again(session: Session[str]) -> None:
    session.on_heard(3)
    session.on_lost(1, 5, "reset")
    session.on_lost(1, 6, "found out twice")
    assert not session.up
    assert session.next_step(5) == Connect()
    session.on_connected(6)
    execute(session, 7)
    step = session.next_step(7)
    assert step == Report(2, ("a",), since=3, why="reset")
    assert session.next_step(7) == step
    assert isinstance(step, Report)
    session.on_reported(step)
    assert session.next_step(7) == Wait(None)


def test_losing_the_new_session_before_the_report_prolongs_the_loss(session: Session[str]) -> None:
    session.on_heard(3)
    session.on_lost(1, 5, "first")
    session.on_connected(6)
    session.on_lost(2, 7, "second")
    session.on_connected(8)
    execute(session, 8)
    assert session.next_step(9) == Report(3, ("a",), since=3, why="second")


def test_a_session_on_which_nothing_was_listened_to_loses_nothing() -> None:
    session = Session[str](True, delays)
    session.on_connected(0)
    session.on_lost(1, 5, "reset")
    session.registry.add("one", "a")
    session.on_connected(6)
    execute(session, 6)
    assert session.next_step(6) == Wait(None)


def test_since_is_that_of_the_loss_it_belongs_to(session: Session[str]) -> None:
    session.on_lost(1, 5, "nobody will be told of this one")
    session.registry.discard("one", "a")
    session.on_connected(100)
    session.registry.add("two", "b")
    execute(session, 101)
    session.on_lost(2, 200, "reset")
    session.on_connected(201)
    execute(session, 202)
    assert session.next_step(202) == Report(3, ("b",), since=101, why="reset")


def test_attempts_wait_for_their_delays(session: Session[str]) -> None:
    session.on_lost(1, 5, "reset")
    assert session.next_step(5) == Connect()
    session.on_connect_failed(5, "refused")
    assert session.failure == "refused"
    assert session.attempt_at == 6
    assert session.next_step(5.5) == Wait(6)
    assert session.next_step(6) == Connect()
    session.on_connect_failed(6.5, "refused")
    assert session.next_step(7) == Wait(8.5)


def test_the_delays_start_over_only_after_a_session_that_lasted(session: Session[str]) -> None:
    session.on_lost(1, 1, "reset")
    session.on_connected(1)
    session.on_lost(2, 2, "dropped at once")
    assert session.next_step(2) == Wait(3)
    session.on_connected(3)
    session.on_lost(3, 13, "after a good while")
    assert session.next_step(13) == Connect()


def test_delays_that_end_start_over() -> None:
    session = Session[str](True, lambda: iter([1.0]))
    session.on_connect_failed(0, "refused")
    session.on_connect_failed(5, "refused")
    assert session.attempt_at == 6


def test_without_reconnection_a_loss_is_the_end(session: Session[str]) -> None:
    session = Session[str](False, delays)
    session.on_connected(0)
    session.on_lost(1, 1, "reset")
    assert session.next_step(1) == Stop("reset")


def test_facts_about_an_earlier_session_are_ignored(session: Session[str]) -> None:
    session.registry.add("one", "b")
    late = session.next_step(1)
    assert isinstance(late, Execute)
    session.on_lost(1, 2, "reset")
    session.on_executed(late, 3)
    assert session.on_refused(late, 3, "no") == ()
    session.on_connected(4)
    session.on_executed(late, 5)
    assert session.on_refused(late, 5, "no") == ()
    session.on_lost(1, 5, "late news")
    assert session.registry.acknowledged == frozenset()
    assert session.up


def test_of_several_statements_the_refused_one_is_found_and_told(session: Session[str]) -> None:
    for channel in ("good", "bad", "fine"):
        session.registry.add("two", channel)
    refuse = partial(session.on_refused, now=1, why="no")
    step = session.next_step(1)
    assert isinstance(step, Execute)
    assert refuse(step) == ()
    told: list[str] = []
    while isinstance(step := session.next_step(1), Execute):
        assert len(step.changes) == 1
        if step.changes.listen == ("bad",):
            told += refuse(step)
        else:
            session.on_executed(step, 1)
    assert told == ["bad"]
    assert session.registry.acknowledged == {"a", "good", "fine"}
    session.registry.add("two", "b1")
    session.registry.add("two", "b2")
    assert len(execute(session, 2).changes) == 2


def test_a_refused_unlisten_is_told_too(session: Session[str]) -> None:
    session.registry.discard("one", "a")
    step = session.next_step(1)
    assert isinstance(step, Execute)
    assert session.on_refused(step, 1, "no") == ("a",)
    assert session.next_step(1) == Wait(None)


def test_a_session_that_refuses_what_an_earlier_one_listened_to_is_of_no_use(session: Session[str]) -> None:
    session.on_lost(1, 1, "reset")
    session.on_connected(1)
    step = session.next_step(1)
    assert isinstance(step, Execute)
    assert session.on_refused(step, 2, "in recovery") == ()
    assert not session.up
    assert session.failure == "in recovery"
    assert session.next_step(2) == Wait(3)
