"""The log: an observer of `twisted.logger` events that writes each as one line, text or JSON.

It takes a quarter of the time that Twisted's own observer takes (`tests.benchmark.logging`): it
formats with `str.format_map` where that says the same as Twisted's formatting, makes the time stamp
once a second, and hands each line to the system by one call. Lines are written at once and not
gathered to the end of the reactor's turn: that would save less than a microsecond of each, and
lose the last words of a process that is killed.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import time
from collections.abc import Callable
from threading import RLock
from typing import Any, Literal, cast

from twisted.logger import ILogObserver, LogEvent, Logger, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr, safe_str
from zope.interface import implementer

from ..mail.printable import printable
from ..system.ownership import open_log

LogFormat = Literal["text", "json"]

_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_STANDARD = 3  # descriptors below are standard input, output and error

# Octets that wait while they cannot be written: some 6,000 lines. A busy worker that nobody listens
# to, because the parent reads its configuration again, fills the 64 KiB of a pipe in 0.2 s.
_MOST_WAITING = 1 << 20
_PATIENCE = 1000  # milliseconds at the end, for who reads a worker's lines and does not just now
_STEP = 20
# Octets of a line that a worker does not end.
_LONGEST_LINE = 1 << 20

_MESSAGE_ONLY = ("message", "time", "system", "isError", "format", "failure", "why", "logLevel")
"""Fields of `twisted.python.log` that say again what the event says otherwise."""

_RENAMED = {
    name: f"{name}_"
    for name in ("time", "level", "namespace", "worker", "system", "message", "failure")
}
"""Fields that JSON lines have for themselves, and what an event's own of these names become."""

_quoted = json.JSONEncoder(ensure_ascii=True).encode


def _message(event: LogEvent) -> str:
    """Return what `formatEvent` would, at a tenth of its price where Python's own way is the same.

    It is not the same for ``{calls()}`` and events that were flattened.
    """
    format = event.get("log_format")
    if type(format) is str and "()" not in format and "log_flattened" not in event:
        try:
            return format.format_map(event)
        except Exception:
            return formatEvent(event)  # it says what was wrong, and with which event
    return formatEvent(event)


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback()).rstrip("\n")
    except Exception as error:
        return f"(no traceback: {safe_str(error)})"


def _safe(text: str) -> str:
    """Return text whose lines after the first are indented, and which moves no terminal."""
    return "".join(
        one if one.isprintable() or one in "\t\n" else ascii(one)[1:-1] for one in text.rstrip("\n")
    ).replace("\n", "\n\t")


class _Stamp:
    """Writes seconds since the epoch as date and time of day, to the millisecond.

    Args:
        split: `time.localtime` or `time.gmtime`.
        zone: how the offset from UTC is written, for `time.strftime`.
    """

    def __init__(self, split: Callable[[float], time.struct_time], zone: str) -> None:
        self._split = split
        self._zone = zone
        self._last: tuple[int | None, str, str] = (None, "", "")  # replaced as one, by any thread

    def __call__(self, when: Any) -> str | None:
        """Return the time in words; None where ``when`` is none."""
        try:
            second = math.floor(when)
            known, start, end = self._last
            if second != known:
                parts = self._split(second)
                start = time.strftime("%Y-%m-%dT%H:%M:%S.", parts)
                end = time.strftime(self._zone, parts)
                self._last = (second, start, end)
            return f"{start}{int((when - second) * 1000):03d}{end}"
        except (TypeError, ValueError, OverflowError, OSError):
            return None


class _TextLines:
    """Makes ``2026-11-22T12:24:12.345+0000 [twisted_mta.server.intake.Intake#info] text``."""

    def __init__(self, worker: int | None) -> None:
        self._stamp = _Stamp(time.localtime, "%z")
        self._end = "]" if worker is None else f" worker={worker}]"

    def __call__(self, event: LogEvent) -> str:
        """Return the line, and indented ones for what does not fit in it; nothing for nothing."""
        text = _message(event)
        failure = event.get("log_failure")
        if failure is not None:
            text = f"{text}\n{_traceback(failure)}"
        if not text:
            return ""
        if not text.isprintable():
            text = _safe(text)
        system = event.get("log_system")
        if system is None:
            level = getattr(event.get("log_level"), "name", "-")
            system = f"{event.get('log_namespace', '-')}#{level}"
        else:
            system = printable(safe_str(system))
        return f"{self._stamp(event.get('log_time')) or '-'} [{system}{self._end} {text}\n"


class _JSONLines:
    """Makes one JSON object a line, in ASCII.

    Fields whose names begin with ``_`` are left out: they are there for the text, and say once more
    what another field says.
    """

    def __init__(self, worker: int | None) -> None:
        self._stamp = _Stamp(time.gmtime, "Z")  # RFC 3339 §5.6
        self._worker = "" if worker is None else f',"worker":{worker}'

    def __call__(self, event: LogEvent) -> str:
        """Return the line; nothing for an event that says nothing."""
        failure = event.get("log_failure")
        legacy = "isError" in event and isinstance(event.get("message"), tuple)
        if legacy and isinstance(event.get("failure"), Failure):
            failure = event["failure"]
            text = safe_str(event.get("why") or "Unhandled Error")
        else:
            text = _message(event)
        stamp = self._stamp(event.get("log_time"))
        level = getattr(event.get("log_level"), "name", None)
        start = (
            f'{{"time":{_json(stamp)},"level":{_json(level)},"namespace":'
            f"{_json(event.get('log_namespace'))}{self._worker}"
        )
        parts = [start]
        system = event.get("log_system")
        if system is not None and system != "-":
            parts.append(f',"system":{_json(system)}')
        parts.append(f',"message":{_quoted(text)}')
        for name, value in event.items():
            if name[:1] == "_" or name[:4] == "log_" or (legacy and name in _MESSAGE_ONLY):
                continue
            parts.append(f",{_quoted(_RENAMED.get(name, name))}:{_json(value)}")
        if failure is not None:
            parts.append(f',"failure":{_quoted(_traceback(failure))}')
        elif not text and len(parts) == 2:
            return ""
        parts.append("}\n")
        return "".join(parts)


def _json(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return _quoted(value)
    # By type and not by class: a queue id is an integer to Python, and not to people.
    if kind is int:
        return repr(value)
    if kind is float and math.isfinite(value):
        return repr(round(value, 6))  # of seconds, microseconds are enough
    if value is None or kind is bool:
        return "null" if value is None else "true" if value else "false"
    if kind is list or kind is tuple:
        return f"[{','.join(map(_json, value))}]"
    if kind is bytes:
        return _quoted(value.decode("utf-8", "backslashreplace"))
    return _quoted(safe_str(value))


@implementer(ILogObserver)
class Log:
    """Writes each event as one line, to a file or to a descriptor that is there already.

    It may be called from any thread, and raises nothing. What cannot be written waits, up to 1 MiB
    of it; the lines beyond are counted, and a line says how many are missing once writing works.

    Attributes:
        format: of its lines.
        path: the file, or None for a descriptor.
        dropped: how many lines were not written in all.
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
        """Prepare a log; what is logged before `open` waits for it.

        Args:
            format: of the lines.
            path: the file to append to, absolute; None for ``descriptor``.
            descriptor: where lines go without a path, by default to standard output.
            worker: the number of the worker process that this is, to be shown in every line; its
                standard output is a pipe of its own, and it does not wait for who reads it.
            write: as `os.write` is.
            later: calls what it is given in a while, from any thread; asked for when something
                waits. Without it that waits for the next event.
        """
        self.format = format
        self.path = path
        self.dropped = 0
        self._given = descriptor
        # Not for others: whoever shares standard output with us would not wait either.
        self._pipe = path is None and worker is not None
        self._line = _JSONLines(worker) if format == "json" else _TextLines(worker)
        self._write = write
        self._later = later
        self._called = False  # `later` knows that something waits
        self._descriptor = -1
        self._lock = RLock()  # a signal may strike while it is held, and have something to say
        self._waiting = bytearray()
        self._lost = 0
        self._trouble = ""
        self._own = Logger(namespace=__name__, observer=self)

    def open(self) -> None:
        """Open the file, or make the descriptor our own; not twice.

        Raises:
            OSError: it cannot be opened.
        """
        self._descriptor = self._opened()
        if self._pipe:
            os.set_blocking(self._descriptor, False)
        self.write_lines(b"")

    def close(self) -> None:
        """Write what waits if that can be, and close the file. Events that come later wait.

        Who reads a worker's lines has a second to go on reading.
        """
        self.write_lines(b"")
        if self._pipe and self._waiting:
            self._wait_for_reader()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def reopen(self) -> bool:
        """Open the path anew, for after the file was moved away; a log without one stays as it is.

        Returns:
            Whether that went well. If not, the log goes on in the old file, and says so there.
        """
        if self.path is None:
            return True
        try:
            descriptor = self._opened()
        except OSError as error:
            self._own.error(
                "{path} cannot be opened, and the log goes on in the old file: {error}",
                path=printable(self.path),
                error=_reason(error),
            )
            return False
        # The number stays the same: another thread may be about to write to it.
        os.dup2(descriptor, self._descriptor, inheritable=False)
        os.close(descriptor)
        self._own.info("{path} was opened anew", path=printable(self.path))
        return True

    @property
    def trouble(self) -> str:
        """Why lines wait to be written, or are missing; empty while none do."""
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
        """Write lines as they are, such as those that workers sent.

        Args:
            lines: whole ones, each with its line end.
        """
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
                return  # nobody reads any more
            if ready:
                self.write_lines(b"")
            else:
                patience -= _STEP

    def _opened(self) -> int:
        if self.path is None:
            # A copy: whoever closes standard output would let the next file get its number, and
            # the log would be written into that.
            return fcntl.fcntl(self._given, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
        descriptor = open_log(self.path, _FLAGS, _MODE)
        if descriptor < _STANDARD:  # twistd replaces these when it goes into the background
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _STANDARD)
            os.close(low)
        return descriptor

    def _catch_up(self, lines: bytes) -> None:
        """Write what waits, then how much is missing, then ``lines``."""
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
        # Once a line is lost, those behind it wait for the word on that.
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
            "{count} lines of the log could not be written and are missing here: {error}",
            count=self._lost,
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
    """Passes on the whole lines of what a worker sends, as it comes in pieces.

    Args:
        write: takes octets that end a line (`Log.write_lines`).
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._rest = b""

    def received(self, octets: bytes) -> None:
        """Take a piece, which may end anywhere."""
        end = octets.rfind(b"\n") + 1
        if end:
            self._write(self._rest + octets[:end])
            self._rest = b""
        self._rest += octets[end:]
        if len(self._rest) > _LONGEST_LINE:
            self.ended()

    def ended(self) -> None:
        """End the line that was begun, if there is one: nothing more comes."""
        if self._rest:
            rest, self._rest = self._rest, b""
            self._write(rest + b"\n")
