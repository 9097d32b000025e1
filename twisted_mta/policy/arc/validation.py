"""Validation of the ARC chain of a message while it streams by (RFC 8617 §5.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Literal

from attrs import frozen

from ..dkim.body_hashes import BodyHashes
from ..dkim.key_lookup import KeyLookups, Keys, NoKey, TextResolver
from ..dkim.signature import DomainSignature
from ..dkim.signed_header import SignedHeader, unsigned_field
from ..dkim.validity import verify
from .chain import ArcSet, ChainError, read_chain

_MOST_MESSAGE_SIGNATURES = 10
"""Signatures of the message that are verified, from the newest: older ones change no result."""

_Outcome = Literal["pass", "fail", "temperror"]


@frozen
class ChainResult:
    """What is found out about the chain of a message.

    Attributes:
        result: of the chain; ``none``: there is none; ``temperror``: a key could not be looked up,
            and nothing else is wrong.
        reason: why it did not pass, for people.
        sealers: the domains of the seals, from the newest; empty where the sets form no chain.
        oldest_pass: the oldest instance whose signature of the message is valid, with all newer
            ones; 0: that of all; None: the chain does not pass.
    """

    result: Literal["none", "pass", "fail", "temperror"]
    reason: str = ""
    sealers: tuple[str, ...] = ()
    oldest_pass: int | None = None


class ChainValidation:
    """The validation of the chain of one message.

    The header section is read at once; then `look_up` asks the DNS, while the body goes through
    ``bodies``; `result` comes last.

    Args:
        header: of the message.
        bodies: the hashes of the body; those that are needed are asked for here.
        now: seconds since the epoch.
    """

    def __init__(self, header: SignedHeader, bodies: BodyHashes, now: float) -> None:
        self._header = header
        self._bodies = bodies
        self._now = now
        self._lookups: KeyLookups | None = None
        self.known: ChainResult | None = None
        """The result, where it is known from the header alone."""
        self._sets: Sequence[ArcSet] = ()
        try:
            self._sets = read_chain(self._header)
        except ChainError as error:
            self.known = ChainResult("fail", str(error))
        else:
            if not self._sets:
                self.known = ChainResult("none")
        for each in self._with_message_signatures():
            bodies.want(each.signature.body_canonicalization, each.signature.length)

    def _with_message_signatures(self) -> Sequence[ArcSet]:
        """Return the sets whose signatures of the message are verified, from the newest."""
        return self._sets[: -_MOST_MESSAGE_SIGNATURES - 1 : -1]

    def look_up(self, resolver: TextResolver) -> None:
        """Begin to look up the keys, all at once."""
        signers = [each.sealer for each in self._sets]
        signers += [each.signature.signer for each in self._with_message_signatures()]
        self._lookups = KeyLookups(resolver, signers)

    async def result(self) -> ChainResult:
        """Return the result after the last octet of the body.

        Call it once, and after `look_up`, unless the result is `known`.
        """
        if self.known is not None:
            return self.known
        assert self._lookups is not None, "the keys were not looked up"
        keys = await self._lookups.keys()
        sealers = tuple(each.sealer.domain for each in reversed(self._sets))
        uncertain = ""
        for outcome, reason in self._steps(keys):
            if outcome == "fail":
                return ChainResult("fail", reason, sealers)
            if outcome == "temperror":
                uncertain = uncertain or reason
        if uncertain:
            return ChainResult("temperror", uncertain, sealers)
        return ChainResult("pass", "", sealers, self._oldest_pass(keys))

    def _steps(self, keys: Keys) -> Iterator[tuple[_Outcome, str]]:
        """Yield the outcomes that the result depends on."""
        # Step 4: the newest signature of the message.
        newest = len(self._sets)
        outcome, reason = self._message_signature(self._sets[-1], keys)
        yield outcome, f"signature of instance {newest}: {reason}"
        # Step 6: all seals. Each covers all sets up to its own, so what older sets add to the hash
        # is computed once. RFC 8617 §5.1.1: in the order of instances, and in relaxed form.
        sealed = sha256()
        for instance, each in enumerate(self._sets, 1):
            for number in (each.results, each.message):
                sealed.update(self._header.field(number, "relaxed"))
            own = sealed.copy()
            seal = self._header.field(each.seal, "relaxed")
            own.update(unsigned_field(seal))
            outcome, reason = _seal(each.sealer, own.digest(), keys)
            yield outcome, f"seal of instance {instance}: {reason}"
            sealed.update(seal)

    def _oldest_pass(self, keys: Keys) -> int:
        """Return how far back the signatures of the message are valid (step 5)."""
        oldest = len(self._sets)
        for each in self._with_message_signatures()[1:]:
            outcome, _ = self._message_signature(each, keys)
            if outcome != "pass":
                return oldest
            oldest -= 1
        return 0 if oldest == 1 else oldest

    def _message_signature(self, each: ArcSet, keys: Keys) -> tuple[_Outcome, str]:
        signature = each.signature
        key = keys[signature.signer.key_id]
        if isinstance(key, NoKey):
            return _without_key(key)
        if signature.expires is not None and signature.expires < self._now:
            return "fail", "it has expired"
        outcome, reason = verify(signature, each.message, self._header, self._bodies, key)
        return ("pass", "") if outcome == "pass" else ("fail", reason)


def _seal(sealer: DomainSignature, digest: bytes, keys: Keys) -> tuple[_Outcome, str]:
    key = keys[sealer.key_id]
    if isinstance(key, NoKey):
        return _without_key(key)
    if key.verifies(sealer.signature, digest):
        return "pass", ""
    return "fail", "a sealed field was changed, or the key is another one"


def _without_key(key: NoKey) -> tuple[_Outcome, str]:
    return ("temperror" if key.result == "temperror" else "fail"), key.reason
