"""Channels whose payloads have a type: what is sent is encoded, and what arrives is decoded, or told apart.

A `Channel` can be used wherever a channel's name can. Payloads are JSON, by msgspec, and by pydantic where the type is
or contains one of pydantic's; or whatever two functions of the user's own make of them. Both libraries are imported
when a channel needs them, and not before.

It promises that what it encodes can be decoded by a channel with the same name and type. It does not check that the
senders of this channel agree about the type: PostgreSQL carries any text.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, get_args, overload

from pgpubsub.core.sql import check_channel
from pgpubsub.errors import PayloadError
from pgpubsub.events import Gap, Notify, Undecodable

__all__ = ["Channel", "Types", "as_message", "name_of"]

T = TypeVar("T")

_new: Any = tuple.__new__


class Channel(Generic[T]):
    """A channel's name and the type of its payloads.

    Args:
        name: any text of up to 63 bytes.
        type: a dataclass, TypedDict, `msgspec.Struct`, attrs class, pydantic model or dataclass, a type that JSON has,
            or a combination of them, such as `list[Order]` or `Order | None`. `str` is a JSON string, in quotes; text
            as it is needs no `Channel`.
        encode: a function that turns a payload into text, and
        decode: one that turns it back, for another format than JSON. Both or neither. Any `Exception` that `decode`
            raises makes the notification an `Undecodable`.

    Raises:
        ChannelNameError: a name that PostgreSQL cannot carry.
        TypeError: no codec can handle the type.
        ImportError: msgspec is not installed. The extra `typed` brings it.

    A channel is immutable. It compares by its name, its type and the two functions.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Order:
    ...     id: int
    ...     note: str = ""
    >>> orders = pgpubsub.Channel("orders", Order)
    >>> with pgpubsub.Hub(dsn) as hub, hub.subscribe(orders) as events:
    ...     hub.notify(orders, Order(17))
    ...     event = events.get(timeout=5)
    >>> event.payload
    Order(id=17, note='')
    """

    __slots__ = ("_codec", "_name", "_own", "_type")

    @overload
    def __init__(
        self,
        name: str,
        type: type[T],
        *,
        encode: Callable[[T], str] | None = None,
        decode: Callable[[str], T] | None = None,
    ) -> None: ...
    @overload  # for what is a type, but not a class, such as `Order | None`
    def __init__(
        self,
        name: str,
        type: object,
        *,
        encode: Callable[[T], str] | None = None,
        decode: Callable[[str], T] | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        type: Any,
        *,
        encode: Callable[[T], str] | None = None,
        decode: Callable[[str], T] | None = None,
    ) -> None:
        check_channel(name)
        if (encode is None) != (decode is None):
            raise TypeError(f"channel {name!r}: give both encode= and decode=, or neither")
        self._name = name
        self._type = type
        self._own = (encode, decode)
        self._codec = _codec_for(self) if encode is None or decode is None else _Codec(encode, decode)

    @property
    def name(self) -> str:
        """The channel's exact name."""
        return self._name

    @property
    def type(self) -> Any:
        """The type of its payloads."""
        return self._type

    def encode(self, payload: T) -> str:
        """The text that is sent for `payload`. What is not of the channel's type is found here, before it is sent, and
        not by each receiver: the text is decoded once.

        Raises:
            PayloadError: `payload` is not of the channel's type. The codec's error is its `__cause__`.
        """
        encode, decode = self._codec
        try:
            text = encode(payload)
            if not isinstance(text, str):
                raise TypeError(f"encode= returned {type(text).__name__}, not str")
            decode(text)
        except Exception as error:
            if _was_raised_by_a_signal_handler(error):
                raise
            raise PayloadError(
                f"the payload for channel {self._name!r} does not fit its type, {_name_of_type(self._type)}: {error}"
            ) from error
        return text

    def decode(self, event: Notify[str]) -> Notify[T] | Undecodable:
        """`event` with its payload decoded, or the `Undecodable` that it is."""
        try:
            decoded: Notify[T] = _new(Notify, (event[0], event[1], self._codec[1](event[2])))
            return decoded
        except Exception as error:
            if _was_raised_by_a_signal_handler(error):
                raise
            return Undecodable(event[0], event[1], event[2], error)

    def __repr__(self) -> str:
        return f"Channel({self._name!r}, {_name_of_type(self._type)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Channel):
            return NotImplemented
        return self._name == other._name and self._type == other._type and self._own == other._own

    def __hash__(self) -> int:
        return hash(self._name)  # a type such as Annotated[int, []] has no hash

    def __reduce__(self) -> Any:
        encode, decode = self._own
        return partial(Channel, encode=encode, decode=decode), (self._name, self._type)


def as_message(channel: str | Channel[Any], payload: Any) -> tuple[str, str]:
    """The name and the text that are sent for `payload` on `channel`. On a plain channel the payload is returned as it
    is, for the caller to check.

    Raises:
        TypeError: `channel` is neither a name nor a `Channel`.
        ChannelNameError: a name that PostgreSQL cannot carry.
        PayloadError: `payload` is not of the channel's type.
    """
    if isinstance(channel, Channel):
        return channel._name, channel.encode(payload)
    check_channel(channel)
    return channel, payload


def name_of(channel: str | Channel[Any]) -> str:
    """The channel's name. Raises as `as_message`."""
    if isinstance(channel, Channel):
        return channel._name
    check_channel(channel)
    return channel


class Types(dict[str, Channel[Any]]):
    """Which of one subscriber's channels have a type, by name. It is empty, and so false, where none has."""

    def __init__(self, channels: Iterable[str | Channel[Any]] = ()) -> None:
        super().__init__()
        for channel in channels:
            self.learn(channel)

    def learn(self, channel: str | Channel[Any]) -> None:
        """From now on `channel` has the type given here, or none."""
        if isinstance(channel, Channel):
            self[channel.name] = channel
        else:
            self.pop(channel, None)

    @contextmanager
    def learning(self, channel: str | Channel[Any]) -> Iterator[None]:
        """Learn `channel`, but not if what is done with it fails."""
        name = name_of(channel)
        before = self.get(name)
        self.learn(channel)
        try:
            yield
        except BaseException:
            self.learn(name if before is None else before)
            raise

    def of(self, event: Notify | Gap | None) -> Channel[Any] | None:
        """The channel that `event` came on, if that has a type."""
        return self.get(event.channel) if isinstance(event, Notify) else None

    def decoded(self, event: Any) -> Any:
        """A `Notify` or `Gap` as its subscriber gets it."""
        channel = self.of(event)
        return event if channel is None else channel.decode(event)


def _was_raised_by_a_signal_handler(error: Exception) -> bool:
    """Python runs those in the midst of whatever it does. It may be a time-out, which is not the codec's."""
    handlers = filter(callable, map(signal.getsignal, signal.valid_signals()))
    codes = {getattr(handler, "__code__", getattr(type(handler).__call__, "__code__", None)) for handler in handlers}
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


# -- the codecs


class _Codec(NamedTuple):
    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


def _codec_for(channel: Channel[Any]) -> _Codec:
    make = _pydantic_codec if _is_of_pydantic(channel.type) else _msgspec_codec
    try:
        return make(channel.type)
    except ImportError as error:
        raise ImportError(
            f"{channel!r} needs msgspec: pip install 'pgpubsub[binary,typed]', or give functions of your own with"
            " encode= and decode="
        ) from error
    except Exception as error:  # each library has its own, and a type may refer to a name that is not there yet
        raise TypeError(
            f"{channel!r}: no payload can have this type; give another one, or functions of your own with encode= and"
            f" decode=: {error}"
        ) from error


def _msgspec_codec(type: Any) -> _Codec:
    import msgspec

    _refuse_unknown_classes(msgspec.inspect.type_info(type))
    encode = msgspec.json.Encoder().encode
    return _Codec(lambda payload: encode(payload).decode(), msgspec.json.Decoder(type).decode)


def _refuse_unknown_classes(info: Any) -> None:
    """msgspec takes a class that it does not know for one whose decoding the user will see to."""
    import msgspec

    seen: list[Any] = []
    left = [info]
    while left:
        node = left.pop()
        if isinstance(node, msgspec.inspect.CustomType):
            raise TypeError(f"msgspec does not know how to decode a {_name_of_type(node.cls)}")
        if isinstance(node, tuple):
            left.extend(node)
        elif isinstance(node, msgspec.Struct) and not any(node is known for known in seen):
            seen.append(node)  # types may contain themselves
            left.extend(getattr(node, name) for name in node.__struct_fields__)


def _is_of_pydantic(type: Any) -> bool:
    """Whether `type` is or contains a model or dataclass of pydantic's, without importing that."""
    if hasattr(type, "__pydantic_validator__") or hasattr(type, "__pydantic_core_schema__"):
        return True
    return any(map(_is_of_pydantic, get_args(getattr(type, "__value__", type))))


def _pydantic_codec(type: Any) -> _Codec:
    import pydantic

    adapter = pydantic.TypeAdapter(type)

    def encode(payload: Any) -> str:
        # By alias, and without what is computed, so that it can be read back. Decoding finds what warnings would tell.
        return adapter.dump_json(payload, by_alias=True, round_trip=True, warnings=False).decode()

    return _Codec(encode, adapter.validate_json)


def _name_of_type(type: Any) -> str:
    return str(type.__qualname__) if isinstance(type, _CLASS) and not get_args(type) else repr(type)


_CLASS = type
