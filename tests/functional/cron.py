"""Debian's cron with a sendmail of the test, in name spaces of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from .machine import path_of
from .program import Program

_MOUNTS = {
    "table": "/etc/cron.d",
    "users": "/var/spool/cron/crontabs",
    "run": "/run",
}


class Cron(Program):
    """cron, which runs its jobs each time that it starts, as after a start of the machine.

    Nothing that it has on the machine itself is touched or run: its tables, its files in ``/run``
    and ``/usr/sbin/sendmail`` are others for it alone.

    Args:
        home: folder of its files.
        sendmail: the program in the place of ``/usr/sbin/sendmail``.
        jobs: user and command of each.
        mail_to: who gets their output.
        environment: further variables of cron, its jobs and its sendmail.
    """

    foreign = True

    def __init__(
        self,
        home: Path,
        sendmail: Path,
        jobs: Sequence[tuple[str, str]],
        *,
        mail_to: str,
        environment: Mapping[str, str],
    ) -> None:
        super().__init__(home, "cron.log")
        self.environment = environment
        self._sendmail = sendmail
        lines = [f"MAILTO={mail_to}", *(f"@reboot {user} {command}" for user, command in jobs)]
        self._table = "".join(f"{line}\n" for line in lines)

    def start(self) -> None:
        """Start it, or start it again; return when it has begun its jobs."""
        for name in _MOUNTS:
            shutil.rmtree(self.home / name, ignore_errors=True)
            (self.home / name).mkdir()
        table = self.home / "table" / "jobs"
        table.write_text(self._table)
        table.chmod(0o644)
        (self.home / "empty").write_text("")
        mounts = {self.home / name: place for name, place in _MOUNTS.items()}
        mounts[self.home / "empty"] = "/etc/crontab"
        mounts[self._sendmail] = "/usr/sbin/sendmail"
        script = [f"mount --bind {source} {place}" for source, place in mounts.items()]
        script.append(f"exec {path_of('cron')} -f -L 15")
        self.spawn(
            [
                *(path_of("unshare"), "--pid", "--fork", "--kill-child", "--mount-proc"),
                *("--mount", "--propagation", "private"),
                *("sh", "-c", " && ".join(script)),
            ]
        )
        # It makes this file where it runs the jobs of a start.
        self.wait_for((self.home / "run" / "crond.reboot").exists, "cron runs its jobs")
