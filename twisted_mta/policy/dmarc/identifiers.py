"""What SPF and DKIM have found about a message, in the terms of DMARC."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from ...mail.address import AddressError, domain_name
from ...message.authentication_results import MethodResult

_LONGEST_SELECTOR = 253  # characters that are kept


@frozen
class Identifiers:
    """The domains of one method, SPF or DKIM, in lower-case A-labels.

    Attributes:
        passed: those that it has authenticated.
        unknown: those about which a temporary error leaves nothing known.
    """

    passed: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()


@frozen
class Signature:
    """A DKIM signature: its domain, its selector, and its result (RFC 8601 §2.7.1)."""

    domain: str
    selector: str
    result: str


@frozen(kw_only=True)
class Identified:
    """What SPF and DKIM have found about a message.

    Attributes:
        spf: the MAIL FROM identity, which alone counts for DMARC (RFC 9989 §4.4.2).
        spf_domain: of the MAIL FROM identity; empty: it was not evaluated.
        spf_result: the word of RFC 8601 §2.7.2.
        dkim: the domains of signatures.
        signatures: all that were looked at, in the order of the message.
        authenticated: the domains that any of both has authenticated, HELO included.
        uncertain: those about which a temporary error of any of both leaves nothing known.
    """

    spf: Identifiers
    spf_domain: str
    spf_result: str
    dkim: Identifiers
    signatures: tuple[Signature, ...]
    authenticated: tuple[str, ...]
    uncertain: tuple[str, ...]

    @classmethod
    def of(
        cls, spf: Sequence[MethodResult], dkim: Sequence[MethodResult], *, null_path: bool
    ) -> Identified:
        """Return what the results of the two methods mean.

        Args:
            spf: of the identities HELO and MAIL FROM.
            dkim: of the signatures.
            null_path: whether the reverse-path is the null one.
        """
        by_identity: dict[str, tuple[str, str]] = {}
        for each in spf:
            for identity, value in each.properties:
                if identity in ("smtp.mailfrom", "smtp.helo") and (domain := _domain(value)):
                    by_identity[identity] = domain, each.result
        # RFC 7208 §2.4: the MAIL FROM identity of the null reverse-path is postmaster at the name
        # in HELO. RFC 9989 §4.4.2: that identity counts, and the HELO identity does not.
        identity = "smtp.helo" if null_path else "smtp.mailfrom"
        spf_domain, spf_result = by_identity.get(identity, ("", "none"))
        signatures = [
            Signature(domain, properties.get("header.s", "")[:_LONGEST_SELECTOR], each.result)
            for each in dkim
            if (domain := _domain((properties := dict(each.properties)).get("header.d", "")))
        ]
        passed = tuple(dict.fromkeys(one.domain for one in signatures if one.result == "pass"))
        unknown = tuple(one.domain for one in signatures if one.result == "temperror")
        return cls(
            spf=Identifiers(
                (spf_domain,) if spf_result == "pass" else (),
                (spf_domain,) if spf_result == "temperror" else (),
            ),
            spf_domain=spf_domain,
            spf_result=spf_result,
            dkim=Identifiers(passed, unknown),
            signatures=tuple(signatures),
            authenticated=(
                *passed,
                *(domain for domain, result in by_identity.values() if result == "pass"),
            ),
            uncertain=(
                *unknown,
                *(domain for domain, result in by_identity.values() if result == "temperror"),
            ),
        )

    def ranked(self, author_domain: str, aligned: str) -> Sequence[Signature]:
        """Return the signatures, those that count most first (RFC 9990 §3.1.3).

        Args:
            author_domain: of the message.
            aligned: the domain of a signature that is aligned; empty: there is none.
        """
        places = {aligned: 1, author_domain: 0}

        def rank(signature: Signature) -> int:
            return places.get(signature.domain, 2) if signature.result == "pass" else 3

        return sorted(self.signatures, key=rank)


def _domain(value: str) -> str:
    """Return the canonical domain in a property; empty: there is none."""
    try:
        domain = domain_name(value.rpartition("@")[2])
    except AddressError:
        return ""
    return "" if domain.startswith("[") else domain
