"""Date and Message-ID for mail of our own clients that lacks them (RFC 6409 §8.2, §8.3)."""

from __future__ import annotations

import re
from itertools import islice

from ..mail.queue_id import QueueId
from ..message.date import date_time
from ..message.header import field, values

# RFC 6376 §3.5: the tag with the names of the signed fields. A signature that names a field which
# is not there holds only as long as no host adds one (§5.4.2).
_SIGNED = re.compile(r"(?:^|;)\s*h\s*=([^;]*)")
_MOST_SIGNATURES = 20


def missing_fields(header: bytes, *, id: QueueId, hostname: str, time: float) -> bytes:
    """Return the Date and Message-ID fields to prepend to a message; empty if it has both.

    A field that a DKIM signature names is not added, since that would break the signature.

    Args:
        header: header section of the message.
        id: its queue id.
        hostname: our name, for a Message-ID.
        time: of reception, seconds since the epoch; for a Date.
    """
    lowered = b"\n" + header.lower()
    if lowered.find(b"\ndate:") >= 0 and lowered.find(b"\nmessage-id:") >= 0:
        return b""  # nearly always
    added = b""
    if field(header, "date") is None and "date" not in _signed(header):
        added += f"Date: {date_time(int(time))}\r\n".encode()
    if field(header, "message-id") is None and "message-id" not in _signed(header):
        added += f"Message-ID: <{id}@{hostname}>\r\n".encode()
    return added


def _signed(header: bytes) -> set[str]:
    """Return the names of the fields that the DKIM signatures of a message cover."""
    signatures = islice(values(header, "dkim-signature"), _MOST_SIGNATURES)
    tags = (_SIGNED.search(value) for value in signatures)
    return {name.strip().lower() for tag in tags if tag for name in tag[1].split(":")}
