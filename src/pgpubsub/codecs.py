"""How a payload of a type becomes JSON and comes back: by pydantic where the type is or contains something of
pydantic's, and by msgspec otherwise.

One of them has the whole type, since neither looks into the other's: a `msgspec.Struct` with a model in it is refused.
Both are imported when a type needs them, and not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pgpubsub.errors import PayloadError
from pgpubsub.signals import was_raised_by_a_signal_handler

__all__ = ["Codec", "Typed", "codec_for", "name_of_type"]


T = TypeVar("T")


class Codec(NamedTuple):
    """What turns a payload into text, and back."""

    encode: Callable[[Any], str]
    decode: Callable[[str], Any]


def codec_for(type: Any, channel: str) -> Codec:
    """The codec for payloads of `type`. `channel` is whose they are, for the errors.

    Raises:
        TypeError: no library can handle the type.
        ImportError: the library that could is not installed.
    """
    try:
        make = _pydantic_codec if _is_of_pydantic(type) else _msgspec_codec
        return make(type)
    except ImportError as error:
        if error.name != "msgspec":  # such as what pydantic needs for addresses
            raise ImportError(f"{channel}: {error}", name=error.name) from error
        raise ImportError(
            f"{channel} needs msgspec: pip install 'pgpubsub[binary,typed]', or give functions of your own with"
            " encode= and decode="
        ) from error
    except Exception as error:  # each library has its own, and a type may refer to a name that is not there yet
        raise TypeError(
            f"{channel}: no payload can have this type; give another one, or functions of your own with encode= and"
            f" decode=: {error}"
        ) from error


class Typed(Generic[T]):
    """Payloads of one type: encoded, and decoded.

    Args:
        type: what codecs can handle, or what the two functions do.
        whose: whose payloads they are, such as "channel 'orders'", for the errors.
        subject: the same as it is written, such as "Channel('orders', Order)".
        encode, decode: the user's own codec, both or neither.

    Raises:
        TypeError, ImportError: as `codec_for`, and `encode` or `decode` is no function.
    """

    __slots__ = ("codec", "own", "type", "whose")

    def __init__(
        self,
        type: Any,
        whose: str,
        subject: str,
        encode: Callable[[T], str] | None,
        decode: Callable[[str], T] | None,
    ) -> None:
        if (encode is None) != (decode is None):
            raise TypeError(f"{whose}: give both encode= and decode=, or neither")
        self.type = type
        self.whose = whose
        self.own = (encode, decode)
        if encode is None or decode is None:
            self.codec = codec_for(type, subject)
        elif callable(encode) and callable(decode):
            self.codec = Codec(encode, decode)
        else:
            raise TypeError(f"{whose}: encode= and decode= are functions, not {encode!r} and {decode!r}")

    def encode(self, payload: T) -> str:
        """The text for `payload`, which is decoded once, so that what is not of the type is found here.

        Raises:
            PayloadError: it is not. The codec's error is its `__cause__`.
        """
        encode, decode = self.codec
        try:
            text = encode(payload)
            if not isinstance(text, str):
                raise TypeError(f"encode= returned {text.__class__.__name__}, not str")
            decode(text)
        except Exception as error:
            if was_raised_by_a_signal_handler(error):
                raise
            reason = str(error) if self.own == (None, None) else f"{error.__class__.__name__}: {error}"
            raise PayloadError(
                f"the payload for {self.whose} does not fit its type, {name_of_type(self.type)}: {reason}"
            ) from error
        return text


def name_of_type(type: Any) -> str:
    """As it is written."""
    return str(type.__qualname__) if isinstance(type, _CLASS) and not get_args(type) else repr(type)


# -- msgspec


def _msgspec_codec(type: Any) -> Codec:
    import msgspec

    _refuse_unknown_classes(msgspec.inspect.type_info(type))
    encode = msgspec.json.Encoder().encode
    return Codec(lambda payload: encode(payload).decode(), msgspec.json.Decoder(type).decode)


def _refuse_unknown_classes(info: Any) -> None:
    """msgspec takes a class that it does not know for one whose decoding the user will see to."""
    import msgspec

    seen: list[Any] = []
    left = [info]
    while left:
        node = left.pop()
        if isinstance(node, msgspec.inspect.CustomType):
            raise TypeError(f"msgspec does not know how to decode a {name_of_type(node.cls)}")
        if isinstance(node, tuple):
            left.extend(node)
        elif isinstance(node, msgspec.Struct) and not any(node is known for known in seen):
            seen.append(node)  # types may contain themselves
            left.extend(getattr(node, name) for name in node.__struct_fields__)


# -- pydantic


def _pydantic_codec(type: Any) -> Codec:
    import pydantic

    adapter = pydantic.TypeAdapter(type)

    def encode(payload: Any) -> str:
        # By alias, and without what is computed, so that it can be read back. Decoding finds what warnings would tell.
        return adapter.dump_json(payload, by_alias=True, round_trip=True, warnings=False).decode()

    return Codec(encode, adapter.validate_json)


def _is_of_pydantic(type: Any) -> bool:
    """Whether something in `type`, wherever it stands, is pydantic's, without importing that: a class, or what is
    written into an `Annotated`, which msgspec would ignore."""
    seen: list[Any] = []
    left = [type]
    while left:
        node = left.pop()
        if any(node is known for known in seen):  # types may contain themselves, and need not have a hash
            continue
        seen.append(node)
        kind = node if isinstance(node, _CLASS) else node.__class__
        if any(name.startswith(("__pydantic_", "__get_pydantic_")) for name in dir(kind)) or any(
            base.__module__.partition(".")[0] in _OF_PYDANTIC for base in kind.__mro__
        ):
            return True
        left.extend(_parts(node))
    return False


_OF_PYDANTIC = ("pydantic", "pydantic_core", "annotated_types")


def _parts(type: Any) -> Iterator[Any]:
    """What `type` is made of: parameters, fields and their defaults, and what it is another name of."""
    yield get_origin(type)
    yield from get_args(type)
    for attribute in ("__value__", "__supertype__"):
        yield getattr(type, attribute, None)
    if isinstance(type, _CLASS):
        with suppress(Exception):  # such as a name that is not there, of which the library will tell
            for name, hint in get_type_hints(type, include_extras=True).items():
                if get_origin(hint) is not ClassVar:
                    yield hint
                    yield vars(type).get(name)


_CLASS = type
