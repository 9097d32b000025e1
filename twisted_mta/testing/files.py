"""A disk in memory that loses in a power cut whatever was not synced (`interfaces.Files`).

It keeps no more than POSIX demands: the content of a file is durable after its own sync alone, a
name (or its removal) after a sync of its directory alone.
"""

from __future__ import annotations

import errno
import io
import os
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import IO

from attrs import Factory, define

from ..interfaces import Space
from . import inventory


class PowerCut(OSError):
    """The power is off: every operation raises this, until `UnsyncedFiles.crash`."""

    def __init__(self) -> None:
        super().__init__(errno.EIO, "power cut")


@define(eq=False)
class _File:
    content: bytearray = Factory(bytearray)
    synced: bytes = b""


@define(eq=False)
class _Directory:
    names: dict[str, _File | _Directory] = Factory(dict)
    synced: dict[str, _File | _Directory] = Factory(dict)


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


class UnsyncedFiles:
    """A disk in memory; relative paths start at its root.

    Args:
        syncs: Whether a sync makes anything durable; False: it only pretends to.
        capacity: the octets of content that fit on the disk, beyond which a write raises ENOSPC;
            None: no limit. Directories take no space.

    Attributes:
        operations: (operation, path) of each call, in order.
        open_files: the paths of the files that are open, in the order of their opening.
        watch: called with (operation, path) of each call before it does anything; None: nothing is.
        powered_off: called when the power goes off (`cut_power_in`), before the operation that
            it ends raises `PowerCut`; None: nothing is.
        steady: whether the power stays on for now, and operations do not count for `cut_power_in`.
    """

    watch: Callable[[str, str], object] | None = None
    powered_off: Callable[[], object] | None = None
    steady = False

    def __init__(self, *, syncs: bool = True, capacity: int | None = None) -> None:
        self.syncs = syncs
        self.capacity = capacity
        self.operations: list[tuple[str, str]] = []
        self.open_files: list[str] = []
        self._root = _Directory()
        self._failures: dict[str, deque[OSError]] = {}
        self._power_cut_in: int | None = None
        self._powered = True
        self._lives = count()
        self._life = next(self._lives)
        inventory.add(self)

    # For the test.

    def fail_next(self, operation: str, error: OSError, *, after: int = 0) -> None:
        """Make the next ``operation`` do nothing but raise ``error``.

        Args:
            operation: the name of a method of `interfaces.Files` or `interfaces.WritableFile`; or
                ``rename's unlink``, after which both names exist.
            error: the exception.
            after: the number of operations of that name that succeed before.
        """
        waiting = self._failures.setdefault(operation, deque())
        waiting.extend([_SUCCESS] * after)
        waiting.append(error)

    def cut_power_in(self, operations: int) -> None:
        """Let the next ``operations`` succeed, and none after them, until `crash`."""
        self._power_cut_in = operations

    def mend(self) -> None:
        """Let no operation fail any more; the disk is as large as it needs."""
        self.capacity = self._power_cut_in = None
        self._failures.clear()

    def crash(self) -> None:
        """Lose everything that was not synced, close all files, and restore the power."""
        self._power_cut_in = None
        self._powered = True
        self._life = next(self._lives)
        self._failures.clear()
        self.open_files.clear()
        self._forget(self._root)

    def left_open(self) -> list[str]:
        """Return the paths of the files that are open (`inventory.Double`)."""
        return list(self.open_files)

    def has(self, path: str) -> bool:
        """Whether there is a file or directory."""
        try:
            self._node(path)
        except OSError:
            return False
        return True

    @property
    def used(self) -> int:
        """The octets of content on the disk."""
        return sum(len(self._file(path).content) for path in self.tree())

    def content(self, path: str) -> bytes:
        """Return the content of a file."""
        return bytes(self._file(path).content)

    def tree(self, path: str = "/") -> list[str]:
        """Return the absolute paths of all files below a directory, sorted."""
        paths: list[str] = []
        waiting = [(os.path.join("/", path).rstrip("/"), self._directory(path))]
        while waiting:
            above, directory = waiting.pop()
            for name, node in directory.names.items():
                if isinstance(node, _Directory):
                    waiting.append((f"{above}/{name}", node))
                else:
                    paths.append(f"{above}/{name}")
        return sorted(paths)

    # interfaces.Files

    def create(self, path: str) -> UnsyncedFile:
        """Open a new file for writing."""
        self._begin("create", path)
        directory, name = self._place(path)
        if name in directory.names:
            raise _error(errno.EEXIST, path)
        file = directory.names[name] = _File()
        self.open_files.append(path)
        return UnsyncedFile(self, path, file)

    def open(self, path: str) -> IO[bytes]:
        """Open an existing file for reading its present content."""
        self._begin("open", path)
        return _OpenFile(self, path)

    def rename(self, old: str, new: str) -> OSError | None:
        """Move a file, replacing none; return the error that kept its old name (`fail_next`)."""
        self._begin("rename", old)
        file = self._file(old)
        directory, name = self._place(new)
        if name in directory.names:
            raise _error(errno.EEXIST, new)
        directory.names[name] = file
        try:
            self._fail("rename's unlink")
        except OSError as error:
            return error
        directory, name = self._place(old)
        del directory.names[name]
        return None

    def replace(self, old: str, new: str) -> None:
        """Move a file, in place of the one that has the name, if any."""
        self._begin("replace", old)
        file = self._file(old)
        directory, name = self._place(new)
        if isinstance(directory.names.get(name), _Directory):
            raise _error(errno.EISDIR, new)
        directory.names[name] = file
        directory, name = self._place(old)
        del directory.names[name]

    def unlink(self, path: str) -> None:
        """Remove a file, if it exists."""
        self._begin("unlink", path)
        directory, name = self._place(path)
        if isinstance(directory.names.get(name), _Directory):
            raise _error(errno.EISDIR, path)
        directory.names.pop(name, None)

    def is_directory(self, path: str) -> bool:
        """Whether ``path`` is a directory."""
        self._begin("is_directory", path)
        try:
            self._directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def identity(self, path: str) -> tuple[int, int]:
        """Return numbers that identify a file or directory."""
        self._begin("identity", path)
        return 0, id(self._node(path))

    def make_directories(self, path: str) -> None:
        """Make a directory and its missing parents, each synced in its parent."""
        self._begin("make_directories", path)
        directory = self._root
        for name in _parts(path):
            below = directory.names.get(name)
            if below is None:
                below = directory.names[name] = _Directory()
                if self.syncs:
                    directory.synced[name] = below
            if isinstance(below, _File):
                raise _error(errno.ENOTDIR, path)
            directory = below

    def mailbox_fault(self, root: str, path: str) -> str:
        """Return no fault: no other program can change this disk."""
        return ""

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        self._begin("names", path)
        return sorted(self._directory(path).names)

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory, and removals from it, survive a crash."""
        self._begin("sync_directory", path)
        directory = self._directory(path)
        if self.syncs:
            directory.synced = dict(directory.names)

    def free(self, path: str) -> int:
        """Return the free octets of ``capacity``."""
        self._begin("free", path)
        self._directory(path)
        return 1 << 40 if self.capacity is None else max(0, self._room())

    def space(self, path: str) -> Space:
        """Return the free octets; there are always inodes."""
        return Space(self.free(path), None, 0)

    # Called by UnsyncedFile too.

    def _begin(self, operation: str, path: str) -> None:
        self.operations.append((operation, path))
        if self._power_cut_in is not None and not self.steady:
            was_powered, self._powered = self._powered, self._power_cut_in > 0
            self._power_cut_in -= 1
            if was_powered and not self._powered and self.powered_off is not None:
                self.powered_off()
        if not self._powered:
            raise PowerCut
        if self.watch is not None:
            self.watch(operation, path)
        self._fail(operation)

    def _fail(self, operation: str) -> None:
        waiting = self._failures.get(operation)
        if waiting and (error := waiting.popleft()) is not _SUCCESS:
            raise error

    def _room(self) -> int:
        assert self.capacity is not None
        return self.capacity - self.used

    def _forget(self, directory: _Directory) -> None:
        directory.names = dict(directory.synced)
        for node in directory.names.values():
            if isinstance(node, _Directory):
                self._forget(node)
            else:
                node.content = bytearray(_torn(node.synced, node.content))

    def _node(self, path: str) -> _File | _Directory:
        node: _File | _Directory = self._root
        for name in _parts(path):
            if not isinstance(node, _Directory):
                raise _error(errno.ENOTDIR, path)
            if name not in node.names:
                raise _error(errno.ENOENT, path)
            node = node.names[name]
        return node

    def _directory(self, path: str) -> _Directory:
        node = self._node(path)
        if not isinstance(node, _Directory):
            raise _error(errno.ENOTDIR, path)
        return node

    def _file(self, path: str) -> _File:
        node = self._node(path)
        if not isinstance(node, _File):
            raise _error(errno.EISDIR, path)
        return node

    def _place(self, path: str) -> tuple[_Directory, str]:
        *above, name = _parts(path)
        return self._directory("/".join(above)), name


_SECTOR = 16  # octets: files of tests are small
_SUCCESS = OSError()  # stands for an operation that succeeds, in a queue of failures


def _parts(path: str) -> list[str]:
    return [name for name in os.path.normpath(os.path.join("/", path)).split("/") if name]


def _torn(synced: bytes, content: bytes | bytearray) -> bytes:
    """Return what a power cut leaves of a file.

    Of unsynced octets in the place of synced ones, every other sector is there; those behind the
    synced ones are lost.
    """
    torn = bytearray(synced)
    for start in range(_SECTOR, min(len(synced), len(content)), 2 * _SECTOR):
        torn[start : start + _SECTOR] = content[start : min(start + _SECTOR, len(synced))]
    return bytes(torn)


class _OpenFile(io.BytesIO):
    """A file that is open for reading."""

    def __init__(self, files: UnsyncedFiles, path: str) -> None:
        super().__init__(files.content(path))
        self._open_files = files.open_files
        self._path = path
        self._open_files.append(path)

    def close(self) -> None:
        if not self.closed and self._path in self._open_files:
            self._open_files.remove(self._path)
        super().close()


class UnsyncedFile:
    """A file of an `UnsyncedFiles` that is open for writing (`interfaces.WritableFile`)."""

    def __init__(self, files: UnsyncedFiles, path: str, file: _File) -> None:
        self._files = files
        self._path = path
        self._file = file
        self._place = 0
        self._life: int | None = files._life

    def write(self, content: bytes) -> None:
        """Write ``content``; if not all of it fits, write what fits and raise ENOSPC."""
        self._begin("write")
        room = len(content)
        if self._files.capacity is not None:
            room = max(0, self._files._room() + len(self._file.content) - self._place)
        written = content[:room]
        self._file.content[self._place : self._place + len(written)] = written
        self._place += len(written)
        if len(content) > room:
            raise _error(errno.ENOSPC, self._path)

    def sync(self) -> None:
        """Make the content survive a crash, but not the name."""
        self._begin("sync")
        if self._files.syncs:
            self._file.synced = bytes(self._file.content)

    def close(self) -> None:
        """Close the file, even if that raises an error."""
        if self._life == self._files._life:
            self._files.open_files.remove(self._path)
        self._life = None
        self._files._fail("close")

    def read(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` octets from ``offset`` on; empty: the file ends there."""
        self._begin("read")
        return bytes(self._file.content[offset : offset + size])

    def rewind(self) -> None:
        """Overwrite the file from its beginning by the next writes."""
        self._begin("rewind")
        self._place = 0

    def truncate(self, size: int) -> None:
        """End the file after ``size`` octets."""
        self._begin("truncate")
        del self._file.content[size:]

    def has_name(self) -> bool:
        """Whether the file has its name still."""
        if self._life != self._files._life:
            raise _error(errno.EBADF, self._path)
        try:
            return self._files._node(self._path) is self._file
        except OSError:
            return False

    def _begin(self, operation: str) -> None:
        if self._life != self._files._life:
            raise _error(errno.EBADF, self._path)
        self._files._begin(operation, self._path)
