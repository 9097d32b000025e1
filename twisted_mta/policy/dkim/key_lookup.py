"""The look-up of a key in the DNS (RFC 6376 §3.6.2, §6.1.2)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Literal, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ...dns.failure import LookupFailed, NoSuchDomain
from .key_record import KeyRecord, KeyRecordError, KeyType

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


async def look_up(resolver: TextResolver, name: str, type: KeyType) -> KeyRecord | NoKey:
    """Return the key of a signer.

    Args:
        resolver: of the DNS.
        name: the domain name of the key record.
        type: of the key; others of the same name are passed over.
    """
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
