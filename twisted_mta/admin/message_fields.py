"""A message given as fields of JSON: its header, texts and attachments, each checked.

    {"from": "Ann <ann@example.net>", "to": ["bob@example.org"], "subject": "Hello",
     "text": "…", "html": "…", "headers": {"In-Reply-To": "<1@example.org>"},
     "attachments": [{"filename": "a.pdf", "content_type": "application/pdf", "content": "JVBE…"}]}

No field can bring in another one: line ends and other control characters are refused.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

from attrs import frozen

from ..mail.address import AddressError, Mailbox
from ..mail.printable import printable

_LINE_ENDS = ("\x85", "\u2028", "\u2029")  # besides those below U+0020
_LONGEST_LINE = 2_000  # characters of a subject, a name or a field
_MOST_RECIPIENTS = 1_000
_MOST_PARTS = 100  # attachments, or further header fields
_FIELDS = (
    *("from", "to", "cc", "bcc", "reply_to", "sender", "subject"),
    *("text", "html", "headers", "attachments"),
)
_ATTACHMENT = ("filename", "content_type", "content")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,76}", re.ASCII)
_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,127}/[a-z0-9!#$&^_.+-]{1,127}", re.ASCII | re.IGNORECASE)
_NAMED = re.compile(r"(?P<name>[^<>]*)<(?P<address>[^<>]*)>")
# Fields that are given otherwise, that describe the body, or that speak of the way of a message.
_OURS = ("from", "to", "cc", "bcc", "reply-to", "sender", "subject", "mime-version", "return-path")
_OURS_BEGIN = ("content-", "received", "resent-", "arc-", "dkim-", "authentication-", "x-original-")


class FieldError(ValueError):
    """A field that cannot be used; the text is one printable line."""


@frozen
class GivenMessage:
    """A message that was given as fields.

    Attributes:
        message: without Bcc.
        sender: the reverse-path.
        recipients: of all three fields.
    """

    message: EmailMessage
    sender: str
    recipients: tuple[str, ...]


def read_fields(octets: bytes) -> GivenMessage:
    """Return the message that JSON describes.

    Raises:
        FieldError: it describes none.
    """
    try:
        fields = json.loads(octets)
    except (ValueError, RecursionError):
        raise FieldError("found something else, expected an object of JSON in UTF-8") from None
    if not isinstance(fields, dict):
        raise FieldError(f"found {_kind(fields)}, expected an object of JSON")
    for name in fields:
        if name not in _FIELDS:
            raise FieldError(f"found {printable(name)}, expected some of {', '.join(_FIELDS)}")
    message = EmailMessage(policy=SMTP)
    authors = _addresses(fields, "from")
    if not authors:
        raise FieldError("from: found none, expected an address")
    message["From"] = authors
    recipients: list[Address] = []
    for name, header in (("to", "To"), ("cc", "Cc"), ("bcc", "")):
        listed = _addresses(fields, name)
        recipients += listed
        if header and listed:
            message[header] = listed
    if not recipients:
        raise FieldError("to: found no recipient, expected one in to, cc or bcc")
    if len(recipients) > _MOST_RECIPIENTS:
        raise FieldError(
            f"to: found {len(recipients)} recipients, expected {_MOST_RECIPIENTS} at most"
        )
    replies = _addresses(fields, "reply_to")
    if replies:
        message["Reply-To"] = replies
    message["Subject"] = _line(fields.get("subject", ""), "subject")
    _add_headers(message, fields.get("headers", {}))
    _set_body(message, fields)
    sender = fields.get("sender", authors[0].addr_spec)
    if sender != "":
        sender = _address(sender, "sender").addr_spec
    addresses = tuple(dict.fromkeys(each.addr_spec for each in recipients))
    return GivenMessage(message, sender, addresses)


def _add_headers(message: EmailMessage, headers: Any) -> None:
    if not isinstance(headers, dict) or len(headers) > _MOST_PARTS:
        raise FieldError(f"headers: expected an object of {_MOST_PARTS} fields at most")
    for name, value in headers.items():
        lower = name.lower()
        if not _NAME.fullmatch(name) or lower in _OURS or lower.startswith(_OURS_BEGIN):
            raise FieldError(
                f"headers: found {printable(name[:80])}, expected the name of a field such as"
                " In-Reply-To or X-Campaign, which has no field of its own here"
            )
        text = _line(value, f"headers: {name}")
        if name in message:
            raise FieldError(f"headers: found {name} twice, expected it once")
        _safely(f"headers: {name}", message.__setitem__, name, text)


def _set_body(message: EmailMessage, fields: Mapping[str, Any]) -> None:
    text, html = _text(fields, "text"), _text(fields, "html")
    if text is None and html is None:
        text = ""
    if text is not None:
        _safely("text", message.set_content, text)
        if html is not None:
            _safely("html", message.add_alternative, html, subtype="html")
    else:
        _safely("html", message.set_content, html, subtype="html")
    attachments = fields.get("attachments", [])
    if not isinstance(attachments, list) or len(attachments) > _MOST_PARTS:
        raise FieldError(f"attachments: expected a list of {_MOST_PARTS} at most")
    for number, each in enumerate(attachments):
        _attach(message, f"attachments[{number}]", each)


def _attach(message: EmailMessage, where: str, value: Any) -> None:
    if not isinstance(value, dict) or not set(value) <= set(_ATTACHMENT):
        raise FieldError(f"{where}: expected an object with {', '.join(_ATTACHMENT)}")
    kind = value.get("content_type", "application/octet-stream")
    if not isinstance(kind, str) or not _TYPE.fullmatch(kind):
        raise FieldError(f"{where}: content_type: expected one such as application/pdf")
    main, _, sub = kind.lower().partition("/")
    if main in ("multipart", "message"):
        raise FieldError(f"{where}: content_type: found {main}, expected a type of one part")
    name = _line(value.get("filename", ""), f"{where}: filename")
    content = value.get("content")
    try:
        octets = b64decode(content, validate=True) if isinstance(content, str) else None
    except ValueError:
        octets = None
    if octets is None:
        raise FieldError(f"{where}: content: expected text in base64")
    named = {"filename": name} if name else {}
    _safely(where, message.add_attachment, octets, maintype=main, subtype=sub, **named)


def _safely(where: str, function: Callable[..., object], *values: Any, **named: Any) -> None:
    """Call the standard library's; what it cannot take is an error of the field."""
    try:
        function(*values, **named)
    except (ValueError, TypeError, LookupError):
        raise FieldError(f"{where}: found what cannot stand in a message") from None


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise FieldError(f"{name}: found {_kind(value)}, expected text")
    if value is not None and ("\0" in value or not _is_unicode(value)):
        raise FieldError(f"{name}: found NUL or half a character, expected text")
    return value


def _line(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise FieldError(f"{where}: found {_kind(value)}, expected text")
    if (
        len(value) > _LONGEST_LINE
        or any(ord(each) < 32 or ord(each) == 127 for each in value)
        or len(value.splitlines()) > 1  # U+0085, U+2028 and U+2029 end lines too
        or value.endswith(_LINE_ENDS)
    ):
        raise FieldError(
            f"{where}: expected text of one line, without control characters, and of"
            f" {_LONGEST_LINE} characters at most"
        )
    if not _is_unicode(value):
        raise FieldError(f"{where}: found half a character, expected text")
    return value


def _is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON may have lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _addresses(fields: Mapping[str, Any], name: str) -> Sequence[Address]:
    value = fields.get(name, [])
    several = value if isinstance(value, list) else [value]
    if len(several) > _MOST_RECIPIENTS:
        raise FieldError(f"{name}: expected {_MOST_RECIPIENTS} addresses at most")
    return [_address(each, name) for each in several]


def _address(value: Any, where: str) -> Address:
    """Return an address: ``ann@example.net``, ``Ann <ann@example.net>``, or an object."""
    name: Any = ""
    written = value
    if isinstance(value, dict) and set(value) <= {"address", "name"}:
        written, name = value.get("address"), value.get("name", "")
    elif isinstance(value, str):
        named = _NAMED.fullmatch(value.strip())
        if named:
            written, name = named["address"], named["name"].strip().strip('"')
    expected = f"{where}: expected an address such as ann@example.net or Ann <ann@example.net>"
    if not isinstance(written, str):
        raise FieldError(expected)
    name = _line(name, where)
    try:
        mailbox = Mailbox.parse(written)
        if not mailbox.domain:
            raise AddressError("it has no domain")
        return Address(display_name=name, username=mailbox.local_part, domain=mailbox.domain)
    except (AddressError, ValueError, IndexError):
        raise FieldError(f"{expected}; found {printable(written[:80])}") from None


def _kind(value: Any) -> str:
    names = {list: "a list", dict: "an object", str: "text", bool: "a truth value"}
    return "null" if value is None else names.get(type(value), "a number")
