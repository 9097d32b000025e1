"""BINARYMIME (RFC 3030 §3): content of any octets, every one of which is kept.

Such content has no lines, so it comes and goes by BDAT alone: DATA gets 503. It needs a delivery
that keeps octets as they are, which those written for ``twisted.mail`` do not: they take lines.
"""

from __future__ import annotations

from ..command import CommandError
from ..reply import Reply
from . import Extension


def _read_body(value: str | None) -> str:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME", "BINARYMIME"):
        raise CommandError(Reply.of(501, "5.4", "Syntax: BODY=7BIT, 8BITMIME or BINARYMIME"))
    return body


# To be offered only with CHUNKING (RFC 3030 §3), and behind 8BITMIME, whose reader of BODY it
# replaces. A BODY comes once: the 17 octets that RFC 6152 §2 adds to MAIL hold this value too.
BINARYMIME = Extension("BINARYMIME", mail={"BODY": _read_body})
