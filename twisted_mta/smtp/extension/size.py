"""SIZE (RFC 1870): the server says what it takes, the client how much it brings."""

from __future__ import annotations

import re

from ..command import CommandError
from ..reply import Reply
from . import Extension

TOO_LARGE = Reply.of(552, "3.4", "Message size exceeds the limit of this server")

_SIZE = re.compile(r"[0-9]{1,20}")  # RFC 1870 §5: size-value = 1*20DIGIT


def size(maximum: int) -> Extension:
    """Return the extension with a limit of ``maximum`` octets."""

    def read(value: str | None) -> int:
        if value is None or not _SIZE.fullmatch(value):
            raise CommandError(Reply.of(501, "5.4", "Syntax: SIZE=octets"))
        if int(value) > maximum:  # RFC 1870 §6.1
            raise CommandError(TOO_LARGE)
        return int(value)

    # RFC 1870 §3: the MAIL line may be 26 octets longer.
    return Extension(f"SIZE {maximum}", mail={"SIZE": read}, mail_octets=26)
