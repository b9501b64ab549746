"""Flask: a hub for each process of an application, and server-sent events of what it receives.

    pubsub = PgPubSub()

    def create_app():
        app = Flask(__name__)
        app.config["PGPUBSUB_CONNINFO"] = "dbname=app"
        pubsub.init_app(app)
        return app

    @app.get("/events")
    def events():
        return EventStream(pubsub.hub.subscribe("orders"))

Every open stream occupies a thread of the server. A client that has gone is noticed when something is sent to it: the
next event but one, or the next keep-alive but one.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Unpack

from pgpubsub.contrib import sse
from pgpubsub.contrib.of_process import OfProcess
from pgpubsub.contrib.sse.following import check_receiver
from pgpubsub.core.position import END, Start
from pgpubsub.errors import PositionError
from pgpubsub.threads.hub import Hub
from pgpubsub.threads.reader import Reader
from pgpubsub.threads.stream import Stream
from pgpubsub.threads.subscription import Subscription

try:
    import flask
    from werkzeug.exceptions import BadRequest, ServiceUnavailable
except ImportError as error:
    raise ImportError(
        "pgpubsub.contrib.flask needs Flask: pip install 'pgpubsub[binary,flask]'", name=error.name
    ) from error

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["EventStream", "PgPubSub", "resume"]


class PgPubSub:
    """The extension. Its hub is made and connected when it is first used, in each process that uses it: after the fork
    of a server such as `gunicorn --preload`, and in the child of Flask's reloader.

    Args:
        app: the application, or None: see `init_app`.
        conninfo: as for `Hub`, where the application's configuration has no `PGPUBSUB_CONNINFO`.
        options: as for `Hub`, but that `wait_for_primary` is True by default: the hub stays as long as the process.
    """

    def __init__(self, app: flask.Flask | None = None, conninfo: Any = "", **options: Any) -> None:
        self._conninfo = conninfo
        self._options = options
        if app is not None:
            self.init_app(app)

    def init_app(self, app: flask.Flask) -> None:
        """Give `app` a hub of its own."""
        conninfo = app.config.setdefault("PGPUBSUB_CONNINFO", self._conninfo)
        app.extensions["pgpubsub"] = OfProcess(partial(Hub, conninfo, **{"wait_for_primary": True, **self._options}))

    @property
    def hub(self) -> Hub:
        """The hub of the current application, in this process.

        Raises:
            RuntimeError: there is no current application, or `init_app` was not called for it.
        """
        return self._of_app().get()

    def close(self) -> None:
        """Close the current application's hub in this process, for example at the end of a test. The next use makes
        another one."""
        if (hub := self._of_app().take()) is not None:
            hub.close()

    def _of_app(self) -> OfProcess[Hub]:
        known = flask.current_app.extensions.get("pgpubsub")
        if not isinstance(known, OfProcess):
            raise RuntimeError(f"call init_app() of PgPubSub for {flask.current_app!r} first")
        return known


def resume(stream: Stream[Any], otherwise: str | Start = END) -> Reader[Any]:
    """A reader of `stream` that goes on where the browser of the current request stopped, by its `Last-Event-ID`.

    Args:
        stream: the one that it reads.
        otherwise: where to begin if it has not got anything yet.

    Raises:
        BadRequest: 400, it did not send a position of this stream.
    """
    try:
        return sse.resume(stream, flask.request.headers.get("Last-Event-ID"), otherwise)
    except PositionError as error:
        raise BadRequest(str(error)) from error


class EventStream(flask.Response):
    """What a subscription or a reader delivers, as a response. It ends, with the receiver, when the hub is closed, when
    gunicorn ends its worker, or when something is sent to a client that has gone.

    Args:
        receiver: a subscription or a reader, not entered yet.
        headers: more of them.
        options: as for `pgpubsub.contrib.sse.follow`: `text`, `named`, `keep_alive` and `retry`.

    It is entered when the response is sent, so one that never is, as a function after the request failed, leaves
    nothing behind. If it cannot be entered, 503 is sent instead.

    Raises:
        TypeError: the receiver is not a `Hub`'s.
    """

    def __init__(
        self,
        receiver: Subscription[Any] | Reader[Any],
        headers: Mapping[str, str] | None = None,
        **options: Unpack[sse.Options],
    ) -> None:
        check_receiver(receiver, asynchronous=False)
        self._events = sse.follow_blocking(receiver, ended=_worker_ends, **options)
        self._opening: list[bytes] = []
        body = chain(self._opening, self._events)
        super().__init__(body, headers={**sse.HEADERS, **(headers or {})}, mimetype=sse.MEDIA_TYPE)
        self.call_on_close(self._events.close)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Called by Flask."""
        if environ["REQUEST_METHOD"] == "HEAD":  # which has no events, and nobody to close them
            return super().__call__(environ, start_response)
        try:
            self._opening.append(next(self._events))
        except sse.UNAVAILABLE:
            unavailable = ServiceUnavailable("there are no events at present", retry_after=5)
            return unavailable.get_response(environ)(environ, start_response)
        return super().__call__(environ, start_response)


def _worker_ends() -> bool:
    """Whether gunicorn has told this worker to end, which then waits for its threads. Nothing else in WSGI says so; the
    worker is who handles the signal."""
    worker = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return not getattr(worker, "alive", True)
