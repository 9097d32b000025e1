"""The message that carries an aggregate report (RFC 9990 §3.5.2)."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from email.header import Header

from ..mail.address import Mailbox
from ..message.date import date_time
from .aggregate import AggregateReport


def report_mail(
    report: AggregateReport, attachment: bytes, destinations: Sequence[Mailbox], *, time: float
) -> bytes:
    """Return the content of the message, with CR LF line ends; its body is ASCII.

    Args:
        report: what it says.
        attachment: its compressed XML.
        destinations: one or more.
        time: of the message, seconds since the epoch.
    """
    receiver, domain = report.contact.domain, report.published.domain
    boundary = f"=_{report.id}"  # base64 has no underscore, and the text is our own
    to = ",\r\n\t".join(f"<{each}>" for each in destinations)
    lines = [
        f"From: {_phrase(report.organization)} <{report.contact}>",
        f"To: {to}",
        f"Subject: Report Domain: {domain}\r\n\tSubmitter: {receiver}\r\n\tReport-ID: {report.id}",
        f"Date: {date_time(int(time))}",
        f"Message-ID: <{report.id}@{receiver}>",
        "Auto-Submitted: auto-generated",  # RFC 3834 §5
        "MIME-Version: 1.0",
        f'Content-Type: multipart/mixed; boundary="{boundary}"',
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"This is an aggregate report (RFC 9990) from {receiver} on mail in the name of",
        f"{domain}, received on {_day(report.begin)} (UTC).",
        "",
        f"--{boundary}",
        "Content-Type: application/gzip",
        "Content-Transfer-Encoding: base64",
        f'Content-Disposition: attachment;\r\n\tfilename="{report.file_name}"',
        "",
    ]
    head = "\r\n".join(lines).encode()
    body = encodebytes(attachment).replace(b"\n", b"\r\n")
    return b"%s\r\n%s--%s--\r\n" % (head, body, boundary.encode())


def _day(begin: int) -> str:
    return " ".join(date_time(begin).split(" ")[1:4])


def _phrase(name: str) -> str:
    """Return a display name (RFC 5322 §3.2.5), encoded where it is not ASCII (RFC 2047)."""
    if name.isascii():
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Header(name, "utf-8", header_name="From").encode(linesep="\r\n")
