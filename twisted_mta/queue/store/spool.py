"""The spool: bodies on their way into the queue, small ones in memory, large ones in files.

Order on disk: write, fdatasync, fsync of the directory; only then may a row name the file. A file
without a row is swept at the next start.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...interfaces import Executor, Files, WritableFile
from ...mail.body import Body, DotlessFile, MemoryBody
from ...mail.leading_dot import leading_dot
from ...mail.queue_id import QueueId

_TRIAL = "attempt"  # not a queue id: a file that a crash leaves is swept
_DOT = b"\r\n."  # at the beginning of a line
_CHUNK = 64 * 1024  # octets read from a file, or gathered for one, at a time


@frozen
class FileBody:
    """A large body in a file of the spool (`mail.body.Body`)."""

    files: Files
    path: str
    size: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of 64 KiB.

        Raises:
            OSError: the file cannot be read, or is shorter than ``size``.
        """
        left = self.size
        with self.files.open(self.path) as file:
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise OSError(f"{self.path} is {left} octets shorter than it was")
                left -= len(chunk)
                yield chunk


@frozen
class DotlessFileBody(FileBody, DotlessFile):
    """A large body that was seen to have no dot at the beginning of a line."""

    def open(self) -> IO[bytes]:
        """Open the file (`mail.body.DotlessFile`)."""
        return self.files.open(self.path)


class _Lines:
    """What is learned about the lines of a content while it is written, wherever it is split.

    Attributes:
        begin_with_dot: whether one begins with a dot.
    """

    def __init__(self) -> None:
        self.begin_with_dot = False
        self._end = b"\r\n"  # the last two octets so far

    @property
    def have_ends(self) -> bool:
        """Whether the last line has its CR LF."""
        return self._end == b"\r\n"

    def feed(self, piece: bytes) -> None:
        """Look at the next piece."""
        if not self.begin_with_dot:
            across = self._end + piece[:2]
            self.begin_with_dot = _DOT in across or leading_dot(piece) >= 0
        self._end = (self._end + piece[-2:])[-2:]


class Spool:
    """The directory of large bodies.

    Args:
        directory: its path.
        files: the disk.
        executor: runs calls that block.
        small_body: octets up to which a body is kept in memory, and in the database.
    """

    def __init__(
        self, directory: str, *, files: Files, executor: Executor, small_body: int = 65536
    ) -> None:
        self.directory = directory
        self._files = files
        self._executor = executor
        self._small_body = small_body

    def path(self, id: QueueId) -> str:
        """Return the path of the body of a message, if it is large."""
        return os.path.join(self.directory, str(id))

    def stored(self, id: QueueId, size: int) -> FileBody:
        """Return a body that is in its file."""
        return FileBody(self._files, self.path(id), size)

    def new_body(self, id: QueueId) -> SpooledWriter:
        """Return a writer for the body of a message (`interfaces.NewBody`)."""
        return SpooledWriter(self.path(id), self._files, self._executor, self._small_body)

    def forget(self, body: Body) -> None:
        """Remove the file of a body that was sealed and that no row names."""
        if isinstance(body, FileBody):
            # A file that stays is swept at the next start.
            with contextlib.suppress(OSError):
                self._files.unlink(body.path)

    def try_to_write(self) -> None:
        """Write and sync the smallest large body, and remove it; blocks.

        Raises:
            OSError: it could not be written.
        """
        path = os.path.join(self.directory, _TRIAL)
        self._files.unlink(path)  # of an earlier trial
        file = self._files.create(path)
        try:
            file.write(bytes(self._small_body + 1))
            file.sync()
        finally:
            file.close()
            self._files.unlink(path)


class SpooledWriter:
    """`interfaces.BodyWriter`: in memory up to ``small_body`` octets, then in a file."""

    def __init__(self, path: str, files: Files, executor: Executor, small_body: int) -> None:
        self._path = path
        self._files = files
        self._executor = executor
        self._small_body = small_body
        self._held: list[bytes] = []
        self._held_size = 0  # octets in `_held`
        self._size = 0
        self._lines = _Lines()  # of what is in the file
        self._file: WritableFile | None = None

    def write(self, content: bytes) -> None:
        """Append ``content`` (`interfaces.BodyWriter`)."""
        self._size += len(content)
        self._held.append(content)
        self._held_size += len(content)
        if self._file is None:
            if self._size <= self._small_body:
                return
            self._file = self._files.create(self._path)
        elif self._held_size < _CHUNK:
            return  # the network delivers small pieces, and each write is a call to the kernel
        self._write_held()

    def seal(self) -> Body | Deferred[Body]:
        """End the content and make it durable (`interfaces.BodyWriter`)."""
        if self._file is None:
            return MemoryBody(b"".join(self._held))
        return self._executor(self._make_durable).addErrback(self._clean_up)

    def open(self) -> IO[bytes]:
        """Return a file with the content so far (`interfaces.BodyWriter`)."""
        if self._file is None:
            return BytesIO(b"".join(self._held))
        if self._held:
            self._write_held()
        return self._files.open(self._path)

    def discard(self) -> None:
        """Remove the content (`interfaces.BodyWriter`)."""
        self._held.clear()
        self._held_size = self._size = 0
        file, self._file = self._file, None
        if file is not None:
            # A file that stays has no row, and is swept at the next start.
            with contextlib.suppress(OSError):
                file.close()
            with contextlib.suppress(OSError):
                self._files.unlink(self._path)

    def _write_held(self) -> None:
        assert self._file is not None
        octets = b"".join(self._held)
        self._file.write(octets)
        self._lines.feed(octets)
        self._held.clear()
        self._held_size = 0

    def _make_durable(self) -> Body:
        assert self._file is not None
        if self._held:
            self._write_held()
        self._file.sync()
        self._file.close()
        self._files.sync_directory(os.path.dirname(self._path))
        dotless = self._lines.have_ends and not self._lines.begin_with_dot
        kind = DotlessFileBody if dotless else FileBody
        return kind(self._files, self._path, self._size)

    def _clean_up(self, failure: Failure) -> Failure:
        self.discard()
        return failure
