"""The process above a `TemporaryServer`: it obeys its standard input and cleans up when that ends.

Run as a program, with its configuration in JSON as the argument; replies are lines of JSON. It imports the
standard library alone, so it starts quickly and works whatever becomes of the package around it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from itertools import chain
from pathlib import Path
from time import monotonic, sleep
from typing import Any

START_TIMEOUT = 60.0
"""Seconds; a start takes a tenth of one, recovery after a crash somewhat longer."""


class Supervisor:
    def __init__(self, configuration: dict[str, Any], directory: Path) -> None:
        self.directory = directory
        self.settings: dict[str, str] = configuration["settings"]
        self.tcp: bool = configuration["tcp"]
        self.binaries = Path(configuration["binaries"])
        self.as_user: dict[str, Any] = {}
        self.port = 0
        self.postgres: subprocess.Popen[bytes] | None = None

    def initialise(self) -> None:
        self.port_holder = hold_port()  # for as long as we live, so that it starts again where it was
        self.port = int(self.port_holder.getsockname()[1])
        if os.geteuid() == 0:
            self.as_user = {"user": "nobody", "group": "nogroup" if group_exists("nogroup") else "nobody"}
            self.as_user["extra_groups"] = []
            shutil.chown(self.directory, self.as_user["user"], self.as_user["group"])
            if not self.reachable():
                self.binaries = copy_installation(self.binaries, self.directory)
        command: list[str | Path] = [
            self.binaries / "initdb",
            "-D",
            self.directory / "data",
            "-U",
            "postgres",
            "-A",
            "trust",
        ]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=self.directory, **self.as_user)
        if done.returncode:
            raise RuntimeError(f"initdb: {done.stderr.strip()}")

    def reachable(self) -> bool:
        """Whether the unprivileged user can run the binaries, which may be below somebody's home."""
        try:
            done = subprocess.run([self.binaries / "postgres", "-V"], capture_output=True, cwd="/", **self.as_user)
        except PermissionError:
            return False
        return done.returncode == 0

    def start(self) -> None:
        settings = {
            "port": str(self.port),
            "unix_socket_directories": str(self.directory),
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "fsync": "off",
            **self.settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with open(self.directory / "log", "ab") as log:
            self.postgres = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.directory / "data", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                **self.as_user,
            )
        deadline = monotonic() + START_TIMEOUT
        while not self.ready():
            if self.postgres.poll() is not None or monotonic() > deadline:
                log_tail = (self.directory / "log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"postgres did not start: {log_tail}")
            sleep(0.01)

    def ready(self) -> bool:
        """The postmaster says so in the last line of its lock file."""
        try:
            lines = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        assert self.postgres is not None
        return len(lines) >= 8 and lines[0] == str(self.postgres.pid) and lines[7].strip() == "ready"

    def stop(self, mode: str) -> None:
        if self.postgres is None:
            return
        if self.postgres.poll() is None:
            self.postgres.send_signal(signal.SIGCONT)  # somebody may have frozen it
            self.postgres.send_signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
            try:
                self.postgres.wait(10)
            except subprocess.TimeoutExpired:
                self.postgres.kill()
                self.postgres.wait()
        self.postgres = None

    def obey(self, command: str) -> None:
        verb, *arguments = command.split()
        if verb == "initialise":
            self.initialise()
        if verb == "stop":
            self.stop(*arguments)
        elif self.postgres is None:
            self.start()

    def reply(self, **facts: object) -> None:
        pid = self.postgres.pid if self.postgres is not None else 0
        facts = facts or {"directory": str(self.directory), "port": self.port, "pid": pid}
        os.write(1, json.dumps(facts).encode() + b"\n")  # not by sys.stdout, which would try again at exit


def hold_port() -> socket.socket:
    """A free port of 127.0.0.1 that nobody else is given until this is closed.

    Bound and never listening, it is no obstacle to whoever asks for the port by number and with SO_REUSEADDR, as
    servers do; as long as they do not listen, connections are refused.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def group_exists(name: str) -> bool:
    import grp

    return any(entry.gr_name == name for entry in grp.getgrall())


def copy_installation(binaries: Path, directory: Path) -> Path:
    """Copy a wheel's server, and the libraries that it finds relative to itself, to where all may go."""
    package = binaries.parent.parent
    for part in (package, package.with_name(package.name + ".libs")):
        if part.exists():
            shutil.copytree(part, directory / "installation" / part.name, symlinks=True)
    os.chmod(directory / "installation", 0o755)
    return directory / "installation" / package.name / binaries.parent.name / binaries.name


def main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the end of our standard input is the only reason to end
    supervisor = Supervisor(json.loads(sys.argv[1]), Path(tempfile.mkdtemp(prefix="pgpubsub-")))
    try:
        for command in chain(["initialise"], sys.stdin):
            try:
                supervisor.obey(command)
            except Exception as error:
                supervisor.reply(error=str(error))
            else:
                supervisor.reply()
    except BrokenPipeError:
        pass  # killed while we worked for it: nobody is left to tell
    finally:
        supervisor.stop("immediate")
        shutil.rmtree(supervisor.directory, ignore_errors=True)


if __name__ == "__main__":
    main()
