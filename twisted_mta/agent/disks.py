"""The room on the file systems of the queue and of Maildirs, looked up in a thread."""

from __future__ import annotations

import os

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Clock, Executor, Files, Space

__all__ = ["Disks", "Space"]

_INTERVAL = 1.0  # seconds between two looks


class Disks:
    """Knows the room as it was at the last look: a file system of another host may not answer.

    Args:
        state_dir: the state directory.
        maildir: the directory of all Maildirs; where it does not exist yet, its parents count.
        files: the file system.
        executor: where it is asked.
        clock: for the interval of looks.

    Attributes:
        state: the room of the state directory; None: not known.
        maildir: that of the Maildirs, where they are on another file system; None: they are not,
            or it is not known.
    """

    def __init__(
        self, state_dir: str, maildir: str, *, files: Files, executor: Executor, clock: Clock
    ) -> None:
        self.state: Space | None = None
        self.maildir: Space | None = None
        self._paths = state_dir, maildir
        self._files = files
        self._executor = executor
        self._clock = clock
        self._looked: float | None = None
        self._looking = False

    def look(self) -> None:
        """Look again, unless that was a moment ago; what is found may be there later."""
        now = self._clock.seconds()
        if self._looking or (self._looked is not None and now - self._looked < _INTERVAL):
            return
        self._looking, self._looked = True, now
        found: Deferred[tuple[Space | None, Space | None]] = self._executor(self._ask)
        found.addCallbacks(self._found, self._unknown)

    def _ask(self) -> tuple[Space | None, Space | None]:
        state, maildir = (self._space(path) for path in self._paths)
        same = state is not None and maildir is not None and state.device == maildir.device
        return state, None if same else maildir

    def _space(self, path: str) -> Space | None:
        while True:
            try:
                return self._files.space(path)
            except (FileNotFoundError, NotADirectoryError):
                above = os.path.dirname(path)
                if above == path:
                    return None
                path = above
            except OSError:
                return None

    def _found(self, found: tuple[Space | None, Space | None]) -> None:
        self._looking = False
        self.state, self.maildir = found

    def _unknown(self, failure: Failure) -> None:
        self._looking = False  # at a stop, or no thread can be started
        self.state = self.maildir = None
