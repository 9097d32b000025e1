"""Verification of the signatures of a message while it streams by (RFC 6376 §6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import frozen

from ...message.authentication_results import MethodResult
from .body_hashes import BodyHashes
from .key_lookup import KeyLookups, Keys, NoKey, TextResolver
from .signature import Signature, SignatureError, parse_signature
from .signed_header import SignedHeader
from .tags import without_white_space
from .validity import verify

Result = Literal["pass", "fail", "policy", "neutral", "temperror", "permerror"]
"""The results of a signature (RFC 8601 §2.7.1)."""

MOST_SIGNATURES = 10
"""Signatures of one message that are verified, from the top."""

_NAME = b"dkim-signature"
_LONGEST_PROPERTY = 320  # characters: of the longest address
_SHORTEST_PREFIX = 8  # RFC 6008 §3
_LONGEST_PREFIX = 64


@frozen(kw_only=True)
class SignatureResult:
    """What is found out about one signature.

    Texts are as the signature has them, without white space, and may be empty: a stranger wrote
    them.

    Attributes:
        result: of the verification.
        reason: why it did not pass, for people; empty: it did.
        domain: the signing domain (``d=``).
        identity: the identity (``i=``).
        selector: of the key (``s=``).
        algorithm: of the signature (``a=``).
        prefix: the first characters of the signature (``b=``), which tell it from the others of
            the message (RFC 6008).
        bits: of the key; None: there is none.
        testing: whether the domain is testing DKIM (``t=y``).
    """

    result: Result
    reason: str = ""
    domain: str = ""
    identity: str = ""
    selector: str = ""
    algorithm: str = ""
    prefix: str = ""
    bits: int | None = None
    testing: bool = False

    def method_result(self) -> MethodResult:
        """Return the result for Authentication-Results (RFC 8601 §2.7.1)."""
        properties = (
            ("header.d", self.domain),
            ("header.i", self.identity),
            ("header.s", self.selector),
            ("header.a", self.algorithm),
            ("header.b", self.prefix),
        )
        comment = "" if self.bits is None else f"{self.bits}-bit key"
        return MethodResult(
            "dkim",
            self.result,
            self.reason,
            tuple((name, value) for name, value in properties if value),
            comment + ", testing" if self.testing else comment,
        )


class Verification:
    """The verification of all signatures of one message.

    The header section is read at once; then `look_up` asks the DNS, while the body goes through
    ``bodies``; `results` comes last.

    Args:
        header: of the message.
        bodies: the hashes of the body; those that are needed are asked for here.
        now: seconds since the epoch.
    """

    def __init__(self, header: SignedHeader, bodies: BodyHashes, now: float) -> None:
        self._header = header
        self._bodies = bodies
        self._now = now
        self._checks: Sequence[_Check] = [
            _Check(number, *parse_signature(header.value(number)))
            for number in self._header.numbers(_NAME)[:MOST_SIGNATURES]
        ]
        self._signatures = [
            each.signature for each in self._checks if isinstance(each.signature, Signature)
        ]
        for signature in self._signatures:
            bodies.want(signature.body_canonicalization, signature.length)
        self._lookups: KeyLookups | None = None

    @property
    def is_signed(self) -> bool:
        """Whether the message has a signature, valid or not."""
        return bool(self._checks)

    def look_up(self, resolver: TextResolver) -> None:
        """Begin to look up the keys, all at once."""
        self._lookups = KeyLookups(resolver, [each.signer for each in self._signatures])

    async def results(self) -> Sequence[SignatureResult]:
        """Return the result of each signature, from the top, after the last octet of the body.

        Call it once, and after `look_up`.
        """
        assert self._lookups is not None, "the keys were not looked up"
        keys = await self._lookups.keys()
        prefix = _SHORTEST_PREFIX
        if len(self._checks) > 1:
            prefix = _prefix_length([each.text("b") for each in self._checks])
        return [self._result(each, keys, prefix) for each in self._checks]

    def _result(self, check: _Check, keys: Keys, prefix: int) -> SignatureResult:
        key = None
        if isinstance(check.signature, Signature):
            found = keys[check.signature.signer.key_id]
            key = None if isinstance(found, NoKey) else found
        result, reason = self._outcome(check, keys)
        testing = key is not None and key.testing
        if testing and result != "pass":
            # RFC 6376 §3.6.1: mail of a domain that is testing is not treated worse than unsigned
            # mail.
            result = "neutral"
        domain = check.text("d")
        return SignatureResult(
            result=result,
            reason=reason,
            domain=domain,
            identity=check.text("i") if "i" in check.tags or not domain else f"@{domain}",
            selector=check.text("s"),
            algorithm=check.text("a"),
            prefix=check.text("b")[:prefix],
            bits=None if key is None else key.bits,
            testing=testing,
        )

    def _outcome(self, check: _Check, keys: Keys) -> tuple[Result, str]:
        signature = check.signature
        if isinstance(signature, SignatureError):
            return signature.result, str(signature)
        if signature.expires is not None and signature.expires < self._now:
            return "permerror", "the signature has expired"
        key = keys[signature.signer.key_id]
        if isinstance(key, NoKey):
            return key.result, key.reason
        return verify(signature, check.number, self._header, self._bodies, key)


@frozen
class _Check:
    """One signature field: its place, its tags, and what they mean."""

    number: int
    tags: Mapping[str, str]
    signature: Signature | SignatureError

    def text(self, name: str) -> str:
        """Return a tag for people; empty where there is none, or a very long one."""
        text = without_white_space(self.tags.get(name, ""))
        return text if len(text) <= _LONGEST_PROPERTY or name == "b" else ""


def _prefix_length(signatures: Sequence[str]) -> int:
    """Return how many characters tell all signatures apart, eight at least (RFC 6008 §3)."""
    different = len(frozenset(signatures))
    for length in range(_SHORTEST_PREFIX, _LONGEST_PREFIX):
        if len({each[:length] for each in signatures}) == different:
            return length
    return _LONGEST_PREFIX
