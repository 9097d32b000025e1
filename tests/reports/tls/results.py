"""Results of TLS sessions: those of the example of RFC 8460, Appendix B, and others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.tls_result import TLSResult
from twisted_mta.reports.tls.report import TLSReport

DAY = 16_892  # 1 April 2016

_STS: dict[str, Any] = {
    "policy_type": "sts",
    "policy_strings": (
        "version: STSv1",
        "mode: testing",
        "mx: *.mail.company-y.example",
        "max_age: 86400",
    ),
    "mx_patterns": ("*.mail.company-y.example",),
}


def result(domain: str = "company-y.example", **values: Any) -> TLSResult:
    settings = {"policy_domain": domain, "recipient_domain": domain, **_STS, **values}
    return TLSResult(**settings)


EXAMPLE: Counter[TLSResult] = Counter(
    {
        result(): 5_326,
        result(
            result="certificate-expired",
            sending_ip="2001:db8:abcd:12::1",
            receiving_mx="mx1.mail.company-y.example",
        ): 100,
        result(
            result="starttls-not-supported",
            sending_ip="2001:db8:abcd:13::1",
            receiving_mx="mx2.mail.company-y.example",
            receiving_ip="203.0.113.56",
        ): 200,
        result(
            result="validation-failure",
            sending_ip="198.51.100.62",
            receiving_mx="mx-backup.mail.company-y.example",
            receiving_ip="203.0.113.58",
            reason_code="X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
        ): 3,
    }
)
"""The sessions of the example in RFC 8460, Appendix B."""


def report(rows: Sequence[tuple[TLSResult, int]] | None = None, **values: Any) -> TLSReport:
    settings: dict[str, Any] = {
        "id": "5065427c",
        "organization": "Company-X",
        "contact": Mailbox.parse("sts-reporting@company-x.example"),
        "domain": "company-y.example",
        "begin": DAY * 86_400,
        "end": DAY * 86_400 + 86_399,
        "rows": list(EXAMPLE.items()) if rows is None else rows,
    }
    return TLSReport(**{**settings, **values})
