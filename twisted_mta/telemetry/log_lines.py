"""A log event as one line, of text or JSON.

Formats with `str.format_map` where the result is that of Twisted's formatting, and makes the time
stamp once a second: so a line takes a quarter of the time that Twisted's own observer needs
(`tests.benchmark.logging`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from typing import Any, Literal

from twisted.logger import LogEvent, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str

from ..mail.printable import printable

LogFormat = Literal["text", "json"]


_MESSAGE_ONLY = ("message", "time", "system", "isError", "format", "failure", "why", "logLevel")
"""Fields of `twisted.python.log` that repeat other fields of the event."""


_RENAMED = {
    name: f"{name}_"
    for name in ("time", "level", "namespace", "worker", "system", "message", "failure")
}
"""Names that JSON lines use themselves, with the names of such fields of an event."""


_quoted = json.JSONEncoder(ensure_ascii=True).encode


def _message(event: LogEvent) -> str:
    """Return the text of an event as `formatEvent` does, in a tenth of its time if possible.

    It is not possible for ``{calls()}``, and for events that were flattened.
    """
    format = event.get("log_format")
    if type(format) is str and "()" not in format and "log_flattened" not in event:
        try:
            return format.format_map(event)
        except Exception:
            return formatEvent(event)  # describes the error, and the event
    return formatEvent(event)


def _traceback(failure: Any) -> str:
    try:
        return str(failure.getTraceback()).rstrip("\n")
    except Exception as error:
        return f"(no traceback: {safe_str(error)})"


def _safe(text: str) -> str:
    """Return text with indented lines after the first, and without control characters."""
    return "".join(
        character if character.isprintable() or character in "\t\n" else ascii(character)[1:-1]
        for character in text.rstrip("\n")
    ).replace("\n", "\n\t")


class _Stamp:
    """Formats seconds since the epoch as date and time, to the millisecond.

    Args:
        split: `time.localtime` or `time.gmtime`.
        zone: the format of the offset from UTC, for `time.strftime`.
    """

    def __init__(self, split: Callable[[float], time.struct_time], zone: str) -> None:
        self._split = split
        self._zone = zone
        self._last: tuple[int | None, str, str] = (
            None,
            "",
            "",
        )  # replaced as a whole, by any thread

    def __call__(self, when: Any) -> str | None:
        """Return the time; None if ``when`` is not a number."""
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


class TextLines:
    """Formats as ``2026-11-22T12:24:12.345+0000 [twisted_mta.server.intake.Intake#info] text``."""

    def __init__(self, worker: int | None) -> None:
        self._stamp = _Stamp(time.localtime, "%z")
        self._end = "]" if worker is None else f" worker={worker}]"

    def __call__(self, event: LogEvent) -> str:
        """Return the line, with indented lines for further ones; empty if the event has no text."""
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


class JSONLines:
    """Formats as one JSON object per line, in ASCII.

    Fields whose names begin with ``_`` are left out: they repeat other fields for the text.
    """

    def __init__(self, worker: int | None) -> None:
        self._stamp = _Stamp(time.gmtime, "Z")  # RFC 3339 §5.6
        self._worker = "" if worker is None else f',"worker":{worker}'

    def __call__(self, event: LogEvent) -> str:
        """Return the line; empty if the event is empty."""
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
    # By exact type: a queue id is a subclass of int, and is written as text.
    if kind is int:
        return repr(value)
    if kind is float and math.isfinite(value):
        return repr(round(value, 6))  # microseconds, of seconds
    if value is None or kind is bool:
        return "null" if value is None else "true" if value else "false"
    if kind is list or kind is tuple:
        return f"[{','.join(map(_json, value))}]"
    if kind is bytes:
        return _quoted(value.decode("utf-8", "backslashreplace"))
    return _quoted(safe_str(value))
