"""An MTA whose state directory goes away while it runs, and comes back as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..functional.machine import path_of, run
from ..functional.mta import MTA


class DetachableMTA(MTA):
    """An MTA whose state directory is moved away, with an empty one in its place."""

    @property
    def kept(self) -> Path:
        """The directory that has the state while it is not away."""
        return self.state

    def detach(self) -> None:
        """Move the state directory away."""
        self.state.rename(self._away)
        self.state.mkdir(mode=0o700)

    def attach(self) -> None:
        """Move the state directory back."""
        shutil.rmtree(self.state)
        self._away.rename(self.state)

    def intruders(self) -> list[str]:
        """Return the files that were made in the place of the state directory.

        There may be directories, of a mailbox that was being made as it went away.
        """
        return [str(path) for path in self.state.rglob("*") if not path.is_dir()]

    @property
    def _away(self) -> Path:
        return self.home / "mta-state.away"


class MountedMTA(DetachableMTA):
    """An MTA whose state directory is a file system of its own, in a mount namespace of its own.

    The file system is unmounted lazily, as operators do with one that is busy: open files stay
    open, and can be written. Only root can do that, and only on Linux.
    """

    def __init__(self, home: Path, *options: str, toml: str = "") -> None:
        super().__init__(home, *options, toml=toml)
        self.state.mkdir(mode=0o700)
        self.kept.mkdir(mode=0o700)

    @property
    def kept(self) -> Path:
        """The directory that is mounted, as it is named outside the namespace."""
        return self.home / "disk"

    def command(self) -> list[str | Path]:
        """Return the command that mounts the state directory and starts the MTA."""
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        return [
            *(path_of("unshare"), "--mount", "--propagation", "private"),
            *(path_of("sh"), "-c", script, "sh", self.kept, self.state),
            *super().command(),
        ]

    def detach(self) -> None:
        """Unmount the state directory."""
        self._within("umount", "-l", self.state)

    def attach(self) -> None:
        """Mount the state directory again."""
        self._within("mount", "--bind", self.kept, self.state)

    def _within(self, *command: str | Path) -> None:
        done = run("nsenter", "--target", str(self.pid), "--mount", *command)
        if done.returncode:
            raise OSError(done.stdout)
