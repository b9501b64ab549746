"""A PgBouncer in front of a server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from pgpubsub.testing import TemporaryServer
from pgpubsub.testing.supervisor import hold_port

START_TIMEOUT = 20.0
"""Seconds; a start takes some hundredths of one."""

PoolMode = Literal["session", "transaction"]


class PgBouncer:
    """Lets everybody in as the server's role `postgres`. Where PgBouncer is not installed, the test is skipped.

    Its settings are the defaults, so it refuses the startup parameters that PgBouncer refuses.
    """

    def __init__(self, server: TemporaryServer | str, pool_mode: PoolMode) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if program is None:
            pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
        self._program = program
        self._pool_mode = pool_mode
        self._target = conninfo_to_dict(server if isinstance(server, str) else server.dsn())

    def dsn(self, **keywords: object) -> str:
        """A connection string by way of PgBouncer; `keywords` are libpq's."""
        given = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": "postgres", **keywords}
        return " ".join(f"{name}={value}" for name, value in given.items())

    def __enter__(self) -> Self:
        self._directory = Path(tempfile.mkdtemp(prefix="pgpubsub-pgbouncer-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._port_holder = hold_port()
        self.port: int = self._port_holder.getsockname()[1]
        try:
            self._start()
            self._await_answer()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()  # it has nothing to save, and the polite signals differ between its versions
            self._process.wait()
        self._port_holder.close()
        shutil.rmtree(self._directory)

    def _start(self) -> None:
        configuration = self._directory / "pgbouncer.ini"
        configuration.write_text(
            f"""
            [databases]
            * = host={self._target["host"]} port={self._target["port"]} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            pool_mode = {self._pool_mode}
            server_login_retry = 1
            """
        )
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            shutil.chown(self._directory, nobody.pw_uid)
            as_user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        with open(self._directory / "log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self._program, configuration],  # it ends even if we are killed
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                **as_user,
            )

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                psycopg.connect(self.dsn(connect_timeout=5)).close()
                return
            except psycopg.OperationalError as error:
                assert self._process is not None
                if self._process.poll() is not None or time.monotonic() > deadline:
                    log = (self._directory / "log").read_text(errors="replace")
                    raise RuntimeError(f"PgBouncer did not start: {log[-2000:]}") from error
                threading.Event().wait(0.01)
