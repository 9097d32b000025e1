"""xtext (RFC 3461 §4): any octets as printable ASCII without space, ``+`` and ``=``.

xtext   = *( xchar / hexchar )
xchar   = any ASCII CHAR between "!" (33) and "~" (126) inclusive, except for "+" and "="
hexchar = ASCII "+" immediately followed by two upper case hexadecimal digits
"""

from __future__ import annotations

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]++|\+[0-9A-F]{2})*+")
_HEXCHAR = re.compile(r"\+([0-9A-F]{2})")
_NO_XCHAR = re.compile(rb"[^!-*,-<>-~]")


def decode_xtext(text: str) -> str:
    """Return what ``text`` stands for, its octets being UTF-8.

    Raises:
        ValueError: it is not xtext, or what it stands for is no text.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    decoded = _HEXCHAR.sub(lambda found: chr(int(found[1], 16)), text)
    return decoded.encode("latin-1").decode("utf-8")


def encode_xtext(text: str) -> str:
    """Return the xtext that stands for ``text``, as UTF-8."""
    return _NO_XCHAR.sub(lambda found: b"+%02X" % found[0][0], text.encode()).decode("ascii")
