"""The attachments of a received message, read from its file and saved to a directory."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from attrs import field, frozen

from .message.mime.attachment_parts import MESSAGES, AttachmentPart, attachment_parts
from .message.mime.decoding import decoded_chunks
from .message.mime.entity import IDENTITY
from .message.mime.safe_name import numbered
from .message.mime.sections import MOST_ENTITIES, TooManyParts

__all__ = ["Attachment", "TooManyParts", "attachments"]

_PIECE = 16_384  # octets that are read at a time


class _Octets:
    """A range of a file; reading it moves the position of the file."""

    def __init__(
        self, file: IO[bytes], start: int = 0, end: int | None = None, whole: object = None
    ) -> None:
        self._file = file
        self._start = start
        self._end = end
        self._whole = whole  # what keeps the file open, if it is our own

    def chunks(self) -> Iterator[bytes]:
        """Yield its octets; other ranges of the file may be read between two pieces."""
        position = self._start
        while self._end is None or position < self._end:
            self._file.seek(position)
            most = _PIECE if self._end is None else min(_PIECE, self._end - position)
            piece = self._file.read(most)
            if not isinstance(piece, bytes):
                raise TypeError("found a file of text, expected one opened in binary mode")
            if not piece:
                return
            position += len(piece)
            yield piece

    def within(self, start: int, end: int) -> _Octets:
        """Return a part of the range, by offsets within it."""
        return _Octets(self._file, self._start + start, self._start + end, self)


@frozen
class Attachment:
    """One attachment of a message. Its content stays in the file of the message until it is read.

    Attributes:
        filename: its name, decoded (RFC 2231, RFC 2047) and otherwise as the sender wrote it; None
            without one. A stranger wrote it: never make a path of it.
        safe_name: a name under which it can be created in a directory, on any system, at most 200
            octets long. Two attachments may have the same.
        content_type: in lower case, ``application/pdf``; what the sender says, which may be wrong.
        disposition: ``attachment``; ``inline``, as for images that a text shows; any other token;
            or empty, where the sender did not say.
        content_id: the Content-ID, to which ``cid:`` URLs of an HTML text refer; None without one.
        encoded_size: its octets in the message. The content has no more.
    """

    filename: str | None
    safe_name: str
    content_type: str
    disposition: str
    content_id: str | None
    encoded_size: int
    _encoding: str = field(repr=False)
    _octets: _Octets = field(repr=False, eq=False)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content in pieces of at most some 64 KiB, its transfer encoding undone.

        Encoded octets that are wrong are skipped. Lines of a text that was not encoded end as in
        the file.

        Raises:
            OSError: the file of the message cannot be read.
            ValueError: it is closed.
        """
        return decoded_chunks(self._encoding, self._octets.chunks())

    def save(
        self, directory: str | os.PathLike[str], *, mode: int = 0o600, sync: bool = True
    ) -> Path:
        """Write the content to a new file in ``directory``, and return its path.

        It has the safe name, with a number if there is such a file: ``report-2.pdf``. No file is
        ever overwritten, no symbolic link followed, and no other directory written to. If writing
        fails, the file is removed. Blocks; call it in a thread where that matters.

        Args:
            directory: it has to exist.
            mode: the permissions of the file, less the umask.
            sync: Whether to return only after the file and its name are on the disk.

        Raises:
            OSError: the directory cannot be written to, or the message not be read.
        """
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            name, descriptor = _created(folder, self.safe_name, mode)
            try:
                with open(descriptor, "wb") as file:
                    for chunk in self.chunks():
                        file.write(chunk)
                    file.flush()
                    if sync:
                        os.fsync(file.fileno())
                if sync:
                    os.fsync(folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
                raise
        finally:
            os.close(folder)
        return Path(directory, name)

    @property
    def is_message(self) -> bool:
        """Whether it is a whole message, as one that was forwarded; saved, it is an .eml file."""
        return self.content_type in MESSAGES

    def attachments(self) -> Sequence[Attachment]:
        """Return the attachments of the message that it is; none if it is no message.

        They are not among those of the message around it, so that each octet is saved once.

        Raises:
            TooManyParts: as for `twisted_mta.attachments`.
            OSError: the file of the message cannot be read.
        """
        if not self.is_message:
            return ()
        if self._encoding in IDENTITY:
            return _attachments(self._octets, MOST_ENTITIES)
        # RFC 2046 §5.2.1 forbids other encodings, and yet they are written. Its own attachments
        # are read from a file without a name, which goes with the last of them.
        file = tempfile.TemporaryFile()  # noqa: SIM115
        octets = _Octets(file)
        weakref.finalize(octets, file.close)
        for chunk in self.chunks():
            file.write(chunk)
        return _attachments(octets, MOST_ENTITIES)


def attachments(
    file: IO[bytes] | bytes | bytearray | memoryview, *, most: int = MOST_ENTITIES
) -> Sequence[Attachment]:
    """Return the attachments of a message, in order.

    They are its parts without its texts: parts of type ``text/plain`` or ``text/html`` that have no
    name and are not declared attachments. A message within the message is one attachment, which has
    attachments of its own. A winmail.dat is left as it is. A file that is no MIME message has none.

    The file is read once here, and the range of an attachment again whenever it is asked for; it
    has to stay open so long. No more than a piece of it is in memory, and one header section. Any
    content can be read, in time proportional to its size. Reading blocks, some 10 ms for each MiB;
    call this in a thread where that matters.

    Args:
        file: the whole message: a file opened in binary mode that can be sought in, of which the
            position is moved; or octets. Lines end in CR LF or LF.
        most: the number of body parts that the message may have.

    Raises:
        TooManyParts: it has more. It is a ValueError.
        TypeError: ``file`` is no file, or one that was opened in text mode.
        OSError: the file cannot be read, or not be sought in.
    """
    if isinstance(file, bytes | bytearray | memoryview):
        file = io.BytesIO(file)
    elif not (hasattr(file, "read") and hasattr(file, "seek")):
        found = type(file).__name__
        raise TypeError(f"file: found {found}, expected octets or a file opened in binary mode")
    return _attachments(_Octets(file), most)


def _attachments(octets: _Octets, most: int) -> Sequence[Attachment]:
    return tuple(_attachment(part, octets) for part in attachment_parts(octets.chunks(), most))


def _attachment(part: AttachmentPart, octets: _Octets) -> Attachment:
    return Attachment(
        part.filename,
        part.safe_name,
        part.content_type,
        part.disposition,
        part.content_id,
        part.end - part.start,
        part.encoding,
        octets.within(part.start, part.end),
    )


def _created(folder: int, name: str, mode: int) -> tuple[str, int]:
    """Create a file with a name, or the name with the first free number; return name and file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    candidate = name
    while True:
        with contextlib.suppress(FileExistsError):
            return candidate, os.open(candidate, flags, mode, dir_fd=folder)
        candidate = numbered(name, _free_number(folder, name))


def _free_number(folder: int, name: str) -> int:
    """Return a number that is free, by few looks: thousands of files may have had the name."""
    taken, free = 1, 2
    while _exists(folder, numbered(name, free)):
        taken, free = free, free * 2
    while free - taken > 1:
        middle = (taken + free) // 2
        if _exists(folder, numbered(name, middle)):
            taken = middle
        else:
            free = middle
    return free


def _exists(folder: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return False
    return True
