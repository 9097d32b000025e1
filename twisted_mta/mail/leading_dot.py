"""Where a line of a content begins with a dot, which is doubled on its way (RFC 5321 §4.5.2)."""

from __future__ import annotations

_LINE_WITH_DOT = b"\r\n."
_HEADER = 8192  # octets that most header sections do not exceed


def leading_dot(octets: bytes) -> int:
    """Return the position of the first CR LF ``.`` in ``octets``; -1: there is none."""
    # One octet is found 20 times as quickly as three. Header sections have dots, but what is large
    # behind them has few or none: base64 has none.
    found = octets.find(_LINE_WITH_DOT, 0, _HEADER)
    if found < 0 and (dot := octets.find(b".", _HEADER)) >= 0:
        found = octets.find(_LINE_WITH_DOT, dot - 2)
    return found
