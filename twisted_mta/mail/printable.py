"""Text of peers, made safe to show: everything but printable ASCII is escaped."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")


def printable(text: str) -> str:
    r"""Return ``text`` with everything but printable ASCII as ``\xhh`` or ``\uhhhh``.

    Text of a peer passes through here before it reaches a header, a notice, the log or a terminal.
    """
    if text.isascii() and text.isprintable():
        return text  # most is, and this takes a tenth of the time
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def shown_client(address: str | None) -> str:
    """Return the address of a client for lines of the log: ``unix`` for one at a UNIX socket."""
    return address or "unix"
