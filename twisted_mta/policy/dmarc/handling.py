"""What becomes of mail that fails DMARC (RFC 9989 §5.4, §7.4)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from .record import Request, lowered


@frozen
class Reason:
    """Why mail is handled in another way than its domain asks for (RFC 9990 §3.1.6).

    Attributes:
        type: the word of aggregate reports.
        comment: for people.
    """

    type: Literal["local_policy", "mailing_list", "other", "policy_test_mode", "trusted_forwarder"]
    comment: str = ""


@frozen(kw_only=True)
class Evidence:
    """What is known of a message besides the result of DMARC.

    Attributes:
        enforced: whether policies have an effect here.
        from_forwarder: whether a trusted forwarder has sent it.
        is_signed: whether a DKIM signature passes, of any domain.
        is_sealed: whether the ARC chain of a trusted sealer passes.
        is_uncertain: whether a query of the DNS failed that could have shown a signature, or a
            trusted forwarder.
        from_list: whether it has a List-Id (RFC 2919).
    """

    enforced: bool
    from_forwarder: bool = False
    is_signed: bool = False
    is_sealed: bool = False
    is_uncertain: bool = False
    from_list: bool = False


@frozen
class Handling:
    """What becomes of a message, and why it is something else than its domain asks for."""

    action: Request
    reasons: tuple[Reason, ...] = ()


_FORWARDER = Reason("trusted_forwarder", "the client, or a domain that it has authenticated")
_TEST_MODE = Reason("policy_test_mode", "one level below what the record asks for")
_NOT_ENFORCED = Reason("local_policy", "policies are evaluated and not enforced")
# What speaks for a message, in the order in which it is looked at.
_LIST = Reason("mailing_list", "List-Id: quarantined instead of rejected")
_SEALED = Reason("local_policy", "ARC chain of a trusted sealer: quarantined instead of rejected")
_UNCERTAIN = Reason("local_policy", "a query of the DNS failed: quarantined instead of rejected")
_SIGNED = Reason("local_policy", "another DKIM signature passes: quarantined instead of rejected")


def handling(request: Request, *, testing: bool, evidence: Evidence) -> Handling:
    """Return what becomes of a message that fails DMARC.

    Args:
        request: of its domain.
        testing: whether the record is in test mode.
        evidence: what else is known of the message.
    """
    if request == "none":
        return Handling("none")
    if evidence.from_forwarder:
        return Handling("none", (_FORWARDER,))
    reasons: tuple[Reason, ...] = ()
    if testing:  # RFC 9989 §4.7
        request, reasons = lowered(request), (_TEST_MODE,)
    if request != "none" and not evidence.enforced:
        return Handling("none", (*reasons, _NOT_ENFORCED))
    # RFC 9989 §7.4: mail is not rejected for "reject" alone. What comes through a mailing list or a
    # forwarder has a List-Id, or a signature that another domain answers for, as most mail has.
    spared = (
        _LIST
        if evidence.from_list
        else _SEALED
        if evidence.is_sealed
        else _SIGNED
        if evidence.is_signed
        else _UNCERTAIN
        if evidence.is_uncertain
        else None
    )
    if request == "reject" and spared is not None:
        return Handling("quarantine", (*reasons, spared))
    return Handling(request, reasons)
