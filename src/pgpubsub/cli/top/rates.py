"""What has changed from one moment to the next: pure arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pgpubsub.cli.top.figures import Channel
from pgpubsub.doctor.sampling import Sample, Streams

__all__ = ["RECENT", "View", "as_json", "changed"]

RECENT = 10
"""Rates of a channel that are remembered."""


@dataclass(frozen=True, slots=True)
class View:
    """A moment as it is shown."""

    sample: Sample
    channels: tuple[Channel, ...] = ()
    seconds: float | None = None
    """Since the moment before; None: this is the first."""
    channel_rates: Mapping[str, float] = field(default_factory=dict)
    """Notifications per second. A channel that is missing was not listened to long enough."""
    recent: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """The last rates of each channel, the newest last."""
    stream_rates: Mapping[str, float] = field(default_factory=dict)
    """Entries per second."""
    trouble: str | None = None
    """Why the server tells nothing at present; the sample is an earlier one then."""
    deaf: str | None = None
    """Why nothing is heard on channels at present."""


def changed(before: View | None, sample: Sample, channels: tuple[Channel, ...], deaf: str | None) -> View:
    """The view after `before`.

    A view that was in trouble has an earlier sample: what was counted since is divided by the time since then.
    """
    seconds = sample.time - before.sample.time if before else None
    if before is None or not seconds or seconds <= 0:
        return View(sample, channels, deaf=deaf)
    totals = {channel.name: channel.total for channel in before.channels}
    rates = {channel.name: (channel.total - totals.get(channel.name, 0)) / seconds for channel in channels}
    return View(
        sample,
        channels,
        seconds,
        rates,
        {name: (*before.recent.get(name, ()), rate)[-RECENT:] for name, rate in rates.items()},
        _stream_rates(sample, seconds),
        deaf=deaf,
    )


def _stream_rates(sample: Sample, seconds: float) -> dict[str, float]:
    if not isinstance(sample.streams, Streams):
        return {}
    return {one.name: one.appended / seconds for one in sample.streams.streams if one.appended is not None}


def as_json(view: View) -> dict[str, Any]:
    """A view as one object. What could not be looked at has "why"; while the server tells nothing, there is "trouble"
    in place of what it would tell."""
    sample = view.sample
    heard = {
        "not_listening": view.deaf,
        "channels": [
            asdict(channel) | {"per_second": _rounded(view.channel_rates.get(channel.name))}
            for channel in view.channels
        ],
    }
    if view.trouble is not None:
        return {"trouble": view.trouble, "last_sample_at": sample.at.isoformat(), **heard}
    told = asdict(sample)
    del told["time"]
    told["at"] = sample.at.isoformat()
    told["server"]["since"] = sample.server.since.isoformat()
    for stream in told["streams"].get("streams", ()):
        stream["per_second"] = _rounded(view.stream_rates.get(stream["name"]))
    return {"at": told.pop("at"), "trouble": None, "seconds": _rounded(view.seconds), **told, **heard}


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 3)
