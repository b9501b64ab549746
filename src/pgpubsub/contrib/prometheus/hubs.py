"""What hubs do, as metrics: their counters are read when they are scraped, and what has a duration or a reason is noted
when it happens.

Counters of one name go on where another hub of that name has left them. There are no labels for channels, of which
there may be any number; streams have one where they are named.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator
from threading import Event, Lock, Thread
from typing import Protocol
from weakref import ref

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric

from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.contrib.prometheus.families import COUNTED, Families
from pgpubsub.contrib.prometheus.sharing import SEVERAL
from pgpubsub.errors import ConcurrentUse
from pgpubsub.events import GapReason
from pgpubsub.status import HubState, HubStats, HubStatus, Observation

__all__ = ["HubMetrics"]

EVERY = 1.0
"""Seconds from one update of shared files to the next."""

REASONS = (GapReason.CONNECTION_LOST, GapReason.HEARTBEAT, GapReason.INCOMPLETE)
"""Those of any hub."""

LINKS = ("listening", "sending")


class AnyHub(Protocol):
    """A `Hub` or an `AsyncHub`."""

    @property
    def state(self) -> HubState: ...
    def stats(self) -> HubStats: ...


class HubMetrics:
    """The metrics of this process's hubs. One for each registry.

    Args:
        registry: of `prometheus_client`, the one that they are exposed from. None: none yet; it is a collector.
        streams: names of streams that are told apart by the label `stream`. All others are counted together, with an
            empty one, since each value of a label makes more series for Prometheus to keep. Anything with `in` will do.

    Raises:
        ValueError: the registry has these metrics already.

    With several processes of which a scrape reaches one (`PROMETHEUS_MULTIPROC_DIR`), a thread writes the counters to
    the shared files about every second, from the first observation on.

    >>> metrics = HubMetrics(None, streams=["orders"])
    >>> with pgpubsub.Hub(dsn, observe=metrics.observer("app")) as hub:
    ...     metrics.watch("app", hub)
    ...     hub.notify("news", "text")
    ...     samples = {sample.name: sample.value for family in metrics.collect() for sample in family.samples}
    >>> samples["pgpubsub_hub_live"], samples["pgpubsub_hub_notifications_sent_total"]
    (1.0, 1.0)
    """

    def __init__(self, registry: CollectorRegistry | None = REGISTRY, *, streams: Container[str] = ()) -> None:
        if isinstance(streams, str):
            raise TypeError(f"streams are names, such as [{streams!r}], and not one text")
        self._own = CollectorRegistry()
        self._families = Families(self._own)
        self._streams = streams
        self._watched: dict[str, _Watched] = {}
        self._lock = Lock()
        self._shared = SEVERAL in os.environ
        self._updating = OfProcess(self._keep_updating)
        if registry is not None:
            registry.register(self)

    def observer(self, name: str) -> Callable[[Observation], None]:
        """What a hub is given as `observe`.

        Args:
            name: the value of its label `hub`.
        """
        return _Observer(self._families, name, self._streams, self._ensure_updates)

    def watch(self, name: str, hub: AnyHub) -> None:
        """Read the state and the counters of `hub`, as long as it is there and not closed.

        Args:
            name: the value of its label `hub`, as for `observer`.

        Raises:
            ValueError: another hub of this name is there, and is not closed.
        """
        with self._lock:
            known = self._watched.get(name)
            before = None if known is None else known.hub()
            if before is not None and before is not hub and before.state.status is not HubStatus.CLOSED:
                raise ValueError(f"another hub is watched as {name!r}: give each a name of its own")
            if known is not None and before is not hub:
                known.update(self._families)  # what it has done since it was last read
            if known is None or before is not hub:
                self._watched[name] = _Watched(name, hub)

    def update(self) -> None:
        """Have Prometheus's numbers be those of the hubs. `collect` does it, and so does the thread that writes shared
        files."""
        with self._lock:
            for name, watched in list(self._watched.items()):
                if not watched.update(self._families):
                    del self._watched[name]
                    if not self._shared:  # where nothing can be removed; files of processes that end are
                        for gauge in self._families.present:
                            gauge.remove(name)

    def describe(self) -> Iterable[Metric]:
        """For the registry."""
        return self._own.collect()

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        self.update()
        yield from self._own.collect()

    def _ensure_updates(self) -> None:
        if self._shared:
            self._updating.get()

    def _keep_updating(self) -> Thread:
        itself, never = ref(self), Event()

        def run() -> None:
            while not never.wait(EVERY) and (metrics := itself()) is not None:
                metrics.update()
                del metrics

        thread = Thread(target=run, name="pgpubsub metrics", daemon=True)
        thread.start()
        return thread


class _Watched:
    """A hub, and what was told of it."""

    def __init__(self, name: str, hub: AnyHub) -> None:
        self.hub = ref(hub)
        self._name = name
        self._told = dict.fromkeys(COUNTED, 0)

    def update(self, families: Families) -> bool:
        """Whether there will be more."""
        hub = self.hub()
        if hub is None or isinstance((state := hub.state).error, ConcurrentUse):  # a parent's
            return False
        stats = hub.stats()
        for field, counter in families.counted.items():
            # Another thread may have closed a subscription just now, which is counted twice, or not, for a moment.
            now = max(self._told[field], getattr(stats, field))
            counter.labels(self._name).inc(now - self._told[field])
            self._told[field] = now
        if state.status is HubStatus.CLOSED:
            return False
        if state.status is not HubStatus.IDLE:  # which is neither live nor not
            self._show(families, state, stats)
        return True

    def _show(self, families: Families, state: HubState, stats: HubStats) -> None:
        name = self._name
        families.live.labels(name).set(state.live)
        families.can_send.labels(name).set(state.sending_error is None and state.status is not HubStatus.FAILED)
        if stats.heartbeat_seconds is not None:
            families.heartbeat.labels(name).set(stats.heartbeat_seconds)
        depths = [one.depth for one in stats.subscriptions]
        families.subscriptions.labels(name).set(len(depths))
        families.buffered.labels(name).set(sum(depths))
        families.fullest.labels(name).set(max(depths, default=0))
        families.buffered_bytes.labels(name).set(sum(one.bytes for one in stats.subscriptions))


class _Observer:
    """Takes notes of what happens to one hub. Sending and appending may happen thousands of times a second."""

    def __init__(self, families: Families, name: str, streams: Container[str], on_seen: Callable[[], None]) -> None:
        self._families = families
        self._name = name
        self._streams = streams
        self._on_seen = on_seen
        self._sent = families.send.labels(name, "sent")
        self._send_failed = families.send.labels(name, "failed")
        for family in (families.heartbeats, families.until_live, families.cut_off):
            family.labels(name)  # so that the first of each is an increase
        families.append.labels(name, "", "failed")
        for reason in REASONS:
            families.gaps.labels(name, reason)
        for link in LINKS:
            families.lost.labels(name, link)
            families.failures.labels(name, link)

    def __call__(self, seen: Observation) -> None:
        self._on_seen()
        match seen.name:
            case "sent":
                self._sent.observe(seen.seconds or 0.0)
            case "send_failed":
                self._send_failed.observe(seen.seconds or 0.0)
            case "appended" | "append_failed":
                outcome = "appended" if seen.name == "appended" else "failed"
                stream = self._stream(seen)
                self._families.append.labels(self._name, stream, outcome).observe(seen.seconds or 0.0)
            case "handled" | "handling_failed" | "lease_lost":
                self._note_of_group(seen)
            case _:
                self._note_of_hub(seen)

    def _note_of_hub(self, seen: Observation) -> None:
        families, name = self._families, self._name
        match seen.name:
            case "heartbeat":
                families.heartbeats.labels(name).inc()
            case "live":
                families.until_live.labels(name).observe(seen.seconds or 0.0)
            case "gap":
                families.gaps.labels(name, seen.reason).inc()
            case "lost":
                families.lost.labels(name, seen.link).inc()
            case "connect_failed":
                families.failures.labels(name, seen.link).inc()
            case "too_slow":
                families.cut_off.labels(name).inc()

    def _note_of_group(self, seen: Observation) -> None:
        families, labels = self._families, (self._name, self._stream(seen), seen.group)
        if seen.name == "lease_lost":
            families.leases_lost.labels(*labels).inc()
            return
        handled = seen.name == "handled"
        (families.handled if handled else families.failed).labels(*labels).inc(seen.count or 1)
        families.handling.labels(*labels, "handled" if handled else "failed").observe(seen.seconds or 0.0)

    def _stream(self, seen: Observation) -> str:
        """The value of the label."""
        return seen.channels[0] if len(seen.channels) == 1 and seen.channels[0] in self._streams else ""
