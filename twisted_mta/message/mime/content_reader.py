"""A content that arrives in chunks, cut into header sections, bodies and delimiter lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from .entity import LONGEST_BOUNDARY

LONGEST_HEADER = 1 << 20
"""Octets of one header section; a longer one is not parsed. A listener takes 1 MiB at most by
default (`max_header_size`), and body parts have a few hundred octets."""

# RFC 2046 §5.1.1: a delimiter line is the boundary between dashes, then white space.
_LONGEST_PADDING = 900
_LONGEST_DELIMITER = 998

# The line end before a line that may end a header section: an empty line or a delimiter.
_LAST_LINE_END = re.compile(rb"\r\n(?=\r\n|--)")


@frozen
class OpenMultipart:
    """A multipart whose closing delimiter is still to come.

    Attributes:
        boundary: the whole text of its delimiter lines between the dashes. RFC 2046 §5.1.1 would
            let a line go on behind the boundary; but then no boundary could begin with another.
        default: the content type of parts without a Content-Type field.
        number: the number of the header section that names the boundary.
    """

    boundary: bytes
    default: str
    number: int


@frozen
class DelimiterLine:
    """A delimiter line in the content.

    Attributes:
        octets: the line with the line ends around it.
        level: the index of its multipart in `ContentReader.multiparts`; 0 is the outermost.
        closing: Whether it is the last delimiter of that multipart.
    """

    octets: bytes
    level: int
    closing: bool


class ContentReader:
    """Read header sections and bodies in turn from chunks that are cut anywhere.

    The reader jumps from one line that begins like a delimiter to the next, and looks at each octet
    a few times, however many parts and multiparts there are.

    Attributes:
        multiparts: the multiparts that are open, the outermost first.
        delimiter: the line that ended the last body; None at the end of the content.
    """

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self.multiparts: list[OpenMultipart] = []
        self.delimiter: DelimiterLine | None = None
        self._levels: dict[bytes, int] = {}  # from the boundary to the index in `multiparts`
        # From the beginning of a delimiter, the innermost first, to the offset in the content
        # before which none is left that begins so: each octet is searched once for each of them.
        self._ahead: dict[bytes, int] = {}
        self._taken = 0  # octets of the content that were returned
        self._chunks = chunks
        self._buffer = bytearray()  # octets that were read and not yet returned
        self._at_line_start = True  # whether the buffer begins at the start of a line

    def enter(self, multipart: OpenMultipart) -> None:
        """Open a multipart inside those that are open."""
        self.multiparts.append(multipart)
        self._index()

    def leave(self, level: int) -> None:
        """Close the multipart at ``level`` and all inside it."""
        del self.multiparts[level:]
        self._index()

    def _index(self) -> None:
        # The innermost comes last and wins where two boundaries are the same.
        self._levels = {each.boundary: level for level, each in enumerate(self.multiparts)}
        starts = [b"\r\n--" + boundary for boundary in reversed(self._levels)]
        self._ahead = {each: self._ahead.get(each, 0) for each in starts}

    def header(self) -> tuple[bytes, Literal["line", "delimiter", "end", "length"]]:
        """Return a header section, and why it ended.

        ``line``: at an empty line, which is included. ``delimiter``: before a delimiter; the line
        end before that stays with the last field. ``length``: it is too long. ``end``: with the
        content.
        """
        buffer = self._buffer
        line = searched = 0
        at_end = False
        while True:
            if buffer.startswith(b"\r\n", line):
                return self._take(line + 2), "line"
            delimiter = self._delimiter(line, line, at_end=at_end)
            if isinstance(delimiter, DelimiterLine):
                return self._take(line), "delimiter"
            match = _LAST_LINE_END.search(buffer, searched) if delimiter == "none" else None
            searched = match.start() + 2 if match else max(searched, len(buffer) - 3)
            if searched > LONGEST_HEADER:
                end = buffer.rfind(b"\r\n", 0, LONGEST_HEADER) + 2
                return self._take(end if end >= 2 else LONGEST_HEADER), "length"
            if match is not None:
                line = searched
                continue
            if at_end:
                return self._take(len(buffer)), "end"
            at_end = not self._read_chunk()

    def body(self) -> Iterator[bytes]:
        """Yield the octets before the next delimiter, in pieces, and set `delimiter` to it."""
        buffer = self._buffer
        self.delimiter = None
        # At the beginning of a body, a delimiter needs no line end before it.
        first, at_end = self._at_line_start, False
        while True:
            begin = 0
            delimiter = self._delimiter(0, 0, at_end=at_end) if first else "none"
            searched = 0
            while delimiter == "none":
                begin = self._next_candidate(searched)
                if begin < 0:
                    begin = len(buffer) if at_end else self._without_candidate()
                    break
                delimiter = self._delimiter(begin, begin + 2, at_end=at_end)
                searched = begin + 2
            if begin:
                first = False
                yield self._take(begin)
            if isinstance(delimiter, DelimiterLine):
                self.delimiter = delimiter
                self._take(len(delimiter.octets))
                return
            if at_end:
                return
            at_end = not self._read_chunk()

    def _delimiter(
        self, begin: int, line: int, *, at_end: bool
    ) -> DelimiterLine | Literal["none", "unfinished"]:
        """Return the delimiter line at an offset of the buffer.

        Args:
            begin: the offset of the line end before it; ``line`` where there is none.
            line: the offset of the line.
            at_end: Whether the buffer holds the rest of the content.
        """
        buffer = self._buffer
        if not self.multiparts:
            return "none"
        if not buffer.startswith(b"--", line):
            half = b"--".startswith(bytes(buffer[line : line + 2]))
            return "unfinished" if half and not at_end else "none"
        end = buffer.find(b"\r\n", line, line + _LONGEST_DELIMITER + 2)
        if end < 0:
            end = len(buffer)
            if not at_end and end - line <= _LONGEST_DELIMITER + 1:
                return "unfinished"
        if end - line > _LONGEST_DELIMITER:
            return "none"
        padded = bytes(buffer[line + 2 : end])
        text = padded.rstrip(b" \t")
        if len(padded) - len(text) > _LONGEST_PADDING:
            return "none"
        level, closing = self._levels.get(text, -1), False
        if text.endswith(b"--"):
            # A boundary may itself end in dashes, like the end of another: the innermost wins.
            other = self._levels.get(text[:-2], -1)
            if other > level:
                level, closing = other, True
        if level < 0:
            return "none"
        return DelimiterLine(bytes(buffer[begin : end + 2]), level, closing)

    def _next_candidate(self, start: int) -> int:
        """Return the offset of the next line end before a line like a delimiter; -1: none."""
        buffer, taken = self._buffer, self._taken
        first, size = -1, len(buffer)
        for line, ahead in self._ahead.items():
            offset = ahead - taken if ahead - taken > start else start
            if offset + len(line) > size or 0 <= first <= offset:
                continue
            if not buffer.startswith(line, offset):
                match = buffer.find(line, offset)
                offset = match if match >= 0 else size - len(line) + 1
                self._ahead[line] = taken + offset
                if match < 0 or 0 <= first < match:
                    continue
            first = offset
        return first

    def _without_candidate(self) -> int:
        """Return how many octets of the buffer no delimiter can begin in."""
        buffer = self._buffer
        last = buffer.rfind(b"\r", max(0, len(buffer) - LONGEST_BOUNDARY - 4))
        if last >= 0 and any(line.startswith(bytes(buffer[last:])) for line in self._ahead):
            return last
        return len(buffer)

    def _read_chunk(self) -> bool:
        """Add a chunk to the buffer; return whether there was one."""
        chunk = next(self._chunks, None)
        if chunk is None:
            return False
        self._buffer += chunk
        return True

    def _take(self, octets: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[:octets]
        self._taken += len(taken)
        if taken:
            self._at_line_start = taken.endswith(b"\r\n")
        return taken
