"""What is wrong with a request, as clients get it: JSON as RFC 9457 has it ("Problem Details for HTTP APIs")."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

from pgpubsub.errors import (
    ChannelNameError,
    Closed,
    ConnectionFailed,
    ConnectionLost,
    GaveUp,
    NotLive,
    PayloadError,
    PayloadTooLarge,
    PositionError,
    PubSubError,
    SendTimeout,
    SendUncertain,
    StreamsNotInstalled,
    UnusableDeployment,
)
from pgpubsub.logs import EventLog

__all__ = ["UNTOLD", "Problem", "note", "of"]

TRY_AGAIN = 2
"""Seconds after which it may be better."""

STATUSES: tuple[tuple[type[Exception], int, str], ...] = (
    (PayloadTooLarge, 413, "too-large"),
    (ChannelNameError, 400, "bad-name"),
    (PositionError, 400, "bad-position"),
    (PayloadError, 400, "bad-payload"),
    (SendUncertain, 504, "uncertain"),
    (StreamsNotInstalled, 503, "unavailable"),
    (SendTimeout, 503, "unavailable"),
    (NotLive, 503, "unavailable"),
    (ConnectionLost, 503, "unavailable"),
    (ConnectionFailed, 503, "unavailable"),
    (Closed, 503, "unavailable"),
    (GaveUp, 503, "unavailable"),
    (UnusableDeployment, 503, "unavailable"),
    (PubSubError, 502, "refused"),
    (ValueError, 400, "bad-request"),
)
UNTOLD = {
    "unavailable": "the database cannot be reached",
    "uncertain": "the connection to the database broke while this was in flight: it may have been sent, or not",
    "refused": "the database refused this",
}
"""What a client is told of errors whose own words are about the server's insides. The log has those."""


logger = EventLog("gateway")


class Problem(Exception):
    """A request that is not fulfilled.

    Args:
        status: of HTTP.
        code: one word for programs.
        detail: a sentence for people: what is wrong, and what to do.
        retry_after: seconds.
    """

    def __init__(self, status: int, code: str, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after = retry_after

    def as_json(self) -> dict[str, Any]:
        """As a client gets it."""
        return {"status": self.status, "code": self.code, "detail": self.detail}

    def response(self) -> Response:
        """As a response."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(1, round(self.retry_after)))
        if self.status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="pgpubsub"'
        body = {"title": self.code.replace("-", " "), **self.as_json()}
        return JSONResponse(body, self.status, headers, "application/problem+json")


def of(error: Exception) -> Problem:
    """What a client is told of an error of the library's.

    >>> of(PayloadTooLarge("9,000 bytes, and 7,999 are allowed")).status
    413
    """
    if isinstance(error, Problem):
        return error
    status, code = next((status, code) for kind, status, code in STATUSES if isinstance(error, kind))
    retry_after = TRY_AGAIN if status == 503 else None
    return Problem(status, code, UNTOLD.get(code, str(error)), retry_after=retry_after)


def note(problem: Problem, error: Exception) -> None:
    """Have the log say what a client is not told."""
    if problem.code in UNTOLD and problem is not error:
        logger.warning(
            "request_failed", "%(detail)s: %(error)s", status=problem.status, detail=problem.detail, error=error
        )
