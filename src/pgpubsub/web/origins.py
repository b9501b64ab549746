"""Which pages may use the gateway: a browser says of which origin a page is (RFC 6454), and nobody else does.

A page of the gateway's own host may, and those that are named. Tokens are what protects data. This keeps pages of
others from using what is public, or a gateway that only their visitors reach; not one whose own name leads here.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from pgpubsub.web.problems import Problem

__all__ = ["ANY", "Origins", "check_origins"]

ANY = "*"

PORTS = {"http": 80, "https": 443}


def check_origins(origins: Iterable[str]) -> tuple[str, ...]:
    """Origins as browsers write them.

    Raises:
        ValueError: one is none.

    >>> check_origins(["https://example.com"])
    ('https://example.com',)
    """
    checked = tuple(origins)
    for origin in checked:
        if origin != ANY and not _is_origin(origin):
            raise ValueError(f"{origin!r} is no origin: https://example.com is, or http://localhost:8080, or *")
    return checked


def _is_origin(origin: str) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    its = f"{parts.scheme}://{parts.hostname or ''}" + ("" if port is None else f":{port}")
    return bool(parts.hostname) and "*" not in origin and origin == its and PORTS.get(parts.scheme, port) != port


class Origins:
    """Refuses what pages of other origins ask for.

    Args:
        app: gets the rest.
        allowed: beside that of the gateway itself; `*`: all.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str]) -> None:
        self._app = app
        self._allowed = frozenset(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and not self._is_allowed(origin, headers.get("host", "")):
                problem = Problem(
                    403, "origin", f"pages of {origin[:100]} may not use this: --allow-origin allows them"
                )
                if scope["type"] == "http":
                    await problem.response()(scope, receive, send)
                else:
                    await WebSocket(scope, receive, send).send_denial_response(problem.response())
                return
        await self._app(scope, receive, send)

    def _is_allowed(self, origin: str, host: str) -> bool:
        if origin in self._allowed or ANY in self._allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        if parts.scheme not in PORTS or not parts.netloc:
            return False
        port = f":{PORTS[parts.scheme]}"
        return parts.netloc.lower().removesuffix(port) == host.lower().removesuffix(port)
