"""A server that lets everybody in and then says nothing more, as one does that freezes in that moment."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["FrozenServer"]

SSL_REQUEST, GSSAPI_REQUEST = 80877103, 80877104


class FrozenServer:
    """Args:
    version: what it says that it is.
    """

    def __init__(self, version: str = "16.1") -> None:
        said = {"server_version": version, "client_encoding": "UTF8", "server_encoding": "UTF8"}
        self._welcome = _message(b"R", struct.pack("!i", 0))
        for name, value in said.items():
            self._welcome += _message(b"S", f"{name}\0{value}\0".encode())
        self._welcome += _message(b"K", struct.pack("!ii", 1, 1)) + _message(b"Z", b"I")
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(20)
        self._listening.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listening.getsockname()[1])

    def dsn(self, **keywords: object) -> str:
        """A connection string."""
        given = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": "postgres", **keywords}
        return " ".join(f"{name}={value}" for name, value in given.items())

    def _serve(self) -> None:
        kept = []
        with suppress(OSError):  # the end
            while True:
                conn, _ = self._listening.accept()
                kept.append(conn)
                with suppress(OSError, struct.error):
                    self._let_in(conn)
        for conn in kept:
            conn.close()

    def _let_in(self, conn: socket.socket) -> None:
        while True:
            length, code = struct.unpack("!ii", conn.recv(8, socket.MSG_WAITALL))
            if code not in (SSL_REQUEST, GSSAPI_REQUEST):
                break
            conn.sendall(b"N")
        conn.recv(length - 8, socket.MSG_WAITALL)
        conn.sendall(self._welcome)


def _message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", len(content) + 4) + content
