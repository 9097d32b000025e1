"""The exceptions of DNS lookups: a temporary failure, and NXDOMAIN."""

from __future__ import annotations

from ..mail.printable import printable


class DNSFailure(Exception):
    """A lookup without an answer.

    Attributes:
        domain: the name that was looked up.
        type: the type of record, ``MX``.
    """

    def __init__(self, domain: str, type: str, reason: str) -> None:
        super().__init__(printable(f"{type} of {domain}: {reason}"))
        self.domain = domain
        self.type = type


class LookupFailed(DNSFailure):
    """No name server gave a usable answer (timeout, SERVFAIL, REFUSED); to be tried again later."""


class NoSuchDomain(DNSFailure):
    """NXDOMAIN: holds for the type that was queried, and for no other (RFC 4074 §4.2)."""
