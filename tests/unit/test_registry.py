"""Who wants which channels, and what the server is to be told."""

from __future__ import annotations

import pytest

from pgpubsub.core.registry import Changes, Registry


@pytest.fixture
def registry() -> Registry[str]:
    return Registry[str]()


def acknowledge(registry: Registry[str]) -> Changes:
    changes = registry.changes()
    registry.on_executed(changes)
    return changes


def test_a_channel_is_listened_to_once_for_all_its_owners(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("two", "a")
    assert acknowledge(registry) == Changes(listen=("a",))
    registry.add("three", "a")
    assert not registry.changes()
    assert list(registry.owners("a")) == ["one", "two", "three"]


def test_the_last_owner_out_unlistens(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("two", "a")
    acknowledge(registry)
    registry.discard("one", "a")
    assert not registry.changes()
    registry.discard("two", "a")
    assert acknowledge(registry) == Changes(unlisten=("a",))
    assert registry.acknowledged == frozenset()


def test_what_is_added_and_discarded_before_anything_was_said_is_only_unlistened(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.discard("one", "a")
    assert registry.changes() == Changes(unlisten=("a",))


def test_an_owner_who_repeats_itself_has_the_server_told_again(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.add("one", "a")
    assert registry.changes() == Changes(listen=("a",))


def test_discarding_what_was_never_added_unlistens_it(registry: Registry[str]) -> None:
    registry.discard("one", "a")
    assert registry.changes() == Changes(unlisten=("a",))


def test_what_was_not_granted_leaves_what_others_have_given_up_to_be_unlistened(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.discard("one", "a")
    registry.add("two", "a")
    registry.on_refused(registry.changes())
    registry.withdraw("two", "a")
    assert acknowledge(registry) == Changes(unlisten=("a",)), "the server listens to it, and nobody wants it"
    registry.add("two", "a")
    registry.on_refused(registry.changes())
    registry.withdraw("two", "a")
    assert not registry.changes()


def test_what_was_given_up_while_it_was_granted_is_unlistened_whoever_is_refused_then(registry: Registry[str]) -> None:
    registry.add("one", "a")
    changes = registry.changes()
    registry.discard("one", "a")
    registry.on_executed(changes)
    registry.add("two", "a")
    registry.on_refused(registry.changes())
    registry.withdraw("two", "a")
    assert registry.changes() == Changes(unlisten=("a",))


def test_what_was_not_granted_is_as_if_it_had_never_been_asked_for(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.withdraw("one", "a")
    assert not registry.changes()
    registry.add("one", "b")
    acknowledge(registry)
    registry.add("two", "b")
    registry.withdraw("two", "b")
    assert not registry.changes()
    registry.withdraw("one", "b")
    assert registry.changes() == Changes(unlisten=("b",))


def test_an_owner_may_discard_all_that_it_wants(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("one", "b")
    registry.add("two", "b")
    acknowledge(registry)
    assert registry.channels("one") == {"a", "b"}
    registry.discard_all("one")
    assert registry.desired == {"b"}
    assert registry.changes() == Changes(unlisten=("a",))


def test_a_sweep_forgets_also_what_nobody_told_us_of(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.discard_all("one")
    registry.sweep()
    assert registry.changes() == Changes(sweep=True)
    assert len(registry.changes()) == 1
    acknowledge(registry)
    assert not registry.changes()
    assert registry.acknowledged == frozenset()


def test_a_sweep_spares_what_somebody_else_wants(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("two", "b")
    acknowledge(registry)
    registry.discard_all("one")
    registry.sweep()
    assert registry.changes() == Changes(unlisten=("a",))


def test_what_is_wanted_during_a_sweep_is_listened_to_after_it(registry: Registry[str]) -> None:
    registry.sweep()
    sweep = registry.changes()
    registry.add("one", "a")
    registry.on_executed(sweep)
    assert registry.changes() == Changes(listen=("a",))


def test_what_is_turned_round_while_it_is_under_way_stays_due(registry: Registry[str]) -> None:
    registry.add("one", "a")
    listening = registry.changes()
    registry.discard("one", "a")
    registry.on_executed(listening)
    assert registry.acknowledged == frozenset(), "nobody wants it any more"
    unlistening = registry.changes()
    assert unlistening == Changes(unlisten=("a",))
    registry.add("one", "a")
    registry.on_executed(unlistening)
    assert registry.changes() == Changes(listen=("a",))


def test_the_end_of_a_session_makes_everything_due_and_remembers_what_was_lost(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.add("one", "b")
    registry.discard("one", "c")
    registry.sweep()
    registry.on_session_ended()
    assert registry.changes() == Changes(listen=("a", "b"))
    assert registry.lost == {"a"}
    registry.on_loss_reported(["a"])
    assert registry.lost == frozenset()


def test_a_loss_that_concerns_nobody_any_more_is_forgotten(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.discard("one", "a")
    assert registry.lost == frozenset()


def test_a_loss_concerns_those_who_wanted_the_channel_then_and_still_do(registry: Registry[str]) -> None:
    registry.add("stays", "a")
    registry.add("leaves", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.add("comes", "a")
    registry.discard("leaves", "a")
    assert list(registry.losers("a")) == ["stays"]
    registry.discard("stays", "a")
    assert list(registry.losers("a")) == []
    assert registry.lost == frozenset(), "though somebody wants the channel"
    assert list(registry.owners("a")) == ["comes"]


def test_who_leaves_a_channel_and_comes_back_has_lost_nothing(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("two", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.discard("one", "a")
    registry.add("one", "a")
    assert list(registry.losers("a")) == ["two"]


def test_who_asks_for_what_they_have_lost_does_not_lose_it_less(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.add("one", "a")
    assert list(registry.losers("a")) == ["one"]


def test_what_was_not_granted_before_the_session_ended_is_not_lost(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.on_session_ended()
    assert registry.lost == frozenset()
    assert list(registry.losers("a")) == []


def test_a_second_loss_before_the_report_adds_those_who_came_in_between(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.add("two", "a")
    acknowledge(registry)
    registry.on_session_ended()
    assert list(registry.losers("a")) == ["one", "two"]
    registry.on_session_ended()
    assert list(registry.losers("a")) == ["one", "two"], "reported twice, it counts once"
    registry.on_loss_reported(["a"])
    assert list(registry.losers("a")) == []


def test_who_withdraws_a_channel_that_was_lost_has_lost_nothing(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("two", "a")
    acknowledge(registry)
    registry.on_session_ended()
    registry.withdraw("two", "a")
    assert list(registry.losers("a")) == ["one"]


def test_a_channel_is_live_while_the_server_knows_it_and_nothing_remains_to_be_said(registry: Registry[str]) -> None:
    registry.add("one", "a")
    assert not registry.is_live("a")
    acknowledge(registry)
    assert registry.is_live("a")
    registry.add("two", "a")
    assert registry.is_live("a"), "who comes later need not wait"
    registry.add("two", "a")
    assert not registry.is_live("a"), "the server is to be told again"
    acknowledge(registry)
    assert registry.is_live("a")
    registry.on_session_ended()
    assert not registry.is_live("a")


def test_a_channel_that_is_being_unlistened_is_not_live(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.discard("one", "a")
    assert not registry.is_live("a")
    registry.add("one", "a")
    assert not registry.is_live("a"), "the UNLISTEN may be under way"


def test_whoever_wants_a_channel_that_was_given_up_waits_for_a_listen_of_their_own(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.discard("one", "a")
    registry.add("two", "a")
    assert not registry.is_live("a")
    registry.on_session_ended()
    assert list(registry.losers("a")) == [], "nothing was promised to them yet"


def test_what_is_given_up_while_there_is_no_session_is_nothing_to_tell_the_next_one(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("one", "b")
    acknowledge(registry)
    registry.on_session_ended()
    registry.discard("one", "a")
    registry.discard("one", "never added")
    registry.on_session_begun()
    assert acknowledge(registry) == Changes(listen=("b",))
    registry.discard("one", "b")
    assert registry.changes() == Changes(unlisten=("b",))


def test_what_is_given_up_before_the_first_session_is_nothing_to_tell_it(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.add("one", "b")
    registry.discard("one", "a")
    registry.on_session_begun()
    assert registry.changes() == Changes(listen=("b",))


def test_what_the_server_refuses_is_not_asked_again(registry: Registry[str]) -> None:
    registry.add("one", "a")
    registry.discard("one", "b")
    registry.on_refused(registry.changes())
    assert not registry.changes()
    registry.sweep()
    registry.on_refused(Changes(sweep=True))
    assert not registry.changes()


@pytest.mark.parametrize(
    ("changes", "count", "first"),
    [
        (Changes(listen=("a", "b"), unlisten=("c",)), 1, Changes(listen=("a",))),
        (Changes(listen=("a", "b"), unlisten=("c",)), 2, Changes(listen=("a", "b"))),
        (Changes(listen=("a", "b"), unlisten=("c",)), 3, Changes(listen=("a", "b"), unlisten=("c",))),
        (Changes(listen=("a",), unlisten=("b", "c")), 2, Changes(listen=("a",), unlisten=("b",))),
        (Changes(unlisten=("c", "d")), 1, Changes(unlisten=("c",))),
        (Changes(sweep=True), 1, Changes(sweep=True)),
    ],
)
def test_changes_can_be_done_in_portions(changes: Changes, count: int, first: Changes) -> None:
    assert changes.first(count) == first
    assert len(first) == count


def test_what_was_not_told_in_a_session_is_known_when_that_is_lost(registry: Registry[str]) -> None:
    registry.add("one", "a")
    acknowledge(registry)
    registry.on_session_ended()
    assert registry.lost == {"a"}
    assert not registry.untold, "all that it brought was told of in time"
    registry.on_session_begun()
    registry.add("one", "b")
    acknowledge(registry)
    assert registry.lost_and_live == {"a"}
    registry.on_session_ended()
    registry.on_session_ended()
    assert registry.lost == {"a", "b"}
    assert registry.untold == {"a"}
    assert not registry.lost_and_live
