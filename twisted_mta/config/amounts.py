"""Durations, sizes and rates: read from settings, and written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from attrs import frozen

from .setting import mistyped

# A month or a year is no fixed number of seconds, so neither is a unit.
_SECONDS = {"s": 1, "min": 60, "h": 3600, "days": 86400, "weeks": 604800}
_DURATION_NAMES = {
    **_SECONDS,
    **dict.fromkeys(("sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "minute", "minutes"), 60),
    **dict.fromkeys(("hour", "hours"), 3600),
    **dict.fromkeys(("d", "day"), 86400),
    **dict.fromkeys(("w", "week"), 604800),
}
_OCTETS = {"octets": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}
_SIZE_NAMES = {
    **{name.lower(): octets for name, octets in _OCTETS.items()},
    **dict.fromkeys(("b", "octet", "byte", "bytes"), 1),
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_DURATIONS = 'one such as "30 s", "5 min", "1 h" or "5 days"'
_SIZES = 'one such as "64 KiB", "50 MiB", "1 GiB" or 65536'
_LONGEST = 10**10  # seconds, three centuries: no sum of times overflows


def _amount(value: object, units: Mapping[str, int]) -> float | None:
    """Return a number with a unit in the base unit, exact if whole; None if it is not valid."""
    if isinstance(value, int | float):
        return value if math.isfinite(value) and value >= 0 else None
    match = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        return None
    unit = units.get(match[2].lower()) if match[2] else 1
    if unit is None:
        return None
    return float(match[1]) * unit if "." in match[1] else int(match[1]) * unit


def _require_amount(value: object, expected: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise mistyped(value, expected)


def duration(value: float | str) -> float:
    """Read seconds, never negative: ``"5 min"``, ``"90"`` and 300 are durations."""
    _require_amount(value, _DURATIONS)
    seconds = _amount(value, _DURATION_NAMES)
    if seconds is None or seconds > _LONGEST:
        raise ValueError(f"not a duration; expected {_DURATIONS}")
    return float(seconds)


def period(value: float | str) -> float:
    """Read seconds, more than 0."""
    seconds = duration(value)
    if not seconds:
        raise ValueError(f"not longer than 0 s; expected {_DURATIONS}")
    return seconds


def size(value: int | str) -> int:
    """Read octets, at least one: ``"50 MiB"``, ``"65536"`` and 65536 are sizes."""
    _require_amount(value, _SIZES)
    octets = _amount(value, _SIZE_NAMES)
    if octets is None or octets != int(octets) or not 1 <= octets < 1 << 62:
        raise ValueError(f"not a size; expected {_SIZES}")
    return int(octets)


def duration_text(seconds: float) -> str:
    """Return a duration exactly, in the largest unit that divides it."""
    return _whole(seconds, _SECONDS) or f"{seconds!r} s"


def size_text(octets: int) -> str:
    """Return a size exactly, in the largest unit that divides it."""
    return _whole(octets, _OCTETS) or f"{octets} octets"


def _whole(amount: float, units: dict[str, int]) -> str | None:
    for unit, worth in reversed(units.items()):
        if amount >= worth and amount % worth == 0:
            return f"{int(amount // worth)} {unit}"
    return None


@frozen
class Rate:
    """A limit of messages per period.

    Attributes:
        messages: most messages in a period.
        period: seconds.
    """

    messages: int
    period: float

    @property
    def interval(self) -> float:
        """Seconds between two messages that are spread evenly."""
        return self.period / self.messages

    def __str__(self) -> str:
        return f"{self.messages}/{_RATE_UNITS.get(self.period) or duration_text(self.period)}"


_RATE_UNITS = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}
_RATE = re.compile(r"\s*([0-9]{1,9})\s*/\s*(s|sec|second|min|minute|h|hour|d|day)\s*")


def rate(value: Rate | str) -> Rate:
    """Read a limit of messages per period, such as ``"100/min"``."""
    if isinstance(value, Rate):
        return value
    expected = 'one such as "10/s", "100/min", "1000/h" or "5000/day"'
    if not isinstance(value, str):
        raise mistyped(value, expected)
    match = _RATE.fullmatch(value)
    if not match or not int(match[1]):
        raise ValueError(f"not a rate; expected {expected}")
    return Rate(int(match[1]), float(_DURATION_NAMES[match[2]]))
