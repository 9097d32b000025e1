"""PostgreSQL on a free loopback port, with a database of its own."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .machine import LOOPBACK, PATH, Unready, Unusable, children, eventually, free_port, run, runs
from .program import Program

_DEBIAN = Path("/usr/lib/postgresql")  # the server's programs are not in the PATH
_USER = "mta"

# The rest is as it is by default, so that what was acknowledged is on the disk.
_SETTINGS = """
listen_addresses = '{address}'
port = {port}
unix_socket_directories = ''
max_connections = 40
shared_buffers = 16MB
logging_collector = off
"""


@cache
def server_program(name: str) -> str:
    """Return the path of a program of the newest server.

    Raises:
        Unusable: no server is installed.
    """
    folders = sorted(_DEBIAN.glob("*/bin"), key=lambda each: float(each.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, folders), PATH])
    for folder in path.split(os.pathsep):
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    raise Unusable(f"{name} of PostgreSQL's server is not installed")


class PostgreSQL(Program):
    """A database server; it never runs as root, so its files belong to another user then.

    Args:
        home: folder of its files, which other users may enter.
    """

    foreign = True

    def __init__(self, home: Path) -> None:
        super().__init__(home, "postgresql.log")
        self.port = free_port()
        self.data = home / "data"
        self.url = f"postgresql://{_USER}@{LOOPBACK}:{self.port}/postgres"

    def start(self) -> None:
        """Start it, with the data that it had before; return when it answers."""
        if not self.data.exists():
            self._initialize()
        self.spawn(self._as_user(server_program("postgres"), "-D", self.data))
        self.wait_for(self._answers, "PostgreSQL answers")

    def stop(self) -> None:
        """Close all connections and end it, as when its machine is shut down."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        self.kill()

    def kill(self) -> None:
        """End all its processes at once: one that has a connection would go on for a moment."""
        process = self.process
        left = [] if process is None else [process.pid, *children(process.pid)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        super().kill()
        eventually(lambda: not any(map(runs, left)), "the end of PostgreSQL's processes")

    def _initialize(self) -> None:
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.data, *_other_user())
        arguments = ("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        done = run(
            *self._as_user(server_program("initdb"), "-D", self.data, "-U", _USER, *arguments)
        )
        if done.returncode:
            raise Unready(done.stdout)
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as file:
            file.write(_SETTINGS.format(address=LOOPBACK, port=self.port))

    def _as_user(self, *command: str | Path) -> Sequence[str | Path]:
        if os.geteuid() != 0:
            return command
        user, group = _other_user()
        return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command)

    def _answers(self) -> bool:
        done = run(server_program("pg_isready"), "-q", "-h", LOOPBACK, "-p", str(self.port))
        return done.returncode == 0


def _other_user() -> tuple[int, int]:
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid
