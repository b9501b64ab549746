"""Server-sent events: what a subscription or a stream's reader delivers, as a browser's `EventSource` takes it.

`encode` turns one event into bytes, as the HTML standard has them ("Server-sent events"), and does nothing else.
`follow` and `follow_blocking` enter a receiver of an `AsyncHub` or a `Hub`, yield what comes, keep the connection alive
meanwhile, and close the receiver, however they end. Nothing here knows a web framework or a server.

It promises that no payload, channel or position can break out of its line, that no channel's name makes a message look
like a gap or an error, and that no event is lost to a keep-alive.
It does not promise that a browser which reconnects to a *channel* has missed nothing: it has to read its state anew
whenever its connection is opened. From a stream, it goes on where it stopped.
"""

from __future__ import annotations

from pgpubsub.contrib.sse.encoding import HEADERS, KEEP_ALIVE, MEDIA_TYPE, as_text, encode, frame
from pgpubsub.contrib.sse.following import UNAVAILABLE, Options, follow, follow_blocking, resume

__all__ = [
    "HEADERS",
    "KEEP_ALIVE",
    "MEDIA_TYPE",
    "UNAVAILABLE",
    "Options",
    "as_text",
    "encode",
    "follow",
    "follow_blocking",
    "frame",
    "resume",
]
