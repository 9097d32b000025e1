"""Dates in header fields (RFC 5322 §3.3)."""

from __future__ import annotations

import time
from functools import lru_cache

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=16)
def date_time(second: int, utc_offset: int = 0) -> str:
    """Return a date as RFC 5322 §3.3 writes it: ``Sun, 22 Nov 2026 10:00:00 +0000``.

    Args:
        second: seconds since the epoch.
        utc_offset: seconds that local time is ahead of UTC; a multiple of 60.
    """
    local = time.gmtime(second + utc_offset)
    hours, minutes = divmod(abs(utc_offset) // 60, 60)
    return (
        f"{_DAYS[local.tm_wday]}, {local.tm_mday} {_MONTHS[local.tm_mon - 1]} {local.tm_year:04}"
        f" {local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02}"
        f" {'-' if utc_offset < 0 else '+'}{hours:02}{minutes:02}"
    )
