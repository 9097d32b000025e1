"""A table that a file of the operator defines: parsed again only when the file has changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Generic

from attrs import define, field, frozen

from .slices import _T, Pace
from .work import Work

Digests = Mapping[str, str]
"""SHA-256 of the content of files, in hex, by path."""


NOTHING: Digests = {}


@frozen
class Source:
    """What a table was parsed from.

    Attributes:
        path: of the file; None: no file, and an empty table.
        settings: all else that decides how the file is parsed.
        digest: of the content.
    """

    path: str | None = None
    settings: Any = None
    digest: str = ""


@define(eq=False)
class FileReading(Generic[_T]):
    """A file that was read, and may have been parsed.

    Attributes:
        source: the file with its settings.
        content: of the file; None once it is parsed.
        table: None until it is parsed.
    """

    source: Source
    content: bytes | None = field(default=None, repr=False)
    table: _T | None = field(default=None, repr=False)


class FileTable(Generic[_T]):
    """A table that a file of the operator defines.

    Args:
        empty: returns the table for no file.
        read: returns the content of a file; blocks.
        parse: parses content, with the path and the settings, into a table.

    Attributes:
        value: the table in force.
    """

    def __init__(
        self,
        empty: Callable[[], _T],
        read: Callable[[str], bytes],
        parse: Callable[[bytes, str, Any], Work[_T]],
    ) -> None:
        self.value = empty()
        self._empty = empty
        self._read = read
        self._parse = parse
        self._source = Source()

    async def read(
        self, path: str | None, settings: Any, pace: Pace, checked: Digests
    ) -> FileReading[_T]:
        """Read a file; the table in force stays.

        Args:
            path: of the file; None: no file.
            settings: all else that decides how the file is parsed.
            pace: runs the reading and parsing.
            checked: the digests of files that another process has parsed with the same settings
                without an error. They are parsed in `complete`: so only one process at a time
                holds two tables.

        Raises:
            Exception: of ``read`` or ``parse``: the file cannot be read, or is not valid.
        """
        if path is None:
            return FileReading(Source(), table=self._empty())
        content, digest = await pace.call(self._content, path)
        reading: FileReading[_T] = FileReading(Source(path, settings, digest))
        if reading.source == self._source:
            reading.table = self.value
            return reading
        reading.content = content
        if checked.get(path) != digest:
            await self.complete(reading, pace)
        return reading

    async def complete(self, reading: FileReading[_T], pace: Pace) -> _T:
        """Return the table of a file that was read, parsing it if that was left for later."""
        if reading.content is not None:
            path = reading.source.path or ""
            work = self._parse(reading.content, path, reading.source.settings)
            reading.table = await pace.work(work)
            reading.content = None
        assert reading.table is not None
        return reading.table

    def use(self, reading: FileReading[_T]) -> _T:
        """Put a complete table in force; return the one before it."""
        before, self.value = self.value, self.value if reading.table is None else reading.table
        self._source = reading.source
        return before

    def _content(self, path: str) -> tuple[bytes, str]:
        content = self._read(path)
        return content, sha256(content).hexdigest()


def digests(*readings: FileReading[Any]) -> Digests:
    """Return the digests of files that were read."""
    sources = (reading.source for reading in readings)
    return {source.path: source.digest for source in sources if source.path is not None}
