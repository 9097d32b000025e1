"""The content of mail that the application hands over, in pieces with CR LF line ends."""

from __future__ import annotations

import copy
from collections.abc import Callable
from email.message import Message as EmailMessage
from email.policy import EmailPolicy
from typing import IO

from twisted.internet.defer import Deferred

from ..interfaces import Executor
from ..smtp.data import NewlineNormalizer
from ..system.slices import Work

Content = EmailMessage | bytes | bytearray | memoryview | IO[bytes]
"""A message: an `email.message.Message` (also `email.message.EmailMessage`), octets, or a binary
file, which is read from where it stands. Lines end in CR LF or LF."""

_PIECE = 32_768  # octets that are written in one go: less than a millisecond
_READ = 262_144  # octets that are read from a file in one call
# RFC 5322 §3.6.2, §3.6.3, §3.6.6: the fields with addresses.
_ADDRESSES = ("from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "resent-cc")

Run = Callable[[Work[None]], "Deferred[None]"]
"""Runs a computation in slices (`system.slices.Sliced.work`)."""


async def pass_on(
    content: Content, write: Callable[[bytes], None], *, executor: Executor, run: Run
) -> None:
    """Write a content in pieces, each line with CR LF, in the reactor's thread.

    A message object is flattened, and a file is read, where ``executor`` runs it. Nothing may
    change the content meanwhile.

    Args:
        content: the message, of a type that `check_type` accepts.
        write: takes a piece.
        executor: runs what blocks, or takes long.
        run: runs the rest in slices.

    Raises:
        TypeError: the file is not binary.
        Exception: the file cannot be read, or the message object cannot be flattened.
    """
    normalizer = NewlineNormalizer()
    if isinstance(content, EmailMessage):
        content = await executor(flattened, content)
    if isinstance(content, bytes | bytearray | memoryview):
        await run(_in_pieces(memoryview(content).cast("B"), normalizer, write))
    else:
        while True:
            octets = await executor(content.read, _READ)
            if not isinstance(octets, bytes):
                raise TypeError("message: found a file of text, expected a binary file")
            if not octets:
                break
            await run(_in_pieces(memoryview(octets), normalizer, write))
    write(normalizer.end())


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


def _in_pieces(
    octets: memoryview, normalizer: NewlineNormalizer, write: Callable[[bytes], None]
) -> Work[None]:
    for start in range(0, len(octets), _PIECE):
        if start:
            yield
        if piece := normalizer.feed(bytes(octets[start : start + _PIECE])):
            write(piece)
