"""Where a reader of a stream stands: which transactions it has covered.

Neither the order of ids nor that of transaction ids is the order in which transactions commit, so no single number says
what has been read. A position is a set of transactions instead: all below `below`, except a list of those that were
still open (the shape of PostgreSQL's `pg_snapshot`). The next batch of entries is what is visible now and was not
covered, in the order of ids. `core.reading` goes from one position to the next.

Three promises follow, as long as ids are assigned after transaction ids, and nothing is read inside a transaction:

- complete: every committed entry is delivered, and to one reader once, however often it stops and resumes. An entry's
  transaction is covered when the entry is delivered; one that is not visible is open, and stays in the list until it
  has ended, or has an id at or above `below`.
- causal: an entry that was appended when another could be seen comes after it, and so do those of a publisher who
  appends in one transaction after another. If the first was visible when the second got its id, then no batch has the
  second without the first in it or before it, and in one batch the ids decide.
- unblocked: nobody's open transaction delays other entries. It stands in the list, and the others go past it.

`below` is never more than the newest entry seen, plus one. What has no entry could be handed out again: after a crash a
server assigns anew the transaction ids that it had not flushed. That newest entry is the position's anchor: if it is
not there any more, history was rewritten, as by a failover to a standby that had not received it.

The facts are from the PostgreSQL manual ("System Information Functions", "Transaction Ids") and from experiments on 15
and 18, which the system tests repeat.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from pgpubsub.errors import PositionError

__all__ = ["BEGINNING", "END", "Anchor", "Covered", "Newest", "Position", "Snapshot", "Start", "spans", "stream_id"]


class Start(Enum):
    """Where to begin to read a stream, if not at a position."""

    BEGINNING = "beginning"
    END = "end"

    def __repr__(self) -> str:
        return self.name


BEGINNING = Start.BEGINNING
"""Before the oldest entry."""

END = Start.END
"""After all that is committed when the reader is opened."""


class Snapshot(NamedTuple):
    """What `pg_current_snapshot()` says: which transactions had ended.

    >>> Snapshot.parse("753:756:753,754")
    Snapshot(xmin=753, xmax=756, running=frozenset({753, 754}))
    """

    xmin: int
    xmax: int
    running: frozenset[int]

    @classmethod
    def parse(cls, text: str) -> Snapshot:
        """Read PostgreSQL's text form, `xmin:xmax:xip,...`."""
        xmin, xmax, running = text.split(":")
        return cls(int(xmin), int(xmax), frozenset(map(int, running.split(",") if running else ())))


class Covered(NamedTuple):
    """A set of transactions: all below `below` but those in `open`, which are sorted and below it.

    >>> Covered(756, (753,)).covers(754), Covered(756, (753,)).covers(753)
    (True, False)
    """

    below: int = 0
    open: tuple[int, ...] = ()

    def covers(self, xid: int) -> bool:
        """Whether transaction `xid` is one of them."""
        return xid < self.below and xid not in self.open

    def advance(self, snapshot: Snapshot, newest: int | None) -> Covered:
        """This, and what `snapshot` sees. `newest` is the highest transaction id of the entries visible in it, or at
        least of those that are not below `self.below`; None when there are none.

        >>> Covered(750).advance(Snapshot.parse("753:760:753,757"), newest=756)
        Covered(below=757, open=(753,))
        """
        below = self.below if newest is None else max(self.below, newest + 1)
        still = {xid for xid in self.open if xid in snapshot.running or xid >= snapshot.xmax}
        still.update(xid for xid in snapshot.running if self.below <= xid < below)
        return Covered(below, tuple(sorted(still)))


NOTHING = Covered()

FIRST = 3
"""No transaction has a lower id. A position that covers those below has looked, and found nothing."""


def spans(old: Covered, new: Covered) -> Iterator[tuple[int, int]]:
    """What `new` has and `old` has not, as ranges: from the first id up to, but not including, the second.

    >>> list(spans(Covered(750, (740,)), Covered(757, (753,))))
    [(740, 741), (750, 753), (754, 757)]
    """
    still = set(new.open)
    for xid in old.open:
        if xid not in still:
            yield xid, xid + 1
    start = old.below
    for xid in new.open:
        if xid >= old.below:
            if start < xid:
                yield start, xid
            start = xid + 1
    if start < new.below:
        yield start, new.below


class Anchor(NamedTuple):
    """The newest entry that a position covers; its transaction id is the position's `below` minus one."""

    id: int
    microseconds: int
    """When it was appended, since 1970 (UTC)."""


class Newest(NamedTuple):
    """An entry that was seen: its transaction, and what tells it from others."""

    xid: int
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a stream. `encode` gives the token that users keep, `decode` takes it.

    Between two entries of one batch, `covered` is what was covered before the batch, `target` what will be after it,
    and `last` the id of the last entry delivered.
    """

    birth: UUID
    """Which installation of the schema it belongs to: another one after a dump was restored."""
    stream: int
    timeline: int
    """The server's, when the position was taken."""
    covered: Covered = NOTHING
    anchor: Anchor | None = None
    """The newest entry of `target`, or of `covered` where there is no target; None before the first."""
    target: Covered | None = None
    last: int = 0
    witness: Newest | None = None
    """The entry that was delivered last, unless it is the anchor. One with a lower transaction id than the anchor's may
    have been committed after it, and so be lost without it."""

    def encode(self) -> str:
        """As text: letters, digits, `-` and `_`, under 2 KiB even with 1,000 transactions open."""
        target = self.target or self.covered
        top = max(self.covered.below, target.below)
        seen = bool(self.anchor) + 2 * bool(self.witness)
        fields = [FORMAT, self.timeline, top, self.last if self.target else 0, bool(self.target), seen]
        if self.anchor is not None:
            fields += self.anchor
        if self.witness is not None:
            fields += [top - self.witness.xid, *self.witness.anchor]
        if self.target is not None:
            fields += [top - self.covered.below, top - target.below]
        before, after = set(self.covered.open), set(target.open)
        union = sorted(before | after, reverse=True)
        fields.append(len(union))
        numbers = b"".join(map(_as_bytes, fields))
        numbers += b"".join(_as_bytes(higher - lower) for higher, lower in zip([top, *union], union, strict=False))
        flags = bytes((xid in before) + 2 * (xid in after) for xid in union) if self.target else b""
        plain = self.birth.bytes + self.stream.to_bytes(8, signed=True) + _compress(numbers, flags)
        return _as_token(plain + zlib.crc32(plain).to_bytes(4))

    @classmethod
    def decode(cls, token: str, stream: int) -> Position:
        """What `token` says, if it is a position of `stream`.

        Raises:
            PositionError: it is not.
            TypeError: it is no text.
        """
        if not isinstance(token, str):
            raise TypeError(f"a position is a str, BEGINNING or END, not {type(token).__name__}: {token!r}")
        try:
            plain = _as_binary(token)
            plain, checksum = plain[:-4], plain[-4:]
            if zlib.crc32(plain).to_bytes(4) != checksum:
                raise ValueError("its checksum is wrong")
            birth, its_stream = UUID(bytes=plain[:16]), int.from_bytes(plain[16:24], signed=True)
            if its_stream != stream:
                raise PositionError("the position is one of another stream: positions are good for their own only")
            return cls._from_numbers(birth, stream, _decompress(plain[24:]))
        except (ValueError, IndexError, zlib.error) as error:
            if isinstance(error, PositionError):
                raise
            raise PositionError(
                f"{token[:80]!r} is not a position, or not a whole one ({error}): pass what Entry.position said,"
                " unchanged, or BEGINNING or END"
            ) from None

    @classmethod
    def _from_numbers(cls, birth: UUID, stream: int, numbers: bytes) -> Position:
        read = _Numbers(numbers)
        form = read.next()
        if form != FORMAT:
            raise PositionError(
                f"the position has format {form}, and this version of pgpubsub reads {FORMAT}: use the version that"
                " made it, or a newer one"
            )
        timeline, top, last, has_target, seen = (read.next() for _ in range(5))
        anchor = Anchor(read.next(), read.next()) if seen & 1 else None
        witness = Newest(top - read.next(), Anchor(read.next(), read.next())) if seen & 2 else None
        below, target_below = (top - read.next(), top - read.next()) if has_target else (top, top)
        union, xid = [], top
        count = read.next()
        if count > MOST_OPEN:
            raise ValueError(f"it lists {count} transactions")
        for _ in range(count):
            xid -= read.next()
            union.append(xid)
        union.reverse()
        if timeline >= 1 << 32:
            raise ValueError("there is no such timeline")
        entries = [last, *(anchor or ()), *(witness.anchor if witness else ())]
        xids = [target_below - (anchor is not None), *([witness.xid] if witness else ())]
        if max(entries) > MOST or min(xids) < 0:
            raise ValueError("there are no such entries")
        if not has_target:
            return cls(birth, stream, timeline, _covered(below, union), anchor, witness=witness)
        flags = read.rest()[::-1]
        if len(flags) != len(union):
            raise ValueError("it ends too early")
        before, after = (
            _covered(limit, [xid for xid, flag in zip(union, flags, strict=True) if flag & bit])
            for limit, bit in ((below, 1), (target_below, 2))
        )
        return cls(birth, stream, timeline, before, anchor, after, last, witness)


FORMAT = 1

MOST_OPEN = 100_000
"""Open transactions that a token may list, since the server looks at each. A standby counts subtransactions too."""

MOST = (1 << 63) - 1
"""The highest number that a server has for an entry, or a transaction."""

LONGEST = 1 << 20
"""Bytes that a token may have when it is decompressed: that is more than a server can have transactions."""


def stream_id(name: str) -> int:
    """The number under which a stream is stored: made from its name, so that nobody needs to look it up.

    The schema's function of the same name says the same.

    >>> stream_id("orders")
    2023957755765852388
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _covered(below: int, open: Sequence[int]) -> Covered:
    """What a token says, which anybody may have made."""
    if below > MOST or any(low >= high for low, high in pairwise([-1, *open, below])):
        raise ValueError("there are no such transactions")
    return Covered(below, tuple(open))


def _as_token(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).decode().rstrip("=")


def _as_binary(token: str) -> bytes:
    try:
        plain = base64.b64decode(token.encode("ascii") + b"=" * (-len(token) % 4), b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise ValueError("it has letters that no position has") from None
    if _as_token(plain) != token:  # what base64 lets pass: padding, other letters for two, bits that do not count
        raise ValueError("it was changed")
    return plain


def _compress(*parts: bytes) -> bytes:
    """Each part with a Huffman code of its own. There are no repetitions worth looking for."""
    process = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    packed = b"".join(process.compress(part) + process.flush(zlib.Z_FULL_FLUSH) for part in parts) + process.flush()
    plain = b"".join(parts)
    return b"\1" + packed if len(packed) < len(plain) else b"\0" + plain


def _decompress(packed: bytes) -> bytes:
    if packed[0] == 0:
        return packed[1:]
    process = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = process.decompress(packed[1:], LONGEST)
    if not process.eof:
        raise ValueError("it is too long")
    return plain


def _as_bytes(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the last byte has its highest bit unset."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)


class _Numbers:
    """Reads what `_as_bytes` has written."""

    def __init__(self, plain: bytes) -> None:
        self._bytes: Iterable[int] = iter(plain)

    def next(self) -> int:
        number = shift = 0
        for byte in self._bytes:
            number |= (byte & 127) << shift
            if byte < 128:
                return number
            shift += 7
            if shift > 70:
                break
        raise ValueError("it ends too early")

    def rest(self) -> bytes:
        return bytes(self._bytes)
