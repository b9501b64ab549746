"""`pgpubsub serve`: channels and streams for browsers."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer

from pgpubsub.cli.connecting import arguments
from pgpubsub.cli.options import Dsn
from pgpubsub.cli.statuses import FAILED, Ended
from pgpubsub.cli.terminal import Terminal

__all__ = ["serve"]


def serve(
    ctx: typer.Context,
    dsn: Dsn = "",
    host: Annotated[str, typer.Option(envvar="PGPUBSUB_HOST", metavar="H", help="Address to serve on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="PGPUBSUB_PORT", metavar="P", min=0, max=65535, help="Port; 0: any that is free.")
    ] = 8008,
    public: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PGPUBSUB_PUBLIC",
            metavar="PATTERN",
            help="What everybody may read, such as 'channels/news.*' or 'streams/prices'. As often as you like.",
        ),
    ] = None,
    jwt_key: Annotated[
        str | None,
        typer.Option(
            envvar="PGPUBSUB_JWT_KEY",
            metavar="FILE",
            help="Public key (PEM) or keys (JWKS) that tokens are verified with.",
        ),
    ] = None,
    jwt_secret_file: Annotated[
        str | None,
        typer.Option(
            envvar="PGPUBSUB_JWT_SECRET_FILE", metavar="FILE", help="In place of a key: a secret of 32 bytes or more."
        ),
    ] = None,
    jwt_audience: Annotated[
        str | None, typer.Option(envvar="PGPUBSUB_JWT_AUDIENCE", metavar="AUD", help="What a token's aud has to be.")
    ] = None,
    jwt_issuer: Annotated[
        str | None, typer.Option(envvar="PGPUBSUB_JWT_ISSUER", metavar="ISS", help="What a token's iss has to be.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="PGPUBSUB_ALLOW_ORIGIN",
            metavar="ORIGIN",
            help="Whose pages may use it, such as https://example.com. As often as you like. Its own may.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(envvar="PGPUBSUB_WORKERS", metavar="N", min=1, max=256, help="Processes that serve.")
    ] = 1,
    max_subscriptions: Annotated[
        int,
        typer.Option(
            envvar="PGPUBSUB_MAX_SUBSCRIPTIONS", metavar="N", min=1, help="Channels and streams of one connection."
        ),
    ] = 100,
    max_topics: Annotated[
        int,
        typer.Option(
            envvar="PGPUBSUB_MAX_TOPICS", metavar="N", min=1, help="Channels and streams of all clients of a process."
        ),
    ] = 20_000,
    max_behind: Annotated[
        int,
        typer.Option(envvar="PGPUBSUB_MAX_BEHIND", metavar="N", min=1, help="Events that a client may be behind."),
    ] = 1000,
    max_message: Annotated[
        int,
        typer.Option(envvar="PGPUBSUB_MAX_MESSAGE", metavar="BYTES", min=1, help="Bytes of a message that one sends."),
    ] = 1 << 20,
    rate: Annotated[
        float,
        typer.Option(
            envvar="PGPUBSUB_RATE",
            metavar="R",
            min=0.001,
            help="Messages, frames and new topics of a client in a second.",
        ),
    ] = 100.0,
    slow: Annotated[
        str,
        typer.Option(
            envvar="PGPUBSUB_SLOW",
            metavar="skip|close",
            help="What becomes of a client that is further behind on a channel: it skips, with a gap, or is sent away.",
        ),
    ] = "skip",
    page: Annotated[bool, typer.Option(envvar="PGPUBSUB_PAGE", help="Whether there is a page at /.")] = True,
    opentelemetry: Annotated[
        bool,
        typer.Option(
            envvar="PGPUBSUB_OPENTELEMETRY",
            help="Traces and metrics by OpenTelemetry, configured by OTEL_...: run `opentelemetry-instrument pgpubsub"
            " serve --opentelemetry`.",
        ),
    ] = False,
    access_log: Annotated[bool, typer.Option(envvar="PGPUBSUB_ACCESS_LOG", help="Log each request.")] = False,
    log_format: Annotated[
        str,
        typer.Option(
            envvar="PGPUBSUB_LOG_FORMAT",
            metavar="text|json",
            help="Of its log: text, or a line of JSON for each record.",
        ),
    ] = "text",
    database_metrics: Annotated[
        bool,
        typer.Option(
            envvar="PGPUBSUB_DATABASE_METRICS",
            help="Have /metrics tell of the database too: streams and groups by name, lag, the NOTIFY queue.",
        ),
    ] = False,
    schema: Annotated[
        str, typer.Option(envvar="PGPUBSUB_SCHEMA", metavar="SCHEMA", help="Where streams are installed.")
    ] = "pgpubsub",
) -> None:
    """Serve channels and streams over HTTP, for browsers.

    There are server-sent events, WebSockets, POST, and a page at /. It needs the extra 'web'.

    Nothing can be read without a token unless --public says so, and nothing can be written without one. Each option
    can be given as an environment variable too, with spaces between several patterns.
    """
    terminal: Terminal = ctx.obj
    try:
        from pgpubsub.web.serving import Options, run
    except ImportError as error:
        terminal.say(f"serve needs the extra 'web' ({error.name} is missing): pip install 'pgpubsub[binary,cli,web]'")
        raise Ended(FAILED) from error
    limits = {
        "subscriptions": max_subscriptions,
        "topics": max_topics,
        "buffer": max_behind,
        "message_bytes": max_message,
        "rate": rate,
        "slow": slow,
    }
    if opentelemetry and find_spec("opentelemetry") is None:
        terminal.say(
            "--opentelemetry needs the extra 'opentelemetry': pip install 'pgpubsub[binary,cli,web,opentelemetry]'"
        )
        raise Ended(FAILED)
    options = Options(
        dsn=dsn,
        public=public or [],
        jwt_key=jwt_key or None,
        jwt_secret_file=jwt_secret_file or None,
        jwt_audience=jwt_audience or None,
        jwt_issuer=jwt_issuer or None,
        origins=allow_origin or [],
        schema=schema,
        page=page,
        database_metrics=database_metrics,
        opentelemetry=opentelemetry,
        limits=limits,
    )
    try:
        with arguments():
            run(options, host=host, port=port, workers=workers, access_log=access_log, log_format=log_format)
    except OSError as error:
        terminal.say(f"cannot serve: {error}")
        raise Ended(FAILED) from error
