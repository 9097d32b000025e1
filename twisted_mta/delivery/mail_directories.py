"""Notice that a directory with mail was unmounted, so that nothing is written in its place.

Where a file system was unmounted its mount point remains, as another, empty directory. Mail that is
delivered there would be hidden as soon as the file system is mounted again.
"""

from __future__ import annotations

import os
from contextlib import suppress

from ..interfaces import Files
from ..mail.reply import Reply
from .mailbox_directory import NoMailbox

GONE = Reply.of(451, "3.0", "The mailboxes are not there now")

MOST_REMEMBERED = 4096
"""Maildirs at the most; some 300 octets each."""

_MOST_COMPARED = 20  # directories of domains and mailboxes by which a root is recognized

Identity = tuple[int, int]
"""Device and inode of a directory (`interfaces.Files.identity`)."""


class MailDirectories:
    """The root of all Maildirs, and the directories below it that had mail; calls block.

    Args:
        root: the path of the root.
        files: the disk.
    """

    def __init__(self, root: str, *, files: Files) -> None:
        self.root = root
        self._files = files
        self._lowest = root  # the root, or what existed above it at the start
        self._known: dict[str, Identity] = {}  # the newest last

    @property
    def above(self) -> tuple[str, str]:
        """The root, and the directory above it that existed at the start."""
        return self._lowest, self.root

    def start(self) -> None:
        """Remember the root, or the directory that it will be created in."""
        lowest = self.root
        with suppress(OSError):  # deliveries report it
            while not self._files.is_directory(lowest):
                lowest = os.path.dirname(lowest) or os.curdir
            self._known[lowest] = self._files.identity(lowest)
            self._lowest = lowest

    def remember(self, directories: dict[str, Identity]) -> None:
        """Add directories that mail is delivered to."""
        self._known.update(directories)
        while len(self._known) > 2 * MOST_REMEMBERED:
            above = self.above
            self._known.pop(next(each for each in list(self._known) if each not in above), None)

    def check(self, *directories: str) -> None:
        """Check that no known directory was replaced by another one.

        A directory other than the root may be removed, and is created again. An empty one in its
        place is left alone.

        Raises:
            NoMailbox: a directory is gone for now.
            OSError: a directory cannot be examined.
        """
        for directory in directories:
            self._check(directory)

    def _check(self, directory: str) -> None:
        before = self._known.get(directory)
        if before is None:
            return
        try:
            now = self._files.identity(directory)
        except FileNotFoundError:
            if directory not in self.above:
                return
        else:
            if now == before or self._has_mail(directory, now, before):
                self._known[directory] = now
                return
        raise NoMailbox(GONE)

    def _has_mail(self, directory: str, now: Identity, before: Identity) -> bool:
        """Whether a directory with another identity than before is one with mail.

        A file system that is mounted again may have another device number; inodes stay.
        """
        if directory not in self.above:
            return now[1] == before[1] or bool(self._files.names(directory))
        below = [each for each in list(self._known.items()) if each[0] not in self.above]
        for path, (_, inode) in below[-_MOST_COMPARED:]:
            with suppress(FileNotFoundError):
                if self._files.identity(path)[1] == inode:
                    return True
        return False
