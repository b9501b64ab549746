"""The state machines of the core: for each, the state that it is in, as a function of its fields. What the states mean
stands below their names, here or in the core, and docs/states.md says it after them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any

from pgpubsub.core import reading
from pgpubsub.core.appender import Appender
from pgpubsub.core.buffer import Buffer
from pgpubsub.core.grouping import Call, Grouping
from pgpubsub.core.groups import Share
from pgpubsub.core.heartbeat import Heartbeat, _Phase
from pgpubsub.core.reading import Reading
from pgpubsub.core.registry import Registry
from pgpubsub.core.sender import Sender
from pgpubsub.core.session import Session
from pgpubsub.core.slots import UNSEEN
from tests.sim.transitions import Machine, meanings

__all__ = ["MACHINES", "States"]


class States(Enum):
    """The states of one machine."""


class SessionStates(States):
    """Of a `Session`."""

    DOWN = "down"
    """There is no connection. The next attempt is made when its delay has passed."""
    NEW = "new"
    """There is a connection, on which nothing has proved yet that notifications arrive, and the heartbeat's channel is
    not listened to."""
    UNPROVEN = "unproven"
    """The heartbeat's channel is listened to, and its first beat is to come."""
    BEHIND = "behind"
    """Notifications arrive, and the server does not listen to all that is wanted, or to more."""
    OWING = "owing"
    """The server listens to what is wanted, and subscribers are to be told what was lost before."""
    IDLE = "idle"
    """There is nothing to do but to read, and to look after the heartbeat."""
    STOPPED = "stopped"
    """There will be no connection any more."""


def of_session(session: Session[Any]) -> SessionStates:
    if session._stopped:
        return SessionStates.STOPPED
    if not session.up:
        return SessionStates.DOWN
    if not session.trusted:
        assert session.heartbeat is not None
        live = session.registry.is_live(session.heartbeat.channel)
        return SessionStates.UNPROVEN if live else SessionStates.NEW
    if session.registry.changes():
        return SessionStates.BEHIND
    return SessionStates.OWING if session.registry.lost else SessionStates.IDLE


def of_heartbeat(heartbeat: Heartbeat) -> str:
    return f"{heartbeat._phase.name.lower()}{'' if heartbeat.trusted else ', unproven'}"


def meaning_of_phase(state: str) -> str:
    phase, _, unproven = state.partition(", ")
    more = " Nothing has proved this session yet." if unproven else ""
    return f"{meanings(_Phase)[phase.upper()]}{more}"


class ChannelStates(States):
    """Of a channel in a `Registry`."""

    DUE = "due"
    """It is wanted, and the server is to be told to listen to it."""
    LIVE = "live"
    """The server listens to it."""
    AGAIN = "again"
    """The server listens to it and is to be told again: somebody may have unlistened it without our knowing."""
    REFUSED = "refused"
    """It is wanted, the server would not listen to it, and is not asked again in this session."""
    LEAVING = "leaving"
    """Nobody wants it any more, and the server is to be told so."""
    LOST = "lost"
    """It was lost with a session, and the server is to be told to listen to it."""
    RETURNED = "returned"
    """It was lost, and the server listens to it again, but those who missed something have not been told."""
    RETURNED_AGAIN = "returned, again"
    """The same, and the server is to be told again."""


def of_channel(registry: Registry[Any], channel: str) -> ChannelStates:
    wanted, due = bool(registry.owners(channel)), channel in registry._due
    acknowledged, lost = channel in registry._acknowledged, channel in registry._lost
    if not wanted:
        return ChannelStates.LEAVING
    if not acknowledged:
        if lost:
            return ChannelStates.LOST
        return ChannelStates.DUE if due else ChannelStates.REFUSED
    if lost:
        return ChannelStates.RETURNED_AGAIN if due else ChannelStates.RETURNED
    return ChannelStates.AGAIN if due else ChannelStates.LIVE


def channels(registry: Registry[Any]) -> Mapping[Hashable, str]:
    known = {*registry._owners, *registry._due}
    return {channel: of_channel(registry, channel).value for channel in known}


class CallStates(States):
    """Of a call in a `Sender` or an `Appender`."""

    WAITING = "waiting"
    """It is to be sent."""
    IN_FLIGHT = "in flight"
    """It was begun to be sent, and what became of it is not known."""
    DIVIDED = "divided"
    """It was refused together with others, and is to be sent again with fewer of them."""
    REPEATED = "repeated"
    """The connection broke while it was in flight. It does no harm to send it again, which is to be done."""
    ASIDE = "aside"
    """Another transaction is about to store the same. It waits for that to end."""
    CALLED_OFF = "called off"
    """Nobody waits for it any more, and it has not been cleared away."""
    TOLD = "told"
    """Whoever waits for it has been told what became of it."""


def of_calls(grouping: Grouping[Any]) -> Mapping[Hashable, str]:
    found: dict[Hashable, str] = {}
    for call in (*grouping._urgent, *grouping._queue):
        found[call] = (CallStates.CALLED_OFF if call.told else CallStates.WAITING).value
    for part in grouping._doubtful:
        for call in part:
            state = CallStates.REPEATED if call.uncertain is not None or call.returned else CallStates.DIVIDED
            found[call] = (CallStates.CALLED_OFF if call.told else state).value
    for batch in grouping._flying:
        found.update(dict.fromkeys(batch.calls, CallStates.IN_FLIGHT.value))
    return found


def of_call_elsewhere(call: Call[Any]) -> str:
    state = CallStates.TOLD if call.told else CallStates.ASIDE
    return str(state.value)


class BufferStates(States):
    """Of a `Buffer`."""

    EMPTY = "empty"
    """There is nothing in it."""
    HOLDING = "holding"
    """Notifications are in it, or gaps between them."""
    BEHIND = "behind"
    """Some went, since there was no room: the gap that says so comes next."""
    ENDED = "ended"
    """There was no room, and its policy is `close`: what is in it may be taken, and nothing is put in any more."""


def of_buffer(buffer: Buffer) -> BufferStates:
    if buffer.overflowed:
        return BufferStates.ENDED
    if buffer._losses:
        return BufferStates.BEHIND
    return BufferStates.HOLDING if len(buffer) else BufferStates.EMPTY


def of_reading(it: Reading) -> str:
    step = type(it.next_step()).__name__.lower()
    return f"{step}, in the midst" if it.position.target is not None and step == "ask" else step


def meaning_of_step(state: str) -> str:
    step, _, midst = state.partition(", ")
    kind = getattr(reading, step.capitalize())
    more = " It is in the midst of a batch, and the server may not have got as far as that." if midst else ""
    return f"It is to ask: {' '.join(kind.__doc__.split())}{more}"


class SlotStates(States):
    """Of a slot in a member's `Share`."""

    UNSEEN = "unseen"
    """It is the member's, and nobody has looked for entries in it."""
    AT_REST = "at rest"
    """All that was read of it is settled, or parked."""
    WAITING = "waiting"
    """Entries of it were read, and none is in hand."""
    IN_HAND = "in hand"
    """Entries of it are in flight, or held back behind those that are."""
    LEAVING = "leaving"
    """It is to be another member's, when nothing of it is in hand any more."""


def of_slots(share: Share) -> Mapping[Hashable, str]:
    retried = {item.slot for item in share._retried.values()}
    found: dict[Hashable, str] = {}
    for number, slot in share._slots.items():
        if slot.leaving:
            state = SlotStates.LEAVING
        elif slot.in_flight or slot.held or number in retried:
            state = SlotStates.IN_HAND
        elif slot.queue:
            state = SlotStates.WAITING
        else:
            state = SlotStates.UNSEEN if slot.read == UNSEEN else SlotStates.AT_REST
        found[number] = state.value
    return found


def _named(kind: type[States]) -> dict[str, Any]:
    """For a machine whose states these are."""
    found = meanings(kind)
    return {"states": kind, "meaning": {one.value: found[one.name] for one in kind}.__getitem__}


CALLS = ("submit", "withdraw", "next_batch", "expire", "fail", "resume")

MACHINES: Mapping[str, Machine] = {
    machine.name: machine
    for machine in (
        Machine(
            "session",
            "A session",
            Session,
            lambda session: {None: of_session(session).value},
            **_named(SessionStates),
            decision="next_step",
            between="the registry changes",
        ),
        Machine(
            "heartbeat",
            "The heartbeat",
            Heartbeat,
            lambda heartbeat: {None: of_heartbeat(heartbeat)},
            meaning_of_phase,
            decision="next_pulse",
        ),
        Machine(
            "channel",
            "A channel",
            Registry,
            channels,
            **_named(ChannelStates),
            facts=("add", "discard", "withdraw", "discard_all", "sweep"),
        ),
        Machine("call", "A call to send", Sender, of_calls, **_named(CallStates), facts=CALLS, gone=of_call_elsewhere),
        Machine(
            "append", "A call to append", Appender, of_calls, **_named(CallStates), facts=CALLS, gone=of_call_elsewhere
        ),
        Machine(
            "buffer",
            "A subscriber's buffer",
            Buffer,
            lambda buffer: {None: of_buffer(buffer).value},
            **_named(BufferStates),
            facts=("put", "report", "take", "restore", "forget", "clear"),
        ),
        Machine(
            "reading",
            "A reader of a stream",
            Reading,
            lambda it: {None: of_reading(it)},
            meaning_of_step,
            between="the server is, or is not, a standby",
        ),
        Machine(
            "slot",
            "A slot of a group",
            Share,
            of_slots,
            **_named(SlotStates),
            facts=("start", "acknowledge", "fail", "give_back", "leave", "plan_write"),
        ),
    )
}
