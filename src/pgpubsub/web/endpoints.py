"""What can be asked for at which URL."""

from __future__ import annotations

from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from pgpubsub.contrib.sse import HEADERS, MEDIA_TYPE
from pgpubsub.web.asking import address, asked, bearer, check_parameters, topic_of
from pgpubsub.web.gateway import SHUTDOWN, Gateway
from pgpubsub.web.metrics import CONTENT_TYPE
from pgpubsub.web.overview import Overview
from pgpubsub.web.problems import UNTOLD, Problem
from pgpubsub.web.responses import EventStream
from pgpubsub.web.sending import body_of, check_headers, send
from pgpubsub.web.sockets import serve

__all__ = ["Endpoints"]


class _Anything(Convertor[str]):
    """Names of channels and streams: Starlette's own `path` knows no line breaks."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("anything", _Anything())


class Endpoints:
    """Those of one gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        return [
            Route("/events", self.events),
            Route("/channels", self.events),
            Route("/streams", self.events),
            Route("/channels/{channel:anything}", self.events, methods=["GET"]),
            Route("/channels/{channel:anything}", self.publish, methods=["POST"]),
            Route("/streams/{stream:anything}", self.events, methods=["GET"]),
            Route("/streams/{stream:anything}", self.publish, methods=["POST"]),
            WebSocketRoute("/ws", self.converse),
            Route("/overview", Overview(self._gateway).respond),
            Route("/healthz", self.healthy),
            Route("/readyz", self.ready),
            Route("/metrics", self.measure),
        ]

    async def events(self, request: Request) -> Response:
        """Server-sent events of what is asked for."""
        gateway, wanted = self._gateway, asked(request)
        grant = gateway.grant(bearer(request))
        grant.check("read", [topic.path for topic in wanted.topics])
        if request.method == "HEAD":
            return Response(headers=HEADERS, media_type=MEDIA_TYPE)
        identity = grant.subject or address(request)
        if new := [topic for topic in wanted.topics if not gateway.is_followed(topic)]:
            gateway.rates.take(identity, len(new))  # those who come again to what is followed cost next to nothing
        outlet = gateway.admit(identity, grant)
        try:
            for topic, after in zip(wanted.topics, wanted.afters, strict=True):
                await gateway.follow(outlet, topic, after)
        except BaseException:
            gateway.dismiss(outlet)
            raise
        return EventStream(gateway, outlet, wanted)

    async def publish(self, request: Request) -> Response:
        """Send what a request has as its body."""
        gateway, topic = self._gateway, topic_of(request)
        assert topic is not None
        check_parameters(request, {"key", "headers"}, "key and headers are, and Idempotency-Key is a header")
        grant = gateway.grant(bearer(request))
        grant.check("write", [topic.path])
        gateway.rates.take(grant.subject or address(request))
        async with gateway.answering(Problem(503, "shutdown", SHUTDOWN.detail, retry_after=1)):
            payload = await body_of(request, gateway.limits.message_bytes)
        async with gateway.answering(Problem(504, "uncertain", UNTOLD["uncertain"])):
            id = await send(
                gateway,
                topic,
                payload,
                key=request.query_params.get("key"),
                headers=check_headers(request.query_params.get("headers")),
                idempotency_key=request.headers.get("idempotency-key"),
                context=request.headers,
            )
        return Response(status_code=204) if id is None else JSONResponse({"id": id}, 201)

    async def converse(self, websocket: WebSocket) -> None:
        """A WebSocket."""
        await serve(self._gateway, websocket)

    async def healthy(self, _: Request) -> Response:
        """Whether the process answers."""
        return PlainTextResponse("the process answers\n")

    async def ready(self, _: Request) -> Response:
        """Whether clients are to be sent here."""
        return PlainTextResponse(*self._gateway.readiness())

    async def measure(self, _: Request) -> Response:
        """Figures for Prometheus."""
        return Response(await self._gateway.metrics.exposition(), media_type=CONTENT_TYPE)
