"""A TLSA record (RFC 6698 §2): what DNSSEC says of the certificates of a server."""

from __future__ import annotations

from attrs import frozen


@frozen
class TLSA:
    """A TLSA record.

    Attributes:
        usage: 2 (DANE-TA) or 3 (DANE-EE) are usable with SMTP (RFC 7672 §3.1).
        selector: 0 (the certificate) or 1 (its SubjectPublicKeyInfo).
        matching: 0 (all octets), 1 (SHA-256) or 2 (SHA-512).
        data: to be compared.
    """

    usage: int
    selector: int
    matching: int
    data: bytes

    def __str__(self) -> str:
        data = self.data.hex()
        shown = data if len(data) <= 16 else f"{data[:16]}..."
        return f"{self.usage} {self.selector} {self.matching} {shown}"

    @property
    def text(self) -> str:
        """The record in presentation form (RFC 6698 §2.2), whole."""
        return f"{self.usage} {self.selector} {self.matching} {self.data.hex().upper()}"

    @classmethod
    def parse(cls, rdata: bytes) -> TLSA | None:
        """Return the record of rdata in wire form; None where it is none (RFC 6698 §2.1)."""
        if len(rdata) < 4:
            return None
        return cls(rdata[0], rdata[1], rdata[2], bytes(rdata[3:]))
