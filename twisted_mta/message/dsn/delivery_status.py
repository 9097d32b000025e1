"""The part of a notice that programs read: message/delivery-status (RFC 3464, RFC 6533).

Text of peers and clients is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from textwrap import wrap
from typing import Literal

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.envelope import Recipient
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.printable import printable
from ...mail.reply import Reply
from ...mail.utf8_address import decode_utf8_address, encode_utf8_address
from ...mail.xtext import decode_xtext
from ..date import date_time

Action = Literal["failed", "delayed", "delivered", "relayed", "expanded"]
"""The action field: what happened to a recipient (RFC 3464 §2.3.3)."""

_SPLIT = 240  # characters after which a line is cut, so that it stays below 998 octets
_LONGEST_REPLY = 2000  # characters; RFC 5321 §4.5.3.1.5 allows 512 a line
_CLASSES = {"failed": 5, "delayed": 4}  # of status codes (RFC 3464 §2.3.4); else 2

# RFC 5321 §4.4: the client, in the trace field that we wrote.
_FROM = re.compile(rb"Received: from ([!-~]{1,255})")


@frozen
class ReportedRecipient:
    """A recipient in a notice.

    Attributes:
        recipient: the recipient.
        outcome: its last outcome. That of an expired recipient is our own ``5.4.7``.
        attempted: Whether an attempt was just made.
        until: wall time until which attempts go on; None: there are no more.
        last: the outcome of the last attempt at an expired recipient; None: ``outcome`` is that.
    """

    recipient: Recipient
    outcome: Outcome
    attempted: bool = True
    until: float | None = None
    last: Outcome | None = None


def delivery_status(
    action: Action,
    message: Message,
    recipients: Sequence[ReportedRecipient],
    *,
    hostname: str,
    time: float,
    international: bool,
) -> bytes:
    """Return the content of message/delivery-status (RFC 3464 §2.1).

    Args:
        action: the action of all ``recipients``.
        message: the message that they belong to.
        recipients: one or more.
        hostname: our own host name.
        time: the time of the notice, seconds since the epoch.
        international: Whether addresses are written in UTF-8, as in message/global-delivery-status
            (RFC 6533 §4).
    """
    date = date_time(int(time))
    blocks: list[Iterator[tuple[str, str]]] = [_message_fields(message, hostname)]
    blocks += [
        _recipient_fields(action, recipient, date, international) for recipient in recipients
    ]
    return b"\r\n".join(b"".join(map(_field, block)) for block in blocks)


def _message_fields(message: Message, hostname: str) -> Iterator[tuple[str, str]]:
    envelope_id = message.envelope.parameters.get("ENVID")
    if isinstance(envelope_id, str):
        yield "Original-Envelope-Id", _decoded(envelope_id)  # RFC 3464 §2.2.1
    yield "Reporting-MTA", f"dns; {hostname}"  # RFC 3464 §2.2.2
    if client := _FROM.match(message.trace):
        yield "Received-From-MTA", f"dns; {client[1].decode('ascii')}"  # RFC 3464 §2.2.4
    yield "X-Queue-ID", str(message.id)
    yield "Arrival-Date", date_time(int(message.received_at))  # RFC 3464 §2.2.5


def _recipient_fields(
    action: Action, reported: ReportedRecipient, date: str, international: bool
) -> Iterator[tuple[str, str]]:
    recipient, outcome = reported.recipient, reported.outcome
    original = recipient.parameters.get("ORCPT")
    if isinstance(original, str):
        # RFC 3464 §2.3.1; RFC 3461 §6.3: only if the sender gave ORCPT.
        yield "Original-Recipient", _original(original, international)
    yield "Final-Recipient", typed_address(recipient.mailbox, international)  # RFC 3464 §2.3.2
    yield "Action", action
    yield "Status", _status(action, outcome.reply)
    if reported.last is not None and reported.last.remote:
        # RFC 3464 §2.3.5, §2.3.6: the server of the last attempt, and its reply as it was said.
        outcome = reported.last
    if outcome.remote:
        yield "Remote-MTA", f"dns; {printable(outcome.remote.partition('[')[0]) or 'unknown'}"
    if action != "expanded":
        # RFC 3464 §2.3.6: smtp for the reply of an SMTP server; other text is our own.
        kind = "smtp" if outcome.remote else "x-twisted-mta"
        yield "Diagnostic-Code", f"{kind}; {reply_text(outcome.reply)}"
    if reported.attempted:
        yield "Last-Attempt-Date", date
    if reported.until is not None:
        yield "Will-Retry-Until", date_time(int(reported.until))  # RFC 3464 §2.3.9


def _status(action: Action, reply: Reply) -> str:
    # RFC 3464 §2.3.4: the class has to agree with the action.
    return f"{_CLASSES.get(action, 2)}.{reply.detail or '0.0'}"


def typed_address(mailbox: Mailbox, international: bool) -> str:
    """Return an address with its type (RFC 3464 §2.1.2, RFC 6533 §3)."""
    if mailbox.is_ascii:
        return f"rfc822; {shown(mailbox)}"
    if international:
        return f"utf-8; {shown(mailbox)}"
    # RFC 6533 §3: in message/delivery-status an international address is written in ASCII.
    return f"utf-8; {encode_utf8_address(str(mailbox))}"


def _original(typed: str, international: bool) -> str:
    kind, _, address = typed.partition(";")
    if kind != "utf-8":
        address = _decoded(address)
    elif international:
        address = decode_utf8_address(address)
    return f"{kind}; {address}"


def _decoded(xtext: str) -> str:
    """Return decoded xtext, escaped: a client wrote it."""
    try:
        return printable(decode_xtext(xtext))
    except ValueError:
        return printable(xtext)


def _field(field: tuple[str, str]) -> bytes:
    """Return a field, folded at spaces where it is long (RFC 5322 §2.2.3), or else anywhere."""
    name, value = field
    text = f"{name}: {value}"
    if len(text) <= 78:  # most are, and a message may have a thousand recipients
        return text.rstrip().encode() + b"\r\n"
    lines = wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    parts = (line[at : at + _SPLIT] for line in lines for at in range(0, len(line), _SPLIT))
    return "\r\n ".join(parts).encode() + b"\r\n"


def reply_text(reply: Reply) -> str:
    """Return a reply as printable ASCII, cut at 2,000 characters."""
    text = str(reply)
    return text if len(text) <= _LONGEST_REPLY else text[:_LONGEST_REPLY] + " [...]"


def shown(mailbox: Mailbox) -> str:
    """Return an address without controls, in one line."""
    address = str(mailbox)
    return address if address.isprintable() else printable(address)
