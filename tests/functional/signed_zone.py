"""Zones signed by DNSSEC, for a name server, with the anchor that a resolver trusts."""

from __future__ import annotations

from collections.abc import Mapping

import dns.dnssec
import dns.name
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.zone
from attrs import frozen
from cryptography.hazmat.primitives.asymmetric import ec
from dns.dnssectypes import Algorithm, DSDigest

from .nsd import beginning

_DAY = 86_400


@frozen
class SignedZone:
    """A zone with its signatures.

    Attributes:
        text: of its file.
        anchor: the DS record of its key.
    """

    text: str
    anchor: str


def signed(
    name: str, records: str, *, forged: Mapping[tuple[str, str], str] | None = None
) -> SignedZone:
    """Sign a zone.

    Args:
        name: of the zone.
        records: those after SOA and NS.
        forged: by name and type, data that replaces what was signed: a validating resolver takes
            it for bogus.
    """
    zone = dns.zone.from_text(beginning(name) + records, origin=f"{name}.", relativize=False)
    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), Algorithm.ECDSAP256SHA256, flags=257)
    dns.dnssec.sign_zone(zone, keys=[(key, public)], lifetime=_DAY, add_dnskey=True, dnskey_ttl=300)
    for (owner, type), text in (forged or {}).items():
        rdataset = dns.rdataset.from_text("IN", type, 300, text)
        zone.replace_rdataset(dns.name.from_text(owner), rdataset)
    origin = dns.name.from_text(name)
    anchor = dns.dnssec.make_ds(origin, public, DSDigest.SHA256)
    return SignedZone(zone.to_text(want_origin=True), f"{origin} DS {anchor}")
