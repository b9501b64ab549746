"""Which entries are appended together, and what becomes of those that may be appended twice. What appends share with
notifications is tested with `core.sender`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pgpubsub import Closed, ConnectionLost, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.core import grouping
from pgpubsub.core.appender import CHARACTERS, ENTRIES, ENTRIES_ONCE, Appender, Call
from pgpubsub.core.entries import NewEntry, new_entry
from pgpubsub.errors import PubSubError

TIMEOUT = 10.0


class Caller(Call):
    """Remembers what it is told."""

    __slots__ = ("left", "outcomes")

    def __init__(self, entries: Sequence[NewEntry]) -> None:
        super().__init__(entries)
        self.outcomes: list[PubSubError | None] = []
        self.left = False

    @property
    def called_off(self) -> bool:
        return self.left or super().called_off

    def tell(self, error: PubSubError | None) -> None:
        self.outcomes.append(error)

    @property
    def error(self) -> PubSubError:
        """What it was told, once."""
        [error] = self.outcomes
        assert error is not None
        return error


class Subject(Appender):
    """An appender, with short ways to submit and to read."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT)

    def call(self, *texts: str, once: bool = False, now: float = 0.0) -> Caller:
        """Somebody wants to append `texts`, each with an idempotency key or none."""
        keys = [text[:100] if once else None for text in texts]
        caller = Caller(
            [new_entry("orders", text, 1 << 30, idempotency_key=key) for text, key in zip(texts, keys, strict=True)]
        )
        self.submit(caller, now)
        return caller

    def begin(self) -> str:
        """What goes out now; it is in flight then."""
        batch = self.next_batch()
        return " ".join(str(entry.text) for entry in batch.items) if batch is not None else ""

    def story(self) -> list[str]:
        """What goes out, and then and then, if everything is stored."""
        batches = []
        while batch := self.begin():
            batches.append(batch)
            assert self.on_stored(range(len(batch.split()))) == []
        return batches

    def sizes(self) -> list[int]:
        """Of how many entries that is."""
        return [len(batch.split()) for batch in self.story()]


@pytest.fixture
def appender() -> Subject:
    return Subject()


# -- which go out together


def test_what_waits_goes_out_together_and_in_order(appender: Subject) -> None:
    for texts in (["1", "2"], ["3"], ["3"]):
        appender.call(*texts)
    assert appender.story() == ["1 2 3 3"], "equal entries are not one"


def test_entries_with_an_idempotency_key_are_not_mixed_with_others_and_nobody_overtakes(appender: Subject) -> None:
    for text in ("1", "2", "once-3", "once-4", "5", "once-6"):
        appender.call(text, once=text.startswith("once"))
    assert appender.story() == ["1 2", "once-3 once-4", "5", "once-6"]


def test_a_batch_has_only_so_many_entries(appender: Subject) -> None:
    for number in range(ENTRIES + 1):
        appender.call(str(number))
    assert appender.sizes() == [ENTRIES, 1]
    for _ in range(3):
        appender.call(*["x"] * (ENTRIES // 2 + 1))
    assert appender.sizes() == [ENTRIES // 2 + 1] * 3


def test_a_batch_has_fewer_of_those_that_each_take_a_lock(appender: Subject) -> None:
    for number in range(2 * ENTRIES_ONCE + 1):
        appender.call(str(number), once=True)
    assert appender.sizes() == [ENTRIES_ONCE, ENTRIES_ONCE, 1]


def test_a_batch_has_only_so_many_characters(appender: Subject) -> None:
    half = "x" * (CHARACTERS // 2)
    for texts in ([half, half], ["y"], [half], [half + "x"], ["z" * (CHARACTERS + 1)], ["1"]):
        appender.call(*texts)
    assert [len(batch) for batch in appender.story()] == [
        CHARACTERS + 1,
        CHARACTERS // 2 + 2,
        CHARACTERS // 2 + 1,
        CHARACTERS + 1,
        1,
    ]


def test_a_call_that_is_larger_than_a_batch_goes_alone(appender: Subject) -> None:
    appender.call("first")
    appender.call(*["x"] * (ENTRIES + 1))
    appender.call("next")
    assert appender.sizes() == [1, ENTRIES + 1, 1]


def test_what_was_withdrawn_or_is_about_to_be_takes_no_room(appender: Subject) -> None:
    one, two, three, four = (appender.call(text, once=text == "1") for text in "1234")
    appender.withdraw(one)
    three.left = True
    assert appender.story() == ["2 4"]
    assert [caller.outcomes for caller in (one, two, three, four)] == [[], [None], [], [None]]
    assert appender.idle


# -- what they are told


def test_every_call_gets_the_ids_of_its_own_entries(appender: Subject) -> None:
    one, two = appender.call("1", "2"), appender.call("3")
    appender.begin()
    assert appender.on_stored([17, 18, 19]) == []
    assert [list(one.returned), list(two.returned)] == [[17, 18], [19]]
    assert one.outcomes == two.outcomes == [None]
    assert appender.sent == 3


def test_a_call_that_another_transaction_is_about_to_store_waits_aside_and_the_others_do_not(appender: Subject) -> None:
    one, two, three = (appender.call(text, once=True) for text in "123")
    appender.begin()
    assert appender.on_stored([17, None, 19]) == [two]
    assert (one.outcomes, two.outcomes, three.outcomes) == ([None], [], [None])
    assert (list(one.returned), list(three.returned)) == ([17], [19])
    assert appender.sent == 2
    assert not appender.idle
    assert appender.begin() == "", "it waits aside"
    appender.resume([two])
    appender.call("4", once=True)
    assert appender.begin() == "2"
    assert appender.on_stored([18]) == []
    assert (list(two.returned), two.outcomes) == ([18], [None])
    assert appender.story() == ["4"]


def test_all_of_a_batch_may_have_to_wait_aside(appender: Subject) -> None:
    caller = appender.call("1", once=True)
    appender.begin()
    assert appender.on_stored([None]) == [caller]
    assert appender.in_flight is None
    assert caller.outcomes == []


def test_who_has_given_up_does_not_wait_aside(appender: Subject) -> None:
    one, two = appender.call("1", once=True), appender.call("2", once=True)
    appender.begin()
    appender.withdraw(one)
    assert appender.on_stored([None, None]) == [two]
    appender.withdraw(two)
    appender.resume([two])
    assert appender.begin() == ""
    assert (one.outcomes, two.outcomes) == ([], [])
    assert appender.idle


def test_what_waits_aside_is_told_when_it_has_waited_for_too_long(appender: Subject) -> None:
    caller = appender.call("1", once=True)
    appender.begin()
    appender.resume(appender.on_stored([None]))
    assert appender.next_expiry == TIMEOUT
    appender.expire(TIMEOUT, "another transaction is storing it")
    assert isinstance(caller.error, SendTimeout)
    assert "the append to stream 'orders' could not be sent within 10 s" in str(caller.error)
    assert appender.begin() == ""


def test_what_waits_aside_when_there_is_no_hope_any_more_is_told_so(appender: Subject) -> None:
    callers = [appender.call(text, once=True) for text in "12"]
    appender.begin()
    busy = appender.on_stored([None, None])
    appender.fail(Closed("closed"))
    appender.resume(busy)
    assert [str(caller.error) for caller in callers] == ["closed", "closed"]
    assert callers[0].error is not callers[1].error


# -- when the connection breaks


def lose(appender: Subject, reason: str = "reset") -> None:
    appender.begin()
    appender.on_lost(ConnectionLost(reason))


def test_what_has_an_idempotency_key_is_appended_again_and_the_rest_is_uncertain(appender: Subject) -> None:
    plain = appender.call("1")
    lose(appender)
    assert isinstance(plain.error, SendUncertain)
    assert str(plain.error).endswith("may or may not have been sent, and is not repeated: reset")
    once = appender.call("2", once=True)
    lose(appender)
    assert once.outcomes == []
    assert appender.story() == ["2"]
    assert once.outcomes == [None]


def test_what_was_withdrawn_in_flight_is_not_appended_again(appender: Subject) -> None:
    one, two = appender.call("1", once=True), appender.call("2", once=True)
    appender.begin()
    appender.withdraw(one)
    appender.on_lost(ConnectionLost("reset"))
    assert appender.begin() == "2"
    appender.withdraw(two)
    appender.on_lost(ConnectionLost("reset"))
    assert appender.begin() == ""


def test_what_was_lost_and_could_not_be_repeated_in_time_may_have_been_stored(appender: Subject) -> None:
    lost = appender.call("1", once=True)
    lose(appender)
    waiting = appender.call("2", once=True, now=0)
    appender.expire(TIMEOUT, "the server does not answer")
    assert isinstance(lost.error, SendUncertain)
    assert str(lost.error).endswith("may or may not have been sent, and will not be repeated any more: reset")
    assert isinstance(waiting.error, SendTimeout)


def test_what_was_lost_before_all_hope_was_may_have_been_stored(appender: Subject) -> None:
    lost = appender.call("1", once=True)
    lose(appender)
    waiting = appender.call("2", once=True)
    appender.fail(Closed("closed"))
    assert isinstance(lost.error, SendUncertain)
    assert isinstance(waiting.error, Closed)


def test_what_is_lost_when_there_is_no_hope_any_more_is_not_repeated(appender: Subject) -> None:
    caller = appender.call("1", once=True)
    appender.begin()
    appender.fail(Closed("closed"))
    appender.on_lost(ConnectionLost("reset"))
    assert isinstance(caller.error, SendUncertain)
    assert appender.begin() == ""


def test_what_was_lost_and_waits_aside_may_have_been_stored_when_there_is_no_hope_any_more(appender: Subject) -> None:
    caller = appender.call("1", once=True)
    lose(appender)
    appender.begin()
    busy = appender.on_stored([None])
    appender.fail(Closed("closed"))
    appender.resume(busy)
    assert isinstance(caller.error, SendUncertain), "the other transaction may be its own"


@pytest.mark.parametrize("count", [1, 2])
def test_what_was_lost_may_have_been_stored_although_the_server_refuses_everything_now(
    appender: Subject, count: int
) -> None:
    callers = [appender.call(str(number), once=True) for number in range(count)]
    lose(appender)
    assert len(appender.begin().split()) == count
    appender.on_refused(ServerRefused("cannot execute INSERT in a read-only transaction", sqlstate="25006"))
    for caller in callers:
        assert isinstance(caller.error, SendUncertain)
        assert "and will not be repeated any more: reset" in str(caller.error)


def test_what_was_lost_and_is_refused_for_its_text_was_never_stored(appender: Subject) -> None:
    caller = appender.call("☠", once=True)
    lose(appender)
    appender.begin()
    error = ServerRefused("no letter for it", sqlstate="22P05")
    appender.on_refused(error)
    assert caller.outcomes == [error]


def test_of_a_batch_that_was_refused_only_the_one_at_fault_is_told_so(appender: Subject) -> None:
    callers = [appender.call(text) for text in "ab☠d"]
    error = ServerRefused("no letter for it", sqlstate="22P05")
    batches = []
    while batch := appender.begin():
        batches.append(batch)
        if "☠" in batch:
            appender.on_refused(error)
        else:
            appender.on_stored(range(len(batch.split())))
    assert batches == ["a b ☠ d", "a b", "☠ d", "☠", "d"]
    assert [caller.outcomes for caller in callers] == [[None], [None], [error], [None]]


# -- words and misuse


def test_a_call_says_what_it_is(appender: Subject) -> None:
    assert str(appender.call("1")) == "the append to stream 'orders'"
    assert str(appender.call("1", "2", "3")) == "the append to stream 'orders' and 2 more"


def test_only_calls_of_which_the_first_entry_has_an_idempotency_key_may_be_repeated(appender: Subject) -> None:
    assert [appender.call("1", once=once).repeatable for once in (False, True)] == [False, True]


def test_a_call_of_no_kind_has_no_name_and_a_grouping_of_no_kind_groups_nothing() -> None:
    call: grouping.Call[int] = grouping.Call([1])
    with pytest.raises(NotImplementedError):
        str(call)
    with pytest.raises(NotImplementedError):
        grouping.Grouping[int](TIMEOUT).next_batch()
