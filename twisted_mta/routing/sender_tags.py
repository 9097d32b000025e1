"""Senders that do not fit into a rewritten reverse-path (`srs`), each in a file under its tag.

The name of a file is the day on which the sender's mail was forwarded, and the tag. It is durable
before the forwarded message is in the queue, and all processes of one MTA look it up directly: a
bounce may come to any of them. A sender is found for as long as its rewritten mailbox is valid;
older files are removed along with the next writes.

A store that several machines share would have a table (day, tag, sender) instead: the row is
written in the transaction that accepts the message, and read before the recipient of a bounce is
expanded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from twisted.logger import Logger

from ..interfaces import Files, WallTime
from ..mail.address import Mailbox
from .srs import has_expired

# 400 MiB with blocks of 4 KiB: 4,700 such senders a day, for 21 days. Providers that write a
# sender of its own for each message need one for each message that is forwarded.
_MOST = 100_000
_INTERVAL = 3600.0  # seconds between two counts of the files, which remove the expired ones
_LARGEST = 4096  # octets that are read of a file: a path has 256

# The second ending is that of a file that is not complete.
_NAME = re.compile(r"([A-Z2-7]{2})-[A-Z2-7]+(\.[0-9a-f]+\.new)?")


class SenderTags:
    """The files of a directory, one for each tag (`srs.TagTable`).

    Args:
        directory: of the files; made by `make_directory`.
        files: the disk.
        secret: returns so many octets that cannot be guessed, for unique names.
        wall_time: seconds since the epoch.
        most: files at most, more or less: each process counts once in an hour.
    """

    _log = Logger()

    def __init__(
        self,
        directory: str,
        *,
        files: Files,
        secret: Callable[[int], bytes],
        wall_time: WallTime,
        most: int = _MOST,
    ) -> None:
        self._directory = directory
        self._files = files
        self._secret = secret
        self._wall_time = wall_time
        self._most = most
        self._count = 0  # of files, as far as this process knows
        self._counted_at: float | None = None  # wall time

    @property
    def has_room(self) -> bool:
        """Whether one more sender may be tagged."""
        return self._count < self._most

    def make_directory(self) -> None:
        """Make the directory. Blocks, and raises `OSError`."""
        self._files.make_directories(self._directory)

    def keep(self, tag: str, sender: Mailbox) -> None:
        """Make a sender durable under its tag. Blocks; several threads may call it at once.

        Raises:
            OSError: the disk refused it.
        """
        self._remove_expired()
        path = os.path.join(self._directory, tag)
        if not self._exists(path):
            self._write(path, f"{sender}\n".encode("utf-8", "surrogatepass"))
        # Also for a file that exists: the process that made it may not have come to this.
        self._files.sync_directory(self._directory)

    def find(self, tag: str) -> Mailbox:
        """Return the sender with a tag. Blocks.

        Raises:
            FileNotFoundError: there is none, or no longer.
            OSError: the disk cannot be read.
            ValueError: the file is damaged.
        """
        with self._files.open(os.path.join(self._directory, tag)) as file:
            content = file.read(_LARGEST)
        return Mailbox.parse(content.decode("utf-8", "surrogatepass").removesuffix("\n"))

    def _exists(self, path: str) -> bool:
        try:
            self._files.open(path).close()
        except FileNotFoundError:
            return False
        return True

    def _write(self, path: str, content: bytes) -> None:
        name = f"{path}.{self._secret(8).hex()}.new"  # unique
        file = self._files.create(name)
        try:
            try:
                file.write(content)
                file.sync()
            finally:
                file.close()
            self._files.rename(name, path)
            self._count += 1
        except FileExistsError:
            pass  # another message of this sender was faster
        finally:
            self._files.unlink(name)

    def _remove_expired(self) -> None:
        now = self._wall_time()
        if self._counted_at is not None and 0 <= now - self._counted_at < _INTERVAL:
            return
        self._counted_at = now
        count = 0
        for name in self._files.names(self._directory):
            match = _NAME.fullmatch(name)
            if match and has_expired(match[1], now):
                self._files.unlink(os.path.join(self._directory, name))
            else:
                count += 1
        self._count = count
        if count >= self._most:
            self._log.warn(
                "{directory} has {count} senders, and takes no more until some have expired:"
                " forwarded mail of other long senders keeps its reverse-path",
                directory=self._directory,
                count=count,
            )
