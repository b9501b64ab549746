"""The errors, all below one root.

    PubSubError
    ├── ChannelNameError        (ValueError)   no channel can have this name
    ├── PayloadError            (ValueError)   no notification can carry this payload
    │   └── PayloadTooLarge                    ... because it is longer than max_payload
    ├── PositionError           (ValueError)   the text is no position of this stream
    ├── ConninfoError           (ValueError)   the connection string or a keyword is malformed
    ├── UnsupportedConnection   (TypeError)    the object brought is no connection to listen or send on
    ├── ConnectionUnusable                     the connection brought is not in a state in which it can deliver
    ├── ConnectionFailed                       no connection could be made
    ├── ConnectionLost                         the connection is gone
    │   ├── SendUncertain                      ... while a notification was in flight
    │   └── GaveUp                             ... and the hub does not try any more
    ├── NotLive                 (TimeoutError) the hub had no working connection within the time given
    │   └── SendTimeout                        ... so the notification was not sent
    ├── UnusableDeployment                     notifications cannot arrive here, such as behind some poolers
    ├── LeaseLost                              other members of a group have got what was in hand, or will
    ├── StreamsNotInstalled                    the schema for streams is not there, or not the one that is needed
    ├── ServerRefused                          the server answered a statement with an error
    │   └── ServerInRecovery                   ... because it is a standby
    ├── UnexpectedChannel                      a handler was notified of a channel that nobody registered
    ├── ConcurrentUse                          used from two threads at once, or after fork()
    └── Closed                                 closed by its owner
        └── SubscriptionClosed                 ... or never entered
            └── SubscriberTooSlow              ... closed because its buffer was full and its policy is "close"

Where an error was caused by a driver's, that one is in `__cause__`. A loss of notifications is never an
error but a `Gap`; an error is never reported as a `Gap`.
"""

from __future__ import annotations

import copy
from typing import TypeVar

__all__ = [
    "ChannelNameError",
    "Closed",
    "ConcurrentUse",
    "ConnectionFailed",
    "ConnectionLost",
    "ConnectionUnusable",
    "ConninfoError",
    "GaveUp",
    "LeaseLost",
    "NotLive",
    "PayloadError",
    "PayloadTooLarge",
    "PositionError",
    "PubSubError",
    "SendTimeout",
    "SendUncertain",
    "ServerInRecovery",
    "ServerRefused",
    "StreamsNotInstalled",
    "SubscriberTooSlow",
    "SubscriptionClosed",
    "UnexpectedChannel",
    "UnsupportedConnection",
    "UnusableDeployment",
]


Error = TypeVar("Error", bound=Exception)


def again(error: Error) -> Error:
    """A copy of `error`, for each of several who are to be told the same: an exception that is raised gathers
    tracebacks."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another


class PubSubError(Exception):
    """Root of every error that this package raises on purpose."""


class ChannelNameError(PubSubError, ValueError):
    """A channel name that PostgreSQL cannot carry: empty, over 63 bytes, containing NUL or not valid text."""


class PayloadError(PubSubError, ValueError):
    """A payload that cannot be sent: it contains NUL or a lone surrogate, or is not what its channel carries."""


class PayloadTooLarge(PayloadError):
    """A payload of `size` bytes, counted in UTF-8, where at most `limit` may be sent."""

    def __init__(self, message: str, *, size: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.size = size
        self.limit = limit


class PositionError(PubSubError, ValueError):
    """A text that is no position, or one of another stream, from which nobody can go on."""


class ConninfoError(PubSubError, ValueError):
    """A connection string or keyword that libpq does not understand."""


class UnsupportedConnection(PubSubError, TypeError):
    """An object that is no connection which can be listened on, or sent on. The message says what to bring."""


class ConnectionUnusable(PubSubError):
    """A connection that could not deliver as it is: not in autocommit, or inside an open transaction."""


class ConnectionFailed(PubSubError):
    """A connection could not be made: wrong password, unknown database, nobody answers."""


class ConnectionLost(PubSubError):
    """The connection is gone, and with it every LISTEN. Raised where it is not, or not yet, replaced."""


class SendUncertain(ConnectionLost):
    """The connection broke while a notification was in flight: it was sent, or it was not.

    It is not repeated for you, since that could send it twice; an append with an idempotency key was, in vain.
    """


class GaveUp(ConnectionLost):
    """The hub was without a connection for `give_up_after` seconds and does not try any more."""


class NotLive(PubSubError, TimeoutError):
    """The hub had no working connection within the time given; the message says why. It goes on trying."""


class SendTimeout(NotLive):
    """The notification was not sent within `send_timeout` seconds, and will not be."""


class UnusableDeployment(PubSubError):
    """Notifications do not arrive on this connection, and trying again does not help: a pooler in transaction mode
    stands between, or the two connections lead to different databases. The message says which."""


class LeaseLost(PubSubError):
    """What a consumer of a group had in hand belongs to it no longer, because its connection was lost, or it did not
    show itself for the time of its lease. It was not acknowledged, and comes again."""


class StreamsNotInstalled(PubSubError):
    """The database does not have the schema for streams, or another version of it, or it was restored from a dump and
    has not been told. The message says which, and what to do."""


class ServerRefused(PubSubError):
    """The server answered a statement with an error; `sqlstate` is its five-character code, if it gave one."""

    def __init__(self, message: str, *, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class ServerInRecovery(ServerRefused):
    """The server is a standby: LISTEN and NOTIFY work on a primary only (PostgreSQL manual, "Hot Standby")."""


class UnexpectedChannel(PubSubError):
    """A `NotificationHandler` was notified of a channel that nobody registered on its connection.

    The error raised is also the driver's `DatabaseError`, which programs written for PyGreSQL catch.
    """


class ConcurrentUse(PubSubError):
    """The object was used from two threads at once, re-entered by a signal handler, or used after `fork()`."""


class Closed(PubSubError):
    """The object was closed by its owner and cannot be used any more."""


class SubscriptionClosed(Closed):
    """The subscription was closed, or its hub was, or it was not entered (`with hub.subscribe(...)`)."""


class SubscriberTooSlow(SubscriptionClosed):
    """The subscription's buffer was full, its policy is `close`, so it ended. What came before was delivered."""
