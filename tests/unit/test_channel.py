from __future__ import annotations

import copy
import enum
import json
import pickle
import signal
import sys
import timeit
import traceback
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from types import FrameType
from typing import Annotated, Any, ClassVar, Generic, NewType, TypedDict, TypeVar

import annotated_types
import attrs
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
import typing_extensions

from pgpubsub import Channel, ChannelNameError, Gap, GapReason, Notify, PayloadError, Undecodable
from pgpubsub.channel import Types, as_message, name_of

T = TypeVar("T")


class Order(msgspec.Struct):
    id: int
    note: str = ""


class Kind(enum.Enum):
    SMALL = "small"


@dataclass
class Item:
    id: uuid.UUID
    price: Decimal
    at: datetime
    kind: Kind = Kind.SMALL
    parts: list[Item] = field(default_factory=list)


class Row(TypedDict):
    id: int
    name: str


@attrs.define
class Point:
    x: float
    y: float


class Created(msgspec.Struct, tag=True):
    id: int


class Deleted(msgspec.Struct, tag=True):
    id: int


class Model(pydantic.BaseModel):
    order_id: int = pydantic.Field(alias="orderId")
    at: datetime | None = None


@pydantic.dataclasses.dataclass
class Reading:
    value: float


@dataclass
class WithModel:
    model: Model


class RowWithModel(typing_extensions.TypedDict):
    model: typing_extensions.NotRequired[Model]


@dataclass
class Tree(Generic[T]):
    leaf: T
    count: pydantic.PositiveInt = 1
    branches: list[Tree[T]] = field(default_factory=list)


@dataclass
class WithDefault:
    count: int = pydantic.Field(1, gt=0)


class StructWithModel(msgspec.Struct):
    model: Model


class StructWithConstraint(msgspec.Struct):
    count: Annotated[int, annotated_types.Gt(0)]


class StructWithConstant(msgspec.Struct):
    MODEL: ClassVar[type[Model]] = Model
    id: int


Count = NewType("Count", pydantic.PositiveInt)
Counts = typing_extensions.TypeAliasType("Counts", list[pydantic.PositiveInt])


class Unknown:
    pass


ITEM = Item(uuid.UUID(int=7), Decimal("1.10"), datetime(2026, 1, 1, tzinfo=UTC))

GOOD: list[tuple[Any, Any, Any]] = [
    (Order, Order(17), {"id": 17, "note": ""}),
    (Item, ITEM, ...),
    (Item, Item(ITEM.id, ITEM.price, ITEM.at, parts=[ITEM]), ...),
    (Row, {"id": 17, "name": "seventeen"}, {"id": 17, "name": "seventeen"}),
    (Point, Point(1.5, 2.5), {"x": 1.5, "y": 2.5}),
    (list[int], [1, 2], [1, 2]),
    (dict, {"a": [None, True]}, {"a": [None, True]}),
    (dict[str, Order], {"a": Order(17)}, {"a": {"id": 17, "note": ""}}),
    (str, 'a "text"\0é', 'a "text"\0é'),
    (int, 17, 17),
    (Any, [{"a": 1}], [{"a": 1}]),
    (datetime, ITEM.at, "2026-01-01T00:00:00Z"),
    (Order | None, None, None),
    (Created | Deleted, Deleted(17), {"type": "Deleted", "id": 17}),
    (Annotated[int, msgspec.Meta(ge=0)], 0, 0),
    (Model, Model(orderId=17), {"orderId": 17, "at": None}),
    (Model | None, None, None),
    (list[Model], [Model(orderId=17)], [{"orderId": 17, "at": None}]),
    (dict[str, list[Model | int]], {"a": [Model(orderId=17), 3]}, {"a": [{"orderId": 17, "at": None}, 3]}),
    (Reading, Reading(1.5), {"value": 1.5}),
    (list[Reading], [Reading(1.5)], [{"value": 1.5}]),
    (WithModel, WithModel(Model(orderId=17)), {"model": {"orderId": 17, "at": None}}),
    (list[WithModel | None], [None], [None]),
    (RowWithModel, {"model": Model(orderId=17)}, {"model": {"orderId": 17, "at": None}}),
    (Tree[int], Tree(1, 2, [Tree(3)]), ...),
    (pydantic.HttpUrl, pydantic.HttpUrl("https://example.org/"), "https://example.org/"),
    (pydantic.PositiveInt, 1, 1),
    (StructWithConstant, StructWithConstant(17), {"id": 17}),
]


@pytest.mark.parametrize(("type_", "payload", "expected"), GOOD)
def test_a_payload_comes_back_as_it_was(type_: Any, payload: Any, expected: Any) -> None:
    channel = Channel("orders", type_)
    text = channel.encode(payload)
    assert expected is ... or json.loads(text) == expected
    assert "\0" not in text
    event = channel.decode(Notify(1, "orders", text))
    assert event == Notify(1, "orders", payload)
    assert type(event) is Notify
    assert type(event.payload) is type(payload)


BAD: list[tuple[Any, Any, str]] = [
    (Order, "seventeen", "Expected `object`, got `str`"),
    (Order, None, "Expected `object`, got `null`"),
    (Order, Order("17"), r"Expected `int`, got `str` - at `\$.id`"),  # type: ignore[arg-type]
    (Order, Unknown(), "Encoding objects of type Unknown is unsupported"),
    (Item, Item(ITEM.id, ITEM.price, "today"), "RFC3339"),  # type: ignore[arg-type]
    (Row, {"id": 17}, "missing required field `name`"),
    (Point, Point(1, "2"), "Expected `float`"),  # type: ignore[arg-type]
    (list[int], [1, "2"], r"at `\$\[1\]`"),
    (float, float("nan"), "Expected `float`, got `null`"),
    (str, "\ud800", "surrogates not allowed"),
    (Created | Deleted, Order(1), "missing required field `type`"),
    (Model, {"order": 17}, "orderId"),
    (Model, Model.model_construct(order_id="x"), "orderId"),
    (list[Model], [3], "list.Model"),
    (Reading, "high", "Reading"),
    (pydantic.PositiveInt, -1, "greater than 0"),
    (Annotated[int, pydantic.Field(gt=0)], -1, "greater than 0"),
    (list[Annotated[int, annotated_types.Gt(0)]], [-1], "greater than 0"),
    (dict[str, Count], {"a": -1}, "greater than 0"),
    (Counts, [-1], "greater than 0"),
    (Tree[int], Tree(1, -1), "greater than 0"),
    (WithDefault, WithDefault(-1), "greater than 0"),
    (WithModel, WithModel(3), "order_id|Model"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("type_", "payload", "reason"), BAD)
def test_a_payload_that_does_not_fit_is_refused_before_it_is_sent(type_: Any, payload: Any, reason: str) -> None:
    with pytest.raises(PayloadError, match=f"(?s)^the payload for channel 'orders' does not fit its type, .*{reason}"):
        Channel("orders", type_).encode(payload)


def test_the_error_of_the_library_is_the_cause() -> None:
    with pytest.raises(PayloadError, match="its type, Order: Expected `object`, got `int`") as caught:
        Channel("orders", Order).encode(17)  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)


@pytest.mark.parametrize(
    ("type_", "text", "error"),
    [
        (Order, "seventeen", msgspec.DecodeError),
        (Order, "", msgspec.DecodeError),
        (Order, '{"id": "17"}', msgspec.ValidationError),
        (Order, '{"id": 17, "note": "\udce9"}', UnicodeEncodeError),
        (Model, '{"id": "17"}', pydantic.ValidationError),
    ],
)
def test_what_does_not_fit_arrives_as_undecodable(type_: Any, text: str, error: type[Exception]) -> None:
    event = Channel("orders", type_).decode(Notify(1, "orders", text))
    assert isinstance(event, Undecodable)
    assert event.event == Notify(1, "orders", text)
    assert event.raw == text
    assert isinstance(event.error, error)
    for _ in range(2):
        with pytest.raises(error) as caught:
            print(event.payload)
        assert caught.value is event.error


def test_the_error_of_an_undecodable_says_where_it_arose_and_gathers_nothing() -> None:
    def decode(text: str) -> int:
        return int(text)

    event = Channel("n", int, encode=str, decode=decode).decode(Notify(1, "n", "x"))
    steps: list[list[str]] = []
    for _ in range(3):
        with pytest.raises(ValueError, match="invalid literal") as caught:
            print(event.payload)
        steps.append([step.name for step in traceback.extract_tb(caught.value.__traceback__)])
    assert steps[0][1:] == ["payload", "decode", "decode"]
    assert steps[1:] == steps[:1] * 2


def test_fields_that_are_new_or_gone_do_no_harm() -> None:
    event = Channel("orders", Order).decode(Notify(1, "orders", '{"id": 17, "since": 2027}'))
    assert event.payload == Order(17)


# -- functions of one's own


def test_functions_of_ones_own() -> None:
    channel = Channel("keys", bytes, encode=bytes.hex, decode=bytes.fromhex)
    assert channel.encode(b"\x01\xff") == "01ff"
    assert channel.decode(Notify(1, "keys", "01ff")) == (1, "keys", b"\x01\xff")
    assert isinstance(channel.decode(Notify(1, "keys", "x")), Undecodable)
    with pytest.raises(PayloadError, match="does not fit its type, bytes: TypeError: descriptor 'hex'") as caught:
        channel.encode(17)  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, TypeError)


def test_what_they_raise_never_ends_a_subscription() -> None:
    class Odd(Exception):
        pass

    def decode(text: str) -> object:
        raise Odd(text)

    event = Channel("odd", Unknown, encode=str, decode=decode).decode(Notify(1, "odd", "text"))
    assert isinstance(event, Undecodable)
    assert isinstance(event.error, Odd)


@pytest.mark.parametrize("function", ["encode", "decode"])
def test_one_function_alone_is_refused(function: str) -> None:
    with pytest.raises(TypeError, match="'keys': give both encode= and decode=, or neither"):
        Channel("keys", bytes, **{function: str})


@pytest.mark.parametrize("functions", [{"encode": 3, "decode": 4}, {"encode": str, "decode": "int"}])
def test_what_is_no_function_is_refused(functions: Any) -> None:
    with pytest.raises(TypeError, match="'keys': encode= and decode= are functions, not"):
        Channel("keys", bytes, **functions)


def test_an_error_that_does_not_explain_itself_has_its_name() -> None:
    colours: dict[str, str] = {}
    with pytest.raises(PayloadError, match="does not fit its type, str: KeyError: 'red'$"):
        Channel("colours", str, encode=colours.__getitem__, decode=str).encode("red")


def test_an_encoder_returns_text() -> None:
    keep: Any = bytes
    channel = Channel("keys", bytes, encode=keep, decode=keep)
    with pytest.raises(PayloadError, match="encode= returned bytes, not str"):
        channel.encode(b"key")


# -- what is refused when it is made


@pytest.mark.parametrize(
    "type_", [Unknown, list[Unknown], dict[str, Unknown], complex, "Order", 17, StructWithModel, StructWithConstraint]
)
def test_a_type_that_cannot_be_handled(type_: Any) -> None:
    with pytest.raises(TypeError, match=r"^Channel\('orders', .*\): no payload can have this type; give another one"):
        Channel("orders", type_)


def test_a_type_that_pydantic_cannot_handle() -> None:
    with pytest.raises(TypeError, match=r"no payload can have this type.*Unknown") as caught:
        Channel("orders", Model | Unknown)
    assert isinstance(caught.value.__cause__, pydantic.errors.PydanticSchemaGenerationError)


def test_without_msgspec_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgspec", None)
    with pytest.raises(
        ImportError, match=r"Channel\('orders', int\) needs msgspec: pip install 'pgpubsub\[binary,typed\]'"
    ):
        Channel("orders", int)
    assert Channel("orders", Model).encode(Model(orderId=17)) == '{"orderId":17,"at":null}'
    assert Channel("orders", int, encode=str, decode=int).encode(17) == "17"


def test_without_pydantic_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydantic", None)
    with pytest.raises(ImportError, match=r"^Channel\('orders', .*\): import of pydantic") as caught:
        Channel("orders", Annotated[int, annotated_types.Gt(0)])
    assert caught.value.name == "pydantic"


@pytest.mark.parametrize(
    ("name", "error"), [("", ChannelNameError), ("x" * 64, ChannelNameError), ("\0", ChannelNameError), (3, TypeError)]
)
def test_a_name_is_checked(name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="channel name"):
        Channel(name, int)


# -- as a value


def test_a_channel_is_a_value() -> None:
    channel = Channel("orders", Order)
    assert repr(channel) == "Channel('orders', Order)"
    assert repr(Channel("orders", list[int])) == "Channel('orders', list[int])"
    assert channel == Channel("orders", Order)
    assert hash(channel) == hash(Channel("orders", Order))
    assert channel not in (Channel("orders", Item), Channel("payments", Order), "orders")
    assert Channel("n", int) != Channel("n", int, encode=str, decode=int) == Channel("n", int, encode=str, decode=int)
    assert hash(Channel("orders", Annotated[int, []]))
    assert (channel.name, channel.type) == ("orders", Order)


@pytest.mark.parametrize("attribute", ["name", "type", "other"])
def test_a_channel_cannot_be_changed(attribute: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Channel("orders", Order), attribute, "payments")


@pytest.mark.parametrize(
    "channel", [Channel("orders", Order), Channel("n", list[int]), Channel("n", int, encode=str, decode=int)]
)
def test_a_channel_can_be_copied_and_pickled(channel: Channel[Any]) -> None:
    for another in (copy.deepcopy(channel), pickle.loads(pickle.dumps(channel))):
        assert another == channel
        assert another.decode(Notify(1, "n", "x"))


def test_names_and_messages() -> None:
    orders = Channel("orders", Order)
    assert name_of(orders) == name_of("orders") == "orders"
    assert as_message(orders, Order(17)) == ("orders", '{"id":17,"note":""}')
    not_checked: Any = 17  # which is the caller's business
    assert as_message("orders", not_checked) == ("orders", not_checked)
    for function in (name_of, lambda channel: as_message(channel, "")):
        with pytest.raises(TypeError, match="a channel name is a str, not int: 3"):
            function(3)  # type: ignore[arg-type]
        with pytest.raises(ChannelNameError):
            function("")


def test_an_event_is_a_tuple_whatever_its_payload() -> None:
    event = Notify(1, "orders", Order(17))
    assert event == (1, "orders", Order(17))
    assert repr(event) == "Notify(1, 'orders', Order(id=17, note=''))"
    assert pickle.loads(pickle.dumps(event)) == event
    assert not hasattr(event, "__dict__")
    assert type(Notify[Order](1, "orders", Order(17))) is Notify


# -- which of the channels have a type


def test_the_type_given_last_counts() -> None:
    orders = Channel("orders", Order)
    assert not Types()
    assert not Types(["orders", "payments"])
    assert Types(["orders", orders]) == {"orders": orders}
    assert not Types([orders, "orders"])
    assert Types([orders, Channel("orders", Order)]) == {"orders": orders}


def test_two_types_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"both Channel\('orders', Order\) and Channel\('orders', int\)"):
        Types([Channel("orders", Order), "payments", Channel("orders", int)])


@pytest.mark.parametrize("before", [(), (Channel("orders", Item),)])
def test_what_fails_has_taught_nothing(before: tuple[Channel[Any], ...]) -> None:
    types = Types(before)
    with types.learning(Channel("orders", Order)):
        assert types["orders"].type is Order
    for channel in (Channel("orders", int), "orders"):
        with suppress(LookupError), types.learning(channel):
            assert types.get("orders") == (channel if isinstance(channel, Channel) else None)
            raise LookupError
        assert types["orders"].type is Order


def test_what_is_decoded() -> None:
    types = Types([Channel("orders", Order)])
    gap = Gap(GapReason.CONNECTION_LOST, ("orders",), ITEM.at, None, "")
    assert types.decoded(gap) is gap
    assert types.decoded(Notify(1, "payments", "17")) == (1, "payments", "17")
    assert types.decoded(Notify(1, "orders", '{"id": 17}')) == (1, "orders", Order(17))


# -- signal handlers


class TimeIsUp(Exception):
    """What a program's own time-out raises."""


class Alarm:
    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.ring(number, frame)

    def ring(self, number: int, frame: FrameType | None) -> None:
        raise TimeIsUp


def ring(number: int, frame: FrameType | None) -> None:
    raise TimeIsUp


@contextmanager
def handling(handler: Any) -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def ring_once(*given: Any) -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    raise TimeIsUp


HANDLERS = {
    "function": ring,
    "method": Alarm().ring,
    "object": Alarm(),
    "partial": partial(ring),
    "with more arguments": partial(lambda more, *given: ring(*given), "more"),
    "one that is gone when it raises": ring_once,
}


def interrupted(text: str) -> int:
    signal.raise_signal(signal.SIGUSR1)
    return 17


def interrupted_within(text: str) -> int:
    return next(interrupted(text) for _ in range(1))


@pytest.mark.parametrize("decode", [interrupted, interrupted_within])
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_the_exception_of_a_signal_handler_is_not_taken_for_the_codecs(
    handler: Any, decode: Callable[[str], int]
) -> None:
    channel = Channel("n", int, encode=str, decode=decode)
    for use in (lambda: channel.decode(Notify(1, "n", "17")), lambda: channel.encode(17)):
        with handling(handler), pytest.raises(TimeIsUp):
            use()


def test_the_exception_of_a_codec_is_not_taken_for_a_signal_handlers() -> None:
    def decode(text: str) -> int:
        nothing = None
        return next(int(text) for _ in (nothing, sys._getframe()))

    with handling(ring):
        assert isinstance(Channel("n", int, encode=str, decode=decode).decode(Notify(1, "n", "x")), Undecodable)
        assert isinstance(
            Channel("n", int, encode=str, decode=lambda _: ring(1, None)).decode(Notify(1, "n", "x")), Undecodable
        )


def test_a_codec_may_look_at_its_callers_frame() -> None:
    def decode(text: str, *more: object, **options: object) -> int:
        caller = sys._getframe(1)  # as functions that warn do
        raise ValueError(caller.f_code.co_name)

    assert isinstance(Channel("n", int, encode=str, decode=decode).decode(Notify(1, "n", "x")), Undecodable)


def test_what_cannot_be_decoded_costs_little() -> None:
    """Nobody who sends it should be able to hold up a hub's loop."""
    channel, event = Channel("n", int), Notify(1, "n", "x")
    assert min(timeit.repeat(lambda: channel.decode(event), number=100, repeat=20)) / 100 < 20e-6
