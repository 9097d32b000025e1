"""The message that the application hands over: its types."""

from __future__ import annotations

from email.message import Message as EmailMessage
from typing import IO

Content = EmailMessage | bytes | bytearray | memoryview | IO[bytes]
"""A message: an `email.message.Message` (also `email.message.EmailMessage`), octets, or a binary
file, which is read from where it stands. Lines end in CR LF or LF."""


def check_type(content: object) -> None:
    """Raise `TypeError` where a value cannot be a content."""
    if isinstance(content, EmailMessage | bytes | bytearray | memoryview):
        return
    if not callable(getattr(content, "read", None)):
        raise TypeError(
            f"message: found {type(content).__name__}, expected an EmailMessage, bytes or a binary"
            " file"
        )
