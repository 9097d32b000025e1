"""Debian's Postfix with its own configuration and queue, beside that of the machine."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

from .machine import LOOPBACK, PATIENCE, Unready, eventually, free_port, greets, run, runs
from .program import Service

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


class Postfix(Service):
    """A Postfix that listens on its own loopback port.

    Its ``postfix`` command starts it, without effect on other instances; its process id stops it.
    It writes nothing outside ``home``.

    Args:
        home: folder of its configuration, queue and log.
        settings: of ``main.cf``, beside or instead of the defaults above.
        resolv_conf: what it sees in place of ``/etc/resolv.conf``, in a mount namespace of its own;
            None: that of the machine.
    """

    foreign = True

    def __init__(
        self,
        home: Path,
        settings: Mapping[str, str] | None = None,
        *,
        resolv_conf: Path | None = None,
    ) -> None:
        self.home = home
        self.configuration = home / "postfix"
        self.queue = home / "spool"
        self.log = home / "postfix.log"
        self.port = free_port()
        self._settings = dict(settings or {})
        self._resolv_conf = resolv_conf

    def start(self) -> None:
        """Start it; return when it listens."""
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
        # Postfix waits until its files have not changed for two seconds.
        for name in ("main.cf", "master.cf"):
            os.utime(self.configuration / name, (0, 0))
        command: tuple[str | Path, ...] = ("postfix", "-c", self.configuration, "start")
        if self._resolv_conf is not None:
            mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
            command = ("unshare", "--mount", "sh", "-c", mount, self._resolv_conf, *command)
        done = run(*command)
        try:
            eventually(lambda: greets(self.port), "Postfix greets")
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
        """Return the number of messages in its queue."""
        return sum(
            len(files)
            for name in ("maildrop", "incoming", "active", "deferred")
            for _, _, files in os.walk(self.queue / name)
        )

    def flush(self) -> None:
        """Make it retry all messages in its queue."""
        run("postqueue", "-c", self.configuration, "-f")

    def stop(self) -> None:
        """Stop it; return when its master has ended."""
        with contextlib.suppress(FileNotFoundError):
            master = self.pid
            # Like "postfix stop", which then checks only once a second whether it has ended.
            os.kill(master, signal.SIGTERM)
            eventually(lambda: not runs(master), "Postfix ends", PATIENCE)
