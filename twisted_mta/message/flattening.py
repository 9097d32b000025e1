"""A message object of Python's `email` as octets, in pieces.

`email.generator` writes a message in one go: with large attachments it keeps the interpreter for
seconds, also from a thread, since single steps of it take hundreds of milliseconds. Here the object
is read at once (`snapshot`), without a copy of what is large; the header fields are folded, which
may run in a thread; and the content comes in pieces, each of which is little work.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from email.message import Message as EmailMessage
from email.policy import EmailPolicy, Policy
from typing import Any

from attrs import define, evolve, field

_PIECE = 32_768  # characters: less than a millisecond
# RFC 5322 §3.6.2, §3.6.3, §3.6.6: the fields with addresses.
_ADDRESSES = ("from", "sender", "reply-to", "to", "cc", "resent-from", "resent-to", "resent-cc")
_BLIND = ("bcc", "resent-bcc")  # RFC 5322 §3.6.3

# RFC 5322 §2.2.3: a line of a field that begins without white space would be a field of its own.
_INJECTED = re.compile(rb"\n(?![ \t])")


@define
class Part:
    """A message object, or a part of one, as it was when it was read.

    Attributes:
        fields: its header fields: names, and values as `email.policy` folds them.
        policy: folds them.
        text: in place of parts, or before the first boundary; None: there is none.
        parts: those within.
        boundary: between the parts of a multipart; None: it is none.
        end: behind the last boundary; None: there is none.
        is_status: whether it is a delivery status, whose parts are groups of fields (RFC 3464
            §2.1).
        header: its header section, once it is folded, with the empty line.
    """

    fields: Sequence[tuple[str, Any]]
    policy: Policy
    text: str | None = None
    parts: Sequence[Part] = ()
    boundary: str | None = None
    end: str | None = None
    is_status: bool = False
    header: bytes = field(default=b"", init=False)


def snapshot(message: EmailMessage, new_boundary: Callable[[], str]) -> Part:
    """Read a message object, without Bcc fields; it may change afterwards.

    The header has UTF-8 only where an address needs it (RFC 6532 §3.2).

    Args:
        message: the message object; it stays as it is.
        new_boundary: returns a text that occurs in no message, for a multipart without a boundary.

    Raises:
        TypeError: a part has a payload that is neither text nor a list of parts.
    """
    # 8-bit text may stay as it is: it is converted where a next hop needs that (RFC 6152 §3).
    policy = message.policy.clone(linesep="\r\n", cte_type="8bit")
    if isinstance(policy, EmailPolicy) and _has_utf8_address(message):
        policy = policy.clone(utf8=True)
    whole = _read(message, policy, new_boundary)
    return evolve(whole, fields=[each for each in whole.fields if each[0].lower() not in _BLIND])


def fold(whole: Part) -> None:
    """Write the header sections of a message and its parts; this may take long.

    Raises:
        ValueError: a field has a line end that would begin another field.
        Exception: as `email.policy.Policy.fold_binary` raises.
    """
    waiting = [whole]
    while waiting:
        part = waiting.pop()
        part.header = b"".join([*(_folded(part.policy, *each) for each in part.fields), b"\r\n"])
        waiting.extend(part.parts)


def pieces(part: Part) -> Iterator[bytes]:
    """Yield the octets of a message that was read and folded, each line with CR LF.

    Raises:
        UnicodeEncodeError: a text has characters beyond ASCII that were not encoded.
    """
    yield part.header
    if part.boundary is not None:
        yield from _multipart(part, part.boundary)
    elif part.is_status:
        # Each group of fields ends in an empty line but for the last one, which a boundary follows.
        for number, group in enumerate(part.parts):
            if number:
                yield b"\r\n"
            yield b"".join(pieces(group)).removesuffix(b"\r\n")
    elif part.parts:
        yield from pieces(part.parts[0])
    elif part.text is not None:
        yield from _lines(part.text)


def _multipart(part: Part, boundary: str) -> Iterator[bytes]:
    delimiter = f"--{boundary}".encode("ascii", "surrogateescape")
    if part.text is not None:
        yield from _lines(part.text)
        yield b"\r\n"
    yield delimiter + b"\r\n"
    for number, each in enumerate(part.parts):
        if number:
            yield b"\r\n" + delimiter + b"\r\n"
        yield from pieces(each)
    yield b"\r\n" + delimiter + b"--\r\n"
    if part.end is not None:
        yield from _lines(part.end)


def _lines(text: str) -> Iterator[bytes]:
    """Yield a text in pieces; each of its lines ends in CR LF, however it ended before."""
    after_cr = False
    for start in range(0, len(text), _PIECE):
        octets = text[start : start + _PIECE].encode("ascii", "surrogateescape")
        if after_cr and octets[:1] == b"\n":
            octets = octets[1:]
        after_cr = text[min(start + _PIECE, len(text)) - 1] == "\r"
        octets = octets.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
        if octets:
            yield octets


def _read(message: Any, policy: Policy, new_boundary: Callable[[], str]) -> Part:
    if not isinstance(message, EmailMessage):
        raise TypeError(f"found a part that is {type(message).__name__}, expected a message object")
    # `get_payload` would decode a text with 8-bit characters, and read all of it for that.
    payload = getattr(message, "_payload", None)
    main, kind = message.get_content_maintype(), message.get_content_type()
    if main == "multipart" and not isinstance(payload, str):
        within = policy
        if kind == "multipart/signed":
            # RFC 1847 §2.1: what is signed keeps its header lines as they are.
            within = policy.clone(max_line_length=0)
        parts = payload if isinstance(payload, list) else [] if payload is None else [payload]
        boundary = message.get_boundary()
        if not boundary:
            boundary = new_boundary()
            message = copy.copy(message)
            message.set_boundary(boundary)
        return Part(
            list(message.raw_items()),
            policy,
            message.preamble,
            [_read(each, within, new_boundary) for each in parts],
            boundary,
            message.epilogue,
        )
    fields = list(message.raw_items())
    if main == "message" and isinstance(payload, list):
        is_status = kind == "message/delivery-status"
        parts = payload if is_status else payload[:1]
        inside = [_read(each, policy, new_boundary) for each in parts]
        return Part(fields, policy, parts=inside, is_status=is_status)
    if payload is not None and not isinstance(payload, str):
        raise TypeError(f"found a payload of {type(payload).__name__} in a {kind}, expected text")
    return Part(fields, policy, payload)


def _folded(policy: Policy, name: str, value: Any) -> bytes:
    folded = policy.fold_binary(name, value)
    if _INJECTED.search(folded.removesuffix(b"\n")):
        raise ValueError(f"found a line end in the field {name}: {value!r}, expected one line")
    return folded


def _has_utf8_address(message: EmailMessage) -> bool:
    for name in _ADDRESSES:
        for each in message.get_all(name, ()):
            addresses = getattr(each, "addresses", ())
            if not all(address.addr_spec.isascii() for address in addresses):
                return True
    return False
