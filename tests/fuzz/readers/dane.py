"""The readers of DANE: the certificates of a server, and its TLSA records."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding

from twisted_mta.mail.tlsa import TLSA
from twisted_mta.testing.tls import certificate
from twisted_mta.tls.dane import usable, verify

from ..scaling import Reader


@cache
def _certificate() -> bytes:
    made, _ = certificate()
    return made.public_bytes(Encoding.DER)


def _chain(octets: bytes) -> None:
    records = [TLSA(usage, 1, 1, bytes(32)) for usage in (2, 3)]
    verify([octets], records, ["mx.example"])
    verify([_certificate(), octets], records, ["mx.example"])


def _record(octets: bytes) -> None:
    record = TLSA.parse(octets)
    if record is not None:
        verify([_certificate()], usable([record]), ["mx.example"])


_WORDS = (
    *(b"\x30\x82\x01\x00", b"\x30\x80", b"\x30\x03\x02\x01\x00", b"\xa0\x03\x02\x01\x02"),
    *(b"\x02\x01\x01", b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", b"\x06\x03\x55\x04\x03"),
    *(b"\0", b"\xff", b"a"),
)

READERS = (
    Reader(
        name="certificate for DANE",
        read=_chain,
        words=_WORDS,
        frames=((b"", b""), (b"\x30\x82\x40\x00\x30\x82\x3f\xf0", b"")),
    ),
    Reader(
        name="TLSA record",
        read=_record,
        words=_WORDS,
        frames=((b"\3\0\0", b""), (b"\2\0\0", b""), (b"\2\1\0\x30\x82\x01\x22", b"")),
    ),
)
