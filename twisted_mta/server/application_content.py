"""The content of mail that the application hands over, in pieces with CR LF line ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from email.message import Message as EmailMessage
from typing import Any

from twisted.internet.defer import Deferred

from ..interfaces import Executor
from ..message.application_content import Content, check_type
from ..message.flattening import Part, fold, pieces, snapshot
from ..smtp.data import NewlineNormalizer
from ..system.work import Work

_PIECE = 32_768  # octets that are written in one go: less than a millisecond
_READ = 262_144  # octets that are read from a file in one call

Run = Callable[[Work[Any]], "Deferred[Any]"]
"""Runs a computation in slices (`system.slices.Sliced.work`)."""

Write = Callable[[bytes], "Deferred[Any] | None"]
"""Takes a piece; the next one waits for a Deferred that it returns."""


class ApplicationContent:
    """A content of the application.

    A message object is read here: it may change afterwards. Octets that can be changed, and a file,
    must be left alone until all is passed on.

    Args:
        content: the message.
        limit: octets that it may have.
        new_boundary: returns a text that occurs in no message.

    Raises:
        TypeError: it cannot be a message.
        ValueError: it is larger than the limit.
    """

    def __init__(self, content: Content, *, limit: int, new_boundary: Callable[[], str]) -> None:
        check_type(content)
        self._limit = limit
        self._left = limit
        self._normalizer = NewlineNormalizer()
        self._source: Part | memoryview | Any
        if isinstance(content, EmailMessage):
            self._source = snapshot(content, new_boundary)
        elif isinstance(content, bytes | bytearray | memoryview):
            self._source = memoryview(content).cast("B")
            if len(self._source) > limit:
                raise self._too_large()
        else:
            self._source = content

    async def pass_on(self, write: Write, *, executor: Executor, run: Run) -> None:
        """Write it in pieces, in the reactor's thread; once.

        Args:
            write: takes a piece.
            executor: runs what blocks, or takes long.
            run: runs the rest in slices.

        Raises:
            TypeError: the file is not binary.
            ValueError: it is larger than the limit, or has a field of several lines.
            Exception: the file cannot be read, or the message object cannot be flattened.
        """
        source = self._source
        if isinstance(source, Part):
            await executor(fold, source)
            await self._write(pieces(source), write, run)
        elif isinstance(source, memoryview):
            await self._write(_cut(source), write, run)
        else:
            while True:
                octets = await executor(source.read, _READ)
                if not isinstance(octets, bytes):
                    raise TypeError("message: found a file of text, expected a binary file")
                if not octets:
                    break
                await self._write(_cut(memoryview(octets)), write, run)
        pending = self._write_one(self._normalizer.end(), write)
        if pending is not None:
            await pending

    async def _write(self, source: Iterator[bytes], write: Write, run: Run) -> None:
        waiting: list[Deferred[Any]] = []
        await run(self._write_some(source, write, waiting))
        while waiting:
            await waiting.pop()
            await run(self._write_some(source, write, waiting))

    def _write_some(
        self, source: Iterator[bytes], write: Write, waiting: list[Deferred[Any]]
    ) -> Work[None]:
        """Write pieces until there are no more, or one has to be waited for."""
        for piece in source:
            pending = self._write_one(self._normalizer.feed(piece), write)
            if pending is not None:
                waiting.append(pending)
                return
            yield

    def _write_one(self, piece: bytes, write: Write) -> Deferred[Any] | None:
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        return write(piece) if piece else None

    def _too_large(self) -> ValueError:
        return ValueError(
            f"message: found a content that is too large, expected at most {self._limit:,} octets"
        )


def _cut(octets: memoryview) -> Iterator[bytes]:
    for start in range(0, len(octets), _PIECE):
        yield bytes(octets[start : start + _PIECE])
