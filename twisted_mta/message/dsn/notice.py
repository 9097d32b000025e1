"""Delivery status notifications (RFC 3464) as multipart/report messages (RFC 6522).

A notice that cannot be delivered is lost. So any next hop can take it: it is ASCII, whatever
message it is about, except for the address of a reader whose mailbox needs SMTPUTF8 anyway.
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
_MESSAGE_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>")  # RFC 5322 §3.6.4, simplified


@frozen
class Notice:
    """A notice, ready to be queued with the null reverse-path (RFC 3464 §2).

    Attributes:
        content: header section and body, with CR LF line ends and no line over 998 octets; the body
            is ASCII.
        international: Whether the header section is not ASCII, so that it needs SMTPUTF8.
    """

    content: bytes
    international: bool = False

    @property
    def parameters(self) -> Parameters:
        """The ESMTP parameters of its MAIL command."""
        return {"SMTPUTF8": None} if self.international else {}


def notice(
    action: Action,
    message: Message,
    recipients: Sequence[ReportedRecipient],
    *,
    hostname: str,
    domain: str = "",
    id: QueueId,
    time: float,
    reader: Mailbox | None = None,
    seven_bit: bool = False,
) -> Notice:
    """Return the notice about some recipients of ``message``.

    A message whose body cannot be read is not returned in it.

    Args:
        action: the action of all ``recipients``.
        message: the message that they belong to.
        recipients: one or more.
        hostname: our own host name.
        domain: of the address in From; empty: the host name.
        id: the queue id of the notice itself.
        time: the time of the notice, seconds since the epoch.
        reader: the address of the notice instead of the reverse-path: the operator's, if that is
            null (RFC 5321 §4.5.5), else that of the owner of a list.
        seven_bit: Whether the header section has to be ASCII even if the address is not, because
            it is forwarded to an ASCII address.

    Raises:
        ValueError: there are no recipients, or neither a reverse-path nor a reader.
    """
    sender = message.envelope.reverse_path
    to = reader or sender
    if to is None or not recipients:
        raise ValueError("a notice needs a recipient to report and a reader")
    role: Reader = "sender" if reader is None else "operator" if sender is None else "owner"
    # RFC 3461 §4.3, §6.2: the whole message is returned only with a failure, and without RET=HDRS.
    # RFC 8689 §5: REQUIRETLS stands for RET=HDRS, whatever RET is.
    envelope = message.envelope
    header_alone = envelope.requires_tls or envelope.parameters.get("RET") == "HDRS"
    back = returned(message, whole=action == "failed" and not header_alone)
    international = _is_international(message, to, recipients, back)
    back_type, back = back.part(international=international)
    kind = "message/global-delivery-status" if international else "message/delivery-status"
    parts = [
        _part(
            "Notification",
            "text/plain; charset=utf-8",
            explanation(
                action,
                recipients,
                hostname,
                attached=_attached(back, role),
                reader=role,
            ),
        ),
        _part(
            "Delivery report",
            kind,
            delivery_status(
                action,
                message,
                recipients,
                hostname=hostname,
                time=time,
                international=international,
            ),
        ),
    ]
    if back.content:
        description = "What was not delivered" if action == "failed" else "What you sent"
        parts.append(_part(description, back_type, back.content))
    boundary = _boundary(id, parts)
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{domain or hostname}>",
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
    message: Message, to: Mailbox, recipients: Sequence[ReportedRecipient], back: Returned
) -> bool:
    """Whether the notice needs the content types of RFC 6533 §4.

    Without need it does not use them: the host of an ASCII sender may not know them.
    """
    if not to.is_ascii:
        return True
    if "SMTPUTF8" not in message.envelope.parameters and message.trace.isascii():
        return False
    return back.has_utf8_header or not all(each.recipient.mailbox.is_ascii for each in recipients)


def _in_ascii(mailbox: Mailbox) -> str:
    """Return an address for a field that must be ASCII.

    Another address becomes the name of an empty group (RFC 6857), which cannot be replied to.
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
    subject = {"sender": "What you sent", "operator": "It", "owner": "The message"}[reader]
    return (
        f"{subject} is attached."
        if back.whole
        else f"The header of {subject[0].lower()}{subject[1:]} is attached."
    )


def _references(returned: bytes) -> list[str]:
    """Return the fields that link the notice to the returned message (RFC 5322 §3.6.4)."""
    id = _MESSAGE_ID.fullmatch(field(returned, "Message-ID") or "")
    return [f"In-Reply-To: {id[0]}", f"References: {id[0]}"] if id else []


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
