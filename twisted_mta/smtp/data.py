"""The framing of message content: DATA (RFC 5321 §4.1.1.4, §4.5.2) and BDAT (RFC 3030 §2).

After DATA only CR LF ``.`` CR LF ends a message. All that looks similar, with a bare CR, a bare LF
or a NUL, is content. Such octets are noticed, because another program may take them for the end
(SMTP smuggling): content with them is refused or normalized, and never passed on as it came. In
normalized content all line ends are CR LF, so a line of one dot is stuffed again on its way out.
"""

from __future__ import annotations

import re

from ..mail.leading_dot import leading_dot

# As numbers: `in` takes a tenth of the time that it takes for octets.
_CR, _LF, _NUL = b"\r\n\0"

_DOT = b"\r\n."  # at the beginning of a line
_END = b"\r\n.\r\n"
_PARTS = (b"\r", b"\n", b".")  # octets of `_END`
_FALSE_END = re.compile(rb"[\r\n]\.(?:\r\n?|\n)\Z")
_SEVERAL_CRS = re.compile(rb"(?<!\r)\r\r++\n")
_LONGEST_LINE = 998  # RFC 5321 §4.5.3.1.6: 1000 octets with CR LF


class _Watch:
    """A watch for octets that another program may take for the end of a line or message.

    Attributes:
        bare: whether a CR or LF outside CR LF, or a NUL, has been seen.
        long: whether a line of more than 998 octets has been seen, if that is looked for.
    """

    def __init__(self, *, look_for_long_lines: bool = False) -> None:
        self.bare = False
        self.long = False
        self._line: bytes | None = b"" if look_for_long_lines else None

    def _look(self, content: bytes) -> None:
        """Look at a piece of the content that does not end between CR and LF."""
        if not self.bare:
            # Passes in C, without an object for each line.
            rest = content.replace(b"\r\n", b"  ")
            self.bare = _CR in rest or _LF in rest or _NUL in rest
        if self._line is not None and content and not self.long:
            self._measure(self._line + content)

    def _measure(self, text: bytes) -> None:
        """Look for long lines in text that begins with a line, and keep the one that has no end."""
        # A bare CR or LF ends a line here too: it becomes a line end, or the message is refused.
        # Split and measured, because a search for 999 octets in a row is quadratic in their length.
        lines = text.splitlines()
        self.long = max(map(len, lines)) > _LONGEST_LINE
        unended = not text.endswith((b"\r", b"\n"))
        self._line = lines[-1][-_LONGEST_LINE - 1 :] if unended else b""


class DataReader(_Watch):
    """A reader of the content of one message after DATA, wherever TCP splits it.

    Attributes:
        finished: whether the end has been seen.
        bare: whether a CR or LF outside CR LF, or a NUL, has been seen.
        long: whether a line of more than 998 octets has been seen, if that is looked for.
    """

    def __init__(self, *, look_for_long_lines: bool = False) -> None:
        super().__init__(look_for_long_lines=look_for_long_lines)
        self.finished = False
        self._begun = False
        self._held = b""
        self._skip = 0  # octets in `_held` that are not part of the content
        self._last = b""  # the last four octets that arrived

    @property
    def looks_ended(self) -> bool:
        """Whether what arrived ends in a dot between other line ends than those of the end."""
        return not self.finished and _FALSE_END.search(self._last) is not None

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take octets that arrived; return content, dots unstuffed, and what follows the end.

        Octets that may be the beginning of the end (at most 4) are held back. The second value is
        empty unless `finished`.
        """
        self._last = (octets if len(octets) >= 4 else self._last + octets)[-4:]
        if not self._begun and octets:
            self._begun = True
            if octets.startswith(b"."):
                # The CR LF of the DATA line itself counts as a line end: a message that begins with
                # the final dot is empty (RFC 5321 §4.1.1.4).
                self._held, self._skip = b"\r\n", 2
        octets = self._held + octets
        dot = leading_dot(octets)
        end = octets.find(_END, dot) if dot >= 0 else -1
        if end >= 0:
            self.finished = True
            cut, rest = end + 2, octets[end + 5 :]
            self._held = b""
        else:
            cut, rest = len(octets) - _overlap(octets), b""
            self._held = octets[cut:]
        if not cut:
            return b"", rest
        # The line end of DATA comes out first, and whole: nothing comes out before it is known what
        # the dot behind it is.
        skip, self._skip = self._skip, 0
        if 0 <= dot <= cut - len(_DOT):
            content = octets[:cut].replace(_DOT, b"\r\n")[skip:]  # RFC 5321 §4.5.2
        else:
            content = octets[skip:cut]
        self._look(content)
        return content, rest


def _overlap(octets: bytes) -> int:
    """Return how many octets at the end may be the beginning of CR LF ``.`` CR LF."""
    if octets.endswith(_PARTS):  # most pieces end within a line
        for length in (4, 3, 2, 1):
            if octets.endswith(_END[:length]):
                return length
    return 0


class ChunkReader(_Watch):
    """A reader of the content of one message in counted chunks (BDAT, RFC 3030 §2).

    Dots have no meaning here, and a chunk may end anywhere, between CR and LF too.

    Attributes:
        left: octets still to come of the chunk.
        bare: whether a CR or LF outside CR LF, or a NUL, has been seen.
        long: whether a line of more than 998 octets has been seen, if that is looked for.
    """

    def __init__(self, *, look_for_long_lines: bool = False) -> None:
        super().__init__(look_for_long_lines=look_for_long_lines)
        self.left = 0
        self._held = b""  # a CR whose LF may come next

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take octets that arrived; return content, and what follows the chunk."""
        chunk, rest = octets[: self.left], octets[self.left :]
        self.left -= len(chunk)
        content = self._held + chunk
        self._held = b""
        if content.endswith(b"\r"):
            content, self._held = content[:-1], b"\r"
        self._look(content)
        return content, rest

    def end(self) -> bytes:
        """Return the octets held back, when the last chunk has been read."""
        held, self._held = self._held, b""
        self._look(held)
        return held


class NewlineNormalizer:
    """A filter that leaves no line end but CR LF in content, wherever the content is split.

    A bare LF and a bare CR become CR LF. Several CR before an LF end one line together: programs
    that add a CR to each LF twice write them, and an empty line would end the header section. A NUL
    is dropped.
    """

    def __init__(self) -> None:
        self._crs = 0  # at the end of what was fed, held until the next octet is known

    def feed(self, content: bytes) -> bytes:
        """Return ``content`` normalized, without the CRs at its end."""
        content = content.replace(b"\0", b"")  # first: a NUL may stand between CR and LF
        rest = content.rstrip(b"\r")
        crs, self._crs = self._crs, len(content) - len(rest)
        if not rest:
            self._crs += crs
            return b""
        if crs:
            rest = b"\r" * crs + rest
        if b"\r\r" in rest:
            rest = _SEVERAL_CRS.sub(b"\n", rest)
        rest = rest.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return rest.replace(b"\n", b"\r\n")

    def end(self) -> bytes:
        """Return the line ends held back, when all content has been fed."""
        crs, self._crs = self._crs, 0
        return b"\r\n" * crs
