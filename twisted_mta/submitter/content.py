"""The message on standard input: its lines, its header section, and the fields that it lacks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from .addresses import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MBOX = re.compile(rb"(?:>?From )[^\n]*\n")
_DROPPED = (b"bcc", b"resent-bcc")
_TO = (b"to", b"cc", b"bcc")
_RESENT = (b"resent-to", b"resent-cc", b"resent-bcc")


class TooLarge(Exception):
    """The message has more octets than allowed."""


def read(source: BinaryIO, *, dot_ends: bool, limit: int) -> bytes:
    """Return a message with CR LF line ends.

    Args:
        source: is read to its end, or to a line with a single dot.
        dot_ends: whether such a line ends the message.
        limit: octets of the message.

    Raises:
        TooLarge: it is larger.
    """
    if dot_ends:
        lines: list[bytes] = []
        size = 0
        while (line := source.readline(limit + 1)) and line.rstrip(b"\r\n") != b".":
            size += len(line)
            if size > limit:
                raise TooLarge
            lines.append(line)
        content = b"".join(lines)
    else:
        content = source.read(limit + 1)
    content = re.sub(rb"\r?\n", b"\r\n", content)
    if content and not content.endswith(b"\r\n"):
        content += b"\r\n"
    if len(content) > limit:
        raise TooLarge
    return content


class Header:
    """The header section of a message, and what follows it.

    Args:
        content: a message with CR LF line ends. A line of an mbox file on top is dropped. The
            section ends before the first line that is no field.

    Attributes:
        fields: (name in lower case, whole field with its CR LF) of each field.
        body: the rest, behind the empty line.
    """

    def __init__(self, content: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        mbox = _MBOX.match(content)
        at = mbox.end() if mbox else 0
        while at < len(content):
            end = content.find(b"\n", at) + 1 or len(content)
            line = content[at:end]
            if line == b"\r\n":
                at = end
                break
            match = _FIELD.match(line)
            if match is None:
                break
            pieces = [line]
            while content[end : end + 1] in (b" ", b"\t"):
                start, end = end, content.find(b"\n", end) + 1 or len(content)
                pieces.append(content[start:end])
            self.fields.append((match[1].lower(), b"".join(pieces)))
            at = end
        self.body = content[at:]

    def __contains__(self, name: bytes) -> bool:
        return any(name == each for each, _ in self.fields)

    def recipients(self) -> list[str]:
        """Return the addresses of To, Cc and Bcc, or of their Resent- fields where there are any.

        Raises:
            AddressError: a field is no list of addresses.
        """
        resent = any(name.startswith(b"resent-") for name, _ in self.fields)
        return list(self._addresses(_RESENT if resent else _TO))

    def _addresses(self, names: Iterable[bytes]) -> Iterator[str]:
        for name, field in self.fields:
            if name in names:
                value = field.partition(b":")[2].replace(b"\r\n", b"")
                yield from addresses(value.decode("utf-8", "surrogateescape"))

    def message(self, lacking: Mapping[str, str]) -> bytes:
        """Return the message without Bcc fields, and with fields that it lacks.

        Args:
            lacking: the value of each field, by name; added on top where there is none.
        """
        added = [
            f"{name}: {value}\r\n".encode("utf-8", "surrogateescape")
            for name, value in lacking.items()
            if name.lower().encode() not in self
        ]
        kept = [field for name, field in self.fields if name not in _DROPPED]
        return b"".join([*added, *kept, b"\r\n", self.body])


def display_name(name: str) -> str:
    """Return a person's name for a From field (RFC 5322 §3.4), with the space behind it."""
    name = "".join(each for each in name if each.isprintable()).strip()
    if not name:
        return ""
    if not name.isascii():
        from base64 import b64encode

        # RFC 2047 §2: an encoded word has 75 characters at most.
        words = [name[at : at + 10] for at in range(0, min(len(name), 60), 10)]
        encoded = (b64encode(each.encode("utf-8", "replace")).decode() for each in words)
        return "\r\n ".join(f"=?utf-8?b?{each}?=" for each in encoded) + " "
    quoted = name[:200].replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}" '
