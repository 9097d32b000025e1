"""The log: an observer that writes each event of `twisted.logger` to a file or descriptor.

Each line is one system call. Gathering the lines of a turn of the reactor would save less than a
microsecond for each, and lose the last lines of a process that is killed.
"""

from __future__ import annotations

import fcntl
import os
import select
from collections.abc import Callable
from threading import RLock
from typing import cast

from twisted.logger import ILogObserver, LogEvent, Logger
from twisted.python.reflect import safe_repr, safe_str
from zope.interface import implementer

from ..mail.counted import counted
from ..mail.printable import printable
from ..system.ownership import open_log
from .log_lines import JSONLines, LogFormat, TextLines

_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_STANDARD = 3  # descriptors below are standard input, output and error

# Octets that wait while writing fails: some 6,000 lines. While the parent reloads its configuration
# it does not read, and a busy worker fills the 64 KiB of the pipe in 0.2 s.
_MOST_WAITING = 1 << 20
_PATIENCE = 1000  # milliseconds at the end, for a parent that does not read just now
_STEP = 20
_LONGEST_LINE = 1 << 20  # octets of a worker's line; a longer one is broken


@implementer(ILogObserver)
class Log:
    """Writes each event as one line, to a file or to an existing descriptor.

    May be called from any thread, and raises nothing. Lines that cannot be written wait, up to
    1 MiB; further ones are dropped and counted, and a line reports their number once writing works
    again.

    Attributes:
        format: of the lines.
        path: of the file; None: a descriptor.
        dropped: the number of dropped lines.
    """

    def __init__(
        self,
        format: LogFormat = "text",
        *,
        path: str | None = None,
        descriptor: int = 1,
        worker: int | None = None,
        write: Callable[[int, bytes | bytearray], int] = os.write,
        later: Callable[[Callable[[], None]], object] = lambda call: None,
    ) -> None:
        """Prepare a log; events before `open` wait.

        Args:
            format: of the lines.
            path: absolute path of the file to append to; None: ``descriptor``.
            descriptor: used without a path; by default standard output.
            worker: the number of this worker process, shown in every line. Its standard output is
                a pipe to its parent, and writing to it never blocks.
            write: like `os.write`.
            later: calls its argument after a while, from any thread: for another try to write. By
                default the next event tries again.
        """
        self.format = format
        self.path = path
        self.dropped = 0
        self._given = descriptor
        # Only a pipe of our own: others that share a descriptor would become non-blocking too.
        self._pipe = path is None and worker is not None
        self._line = JSONLines(worker) if format == "json" else TextLines(worker)
        self._write = write
        self._later = later
        self._called = False  # whether `later` will try again
        self._descriptor = -1
        self._lock = RLock()  # a signal handler may log while it is held
        self._waiting = bytearray()
        self._lost = 0
        self._trouble = ""
        self._own = Logger(namespace=__name__, observer=self)

    def open(self) -> None:
        """Open the file, or copy the descriptor. To be called once.

        Raises:
            OSError: the file cannot be opened.
        """
        self._descriptor = self._opened()
        if self._pipe:
            os.set_blocking(self._descriptor, False)
        self.write_lines(b"")

    def close(self) -> None:
        """Write waiting lines if possible, and close the file. Later events wait.

        A parent that reads the lines of a worker has a second to continue.
        """
        self.write_lines(b"")
        if self._pipe and self._waiting:
            self._wait_for_reader()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def reopen(self) -> bool:
        """Open the path again, after the file was renamed; without a path, do nothing.

        Returns:
            Whether it succeeded. If not, the log continues in the old file, and says so there.
        """
        if self.path is None:
            return True
        try:
            descriptor = self._opened()
        except OSError as error:
            self._own.error(
                "{path} cannot be opened, and the log continues in the old file: {error}",
                path=printable(self.path),
                error=_reason(error),
            )
            return False
        # The descriptor keeps its number: another thread may be about to write to it.
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)
        self._own.info("{path} was opened again", path=printable(self.path))
        return True

    @property
    def trouble(self) -> str:
        """Why lines wait or were dropped; empty if none were."""
        return self._trouble if self._waiting or self._lost else ""

    def __call__(self, event: LogEvent) -> None:
        """Write the event."""
        try:
            line = self._line(event)
        except Exception as error:
            line = self._line(_unwritable(event, error))
        if line:
            self.write_lines(line.encode("utf-8", "backslashreplace"))

    def write_lines(self, lines: bytes) -> None:
        """Write whole lines as they are, each with its line end: such as those of workers."""
        if self._waiting or self._lost or not lines:
            with self._lock:
                self._catch_up(lines)
            return
        try:
            written = self._write(self._descriptor, lines)
        except OSError as error:
            with self._lock:
                self._keep(lines, error)
        else:
            if written != len(lines):  # the disk is full, or a pipe
                with self._lock:
                    self._waiting[:0] = lines[written:]
                    self._catch_up(b"")

    def _try_again(self) -> None:
        self._called = False
        self.write_lines(b"")

    def _wait_for_reader(self) -> None:
        room = select.poll()
        room.register(self._descriptor, select.POLLOUT)
        patience = _PATIENCE
        while self._waiting and patience > 0:
            ready = room.poll(_STEP)
            if any(event & (select.POLLERR | select.POLLNVAL) for _, event in ready):
                return  # the reader is gone
            if ready:
                self.write_lines(b"")
            else:
                patience -= _STEP

    def _opened(self) -> int:
        if self.path is None:
            # A copy: if standard output is closed, the next file gets its number, and the log
            # would be written into that file.
            return fcntl.fcntl(self._given, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
        descriptor = open_log(self.path, _FLAGS, _MODE)
        if descriptor < _STANDARD:  # twistd replaces these when it goes into the background
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
            os.close(low)
        return descriptor

    def _catch_up(self, lines: bytes) -> None:
        """Write waiting lines, then the number of dropped ones, then ``lines``."""
        try:
            while True:
                if not self._waiting:
                    if self._lost:
                        self._waiting += self._notice()
                        self._lost = 0
                    else:
                        self._waiting += lines
                        lines = b""
                if not self._waiting:
                    return
                written = self._write(self._descriptor, self._waiting)
                del self._waiting[:written]
        except OSError as error:
            self._keep(lines, error)

    def _keep(self, lines: bytes, error: OSError) -> None:
        self._trouble = _reason(error)
        # After a dropped line, all further ones are dropped too, until their number is written.
        if self._lost or len(self._waiting) + len(lines) > _MOST_WAITING:
            lost = lines.count(b"\n")
            self._lost += lost
            self.dropped += lost
        else:
            self._waiting += lines
        if not self._called:
            self._called = True
            self._later(self._try_again)

    def _notice(self) -> bytes:
        events: list[LogEvent] = []
        Logger(namespace=__name__, observer=cast(ILogObserver, events.append)).warn(
            "{_lines} of the log, missing here, could not be written: {error}",
            count=self._lost,
            _lines=counted(self._lost, "line"),
            error=self._trouble,
        )
        return self._line(events[0]).encode("ascii", "backslashreplace")


def _reason(error: OSError) -> str:
    return printable(error.strerror or str(error))


def _unwritable(event: LogEvent, error: Exception) -> LogEvent:
    return {
        "log_time": event.get("log_time"),
        "log_namespace": __name__,
        "log_level": event.get("log_level"),
        "log_format": "an event could not be written: {format}: {error}",
        "format": safe_repr(event.get("log_format")),
        "error": safe_str(error),
    }


class WholeLines:
    """Joins the pieces that a worker sends into whole lines.

    Args:
        write: takes whole lines (`Log.write_lines`).
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._rest = b""

    def received(self, octets: bytes) -> None:
        """Take a piece, which may end within a line."""
        end = octets.rfind(b"\n") + 1
        if end:
            self._write(self._rest + octets[:end])
            self._rest = b""
        self._rest += octets[end:]
        if len(self._rest) > _LONGEST_LINE:
            self.ended()

    def ended(self) -> None:
        """End an incomplete line: no more pieces follow."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._write(rest + b"\n")
