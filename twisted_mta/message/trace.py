"""The fields that we put before a content: where one more of them stands."""

from __future__ import annotations

import re

# A whole field, with its continuation lines (RFC 5322 §2.2.3).
_RESULTS = re.compile(rb"authentication-results:(?:[^\r]++|\r\n[ \t])*+\r\n", re.IGNORECASE)


def with_fields(trace: bytes, fields: bytes) -> bytes:
    """Return trace fields with others on top of them, below our Authentication-Results alone.

    Programs that trust a field of ours look for it on top (RFC 8601 §4.1): later ones leave it
    there.

    Args:
        trace: fields, each with its CR LF.
        fields: those to add.
    """
    results = _RESULTS.match(trace)
    end = results.end() if results else 0
    return trace[:end] + fields + trace[end:]
