"""Who gets what of a batch of notifications."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgpubsub import Notify
from pgpubsub.core.routing import route

CHANNELS = "abcd"


def batch(channels: str) -> list[Notify]:
    """One notification on each of `channels`, numbered."""
    return [Notify(number, channel, "") for number, channel in enumerate(channels)]


def received(channels: str, owners: dict[str, Collection[str]]) -> dict[str, str]:
    """The channels of what each owner gets, in order."""
    return {
        owner: "".join(event.channel for event in chosen)
        for chosen, together in route(batch(channels), owners.__getitem__)
        for owner in together
    }


def test_nothing_goes_to_nobody() -> None:
    nobody: dict[str, list[str]] = {}
    assert route([], nobody.__getitem__) == []


def test_a_batch_of_one_channel_goes_to_its_owners_as_it_is() -> None:
    events = batch("aaa")
    [(chosen, together)] = route(events, {"a": ["one", "two"]}.__getitem__)
    assert chosen is events
    assert together == ["one", "two"]


def test_an_owner_of_several_channels_gets_them_as_one_list_in_the_order_in_which_they_came() -> None:
    assert received("abcab", {"a": ["one"], "b": ["one", "two"], "c": ["two"]}) == {"one": "abab", "two": "bcb"}


def test_owners_who_want_the_same_share_one_list() -> None:
    [(_, together)] = route(batch("ab"), {"a": ["one", "two"], "b": ["one", "two"]}.__getitem__)
    assert together == ["one", "two"]


def test_what_nobody_wants_is_left_out() -> None:
    assert received("abab", {"a": [], "b": ["one"]}) == {"one": "bb"}
    assert received("ab", {"a": [], "b": []}) == {}


def test_each_channel_is_looked_up_once_for_a_batch() -> None:
    looked_up: list[str] = []

    def owners(channel: str) -> Collection[str]:
        looked_up.append(channel)
        return ["one"]

    route(batch("abcabcabc"), owners)
    assert looked_up == ["a", "b", "c"]


class Counted(list[Notify]):
    """A batch that counts how often one of its notifications is looked at."""

    looks = 0

    def __iter__(self) -> Iterator[Notify]:
        self.looks += len(self)
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        return super().__getitem__(place)


def test_the_work_does_not_grow_with_the_product_of_events_and_owners() -> None:
    number = 2000  # owners, each with a channel of its own and one that all share
    events = Counted([*(Notify(1, str(owner), "") for owner in range(number)), Notify(1, "all", "")])
    routed = route(events, lambda channel: range(number) if channel == "all" else [int(channel)])
    assert sum(len(chosen) * len(together) for chosen, together in routed) == 2 * number
    assert events.looks < 10 * number


@given(
    st.text(CHANNELS, max_size=12),
    st.fixed_dictionaries({channel: st.lists(st.sampled_from("vwxyz"), unique=True) for channel in CHANNELS}),
)
def test_everybody_gets_exactly_what_a_look_at_each_event_would_give_them(
    channels: str, owners: dict[str, list[str]]
) -> None:
    expected: dict[str, list[Notify]] = {}
    for event in batch(channels):
        for owner in owners[event.channel]:
            expected.setdefault(owner, []).append(event)
    routed = route(batch(channels), owners.__getitem__)
    everybody = [owner for _, together in routed for owner in together]
    assert len(everybody) == len(set(everybody)), "every owner appears once"
    assert {owner: list(chosen) for chosen, together in routed for owner in together} == expected
