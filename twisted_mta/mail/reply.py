"""SMTP replies (RFC 5321 §4.2) with enhanced status codes (RFC 2034, RFC 3463)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from .printable import printable

_ENHANCED = re.compile(r"([245])\.(\d{1,3}\.\d{1,3})(?: |$)")  # RFC 2034 §4, RFC 3463 §2
_STATED = re.compile(r"(?:^|(?<= ))([245])\.(\d{1,3}\.\d{1,3})(?= |$)")
# RFC 3463 §2: status-code = class "." subject "." detail
_STATUS = re.compile(r"(?:([245])\.)?(\d{1,3}\.\d{1,3})")
_LONGEST_LINE = 510  # octets of a reply line without CR LF (RFC 5321 §4.5.3.1.5)
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _without_controls(text: str) -> str:
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def _cut(line: bytes) -> bytes:
    if len(line) <= _LONGEST_LINE:
        return line
    return line[:_LONGEST_LINE].decode("utf-8", "ignore").encode()  # without half a character


class _Kept:
    """The octets of a reply, kept: no field, since an application may call `attrs.asdict`.

    Nor a `cached_property`: with slots, a class that has one gets a `__getattr__`, by which each
    read of a field takes several times as long.
    """

    __slots__ = ("_wire",)

    _wire: bytes


@frozen(init=False)
class Reply(_Kept):
    """A reply, ours or a peer's: ``Reply(550, "5.7.1", "not from there")``.

    Args:
        code: the reply code, from 200 to 599.
        status: the enhanced status code, ``5.7.1``, whose class is that of the reply code (RFC 2034
            §4), or its subject and detail alone, ``7.1``; None: there is none.
        lines: of text.
        utf8: whether the client asked for text beyond ASCII.

    Attributes:
        code: the reply code, three digits.
        status: subject and detail of the enhanced status code, ``7.1``; its class is the first
            digit of ``code``. None: no enhanced status code.
        lines: the lines of text, without the codes; one or more.
        utf8: Whether the client asked for text beyond ASCII (RFC 6531 §3.7.4.2).
    """

    code: int
    status: str | None
    lines: tuple[str, ...]
    utf8: bool = False

    def __init__(
        self, code: int, status: str | None = None, *lines: str, utf8: bool = False
    ) -> None:
        if not isinstance(code, int) or not 200 <= code <= 599:
            raise ValueError(f"found {code!r}, expected a reply code from 200 to 599")
        written = None if status is None else _STATUS.fullmatch(status)
        if status is not None and (
            written is None or (written[1] is not None and int(written[1]) != code // 100)
        ):
            raise ValueError(
                f"found {status!r}, expected an enhanced status code such as {code // 100}.0.0"
            )
        for line in lines:
            if not isinstance(line, str):
                raise ValueError(f"found {line!r}, expected a line of text")
        self.__attrs_init__(code, written and written[2], lines or ("",), utf8)

    @classmethod
    def of(cls, code: int, status: str | None, *lines: str) -> Reply:
        """Return a reply of our own or of a peer, unchecked.

        Args:
            code: the reply code.
            status: subject and detail of the enhanced status code; None: there is none.
            lines: of text.
        """
        reply = cls.__new__(cls)
        reply.__attrs_init__(code, status, lines or ("",))
        return reply

    @staticmethod
    @lru_cache(maxsize=256)
    def fixed(code: int, status: str | None, *lines: str) -> Reply:
        """Return a shared reply, for those that occur in most sessions.

        Its octets are computed once. A text that differs from client to client gains nothing.
        """
        return Reply.of(code, status, *lines)

    @classmethod
    def from_lines(cls, code: int, lines: tuple[str, ...]) -> Reply:
        """Return the reply of a peer, its enhanced status code split off the lines.

        An enhanced status code whose class contradicts the reply code (forbidden by RFC 2034 §4) is
        dropped. If lines have different ones, the last of the right class counts, as the last reply
        code does; the others stay in the text.
        """
        statuses = [_ENHANCED.match(line) for line in lines]
        fitting = [each for each in statuses if each and int(each[1]) == code // 100]
        status = fitting[-1][2] if fitting else None
        return cls.of(
            code,
            status,
            *(
                line[each.end() :].lstrip(" ")
                if each and (each[2] == status or each not in fitting)
                else line
                for line, each in zip(lines, statuses, strict=True)
            ),
        )

    @classmethod
    def received(cls, code: int, lines: tuple[str, ...]) -> Reply:
        """Return the reply of a server as it was said.

        The enhanced status code is split off where every line that begins with one has the same,
        the first line among them, and its class is that of the reply code (RFC 2034 §4). All others
        stay in the text, so that ``str`` shows them where they stood; see `detail`.
        """
        statuses = [_ENHANCED.match(line) for line in lines]
        first = statuses[0]
        if (
            first is None
            or int(first[1]) != code // 100
            or any(each.groups() != first.groups() for each in statuses if each)
        ):
            return cls.of(code, None, *lines)
        return cls.of(
            code,
            first[2],
            *(
                line[each.end() :].lstrip(" ") if each else line
                for line, each in zip(lines, statuses, strict=True)
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it in plain types, for another process."""
        return {
            "code": self.code,
            "status": self.status,
            "lines": list(self.lines),
            "utf8": self.utf8,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Reply:
        """Return the reply that `to_json` gave."""
        reply = cls.__new__(cls)
        reply.__attrs_init__(value["code"], value["status"], tuple(value["lines"]), value["utf8"])
        return reply

    @property
    def detail(self) -> str | None:
        """Subject and detail of the enhanced status code, wherever it stands; None: there is none.

        A code in the text counts where ``status`` is None: the last one of the class of the reply
        code, or else the last one.
        """
        if self.status is not None:
            return self.status
        stated = _STATED.findall(self.text)
        fitting = [each for each in stated if int(each[0]) == self.code // 100]
        return (fitting or stated)[-1][1] if stated else None

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code, ``5.7.1``; None: there is none."""
        return f"{self.code // 100}.{self.status}" if self.status else None

    @property
    def text(self) -> str:
        """All lines, joined by spaces, as received: not safe to show (see `printable`)."""
        return " ".join(self.lines)

    @property
    def wire(self) -> bytes:
        """The octets to send: long lines are cut, characters beyond printable ASCII are escaped.

        In a ``utf8`` reply, only control characters are escaped.
        """
        wire: bytes | None = getattr(self, "_wire", None)
        if wire is None:
            wire = self._written()
            object.__setattr__(self, "_wire", wire)
        return wire

    def _written(self) -> bytes:
        start = f"{self.code // 100}.{self.status} " if self.status else ""
        escaped = _without_controls if self.utf8 else printable
        *others, last = self.lines
        wire = b""
        for line in others:
            wire += _cut(f"{self.code}-{start}{escaped(line)}".encode()) + b"\r\n"
        return wire + _cut(f"{self.code} {start}{escaped(last)}".encode()) + b"\r\n"

    def __str__(self) -> str:
        """One printable line for logs, notices and pages: ``550 5.7.1 No such user``."""
        return printable(" ".join(filter(None, (str(self.code), self.enhanced, *self.lines))))
