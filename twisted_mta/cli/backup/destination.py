"""Where a backup is written: a directory or a tar file, which gets its name when it is complete."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, Any, Self

MANIFEST = "backup.json"
"""The last file of a backup: what is in it."""

_PIECE = 1 << 20


class FileChanged(OSError):
    """A file has become shorter while it was copied."""


@contextlib.contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Read and write with the rights of a user in the ``with`` block; root alone can."""
    before = os.geteuid(), os.getegid()
    if before[0] != 0 or user == 0:
        yield
        return
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])


class Destination:
    """A backup that is being written, below a directory ``NAME.incomplete`` of mode 0700.

    Use it as a context: without `finish` nothing is left.

    Args:
        path: the name of the backup; a tar file where it ends in ``.tar``.
        user: the owner of the files.
        group: their group.
        tick: called between two pieces of a file.

    Attributes:
        files: that were written.
        octets: of them.

    Raises:
        FileExistsError: there is one with this name, or an incomplete one.
    """

    def __init__(self, path: str, user: int, group: int, *, tick: Callable[[], object]) -> None:
        self.path = path
        self.files = self.octets = 0
        self._tick = tick
        self._work = f"{path}.incomplete"
        self._user, self._group = user, group
        self._archive: tarfile.TarFile | None = None
        self._file: IO[bytes] | None = None
        self._directories: dict[str, None] = {"": None}
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists; name another one")
        try:
            os.mkdir(self._work, 0o700)
        except FileExistsError:
            raise FileExistsError(
                f"{self._work} exists: a backup is being made, or was broken off; remove it"
            ) from None
        if os.geteuid() == 0:
            os.chown(self._work, user, group)

    def __enter__(self) -> Self:
        return self

    def open(self) -> None:
        """Begin to write."""
        if self.path.endswith(".tar"):
            name = os.path.join(self._work, "archive")
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.fdopen(os.open(name, flags, 0o600), "wb")
            self._archive = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._work, ignore_errors=True)

    @property
    def scratch(self) -> str:
        """A name for a file that is added, and removed, next."""
        return os.path.join(self._work, ".scratch")

    def add_directory(self, name: str, moment: float) -> None:
        """Make a directory, with those above it.

        Args:
            name: below the backup.
            moment: when it was last changed, seconds since the epoch.
        """
        if name in self._directories:
            return
        self.add_directory(os.path.dirname(name), moment)
        self._directories[name] = None
        if self._archive is None:
            os.mkdir(os.path.join(self._work, name), 0o700)
        else:
            entry = self._entry(name, moment)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o700
            self._archive.addfile(entry)

    def add(self, name: str, source: IO[bytes], most: int | None = None) -> None:
        """Write a file, as long as it is now.

        Args:
            name: below the backup.
            source: open at its beginning.
            most: octets of it that are written at the most; None: all.

        Raises:
            OSError: it cannot be read or written, or became shorter meanwhile.
        """
        status = os.fstat(source.fileno())
        self.add_directory(os.path.dirname(name), status.st_mtime)
        size = status.st_size if most is None else min(most, status.st_size)
        pieces = _Pieces(source, size, name, self._tick)
        if self._archive is None:
            path = os.path.join(self._work, name)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            with os.fdopen(os.open(path, flags, 0o600), "wb") as copy:
                shutil.copyfileobj(pieces, copy, _PIECE)
                copy.flush()
                os.fsync(copy.fileno())
            os.utime(path, (status.st_mtime, status.st_mtime))
        else:
            entry = self._entry(name, status.st_mtime)
            entry.size = size
            self._archive.addfile(entry, pieces)
        self.files += 1
        self.octets += size

    def _entry(self, name: str, moment: float) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name)
        entry.uid, entry.gid, entry.mode, entry.mtime = self._user, self._group, 0o600, moment
        return entry

    def finish(self, manifest: Mapping[str, Any], moment: float) -> None:
        """Write the manifest, and wait until all is on the disk."""
        content = json.dumps(manifest, indent=2).encode("ascii") + b"\n"
        if self._archive is not None and self._file is not None:
            entry = self._entry(MANIFEST, moment)
            entry.size = len(content)
            self._archive.addfile(entry, io.BytesIO(content))
            self._archive.close()
            self._file.flush()
            os.fsync(self._file.fileno())
            return
        path = os.path.join(self._work, MANIFEST)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        for name in self._directories:
            _sync_directory(os.path.join(self._work, name))

    def take_name(self) -> None:
        """Give it its name, now that it is complete."""
        whole = self._work if self._archive is None else os.path.join(self._work, "archive")
        if os.path.lexists(self.path):
            raise FileExistsError(f"{self.path} exists now; name another one")
        os.rename(whole, self.path)
        _sync_directory(os.path.dirname(os.path.abspath(self.path)))


class _Pieces(io.RawIOBase):
    """So many octets of a file."""

    def __init__(self, source: IO[bytes], size: int, name: str, tick: Callable[[], object]) -> None:
        self._source = source
        self._left = size
        self._name = name
        self._tick = tick

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        self._tick()
        piece = self._source.read(min(_PIECE if size < 0 else size, self._left))
        self._left -= len(piece)
        if not piece and self._left:
            raise FileChanged(f"{self._name} has become shorter while it was copied; try again")
        return piece


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
