"""The readers of DKIM and ARC: tag lists, key records, signed headers, chains, bodies."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from twisted.internet.defer import Deferred, succeed

from tests.policy.dkim.keys import key
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.assessment import Assessment
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.policy.arc.validation import ChainValidation
from twisted_mta.policy.dkim.body_hashes import BodyHashes
from twisted_mta.policy.dkim.key_record import KeyRecord, KeyRecordError
from twisted_mta.policy.dkim.signed_header import SignedHeader
from twisted_mta.policy.dkim.signer import Signer
from twisted_mta.policy.dkim.signing import _selected
from twisted_mta.policy.dkim.signing_keys import SigningKeys
from twisted_mta.policy.dkim.verification import Verification
from twisted_mta.system.executors import inline_executor

from ..scaling import Reader

_RECORD = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
_SIGNED = b"a=ed25519-sha256; d=a.example; s=a; bh=YQ==; b=YQ==; h=from:to"
_FROM = b"\r\nFrom: a@a.example\r\n"


class _Records:
    """A DNS with the same key for all names."""

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        return succeed([_RECORD])


def _key_record(octets: bytes) -> None:
    with suppress(KeyRecordError):
        KeyRecord.parse(octets)


def _signed_header(octets: bytes) -> None:
    header = SignedHeader(octets)
    _selected(header)  # the fields that a signature of ours names
    verification = Verification(header, BodyHashes(), 0.0)
    verification.look_up(_Records())
    Deferred.fromCoroutine(verification.results())


_SIGNER = Signer(
    SigningKeys([key("ed25519", "a.example")]), wall_time=lambda: 0.0, executor=inline_executor
)


def _signed(octets: bytes) -> None:
    envelope = Envelope(None, (Recipient(RecipientNumber(0), Mailbox("b", "b.example")),))
    ours = Assessment(signs=True)
    _SIGNER.sign(Message(QueueId(1), envelope, b"", MemoryBody(octets), 0.0, 1.0, assessment=ours))


def _chain(octets: bytes) -> None:
    validation = ChainValidation(SignedHeader(octets), BodyHashes(), 0.0)
    validation.look_up(_Records())
    Deferred.fromCoroutine(validation.result())


def _body(octets: bytes) -> None:
    hashes = BodyHashes()
    for limit in (None, 1_000):
        hashes.want("simple", limit)
        hashes.want("relaxed", limit)
    hashes.feed(octets)
    hashes.result("simple")
    hashes.result("relaxed")


_TAGS = (
    *(b";", b"; ", b"=", b":", b" ", b"\t", b"\r\n ", b"a", b"a=b;", b"from:", b"YQ==", b"a."),
    *(b"b=", b"l=1;", b"\xc3\xa9", b"\xff", b"\r", b"\r\nTo: a", b"\r\n", b"xn--a.", b"-"),
)

READERS = (
    Reader(
        name="key record",
        read=_key_record,
        words=(*_TAGS, b"p=;", b"t=y:s;"),
        frames=((b"v=DKIM1; ", b""), (b"v=DKIM1; p=", b""), (b"k=ed25519; t=", b";p=" + b"A" * 44)),
    ),
    Reader(
        name="signed header",
        read=_signed_header,
        words=(*_TAGS, b"\r\nDKIM-Signature: v=1; " + _SIGNED, b"\r\nList-A: b", b"\r\nContent-a:"),
        frames=(
            (b"DKIM-Signature: v=1; " + _SIGNED, _FROM),
            (b"DKIM-Signature: v=1; " + _SIGNED + b"; b", _FROM),
            (b"DKIM-Signature: v=1; c=relaxed; " + _SIGNED + _FROM + b"To:", b"\r\n"),
        ),
    ),
    Reader(
        name="signer",
        read=_signed,
        words=(*_TAGS, b"\r\n\r\n", b"\r\nFrom: a@a.example", b"\r\nList-A: b", b"\r\nCc:", b"("),
        frames=(
            (b"", b"\r\n\r\n"),
            (b"From: a@a.example\r\nTo: ", b"\r\n\r\na\r\n"),
            (b"From: a@a.example", b"\r\n\r\na\r\n"),
        ),
        most=16_384,  # larger ones are signed in a thread
    ),
    Reader(
        name="chain",
        read=_chain,
        words=(*_TAGS, b"(", b")", b"\r\nARC-Seal: i=1; cv=none; " + _SIGNED),
        frames=(
            (b"ARC-Authentication-Results: ", b"i=1; a" + _FROM),
            (b"ARC-Seal: i=1; cv=none; a=ed25519-sha256; d=a.example; s=a; b=", _FROM),
            (
                b"ARC-Seal: i=1; cv=none; a=ed25519-sha256; d=a.example; s=a; b=YQ==\r\n"
                b"ARC-Message-Signature: i=1; " + _SIGNED + b"\r\n"
                b"ARC-Authentication-Results: i=1; a",
                _FROM,
            ),
        ),
    ),
    Reader(
        name="body",
        read=_body,
        words=(b"\r\n", b"\r", b"\n", b" ", b"\t", b"a", b"a ", b" \r\n", b"\r\r\n", b"\0"),
    ),
)
