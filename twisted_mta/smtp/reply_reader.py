"""Cutting what a server sends into replies (RFC 5321 §4.2), with an end to its patience."""

from __future__ import annotations

import re

from .reply import Reply

# RFC 5321 §4.2:
#
#   Greeting   = ( "220 " … [ SP textstring ] CRLF ) /
#   Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
#   Reply-code = %x32-35 %x30-35 %x30-39
#
# Leniency: any second digit, and any octets as text. Servers say UTF-8 and worse in there; the code
# is what counts, and the text is escaped wherever it goes.
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)

# RFC 5321 §4.5.3.1.5 gives a line 512 octets, CR LF and code included. Text beyond is cut off, the
# reply is not rejected: policy services put long URLs in there, and a longer 250 is still a 250.
TEXT_LIMIT = 512 - len(b"250 \r\n")
LINE_LIMIT = 4096  # octets; beyond this nothing is going to end any more
LINES_LIMIT = 100  # the longest EHLO reply seen in the wild has about 25
CHALLENGE_LIMIT = 12_288  # octets of text in a 334 to AUTH (RFC 4954 §4)


class BrokenReply(Exception):
    """What came is no reply; says why.

    Attributes:
        reply: as much of it as could be read, None where not even its code was clear.
    """

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reply = reply


class ReplyReader:
    """Collects octets and cuts them into replies; holds at most 100 lines of 512 octets.

    Attributes:
        challenged: a reply may be a challenge now, whose one line is longer.
    """

    def __init__(self) -> None:
        self.challenged = False
        self._buffer = b""
        self._start = 0  # where in the buffer the next line begins
        self._code = b""
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Whether something stands behind the last reply: part of another, or whole ones."""
        return bool(self._lines) or self._start < len(self._buffer)

    @property
    def refusing(self) -> bool:
        """Whether what is `pending` begins as a refusal does: 4yz or 5yz."""
        start = self._code if self._lines else self._buffer[self._start : self._start + 1]
        return start[:1] in (b"4", b"5")

    def feed(self, octets: bytes) -> None:
        """Take octets from the peer."""
        if self._start < len(self._buffer):
            octets = self._buffer[self._start :] + octets
        self._buffer = octets
        self._start = 0

    def next(self) -> Reply | None:
        """Return the next reply, None if it is not complete yet.

        Raises:
            BrokenReply: it is none, or it does not end.
        """
        limit = CHALLENGE_LIMIT + len(b"334 ") if self.challenged else LINE_LIMIT
        while True:
            end = self._buffer.find(b"\r\n", self._start)
            length = (end if end >= 0 else len(self._buffer)) - self._start
            if length > limit:
                raise BrokenReply("a line of the reply does not end", self._unfinished())
            if end < 0:
                return None
            found = _REPLY_LINE.fullmatch(self._buffer, self._start, end)
            if found is None:
                raise BrokenReply("not a reply")
            code, mark, text = found.groups()
            self._start = end + 2
            if not self._lines:
                self._code = code
            elif code != self._code:  # RFC 5321 §4.2.1: the code is the same on each line
                raise BrokenReply("the code changes within the reply")
            whole = self.challenged and code == b"334" and mark != b"-"
            self._lines.append(_text(text, CHALLENGE_LIMIT if whole else TEXT_LIMIT))
            if mark != b"-":
                lines, self._lines = self._lines, []
                return Reply.from_lines(int(code), tuple(lines))
            if len(self._lines) == LINES_LIMIT:
                raise BrokenReply("the reply does not end", self._unfinished())

    def _unfinished(self) -> Reply | None:
        start = self._buffer[self._start : self._start + TEXT_LIMIT]
        found = _REPLY_LINE.fullmatch(start)
        code = self._code if self._lines else found and found[1]
        if not code or (self._lines and found and found[1] != code):
            return None
        lines = [*self._lines, *([_text(found[3])] if found else [])]
        return Reply.from_lines(int(code), tuple(lines))


def _text(octets: bytes | None, limit: int = TEXT_LIMIT) -> str:
    return (octets or b"")[:limit].decode("utf-8", "backslashreplace")
