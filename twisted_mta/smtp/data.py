"""The framing of message content after DATA (RFC 5321 §4.1.1.4, §4.5.2), by strict CR LF.

Only CR LF ``.`` CR LF ends a message. Everything else that looks like it, with a bare CR, a bare LF
or a NUL, is content; that such octets are there is noticed, because another program may well take
them for the end (SMTP smuggling), so what holds them is not passed on as it came.
"""

from __future__ import annotations

import re

_END = b"\r\n.\r\n"
_LONGEST_LINE = 998  # RFC 5321 §4.5.3.1.6: 1000 octets with CR LF
_LONG_LINE = re.compile(rb"[^\n]{999}")


class DataReader:
    """Reads the content of one message, at whatever points TCP splits it.

    Attributes:
        finished: the end has been seen.
        bare: a CR or LF outside CR LF, or a NUL, has been seen.
        long: a line of more than 998 octets has been seen (looked for only if asked).
    """

    def __init__(self, *, look_for_long_lines: bool = False) -> None:
        self.finished = False
        self.bare = False
        self.long = False
        # The CR LF of the DATA line itself counts as a line end: a message that begins with the
        # final dot is empty (RFC 5321 §4.1.1.4). It is not part of the content.
        self._held = b"\r\n"
        self._skip = 2
        self._line: bytes | None = b"" if look_for_long_lines else None

    def read(self, octets: bytes) -> tuple[bytes, bytes]:
        """Take what arrived; return content, dots unstuffed, and what is behind the end.

        What may yet turn out to be the beginning of the end (at most 4 octets) is held back. The
        second value is empty unless `finished`.
        """
        octets = self._held + octets
        end = octets.find(_END)
        if end >= 0:
            self.finished = True
            content, rest = octets[: end + 2], octets[end + 5 :]
            self._held = b""
        else:
            held = _overlap(octets)
            cut = len(octets) - held
            content, self._held = octets[:cut], octets[cut:]
            rest = b""
        if not content:
            return b"", rest
        breaks = content.count(b"\r\n")
        # A CR or LF of its own shows as one more than there are pairs. A pair is never cut apart:
        # a CR at the end of what has arrived is held back.
        if content.count(b"\r") != breaks or content.count(b"\n") != breaks or b"\0" in content:
            self.bare = True
        content = content.replace(b"\r\n.", b"\r\n")  # RFC 5321 §4.5.2
        if self._skip:
            # The line end that is not ours to keep. It is always the first thing to come out, and
            # whole: nothing comes out before three more octets have shown what follows it.
            content = content[self._skip :]
            self._skip = 0
        if self._line is not None:
            self._look_for_long_line(content)
        return content, rest

    def _look_for_long_line(self, content: bytes) -> None:
        text = (self._line or b"") + content
        if _LONG_LINE.search(text.replace(b"\r\n", b"\n")):
            self.long = True
        self._line = text[text.rfind(b"\n") + 1 :][-_LONGEST_LINE - 1 :]


def _overlap(octets: bytes) -> int:
    """Return how many octets at the end may be the beginning of CR LF ``.`` CR LF."""
    for length in (4, 3, 2, 1):
        if octets.endswith(_END[:length]):
            return length
    return 0


class NewlineNormalizer:
    """Turns every bare CR and bare LF into CR LF and drops NULs, at whatever points it is split."""

    def __init__(self) -> None:
        self._after_cr = False

    def feed(self, content: bytes) -> bytes:
        """Return ``content`` normalized."""
        if not content:
            return content
        if self._after_cr and content[:1] == b"\n":
            content = content[1:]  # its CR has already become CR LF
        self._after_cr = content[-1:] == b"\r"
        content = content.replace(b"\0", b"").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return content.replace(b"\n", b"\r\n")
