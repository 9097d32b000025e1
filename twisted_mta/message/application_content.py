"""The message that the application hands over: its types, and a message object as octets."""

from __future__ import annotations

import copy
from email.message import Message as EmailMessage
from email.policy import EmailPolicy
from typing import IO

Content = EmailMessage | bytes | bytearray | memoryview | IO[bytes]
"""A message: an `email.message.Message` (also `email.message.EmailMessage`), octets, or a binary
file, which is read from where it stands. Lines end in CR LF or LF."""

# RFC 5322 §3.6.2, §3.6.3, §3.6.6: the fields with addresses.
_ADDRESSES = ("from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "resent-cc")


def check_type(content: object) -> None:
    """Raise `TypeError` where a value cannot be a content."""
    if isinstance(content, EmailMessage | bytes | bytearray | memoryview):
        return
    if not callable(getattr(content, "read", None)):
        raise TypeError(
            f"message: found {type(content).__name__}, expected an EmailMessage, bytes or a binary"
            " file"
        )


def flattened(message: EmailMessage) -> bytes:
    """Return a message object as octets, without Bcc fields (RFC 5322 §3.6.3).

    Its header has UTF-8 only where an address needs it (RFC 6532 §3.2).
    """
    message = copy.copy(message)
    del message["Bcc"]
    del message["Resent-Bcc"]
    policy = message.policy.clone(linesep="\r\n")
    if isinstance(policy, EmailPolicy) and _has_utf8_address(message):
        policy = policy.clone(utf8=True)
    return message.as_bytes(policy=policy)


def _has_utf8_address(message: EmailMessage) -> bool:
    for name in _ADDRESSES:
        for field in message.get_all(name, ()):
            addresses = getattr(field, "addresses", ())
            if not all(each.addr_spec.isascii() for each in addresses):
                return True
    return False
