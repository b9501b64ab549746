"""Who has subscribed to what: brings the server in line with it, and hands out what arrives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from time import monotonic, sleep, time

from pgpubsub.core.buffer import payload_bytes
from pgpubsub.core.frames import Partial, Unjoined, join, unfinished
from pgpubsub.core.heartbeat import Heartbeat
from pgpubsub.core.routing import route
from pgpubsub.core.session import Abandon, Ask, Beat, Execute, Report, Session, Step
from pgpubsub.drivers.interface import LoopConnection
from pgpubsub.errors import (
    ChannelNameError,
    ConnectionLost,
    NotLive,
    PubSubError,
    ServerRefused,
    UnusableDeployment,
    again,
)
from pgpubsub.events import Gap, GapReason, Notify
from pgpubsub.hubs.beats import Beats
from pgpubsub.hubs.link import Dial, Link
from pgpubsub.hubs.mailbox import Mailbox, now
from pgpubsub.hubs.sender import Sender
from pgpubsub.logs import EventLog, Names
from pgpubsub.status import Observation

__all__ = ["Receiver"]

logger = EventLog("gap")

A_MOMENT = 0.0002
"""Seconds for which a hub's thread steps back when a subscriber's thread that is at work has its buffer a quarter full.
In a flood it would not get the interpreter's lock for milliseconds otherwise, and overflow: a subscriber that only
counts lost a third of bursts of 1,000."""


class _Admission:
    """Somebody who waits until the server listens to channels for `mailbox`."""

    def __init__(self, mailbox: Mailbox, channels: Iterable[str]) -> None:
        self.mailbox = mailbox
        self.granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = set(channels)

    def settle(self, channel: str, error: PubSubError | None = None) -> None:
        """`channel` is listened to, or not wanted any more, or will not be listened to because of `error`."""
        self._missing.discard(channel)
        if self.granted.done():
            return
        if error is not None:
            self.granted.set_exception(again(error))
        elif not self._missing:
            self.granted.set_result(None)


class Receiver:
    """See the module.

    Args:
        name: the hub's, for its heartbeats.
        session: with its heartbeat.
        dial: opens the listening connection.
        sender: sends heartbeats.
        max_payload: bytes of a payload that is put together, at most.
        refuses_standby, on_change: as for `Link`.
        observe: gets observations.
    """

    def __init__(
        self,
        name: str,
        session: Session[Mailbox],
        dial: Dial,
        sender: Sender,
        max_payload: int,
        *,
        refuses_standby: bool,
        on_change: Callable[[str, str], None],
        observe: Callable[[Observation], None],
    ) -> None:
        assert session.heartbeat is not None
        self.link = Link(
            "listening",
            session,
            dial,
            on_events=self._on_events,
            refuses_standby=refuses_standby,
            act=self._act,
            on_change=on_change,
        )
        self.received = 0
        self.heartbeat_seconds: float | None = None
        self.complete_until = now()
        self._registry = session.registry
        self._heartbeat: Heartbeat = session.heartbeat
        self._sender = sender
        self._max_payload = max_payload
        self._partial: Partial | None = None
        self._partial_of = 0  # number of its session
        self._on_change = on_change
        self._observe = observe
        self._awaited: dict[str, list[_Admission]] = {}
        self._underway: dict[tuple[Mailbox, str], asyncio.Future[None]] = {}
        self._wall_offset = time() - monotonic()
        self._beating: asyncio.Task[None] | None = None
        self._beats = Beats(name, self._on_beat_returned)
        self._registry.add(self._beats, self._heartbeat.channel)

    # -- who wants what

    async def admit(self, mailbox: Mailbox, channels: Iterable[str], timeout: float) -> None:
        """Have `channels` put into `mailbox`. The server listens to all of them when this returns; if it raises,
        `mailbox` has none that it did not have before.

        Raises:
            NotLive: that could not be done within `timeout` seconds.
            ServerRefused: the server would not listen to one of them.
        """
        wanted = dict.fromkeys(channels)
        while underway := {self._underway[mailbox, one] for one in wanted if (mailbox, one) in self._underway}:
            await asyncio.wait(underway)  # another task adds the same channel, and may be cancelled
        if mailbox.closed is not None:
            raise again(mailbox.closed)
        new = [channel for channel in wanted if channel not in mailbox.channels]
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for channel in new:
            self._registry.add(mailbox, channel)
            mailbox.channels.add(channel)
            self._underway[mailbox, channel] = ended
        trusted = self.link.session.trusted
        missing = [channel for channel in wanted if not (trusted and self._registry.is_live(channel))]
        try:
            if missing:
                await self._granted(_Admission(mailbox, missing), missing, timeout)
            else:
                await asyncio.sleep(0)
            if mailbox.closed is not None:
                raise again(mailbox.closed)
        except BaseException:
            self.dismiss(mailbox, new)
            raise
        finally:
            ended.set_result(None)
            for channel in new:
                del self._underway[mailbox, channel]

    def dismiss(self, mailbox: Mailbox, channels: Iterable[str]) -> None:
        """Have `channels` not put into `mailbox` any more."""
        for channel in list(channels):
            if channel in mailbox.channels:
                mailbox.channels.discard(channel)
                self._registry.discard(mailbox, channel)
            for admission in self._awaited.get(channel, ()):
                if admission.mailbox is mailbox:
                    admission.settle(channel)
        self.link.wake()

    def fail(self, error: PubSubError) -> None:
        """There will be no connection any more: tell all who wait for one."""
        for channel in list(self._awaited):
            self._settle(channel, error)

    def stop(self) -> None:
        """Stop waiting for the beat that is under way, if there is one."""
        if self._beating is not None:
            self._beating.cancel()

    async def _granted(self, admission: _Admission, channels: Collection[str], timeout: float) -> None:
        for channel in channels:
            self._awaited.setdefault(channel, []).append(admission)
        self.link.wake()
        try:
            await asyncio.wait({admission.granted}, timeout=timeout)
            if not admission.granted.done() and (connection := self.link.connection) is not None:
                connection.read()  # we may be the ones who were late
            if not admission.granted.done():
                names = ", ".join(map(repr, channels))
                why = self.link.error or "the server has not answered yet"
                raise NotLive(f"could not listen to {names} within {timeout:g} s: {why}") from self.link.error
            admission.granted.result()
        finally:
            admission.granted.cancel()
            for channel in channels:
                waiting = self._awaited.get(channel, [])
                if admission in waiting:
                    waiting.remove(admission)
                if not waiting:
                    self._awaited.pop(channel, None)

    def _settle(self, channel: str, error: PubSubError | None = None) -> None:
        """Tell those who wait for `channel` what became of it."""
        for admission in self._awaited.pop(channel, ()):
            admission.settle(channel, error)

    # -- what arrives

    def _on_events(self, events: list[Notify]) -> None:
        self.received += len(events)
        self._wall_offset = time() - monotonic()
        trusted = self.link.session.trusted
        self.link.session.on_delivered(monotonic())
        if not trusted and self.link.session.trusted:
            self._on_trusted()
        elif self._registry.lost:
            self._report_first()
            if not self.link.session.up and (untold := self._registry.untold):  # they came with the session's end
                events = [event for event in events if event.channel not in untold]
        if self._partial_of != self.link.session.number:
            self._partial, self._partial_of = None, self.link.session.number
        self.complete_until = self._time_of(self.link.session.whole_until)
        runs, self._partial = join(self._partial, events, self._max_payload)
        self.link.session.on_joined(monotonic(), unfinished(self._partial))
        missing: list[Unjoined] = []
        for run in runs:
            if isinstance(run, Unjoined):
                self._report_unjoined(run)
                missing.append(run)
            else:
                self._hand_out(run)
        for (channel, why), count in Counter(missing).items() if missing else ():
            logger.warning(
                "message_incomplete",
                "messages on %(channel)s are missing, %(count)d times: %(detail)s",
                channel=channel,
                count=count,
                detail=why,
            )
            self._observe(Observation("gap", (channel,), detail=why, reason=GapReason.INCOMPLETE))

    def _report_unjoined(self, unjoined: Unjoined) -> None:
        for mailbox in tuple(self._registry.owners(unjoined.channel)):
            mailbox.report(Gap(GapReason.INCOMPLETE, (unjoined.channel,), self.complete_until, 1, unjoined.why))

    def _hand_out(self, events: list[Notify]) -> None:
        crowded = False
        for chosen, mailboxes in route(events, self._registry.owners):
            size = payload_bytes(chosen)
            for mailbox in tuple(mailboxes):
                mailbox.put(chosen, size)
                crowded |= mailbox.is_crowded()
                if mailbox.buffer.overflowed and mailbox.channels:
                    self._observe(Observation("too_slow", tuple(sorted(mailbox.channels))))
                    self.dismiss(mailbox, mailbox.channels)
        if crowded:
            sleep(A_MOMENT)

    def _on_trusted(self) -> None:
        """Notifications arrive in this session: the gaps come first, and whoever waits for channels has them."""
        self.link.error = None
        self._report_first()
        self._grant(tuple(self._awaited))
        self.link.wake()
        self._on_change("live", "")

    def _report_first(self) -> None:
        """Whoever has lost something is told before what has arrived behind it."""
        report = self.link.session.next_report()
        if report is not None:
            self._report(report)

    def _on_beat_returned(self, seconds: float) -> None:
        self.heartbeat_seconds = seconds
        self._observe(Observation("heartbeat", seconds=seconds))

    # -- what the session wants done

    async def _act(self, step: Step, connection: LoopConnection) -> None:
        match step:
            case Execute():
                await self._execute(step, connection)
            case Report():
                self._report(step)
            case Beat():
                self.stop()
                self.link.session.on_beat_begun(step)
                self._beating = asyncio.create_task(self._beat(step))
            case Ask():
                await self._ask(step, connection)
            case Abandon():
                self._abandon(step, connection)

    async def _execute(self, step: Execute, connection: LoopConnection) -> None:
        session = self.link.session
        try:
            await connection.apply(step.changes, self._heartbeat.timeout, lambda: self._on_committed(step))
        except ConnectionLost as error:
            self.link.lose(error)
        except (ServerRefused, ChannelNameError) as error:
            refused = session.on_refused(step, monotonic(), str(error))
            for channel in refused:
                self._settle(channel, error)
            if not session.up and session.number == step.session:
                self.link.let_go(error)

    def _on_committed(self, step: Execute) -> None:
        self._wall_offset = time() - monotonic()
        self.link.session.on_executed(step, monotonic())
        if self.link.session.trusted:
            self._grant(step.changes.listen)

    def _grant(self, channels: Iterable[str]) -> None:
        """Tell those who wait for the ones among `channels` that are live."""
        for channel in channels:
            if self._registry.is_live(channel):
                self._settle(channel)

    def _report(self, step: Report) -> None:
        since = self._time_of(step.since)
        affected: dict[Mailbox, list[str]] = {}
        for channel in step.channels:
            for mailbox in self._registry.losers(channel):
                if (mailbox, channel) not in self._underway:  # else it is only being added
                    affected.setdefault(mailbox, []).append(channel)
        self.link.session.on_reported(step)
        for mailbox, channels in affected.items():
            mailbox.report(Gap(step.reason, tuple(channels), since, None, step.why))
        told = tuple(channel for channel in step.channels if channel != self._heartbeat.channel)
        if told:
            logger.info(
                "listening_again",
                "listening again, channels: %(channels)s",
                reason=str(step.reason),
                channels=Names(told),
                detail=step.why,
            )
            self._observe(Observation("gap", told, detail=step.why, reason=step.reason))

    def _time_of(self, moment: float) -> datetime:
        # Both ways, since the clock that only moves forwards stops while a machine sleeps, and the other may be set.
        return datetime.fromtimestamp(moment + min(self._wall_offset, time() - monotonic()), UTC)

    async def _beat(self, step: Beat) -> None:
        session = self.link.session
        committed = await self._sender.beat(
            self._heartbeat.channel, self._beats.next_payload(), self._heartbeat.timeout
        )
        if committed:
            session.on_beat_sent(step, monotonic())
        else:
            session.on_beat_failed(step)
        self.link.wake()

    async def _ask(self, step: Ask, connection: LoopConnection) -> None:
        session = self.link.session
        session.on_asked(step)
        try:
            await connection.ask(self._heartbeat.timeout)
        except ConnectionLost as error:
            self._sender.lose_beat(error)
            self.link.lose(error, GapReason.HEARTBEAT)
        except ServerRefused as error:
            self.link.lose(error)
        else:
            trusted = session.trusted
            session.on_answered(step, monotonic())
            if not trusted and session.trusted:
                self._on_trusted()

    def _abandon(self, step: Abandon, connection: LoopConnection) -> None:
        connection.read()  # we may be the ones who were late
        if self.link.session.next_step(monotonic()) == step:
            why = f"a notification sent on another connection did not arrive within {self._heartbeat.timeout:g} s"
            if connection.pooled:
                why += (
                    ", and a pooler stands between: LISTEN needs a direct connection, or a pool in session mode. To"
                    " send through this one all the same, give its DSN as notify_conninfo and a direct one as conninfo"
                )
            elif not self.link.session.trusted:
                why += (
                    ": conninfo and notify_conninfo have to lead to the same database of the same server, without a"
                    " pooler in transaction mode before the first"
                )
            self.link.lose(UnusableDeployment(why), GapReason.HEARTBEAT, hopeless=True)
