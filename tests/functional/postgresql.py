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

import psycopg

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
        address: on which it listens; on others than the loopback, it trusts all of its network.
        inside: a command that runs another one where the address is.
    """

    foreign = True

    def __init__(self, home: Path, *, address: str = LOOPBACK, inside: Sequence[str] = ()) -> None:
        super().__init__(home, "postgresql.log")
        self.port = free_port()
        self.data = home / "data"
        self.url = f"postgresql://{_USER}@{address}:{self.port}/postgres"
        self._address = address
        self._inside = inside

    def start(self) -> None:
        """Start it, with the data that it had before; return when it answers."""
        if not self.data.exists():
            self._initialize()
        self.spawn([*self._inside, *self._as_user(server_program("postgres"), "-D", self.data)])
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

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        """Run a statement; return its rows."""
        with psycopg.connect(self.url, autocommit=True) as database:
            done = database.execute(statement.encode())
            return done.fetchall() if done.description else []

    def _make_data(self) -> None:
        self.data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(self.data, *_other_user())

    def _initialize(self) -> None:
        self._make_data()
        arguments = ("--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        done = run(
            *self._as_user(server_program("initdb"), "-D", self.data, "-U", _USER, *arguments)
        )
        if done.returncode:
            raise Unready(done.stdout)
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as file:
            file.write(_SETTINGS.format(address=self._address, port=self.port))
        if self._address != LOOPBACK:
            with (self.data / "pg_hba.conf").open("a", encoding="ascii") as file:
                file.write("host all all samenet trust\n")

    def _as_user(self, *command: str | Path) -> Sequence[str | Path]:
        if os.geteuid() != 0:
            return command
        user, group = _other_user()
        return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", *command)

    def _answers(self) -> bool:
        done = run(server_program("pg_isready"), "-q", "-h", self._address, "-p", str(self.port))
        return done.returncode == 0


def _other_user() -> tuple[int, int]:
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


class Standby(PostgreSQL):
    """A server that follows another one, which waits for it at each commit.

    Args:
        home: folder of its files, which other users may enter.
        primary: runs.
    """

    def __init__(self, home: Path, primary: PostgreSQL) -> None:
        super().__init__(home)
        self._primary = primary

    @property
    def both(self) -> str:
        """The URL of whichever of both can be written."""
        ports = f"{LOOPBACK}:{self._primary.port},{LOOPBACK}:{self.port}"
        return f"postgresql://{_USER}@{ports}/postgres?target_session_attrs=read-write"

    def start(self) -> None:
        """Start it; return when the primary waits for it."""
        super().start()
        self._primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self._primary.sql("SELECT pg_reload_conf()")
        self.wait_for(
            lambda: self._primary.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
            "it follows the primary",
        )

    def promote(self) -> None:
        """Let it go on in the place of the primary, alone."""
        # Its settings are a copy of the primary's: it would wait for a standby that is not there.
        self.sql("SELECT pg_promote()")
        self.wait_for(lambda: not self.follows(), "it is promoted")
        self.sql("ALTER SYSTEM RESET synchronous_standby_names")
        self.sql("SELECT pg_reload_conf()")

    def follows(self) -> bool:
        """Whether it is still a standby."""
        return self.sql("SELECT pg_is_in_recovery()") == [(True,)]

    def _initialize(self) -> None:
        self._make_data()
        source = f"host={LOOPBACK} port={self._primary.port} user={_USER}"
        options = ("-R", "--checkpoint=fast", "--no-sync")
        done = run(
            *self._as_user(server_program("pg_basebackup"), "-D", self.data, "-d", source, *options)
        )
        if done.returncode:
            raise Unready(done.stdout)
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as file:
            file.write(_SETTINGS.format(address=LOOPBACK, port=self.port))
