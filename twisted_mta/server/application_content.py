"""The content of mail that the application hands over, in pieces with CR LF line ends."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message as EmailMessage

from twisted.internet.defer import Deferred

from ..interfaces import Executor
from ..message.application_content import Content, flattened
from ..smtp.data import NewlineNormalizer
from ..system.slices import Work

_PIECE = 32_768  # octets that are written in one go: less than a millisecond
_READ = 262_144  # octets that are read from a file in one call

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


def _in_pieces(
    octets: memoryview, normalizer: NewlineNormalizer, write: Callable[[bytes], None]
) -> Work[None]:
    for start in range(0, len(octets), _PIECE):
        if start:
            yield
        if piece := normalizer.feed(bytes(octets[start : start + _PIECE])):
            write(piece)
