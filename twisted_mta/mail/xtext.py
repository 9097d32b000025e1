"""xtext (RFC 3461 §4): any octets encoded in printable ASCII without space, ``+`` and ``=``.

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
    """Return the text that xtext encodes.

    Raises:
        ValueError: ``text`` is not xtext, or its octets are not UTF-8.
    """
    if not _XTEXT.fullmatch(text):
        raise ValueError("not xtext")
    decoded = _HEXCHAR.sub(lambda match: chr(int(match[1], 16)), text)
    return decoded.encode("latin-1").decode("utf-8")


def encode_xtext(text: str) -> str:
    """Return the xtext of the UTF-8 octets of ``text``."""
    return _NO_XCHAR.sub(lambda match: b"+%02X" % match[0][0], text.encode()).decode("ascii")
