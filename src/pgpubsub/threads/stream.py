"""Streams, for threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, Unpack, overload

from pgpubsub.core.appender import Call
from pgpubsub.core.entries import NewEntry
from pgpubsub.core.headers import Headers
from pgpubsub.core.position import BEGINNING, Start
from pgpubsub.events import Entry, Undecodable
from pgpubsub.groups.administration import Groups
from pgpubsub.groups.service import GroupOptions, check_concurrency, settings
from pgpubsub.groups.status import DeadLetter, GroupInfo
from pgpubsub.streams.description import Description, traced
from pgpubsub.streams.service import Streams, ids_of
from pgpubsub.threads.consumer import Batch, Consumer, Delivery
from pgpubsub.threads.sending import Told

if TYPE_CHECKING:
    from pgpubsub.threads.hub import Hub
from pgpubsub.threads.reader import Reader

__all__ = ["Stream"]

T = TypeVar("T")


class _Append(Told[Sequence[int]], Call):
    """Entries for the hub's loop to append in one transaction, while a thread waits."""

    def __init__(self, streams: Streams, schema: str, entries: Sequence[NewEntry]) -> None:
        Call.__init__(self, entries)
        Told.__init__(self)
        self._streams = streams
        self._schema = schema

    def start(self) -> None:
        self._streams.submit(self._schema, self)

    def cancel(self) -> None:
        self._streams.withdraw(self._schema, self)

    def success(self) -> Sequence[int]:
        return ids_of(self)


class Stream(Generic[T]):
    """A stream, as `Hub.stream` returns it: append to it, and read it."""

    def __init__(self, hub: Hub, streams: Streams, description: Description[T]) -> None:
        self._hub = hub
        self._streams = streams
        self._description = description
        self._groups = Groups(hub._engine, streams, description)

    def __repr__(self) -> str:
        return f"<Stream {self.name!r}>"

    @property
    def name(self) -> str:
        """Its name."""
        return self._description.name

    def append(
        self, value: T, key: str | None = None, headers: Headers | None = None, *, idempotency_key: str | None = None
    ) -> int:
        """Append an entry, and return its id; it is committed when this returns.

        Appends that come at the same time go out together, in one statement, each with an outcome of its own.

        Args:
            value: the payload: text or bytes, or what the stream's type says. Up to the hub's `max_payload`.
            key: what it is about: entries with the same key belong together.
            headers: beside the payload; names and JSON values.
            idempotency_key: of up to 1,000 bytes. An entry of this stream with the same one is not stored again: its id
                is returned. So an append whose fate is unknown is repeated, here and by you.

        Raises:
            PayloadError, PayloadTooLarge: it cannot be stored. TypeError: something is of another type.
            SendTimeout: it could not be appended for `send_timeout` seconds. It was not, and will not be.
            SendUncertain: the connection broke meanwhile, so that it was appended, or was not.
            StreamsNotInstalled: the message says what to do.
            ServerRefused: for example because the role may not append.

        >>> import pgpubsub
        >>> with pgpubsub.Hub(dsn) as hub:
        ...     orders = hub.stream("orders of a shop")
        ...     id = orders.append("17", key="customer 4")
        ...     with orders.read(after=pgpubsub.BEGINNING) as entries:
        ...         entry = entries.get()
        >>> entry.id == id, entry.key, entry.payload
        (True, 'customer 4', '17')
        """
        return self._append((self._description.entry(value, key, headers, idempotency_key),))[0]

    def append_many(
        self,
        values: Iterable[T],
        *,
        key: str | Callable[[T], str | None] | None = None,
        headers: Headers | Callable[[T], Headers | None] | None = None,
    ) -> list[int]:
        """Append entries in one transaction, in order: all of them or, if this raises, none. Returns their ids.

        Args:
            values: the payloads; 256 MiB at most.
            key, headers: for all, or functions that return those of each value.

        Raises:
            as `append`. What is wrong with a value is raised before anything is sent.
        """
        entries = list(self._description.entries(values, key, headers))
        return list(self._append(entries, many=True)) if entries else []

    @overload
    def read(
        self: Stream[str | bytes], after: str | Start = BEGINNING, *, follow: bool = True
    ) -> Reader[Entry[Any] | Undecodable]: ...
    @overload
    def read(self, after: str | Start = BEGINNING, *, follow: bool = True) -> Reader[Entry[T] | Undecodable]: ...
    def read(self, after: str | Start = BEGINNING, *, follow: bool = True) -> Reader[Any]:
        """A reader of the entries, to be entered with `with`.

        It gets every committed entry once; what could be seen when another was appended comes before that; and nobody's
        open transaction delays others.

        Args:
            after: `BEGINNING`, for the oldest entry; `END`, for what is committed after the reader is entered; or the
                `position` of an entry, or of a reader, from whatever process, to go on behind it.
            follow: whether to wait for more at the end. If not, the iteration ends there.

        Raises:
            PositionError: `after` is not a position of this stream.
        """
        return Reader(self._hub, self._streams, self._description, self._description.start(after), follow)

    @overload
    def consume(
        self: Stream[str | bytes], group: str, *, batch: None = None, **options: Unpack[GroupOptions]
    ) -> Consumer[Delivery[Any]]: ...
    @overload
    def consume(self, group: str, *, batch: None = None, **options: Unpack[GroupOptions]) -> Consumer[Delivery[T]]: ...
    @overload
    def consume(self, group: str, *, batch: int, **options: Unpack[GroupOptions]) -> Consumer[Batch[T]]: ...
    def consume(self, group: str, *, batch: int | None = None, **options: Unpack[GroupOptions]) -> Consumer[Any]:
        """Share the entries with all who consume as the same group: each entry is handled by one of them.

        Entries with one key are handled in order, one at a time; others at the same time, by whichever member has
        them. Iterate over what is returned and handle each delivery in an `with` block: leaving that
        acknowledges the entry. If an exception leaves it, the entry comes again, later and later, and after `attempts`
        it is set aside: see `dead`.

        Args:
            group: any text of up to 1,000 bytes. A group comes into being with its first member, and stays.
            batch: how many entries to hand out together, at most. If their handling fails, they come again in smaller
                batches, until the one to blame is alone.
            follow: whether to wait for more at the end. If not, the iteration ends there.
            attempts: after so many, an entry is set aside. One that was in hand when its member died counts.
            backoff: seconds from one attempt to the next, or a function that returns them, given how many there were.
                By default about 1, 2, 4 and so on, up to 300.
            lease: seconds after which others take over from a member that shows no sign of life.
            start: where a group that is new begins: `BEGINNING`, `END`, or a reader's position.
            on_gap: called with a `Gap` where something may have been missed, as when retention has removed entries that
                the group had not handled. It is logged too. It must only take notes.

        Raises:
            TypeError, ValueError: an argument is not possible.
            PositionError: `start` is not a position of this stream.

        >>> import pgpubsub
        >>> with pgpubsub.Hub(dsn) as hub:
        ...     invoices = hub.stream("invoices of a shop")
        ...     ids = invoices.append_many(["17", "18"])
        ...     for delivery in invoices.consume("billing", follow=False):
        ...         with delivery:
        ...             print(delivery.payload)
        17
        18
        """
        given = settings("consume", self._description, group, batch, options)
        return Consumer(
            self._hub, self._hub._engine, self._streams, self._description, given, batches=batch is not None
        )

    @overload
    def process(
        self: Stream[str | bytes],
        group: str,
        handler: Callable[[Entry[Any]], Any],
        *,
        concurrency: int = 1,
        batch: None = None,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    @overload
    def process(
        self,
        group: str,
        handler: Callable[[Entry[T]], Any],
        *,
        concurrency: int = 1,
        batch: None = None,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    @overload
    def process(
        self,
        group: str,
        handler: Callable[[list[Any]], Any],
        *,
        concurrency: int = 1,
        batch: int,
        **options: Unpack[GroupOptions],
    ) -> None: ...
    def process(
        self,
        group: str,
        handler: Callable[[Any], Any],
        *,
        concurrency: int = 1,
        batch: int | None = None,
        **options: Unpack[GroupOptions],
    ) -> None:
        """Have `handler` called for each entry, as `consume` hands them out. When it returns, the entry is
        acknowledged; when it raises, that comes again.

        This goes on until the hub is closed or, in the main thread, the process is told to end (SIGTERM): then what is
        in hand is finished first, unless it is told once more.

        Args:
            group: as for `consume`.
            handler: gets an entry, or with `batch` a list of them.
            concurrency: how many are handled at the same time, at most: in the calling thread, and others.
            batch, follow, attempts, backoff, lease, start, on_gap: as for `consume`.

        Raises:
            TypeError: `handler` is no function, or has `yield` in it. And what `consume` raises.
        """
        given = settings("process", self._description, group, batch, options)
        check_concurrency(concurrency)
        consumer = Consumer[Any](
            self._hub, self._hub._engine, self._streams, self._description, given, batches=batch is not None
        )
        consumer._process(handler, concurrency)

    def groups(self) -> list[GroupInfo]:
        """The groups that consume this stream: how far behind, who takes part, what is held up and what was set aside.

        It counts what is not settled, so it takes a second for a few million entries.
        """
        return self._hub._running_thread().call(self._groups.all)

    def dead(self, group: str, *, limit: int = 1000) -> list[DeadLetter[T]]:
        """The dead letters of a group, the oldest first: entries that failed as often as its consumers allow.

        Args:
            group: its name.
            limit: how many to return at most.

        Raises:
            TypeError, ValueError: `limit` is no such number.
            PubSubError: there is no such group.
        """
        return self._hub._running_thread().call(self._groups.dead, group, limit)

    def redrive(self, group: str, ids: Iterable[int] | None = None) -> int:
        """Let dead letters be handed out again, as if they never had been. Returns how many there were.

        Args:
            group: its name.
            ids: of the entries; None: all dead letters of the group.

        Raises:
            TypeError, ValueError: `ids` are none.
            PubSubError: there is no such group.
        """
        return self._hub._running_thread().call(self._groups.redrive, group, ids)

    def discard(self, group: str, ids: Iterable[int] | None = None) -> int:
        """Forget dead letters. Returns how many there were. Arguments and errors are as for `redrive`."""
        return self._hub._running_thread().call(self._groups.discard, group, ids)

    def seek(self, group: str, to: str | Start | datetime) -> None:
        """Let a group go on elsewhere. What its consumers have in hand is lost to them (`LeaseLost`), and what waits to
        be handed out again is forgotten; dead letters stay.

        Args:
            group: its name.
            to: `BEGINNING`, `END`, a reader's position, or a time (aware): the first entry that was appended then.

        Raises:
            PositionError: it is no position of this stream. ValueError: the time has no time zone.
            PubSubError: there is no such group.
        """
        self._hub._running_thread().call(self._groups.seek, group, to)

    def drop_group(self, group: str) -> None:
        """Forget a group: its place, what waits in it, and its dead letters. (A group of which nobody is a member any
        more keeps entries where `keep_unconsumed` is set.) Consumers that are still there begin it anew.

        Raises:
            PubSubError: there is no such group.
        """
        self._hub._running_thread().call(self._groups.drop, group)

    def _append(self, entries: Sequence[NewEntry], *, many: bool = False) -> Sequence[int]:
        engine, schema = self._hub._engine, self._description.schema
        if engine.tracing is None:
            return self._hub._running_thread().run(_Append(self._streams, schema, entries))
        with traced(engine.tracing, entries, engine.max_payload, many=many) as carrying:
            return self._hub._running_thread().run(_Append(self._streams, schema, carrying))
