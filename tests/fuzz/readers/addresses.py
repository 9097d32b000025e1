"""The readers of addresses, and of addresses in other encodings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from twisted_mta.mail.address import Mailbox, domain_name, folded, path, u_labels
from twisted_mta.mail.printable import printable
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.utf8_address import decode_utf8_address, encode_utf8_address
from twisted_mta.mail.xtext import decode_xtext, encode_xtext
from twisted_mta.message.received import received, without_utf8_recipient
from twisted_mta.routing.srs import BadSRS, SenderRewriting, is_srs

from ..scaling import Reader

_NOW = 1_790_000_000.0

_ADDRESS_WORDS = (
    *(
        b"a",
        b".",
        b"a.",
        b"@",
        b"@a,",
        b'"',
        b"\\",
        b'\\"',
        b"[",
        b"]",
        b":",
        b"<",
        b">",
        b"%",
        b"!",
    ),
    *(b"=", b"+", b" ", b"a=b ", b"\xc3\xa9", b"\xcc\x81\xcc\xa3", b"\xe2\x80\x8d", b"xn--a."),
    *(b"-", b"_", b"+41", b"\\x{E9}", b"1", b"1:", b"\xef\xbc\x8e", b"SIZE=1 ", b"\xef\xb7\xba"),
)


def _text(read: Callable[[str], object]) -> Callable[[bytes], None]:
    def reader(octets: bytes) -> None:
        with suppress(ValueError, BadSRS):
            read(octets.decode("utf-8", "replace"))

    return reader


_SRS = SenderRewriting("srs.example", b"0123456789abcdef")


def _srs(text: str) -> None:
    mailbox = Mailbox(text, "srs.example")
    is_srs(mailbox)
    _SRS.rewritten(Mailbox(text, "a.example"), _NOW)
    _SRS.restored(mailbox, _NOW)


def _trace(text: str) -> None:
    found = received(
        greeting="EHLO",
        helo=text,
        peer_address="192.0.2.1",
        peer_name=text,
        by="mx.example",
        queue_id=QueueId(5),
        recipient=Mailbox(text, "next.example"),
        tls=None,
        authenticated=False,
        smtputf8=True,
        time=_NOW,
    )
    without_utf8_recipient(found)


READERS = (
    Reader(
        name="path",
        read=_text(path),
        words=_ADDRESS_WORDS,
        frames=(
            (b"<", b">"),
            (b"<@a:", b"@b>"),
            (b'<"', b'"@b>'),
            (b"<a@", b">"),
            (b"<a@[", b"]>"),
        ),
    ),
    Reader(
        name="mailbox",
        read=_text(Mailbox.parse),
        words=_ADDRESS_WORDS,
        frames=((b"", b""), (b'"', b'"@b'), (b"", b"@b"), (b"a@", b""), (b"a@[", b"]")),
    ),
    Reader(
        name="written mailbox",
        read=_text(lambda text: str(Mailbox(text, "a.example"))),
        words=_ADDRESS_WORDS,
        frames=((b"", b""), (b"", b'"')),
    ),
    Reader(
        name="domain",
        read=_text(lambda text: domain_name.__wrapped__(text)),
        words=_ADDRESS_WORDS,
        frames=((b"", b""), (b"[", b"]"), (b"[IPv6:", b"]"), (b"\xc3\xa9", b".example")),
    ),
    Reader(
        name="u-labels",
        read=_text(lambda text: u_labels.__wrapped__(text)),
        words=_ADDRESS_WORDS,
        frames=((b"xn--", b""), (b"", b".xn--bcher-kva.example")),
        most=253,
    ),
    Reader(name="folding", read=_text(folded), words=_ADDRESS_WORDS, most=2048),
    Reader(name="xtext", read=_text(decode_xtext), words=_ADDRESS_WORDS, frames=((b"", b"+"),)),
    Reader(name="into xtext", read=_text(encode_xtext), words=_ADDRESS_WORDS),
    Reader(
        name="utf-8 address",
        read=_text(lambda text: encode_utf8_address(decode_utf8_address(text))),
        words=_ADDRESS_WORDS,
        frames=((b"", b""), (b"", b"\\x{")),
    ),
    Reader(
        name="srs",
        read=_text(_srs),
        words=_ADDRESS_WORDS,
        frames=((b"SRS0=", b""), (b"SRS1=", b"==a"), (b"", b"")),
    ),
    Reader(name="trace", read=_text(_trace), words=(*_ADDRESS_WORDS, b"(", b")", b"a "), most=4096),
    Reader(name="printable", read=_text(printable), words=_ADDRESS_WORDS),
)
