"""The content of a message to send: read once to measure it, and again to send it."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from email.message import Message as EmailMessage
from tempfile import TemporaryFile
from typing import IO

from attrs import field, frozen

from ..message.application_content import Content, check_type
from ..message.flattening import Part, fold, snapshot
from ..message.flattening import pieces as pieces_of
from ..message.header_scanner import HeaderScanner
from ..smtp.data import NewlineNormalizer

_PIECE = 32_768  # octets that are read at a time: less than a millisecond of work


@frozen(eq=False)
class MeasuredBody:
    """A content with CR LF line ends (`mail.body.Body`); it is read where it is, piece by piece.

    Attributes:
        size: its octets.
        eight_bit: whether octets over 127 are among them.
        utf8_header: whether its header section is UTF-8 beyond ASCII (RFC 6532).
    """

    size: int
    eight_bit: bool
    utf8_header: bool
    _pieces: Callable[[], Iterator[bytes]] = field(repr=False)
    _close: Callable[[], object] = field(repr=False)

    def chunks(self) -> Iterator[bytes]:
        """Yield the content from its beginning.

        Raises:
            OSError: the file cannot be read.
        """
        return _normalized(self._pieces())

    def close(self) -> None:
        """Remove the copy of a file that cannot be read twice."""
        self._close()


Source = Part | memoryview | IO[bytes]
"""A content as it is read: a message object, octets, or a file."""


def source_of(content: Content, *, new_boundary: Callable[[], str]) -> Source:
    """Return what a content is read from. A message object may change afterwards.

    Args:
        content: the message.
        new_boundary: returns a text that occurs in no message.

    Raises:
        TypeError: it cannot be a message.
    """
    check_type(content)
    if isinstance(content, EmailMessage):
        return snapshot(content, new_boundary)
    if isinstance(content, bytes | bytearray | memoryview):
        return memoryview(content).cast("B")
    return content


def measured(source: Source) -> MeasuredBody:
    """Return a content with its measures. Blocks, for some 5 ms for each MiB.

    Nothing may change octets or file until the content is sent. A file is read from where it
    stands, twice if it can be sought in; otherwise a copy is made of it in a temporary file.

    Raises:
        TypeError: the file is not binary.
        ValueError: a field of the message object has several lines.
        OSError: the file cannot be read.
        Exception: the message object cannot be flattened.
    """
    if isinstance(source, Part):
        fold(source)
        return _measured(lambda: pieces_of(source), _nothing)
    if isinstance(source, memoryview):
        return _measured(lambda: _of_memory(source), _nothing)
    seekable = getattr(source, "seekable", None)
    if seekable is not None and seekable():
        start = source.tell()
        return _measured(lambda: _of_file(source, start), _nothing)
    copy = TemporaryFile()  # noqa: SIM115 - `MeasuredBody.close` closes it
    try:
        for piece in _read(source):
            copy.write(piece)
        return _measured(lambda: _of_file(copy, 0), copy.close)
    except BaseException:
        copy.close()
        raise


def _measured(pieces: Callable[[], Iterator[bytes]], close: Callable[[], object]) -> MeasuredBody:
    size, eight_bit = 0, False
    header = HeaderScanner()
    decoder = codecs.getincrementaldecoder("utf-8")()
    utf8 = True
    for piece in _normalized(pieces()):
        eight_bit = eight_bit or not piece.isascii()
        if not header.ended:
            header.feed(piece)
            utf8 = utf8 and _is_utf8(decoder, piece[: max(0, header.size - size)])
        size += len(piece)
    return MeasuredBody(size, eight_bit, utf8 and not header.is_ascii, pieces, close)


def _is_utf8(decoder: codecs.IncrementalDecoder, octets: bytes) -> bool:
    try:
        decoder.decode(octets)
    except UnicodeDecodeError:
        return False
    return True


def _normalized(pieces: Iterator[bytes]) -> Iterator[bytes]:
    normalizer = NewlineNormalizer()
    for piece in pieces:
        if octets := normalizer.feed(piece):
            yield octets
    if octets := normalizer.end():
        yield octets


def _of_memory(octets: memoryview) -> Iterator[bytes]:
    for start in range(0, len(octets), _PIECE):
        yield bytes(octets[start : start + _PIECE])


def _of_file(file: IO[bytes], start: int) -> Iterator[bytes]:
    try:
        file.seek(start)
    except ValueError as error:  # it is closed
        raise OSError(str(error)) from None
    yield from _read(file)


def _read(file: IO[bytes]) -> Iterator[bytes]:
    while True:
        try:
            piece = file.read(_PIECE)
        except ValueError as error:
            raise OSError(str(error)) from None
        if not isinstance(piece, bytes):
            raise TypeError("message: found a file of text, expected a binary file")
        if not piece:
            return
        yield piece


def _nothing() -> None:
    """Close nothing: the content is the caller's."""
