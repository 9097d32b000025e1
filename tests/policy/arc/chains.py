"""Valid ARC chains, made by dkimpy."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.policy.dkim.keys import key
from twisted_mta.policy.dkim.signing_keys import SigningKey

NOW = 1_796_000_000
HEADER = b"""\
From: Ann <ann@example.net>\r
To: list@lists.example\r
Subject:   Hello\t \r
Date: Mon, 30 Nov 2026 10:00:00 +0000\r
"""
BODY = b"Hello  all, \r\n\r\n\tthis is it.\r\n\r\n\r\n"
LISTS = key(domain="lists.example", selector="a", bits=1024)
RELAY = key(domain="relay.example", selector="c", bits=1024)


def sealed(header: bytes, body: bytes, by: SigningKey, cv: str = "none") -> bytes:
    """Return a header with one more ARC set, by dkimpy."""
    import dkim

    pem = by.private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    results = b"Authentication-Results: mx.example; arc=%b; spf=pass\r\n" % cv.encode()
    signer = dkim.ARC(results + header + b"\r\n" + body)
    fields = signer.sign(
        by.selector.encode(),
        by.domain.encode(),
        pem,
        b"mx.example",
        include_headers=[b"from", b"to", b"subject", b"date"],
        timestamp=NOW,
    )
    return b"".join(fields) + header


@cache
def chain(length: int) -> bytes:
    """Return the header with a valid chain."""
    if length == 1:
        return sealed(HEADER, BODY, LISTS)
    return sealed(chain(length - 1), BODY, LISTS if length % 2 else RELAY, "pass")
