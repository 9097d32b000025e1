"""8BITMIME (RFC 6152): content with octets above 127 is kept as it is.

Without BODY=8BITMIME such octets are taken and kept as well, and passed on as they came: to refuse
them would lose mail that every other server takes, and to change them would be damage.
"""

from __future__ import annotations

from ..command import CommandError
from ..reply import Reply
from . import Extension


def _read_body(value: str | None) -> str:
    body = (value or "").upper()
    if body not in ("7BIT", "8BITMIME"):
        raise CommandError(Reply.of(501, "5.4", "Syntax: BODY=7BIT or BODY=8BITMIME"))
    return body


# RFC 6152 §2: the MAIL line may be 17 octets longer.
EIGHT_BIT_MIME = Extension("8BITMIME", mail={"BODY": _read_body}, mail_octets=17)
