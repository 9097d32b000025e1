"""Keys of the tests, and a double of the DNS that has their records."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred, fail, succeed

from twisted_mta.dns.failure import NoSuchDomain
from twisted_mta.policy.dkim.key_record import KeyType, record_text
from twisted_mta.policy.dkim.signing_keys import PrivateKey, SigningKey

from .key_files import private_key


@cache
def key(
    type: KeyType = "rsa", domain: str = "example.net", selector: str = "s1", bits: int = 2048
) -> SigningKey:
    """Return a key, the same for the same arguments."""
    private = private_key("ed25519" if type == "ed25519" else f"rsa-{bits}", 0)
    assert isinstance(private, PrivateKey)
    public = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(domain, selector, "", private, public)


def record(key: SigningKey) -> bytes:
    """Return the text of the key record for a key."""
    return record_text(key.private.public_key()).encode("ascii")


class Records:
    """A DNS of TXT records.

    Attributes:
        records: the texts by domain name; an exception fails the look-up.
        asked: the names that were looked up, in order.
    """

    def __init__(self, *keys: SigningKey) -> None:
        self.records: dict[str, Sequence[bytes] | Exception] = {}
        self.asked: list[str] = []
        for each in keys:
            self.records[each.record_name] = [record(each)]

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the records of a domain."""
        self.asked.append(domain)
        found = self.records.get(domain, NoSuchDomain(domain, "TXT", "NXDOMAIN"))
        return fail(found) if isinstance(found, Exception) else succeed(found)
