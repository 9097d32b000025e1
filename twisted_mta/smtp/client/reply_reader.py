"""The reader of replies (RFC 5321 §4.2): splits the octets of a server, within limits."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

from ...mail.reply import Reply

# RFC 5321 §4.2:
#
#   Greeting   = ( "220 " … [ SP textstring ] CRLF ) /
#   Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
#   Reply-code = %x32-35 %x30-35 %x30-39
#
# Leniency: any second digit, a tab for the space, and any octets as text. Servers send UTF-8 and
# worse there; the code counts, and the text is escaped wherever it is shown.
_REPLY_LINE = re.compile(rb"([2-5][0-9][0-9])(?:([ \t-])(.*))?", re.DOTALL)

# RFC 5321 §4.5.3.1.5 gives a line 512 octets, CR LF and code included. Text beyond is cut off, the
# reply is not rejected: policy services put long URLs in there, and a longer 250 is still a 250.
TEXT_LIMIT = 512 - len(b"250 \r\n")
LINE_LIMIT = 4096  # octets; a longer line is taken for one without an end
LINES_LIMIT = 100  # the longest EHLO reply seen in the wild has about 25
CHALLENGE_LIMIT = 12_288  # octets of text in a 334 to AUTH (RFC 4954 §4)

REMEMBERED = 2048
"""Characters of a reply of several lines up to which it is kept for later connections. A server may
send 25 times as many, and other ones each time."""


class BrokenReply(Exception):
    """Octets that are not a reply; the text says why.

    Attributes:
        reply: as much of it as could be read; None where not even its code could be.
    """

    def __init__(self, reason: str, reply: Reply | None = None) -> None:
        super().__init__(reason)
        self.reply = reply


@frozen
class Contradiction:
    """A complete reply whose lines are of different classes, such as 250 and 550.

    Attributes:
        reply: its last line, which most servers mean and most clients obey.
        text: all lines with their codes, as they came: not safe to show (see `printable`).
        consents: whether one of its lines is not a refusal.
    """

    reply: Reply
    text: str
    consents: bool


class ReplyReader:
    """A splitter of octets into replies; holds at most 100 lines of 512 octets.

    Attributes:
        challenged: whether a reply may be a challenge (334) now, whose one line may be longer.
    """

    def __init__(self) -> None:
        self.challenged = False
        self._whole: deque[bytes] = deque()  # lines to be read, without their CR LF
        self._rest = b""  # the octets behind them
        self._codes: list[bytes] = []  # of the lines below, in their order
        self._lines: list[str] = []

    @property
    def pending(self) -> bool:
        """Whether octets follow the last reply: part of another, or whole ones."""
        return bool(self._rest or self._whole or self._lines)

    @property
    def refusing(self) -> bool:
        """Whether the `pending` octets begin as a refusal does: 4yz or 5yz."""
        start = self._codes[0] if self._codes else self._next_octets()
        return start[:1] in (b"4", b"5")

    @property
    def bare_newline(self) -> bool:
        """Whether the octets end in LF alone (RFC 5321 §2.3.8: lines end in CR LF)."""
        return self._rest.endswith(b"\n")

    def feed(self, octets: bytes) -> None:
        """Take octets of the server."""
        *whole, self._rest = (self._rest + octets).split(b"\r\n")
        self._whole.extend(whole)

    def next(self) -> Reply | Contradiction | None:
        """Return the next reply; None while it is not complete.

        RFC 5321 §4.2.1 asks for the same code on each line. Servers and proxies that ignore this
        end with the code that they mean, so the last one counts, if all are of one class. Each line
        of such a reply begins with its own code, as it was said.

        Raises:
            BrokenReply: the octets are not a reply, or it has no end.
        """
        while self._whole:
            line = self._whole.popleft()
            if len(line) > TEXT_LIMIT or self.challenged:
                self._check_length(line)
                code, text, alone = _parse(line, challenged=self.challenged)
            else:
                code, text, alone = _parsed(line)
            if alone is not None and not self._lines:
                return alone
            self._codes.append(code)
            self._lines.append(text)
            if alone is not None:
                codes, self._codes = self._codes, []
                lines, self._lines = self._lines, []
                if _of_one_class(codes):
                    joined = _joined if sum(map(len, lines)) <= REMEMBERED else _of_lines
                    return joined(tuple(codes), tuple(lines))
                return _contradiction(codes, lines)
            if len(self._lines) == LINES_LIMIT:
                raise BrokenReply("the reply does not end", self._unfinished(self._next_octets()))
        if self._rest:
            self._check_length(self._rest)
        return None

    def _next_octets(self) -> bytes:
        return self._whole[0] if self._whole else self._rest

    def _check_length(self, line: bytes) -> None:
        limit = CHALLENGE_LIMIT + len(b"334 ") if self.challenged else LINE_LIMIT
        if len(line) > limit:
            raise BrokenReply("a line of the reply does not end", self._unfinished(line))

    def _unfinished(self, line: bytes) -> Reply | None:
        start = line[:TEXT_LIMIT]
        codes, lines = self._codes, self._lines
        if match := _REPLY_LINE.fullmatch(start):
            codes, lines = [*codes, match[1]], [*lines, _text(match[3])]
        if not codes or not _of_one_class(codes):
            return None
        return _of_lines(tuple(codes), tuple(lines))


def _parse(line: bytes, *, challenged: bool = False) -> tuple[bytes, str, Reply | None]:
    """Return the code and the text of a line, and the reply if it is the only line of one.

    Args:
        line: without its CR LF.
        challenged: see `ReplyReader`.

    Raises:
        BrokenReply: it is no line of a reply.
    """
    match = _REPLY_LINE.fullmatch(line)
    if match is None:
        raise BrokenReply("not a reply")
    code, mark, octets = match.groups()
    if mark == b"-":
        return code, _text(octets), None
    text = _text(octets, CHALLENGE_LIMIT if challenged and code == b"334" else TEXT_LIMIT)
    return code, text, Reply.received(int(code), (text,))


_parsed = lru_cache(maxsize=512)(_parse)  # most lines repeat: sender, recipient, 354, those of EHLO


def _of_lines(codes: tuple[bytes, ...], lines: tuple[str, ...]) -> Reply:
    said = lines if codes.count(codes[0]) == len(codes) else tuple(_with_codes(codes, lines))
    return Reply.received(int(codes[-1]), said)


_joined = lru_cache(maxsize=64)(_of_lines)  # replies to EHLO


def _with_codes(codes: Sequence[bytes], lines: Sequence[str]) -> list[str]:
    return [f"{code.decode()} {line}" for code, line in zip(codes, lines, strict=True)]


def _of_one_class(codes: Sequence[bytes]) -> bool:
    return codes.count(codes[0]) == len(codes) or len({code[0] for code in codes}) == 1


def _contradiction(codes: list[bytes], lines: list[str]) -> Contradiction:
    return Contradiction(
        Reply.received(int(codes[-1]), (lines[-1],)),
        " ".join(_with_codes(codes, lines)),
        any(code[:1] in (b"2", b"3") for code in codes),
    )


def _text(octets: bytes | None, limit: int = TEXT_LIMIT) -> str:
    return (octets or b"")[:limit].decode("utf-8", "backslashreplace")
