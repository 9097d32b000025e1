"""The ARC sets of a message, and the structure of the chain that they form (RFC 8617 §4, §5.2)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import frozen

from ..dkim.signature import DomainSignature, Signature, SignatureError
from ..dkim.signed_header import SignedHeader
from ..dkim.tags import TagError, parse_tags

_RESULTS = b"arc-authentication-results"
_MESSAGE_SIGNATURE = b"arc-message-signature"
_SEAL = b"arc-seal"
_FIELDS = (_RESULTS, _MESSAGE_SIGNATURE, _SEAL)

_MOST_SETS = 50  # RFC 8617 §4.2.1

# RFC 8617 §4.1.1: instance = [CFWS] %s"i" [CFWS] "=" [CFWS] position
_SPACE = r"(?:[ \t\r\n]++|\([^()]*+\))*+"
_INSTANCE = re.compile(rf"{_SPACE}i{_SPACE}={_SPACE}([0-9]{{1,2}}){_SPACE};")
_POSITION = re.compile(r"[0-9]{1,2}")
_LONGEST_INSTANCE = 1_000  # octets in which the instance of a long field is looked for


class ChainError(ValueError):
    """A chain that does not pass, whatever its signatures are."""


@frozen(kw_only=True)
class ArcSet:
    """What one forwarder has added.

    Attributes:
        results: the place of ARC-Authentication-Results in the header.
        message: the place of ARC-Message-Signature.
        seal: the place of ARC-Seal.
        signature: of the message.
        sealer: by whom the chain up to here was sealed.
    """

    results: int
    message: int
    seal: int
    signature: Signature
    sealer: DomainSignature


def is_in_chain(header: SignedHeader) -> bool:
    """Whether a message has any field of an ARC set; most have none."""
    return header.has_any(_FIELDS)


def read_chain(header: SignedHeader) -> Sequence[ArcSet]:
    """Return the ARC sets of a message, from the oldest; empty: it has none.

    Raises:
        ChainError: they form no chain (RFC 8617 §5.2, steps 1 to 3), or the chain has ended.
    """
    results = _by_instance(header, _RESULTS)
    messages = _by_instance(header, _MESSAGE_SIGNATURE)
    seals = _by_instance(header, _SEAL)
    count = len(seals)
    if not results and not messages and not seals:
        return ()
    if not set(results) == set(messages) == set(seals) == set(range(1, count + 1)):
        raise ChainError("the ARC sets are not complete, from 1 to the newest")
    sets = []
    for instance in range(count, 0, -1):
        number = seals[instance]
        tags = _tags(header, number)
        expected = "pass" if instance > 1 else "none"
        if tags.get("cv") != expected:
            raise ChainError(f"cv of instance {instance}: found {_shown(tags, 'cv')}")
        if "h" in tags:
            raise ChainError(f"the seal of instance {instance} has h=")  # RFC 8617 §4.1.3
        try:
            sets.append(
                ArcSet(
                    results=results[instance],
                    message=messages[instance],
                    seal=number,
                    signature=_signature(_tags(header, messages[instance])),
                    sealer=DomainSignature.of(tags),
                )
            )
        except SignatureError as error:
            raise ChainError(f"instance {instance}: {error}") from None
    return sets[::-1]


def _shown(tags: Mapping[str, str], name: str) -> str:
    return f"{name}={tags[name][:40]!a}" if name in tags else f"no {name}="


def _by_instance(header: SignedHeader, name: bytes) -> Mapping[int, int]:
    """Return the places of the fields of a name by their instance."""
    numbers = header.numbers(name)
    if len(numbers) > _MOST_SETS:
        raise ChainError(f"more than {_MOST_SETS} ARC sets")
    found: dict[int, int] = {}
    for number in numbers:
        instance = (
            _instance_of_results(header, number)
            if name == _RESULTS
            else _position(_tags(header, number).get("i", ""))
        )
        if instance is None:
            raise ChainError("an ARC field has no instance")
        if instance in found:
            raise ChainError(f"two ARC sets of instance {instance}")
        found[instance] = number
    return found


def _tags(header: SignedHeader, number: int) -> Mapping[str, str]:
    try:
        return parse_tags(header.value(number))
    except TagError as error:
        raise ChainError(f"an ARC field: {error}") from None


def _instance_of_results(header: SignedHeader, number: int) -> int | None:
    value = header.value(number)[:_LONGEST_INSTANCE]
    instance = _INSTANCE.match(value.decode("latin-1"))
    return _position(instance[1]) if instance else None


def _position(text: str) -> int | None:
    position = int(text) if _POSITION.fullmatch(text) else 0
    return position if 1 <= position <= _MOST_SETS else None


def _signature(tags: Mapping[str, str]) -> Signature:
    # RFC 8617 §4.1.2: the tags of DKIM, without a version, and i= is not the identity.
    signature = Signature.of({name: value for name, value in tags.items() if name != "i"})
    if _SEAL in signature.fields:
        raise SignatureError("permerror", "ARC-Seal is signed")
    return signature
