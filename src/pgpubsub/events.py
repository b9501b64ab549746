"""What a subscriber receives: `Notify`, one notification, or `Entry`, one entry of a stream; `Undecodable`, one that
does not fit its channel's or stream's type; and `Gap`, the place where some may be missing.

All are plain values, not to be changed. Nothing here knows how they were received.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, NoReturn, Protocol, Self

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Payload = TypeVar("Payload", default=str, covariant=True)
    Event = TypeVar("Event", default="Notify[str]", covariant=True)
else:
    from typing import TypeVar

    Payload = TypeVar("Payload", covariant=True)
    Event = TypeVar("Event", covariant=True)

__all__ = ["Entry", "Event", "Gap", "GapReason", "Notify", "Payload", "Undecodable"]


MYPY = False
"""Which mypy takes for true."""

if MYPY:

    class Notify(tuple[Any, ...], Generic[Payload]):  # pyright: ignore[reportRedeclaration]
        """As below, for mypy, which forgets the parameter of a generic NamedTuple upon `isinstance` and `match`."""

        __match_args__ = ("pid", "channel", "payload")

        def __new__(cls, pid: int, channel: str, payload: Payload) -> Self: ...
        @property
        def pid(self) -> int: ...
        @property
        def channel(self) -> str: ...
        @property
        def payload(self) -> Payload: ...
        @property
        def headers(self) -> dict[str, Any] | None: ...
        @property
        def _beside(self) -> int: ...
        def _asdict(self) -> dict[str, Any]: ...
        def _replace(self, **fields: Any) -> Self: ...

else:

    class Notify(NamedTuple, Generic[Payload]):
        """One notification, as PostgreSQL delivered it (protocol message NotificationResponse).

        It prints, unpacks and compares as the tuple `(pid, channel, payload)`:

        >>> event = Notify(9425, "test", "message 1")
        >>> event
        Notify(9425, 'test', 'message 1')
        >>> pid, channel, payload = event
        >>> event == (9425, "test", "message 1")
        True
        """

        pid: int
        """Process id of the server backend that sent it; see `PubSub.backend_pid`."""

        channel: str
        """The channel's exact name, case kept."""

        payload: Payload
        """What was sent with it. On a `Channel` it is what that carries. Otherwise it is the text, empty when there was
        none; bytes that are not valid text (possible where the database's and the connection's encoding are both
        SQL_ASCII) are surrogate escapes with psycopg 3."""

        @property
        def headers(self) -> dict[str, Any] | None:
            """What was sent beside the payload; JSON values. None where there was nothing. They are no part of the
            tuple, and do not count when it is compared."""
            return None

        @property
        def _beside(self) -> int:
            """Bytes of the headers, about."""
            return 0

        def __repr__(self) -> str:
            return f"Notify({self.pid!r}, {self.channel!r}, {self.payload!r})"


class _Headed(Notify[Payload]):
    """One that was sent with headers."""

    _headers: dict[str, Any] | None = None
    _size = 0

    @property
    def headers(self) -> dict[str, Any] | None:
        return self._headers

    @property
    def _beside(self) -> int:
        return self._size

    def _replace(self, **fields: Any) -> Any:
        return with_headers_of(self, super()._replace(**fields))


def headed(pid: int, channel: str, payload: Any, headers: dict[str, Any], size: int) -> Notify[Any]:
    """A notification with headers, of `size` bytes. An empty object is none.

    >>> event = headed(9425, "orders", "17", {"by": "Ann"}, 12)
    >>> event, event.headers
    (Notify(9425, 'orders', '17'), {'by': 'Ann'})
    """
    if not headers:
        return Notify(pid, channel, payload)
    event = _Headed[Any](pid, channel, payload)
    event._headers = headers
    event._size = size
    return event


def with_headers_of(event: Notify[Any], other: Notify[Any]) -> Notify[Any]:
    """`other`, with the headers of `event`."""
    return headed(other.pid, other.channel, other.payload, event.headers or {}, event._beside)


class Entry(Generic[Payload]):
    """One entry of a stream, as a reader delivers it. It compares by its stream and id."""

    __slots__ = ("_batch", "_xid", "appended_at", "headers", "id", "key", "payload")

    id: int
    """Its number. In one stream the ids of a publisher's entries increase; there may be gaps between them."""

    key: str | None
    """What it was given: entries with the same key belong together."""

    payload: Payload
    """What was appended: text or bytes, or what the stream's type says."""

    headers: dict[str, Any] | None
    """What was sent beside the payload; JSON values."""

    appended_at: datetime
    """When it was appended, by the server's clock (aware). It may have been committed later."""

    def __init__(
        self,
        id: int,
        key: str | None,
        payload: Payload,
        headers: dict[str, Any] | None,
        appended_at: datetime,
        batch: Places,
        xid: int = 0,
    ) -> None:
        self.id = id
        self.key = key
        self.payload = payload
        self.headers = headers
        self.appended_at = appended_at
        self._batch = batch
        self._xid = xid

    @property
    def position(self) -> str:
        """Where to go on after this entry: pass it to `read(after=...)`, now or in another process. Letters, digits,
        `-` and `_`, so that it is safe in a URL; under 2 KiB even with 1,000 transactions open."""
        return self._batch.position(self.id, self._xid, self.appended_at).encode()

    def position_before(self) -> str:
        """Where to go on for this entry to come again."""
        return self._batch.position(self.id - 1).encode()

    def with_payload(self, payload: Any) -> Entry[Any]:
        """The same entry with another payload."""
        return Entry(self.id, self.key, payload, self.headers, self.appended_at, self._batch, self._xid)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.id, self._batch.stream, self.payload) == (other.id, other._batch.stream, other.payload)

    def __hash__(self) -> int:
        return hash((self.id, self._batch.stream))

    def __repr__(self) -> str:
        return f"Entry({self.id}, key={self.key!r}, payload={self.payload!r}, headers={self.headers!r})"


class Place(Protocol):
    """A position, as `core.position` has it."""

    def encode(self) -> str:
        """As a token."""


class Places(Protocol):
    """Where each of several entries stands, as `core.reading` knows it."""

    @property
    def stream(self) -> int:
        """Whose entries they are."""

    def position(self, id: int, xid: int = 0, appended_at: datetime | None = None, /) -> Place:
        """Behind the entry `id` of transaction `xid`, or before the next."""


class Undecodable(NamedTuple):
    """A notification or an entry that arrived whole, with a payload that does not fit the type of its `Channel` or
    stream.

    It is not a loss, and what comes after it arrives as ever. Where nobody looks for it, using it raises:

    >>> event = Undecodable(Notify(9425, "orders", "seventeen"), ValueError("not a number"))
    >>> event.raw
    'seventeen'
    >>> event.payload
    Traceback (most recent call last):
    ValueError: not a number
    """

    event: Notify[str] | Entry[Any]
    """What arrived, as it arrived. For an entry, it has the position behind which to go on."""

    error: Exception
    """Why it could not be decoded: the codec's own error."""

    @property
    def raw(self) -> str:
        """The text that came; of bytes, as text with surrogate escapes."""
        raw = self.event.payload
        return raw if isinstance(raw, str) else raw.decode("utf-8", "surrogateescape")

    @property
    def payload(self) -> NoReturn:
        """There is none: raises `error`, so that a program which forgot this case fails where it uses the payload."""
        step = traceback = self.error.__traceback__
        while step is not None:
            if step.tb_frame.f_globals is globals():  # it was raised here before, and would gather tracebacks
                traceback = step.tb_next
            step = step.tb_next
        raise self.error.with_traceback(traceback)


class GapReason(StrEnum):
    """Why something may be missing, and what a subscriber should do about it. These are all of them; the last three
    concern readers of streams, and no others do."""

    CONNECTION_LOST = "connection_lost"
    """The connection broke. PostgreSQL keeps no notifications for a session that is gone, so whatever was
    sent until the new session listened is lost. Read the state that the notifications are about again."""

    HEARTBEAT = "heartbeat"
    """The connection looked well but brought nothing: a notification that the hub sent itself did not arrive.
    The peer vanished without a word, the server was frozen, or a pooler took the session away. It was replaced.
    Read the state again; if it comes often, look at the network or set `heartbeat_timeout` higher."""

    OVERFLOW = "overflow"
    """This subscriber was slower than its notifications came, and its buffer was full. `Gap.count` says how many
    are missing. Read the state again; if it comes often, do less for each notification, hand them to more
    workers, choose a larger `capacity` or the policy `latest`. Other subscribers are not concerned."""

    INCOMPLETE = "incomplete"
    """A long message came that cannot be put together: it is longer than this receiver's `max_payload`, or not all of
    its parts came, or in an order in which no pgpubsub sends them. `Gap.detail` says which. Read the state again; raise
    `max_payload`, or mend whoever sends such parts."""

    REWOUND = "rewound"
    """The stream's newest entries are not there any more: the server was replaced by a standby that had not received
    them, or was set back to an earlier time. The reader goes on behind the newest entry that it knows from both
    histories, or at the oldest one, so that entries may come again. Undo what was done for entries that do not."""

    RESTORED = "restored"
    """The stream was restored from a dump, and positions from before do not count. The reader goes on at the oldest
    entry, so that entries come again."""

    TRIMMED = "trimmed"
    """Retention has removed entries that this reader had not got (`max_age` and `max_entries` of the stream). It goes
    on with those that are left. Read the state again; if it comes often, read faster, keep more, or consume in a group
    and set `keep_unconsumed`."""


@dataclass(frozen=True, slots=True)
class Gap:
    """From here on notifications arrive again; between `since` and here some may be missing.

    A gap is reported once its channels are live again, so a subscriber that reads its state anew upon a
    gap misses nothing that is committed later.

    >>> from datetime import UTC
    >>> gap = Gap(GapReason.CONNECTION_LOST, ("orders",), datetime(2026, 1, 1, tzinfo=UTC), None, "reset")
    >>> print(f"{gap.reason}: {', '.join(gap.channels)}")
    connection_lost: orders
    """

    reason: GapReason

    channels: tuple[str, ...]
    """The channels on which something may be missing, sorted."""

    since: datetime
    """The last time (aware, UTC) at which the connection was known to be healthy: a notification arrived, a statement
    succeeded or the socket was read without finding it broken. In a hub with a heartbeat only a notification counts,
    since a session that brings none may go on answering. For `OVERFLOW` it is the last time at which nothing was
    buffered, and all that had arrived was handed out.
    It is the time of this machine, as things arrive: what is missing may have been committed before it by as long as
    notifications take from there to here. Whoever reads again by time should allow for that."""

    count: int | None
    """How many notifications are missing; None where nobody can know."""

    detail: str
    """What happened, for a log: the driver's or the server's own words."""
