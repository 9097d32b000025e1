"""Replies (RFC 5321 §4.2) with enhanced status codes (RFC 2034, RFC 3463), ours and our peers'."""

from __future__ import annotations

import re
from functools import cached_property, lru_cache

from attrs import frozen

from .printable import printable

_ENHANCED = re.compile(r"([245])\.(\d{1,3}\.\d{1,3})(?: |$)")  # RFC 2034 §4, RFC 3463 §2
_LONGEST_LINE = 510  # octets of a reply line without CR LF (RFC 5321 §4.5.3.1.5)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _without_controls(text: str) -> str:
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def _cut(line: bytes) -> bytes:
    if len(line) <= _LONGEST_LINE:
        return line
    return line[:_LONGEST_LINE].decode("utf-8", "ignore").encode()  # no character in two


@frozen
class Reply:
    """One reply, whole.

    Attributes:
        code: three digits.
        status: subject and detail of the enhanced status code, ``7.1``; its class is the first
            digit of ``code`` and not stored again. None: no enhanced status code.
        lines: the text, without code and status; at least one line.
        utf8: whether who reads it has asked for text outside ASCII (RFC 6531 §3.7.4.2).
    """

    code: int
    status: str | None
    lines: tuple[str, ...]
    utf8: bool = False

    @classmethod
    def of(cls, code: int, status: str | None, *lines: str) -> Reply:
        """Return a reply of one or several ``lines``."""
        return cls(code, status, lines or ("",))

    @staticmethod
    @lru_cache(maxsize=256)
    def fixed(code: int, status: str | None, *lines: str) -> Reply:
        """Return the one and only reply of ``lines``, for those that most sessions begin with.

        Its octets are worked out once. What differs from client to client is no use here.
        """
        return Reply(code, status, lines)

    @classmethod
    def from_lines(cls, code: int, lines: tuple[str, ...]) -> Reply:
        """Return the reply of a peer, splitting off the enhanced status code where it has one.

        A class that contradicts the code (RFC 2034 §4 forbids it) is dropped: the code holds. Where
        the lines have different ones, the last of the right class counts, as the last code does;
        the others stay in the text.
        """
        found = [_ENHANCED.match(line) for line in lines]
        fitting = [each for each in found if each and int(each[1]) == code // 100]
        status = fitting[-1][2] if fitting else None
        return cls(
            code,
            status,
            tuple(
                line[each.end() :].lstrip(" ")
                if each and (each[2] == status or each not in fitting)
                else line
                for line, each in zip(lines, found, strict=True)
            )
            or ("",),
        )

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code, ``5.7.1``, or None."""
        return f"{self.code // 100}.{self.status}" if self.status else None

    @property
    def text(self) -> str:
        """All lines, joined by spaces, as the peer sent them: not safe to show (`printable`)."""
        return " ".join(self.lines)

    @cached_property
    def wire(self) -> bytes:
        """The octets to send; characters outside printable ASCII are escaped, long lines cut.

        Of what is ``utf8``, only control characters are.
        """
        start = f"{self.enhanced} " if self.status else ""
        last = len(self.lines) - 1
        show = _without_controls if self.utf8 else printable
        return b"".join(
            _cut(f"{self.code}{' ' if number == last else '-'}{start}{show(line)}".encode())
            + b"\r\n"
            for number, line in enumerate(self.lines)
        )

    def __str__(self) -> str:
        """One safe line for logs, DSNs and pages: ``550 5.7.1 No such user``."""
        return printable(" ".join(filter(None, (str(self.code), self.enhanced, *self.lines))))
