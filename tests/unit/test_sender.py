"""Which calls go out together, and what each is told, rule by rule. `tests/sim` has all of them at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pgpubsub import ConnectionLost, PayloadError, SendTimeout, SendUncertain, ServerRefused
from pgpubsub.core import grouping
from pgpubsub.core.frames import Message, pack
from pgpubsub.core.sender import CHARACTERS, MESSAGES, Call, Sender
from pgpubsub.errors import PubSubError

TIMEOUT = 10.0
NAME = "0123456789abcdef"


class Caller(Call):
    """Remembers what it is told."""

    __slots__ = ("left", "outcomes")

    def __init__(self, messages: Sequence[Message], *, urgent: bool = False) -> None:
        super().__init__(messages, urgent=urgent)
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


def sent(batch: grouping.Batch[Message]) -> list[Message]:
    """What goes out for `batch`."""
    return pack(batch.items, lambda: NAME)


class Subject(Sender):
    """A sender, with short ways to submit and to read."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT, self.note)
        self.noted: list[tuple[grouping.Call[Message], PubSubError | None]] = []

    def note(self, call: grouping.Call[Message], error: PubSubError | None) -> None:
        self.noted.append((call, error))

    def call(self, *texts: str, now: float = 0.0, urgent: bool = False) -> Caller:
        """Somebody wants to send `texts` on channel a."""
        caller = Caller([("a", text) for text in texts], urgent=urgent)
        self.submit(caller, now)
        return caller

    def calls(self, texts: str, now: float = 0.0) -> list[Caller]:
        """Several want to send a word each."""
        return [self.call(text, now=now) for text in texts.split()]

    def begin(self) -> str:
        """What goes out now; it is in flight then."""
        batch = self.next_batch()
        return " ".join(text for _, text in sent(batch)) if batch is not None else ""

    def story(self) -> list[str]:
        """What goes out, and then and then, if everything can be sent."""
        batches = []
        while batch := self.begin():
            batches.append(batch)
            self.on_sent()
        return batches

    def sizes(self) -> list[int]:
        """Of how many messages that is."""
        sizes = []
        while batch := self.next_batch():
            sizes.append(len(sent(batch)))
            self.on_sent()
        return sizes


@pytest.fixture
def sender() -> Subject:
    return Subject()


@pytest.fixture
def busy() -> Subject:
    """Something is in flight."""
    subject = Subject()
    subject.call("before")
    subject.begin()
    return subject


# -- which go out together


def test_an_idle_sender_sends_a_call_at_once(sender: Subject) -> None:
    assert sender.next_batch() is None
    caller = sender.call("one", "two")
    batch = sender.next_batch()
    assert batch == grouping.Batch((caller,))
    assert sent(batch) == [("a", "one"), ("a", "two")]
    assert sender.in_flight is batch


def test_what_is_submitted_while_something_is_in_flight_goes_out_together_in_the_next(busy: Subject) -> None:
    for text in ("one", "two", "three"):
        busy.call(text)
        assert busy.next_batch() is None
    busy.on_sent()
    assert busy.in_flight is None
    assert busy.story() == ["one two three"]


def test_all_messages_of_a_call_go_out_together_and_in_order(busy: Subject) -> None:
    busy.call("1", "2", "3")
    busy.call("4", "5")
    busy.on_sent()
    assert busy.story() == ["1 2 3 4 5"]


def test_urgent_calls_go_first_and_each_alone(busy: Subject) -> None:
    busy.calls("one two")
    busy.call("heart", urgent=True)
    busy.call("beat", urgent=True)
    busy.on_sent()
    assert busy.story() == ["heart", "beat", "one two"]


def test_equal_messages_of_several_calls_go_out_one_after_the_other_and_nobody_overtakes(busy: Subject) -> None:
    busy.calls("one same two same three same")
    busy.on_sent()
    assert busy.story() == ["one same two", "same three", "same"]


def test_one_message_that_two_calls_have_in_common_keeps_them_apart(busy: Subject) -> None:
    busy.call("1", "2", "3")
    busy.call("4", "3")
    busy.on_sent()
    assert busy.story() == ["1 2 3", "4 3"]


def test_equal_texts_on_two_channels_go_out_together(busy: Subject) -> None:
    busy.call("same")
    busy.submit(Caller([("b", "same")]), 0)
    busy.on_sent()
    assert busy.story() == ["same same"]


def test_equal_messages_within_a_call_are_sent_as_often_as_they_are_given(sender: Subject) -> None:
    sender.call("same", "same")
    assert sender.begin() == f"same pgpubsub/1 {NAME} 1/1 same"


@pytest.mark.parametrize("of_a_call", [1, 400])
def test_a_batch_has_only_so_many_messages(busy: Subject, of_a_call: int) -> None:
    in_a_batch = MESSAGES // of_a_call
    for call in range(in_a_batch + 1):
        busy.call(*(f"{call}.{number}" for number in range(of_a_call)))
    busy.on_sent()
    assert busy.sizes() == [in_a_batch * of_a_call, of_a_call]


def test_repetitions_within_the_calls_count_too(busy: Subject) -> None:
    for text in "abc":
        busy.call(*[text] * (MESSAGES // 2))
    busy.on_sent()
    assert busy.sizes() == [MESSAGES, MESSAGES // 2]


def test_a_batch_has_only_so_many_characters(busy: Subject) -> None:
    half = CHARACTERS // 2
    for texts in (["G" * half, "H" * (half - 1)], "I", "J", ["K" * (CHARACTERS - 1)], "L", "M"):
        busy.call(*texts)
    busy.on_sent()
    assert [{*"GHIJKLM"}.intersection(batch) for batch in busy.story()] == [{*"GHI"}, {*"JK"}, {*"LM"}]


def test_a_call_that_is_larger_than_a_batch_goes_alone(busy: Subject) -> None:
    busy.call("first")
    busy.call(*map(str, range(MESSAGES + 1)))
    busy.call("next")
    busy.call("x" * 7000, *("y" * 7000 + str(number) for number in range(CHARACTERS // 7000)))
    busy.call("last")
    busy.on_sent()
    assert busy.sizes() == [1, MESSAGES + 1, 1, CHARACTERS // 7000 + 1, 1]


def test_calls_that_have_been_withdrawn_take_no_room_in_a_batch(busy: Subject) -> None:
    texts = ["x" * (CHARACTERS - 3), "one", "two"]
    callers = [busy.call(text) for text in texts]
    busy.withdraw(callers[0])
    busy.call("one")
    busy.withdraw(callers[1])
    busy.on_sent()
    assert busy.story() == ["two one"]


# -- what they are told


def test_every_call_of_a_batch_is_told_once_that_it_was_sent(busy: Subject) -> None:
    callers = busy.calls("one two three")
    busy.on_sent()
    busy.begin()
    assert [caller.outcomes for caller in callers] == [[], [], []]
    busy.on_sent()
    assert [caller.outcomes for caller in callers] == [[None], [None], [None]]


def test_whoever_made_the_sender_is_told_too_but_not_of_what_is_urgent_or_was_withdrawn(sender: Subject) -> None:
    callers = sender.calls("one two three")
    urgent = sender.call("beat", urgent=True)
    sender.begin()
    sender.on_sent()
    sender.begin()
    sender.withdraw(callers[1])
    sender.on_sent()
    callers.append(sender.call("four"))
    sender.begin()
    error = ServerRefused("no")
    sender.on_refused(error)
    assert sender.noted == [(callers[0], None), (callers[2], None), (callers[3], error)]
    assert urgent.outcomes == [None]


def test_what_was_sent_is_counted_apart_from_what_is_urgent(sender: Subject) -> None:
    sender.call("one", "two")
    sender.call("beat", urgent=True)
    sender.call("x" * 10_000)
    sender.begin()
    assert sender.sent == 0
    sender.on_sent()
    assert sender.sent == 0
    sender.begin()
    sender.on_sent()
    assert sender.sent == 3, "a message in parts is one"
    sender.call("three")
    sender.begin()
    sender.on_refused(ServerRefused("no"))
    sender.call("four")
    sender.begin()
    sender.on_lost(ConnectionLost("reset"))
    assert sender.sent == 3


def test_a_call_that_is_refused_alone_is_told_so(sender: Subject) -> None:
    caller = sender.call("bad", "good")
    sender.begin()
    error = ServerRefused("no")
    sender.on_refused(error)
    assert caller.outcomes == [error]
    assert sender.begin() == ""


def test_a_batch_that_is_refused_is_divided_until_the_one_at_fault_is_alone(busy: Subject) -> None:
    callers = busy.calls("a b bad d e")
    busy.on_sent()
    batches = []
    while batch := busy.begin():
        batches.append(batch)
        if "bad" in batch:
            busy.call(f"after-{len(batches)}")
            busy.on_refused(ServerRefused(f"no to {batch}"))
        else:
            busy.on_sent()
    assert batches == ["a b bad d e", "a b", "bad d e", "bad", "d e", "after-1 after-3 after-4"]
    assert [str(caller.outcomes[0]) for caller in callers] == ["None", "None", "no to bad", "None", "None"]
    assert all(len(caller.outcomes) == 1 for caller in callers)


def test_urgent_calls_go_before_the_parts_of_what_was_refused(busy: Subject) -> None:
    busy.calls("one two")
    busy.on_sent()
    busy.begin()
    busy.call("beat", urgent=True)
    busy.on_refused(ServerRefused("no"))
    assert busy.story() == ["beat", "one", "two"]


def test_when_the_connection_breaks_what_was_in_flight_is_uncertain_and_not_repeated(busy: Subject) -> None:
    callers = [busy.call("one", "two"), busy.call("three")]
    busy.on_sent()
    busy.begin()
    later = busy.call("four")
    error = ConnectionLost("reset")
    error.__cause__ = OSError("the driver's own")
    busy.on_lost(error)
    assert [str(caller.error) for caller in callers] == [
        "NOTIFY 'a' and 1 more may or may not have been sent, and is not repeated: reset",
        "NOTIFY 'a' may or may not have been sent, and is not repeated: reset",
    ]
    for caller in callers:
        assert isinstance(caller.error, SendUncertain)
        assert caller.error.__cause__ is error.__cause__
    assert busy.story() == ["four"]
    assert later.outcomes == [None]


def test_what_has_waited_for_too_long_is_told_so_and_not_sent(busy: Subject) -> None:
    early = [busy.call("one", "two", now=5), busy.call("beat", now=5, urgent=True)]
    late = busy.call("three", now=6)
    cause = ConnectionLost("reset")
    busy.expire(14.9, "not yet")
    assert [caller.outcomes for caller in early] == [[], []]
    busy.expire(15, "nobody answers", cause)
    for caller in early:
        assert isinstance(caller.error, SendTimeout)
        assert caller.error.__cause__ is cause
    assert str(early[0].error) == (
        "NOTIFY 'a' and 1 more could not be sent within 10 s, and will not be: nobody answers"
    )
    busy.expire(15.9, "told once")
    busy.on_sent()
    assert busy.story() == ["three"]
    assert late.outcomes == [None]


def test_what_is_in_flight_does_not_expire(sender: Subject) -> None:
    caller = sender.call("one")
    sender.begin()
    sender.expire(1000, "")
    assert caller.outcomes == []
    sender.on_sent()
    assert caller.outcomes == [None]


def test_parts_of_what_was_refused_expire_too(busy: Subject) -> None:
    early = [*busy.calls("a b c", now=0), busy.call("d", now=1)]
    busy.on_sent()
    busy.begin()
    busy.on_refused(ServerRefused("no"))
    busy.expire(10, "too many")
    assert [caller.outcomes != [] for caller in early] == [True, True, True, False]
    assert busy.next_expiry == 11
    assert busy.story() == ["d"]


def test_when_there_is_no_hope_all_that_wait_are_told_and_what_is_in_flight_has_its_own_outcome(busy: Subject) -> None:
    refused = busy.calls("one two")
    busy.on_sent()
    busy.begin()
    busy.on_refused(ServerRefused("no"))
    flying = busy.call("beat", urgent=True)
    busy.begin()
    waiting = [*refused, busy.call("three"), busy.call("four", urgent=True)]
    withdrawn = busy.call("five")
    busy.withdraw(withdrawn)
    error = ConnectionLost("closed")
    error.__cause__ = OSError("the driver's own")
    busy.fail(error)
    assert busy.next_expiry is None
    told = [caller.error for caller in waiting]
    for one in told:
        assert isinstance(one, ConnectionLost)
        assert (str(one), one.__cause__) == ("closed", error.__cause__)
    assert len({id(one) for one in told}) == len(told), "each has its own"
    assert (flying.outcomes, withdrawn.outcomes) == ([], [])
    busy.on_sent()
    assert flying.outcomes == [None]
    assert busy.story() == []


def test_of_a_batch_that_is_refused_when_there_is_no_hope_any_more_nothing_is_sent_again(busy: Subject) -> None:
    callers = busy.calls("one two three")
    busy.on_sent()
    busy.begin()
    busy.fail(ConnectionLost("closed"))
    busy.on_refused(ServerRefused("no"))
    told = [caller.error for caller in callers]
    assert [str(error) for error in told] == ["closed"] * 3
    assert len({id(error) for error in told}) == 3
    assert busy.story() == []
    assert busy.idle


# -- withdrawing


def test_a_call_that_is_withdrawn_before_it_is_in_flight_is_not_sent(busy: Subject) -> None:
    one, _, three = busy.calls("one two three")
    beat = busy.call("beat", urgent=True)
    for caller in (one, three, beat):
        busy.withdraw(caller)
    busy.on_sent()
    assert busy.story() == ["two"]
    assert (one.outcomes, three.outcomes, beat.outcomes) == ([], [], [])


def test_parts_of_what_was_refused_can_be_withdrawn(busy: Subject) -> None:
    callers = busy.calls("a b c d")
    busy.on_sent()
    busy.begin()
    busy.withdraw(callers[3])
    busy.on_refused(ServerRefused("no"))
    for caller in callers[:2]:
        busy.withdraw(caller)
    assert busy.story() == ["c"]
    assert [caller.outcomes for caller in callers] == [[], [], [None], []]


def test_a_call_of_which_the_shell_knows_that_it_will_be_withdrawn_is_not_sent_either(busy: Subject) -> None:
    callers = [*busy.calls("one two three"), busy.call("beat", urgent=True)]
    callers[0].left = callers[3].left = True
    busy.on_sent()
    assert busy.begin() == "two three"
    callers[1].left = True
    busy.on_refused(ServerRefused("no"))
    assert busy.story() == ["three"]
    assert [caller.outcomes for caller in callers] == [[], [], [None], []]


def test_when_all_was_withdrawn_there_is_nothing_to_send(busy: Subject) -> None:
    callers = [*busy.calls("a b"), busy.call("beat", urgent=True)]
    busy.on_sent()
    busy.begin()
    busy.on_sent()
    busy.begin()
    busy.on_refused(ServerRefused("no"))
    callers.append(busy.call("c"))
    for caller in callers:
        busy.withdraw(caller)
    assert busy.next_batch() is None


def test_what_is_withdrawn_in_flight_is_told_nothing_whatever_comes_of_it(sender: Subject) -> None:
    callers = sender.calls("one two")
    sender.begin()
    sender.withdraw(callers[0])
    sender.on_sent()
    assert sender.sent == 2, "both were"
    callers += sender.calls("three four")
    sender.begin()
    sender.withdraw(callers[2])
    sender.on_lost(ConnectionLost("reset"))
    callers += sender.calls("five")
    sender.begin()
    sender.withdraw(callers[4])
    sender.on_refused(ServerRefused("no"))
    assert [len(caller.outcomes) for caller in callers] == [0, 1, 0, 1, 0]


def test_what_is_withdrawn_does_not_expire(busy: Subject) -> None:
    callers = busy.calls("one two")
    busy.withdraw(callers[0])
    busy.expire(10, "")
    assert [len(caller.outcomes) for caller in callers] == [0, 1]


def test_of_what_waits_and_is_withdrawn_nothing_is_kept(busy: Subject) -> None:
    caller = busy.call("x" * 1_000_000)
    busy.withdraw(caller)
    assert caller.items == ()


# -- when to look again


def test_it_tells_when_the_first_of_those_that_wait_expires(busy: Subject) -> None:
    expiries = [busy.next_expiry]
    for now in (2, 3):
        busy.call(str(now), now=now)
        expiries.append(busy.next_expiry)
    busy.expire(12, "")
    expiries.append(busy.next_expiry)
    busy.on_sent()
    busy.begin()
    expiries.append(busy.next_expiry)
    assert expiries == [None, 12, 12, 13, None], "what is in flight does not expire"


def test_it_tells_when_an_urgent_call_expires(busy: Subject) -> None:
    busy.call("beat", now=1, urgent=True)
    busy.call("two", now=2)
    assert busy.next_expiry == 11
    busy.expire(11, "")
    assert busy.next_expiry == 12


def test_it_tells_when_parts_of_what_was_refused_expire(busy: Subject) -> None:
    for now in (1, 2, 3):
        busy.call(str(now), now=now)
    busy.on_sent()
    busy.begin()
    busy.on_refused(ServerRefused("no"))
    busy.call("4", now=4)
    for expiry in (11, 12, 13, 14):
        assert busy.next_expiry == expiry
        busy.expire(expiry, "")
    assert busy.next_expiry is None


def test_what_was_withdrawn_is_no_reason_to_look_again_and_again(busy: Subject) -> None:
    callers = [*busy.calls("one two"), busy.call("beat", urgent=True)]
    busy.call("three", now=3)
    for caller in callers:
        busy.withdraw(caller)
    busy.expire(10, "")
    assert busy.next_expiry == 13


def test_it_is_idle_when_nothing_waits_or_is_in_flight_but_urgent_calls(sender: Subject) -> None:
    idle = [sender.idle]
    callers = sender.calls("one two")
    idle.append(sender.idle)
    sender.begin()
    idle.append(sender.idle)
    sender.on_refused(ServerRefused("no"))
    idle.append(sender.idle)
    sender.withdraw(callers[0])
    idle.append(sender.idle)
    sender.withdraw(callers[1])
    idle.append(sender.idle)
    sender.call("beat", urgent=True)
    idle.append(sender.idle)
    sender.begin()
    idle.append(sender.idle)
    assert idle == [True, False, False, False, False, True, True, True]


# -- words and misuse


def test_a_call_and_a_batch_say_what_they_are() -> None:
    assert str(Caller([("orders", "1")])) == "NOTIFY 'orders'"
    assert str(Caller([("orders", "1"), ("b", "2"), ("c", "3")])) == "NOTIFY 'orders' and 2 more"
    sender = Subject()
    caller = sender.call("x" * 10_000)
    batch = sender.next_batch()
    sender.withdraw(caller)
    assert str(batch) == "NOTIFY 'a'"


def test_a_call_has_to_say_how_it_is_told() -> None:
    sender = Subject()
    sender.submit(Call([("a", "one")]), 0)
    sender.begin()
    with pytest.raises(NotImplementedError):
        sender.on_sent()


@pytest.mark.parametrize("report", ["on_sent", "on_refused", "on_lost"])
def test_a_report_about_nothing_is_an_error(sender: Subject, report: str) -> None:
    arguments = () if report == "on_sent" else (ConnectionLost("reset"),)
    with pytest.raises(AssertionError, match="nothing is in flight"):
        getattr(sender, report)(*arguments)


@pytest.mark.parametrize("sqlstate", ["54000", "25006", "55P03", "42501"])
def test_a_refusal_that_concerns_everybody_is_told_to_all_of_the_batch_at_once(busy: Subject, sqlstate: str) -> None:
    calls = busy.calls("a b c")
    busy.on_sent()
    assert busy.begin() == "a b c"
    busy.on_refused(ServerRefused("too many notifications in the NOTIFY queue", sqlstate=sqlstate))
    assert [str(call.error) for call in calls] == ["too many notifications in the NOTIFY queue"] * 3
    assert len({id(call.error) for call in calls}) == 3
    assert busy.begin() == ""


def test_what_the_driver_cannot_encode_is_one_of_them(busy: Subject) -> None:
    busy.calls("a b c")
    busy.on_sent()
    assert busy.begin() == "a b c"
    busy.on_refused(PayloadError("the connection's client_encoding cannot express it"))
    assert busy.story() == ["a", "b c"]


# -- several in one round trip


def behind(sender: Subject) -> str:
    """What goes out behind what has just been begun."""
    batch = sender.next_batch(behind=True)
    return " ".join(text for _, text in sent(batch)) if batch is not None else ""


def test_equal_calls_go_out_in_one_round_trip_each_in_its_place(busy: Subject) -> None:
    busy.calls("a b a c a a d")
    busy.on_sent()
    assert [busy.begin(), behind(busy), behind(busy), behind(busy), behind(busy)] == ["a b", "a c", "a", "a d", ""]
    assert busy.begin() == ""


def test_only_what_equals_something_goes_behind(busy: Subject) -> None:
    busy.calls(" ".join(map(str, range(MESSAGES + 1))))
    busy.on_sent()
    assert len(busy.begin().split()) == MESSAGES
    assert behind(busy) == ""


def test_nothing_goes_behind_an_urgent_call_or_a_part_of_what_was_refused(busy: Subject) -> None:
    [bad, *_] = busy.calls("bad a a a")
    busy.on_sent()
    assert [busy.begin(), behind(busy)] == ["bad a", "a"]
    busy.on_refused(ServerRefused("untranslatable", sqlstate="22P05"))
    busy.on_sent()
    assert [busy.begin(), behind(busy)] == ["bad", ""]
    busy.call("beat", urgent=True)
    busy.on_refused(ServerRefused("untranslatable", sqlstate="22P05"))
    assert str(bad.error) == "untranslatable"
    assert [busy.begin(), behind(busy)] == ["beat", ""]


def test_what_is_told_concerns_the_oldest_first(busy: Subject) -> None:
    calls = busy.calls("a a a")
    busy.on_sent()
    assert [busy.begin(), behind(busy), behind(busy)] == ["a", "a", "a"]
    busy.on_sent()
    busy.on_refused(ServerRefused("the queue is full", sqlstate="54000"))
    busy.on_lost(ConnectionLost("reset"))
    assert [type(call.outcomes[0]) for call in calls] == [type(None), ServerRefused, SendUncertain]
    assert busy.idle
