"""A stream as a program has it: its name, the type of its payloads, and how it is read. What both faces share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypedDict, TypeVar

from pgpubsub.channel import Types
from pgpubsub.codecs import Typed
from pgpubsub.core.entries import NewEntry, check_schema, check_stream, new_entry, with_headers
from pgpubsub.core.headers import Headers
from pgpubsub.core.position import Position, Start, stream_id
from pgpubsub.core.sql import LARGEST, utf8_length
from pgpubsub.core.timeouts import check_seconds
from pgpubsub.errors import PayloadTooLarge
from pgpubsub.events import Entry, Undecodable
from pgpubsub.hubs.addresses import Conninfo
from pgpubsub.hubs.mailbox import Decoders
from pgpubsub.hubs.outgoing import carrying
from pgpubsub.signals import was_raised_by_a_signal_handler
from pgpubsub.tracing import Outgoing, Tracing

__all__ = ["Description", "Options", "Payloads", "traced"]

T = TypeVar("T")


class Options(TypedDict, total=False):
    """What `stream` takes beside its name and type."""

    read_conninfo: Conninfo | None
    poll_interval: float
    schema: str


class Payloads(Generic[T]):
    """What a stream's payloads are: of a type, or text and bytes as they are."""

    def __init__(self, typed: Typed[T] | None) -> None:
        self._typed = typed

    def __len__(self) -> int:
        return self._typed is not None

    def encode(self, value: Any) -> Any:
        """What is stored for `value`."""
        return value if self._typed is None else self._typed.encode(value)

    def of(self, event: Any) -> Payloads[T] | None:
        """This, if `event` has a payload of the type."""
        return self if self._typed is not None and isinstance(event, Entry) else None

    def decode(self, event: Entry[Any]) -> Entry[T] | Undecodable:
        """`event` with its payload decoded, or the `Undecodable` that it is."""
        assert self._typed is not None
        try:
            return event.with_payload(self._typed.codec.decode(event.payload))
        except Exception as error:
            if was_raised_by_a_signal_handler(error):
                raise
            return Undecodable(event, error)

    def decoded(self, event: Any) -> Any:
        """`event` as it is handed over."""
        return event if self.of(event) is None else self.decode(event)


class Description(Generic[T]):
    """See the module; the arguments are those of `AsyncHub.stream`."""

    def __init__(
        self,
        name: str,
        type: Any,
        encode: Callable[[T], str] | None,
        decode: Callable[[str], T] | None,
        *,
        max_payload: int,
        read_conninfo: Conninfo | None = None,
        poll_interval: float = 1.0,
        schema: str = "pgpubsub",
    ) -> None:
        check_stream(name)
        check_schema(schema)
        check_seconds("poll_interval", poll_interval)
        self.name = name
        self.schema = schema
        self.read_conninfo = read_conninfo
        self.poll_interval = poll_interval
        self.payloads = Payloads[T](_typed(name, type, encode, decode))
        self.decoders: Decoders = self.payloads or Types()
        """Of its entries, if they are decoded at all."""
        self._max_payload = max_payload

    def at_home(self) -> Description[T]:
        """The same stream, read where it is written."""
        twin = copy.copy(self)
        twin.read_conninfo = None
        return twin

    def entry(self, value: T, key: str | None, headers: Headers | None, idempotency_key: str | None) -> NewEntry:
        """What is appended for `value`. Raises as `new_entry`."""
        return new_entry(
            self.name,
            self.payloads.encode(value),
            self._max_payload,
            key=key,
            headers=headers,
            idempotency_key=idempotency_key,
        )

    def entries(
        self,
        values: Iterable[T],
        key: str | Callable[[T], str | None] | None,
        headers: Headers | Callable[[T], Headers | None] | None,
    ) -> Iterator[NewEntry]:
        """What is appended for `values`. Raises as `new_entry`, and if they are more than one statement can carry."""
        total = 0
        for value in values:
            its_key = key(value) if callable(key) else key
            entry = self.entry(value, its_key, headers(value) if callable(headers) else headers, None)
            total += entry.size
            if total > LARGEST:
                raise PayloadTooLarge(
                    f"the entries have over {LARGEST} bytes together, more than one transaction of ours carries; append"
                    " them in several calls",
                    size=total,
                    limit=LARGEST,
                )
            yield entry

    def start(self, after: str | Start) -> Position | Start:
        """Where to begin. Raises `PositionError`."""
        return after if isinstance(after, Start) else Position.decode(after, stream_id(self.name))


@contextmanager
def traced(tracing: Tracing, entries: Sequence[NewEntry], limit: int, *, many: bool) -> Iterator[Sequence[NewEntry]]:
    """What is done within appends `entries` to a stream: gives them with what they are to carry. `many`: they may be
    several."""
    first = entries[0]
    size = len(first.data) if first.data is not None else utf8_length(first.text or "")
    with tracing.sending(
        Outgoing("append", first.name, len(entries) if many else None, None if many else size)
    ) as sending:
        yield [carrying(entry, entry.headers, sending, with_headers, limit) for entry in entries]


def _typed(
    name: str, type: Any, encode: Callable[[T], str] | None, decode: Callable[[str], T] | None
) -> Typed[T] | None:
    if type is None and encode is None and decode is None:
        return None
    return Typed[T](type, f"stream {name!r}", f"stream {name!r}", encode, decode)
