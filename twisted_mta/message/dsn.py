"""Delivery status notifications: what a sender gets back (RFC 3464 in the report of RFC 6522).

Pure, but for reading the body of the message that failed. What a peer answered is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import count
from textwrap import wrap

from attrs import frozen

from ..envelope import Message, Outcome, QueueId, Recipient
from ..smtp.address import Mailbox
from ..smtp.reply import Reply, printable
from .header import field
from .trace import date_time

_WHOLE = 50 * 1024  # octets up to which a message comes back whole, as Postfix does by default
_HEADERS = 64 * 1024  # octets of the header section that come back otherwise
_LINE = 998  # octets without CR LF, RFC 5322 §2.1.1
_SPLIT = 900  # octets after which a longer line is split
_WORDS = 2000  # characters of what a peer said; RFC 5321 §4.5.3.1.5 gives it 512 a line

_LONG_LINE = re.compile(rb"[^\n]{%d,}" % (_LINE + 2))  # with its CR
_UNFIT = re.compile(rb"\r(?!\n)|(?<!\r)\n|\x00")
# RFC 5322 §2.2, §2.2.3: fields in order, as far as they have nothing in them that no field has.
_FIELDS = re.compile(
    rb"(?:[\x21-\x39\x3b-\x7e]+[ \t]*:[^\r\n\x00]*\r\n(?:[ \t][^\r\n\x00]*\r\n)*)*"
)
_EIGHT_BIT = re.compile(rb"[\x80-\xff]")
_MESSAGE_ID = re.compile(r"<[\x21-\x3b\x3d\x3f-\x7e]{1,250}>")  # RFC 5322 §3.6.4, near enough
# RFC 6533 §3: what does not stand for itself in utf-8-addr-xtext.
_NOT_XTEXT = re.compile(r"[^\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e]")

_ATTACHED = ("What you sent is attached.", "The header of what you sent is attached.")


@frozen
class Failure:
    """A recipient that will get nothing, and the ``5yz`` outcome that decided it.

    The reply for a recipient whose time ran out is ``5.4.7``, our own; what its last attempt was
    answered stands in ``recipient.last_reply``.
    """

    recipient: Recipient
    outcome: Outcome


@frozen
class Notice:
    """A notification, ready to be queued with the null reverse-path (RFC 3464 §2).

    Attributes:
        content: header section and body, with CR LF line ends, no line over 998 octets.
        eight_bit: whether it can only travel as ``BODY=8BITMIME``.
    """

    content: bytes
    eight_bit: bool


def failure_notice(
    message: Message,
    failures: Sequence[Failure],
    *,
    hostname: str,
    id: QueueId,
    time: float,
) -> Notice:
    """Tell the sender of ``message`` whom it did not reach, and why.

    Where the body cannot be read, the notice goes without it: it is still worth sending.

    Args:
        message: what failed; its reverse-path must not be null (RFC 5321 §4.5.5).
        failures: at least one.
        hostname: our own name.
        id: the queue id of the notice itself.
        time: of the notice, seconds since the epoch.

    Raises:
        ValueError: the message has the null reverse-path, or nothing failed.
    """
    sender = message.envelope.reverse_path
    if sender is None or not failures:
        raise ValueError("a notice of failure needs a reverse-path and a failure")
    date = date_time(int(time))
    returned, kind = _returned(message)
    attached = _ATTACHED[kind.endswith("headers")] if returned else ""
    parts = [
        _part(
            "Notification",
            "text/plain; charset=utf-8",
            _explanation(failures, hostname, attached),
        ),
        _part(
            "Delivery report",
            "message/delivery-status",
            _delivery_status(message, failures, hostname, date),
        ),
    ]
    if returned:
        parts.append(_part("What was not delivered", kind, returned))
    boundary = _boundary(id, parts)
    body = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    header = [
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>",
        f"To: <{_shown(sender)}>",
        "Subject: Undelivered mail returned to sender",
        f"Date: {date}",
        f"Message-ID: <{id}@{hostname}>",
        *_references(returned),
        "Auto-Submitted: auto-replied",  # RFC 3834 §5
        "MIME-Version: 1.0",
        "Content-Type: multipart/report; report-type=delivery-status;",
        f'\tboundary="{boundary.decode()}"',
    ]
    eight_bit = _EIGHT_BIT.search(body) is not None or not sender.is_ascii
    if eight_bit:
        header.append("Content-Transfer-Encoding: 8bit")  # RFC 2045 §6.4: as its parts have it
    head = "".join(f"{line}\r\n" for line in header).encode()
    content = b"%s\r\n%s--%s--\r\n" % (head, body, boundary)
    return Notice(_LONG_LINE.sub(_split, content), eight_bit)


def _references(returned: bytes) -> list[str]:
    """Return the fields that tie the notice to what it is about (RFC 5322 §3.6.4)."""
    found = _MESSAGE_ID.fullmatch(field(returned, "Message-ID") or "")
    return [f"In-Reply-To: {found[0]}", f"References: {found[0]}"] if found else []


def _returned(message: Message) -> tuple[bytes, str]:
    """Return what of the message goes back, and the media type of that."""
    # RFC 6533 §4: a message that came with SMTPUTF8 goes back under types that allow for it.
    international = "SMTPUTF8" in message.envelope.parameters or not message.trace.isascii()
    try:
        whole = len(message.trace) + message.body.size <= _WHOLE
        if whole and not message.envelope.binary:
            content = message.trace + b"".join(message.body.chunks())
            if not _UNFIT.search(content) and not _LONG_LINE.search(content):
                return content, "message/global" if international else "message/rfc822"
        header = _header(message)
    except OSError:
        header = b""
    return header, "message/global-headers" if international else "text/rfc822-headers"


def _header(message: Message) -> bytes:
    """Return the header section, as much of it as goes back, whatever is wrong with it mended."""
    header = b"\r\n" + message.trace  # so that the empty line is found where it is the first
    for chunk in message.body.chunks():
        header += chunk
        if b"\r\n\r\n" in header or len(header) > _HEADERS:
            break
    header = header.partition(b"\r\n\r\n")[0] + b"\r\n"
    if len(header) > _HEADERS:
        header = header[: header.rfind(b"\r\n", 0, _HEADERS) + 2]
    if message.envelope.binary:
        # RFC 3030 §3: a report is no binary message. What is no field may be content already.
        fields = _FIELDS.match(header, 2)
        assert fields is not None  # it matches nothing at all too
        return fields[0]
    return _UNFIT.sub(b"?", header[2:])


def _explanation(failures: Sequence[Failure], hostname: str, attached: str) -> bytes:
    """Return what a person is to read first."""
    lines = [
        f"This is the mail system at {hostname}.",
        "",
        *wrap(
            "Your message could not be delivered to the "
            f"{'address' if len(failures) == 1 else 'addresses'} below. It will not be tried "
            "again: if it still matters, please send it anew, once what is said below has been "
            f"put right. {attached}",
            72,
        ),
    ]
    for failure in failures:
        recipient, outcome = failure.recipient, failure.outcome
        who = printable(outcome.remote) + " answered:" if outcome.remote else "The reason:"
        lines += ["", f"<{_shown(recipient.mailbox)}>", f"    {who}", *_quoted(outcome.reply)]
        if not outcome.remote and recipient.last_reply not in (None, outcome.reply):
            who = printable(recipient.last_remote or "this system")
            assert recipient.last_reply is not None
            lines += [f"    The last answer, from {who}, was:", *_quoted(recipient.last_reply)]
    return "".join(f"{line}\r\n" for line in lines).encode()


def _quoted(reply: Reply) -> list[str]:
    return wrap(_words(reply), 72, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _delivery_status(
    message: Message, failures: Sequence[Failure], hostname: str, date: str
) -> bytes:
    """Return the content of message/delivery-status (RFC 3464 §2.1)."""
    blocks = [
        (
            ("Reporting-MTA", f"dns; {hostname}"),  # RFC 3464 §2.2.2
            ("X-Queue-ID", str(message.id)),
            ("Arrival-Date", date_time(int(message.received_at))),
        ),
        *(tuple(_recipient_fields(failure, date)) for failure in failures),
    ]
    return b"\r\n".join(b"".join(map(_field, block)) for block in blocks)


def _recipient_fields(failure: Failure, date: str) -> Iterator[tuple[str, str]]:
    outcome = failure.outcome
    yield "Final-Recipient", _typed_address(failure.recipient.mailbox)  # RFC 3464 §2.3.2
    yield "Action", "failed"
    yield "Status", outcome.reply.enhanced or "5.0.0"  # RFC 3464 §2.3.4
    if outcome.remote:
        yield "Remote-MTA", f"dns; {printable(outcome.remote.partition('[')[0]) or 'unknown'}"
    yield "Diagnostic-Code", f"smtp; {_words(outcome.reply)}"  # RFC 3464 §2.3.6
    yield "Last-Attempt-Date", date


def _typed_address(mailbox: Mailbox) -> str:
    if mailbox.is_ascii:
        return f"rfc822; {_shown(mailbox)}"
    # RFC 6533 §3: in message/delivery-status an international address is written in ASCII.
    xtext = _NOT_XTEXT.sub(lambda found: f"\\x{{{ord(found[0]):02X}}}", str(mailbox))
    return f"utf-8; {xtext}"


def _field(field: tuple[str, str]) -> bytes:
    """Return a field, folded at spaces where it is long (RFC 5322 §2.2.3)."""
    name, value = field
    lines = wrap(f"{name}: {value}", 78, break_long_words=False, break_on_hyphens=False)
    return "\r\n ".join(lines).encode() + b"\r\n"


def _words(reply: Reply) -> str:
    words = str(reply)
    return words if len(words) <= _WORDS else words[:_WORDS] + " [...]"


def _shown(mailbox: Mailbox) -> str:
    address = str(mailbox)
    return address if address.isprintable() else printable(address)


def _part(description: str, kind: str, content: bytes) -> bytes:
    encoding = "8bit" if _EIGHT_BIT.search(content) else "7bit"
    if kind.startswith("text/plain") and encoding == "7bit":
        kind = "text/plain; charset=us-ascii"
    head = (
        f"Content-Description: {description}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
    )
    return head.encode() + b"\r\n" + content


def _boundary(id: QueueId, parts: Sequence[bytes]) -> bytes:
    """Return a boundary (RFC 2046 §5.1.1) that occurs in none of ``parts``."""
    for number in count():
        boundary = f"=_{id}_{number}".encode()
        if not any(boundary in part for part in parts):
            break
    return boundary


def _split(found: re.Match[bytes]) -> bytes:
    line = found[0]
    return b"\r\n ".join(line[at : at + _SPLIT] for at in range(0, len(line), _SPLIT))
