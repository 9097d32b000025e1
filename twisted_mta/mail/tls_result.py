"""What one session with a mail exchanger says for reports on TLS (RFC 8460 §4.3, §4.4)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

PolicyType = Literal["tlsa", "sts", "no-policy-found"]
"""The kind of policy that was applied (RFC 8460 §4.4, ``policy-type``)."""

ResultType = Literal[
    "starttls-not-supported",
    "certificate-host-mismatch",
    "certificate-expired",
    "certificate-not-trusted",
    "validation-failure",
    "tlsa-invalid",
    "dnssec-invalid",
    "dane-required",
    "sts-policy-fetch-error",
    "sts-policy-invalid",
    "sts-webpki-invalid",
]
"""Why a session failed (RFC 8460 §4.3)."""


@frozen(kw_only=True)
class TLSResult:
    """The result of one session, or of one policy that could not be had.

    Attributes:
        policy_domain: the domain whose policy it is: that of the recipients for MTA-STS and without
            a policy, the TLSA base domain for DANE.
        policy_type: its kind.
        policy_strings: its text: TLSA records, or the lines of an MTA-STS policy.
        mx_patterns: of an MTA-STS policy.
        result: why the session failed; None: it was successful.
        recipient_domain: the domain that the report goes to.
        receiving_mx: the name of the exchanger; None: none was reached.
        receiving_ip: its address; None: none was reached.
        sending_ip: ours; None: unknown.
        reason_code: of the failure, for programs; empty: none.
        information: on the failure, for people; empty: none.
    """

    policy_domain: str
    policy_type: PolicyType
    recipient_domain: str
    policy_strings: tuple[str, ...] = ()
    mx_patterns: tuple[str, ...] = ()
    result: ResultType | None = None
    receiving_mx: str | None = None
    receiving_ip: str | None = None
    sending_ip: str | None = None
    reason_code: str = ""
    information: str = ""
