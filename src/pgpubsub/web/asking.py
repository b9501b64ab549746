"""What a request asks for: of whom, which channels and streams, and from where on.

Where a client goes on is the id of the last event that it has got. Of one stream it is the position; of a channel the
time, as `t` and milliseconds since 1970; and where a response is of several, the time and the positions of its streams,
in the order in which the request names them, with full stops between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime

from starlette.requests import HTTPConnection

from pgpubsub.core.position import BEGINNING, END, Position, Start, stream_id
from pgpubsub.core.sql import check_channel, shown
from pgpubsub.web.items import Topic
from pgpubsub.web.problems import Problem

__all__ = ["Asked", "address", "asked", "bearer", "begin", "check_parameters", "mark", "topic_of"]

TIME = re.compile(r"t(\d{1,13})")  # so that it is a date
LONGEST_TOKEN = 16_384
OURS = ("pgpubsub.", "pgpubsub ")
"""How the channels of heartbeats begin, and of hints for readers of streams; and those of the channel layer's hints."""


@dataclass(frozen=True, slots=True)
class Asked:
    """See the module."""

    topics: Sequence[Topic]
    afters: Sequence[str | Start]
    """Where to begin with each; of a channel it does not count."""
    plain: bool
    """Whether data is the payload alone."""
    away_since: datetime | None
    """When a client that comes again got something last, unless that says nothing of channels."""


def asked(connection: HTTPConnection) -> Asked:
    """What a request for server-sent events asks for.

    Raises:
        Problem, ValueError: it does not make sense.
    """
    query = connection.query_params
    check_parameters(connection, {"channel", "stream", "after", "format"}, "channel, stream, after and format are")
    topics = [Topic("channel", name) for name in query.getlist("channel")]
    topics += [Topic("stream", name) for name in query.getlist("stream")]
    single = topic_of(connection)
    if single is not None:
        topics.insert(0, single)
    if not topics:
        raise Problem(400, "bad-request", "nothing is asked for: ?channel=NAME, ?stream=NAME, as often as you like")
    if len(set(topics)) < len(topics):
        raise Problem(400, "bad-request", "a channel or stream is asked for twice")
    for topic in topics:
        check(topic)
    form = query.get("format", "plain" if len(topics) == 1 and single is not None else "json")
    if form not in ("plain", "json"):
        raise Problem(400, "bad-request", f"format is 'plain' or 'json', not {shown(form)}")
    if form == "plain" and len(topics) > 1:
        raise Problem(400, "bad-request", "format=plain does not say which of several an event is of: use format=json")
    afters, away_since = _afters(topics, query.getlist("after"), connection.headers.get("last-event-id", ""))
    return Asked(topics, afters, form == "plain", away_since)


def check_parameters(connection: HTTPConnection, known: AbstractSet[str], which: str) -> None:
    """Make sure that the query has no other parameters: what is misspelt would go unnoticed. `which`: says so.

    Raises:
        Problem: it has.
    """
    unknown = set(connection.query_params) - known
    if unknown:
        raise Problem(400, "bad-request", f"there is no parameter {shown(min(unknown))}: {which}")


def topic_of(connection: HTTPConnection) -> Topic | None:
    """The channel or stream that the path names."""
    for kind in ("channel", "stream"):
        name = connection.path_params.get(kind)
        if name is not None:
            topic = Topic(kind, name)
            check(topic)
            return topic
    return None


def check(topic: Topic) -> None:
    """Make sure that there can be such a channel or stream.

    Raises:
        ValueError: there cannot.
    """
    if topic.kind == "channel":
        check_channel(topic.name)
        if topic.name.startswith(OURS):
            raise Problem(
                403, "reserved", f"channels whose names begin with {OURS[0]!r} or {OURS[1]!r} are the library's own"
            )
    elif not topic.name or "\0" in topic.name or len(topic.name.encode()) > 1000:
        raise Problem(400, "bad-name", "a stream's name has 1 to 1,000 bytes, and no NUL")


def begin(topic: Topic, after: str | None) -> str | Start:
    """Where to begin with a stream.

    Raises:
        PositionError: `after` is not a position of this stream.
    """
    if after is None or after == "end" or topic.kind == "channel":
        return END
    if after == "beginning":
        return BEGINNING
    Position.decode(after, stream_id(topic.name))
    return after


def mark(time: str | None, positions: Iterable[str]) -> str:
    """Where a client goes on, as the id of an event.

    >>> mark("t1763900000000", ["AbC_d"])
    't1763900000000.AbC_d'
    """
    return ".".join([*([] if time is None else [time]), *positions])


def bearer(connection: HTTPConnection) -> str | None:
    """The token that a request has.

    Raises:
        Problem: its header `Authorization` has something else.
    """
    header = connection.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip() or len(token) > LONGEST_TOKEN:
        raise Problem(401, "bad-token", "the header is to be Authorization: Bearer TOKEN")
    return token.strip()


def address(connection: HTTPConnection) -> str:
    """Where a client is, which tells it from others that have no token."""
    return "" if connection.client is None else connection.client.host


def _afters(
    topics: Sequence[Topic], given: Sequence[str], last_event_id: str
) -> tuple[Sequence[str | Start], datetime | None]:
    streams = [topic for topic in topics if topic.kind == "stream"]
    away_since: datetime | None = None
    positions: Sequence[str | None] = list(given)
    if last_event_id:
        first, *rest = last_event_id.split(".")
        if (time := TIME.fullmatch(first)) is not None:
            away_since = datetime.fromtimestamp(int(time[1]) / 1000, UTC)
            positions = rest
        else:
            positions = [first, *rest]
    elif len(given) == 1:
        positions = list(given) * len(streams)
    if len(positions) not in (0, len(streams)):
        raise Problem(
            400,
            "bad-position",
            f"there are {len(positions)} positions for {len(streams)} streams: one for all, or each",
        )
    places = iter(positions or [None] * len(streams))
    return [END if topic.kind == "channel" else begin(topic, next(places)) for topic in topics], away_since
