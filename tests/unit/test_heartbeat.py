"""When a beat is due, and what its absence means."""

from __future__ import annotations

import pytest

from pgpubsub.core.heartbeat import Heartbeat, Pulse


def heartbeat(interval: float | None = 10.0, *, jitter: float = 0.0) -> Heartbeat:
    """Of a session that was connected at time 100."""
    heartbeat = Heartbeat("beats", interval, timeout=5.0, random=lambda: jitter)
    heartbeat.on_connected(100)
    return heartbeat


@pytest.fixture
def trusted() -> Heartbeat:
    """Of a session whose last notification came at time 100."""
    trusted = heartbeat()
    trusted.on_delivered(100)
    return trusted


def pulses(heartbeat: Heartbeat, *times: float) -> list[Pulse]:
    return [heartbeat.next_pulse(now) for now in times]


def test_before_there_is_a_session_nothing_is_due() -> None:
    heartbeat = Heartbeat("beats", 10.0, 5.0, lambda: 0.0)
    assert heartbeat.next_pulse(1e9) is Pulse.REST
    assert not heartbeat.trusted


def test_a_new_session_is_not_trusted_and_beats_at_once() -> None:
    new = heartbeat()
    assert not new.trusted
    assert new.next_pulse(100) is Pulse.BEAT


def test_a_notification_makes_a_session_trusted_even_before_its_beat_was_sent() -> None:
    new = heartbeat()
    new.on_delivered(101)
    assert new.trusted
    assert new.next_pulse(101) is Pulse.REST


def test_asking_changes_nothing(trusted: Heartbeat) -> None:
    assert pulses(trusted, 110, 110, 109, 110) == [Pulse.BEAT, Pulse.BEAT, Pulse.REST, Pulse.BEAT]


def test_a_beat_is_due_after_an_interval_of_silence_and_any_notification_puts_it_off(trusted: Heartbeat) -> None:
    assert trusted.until == 110
    assert pulses(trusted, 109.9, 110) == [Pulse.REST, Pulse.BEAT]
    trusted.on_delivered(105)
    assert trusted.until == 115
    assert pulses(trusted, 110, 115) == [Pulse.REST, Pulse.BEAT]


@pytest.mark.parametrize(("jitter", "due"), [(0.0, 110), (0.5, 111), (1.0, 112)])
def test_up_to_a_fifth_of_the_interval_is_added_at_random(jitter: float, due: float) -> None:
    jittered = heartbeat(jitter=jitter)
    jittered.on_delivered(100)
    assert jittered.until == due


def test_every_session_draws_its_own_interval() -> None:
    draws = iter([0.0, 1.0])
    drawing = Heartbeat("beats", 10.0, 5.0, lambda: next(draws))
    drawing.on_connected(0)
    drawing.on_delivered(100)
    assert drawing.until == 110
    drawing.on_connected(200)
    drawing.on_delivered(200)
    assert drawing.until == 212


def test_a_beat_that_is_under_way_is_not_repeated_however_long_it_takes(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    assert trusted.until is None
    assert pulses(trusted, 110, 1e9) == [Pulse.REST, Pulse.REST]


def test_the_time_to_arrive_begins_with_the_commit(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_beat_sent(500)
    assert trusted.until == 505
    assert pulses(trusted, 504.9, 505) == [Pulse.REST, Pulse.FAIL]


def test_a_beat_that_arrived_before_its_commit_was_known_is_not_waited_for(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_delivered(111)
    trusted.on_beat_sent(112)
    assert pulses(trusted, 117, 121) == [Pulse.REST, Pulse.BEAT]


def test_a_beat_that_failed_after_something_else_arrived_raises_no_question(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_delivered(111)
    trusted.on_beat_failed()
    assert trusted.next_pulse(112) is Pulse.REST


def test_a_beat_that_arrives_late_saves_the_session(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_beat_sent(110)
    trusted.on_delivered(115)
    assert pulses(trusted, 115, 125) == [Pulse.REST, Pulse.BEAT]


def test_a_beat_that_could_not_be_sent_accuses_nobody_and_the_session_is_asked(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_beat_failed()
    assert trusted.next_pulse(110) is Pulse.ASK
    trusted.on_asked()
    assert pulses(trusted, 110, 1e9) == [Pulse.REST, Pulse.REST]
    trusted.on_answered(112)
    assert pulses(trusted, 112, 122) == [Pulse.REST, Pulse.BEAT]


def test_a_new_session_that_answers_is_trusted_as_long_as_nothing_can_be_sent() -> None:
    new = heartbeat()
    new.on_beat_begun()
    new.on_beat_failed()
    new.on_asked()
    assert not new.trusted
    new.on_answered(101)
    assert new.trusted


def test_an_answer_to_a_question_that_has_become_needless_changes_nothing(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_beat_failed()
    trusted.on_asked()
    trusted.on_delivered(111)
    trusted.on_answered(115)
    assert trusted.until == 121


def test_a_beat_committed_before_the_session_is_no_proof_against_it(trusted: Heartbeat) -> None:
    trusted.on_beat_begun()
    trusted.on_beat_sent(110)
    trusted.on_connected(112)
    assert not trusted.trusted
    assert trusted.next_pulse(115) is Pulse.BEAT


def test_without_an_interval_an_answer_is_no_proof_and_it_beats_until_one_arrives() -> None:
    once = heartbeat(None)
    for now in (100, 106):
        assert once.next_pulse(now) is Pulse.BEAT
        once.on_beat_begun()
        once.on_beat_failed()
        once.on_asked()
        once.on_answered(now + 1)
        assert pulses(once, now + 5.9, now + 6) == [Pulse.REST, Pulse.BEAT]
    once.on_delivered(112)
    assert once.next_pulse(1e9) is Pulse.REST


def test_without_an_interval_one_beat_proves_a_session_and_there_are_no_others() -> None:
    once = heartbeat(None)
    assert once.next_pulse(100) is Pulse.BEAT
    once.on_beat_begun()
    once.on_beat_sent(101)
    assert once.next_pulse(106) is Pulse.FAIL
    once.on_delivered(106)
    assert once.until is None
    assert once.next_pulse(1e9) is Pulse.REST
    once.on_connected(2e9)
    assert once.next_pulse(2e9) is Pulse.BEAT
