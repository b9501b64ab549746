"""Channels whose payloads have a type: what is sent is encoded, and what arrives is decoded, or told apart.

A `Channel` can be used wherever a channel's name can. Payloads are JSON (see `codecs`), or whatever two functions of
the user's own make of them.

It promises that what it encodes can be decoded by a channel with the same name and type. It does not check that the
senders of this channel agree about the type: PostgreSQL carries any text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar, overload

from pgpubsub.codecs import Typed, name_of_type
from pgpubsub.core.headers import Headers, with_headers
from pgpubsub.core.sql import check_channel, check_payload
from pgpubsub.events import Gap, Notify, Undecodable, with_headers_of
from pgpubsub.signals import was_raised_by_a_signal_handler

__all__ = ["Channel", "Types", "as_message", "checked_message", "name_of"]

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
        TypeError: no codec can handle the type, or `encode` or `decode` is no function.
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

    __slots__ = ("_decode", "_name", "_typed")

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
        self._name = name
        self._typed = Typed[T](type, f"channel {name!r}", f"Channel({name!r}, {name_of_type(type)})", encode, decode)
        self._decode = self._typed.codec.decode

    @property
    def name(self) -> str:
        """The channel's exact name."""
        return self._name

    @property
    def type(self) -> Any:
        """The type of its payloads."""
        return self._typed.type

    def encode(self, payload: T) -> str:
        """The text that is sent for `payload`. What is not of the channel's type is found here, before it is sent, and
        not by each receiver: the text is decoded once.

        Raises:
            PayloadError: `payload` is not of the channel's type. The codec's error is its `__cause__`.
        """
        return self._typed.encode(payload)

    def decode(self, event: Notify[str]) -> Notify[T] | Undecodable:
        """`event` with its payload decoded, or the `Undecodable` that it is."""
        try:
            decoded: Notify[T] = _new(Notify, (event[0], event[1], self._decode(event[2])))
            return decoded if type(event) is Notify else with_headers_of(event, decoded)
        except Exception as error:
            if was_raised_by_a_signal_handler(error):
                raise
            return Undecodable(event, error)

    def __repr__(self) -> str:
        return f"Channel({self._name!r}, {name_of_type(self.type)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Channel):
            return NotImplemented
        return (self._name, self.type, self._typed.own) == (other._name, other.type, other._typed.own)

    def __hash__(self) -> int:
        return hash(self._name)  # a type such as Annotated[int, []] has no hash

    def __reduce__(self) -> Any:
        encode, decode = self._typed.own
        return partial(Channel, encode=encode, decode=decode), (self._name, self.type)


def checked_message(
    channel: str | Channel[Any], payload: Any, limit: int, headers: Headers | None = None
) -> tuple[str, str]:
    """`as_message`, and the text can be sent and has at most `limit` bytes: see `core.sql.check_payload`, and
    `core.headers.with_headers` for what is sent beside it."""
    message = as_message(channel, payload)
    check_payload(*message, limit)
    return message if headers is None else with_headers(message, headers, limit)


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
    """Which of one subscriber's channels have a type, by name. It is empty, and so false, where none has.

    Raises:
        ValueError: two channels with one name and different types are given at once.
    """

    def __init__(self, channels: Iterable[str | Channel[Any]] = ()) -> None:
        super().__init__()
        for channel in channels:
            known = self.get(name_of(channel))
            if isinstance(channel, Channel) and known is not None and channel != known:
                raise ValueError(
                    f"one subscription cannot have both {known!r} and {channel!r}: what comes on a channel has one"
                    " type; subscribe twice, or make it a union"
                )
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
