"""The result of DMARC for one message (RFC 9989 §5.3)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from ...interfaces import Resolver
from .alignment import Alignment, MethodAlignment, method_alignment
from .discovery import Policy, Walk, exists
from .identifiers import Identifiers
from .record import Request

_NOT_ALIGNED = MethodAlignment("fail")


@frozen
class Evaluation:
    """What DMARC says about a message with one author domain.

    Attributes:
        result: the word of Authentication-Results.
        policy: the policy that applies; None: there is none, or it is not known.
        request: of that policy, for the author domain; it counts where the result is ``fail``.
        spf: its alignment.
        dkim: its alignment.
        reason: why the result is ``temperror``.
    """

    result: Literal["pass", "fail", "none", "temperror"]
    policy: Policy | None = None
    request: Request = "none"
    spf: MethodAlignment = _NOT_ALIGNED
    dkim: MethodAlignment = _NOT_ALIGNED
    reason: str = ""


async def evaluate(
    author: Walk, spf: Identifiers, dkim: Identifiers, resolver: Resolver
) -> Evaluation:
    """Evaluate a message.

    Args:
        author: the tree walk from the author domain.
        spf: of the MAIL FROM identity alone (RFC 9989 §4.4.2).
        dkim: of its signatures.
        resolver: the DNS.
    """
    policy = author.policy
    if policy is None:
        return Evaluation("none")
    if policy == "unknown":
        return Evaluation("temperror", reason=f"no answer for _dmarc.{author.failed}")
    record = policy.published.record
    alignment = Alignment(author, resolver)
    by_spf = await method_alignment(spf.passed, record.aspf, alignment)
    by_dkim = await method_alignment(dkim.passed, record.adkim, alignment)
    aligned = (by_spf.result, by_dkim.result)
    if "pass" in aligned:
        return Evaluation("pass", policy, policy.request(exists=True), by_spf, by_dkim)
    # RFC 9989 §5.3.6: where a query failed that could have led to "pass", there is no "fail".
    reason = "no answer about alignment" if "unknown" in aligned else ""
    for name, unknown, mode in (
        ("SPF", spf.unknown, record.aspf),
        ("DKIM", dkim.unknown, record.adkim),
    ):
        if not reason and (await method_alignment(unknown, mode, alignment)).result != "fail":
            reason = f"no answer about {name}"
    there: bool | None = True
    if not reason and policy.depends_on_existence and not author.exists:
        there = await exists(author.start, resolver)
        if there is None:
            reason = f"no answer for {author.start}"
    request = policy.request(exists=bool(there))
    if reason:
        return Evaluation("temperror", policy, request, by_spf, by_dkim, reason)
    return Evaluation("fail", policy, request, by_spf, by_dkim)
