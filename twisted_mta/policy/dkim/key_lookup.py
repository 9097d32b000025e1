"""The look-up of a key in the DNS (RFC 6376 §3.6.2, §6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Literal, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults

from ...dns.failure import LookupFailed, NoSuchDomain
from .key_record import KeyRecord, KeyRecordError, KeyType
from .signature import DomainSignature

_MOST_RECORDS = 10  # that are read; there should be one


class TextResolver(Protocol):
    """The part of `interfaces.Resolver` that keys need."""

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of a domain."""
        ...


@frozen
class NoKey:
    """Why there is no key to verify a signature with.

    Attributes:
        result: ``temperror``: another look-up may find it; ``permerror``: it will not.
        reason: for people.
    """

    result: Literal["temperror", "permerror"]
    reason: str


KeyId = tuple[str, KeyType]
"""The domain name of a key record, and the type of the key."""

Keys = Mapping[KeyId, "KeyRecord | NoKey"]
"""The keys that were looked up."""


def key_id(signer: DomainSignature) -> KeyId:
    """Return which key a signer has."""
    return signer.key_name, signer.key_type


def look_up_all(resolver: TextResolver, signers: Iterable[DomainSignature]) -> Deferred[Keys]:
    """Look up the keys of signers at the same time, each once."""
    ids = list(dict.fromkeys(map(key_id, signers)))
    asked = [Deferred.fromCoroutine(_look_up(resolver, *each)) for each in ids]
    found = gatherResults(asked, consumeErrors=True)
    return found.addCallback(lambda keys: dict(zip(ids, keys, strict=True)))


async def _look_up(resolver: TextResolver, name: str, type: KeyType) -> KeyRecord | NoKey:
    try:
        records = await resolver.text(name)
    except NoSuchDomain:
        records = ()
    except LookupFailed:
        return NoKey("temperror", f"no answer from the DNS for {name}")
    fault = NoKey("permerror", f"no key at {name}")
    # RFC 6376 §6.1.2: of several records, any may be chosen: the first that fits.
    for text in islice(records, _MOST_RECORDS):
        try:
            record = KeyRecord.parse(text)
        except KeyRecordError as error:
            fault = NoKey("permerror", f"key record of {name}: {error}")
            continue
        if record.type == type:
            return record
        fault = NoKey("permerror", f"key record of {name}: found k={record.type}, expected {type}")
    return fault
