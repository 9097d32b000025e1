"""Whether one signature of a message is valid, once its key and the body are known; pure."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from .body_hashes import BodyHashes
from .key_record import KeyRecord
from .signature import Signature
from .signed_header import SignedHeader, unsigned_field


def verify(
    signature: Signature, number: int, header: SignedHeader, bodies: BodyHashes, key: KeyRecord
) -> tuple[Literal["pass", "fail", "policy", "permerror"], str]:
    """Return the result of a signature, and the reason if it does not pass (RFC 6376 §6.1.3).

    Args:
        signature: of the message.
        number: the place in ``header`` of the field that holds it.
        header: of the message.
        bodies: the hashes of the body, which was read to its end.
        key: of the signer.
    """
    if key.strict and signature.identity_domain != signature.signer.domain:
        return "permerror", "the domain of i= is not d=, as t=s in the key record demands"
    body = bodies.result(signature.body_canonicalization, signature.length)
    if body.uncovered is None:
        return "fail", "the body is shorter than l= says"
    if body.digest != signature.body_hash:
        return "fail", "the body was changed"
    canonicalization = signature.header_canonicalization
    fields = header.select(signature.fields, canonicalization, without=number)
    fields.append(unsigned_field(header.field(number, canonicalization)))
    if not key.verifies(signature.signer.signature, sha256(b"".join(fields)).digest()):
        return "fail", "a signed field was changed, or the key is another one"
    if body.uncovered:
        # RFC 6376 §8.2: what stands behind the signed octets may be of anyone.
        return "policy", f"l= leaves {body.uncovered} octets of the body uncovered"
    return "pass", ""
