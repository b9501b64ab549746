"""The session's rules, one by one. `tests/sim` has them all at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from pgpubsub import GapReason
from pgpubsub.core.heartbeat import Heartbeat
from pgpubsub.core.registry import Changes
from pgpubsub.core.session import AT_ONCE, Abandon, Ask, Beat, Connect, Execute, Report, Session, Stop, Wait


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


def test_more_statements_than_fit_into_one_round_trip_take_several() -> None:
    session = Session[str](True, delays)
    for number in range(2 * AT_ONCE + 1):
        session.registry.add("one", str(number))
    session.on_connected(0)
    assert [len(execute(session, 0).changes) for _ in range(3)] == [AT_ONCE, AT_ONCE, 1]
    assert session.next_step(0) == Wait(None)


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


def test_a_loss_is_reported_before_the_server_is_told_of_anything_else(session: Session[str]) -> None:
    session.on_lost(1, 5, "reset")
    session.on_connected(6)
    execute(session, 7)
    session.registry.add("two", "b")
    assert session.next_report() == session.next_step(7) == Report(2, ("a",), since=0, why="reset")


@pytest.fixture
def repeating(session: Session[str]) -> Session[str]:
    """It has lost `a` and `b`, and the next session has refused one of two statements."""
    session.registry.add("one", "b")
    execute(session, 1)
    session.on_lost(1, 5, "reset")
    assert session.next_report() is None, "there is no session"
    session.on_connected(6)
    assert session.next_report() is None, "nothing is live"
    step = session.next_step(6)
    assert isinstance(step, Execute)
    session.on_refused(step, 6, "no")
    return session


def test_channels_that_are_listened_to_one_by_one_are_reported_together(repeating: Session[str]) -> None:
    for channel in ("a", "b"):
        assert execute(repeating, 7).changes == Changes(listen=(channel,))
    report = repeating.next_step(7)
    assert report == Report(2, ("a", "b"), since=1, why="reset")
    assert isinstance(report, Report)
    repeating.on_reported(report)
    assert repeating.next_step(7) == Wait(None)


def test_whoever_would_get_something_meanwhile_can_be_told_first(repeating: Session[str]) -> None:
    execute(repeating, 7)
    report = repeating.next_report()
    assert report == Report(2, ("a",), since=1, why="reset")
    assert isinstance(report, Report)
    repeating.on_reported(report)
    assert repeating.next_report() is None, "all has been told that can be"
    execute(repeating, 8)
    assert repeating.next_step(8) == Report(2, ("b",), since=1, why="reset")


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


def since(session: Session[str]) -> float:
    """Since when something is missing, if the session is lost now."""
    session.on_lost(session.number, 50, "reset")
    session.on_connected(51)
    execute(session, 51)
    report = session.next_step(51)
    assert isinstance(report, Report)
    return report.since


def test_what_was_lost_begins_before_a_message_whose_end_has_not_come_whatever_was_heard_meanwhile(
    session: Session[str],
) -> None:
    session.on_joined(2, None)
    for now in (3, 4, 5):
        session.on_delivered(now)
        session.on_joined(now, "long")
        assert session.whole_until == 2
    assert since(session) == 2


def test_what_was_lost_begins_before_the_last_of_several_such_messages(session: Session[str]) -> None:
    for now, unfinished in ((2, None), (3, "one"), (4, "two"), (5, "two")):
        session.on_delivered(now)
        session.on_joined(now, unfinished)
    assert since(session) == 3


def test_a_message_that_is_there_as_a_whole_is_not_lost(session: Session[str]) -> None:
    session.on_joined(3, "long")
    session.on_delivered(5)
    session.on_joined(5, None)
    assert session.whole_until == 5
    assert since(session) == 5


def test_a_message_that_began_in_an_earlier_session_does_not_go_on(session: Session[str]) -> None:
    session.on_joined(3, "long")
    session.on_lost(1, 5, "reset")
    session.on_connected(6)
    assert session.whole_until == 6
    execute(session, 7)
    report = session.next_step(7)
    assert isinstance(report, Report)
    session.on_reported(report)
    session.on_delivered(8)
    assert since(session) == 8


def test_a_deaf_session_has_lost_what_began_before_its_last_notification(beating: Session[str]) -> None:
    beating.on_joined(39, None)
    beating.on_joined(40, "long")
    beating.on_delivered(50)
    lose_and_reconnect(beating, 121, GapReason.HEARTBEAT)
    prove(beating, 121)
    report = beating.next_step(121)
    assert isinstance(report, Report)
    assert report.since == 39


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


def test_without_a_heartbeat_whatever_has_connected_is_trusted() -> None:
    session = Session[str](True, delays)
    trusted = [session.trusted]
    session.on_connected(0)
    trusted.append(session.trusted)
    session.on_lost(1, 1, "reset")
    trusted.append(session.trusted)
    assert trusted == [False, True, False]


def test_without_a_heartbeat_facts_about_one_change_nothing(session: Session[str]) -> None:
    session.on_beat_begun(Beat(1))
    session.on_beat_sent(Beat(1), 1)
    session.on_beat_failed(Beat(1))
    session.on_asked(Ask(1))
    session.on_answered(Ask(1), 1)
    session.on_delivered(2)
    assert session.next_step(1e9) == Wait(None)


# -- giving up


def giving_up(heartbeat: Heartbeat | None = None) -> Session[str]:
    """After ten seconds without a session that is trusted."""
    return Session[str](True, delays, heartbeat=heartbeat, give_up_after=10.0)


def test_it_gives_up_when_there_was_no_connection_for_so_long() -> None:
    session = giving_up()
    session.on_connect_failed(100, "refused")
    session.on_connect_failed(105, "still refused")
    assert session.next_step(109.9) == Connect()
    step = session.next_step(110)
    assert isinstance(step, Stop)
    assert step.gave_up
    assert step.why == "given up after 10 s without a connection that works: still refused"


def test_it_tells_until_when_an_attempt_makes_sense() -> None:
    session = giving_up()
    deadlines = [session.give_up_at]
    session.on_connect_failed(100, "refused")
    session.on_connect_failed(101, "refused")
    deadlines.append(session.give_up_at)
    session.on_connected(105)
    deadlines.append(session.give_up_at)
    assert deadlines == [None, 110, None]


def test_it_does_not_sleep_beyond_the_time_to_give_up() -> None:
    session = giving_up()
    for now in (100, 101, 103, 107.5):
        session.on_connect_failed(now, "refused")
    assert session.attempt_at == 111.5
    assert session.next_step(108) == Wait(110)


def test_a_session_that_is_trusted_ends_the_count() -> None:
    session = giving_up()
    session.on_connect_failed(100, "refused")
    session.on_connected(109)
    assert session.next_step(1000) == Wait(None)
    session.on_lost(1, 1000, "reset")
    assert session.next_step(1009) == Connect()
    assert isinstance(session.next_step(1010), Stop)


def test_whoever_does_not_ask_for_it_is_not_given_up() -> None:
    session = Session[str](True, delays)
    session.on_connect_failed(0, "refused")
    assert session.next_step(1e9) == Connect()


def test_what_can_never_work_is_not_tried_again() -> None:
    session = Session[str](True, delays)
    session.on_connect_failed(0, "a standby", hopeless=True)
    assert session.next_step(0) == session.next_step(1e9) == Stop("a standby")


def test_what_has_worked_before_is_tried_again_whatever_is_met_later(session: Session[str]) -> None:
    session.on_lost(1, 1, "reset")
    session.on_connect_failed(2, "a standby", hopeless=True)
    assert session.next_step(3) == Connect()
    session.on_connected(3)
    session.on_lost(2, 4, "a pooler", hopeless=True)
    assert session.next_step(9) == Connect()


# -- with a heartbeat


@pytest.fixture
def beating() -> Session[str]:
    """Connected at time 0, listening to `a`, trusted; it beats after 100 seconds of silence, and a beat may take 5."""
    session = unproven()
    prove(session, 0)
    execute(session, 0)
    return session


def unproven(give_up_after: float | None = None) -> Session[str]:
    """Connected at time 0 and listening; nothing has arrived yet."""
    heartbeat = Heartbeat("beats", 100.0, timeout=5.0, random=lambda: 0.0)
    session = Session[str](True, delays, healthy_after=10.0, heartbeat=heartbeat, give_up_after=give_up_after)
    session.registry.add("heart", "beats")
    session.on_connected(0)
    execute(session, 0)
    session.registry.add("one", "a")
    return session


def begin_beat(session: Session[str], now: float) -> Beat:
    step = session.next_step(now)
    assert isinstance(step, Beat)
    session.on_beat_begun(step)
    return step


def prove(session: Session[str], now: float) -> None:
    session.on_beat_sent(begin_beat(session, now), now)
    session.on_delivered(now)


def lose_and_reconnect(session: Session[str], now: float, reason: GapReason = GapReason.CONNECTION_LOST) -> None:
    """Lost a second ago, listening again now."""
    session.on_lost(session.number, now - 1, "lost", reason=reason)
    session.on_connected(now)
    execute(session, now)


def test_a_new_session_listens_beats_and_does_nothing_else_before_it_is_trusted() -> None:
    session = unproven()
    beat = begin_beat(session, 1)
    assert session.next_step(1) == Wait(None), "though there is a channel to be listened to"
    session.on_beat_sent(beat, 2)
    assert session.next_step(2) == Wait(7)
    session.on_delivered(3)
    assert session.trusted
    assert execute(session, 3).script == 'LISTEN "a"'
    assert session.next_step(3) == Wait(103)


def test_a_loss_is_not_reported_before_the_new_session_is_trusted(beating: Session[str]) -> None:
    lose_and_reconnect(beating, 51)
    assert isinstance(beating.next_step(51), Beat)
    prove(beating, 52)
    report = beating.next_step(52)
    assert isinstance(report, Report)
    assert report.channels == ("a", "beats")
    beating.on_reported(report)
    assert beating.next_step(52) == Wait(152)


def test_after_a_silence_it_beats_and_goes_on_working_meanwhile(beating: Session[str]) -> None:
    assert beating.next_step(99) == Wait(100)
    beat = begin_beat(beating, 100)
    beating.registry.add("one", "b")
    assert execute(beating, 101).script == 'LISTEN "b"'
    beating.on_beat_sent(beat, 102)
    beating.on_delivered(103)
    assert beating.next_step(103) == Wait(203)


def test_a_statement_that_succeeds_does_not_put_the_beat_off(beating: Session[str]) -> None:
    beating.registry.add("one", "b")
    execute(beating, 99)
    assert isinstance(beating.next_step(100), Beat)


def test_a_session_to_which_a_committed_beat_does_not_come_is_abandoned(beating: Session[str]) -> None:
    beat = begin_beat(beating, 100)
    beating.on_beat_sent(beat, 101)
    assert beating.next_step(105.9) == Wait(106)
    assert beating.next_step(106) == Abandon(1)
    beating.on_lost(1, 106, "deaf", reason=GapReason.HEARTBEAT, hopeless=True)
    assert beating.next_step(106) == Connect(), "it has worked before"


def test_a_beat_that_has_arrived_when_the_session_is_to_be_abandoned_saves_it(beating: Session[str]) -> None:
    beat = begin_beat(beating, 100)
    beating.on_beat_sent(beat, 101)
    assert beating.next_step(200) == Abandon(1)
    beating.on_delivered(200)
    assert beating.next_step(200) == Wait(300)


def test_a_session_whose_beat_cannot_be_sent_is_asked_and_stays_if_it_answers(beating: Session[str]) -> None:
    beating.on_beat_failed(begin_beat(beating, 100))
    ask = beating.next_step(105)
    assert ask == beating.next_step(105) == Ask(1)
    assert isinstance(ask, Ask)
    beating.on_asked(ask)
    assert beating.next_step(106) == Wait(None)
    beating.on_answered(ask, 107)
    assert beating.next_step(107) == Wait(207)


def test_a_new_session_that_can_only_be_asked_is_trusted_when_it_answers() -> None:
    session = unproven()
    session.on_beat_failed(begin_beat(session, 1))
    ask = session.next_step(6)
    assert isinstance(ask, Ask)
    session.on_asked(ask)
    session.on_answered(ask, 7)
    assert session.trusted
    assert execute(session, 7).script == 'LISTEN "a"'


def test_facts_about_the_beats_of_an_earlier_session_are_ignored(beating: Session[str]) -> None:
    beat, ask = begin_beat(beating, 100), Ask(1)
    lose_and_reconnect(beating, 110)
    present = begin_beat(beating, 110)
    beating.on_beat_sent(beat, 111)
    beating.on_beat_failed(beat)
    beating.on_asked(ask)
    beating.on_answered(ask, 111)
    assert beating.next_step(1e9) == Wait(None), "the present beat is under way, for however long"
    assert not beating.trusted
    beating.on_beat_failed(present)
    beating.on_beat_begun(beat)
    assert beating.next_step(112) == Ask(2)


def test_what_arrives_after_the_end_of_a_session_proves_nothing() -> None:
    session = unproven(give_up_after=10.0)
    session.on_lost(1, 1, "reset")
    session.on_delivered(2)
    assert isinstance(session.next_step(11), Stop)


def test_a_report_says_why_the_last_session_was_lost(beating: Session[str]) -> None:
    lose_and_reconnect(beating, 51)
    lose_and_reconnect(beating, 61, GapReason.HEARTBEAT)
    prove(beating, 61)
    report = beating.next_step(61)
    assert isinstance(report, Report)
    assert report.reason is GapReason.HEARTBEAT


def test_what_a_deaf_session_has_lost_begins_with_its_last_notification_not_its_last_answer(
    beating: Session[str],
) -> None:
    beating.on_delivered(40)
    beating.registry.add("one", "b")
    execute(beating, 80)
    lose_and_reconnect(beating, 121, GapReason.HEARTBEAT)
    prove(beating, 121)
    report = beating.next_step(121)
    assert isinstance(report, Report)
    assert report.since == 40


def test_what_a_broken_session_has_lost_begins_with_its_last_notification_for_it_may_have_been_deaf(
    beating: Session[str],
) -> None:
    beating.on_delivered(40)
    beating.registry.add("one", "b")
    execute(beating, 80)
    lose_and_reconnect(beating, 91)
    prove(beating, 91)
    report = beating.next_step(91)
    assert isinstance(report, Report)
    assert report.since == 40


def test_without_beats_what_a_broken_session_has_lost_begins_with_its_last_sign_of_life() -> None:
    session = Session[str](True, delays, heartbeat=Heartbeat("beats", None, 5, lambda: 0))
    session.registry.add("heart", "beats")
    session.on_connected(0)
    execute(session, 0)
    session.on_delivered(40)
    session.registry.add("one", "b")
    execute(session, 80)
    lose_and_reconnect(session, 91)
    session.on_delivered(91)
    report = session.next_step(91)
    assert isinstance(report, Report)
    assert report.since == 80


def test_a_session_that_never_was_trusted_does_not_let_the_delays_start_over() -> None:
    session = unproven()
    for attempt, delay in ((1, 0), (2, 1), (3, 2)):
        session.on_lost(attempt, 100 * attempt, "deaf", reason=GapReason.HEARTBEAT)
        assert session.attempt_at == 100 * attempt + delay
        session.on_connected(100 * attempt + delay)
        execute(session, 100 * attempt + delay)


def test_a_deployment_in_which_nothing_ever_arrived_is_refused() -> None:
    session = unproven()
    session.on_beat_sent(begin_beat(session, 1), 1)
    assert session.next_step(6) == Abandon(1)
    session.on_lost(1, 6, "a pooler", reason=GapReason.HEARTBEAT, hopeless=True)
    assert session.next_step(6) == Stop("a pooler")


def test_a_session_that_refuses_the_heartbeats_channel_is_of_no_use(beating: Session[str]) -> None:
    session = Session[str](True, delays, heartbeat=beating.heartbeat)
    session.registry.add("heart", "beats")
    session.on_connected(0)
    step = session.next_step(0)
    assert isinstance(step, Execute)
    assert session.on_refused(step, 0, "in recovery") == ()
    assert not session.up
    assert session.failure == "in recovery"


def test_the_heartbeats_channel_is_the_first_when_a_refused_one_is_looked_for() -> None:
    session = unproven()
    lose_and_reconnect(session, 2)
    session.on_lost(2, 2, "lost")
    session.on_connected(3)
    together = session.next_step(3)
    assert isinstance(together, Execute)
    session.on_refused(together, 3, "no")
    assert execute(session, 3).script == 'LISTEN "beats"'
    assert isinstance(session.next_step(3), Beat)


def test_time_to_give_up_goes_on_while_a_session_is_not_trusted() -> None:
    session = unproven(give_up_after=8.0)
    session.on_lost(1, 1, "reset")
    session.on_connected(2)
    execute(session, 2)
    beat = begin_beat(session, 3)
    assert session.next_step(3) == Wait(9)
    session.on_beat_sent(beat, 3.5)
    assert session.next_step(4) == Wait(8.5), "when the beat is overdue"
    assert session.next_step(9) == Stop("given up after 8 s without a connection that works: reset", gave_up=True)


def test_a_notification_or_an_answer_ends_the_count() -> None:
    for prove_it in (
        lambda session: session.on_delivered(5),
        lambda session: (session.on_beat_failed(Beat(2)), session.on_asked(Ask(2)), session.on_answered(Ask(2), 5)),
    ):
        session = unproven(give_up_after=8.0)
        session.on_lost(1, 1, "reset")
        session.on_connected(2)
        execute(session, 2)
        begin_beat(session, 3)
        prove_it(session)
        assert not isinstance(session.next_step(1e9), Stop)


def test_it_says_until_when_it_will_try() -> None:
    session = Session[str](True, delays, give_up_after=60.0)
    session.on_connect_failed(10, "nobody there")
    session.on_connect_failed(20, "nobody there")
    assert session.give_up_at == 70


def test_very_many_channels_are_listened_to_in_several_round_trips() -> None:
    session = Session[str](True, delays)
    names = [str(number) for number in range(2 * AT_ONCE + 1)]
    for name in names:
        session.registry.add("one", name)
    session.on_connected(0)
    sizes = []
    while session.next_step(0) != Wait(None):
        sizes.append(len(execute(session, 0).changes))
    assert sizes == [AT_ONCE, AT_ONCE, 1]
    assert session.registry.acknowledged == set(names)


def test_what_comes_and_goes_during_an_outage_leaves_nothing_to_do(session: Session[str]) -> None:
    session.on_lost(1, 5, "reset")
    for number in range(100):
        session.registry.add("two", str(number))
        session.registry.discard("two", str(number))
    assert session.registry.changes() == Changes(listen=("a",))
    session.on_connected(6)
    assert execute(session, 6).script == 'LISTEN "a"'
