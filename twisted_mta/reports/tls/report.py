"""The JSON of a report on TLS (RFC 8460 §4.4), its file (§5.1) and its mail (§5.3)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from attrs import frozen

from ...mail.address import Mailbox
from ...mail.counted import counted
from ...mail.tls_result import TLSResult
from ..counters import Claimed
from ..daily import Reporter
from ..mail import ReportMail, day_text

MEDIA_TYPE = "application/tlsrpt+gzip"
"""The type of a compressed report (RFC 8460 §6.5)."""


@frozen(kw_only=True)
class TLSReport:
    """What one report says.

    Attributes:
        id: letters and digits, unique among our reports.
        organization: our name.
        contact: our address.
        domain: that gets it.
        begin: the first second of the period, since the epoch.
        end: the last one.
        rows: with the number of sessions of each.
        omitted: sessions that are in none of them.
    """

    id: str
    organization: str
    contact: Mailbox
    domain: str
    begin: int
    end: int
    rows: Sequence[tuple[TLSResult, int]]
    omitted: int = 0

    @classmethod
    def of(cls, claimed: Claimed[TLSResult], reporter: Reporter) -> TLSReport:
        """Return the report on what was counted."""
        return cls(
            id=claimed.id,
            organization=reporter.organization,
            contact=reporter.contact,
            domain=claimed.domain,
            begin=claimed.begin,
            end=claimed.end,
            rows=claimed.rows,
            omitted=claimed.omitted,
        )

    @property
    def file_name(self) -> str:
        """The name of the compressed file (RFC 8460 §5.1)."""
        sender = self.contact.domain
        return f"{sender}!{self.domain}!{self.begin}!{self.end}!{self.id}.json.gz"

    @property
    def sessions(self) -> tuple[int, int]:
        """The number of sessions that succeeded, and of those that failed."""
        failed = sum(number for row, number in self.rows if row.result is not None)
        return sum(number for _, number in self.rows) - failed, failed

    def values(self) -> dict[str, Any]:
        """Return the JSON object (RFC 8460 §4.4)."""
        policies: dict[tuple[object, ...], list[tuple[TLSResult, int]]] = {}
        for row, number in self.rows:
            policy = (row.policy_type, row.policy_domain, row.policy_strings, row.mx_patterns)
            policies.setdefault(policy, []).append((row, number))
        return {
            "organization-name": self.organization,
            "date-range": {
                "start-datetime": _date_time(self.begin),
                "end-datetime": _date_time(self.end),
            },
            "contact-info": str(self.contact),
            "report-id": f"{self.id}@{self.contact.domain}",
            "policies": [_policy(results) for results in policies.values()],
        }

    def compressed(self) -> bytes:
        """Return the JSON in gzip's form: the same octets for the same report."""
        return gzip.compress(json.dumps(self.values()).encode(), mtime=0)


def report_mail(report: TLSReport, to: Sequence[Mailbox], *, time: float) -> ReportMail:
    """Return the message that carries a report (RFC 8460 §5.3).

    Args:
        report: what it says.
        to: one or more mailboxes.
        time: of the message, seconds since the epoch.
    """
    submitter = report.contact.domain
    successes, failures = report.sessions
    return ReportMail(
        id=report.id,
        author=report.contact,
        organization=report.organization,
        to=to,
        time=time,
        subject=(
            f"Report Domain: {report.domain}",
            f"Submitter: {submitter}",
            f"Report-ID: <{report.id}@{submitter}>",
        ),
        fields=(
            f"TLS-Report-Domain: {report.domain}",
            f"TLS-Report-Submitter: {submitter}",
            # RFC 8460 §3: reports are delivered despite failures of TLS; RFC 8689 §3 says so to
            # the MTAs on their way.
            "TLS-Required: No",
        ),
        content_type='multipart/report; report-type="tlsrpt"',
        text=(
            f"This is a report (RFC 8460) from {submitter} on TLS with the mail exchangers of",
            f"{report.domain}, on {day_text(report.begin)} (UTC):"
            f" {counted(successes, 'session')} succeeded, {failures:,} failed.",
        ),
        attachment=report.compressed(),
        attachment_type=MEDIA_TYPE,
        file_name=report.file_name,
    )


def _policy(results: Sequence[tuple[TLSResult, int]]) -> dict[str, Any]:
    """Return the entry of one policy, with the sessions that were under it."""
    policy = results[0][0]
    described: dict[str, Any] = {
        "policy-type": policy.policy_type,
        "policy-domain": policy.policy_domain,
    }
    if policy.policy_strings:
        described["policy-string"] = list(policy.policy_strings)
    if policy.mx_patterns:
        described["mx-host"] = list(policy.mx_patterns)
    failures = [(row, number) for row, number in results if row.result is not None]
    failed = sum(number for _, number in failures)
    entry: dict[str, Any] = {
        "policy": described,
        "summary": {
            "total-successful-session-count": sum(number for _, number in results) - failed,
            "total-failure-session-count": failed,
        },
    }
    if failures:
        entry["failure-details"] = [_details(row, number) for row, number in failures]
    return entry


def _details(row: TLSResult, number: int) -> dict[str, Any]:
    details = {
        "result-type": row.result,
        "sending-mta-ip": row.sending_ip,
        "receiving-mx-hostname": row.receiving_mx,
        "receiving-ip": row.receiving_ip,
        "failed-session-count": number,
        # RFC 8460 §4.4: "additional-information" is the URI of a page; the reason is a free text.
        "failure-reason-code": ": ".join(filter(None, (row.reason_code, row.information))),
    }
    return {name: value for name, value in details.items() if value}


def _date_time(seconds: int) -> str:
    """Return a time as RFC 3339 §5.6 has it, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
