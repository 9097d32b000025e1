"""Debian's Postfix with a configuration and queue of its own, beside any that the machine runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from .machine import LOOPBACK, PATIENCE, Unready, eventually, free_port, listens, run, runs

_MASTER = """\
{smtpd} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
lmtp unix - - n - - lmtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""

_SETTINGS = {
    "compatibility_level": "3.6",
    "alias_maps": "",
    "alias_database": "",
    "biff": "no",
    "inet_interfaces": LOOPBACK,
    "inet_protocols": "ipv4",
    "local_recipient_maps": "",
    "mydestination": "",
    "mydomain": "example",
    "myhostname": "postfix.example",
    "mynetworks": "127.0.0.0/8",
    "smtp_dns_support_level": "disabled",
    "smtp_host_lookup": "native",
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
}


class Postfix:
    """A Postfix that listens on a loopback port of its own.

    It is started by its own ``postfix`` command, which leaves every other instance alone, and
    stopped by its process id; it writes nothing outside ``home``.

    Args:
        home: where its configuration, queue and log go.
        settings: what ``main.cf`` is to say beside or instead of the defaults above.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.configuration = home / "postfix"
        self.queue = home / "spool"
        self.log = home / "postfix.log"
        self.port = free_port()
        self._settings = dict(settings or {})

    def start(self) -> None:
        """Start it and return when it listens."""
        data = self.home / "data"
        for path in (self.configuration, self.queue, data):
            path.mkdir(exist_ok=True)
        shutil.chown(data, "postfix")
        settings = {
            **_SETTINGS,
            "queue_directory": str(self.queue),
            "data_directory": str(data),
            "maillog_file": str(self.log),
            "maillog_file_prefixes": str(self.home),
            **self._settings,
        }
        (self.configuration / "main.cf").write_text(
            "".join(f"{name} = {value}\n" for name, value in settings.items()), encoding="utf-8"
        )
        (self.configuration / "master.cf").write_text(
            _MASTER.format(smtpd=f"{LOOPBACK}:{self.port}"), encoding="utf-8"
        )
        # Postfix waits until files that were written just now have not changed for two seconds.
        for name in ("main.cf", "master.cf"):
            os.utime(self.configuration / name, (0, 0))
        done = run("postfix", "-c", self.configuration, "start")
        try:
            eventually(lambda: listens(self.port), "Postfix listens")
        except Unready as unready:
            raise Unready(f"{unready}\n{done.stdout}{self.output()}") from None

    def output(self) -> str:
        """Return its log."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    @property
    def pid(self) -> int:
        """The process id of its master, the parent of all its processes."""
        return int((self.queue / "pid" / "master.pid").read_text("ascii"))

    def queued(self) -> int:
        """Return how many messages are in its queue."""
        return sum(
            len(files)
            for name in ("maildrop", "incoming", "active", "deferred")
            for _, _, files in os.walk(self.queue / name)
        )

    def flush(self) -> None:
        """Have it try again everything that it holds."""
        run("postqueue", "-c", self.configuration, "-f")

    def stop(self) -> None:
        """Stop it; returns when its master is gone."""
        with contextlib.suppress(FileNotFoundError):
            master = self.pid
            # As "postfix stop" does, which then looks only once a second whether it has ended.
            os.kill(master, signal.SIGTERM)
            eventually(lambda: not runs(master), "Postfix ends", PATIENCE)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
