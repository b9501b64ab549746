"""Which channels are wanted and by whom, against which the server has acknowledged.

The difference of the two is the work list, so that a first connection, a reconnection, a subscription
and its end are one path: `changes` says what to tell the server, the facts say what it has acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Changes", "Registry"]

Owner = TypeVar("Owner", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Changes:
    """What to tell the server now. Falsy when that is nothing."""

    listen: tuple[str, ...] = ()
    unlisten: tuple[str, ...] = ()
    sweep: bool = False
    """Unlisten everything, also what this registry never heard of."""

    def __bool__(self) -> bool:
        return bool(self.listen or self.unlisten or self.sweep)

    def __len__(self) -> int:
        return len(self.listen) + len(self.unlisten) + self.sweep

    def first(self, count: int) -> Changes:
        """The first `count` of them."""
        if len(self) <= count:
            return self
        return Changes(listen=self.listen[:count], unlisten=self.unlisten[: max(0, count - len(self.listen))])


NOTHING = Changes()


class Registry(Generic[Owner]):
    """Owners and their channels. An owner is any hashable; a channel is wanted while it has one.

    >>> registry = Registry[str]()
    >>> registry.add("subscriber 1", "orders")
    >>> registry.changes()
    Changes(listen=('orders',), unlisten=(), sweep=False)
    """

    def __init__(self) -> None:
        self._owners: dict[str, dict[Owner, None]] = {}
        self._acknowledged: set[str] = set()
        self._due: dict[str, None] = {}
        self._leaving: set[str] = set()  # which the server may listen to until it is told, though nobody wants them
        self._sweep = False
        self._lost: dict[str, dict[Owner, None]] = {}
        self._untold: frozenset[str] = frozenset()
        self._in_session = True

    # -- what is wanted

    def add(self, owner: Owner, channel: str) -> None:
        """`owner` wants `channel`. One that repeats itself makes the server be told again: whoever runs
        statements of their own on the session may have unlistened it without our knowing."""
        owners = self._owners.setdefault(channel, {})
        if owner in owners or channel not in self._acknowledged:
            self._due[channel] = None
        owners[owner] = None

    def discard(self, owner: Owner, channel: str) -> None:
        """`owner` does not want `channel` any more. When nobody else does, the server is told, even if the
        channel was never added: it may have been listened to without our knowing."""
        losers = self._lost.get(channel, {})
        losers.pop(owner, None)
        if not losers:
            self._lost.pop(channel, None)
        owners = self._owners.get(channel, {})
        if len(owners) > (owner in owners):
            owners.pop(owner, None)
            return
        self._due[channel] = None  # first: interrupted here, the server is told once more of what it knows
        self._leaving.add(channel)
        self._owners.pop(channel, None)
        if not self._in_session:  # the next one will know of nothing
            self._due.pop(channel, None)
        self._acknowledged.discard(channel)  # whoever comes now has to wait for a LISTEN of their own

    def withdraw(self, owner: Owner, channel: str) -> None:
        """`owner` asked for `channel` and the server did not grant it: as if it had never asked."""
        due = channel in self._acknowledged or channel in self._leaving
        self.discard(owner, channel)
        if channel not in self._owners and not due:
            self._due.pop(channel, None)
            self._leaving.discard(channel)

    def discard_all(self, owner: Owner) -> None:
        """`owner` wants nothing any more."""
        for channel in self.channels(owner):
            self.discard(owner, channel)

    def sweep(self) -> None:
        """Have the server forget also what this registry never heard of, if nothing is wanted by anybody."""
        self._sweep = not self._owners

    def owners(self, channel: str) -> Collection[Owner]:
        """Who wants `channel`, in the order in which they came."""
        return self._owners.get(channel, ())

    def channels(self, owner: Owner) -> frozenset[str]:
        """What `owner` wants."""
        return frozenset(channel for channel, owners in self._owners.items() if owner in owners)

    @property
    def desired(self) -> frozenset[str]:
        """What anybody wants."""
        return frozenset(self._owners)

    # -- what the server knows

    @property
    def acknowledged(self) -> frozenset[str]:
        """What the server of the present session has acknowledged, and is wanted."""
        return frozenset(self._acknowledged)

    def is_live(self, channel: str) -> bool:
        """Whether the server has acknowledged `channel` and nothing remains to be told to it."""
        return channel in self._acknowledged and channel not in self._due

    @property
    def lost(self) -> frozenset[str]:
        """What an earlier session listened to, is still wanted by somebody who wanted it then, and has not been
        reported as lost."""
        return frozenset(self._lost)

    @property
    def lost_and_live(self) -> frozenset[str]:
        """What is `lost` and live again."""
        return frozenset(channel for channel in self._lost if self.is_live(channel))

    @property
    def untold(self) -> frozenset[str]:
        """What was lost before the session that was lost last, and not reported in it. What that session has brought
        there lies within the gap that is still to come."""
        return self._untold

    def losers(self, channel: str) -> Collection[Owner]:
        """Who wanted `channel` when it was lost, and still does. Whoever came later has lost nothing."""
        return self._lost.get(channel, ())

    def changes(self) -> Changes:
        """What to tell the server so that it acknowledges what is wanted."""
        if self._sweep:
            return Changes(sweep=True)
        if not self._due:
            return NOTHING
        return Changes(
            listen=tuple(channel for channel in self._due if channel in self._owners),
            unlisten=tuple(channel for channel in self._due if channel not in self._owners),
        )

    def on_executed(self, changes: Changes) -> None:
        """The server has acknowledged `changes`. What became due in the meantime stays due."""
        if changes.sweep:
            self._sweep = False
            self._acknowledged.clear()
            self._leaving.clear()
            self._due = dict.fromkeys(self._owners)
        listened = [channel for channel in changes.listen if channel in self._owners]
        self._acknowledged.update(listened)
        self._acknowledged.difference_update(changes.unlisten)
        self._leaving.difference_update(listened, changes.unlisten)
        self._settle(changes)

    def on_refused(self, changes: Changes) -> None:
        """The server will not do `changes`: do not ask it again of your own accord."""
        self._sweep = False
        for channel in (*changes.listen, *changes.unlisten):
            self._due.pop(channel, None)

    def on_session_begun(self) -> None:
        """There is a session, and its server knows of nothing."""
        self._leaving.clear()
        self._due = dict.fromkeys(self._owners)
        self._in_session = True

    def on_session_ended(self) -> None:
        """The session is gone, and with it all that its server had acknowledged. May be repeated."""
        if self._in_session:
            self._untold = frozenset(self._lost)
        self._in_session = False
        self._due = dict.fromkeys(self._owners)  # first: what is lost is not reported while it is due
        self._sweep = False
        for channel in self._acknowledged & self._owners.keys():
            self._lost.setdefault(channel, {}).update(self._owners[channel])
        self._acknowledged.clear()

    def on_loss_reported(self, channels: Iterable[str]) -> None:
        """The losers of `channels` have been told."""
        for channel in channels:
            self._lost.pop(channel, None)

    def _settle(self, changes: Changes) -> None:
        """Strike from the work list what is done, unless it was turned round while it was under way."""
        for channel in changes.listen:
            if channel in self._owners:
                self._due.pop(channel, None)
        for channel in changes.unlisten:
            if channel not in self._owners:
                self._due.pop(channel, None)
