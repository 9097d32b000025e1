"""An MTA whose state directory goes away while it runs, and comes back as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from ..functional.machine import path_of, run
from ..functional.mta import MTA


class DetachableMTA(MTA):
    """Its state directory is moved away, and an empty one is in its place.

    Attributes:
        kept: where its state is whenever it is not away.
    """

    @property
    def kept(self) -> Path:
        """Return it."""
        return self.state

    def detach(self) -> None:
        """Take the state directory away."""
        self.state.rename(self._away)
        self.state.mkdir(mode=0o700)

    def attach(self) -> None:
        """Put it back."""
        shutil.rmtree(self.state)
        self._away.rename(self.state)

    def intruders(self) -> list[str]:
        """Return the files that were made in its place while it is away.

        Directories may be there, of a mailbox that was just being made as it went.
        """
        return [str(path) for path in self.state.rglob("*") if not path.is_dir()]

    @property
    def _away(self) -> Path:
        return self.home / "mta-state.away"


class MountedMTA(DetachableMTA):
    """Its state directory is a file system of its own, in a mount namespace of its own.

    It is unmounted lazily, as an operator does where the file system is busy: what is open stays
    open, and can be written. Only root can do that, and only on Linux.
    """

    def __init__(self, home: Path, *options: str, toml: str = "") -> None:
        super().__init__(home, *options, toml=toml)
        self.state.mkdir(mode=0o700)
        self.kept.mkdir(mode=0o700)

    @property
    def kept(self) -> Path:
        """Return what is mounted, which is elsewhere for those outside the namespace."""
        return self.home / "disk"

    def command(self) -> list[str | Path]:
        """Return what starts it, with the state directory mounted."""
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        return [
            *(path_of("unshare"), "--mount", "--propagation", "private"),
            *(path_of("sh"), "-c", script, "sh", self.kept, self.state),
            *super().command(),
        ]

    def detach(self) -> None:
        """Unmount it."""
        self._within("umount", "-l", self.state)

    def attach(self) -> None:
        """Mount it again."""
        self._within("mount", "--bind", self.kept, self.state)

    def _within(self, *command: str | Path) -> None:
        done = run("nsenter", "--target", str(self.pid), "--mount", *command)
        if done.returncode:
            raise OSError(done.stdout)


def mounts_can_be_had() -> bool:
    """Whether `MountedMTA` works here."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    tried = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "mount", "--bind", "/tmp", "/tmp"],
        capture_output=True,
        check=False,
    )
    return tried.returncode == 0
