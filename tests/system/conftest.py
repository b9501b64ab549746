"""A TCP proxy that breaks connections on purpose."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from pgpubsub.testing import TemporaryServer

RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards bytes to a server until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.break_after: bytes | None = None
        """Reset the connection once these bytes have been forwarded to the server, and before it can answer."""
        self.silent = False
        """Accept connections and say nothing."""
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def dsn(self, **keywords: object) -> str:
        given = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": "postgres", **keywords}
        return " ".join(f"{name}={value}" for name, value in given.items())

    def reset(self) -> None:
        """Break all connections with a TCP reset, which discards what is under way."""
        for one in self._sockets:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            with suppress(OSError):  # not connected any more
                one.shutdown(socket.SHUT_RD)
            one.close()
        self._sockets.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # ends accept(), which close() alone does not
        self._accepting.join()
        self._server.close()
        self.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._sockets.append(client)
            if self.silent:
                continue
            try:
                server = socket.create_connection(self.target)
            except OSError:
                client.close()
                continue
            self._sockets.append(server)
            for source, sink, to_server in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, to_server), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, to_server: bool) -> None:
        try:
            while data := source.recv(65536):
                if to_server and self.break_after is not None and self.break_after in data:
                    self.break_after = None
                    source.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
                    source.close()
                    sink.sendall(data)
                    return
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.fixture
def make_proxy() -> Iterator[Callable[[TemporaryServer], Proxy]]:
    made: list[Proxy] = []

    def make(server: TemporaryServer) -> Proxy:
        made.append(Proxy("127.0.0.1", server.port))
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()
