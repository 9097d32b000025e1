"""Delivery status notifications: what a sender is told (RFC 3464 in the report of RFC 6522).

A notice that cannot be delivered is the end of what it tells. So it is made to pass any next hop:
no octet of it is over 127, whatever it is about, but for the address of a reader whose mailbox
cannot be reached without SMTPUTF8 either.

Pure, but for reading the body of the message that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from email.header import Header
from itertools import count

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import Parameters
from ...mail.message import Message
from ...mail.queue_id import QueueId
from ..date import date_time
from ..header import field
from ..mime.encoding import Base64, Encoder, QuotedPrintable, is_mostly_ascii
from .delivery_status import Action, ReportedRecipient, delivery_status, shown
from .explanation import SUBJECTS, Reader, explanation
from .returned import LONG_LINE, Returned, returned

_ASCII = bytes(range(128))
_MESSAGE_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>")  # RFC 5322 §3.6.4, near enough


@frozen
class Notice:
    """A notification, ready to be queued with the null reverse-path (RFC 3464 §2).

    Attributes:
        content: header section and body, with CR LF line ends, no line over 998 octets; the body
            is ASCII.
        international: whether the header section is not, so that it only travels with SMTPUTF8.
    """

    content: bytes
    international: bool = False

    @property
    def parameters(self) -> Parameters:
        """The parameters of its MAIL command."""
        return {"SMTPUTF8": None} if self.international else {}


def notice(
    action: Action,
    message: Message,
    events: Sequence[ReportedRecipient],
    *,
    hostname: str,
    id: QueueId,
    time: float,
    reader: Mailbox | None = None,
    seven_bit: bool = False,
) -> Notice:
    """Tell the sender of ``message`` what happened to some of its recipients.

    Where the body cannot be read, the notice goes without it: it is still worth sending.

    Args:
        action: what happened to all of them.
        message: what it happened to.
        events: at least one.
        hostname: our own name.
        id: the queue id of the notice itself.
        time: of the notice, seconds since the epoch.
        reader: who reads it instead of the sender: the operator, where the reverse-path is null
            (RFC 5321 §4.5.5); else the owner of a list.
        seven_bit: whether its header section has to be ASCII even where their address is not: it is
            forwarded to one that is.

    Raises:
        ValueError: nothing happened; or there is neither a sender nor a reader.
    """
    sender = message.envelope.reverse_path
    to = reader or sender
    if to is None or not events:
        raise ValueError("a notice needs an event, and one to read it")
    role: Reader = "sender" if reader is None else "operator" if sender is None else "owner"
    # RFC 3461 §4.3, §6.2: the whole comes back only where it failed, and HDRS was not asked for.
    back = returned(
        message, whole=action == "failed" and message.envelope.parameters.get("RET") != "HDRS"
    )
    international = _is_international(message, to, events, back)
    back_type, back = back.part(international=international)
    kind = "message/global-delivery-status" if international else "message/delivery-status"
    parts = [
        _part(
            "Notification",
            "text/plain; charset=utf-8",
            explanation(
                action,
                events,
                hostname,
                attached=_attached(back, role),
                reader=role,
            ),
        ),
        _part(
            "Delivery report",
            kind,
            delivery_status(
                action, message, events, hostname=hostname, time=time, international=international
            ),
        ),
    ]
    if back.content:
        description = "What was not delivered" if action == "failed" else "What you sent"
        parts.append(_part(description, back_type, back.content))
    boundary = _boundary(id, parts)
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: {_in_ascii(to) if seven_bit else f'<{shown(to)}>'}",
        f"Subject: {_subject(action, role)}",
        f"Date: {date_time(int(time))}",
        f"Message-ID: <{id}@{hostname}>",
        *_references(back.content),
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary.decode()}"',
    ]
    head = "".join(f"{line}\r\n" for line in header).encode()
    content = b"%s\r\n%s--%s--\r\n" % (head, body, boundary)
    return Notice(content, not head.isascii())


def _is_international(
    message: Message, to: Mailbox, events: Sequence[ReportedRecipient], back: Returned
) -> bool:
    """Whether it needs the types of RFC 6533 §4.

    Only then does it get them: a sender of ASCII may be at a host that does not know them.
    """
    if not to.is_ascii:
        return True
    if "SMTPUTF8" not in message.envelope.parameters and message.trace.isascii():
        return False
    return back.has_utf8_header or not all(event.recipient.mailbox.is_ascii for event in events)


def _in_ascii(mailbox: Mailbox) -> str:
    """Return an address for a field that must be ASCII; it cannot be answered there.

    If it is not ASCII it is the name of an empty group, as RFC 6857 has it.
    """
    if mailbox.is_ascii:
        return f"<{shown(mailbox)}>"
    return Header(shown(mailbox), "utf-8", header_name="To").encode(linesep="\r\n") + " :;"


def _subject(action: Action, reader: Reader) -> str:
    if reader == "owner":
        return "Members of your list that get no mail"
    return SUBJECTS[action] if reader == "sender" else "Notice that could not be delivered"


def _attached(back: Returned, reader: Reader) -> str:
    if not back.content:
        return ""
    what = {"sender": "What you sent", "operator": "It", "owner": "The message"}[reader]
    return (
        f"{what} is attached."
        if back.whole
        else f"The header of {what[0].lower()}{what[1:]} is attached."
    )


def _references(returned: bytes) -> list[str]:
    """Return the fields that tie the notice to what it is about (RFC 5322 §3.6.4)."""
    found = _MESSAGE_ID.fullmatch(field(returned, "Message-ID") or "")
    return [f"In-Reply-To: {found[0]}", f"References: {found[0]}"] if found else []


def _part(description: str, kind: str, content: bytes) -> bytes:
    encoding = "7bit"
    if not content.isascii() or LONG_LINE.search(content):
        encoding, content = _encoded(content)
    elif kind.startswith("text/plain"):
        kind = "text/plain; charset=us-ascii"
    head = (
        f"Content-Description: {description}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
    )
    return head.encode() + b"\r\n" + content


def _encoded(content: bytes) -> tuple[str, bytes]:
    mostly_ascii = is_mostly_ascii(len(content), len(content.translate(None, _ASCII)))
    encoder: Encoder = QuotedPrintable() if mostly_ascii else Base64()
    name = "quoted-printable" if mostly_ascii else "base64"
    return name, encoder.feed(content) + encoder.end() + encoder.line_end


def _boundary(id: QueueId, parts: Sequence[bytes]) -> bytes:
    """Return a boundary (RFC 2046 §5.1.1) that occurs in none of ``parts``."""
    for number in count():
        boundary = f"=_{id}_{number}".encode()
        if not any(boundary in part for part in parts):
            break
    return boundary
