"""A message made of two files: a new header section in front of a body."""

from __future__ import annotations

import io
from collections.abc import Sequence
from io import BytesIO
from typing import IO, cast

from ..message.header_scanner import HeaderScanner
from .answers import Rewrite

_PIECE = 64 * 1024


class _Composed(io.RawIOBase):
    """Octets of memory, then those of a file from a position on; not closed with it."""

    def __init__(self, front: bytes, file: IO[bytes], start: int) -> None:
        self._front = front
        self._file = file
        self._start = start
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence == io.SEEK_END:
            end = self._file.seek(0, io.SEEK_END)
            offset += len(self._front) + end - self._start
        self._at = max(0, offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = -1 if size is None else size
        read = b""
        if self._at < len(self._front):
            end = len(self._front) if wanted < 0 else self._at + wanted
            read = self._front[self._at : end]
        if wanted < 0 or len(read) < wanted:
            self._file.seek(self._start + max(0, self._at - len(self._front)))
            read += self._file.read(-1 if wanted < 0 else wanted - len(read))
        self._at += len(read)
        return read

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        read = self.read(len(buffer))
        buffer[: len(read)] = read
        return len(read)


def composed(content: IO[bytes], rewrites: Sequence[Rewrite]) -> IO[bytes]:
    """Return a content as rewrites of the whole, of its header and of its body leave it.

    Fields that a rewrite removes by name are still there.

    Args:
        content: as it came; read while the result is.
        rewrites: in their order.

    Raises:
        OSError: it cannot be read.
    """
    header: bytes | None = None
    body: IO[bytes] | None = None
    for each in rewrites:
        if each.content is not None:
            given = each.content
            content = BytesIO(given) if isinstance(given, bytes) else given
            header = body = None
        if each.header is not None:
            header = each.header
        if each.body is not None:
            body = each.body
    content.seek(0)
    if header is None and body is None:
        return content
    scanner, held = HeaderScanner(), bytearray()
    while not scanner.ended and (piece := content.read(_PIECE)):
        held += piece
        scanner.feed(piece)
    section = bytes(held[: scanner.size]) if header is None else header
    if body is None:
        # What follows the section: the empty line and the body, or nothing.
        front, file, start = section, content, scanner.size
        if not scanner.ended:
            front += b"\r\n"
    else:
        front, file, start = section + b"\r\n", body, 0
    return cast("IO[bytes]", _Composed(front, file, start))


def close_bodies(rewrites: Sequence[Rewrite]) -> None:
    """Close the files of new bodies."""
    for each in rewrites:
        if each.body is not None:
            each.body.close()
