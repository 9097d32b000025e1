"""Exim, in a mount namespace of its own.

It has users and paths built in, and Debian's package excludes Postfix's. So its packages are only
unpacked, and it runs in a mount namespace in which ``/etc`` is a folder of the benchmark. That
needs root and unshare(1); without them, or without Exim, Exim is left out.

    python -m tests.benchmark.exim DIRECTORY

downloads Debian's packages with apt-get and unpacks them there, for ``--exim DIRECTORY``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..functional.machine import LOOPBACK, Unusable, free_port, listens, path_of, run
from ..functional.program import Program

EXIM = "exim"

_PROGRAM = "usr/sbin/exim4"
_PACKAGES = ("exim4-daemon-light", "exim4-base", "libidn12")
_COPIED = ("hosts", "nsswitch.conf", "ld.so.cache", "services", "localtime")
_USER = ("Debian-exim", 901)

_CONFIGURATION = """\
exim_path = {program}
primary_hostname = exim.example
spool_directory = {home}/spool
log_file_path = {home}/log/%slog
pid_file_path = {home}/exim.pid
daemon_smtp_ports = {port}
local_interfaces = {loopback}
tls_advertise_hosts = *
tls_certificate = {certificate}
host_lookup =
message_size_limit = 100M
# By default it accepts 20 connections, and only queues messages after the 10th of a connection.
smtp_accept_max = 100
smtp_accept_queue_per_connection = 0
queue_only = {queue_only}
acl_smtp_rcpt = accept
acl_smtp_data = accept
begin routers
smarthost:
  driver = manualroute
  transport = remote
  route_list = * "{loopback}::{hop}"
  self = send
begin transports
remote:
  driver = smtp
begin retry
* * F,2h,15m
"""


class Exim(Program):
    """Exim as a daemon that relays everything to one host.

    Args:
        home: folder of all its files.
        root: directory of its unpacked packages; ``/`` if it is installed.
        hop: port of the next hop.
        certificate: PEM file with a certificate and its key.
        deliver: whether it delivers at once; otherwise it only queues.
    """

    def __init__(
        self, home: Path, root: Path, hop: int, certificate: Path, *, deliver: bool = True
    ) -> None:
        super().__init__(home, "exim.log")
        self.port = free_port()
        self._root = root
        self._etc = home / "etc"
        (self._etc / "exim4").mkdir(parents=True)
        for name in _COPIED:
            if (path := Path("/etc", name)).exists():
                shutil.copy(path, self._etc / name)
        user, number = _USER
        for name, line in (
            ("passwd", f"{user}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin\n"),
            ("group", f"{user}:x:{number}:\n"),
        ):
            (self._etc / name).write_text(line + Path("/etc", name).read_text("utf-8"), "utf-8")
        certificate.chmod(0o644)
        for name in ("spool", "log"):
            (home / name).mkdir()
            os.chown(home / name, number, number)
        (self._etc / "exim4" / "exim4.conf").write_text(
            _CONFIGURATION.format(
                program=root / _PROGRAM,
                home=home,
                port=self.port,
                hop=hop,
                loopback=LOOPBACK,
                certificate=certificate,
                queue_only="false" if deliver else "true",
            ),
            "utf-8",
        )

    @classmethod
    def installed(cls, root: Path) -> bool:
        """Whether it is below ``root``, and can be started."""
        try:
            unshared = os.geteuid() == 0 and not run("unshare", "-m", "true").returncode
        except Unusable:
            return False
        return unshared and (root / _PROGRAM).exists()

    def queued(self) -> int:
        """Return the number of messages in its queue."""
        return sum(1 for _ in (self.home / "spool" / "input").glob("*-H"))

    def start(self) -> None:
        script = f"mount --bind {self._etc} /etc\n"
        if self._root != Path("/"):
            libraries = " ".join(map(str, self._root.glob("usr/lib/*-linux-gnu")))
            script += f"ldconfig {libraries}\n"  # into its own /etc
        script += f"exec {self._root / _PROGRAM} -bdf\n"
        self.spawn((path_of("unshare"), "-m", "sh", "-ec", script))
        self.wait_for(lambda: listens(self.port), "Exim listens")

    def stop(self) -> None:
        try:
            self.terminate()
        except subprocess.TimeoutExpired:
            self.kill()


def main(arguments: Sequence[str] | None = None) -> int:
    """Download and unpack the packages; nothing is installed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmark.exim", description=__doc__)
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args(arguments).directory
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run([path_of("apt-get"), "download", *_PACKAGES], cwd=directory, check=True)
    for package in sorted(directory.glob("*.deb")):
        subprocess.run([path_of("dpkg"), "-x", str(package), str(directory)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
