"""The XML of an aggregate report (RFC 9990 §3.1, Appendix A), and its mail (§3.5.2)."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from html import escape

from attrs import frozen

from ..._version import __version__
from ...mail.address import Mailbox
from ...mail.counted import counted
from ...mail.printable import printable
from ...policy.dmarc.discovery import Published
from ...policy.dmarc.observation import Row
from ..counters import DAY
from ..mail import ReportMail, day_text

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"

_MOST_FAULTS = 10


@frozen(kw_only=True)
class AggregateReport:
    """What one report says.

    Attributes:
        id: letters and digits, unique among reports to the same domain (RFC 9990 §3.5.1).
        organization: our name.
        contact: our address.
        day: the number of the day, in UTC, since the epoch.
        published: the last record that was seen, and the policy domain.
        rows: with the number of messages of each; one or more.
        omitted: messages that are in none of them.
    """

    id: str
    organization: str
    contact: Mailbox
    day: int
    published: Published
    rows: Sequence[tuple[Row, int]]
    omitted: int = 0

    @property
    def begin(self) -> int:
        """The first second, since the epoch."""
        return self.day * DAY

    @property
    def end(self) -> int:
        """The last second."""
        return self.begin + DAY - 1

    @property
    def file_name(self) -> str:
        """The name of the attachment (RFC 9990 §3.5.2)."""
        receiver, domain = self.contact.domain, self.published.domain
        return f"{receiver}!{domain}!{self.begin}!{self.end}!{self.id}.xml.gz"


def attachment(report: AggregateReport) -> bytes:
    """Return the compressed XML: the same octets for the same report."""
    return gzip.compress(xml(report), mtime=0)


def xml(report: AggregateReport) -> bytes:
    """Return the XML of a report."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<feedback xmlns="{NAMESPACE}">',
        "<version>1.0</version>",
        *_metadata(report),
        *_policy_published(report.published),
    ]
    for row, count in report.rows:
        lines += _record(row, count)
    lines.append("</feedback>\n")
    return "\n".join(lines).encode()


def report_mail(report: AggregateReport, to: Sequence[Mailbox], *, time: float) -> ReportMail:
    """Return the message that carries a report (RFC 9990 §3.5.2).

    Args:
        report: what it says.
        to: one or more mailboxes.
        time: of the message, seconds since the epoch.
    """
    receiver, domain = report.contact.domain, report.published.domain
    return ReportMail(
        id=report.id,
        author=report.contact,
        organization=report.organization,
        to=to,
        time=time,
        subject=(
            f"Report Domain: {domain}",
            f"Submitter: {receiver}",
            f"Report-ID: {report.id}",
        ),
        content_type="multipart/mixed",
        text=(
            f"This is an aggregate report (RFC 9990) from {receiver} on mail in the name of",
            f"{domain}, received on {day_text(report.begin)} (UTC).",
        ),
        attachment=attachment(report),
        attachment_type="application/gzip",
        file_name=report.file_name,
    )


def _element(name: str, value: object) -> str:
    return f"<{name}>{escape(printable(str(value)), quote=False)}</{name}>"


def _metadata(report: AggregateReport) -> list[str]:
    faults = list(report.published.record.faults[:_MOST_FAULTS])
    if report.omitted:
        faults.append(
            counted(
                report.omitted,
                "message in further rows is left out",
                "messages in further rows are left out",
            )
        )
    return [
        "<report_metadata>",
        f"<org_name>{escape(report.organization, quote=False)}</org_name>",
        f"<email>{escape(str(report.contact), quote=False)}</email>",
        _element("report_id", report.id),
        "<date_range>",
        _element("begin", report.begin),
        _element("end", report.end),
        "</date_range>",
        *([_element("error", "; ".join(faults))] if faults else []),
        _element("generator", f"twisted-mta {__version__}"),
        "</report_metadata>",
    ]


def _policy_published(published: Published) -> list[str]:
    record = published.record
    existing = record.sp or record.p
    return [
        "<policy_published>",
        _element("domain", published.domain),
        _element("discovery_method", "treewalk"),
        _element("p", record.p),
        _element("sp", existing),
        _element("np", record.np or existing),
        _element("fo", record.fo),
        _element("adkim", record.adkim),
        _element("aspf", record.aspf),
        _element("testing", "y" if record.testing else "n"),
        "</policy_published>",
    ]


def _record(row: Row, count: int) -> list[str]:
    lines = [
        "<record>",
        "<row>",
        _element("source_ip", row.source),
        _element("count", count),
        "<policy_evaluated>",
        _element("disposition", row.disposition),
        _element("dkim", "pass" if row.dkim else "fail"),
        _element("spf", "pass" if row.spf else "fail"),
    ]
    for reason in row.reasons:
        lines += [
            "<reason>",
            _element("type", reason.type),
            _element("comment", reason.comment),
            "</reason>",
        ]
    lines += [
        "</policy_evaluated>",
        "</row>",
        "<identifiers>",
        _element("header_from", row.header_from),
        _element("envelope_from", row.envelope_from),
        "</identifiers>",
        "<auth_results>",
    ]
    for signature in row.signatures:
        lines += [
            "<dkim>",
            _element("domain", signature.domain),
            _element("selector", signature.selector),
            _element("result", signature.result),
            "</dkim>",
        ]
    if row.spf_domain:
        lines += [
            "<spf>",
            _element("domain", row.spf_domain),
            _element("scope", "mfrom"),  # RFC 9990 §3.1.1.13: the only value
            _element("result", row.spf_result),
            "</spf>",
        ]
    return [*lines, "</auth_results>", "</record>"]
