"""What a lookup without an answer raises."""

from __future__ import annotations

from ..mail.printable import printable


class DNSFailure(Exception):
    """A lookup without an answer.

    Attributes:
        domain: what was looked up.
        type: the type of record, ``MX``.
    """

    def __init__(self, domain: str, type: str, reason: str) -> None:
        super().__init__(printable(f"{type} of {domain}: {reason}"))
        self.domain = domain
        self.type = type


class LookupFailed(DNSFailure):
    """No name server gave a usable answer now: timeout, SERVFAIL, refused; tried again later."""


class NoSuchDomain(DNSFailure):
    """NXDOMAIN: said of the type that was asked for, and proof for no other (RFC 4074 §4.2)."""
