"""The look-up of a key in the DNS (RFC 6376 §3.6.2, §6.1.2)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred

from ...dns.failure import LookupFailed, NoSuchDomain
from ...system.coroutines import outcome
from .key_record import KeyRecord, KeyRecordError, KeyType
from .signature import DomainSignature, KeyId

_MOST_RECORDS = 10  # that are read; there should be one
_LONGEST_REMEMBERED = 2_048  # octets; the record of an RSA key of 8,192 bits has fewer


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


Keys = Mapping[KeyId, "KeyRecord | NoKey"]
"""The keys that were looked up."""


class KeyLookups:
    """Look-ups of several keys at the same time, each once.

    Args:
        resolver: of the DNS.
        signers: whose keys are needed.
    """

    def __init__(self, resolver: TextResolver, signers: Iterable[DomainSignature]) -> None:
        ids = dict.fromkeys(each.key_id for each in signers)
        self._asked = {each: outcome(_look_up(resolver, *each)) for each in ids}

    async def keys(self) -> Keys:
        """Return all keys, as soon as the last one is known; call it once."""
        return {
            each: found if isinstance(found, KeyRecord | NoKey) else await found
            for each, found in self._asked.items()
        }


async def _look_up(resolver: TextResolver, name: str, type: KeyType) -> KeyRecord | NoKey:
    try:
        records = await resolver.text(name)
    except NoSuchDomain:
        return _no_key(name)
    except LookupFailed:
        return NoKey("temperror", f"no answer from the DNS for {name}")
    return _chosen(records, name, type)


def _chosen(records: Sequence[bytes], name: str, type: KeyType) -> KeyRecord | NoKey:
    """Return the key of the first record that fits (RFC 6376 §6.1.2)."""
    fault = _no_key(name)
    for text in records[:_MOST_RECORDS]:
        try:
            record = (
                _remembered(text) if len(text) <= _LONGEST_REMEMBERED else KeyRecord.parse(text)
            )
        except KeyRecordError as error:
            fault = NoKey("permerror", f"key record of {name}: {error}")
            continue
        if record.type == type:
            return record
        fault = NoKey("permerror", f"key record of {name}: found k={record.type}, expected {type}")
    return fault


# OpenSSL prepares a key at its first use, which takes several times as long as the verification.
@lru_cache(maxsize=1024)
def _remembered(text: bytes) -> KeyRecord:
    return KeyRecord.parse(text)


def _no_key(name: str) -> NoKey:
    return NoKey("permerror", f"no key at {name}")
