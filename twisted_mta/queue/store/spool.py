"""The spool: bodies on their way into the queue, small ones in memory, large ones in files.

Order on disk: write, fdatasync, fsync of the directory; only then may a row name the file. A file
without a row is swept at the next start. A file that is used again has its name already.

A file that may be used again begins with a line: the id of the message whose body is in it. For any
other message it has no body. So a copy of the directory that is newer than that of the database
does not send a body to another message's recipients.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from io import BytesIO
from typing import IO

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from ...interfaces import Executor, Files
from ...mail.body import Body, DotlessFile, MemoryBody
from ...mail.leading_dot import leading_dot
from ...mail.queue_id import QueueId
from .body_files import AnothersBody, BodyFile, BodyFiles

_TRIAL = "attempt"  # not a queue id: a file that a crash leaves is swept
_DOT = b"\r\n."  # at the beginning of a line
_CHUNK = 64 * 1024  # octets read from a file, or gathered for one, at a time
_OPEN_CHUNK = 128 * 1024  # octets read from a file that is open


def _first_line(message: QueueId) -> bytes:
    return b"%s\r\n" % str(message).encode("ascii")


_FIRST_LINE = len(_first_line(QueueId(0)))  # octets; all queue ids are as long


@frozen
class FileBody:
    """A large body in a file of the spool (`mail.body.Body`).

    Attributes:
        files: the disk.
        path: of the file.
        size: octets of the body.
        message: whose body it is, as the first line of the file says; None: there is no such line.
        id: of the message that the file was made for; None: of its own, and it has no first line.
        body_files: those that are open; None: none is.
    """

    files: Files
    path: str
    size: int
    message: QueueId | None = None
    id: QueueId | None = None
    body_files: BodyFiles | None = field(default=None, eq=False, repr=False)

    @property
    def start(self) -> int:
        """Where the body begins in the file."""
        return 0 if self.message is None else _FIRST_LINE

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces.

        Raises:
            OSError: the file cannot be read, is shorter than ``size``, or has another message's
                body.
        """
        if self.body_files is not None and self.message is not None and self.id is not None:
            body_file = self.body_files.begin_reading(self.id, self.message)
            if body_file is not None:
                try:
                    yield from self._chunks_of_open(body_file)
                finally:
                    self.body_files.end_reading(body_file)
                return
        left = self.size
        with self.open() as file:
            while left:
                chunk = file.read(min(_CHUNK, left))
                if not chunk:
                    raise OSError(f"{self.path} is {left} octets shorter than it was")
                left -= len(chunk)
                yield chunk

    def _chunks_of_open(self, body_file: BodyFile) -> Iterator[bytes]:
        offset = self.start
        end = offset + self.size
        while offset < end:
            chunk = body_file.file.read(offset, min(_OPEN_CHUNK, end - offset))
            if not chunk:
                raise OSError(f"{self.path} is {end - offset} octets shorter than it was")
            offset += len(chunk)
            yield chunk

    def open(self) -> IO[bytes]:
        """Open the file, which is not used again then, at the beginning of the body.

        Raises:
            OSError: it cannot be opened, or has another message's body.
        """
        if self.message is None:
            return self.files.open(self.path)
        if self.body_files is not None and self.id is not None:
            self.body_files.drop(self.id, self.message)
        file = self.files.open(self.path)
        try:
            if file.read(self.start) != _first_line(self.message):
                raise AnothersBody(f"{self.path} does not have the body of {self.message}")
        except BaseException:
            file.close()
            raise
        return file


@frozen
class DotlessFileBody(FileBody, DotlessFile):
    """A large body that was seen to have no dot at the beginning of a line."""

    @property
    def is_sent_from_file(self) -> bool:
        """Whether no descriptor is open by which it is read (`mail.body.DotlessFile`)."""
        return self.body_files is None or self.id is None or not self.body_files.has(self.id)


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
        reuse: whether files are used again; else each has the name of its message.
    """

    def __init__(
        self,
        directory: str,
        *,
        files: Files,
        executor: Executor,
        small_body: int = 65536,
        reuse: bool = False,
    ) -> None:
        self.directory = directory
        self.files = files
        self.executor = executor
        self.small_body = small_body
        self.body_files = BodyFiles() if reuse else None

    def path(self, id: QueueId) -> str:
        """Return the path of the file that was made for the body of a message."""
        return os.path.join(self.directory, str(id))

    def file_of(self, message: QueueId) -> QueueId:
        """Return the name of the file of a message that may have no row, if it has a file."""
        return message if self.body_files is None else self.body_files.of(message)

    def stored(self, message: QueueId, size: int, id: int | None = None) -> FileBody:
        """Return a body that is in its file.

        Args:
            message: its message.
            size: its octets.
            id: the message that the file was made for, as its row has it.
        """
        if id is None:
            return FileBody(self.files, self.path(message), size)
        made_for = QueueId(id)
        return FileBody(self.files, self.path(made_for), size, message, made_for, self.body_files)

    def has(self, message: QueueId, size: int, id: int | None) -> bool:
        """Whether a file, which is there, is of a message, as far as its first line says.

        One that cannot be read is: its deliveries fail, and that of no other message.

        Args:
            message: the message.
            size: octets of its body.
            id: as for `stored`; None: the file has no such line.
        """
        if id is None:
            return True
        try:
            self.stored(message, size, id).open().close()
        except (AnothersBody, FileNotFoundError):
            return False
        except OSError:
            pass
        return True

    def loss(self, message: QueueId, size: int, id: int | None) -> str:
        """Return why the body of a message is lost; empty: it is there, or cannot be read now.

        Args:
            message: the message.
            size: octets of its body.
            id: as for `stored`.
        """
        body = self.stored(message, size, id)
        try:
            with body.open() as file:
                if file.seek(0, os.SEEK_END) < body.start + size:
                    return "its body file is too short"
        except AnothersBody:
            return "its body file has the body of another message"
        except FileNotFoundError:
            return "its body file is missing"
        except OSError:
            pass
        return ""

    def new_body(self, id: QueueId) -> SpooledWriter:
        """Return a writer for the body of a message (`interfaces.NewBody`)."""
        return SpooledWriter(self, id)

    def begin(self, message: QueueId) -> BodyFile:
        """Return a file for the body of a message: a spare one, or a new one.

        Raises:
            OSError: none could be made.
        """
        spare = None if self.body_files is None else self.body_files.take(message)
        if spare is not None:
            return spare
        path = self.path(message)
        body_file = BodyFile(message, path, self.files.create(path), message)
        if self.body_files is not None:
            self.body_files.add(body_file)
        return body_file

    def forget(self, body: Body) -> None:
        """Remove the file of a body that was sealed and that no row names."""
        if isinstance(body, FileBody):
            if body.message is None or body.id is None:
                self._unlink(body.path)
            else:
                self.remove(body.id, body.message)

    def remove(self, id: QueueId, message: QueueId) -> None:
        """Remove the file of a message that no row names.

        Args:
            id: the message that the file was made for.
            message: the message whose body is in it.
        """
        try:
            if self.body_files is not None:
                self.body_files.drop(id, message)
        except AnothersBody:
            return
        self._unlink(self.path(id))
        if self.body_files is not None:
            self.body_files.removed(message)

    def _unlink(self, path: str) -> None:
        # A file that stays is swept at the next start.
        with contextlib.suppress(OSError):
            self.files.unlink(path)

    def release(self, id: QueueId, message: QueueId) -> None:
        """Let a file be used again, as no row names it any more, durably; or remove it.

        Args:
            id: the message that the file was made for.
            message: the message whose body is in it.
        """
        if self.body_files is None or not self.body_files.release(id, message):
            self.remove(id, message)

    def close_files(self) -> None:
        """Close all files that are open, and remove the spare ones."""
        for path in () if self.body_files is None else self.body_files.close():
            self._unlink(path)

    def try_to_write(self) -> None:
        """Write and sync the smallest large body, and remove it; blocks.

        Raises:
            OSError: it could not be written.
        """
        path = os.path.join(self.directory, _TRIAL)
        self.files.unlink(path)  # of an earlier trial
        file = self.files.create(path)
        try:
            file.write(bytes(self.small_body + 1))
            file.sync()
        finally:
            file.close()
            self.files.unlink(path)


class SpooledWriter:
    """`interfaces.BodyWriter`: in memory up to ``small_body`` octets, then in a file."""

    def __init__(self, spool: Spool, id: QueueId) -> None:
        self._spool = spool
        self._id = id
        self._held: list[bytes] = []
        self._held_size = 0  # octets in `_held`
        self._size = 0
        self._written = 0  # octets in the file, with its first line
        self._lines = _Lines()  # of what is in the file
        self._file: BodyFile | None = None
        self._is_shared = False  # whether another descriptor may read the file

    def write(self, content: bytes) -> None:
        """Append ``content`` (`interfaces.BodyWriter`)."""
        self._size += len(content)
        self._held.append(content)
        self._held_size += len(content)
        if self._file is None:
            if self._size <= self._spool.small_body:
                return
            self._file = self._spool.begin(self._id)
            if self._spool.body_files is not None:
                self._held.insert(0, _first_line(self._id))
        elif self._held_size < _CHUNK:
            return  # the network delivers small pieces, and each write is a call to the kernel
        self._write_held()

    def seal(self) -> Body | Deferred[Body]:
        """End the content and make it durable (`interfaces.BodyWriter`)."""
        if self._file is None:
            return MemoryBody(b"".join(self._held))
        try:
            # Here and not in the thread: each call that may block costs it the interpreter's lock.
            if self._held:
                self._write_held()
            if self._file.length > 2 * self._written:
                self._end_here(self._file)
        except BaseException:
            return fail(self._clean_up(Failure()))
        return self._spool.executor(self._make_durable).addCallbacks(self._sealed, self._clean_up)

    def open(self) -> IO[bytes]:
        """Return a file with the content so far (`interfaces.BodyWriter`)."""
        if self._file is None:
            return BytesIO(b"".join(self._held))
        if self._held:
            self._write_held()
        self._is_shared = True
        if self._file.length > self._written:
            self._end_here(self._file)
        return FileBody(self._spool.files, self._file.path, self._size, self._named).open()

    def discard(self) -> None:
        """Remove the content (`interfaces.BodyWriter`)."""
        self._held.clear()
        self._held_size = self._size = 0
        body_file, self._file = self._file, None
        if body_file is not None:
            with contextlib.suppress(OSError):
                body_file.file.close()
            self._spool.remove(body_file.id, self._id)

    def _end_here(self, body_file: BodyFile) -> None:
        """Remove what is left of an earlier content."""
        body_file.file.truncate(self._written)
        body_file.length = 0

    @property
    def _named(self) -> QueueId | None:
        """The message, if the first line of the file says it."""
        return None if self._spool.body_files is None else self._id

    def _write_held(self) -> None:
        assert self._file is not None
        octets = b"".join(self._held)
        self._file.file.write(octets)
        self._written += len(octets)
        self._lines.feed(octets)
        self._held.clear()
        self._held_size = 0

    def _make_durable(self) -> Body:
        spool, body_file = self._spool, self._file
        assert body_file is not None
        body_file.length = max(self._written, body_file.length)
        body_file.file.sync()
        if not body_file.is_durable:
            spool.files.sync_directory(spool.directory)
            body_file.is_durable = True
        if spool.body_files is None:
            body_file.file.close()
        else:
            spool.body_files.keep(body_file)
            if self._is_shared:
                spool.body_files.drop(body_file.id, self._id)
        dotless = self._lines.have_ends and not self._lines.begin_with_dot
        kind = DotlessFileBody if dotless else FileBody
        id = None if spool.body_files is None else body_file.id
        return kind(spool.files, body_file.path, self._size, self._named, id, spool.body_files)

    def _sealed(self, body: Body) -> Body:
        # From now on the file is the queue's, which may use it for another message.
        self._file = None
        return body

    def _clean_up(self, failure: Failure) -> Failure:
        self.discard()
        return failure
