"""The part of a report that programs read (RFC 3464; in UTF-8 by RFC 6533).

What a peer said, and what a client gave us to repeat, is escaped.
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
"""What happened to a recipient (RFC 3464 §2.3.3)."""

_SPLIT = 240  # characters after which a longer line is split, so that it has no 998 octets
_WORDS = 2000  # characters of what a peer said; RFC 5321 §4.5.3.1.5 gives it 512 a line
_CLASSES = {"failed": 5, "delayed": 4}  # of status codes (RFC 3464 §2.3.4); else 2

# RFC 5321 §4.4: whom it came from, in the trace field that is ours.
_FROM = re.compile(rb"Received: from ([!-~]{1,255})")


@frozen
class ReportedRecipient:
    """What happened to one recipient.

    Attributes:
        recipient: to whom.
        outcome: what it came to, or came to last. The reply of a failure because time ran out is
            ``5.4.7``, our own; what the last attempt was answered stands in
            ``recipient.last_reply`` then.
        attempted: whether that was just now.
        until: where it is tried again, until when; wall time.
    """

    recipient: Recipient
    outcome: Outcome
    attempted: bool = True
    until: float | None = None


def delivery_status(
    action: Action,
    message: Message,
    events: Sequence[ReportedRecipient],
    *,
    hostname: str,
    time: float,
    international: bool,
) -> bytes:
    """Return the content of message/delivery-status (RFC 3464 §2.1).

    Args:
        action: what happened to all of these recipients.
        message: what is reported on.
        events: at least one.
        hostname: our own name.
        time: of the report, seconds since the epoch.
        international: as message/global-delivery-status (RFC 6533 §4): addresses in UTF-8.
    """
    date = date_time(int(time))
    blocks: list[Iterator[tuple[str, str]]] = [_message_fields(message, hostname)]
    blocks += [_recipient_fields(action, event, date, international) for event in events]
    return b"\r\n".join(b"".join(map(_field, block)) for block in blocks)


def _message_fields(message: Message, hostname: str) -> Iterator[tuple[str, str]]:
    envelope_id = message.envelope.parameters.get("ENVID")
    if isinstance(envelope_id, str):
        yield "Original-Envelope-Id", _decoded(envelope_id)  # RFC 3464 §2.2.1
    yield "Reporting-MTA", f"dns; {hostname}"  # RFC 3464 §2.2.2
    if found := _FROM.match(message.trace):
        yield "Received-From-MTA", f"dns; {found[1].decode('ascii')}"  # RFC 3464 §2.2.4
    yield "X-Queue-ID", str(message.id)
    yield "Arrival-Date", date_time(int(message.received_at))  # RFC 3464 §2.2.5


def _recipient_fields(
    action: Action, event: ReportedRecipient, date: str, international: bool
) -> Iterator[tuple[str, str]]:
    recipient, outcome = event.recipient, event.outcome
    original = recipient.parameters.get("ORCPT")
    if isinstance(original, str):
        # RFC 3464 §2.3.1; RFC 3461 §6.3: none where the sender named none.
        yield "Original-Recipient", _original(original, international)
    yield "Final-Recipient", typed_address(recipient.mailbox, international)  # RFC 3464 §2.3.2
    yield "Action", action
    yield "Status", _status(action, outcome.reply)
    if outcome.remote:
        yield "Remote-MTA", f"dns; {printable(outcome.remote.partition('[')[0]) or 'unknown'}"
    if action != "expanded":
        # RFC 3464 §2.3.6: smtp is what an SMTP server answered; the rest are words of our own.
        kind = "smtp" if outcome.remote else "x-twisted-mta"
        yield "Diagnostic-Code", f"{kind}; {words(outcome.reply)}"
    if event.attempted:
        yield "Last-Attempt-Date", date
    if event.until is not None:
        yield "Will-Retry-Until", date_time(int(event.until))  # RFC 3464 §2.3.9


def _status(action: Action, reply: Reply) -> str:
    # RFC 3464 §2.3.4: the class has to agree with the action.
    return f"{_CLASSES.get(action, 2)}.{reply.status or '0.0'}"


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
    """Return what xtext stands for; it was checked when it came, and whoever wrote it, escaped."""
    try:
        return printable(decode_xtext(xtext))
    except ValueError:
        return printable(xtext)


def _field(field: tuple[str, str]) -> bytes:
    """Return a field, folded at spaces where it is long (RFC 5322 §2.2.3), or else anywhere."""
    name, value = field
    text = f"{name}: {value}"
    if len(text) <= 78:  # most are, and there may be a thousand recipients
        return text.rstrip().encode() + b"\r\n"
    lines = wrap(text, 78, break_long_words=False, break_on_hyphens=False)
    parts = (line[at : at + _SPLIT] for line in lines for at in range(0, len(line), _SPLIT))
    return "\r\n ".join(parts).encode() + b"\r\n"


def words(reply: Reply) -> str:
    """Return a reply, so much of it as anybody reads; printable ASCII."""
    said = str(reply)
    return said if len(said) <= _WORDS else said[:_WORDS] + " [...]"


def shown(mailbox: Mailbox) -> str:
    """Return an address that can stand in a line."""
    address = str(mailbox)
    return address if address.isprintable() else printable(address)
