"""A message as a file: the fields that we prepend, then the content, which is read in pieces."""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import suppress
from typing import Any

from ..mail.body import Body


class ContentFile(io.RawIOBase):
    """A binary file to read a message from; at most one piece of it is in memory.

    It can be sought. To go back reads the body from its beginning again.

    Args:
        head: the first octets of the message.
        body: the rest.
    """

    def __init__(self, head: bytes, body: Body) -> None:
        super().__init__()
        self._head = head
        self._body = body
        self._size = len(head) + body.size
        self._position = 0  # as the reader sees it
        self._read = 0  # octets that were taken out of `_pieces`, `_piece` included
        self._piece = memoryview(b"")
        self._pieces: Generator[bytes, None, None] | None = None

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that it can be sought."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Change the position; return it. Nothing is read before the next `readinto`.

        Raises:
            ValueError: the position is before the beginning, or the file is closed.
        """
        self._check_open()
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise ValueError(f"found the position {start + offset}, expected one of 0 or more")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next octets into ``buffer``; return their number, 0 at the end. Blocks.

        Raises:
            OSError: the body cannot be read.
            ValueError: the file is closed.
        """
        self._check_open()
        if self._position >= self._size:
            return 0
        piece = self._at_position()
        count = min(len(buffer), len(piece))
        buffer[:count] = piece[:count]
        self._position += count
        return count

    def _at_position(self) -> memoryview:
        """Return what is left of the piece at the position."""
        if self._pieces is None or self._position < self._read - len(self._piece):
            if self._pieces is not None:
                self._pieces.close()
            self._pieces = self._chunks()
            self._piece = memoryview(b"")
            self._read = 0
        while self._position >= self._read:
            self._piece = memoryview(next(self._pieces))
            self._read += len(self._piece)
        return self._piece[len(self._piece) - (self._read - self._position) :]

    def _chunks(self) -> Generator[bytes, None, None]:
        if self._head:
            yield self._head
        yield from self._body.chunks()

    def close(self) -> None:
        """Close the body file; also while another thread reads, which then fails or ends."""
        super().close()
        if self._pieces is not None:
            with suppress(ValueError):  # it is being read: the end of that thread frees it
                self._pieces.close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the content was read after the answer of its delivery")
