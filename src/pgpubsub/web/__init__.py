"""Channels and streams over HTTP: server-sent events, WebSockets and POST, for browsers and whoever else speaks it.

    pgpubsub serve --public 'channels/news.*' --jwt-key key.pem

or the same as an application to run or mount: `create_app`. It needs the extra `web`.
"""

from __future__ import annotations

try:
    from pgpubsub.web.access import Keys
    from pgpubsub.web.app import create_app
    from pgpubsub.web.limits import Limits
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("starlette", "jwt", "prometheus_client", "cryptography"):
        raise
    raise ImportError(
        "pgpubsub.web needs the extra 'web': pip install 'pgpubsub[binary,web]'", name=error.name
    ) from error

__all__ = ["Keys", "Limits", "create_app"]
