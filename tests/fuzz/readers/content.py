"""The readers of contents and header sections."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from twisted_mta import attachments
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.message.authentication_results import without_own
from twisted_mta.message.dsn.delivery_status import ReportedRecipient
from twisted_mta.message.dsn.notice import notice
from twisted_mta.message.feedback_report import read_feedback_report
from twisted_mta.message.header import fields
from twisted_mta.message.header_scanner import HeaderScanner
from twisted_mta.message.mime.conversion import to_seven_bit
from twisted_mta.message.mime.conversion_plan import CannotConvert
from twisted_mta.message.mime.encoding import Base64, QuotedPrintable
from twisted_mta.message.mime.entity import read_entity
from twisted_mta.message.mime.sections import TooManyParts, sections
from twisted_mta.message.mime.smtputf8 import needs_smtputf8
from twisted_mta.policy.missing_fields import missing_fields
from twisted_mta.policy.submission import Submission, SubmissionPolicy
from twisted_mta.smtp.client.outgoing import stuffed

from ..scaling import Reader

_NOW = 1_790_000_000.0
_PIECE = 65_536
_SPACES = (b" ", b"\t", b"\r\n ", b"\r\n\t")

_HEADER_WORDS = (
    *(
        b"a:\r\n",
        b"X-Spam: yes\r\n",
        b"Received: from a by b; c\r\n",
        b"received",
        b"From: a@b\r\n",
    ),
    *(b"\r\n a", b":", b"a", b"\xc3\xa9", b"\r", b"\n", b"\0", b"(", b")", b'"', b"\\", b";", b"="),
    *(b"a=", b"b=c;", b"Content-Type:", b"\r\n\r\n"),
    *_SPACES,
)
_TYPE = b"Content-Type: multipart/mixed; boundary=b\r\n"
_REPORT = b"Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n"
_NESTED = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
_CONTENT_WORDS = (
    *(b"--b\r\n", b"--b\r\n\r\n", b"--b\r\nX: y\r\n", b"\r\n--b", b"\r\n--", b"--b--\r\n", b"--"),
    *(_NESTED, b"Content-Type: message/rfc822\r\n\r\n", b"\xe9\r\n", b"a\r\n", b"\r\n", b"a", b" "),
    *(b"=", b"\xe9", b"\r\n.", b".", b"\r", b"\n", b"\0", b"\t\r\n", b"a: b\r\n", b"=20\r\n"),
    b"x" * 75 + b" \r\n",
    b"x" * 999 + b"\r\n",
)
_CONTENT_FRAMES = (
    (b"", b""),
    (_TYPE + b"\r\n", b""),
    (_TYPE + b"\r\n--b\r\n", b"\r\n--b\r\n\r\n\xe9\r\n--b--\r\n"),
    (b"Content-Type: text/plain\r\n\r\n\xe9\r\n", b""),
    (b"Content-Type: application/x\r\n\r\n\xe9\r\n", b""),
)


def _message(content: bytes) -> Message:
    return Message(
        id=QueueId(5),
        envelope=Envelope(
            Mailbox("ann", "sender.example"),
            (Recipient(RecipientNumber(0), Mailbox("bob", "next.example")),),
        ),
        trace=b"Received: from a\r\n\tby b; now\r\n",
        body=MemoryBody(content),
        received_at=_NOW,
        expires_at=_NOW,
    )


def _chunks(octets: bytes, size: int = _PIECE) -> Iterator[bytes]:
    for at in range(0, len(octets), size):
        yield octets[at : at + size]


def _sections(octets: bytes) -> None:
    with suppress(TooManyParts):
        for _ in sections(_chunks(octets)):
            pass


def _sections_of_small_chunks(octets: bytes) -> None:
    with suppress(TooManyParts):
        for _ in sections(_chunks(octets, 100)):
            pass


def _attachments(octets: bytes) -> None:
    with suppress(TooManyParts):
        for part in attachments(octets):
            for _ in part.chunks():
                pass


def _convert(octets: bytes) -> None:
    with suppress(CannotConvert):
        body = to_seven_bit(MemoryBody(octets))
        _ = body.size


def _scan_header(octets: bytes) -> None:
    scanner = HeaderScanner()
    for piece in _chunks(octets):
        scanner.feed(piece)


def _scan_header_in_segments(octets: bytes) -> None:
    scanner = HeaderScanner()
    for piece in _chunks(octets, 100):
        scanner.feed(piece)


def _fields(octets: bytes) -> None:
    for _ in fields(octets):
        pass


_SUBMISSION = Submission(
    may_send_as=lambda account, mailbox: False,
    address_of=lambda account: Mailbox("ann", "a.example"),
)
_POLICY = SubmissionPolicy(own_addresses="header", adds_sender=True)


def _submit(octets: bytes) -> None:
    _SUBMISSION.header(_POLICY, "ann", octets)
    missing_fields(octets, id=QueueId(5), hostname="mx.example", time=_NOW)


def _notice(octets: bytes) -> None:
    message = _message(octets)
    (recipient,) = message.envelope.recipients
    failed = ReportedRecipient(
        recipient, Outcome(recipient.number, Reply.of(550, "1.1", "No"), "mx[1]")
    )
    notice("failed", message, [failed], hostname="mx.example", id=QueueId(7), time=_NOW)


def _encode(octets: bytes) -> None:
    for encoder in (Base64(), QuotedPrintable()):
        for piece in _chunks(octets):
            encoder.feed(piece)
        encoder.end()


def _stuff(octets: bytes) -> None:
    for _ in stuffed(_message(octets)):
        pass


READERS = (
    Reader(
        name="sections",
        read=_sections,
        words=_CONTENT_WORDS,
        frames=_CONTENT_FRAMES,
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="sections of small chunks",
        read=_sections_of_small_chunks,
        words=_CONTENT_WORDS,
        frames=_CONTENT_FRAMES,
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="attachments",
        read=_attachments,
        words=(
            *_CONTENT_WORDS,
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Transfer-Encoding: x-uuencode\r\n\r\nbegin 644 a\r\n",
            b"Content-Disposition: attachment; filename",
            b"*0*=utf-8''%41;filename=\"=?utf-8?q?",
        ),
        frames=(
            *_CONTENT_FRAMES,
            (b"Content-Disposition: a; filename=", b"\r\n\r\n"),
            (b"Content-Type: a/b\nContent-Transfer-Encoding: quoted-printable\n\n", b""),
        ),
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="entity",
        read=read_entity,
        words=_HEADER_WORDS,
        frames=(
            (b"", b"\r\n\r\n"),
            (b"Content-Type: multipart/mixed;", b"\r\n\r\n"),
            (b"Content-Type: a/b;c=", b" x\r\n\r\n"),
            (b"Content-Type: ", b"/\r\n\r\n"),
            (b'Content-Type: multipart/mixed; boundary="', b"\r\n\r\n"),
            (b"Content-Transfer-Encoding: 8bit", b" x\r\n\r\n"),
            (b"Content-Transfer-Encoding: ", b"\r\n\r\n"),
        ),
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="conversion",
        read=_convert,
        words=_CONTENT_WORDS,
        frames=_CONTENT_FRAMES,
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="international",
        read=lambda octets: needs_smtputf8(MemoryBody(octets)),
        words=_CONTENT_WORDS,
        frames=_CONTENT_FRAMES,
    ),
    Reader(name="header scanner", read=_scan_header, words=_HEADER_WORDS),
    Reader(
        name="header scanner of segments",
        read=_scan_header_in_segments,
        words=_HEADER_WORDS,
        most=1 << 18,
        place="thread",
    ),
    Reader(name="header fields", read=_fields, words=_HEADER_WORDS),
    Reader(
        name="authentication results",
        read=lambda octets: without_own(octets, "mx.example.net"),
        words=(
            b"Authentication-Results:",
            b"\r\nauthentication-results :mx.example.net;\r\n",
            b"mx.example.net",
            *_HEADER_WORDS,
        ),
        frames=((b"", b""), (b"Authentication-Results:", b""), (b"Authentication-Results:(", b"")),
        most=1 << 20,
    ),
    Reader(
        name="feedback report",
        read=lambda octets: read_feedback_report([octets]),
        words=(
            *_CONTENT_WORDS,
            b"Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n",
            b"Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: base64\r\n\r\nQQ==",
            b"CFBL-Feedback-ID: x\r\n",
        ),
        frames=(
            (_REPORT + b"\r\n--b\r\n", b""),
            (_REPORT + b"\r\n--b\r\nContent-Type: message/feedback-report\r\n\r\n", b"\r\n--b--"),
            (b"Content-Type: multipart/report; report-type=", b"\r\n\r\n"),
        ),
        most=1 << 18,
        place="thread",
    ),
    Reader(
        name="submission",
        read=_submit,
        words=(
            *(
                b"a@b",
                b",",
                b"<",
                b">",
                b"(",
                b")",
                b'"',
                b"\\",
                b":",
                b";",
                b"g:",
                b"[",
                b"]",
                b"@",
            ),
            *(b"a@b, ", b"\xc3\xa9", b"From: a@b\r\n", b"a:\r\n", b"From:\r\n", b"\r\n", *_SPACES),
            *(b"=?utf-8?q?=", b"?=", b"From:a@b,"),
        ),
        frames=(
            (b"From: ", b"\r\n"),
            (b"From: a@b", b"\r\n"),
            (b"", b""),
            (b"From: <", b">\r\n"),
            (b"Sender: ", b"\r\nFrom: a@b\r\n"),
        ),
        most=1 << 20,
    ),
    Reader(
        name="notice",
        read=_notice,
        words=(*_CONTENT_WORDS, *_HEADER_WORDS, b"x" * 990 + b"\r\n"),
        frames=(
            (b"", b""),
            (b"Message-ID: <", b">\r\n\r\n"),
            (b"", b"\r\n\r\n"),
            (b"Subject: x\r\n\r\n", b"\r\n"),
        ),
        most=1 << 20,
    ),
    Reader(name="encoders", read=_encode, words=_CONTENT_WORDS, most=1 << 18, place="thread"),
    Reader(name="dots", read=_stuff, words=_CONTENT_WORDS, most=1 << 18, place="thread"),
)
