"""Packets of the milter protocol: a length of 32 bits, a code of one octet, and data.

The protocol is that of Sendmail's libmilter 8.14 and later (version 6), which Postfix speaks too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from struct import Struct

from attrs import frozen

from ...mail.reply import Reply

LONGEST = 1024 * 1024 + 1024
"""Octets of a packet behind its length. A filter may send 1 MiB of data in one."""

_LENGTH = Struct(">I")
_NUMBER = Struct(">I")
_PORT = Struct(">H")

# A reply as smfi_setreply and smfi_setmlreply of libmilter write it.
_REPLY_LINE = re.compile(rb"([45][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
_MOST_LINES = 32


class MilterError(Exception):
    """A filter broke the protocol, or is gone; the text says how."""


class Command(Enum):
    """The codes of what we send."""

    NEGOTIATE = b"O"
    MACROS = b"D"
    CONNECT = b"C"
    HELO = b"H"
    MAIL = b"M"
    RCPT = b"R"
    DATA = b"T"
    HEADER = b"L"
    END_OF_HEADER = b"N"
    BODY = b"B"
    END_OF_BODY = b"E"
    ABORT = b"A"
    QUIT = b"Q"
    QUIT_KEEP = b"K"  # the connection stays for another session

    __hash__ = object.__hash__


class Verdict(Enum):
    """The codes of answers without data."""

    CONTINUE = b"c"
    ACCEPT = b"a"
    REJECT = b"r"
    DEFER = b"t"
    DISCARD = b"d"
    SKIP = b"s"  # the rest of the body
    PROGRESS = b"p"  # it is at work: the deadline begins anew
    SHUTDOWN = b"4"
    NO_CONNECTION = b"f"

    __hash__ = object.__hash__


@frozen
class Refusal:
    """A reply that the client is to get."""

    reply: Reply


@frozen
class AddField:
    """Add a header field at the end of the header section."""

    name: bytes
    value: bytes


@frozen
class InsertField:
    """Insert a header field before the one with that number; 0 stands for the top."""

    index: int
    name: bytes
    value: bytes


@frozen
class ChangeField:
    """Change the index-th field of a name, from 1; an empty value deletes it."""

    index: int
    name: bytes
    value: bytes


@frozen
class ChangeSender:
    """Change the reverse-path; ``arguments`` are parameters of MAIL."""

    address: bytes
    arguments: bytes = b""


@frozen
class AddRecipient:
    """Add a forward-path; ``arguments`` are parameters of RCPT."""

    address: bytes
    arguments: bytes = b""


@frozen
class DeleteRecipient:
    """Remove a forward-path."""

    address: bytes


@frozen
class ReplaceBody:
    """A piece of another body; all of them together stand in place of the one that came."""

    octets: bytes


@frozen
class Quarantine:
    """Hold the message."""

    reason: bytes


Change = (
    AddField
    | InsertField
    | ChangeField
    | ChangeSender
    | AddRecipient
    | DeleteRecipient
    | ReplaceBody
    | Quarantine
)
"""A modification, which a filter may ask for at the end of the body."""

Answer = Verdict | Refusal | Change

_VERDICTS: Mapping[int, Verdict] = {each.value[0]: each for each in Verdict}


class PacketReader:
    """Cuts octets into packets; holds one packet at most, and what came behind it in one piece."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, octets: bytes) -> Iterator[tuple[int, bytes]]:
        """Yield (code, data) of each packet that is complete now.

        Raises:
            MilterError: a length is out of bounds.
        """
        buffer = self._buffer
        buffer += octets
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 0 < length <= LONGEST:
                    raise MilterError(f"found a packet of {length} octets, expected 1 to {LONGEST}")
                end = start + _LENGTH.size + length
                if len(buffer) < end:
                    return
                packet = buffer[start + _LENGTH.size], bytes(buffer[start + _LENGTH.size + 1 : end])
                start = end
                yield packet
        finally:
            del buffer[:start]


def packet(command: Command, data: bytes = b"") -> bytes:
    """Return a packet."""
    return _LENGTH.pack(1 + len(data)) + command.value + data


def strings(*texts: bytes) -> bytes:
    """Return texts as data, each with its NUL; octets of theirs that are NUL are left out."""
    return b"".join(each.replace(b"\0", b"") + b"\0" for each in texts)


def macros(of: Command, values: Sequence[tuple[str, bytes]]) -> bytes:
    """Return the packet of macros that precedes a command."""
    pairs = b"".join(strings(name.encode("ascii"), value) for name, value in values)
    return packet(Command.MACROS, of.value + pairs)


def connect(name: bytes, address: str | None, port: int) -> bytes:
    """Return the packet about a client.

    Args:
        name: of the client.
        address: IPv4 or IPv6; None: it is not known.
        port: of the client.
    """
    if address is None:
        return packet(Command.CONNECT, strings(name) + b"U")
    family = b"6" if ":" in address else b"4"
    data = strings(name) + family + _PORT.pack(port) + strings(address.encode("ascii"))
    return packet(Command.CONNECT, data)


def answer(code: int, data: bytes) -> Answer:
    """Read an answer to a command.

    Raises:
        MilterError: it is none.
    """
    verdict = _VERDICTS.get(code)
    if verdict is not None:
        return verdict
    reader = _READERS.get(code)
    if reader is None:
        raise MilterError(f"found an answer of code {bytes([code])!r}, expected one of protocol 6")
    try:
        return reader(data)
    except ValueError as error:
        raise MilterError(f"answer {bytes([code])!r}: {error}") from None


def _texts(data: bytes, least: int, most: int) -> list[bytes]:
    """Split data into texts, each with its NUL."""
    if not data.endswith(b"\0"):
        raise ValueError("found text without its NUL")
    found = data[:-1].split(b"\0", most)
    if not least <= len(found) <= most:
        raise ValueError(f"found {len(found)} texts, expected {least} to {most}")
    return found


def _reply(data: bytes) -> Refusal:
    (text,) = _texts(data, 1, 1)
    lines = re.split(rb"\r?\n", text)
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    if len(lines) > _MOST_LINES:
        raise ValueError(f"found a reply of {len(lines)} lines, expected at most {_MOST_LINES}")
    codes, texts = set(), []
    for line in lines:
        match = _REPLY_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"found {line[:80]!r}, expected a reply of 4yz or 5yz")
        codes.add(match[1])
        # In smfi_setreply a percent sign is doubled, and comes single.
        texts.append((match[3] or b"").decode("utf-8", "backslashreplace"))
    if len(codes) != 1:
        raise ValueError(f"found replies of {len(codes)} codes, expected one code")
    return Refusal(Reply.from_lines(int(codes.pop()), tuple(texts)))


def _indexed(data: bytes) -> tuple[int, bytes, bytes]:
    if len(data) < _NUMBER.size:
        raise ValueError("found no index")
    (index,) = _NUMBER.unpack_from(data)
    name, value = _texts(data[_NUMBER.size :], 2, 2)
    return index, name, value


_READERS: Mapping[int, Callable[[bytes], Answer]] = {
    ord("y"): _reply,
    ord("h"): lambda data: AddField(*_texts(data, 2, 2)),
    ord("i"): lambda data: InsertField(*_indexed(data)),
    ord("m"): lambda data: ChangeField(*_indexed(data)),
    ord("e"): lambda data: ChangeSender(*_texts(data, 1, 2)),
    ord("+"): lambda data: AddRecipient(*_texts(data, 1, 1)),
    ord("2"): lambda data: AddRecipient(*_texts(data, 1, 2)),
    ord("-"): lambda data: DeleteRecipient(*_texts(data, 1, 1)),
    ord("b"): ReplaceBody,
    ord("q"): lambda data: Quarantine(*_texts(data, 1, 1)),
}
