"""Body files that are open: those of messages that came lately, and spare ones.

To make a file, to sync its directory and to remove it costs more than to write 100 KiB. So the file
of a message that was delivered is overwritten with the body of another one, if nothing but the
descriptor that it was written by has ever read it: pages that sendfile(2) has handed to a socket,
and files that a program copies, would change with it.
"""

from __future__ import annotations

import contextlib
from threading import RLock

from attrs import define

from ...interfaces import WritableFile
from ...mail.queue_id import QueueId

_OPEN = 64  # files of messages that are kept open
_SPARE = 32  # files
_SPARE_OCTETS = 32 << 20
_NAMES = 1000  # of files that are not open, to be removed if their messages were refused
LARGEST = 512 << 10
"""Octets of a file up to which it is kept open."""


class AnothersBody(OSError):
    """A file does not have the body of the message that is asked for."""


@define(eq=False)
class BodyFile:
    """An open body file.

    Attributes:
        id: the message that it was made for, and has its name from.
        path: its path.
        file: the descriptor.
        message: the message whose body is in it; None: it is a spare file.
        length: its octets: the body and what is left behind it of a longer one.
        is_durable: whether its name is.
        readers: how many read it by its descriptor now.
        is_dropped: whether the last of them closes it.
    """

    id: QueueId
    path: str
    file: WritableFile
    message: QueueId | None
    length: int = 0
    is_durable: bool = False
    readers: int = 0
    is_dropped: bool = False


class BodyFiles:
    """Keeps body files open: all that may be overwritten. Several threads may use it at once."""

    def __init__(self) -> None:
        # A generator that reads a body may end wherever memory is collected.
        self._lock = RLock()
        self._files: dict[QueueId, BodyFile] = {}  # by `BodyFile.id`; also those being written
        self._used: dict[QueueId, BodyFile] = {}  # whose body is durable, the oldest first
        self._spare: list[BodyFile] = []
        # By message, the oldest first: names of files that are not open and were made for others.
        self._names: dict[QueueId, QueueId] = {}

    def add(self, new: BodyFile) -> None:
        """Add a file that was made for a message."""
        with self._lock:
            self._files[new.id] = new

    def take(self, message: QueueId) -> BodyFile | None:
        """Return a spare file for the body of a message, to be written from its beginning."""
        with self._lock:
            while self._spare:
                spare = self._spare.pop()
                with contextlib.suppress(OSError):
                    if spare.file.has_name():  # no other program has removed it
                        spare.file.rewind()
                        spare.message = message
                        return spare
                self._drop(spare)
        return None

    def keep(self, body_file: BodyFile) -> None:
        """Keep a file open whose body is durable now, or drop it."""
        with self._lock:
            if body_file.is_dropped:
                return  # it was discarded meanwhile
            self._used[body_file.id] = body_file
            if body_file.length > LARGEST:
                self._drop(body_file)
            elif len(self._used) > _OPEN:
                self._drop(next(iter(self._used.values())))

    def has(self, id: QueueId) -> bool:
        """Whether a file is open."""
        return id in self._files

    def of(self, message: QueueId) -> QueueId:
        """Return the name of the file that a message has, or would have."""
        with self._lock:
            for each in self._files.values():
                if each.message == message:
                    return each.id
            return self._names.get(message, message)

    def removed(self, message: QueueId) -> None:
        """Take note that a message has no file any more."""
        with self._lock:
            self._names.pop(message, None)

    def begin_reading(self, id: QueueId, message: QueueId) -> BodyFile | None:
        """Return a file, which is not used again before `end_reading`; None: it is not open.

        Raises:
            AnothersBody: it has not the body of the message any more.
        """
        with self._lock:
            body_file = self._of(id, message)
            if body_file is not None:
                body_file.readers += 1
            return body_file

    def end_reading(self, body_file: BodyFile) -> None:
        """End what `begin_reading` began."""
        with self._lock:
            body_file.readers -= 1
            if body_file.is_dropped and not body_file.readers:
                _close(body_file)

    def drop(self, id: QueueId, message: QueueId) -> None:
        """Never use a file again, so that it may be opened by its name.

        Raises:
            AnothersBody: it has not the body of the message any more.
        """
        with self._lock:
            body_file = self._of(id, message)
            if body_file is not None:
                self._drop(body_file)

    def release(self, id: QueueId, message: QueueId) -> bool:
        """Make a file a spare one, as no row names it any more, durably; return whether it is."""
        with self._lock:
            body_file = self._used.get(id)
            if body_file is None or body_file.message != message:
                return False
            octets = sum([each.length for each in self._spare]) + body_file.length
            if body_file.readers or len(self._spare) >= _SPARE or octets > _SPARE_OCTETS:
                self._drop(body_file)
                return False
            del self._used[id]
            body_file.message = None
            self._spare.append(body_file)
            return True

    def close(self) -> list[str]:
        """Close all files that are not being written; return the paths of those that were spare.

        Those that have lost their name are left out.
        """
        with self._lock:
            for each in list(self._used.values()):
                self._drop(each)
            spare, self._spare = self._spare, []
            named = []
            for each in spare:
                with contextlib.suppress(OSError):
                    if each.file.has_name():
                        named.append(each.path)
                self._drop(each)
            return named

    def _of(self, id: QueueId, message: QueueId) -> BodyFile | None:
        body_file = self._files.get(id)
        if body_file is not None and body_file.message != message:
            raise AnothersBody(f"{body_file.path} does not have the body of {message} any more")
        return body_file

    def _drop(self, body_file: BodyFile) -> None:
        self._files.pop(body_file.id, None)
        self._used.pop(body_file.id, None)
        body_file.is_dropped = True
        if body_file.message is not None and body_file.message != body_file.id:
            self._names[body_file.message] = body_file.id
            if len(self._names) > _NAMES:
                del self._names[next(iter(self._names))]
        if not body_file.readers:
            _close(body_file)


def _close(body_file: BodyFile) -> None:
    with contextlib.suppress(OSError):
        body_file.file.close()
