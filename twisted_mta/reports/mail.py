"""The message that carries a report, of any kind."""

from __future__ import annotations

from base64 import encodebytes
from collections.abc import Sequence
from email.header import Header

from attrs import frozen

from ..mail.address import Mailbox
from ..message.date import date_time


@frozen(kw_only=True)
class ReportMail:
    """A message with a text for people and an attachment for programs.

    Attributes:
        id: letters and digits, of the report.
        author: the address that it comes from.
        organization: the name.
        to: one or more mailboxes.
        time: seconds since the epoch.
        subject: the lines of the field, folded.
        fields: further fields, without line ends.
        content_type: of the whole message, without the boundary.
        text: lines for people.
        attachment: its octets.
        attachment_type: its media type.
        file_name: its name.
    """

    id: str
    author: Mailbox
    organization: str
    to: Sequence[Mailbox]
    time: float
    subject: Sequence[str]
    fields: Sequence[str] = ()
    content_type: str
    text: Sequence[str]
    attachment: bytes
    attachment_type: str
    file_name: str

    def content(self) -> bytes:
        """Return the content of the message, with CR LF line ends; its body is ASCII."""
        boundary = f"=_{self.id}"  # base64 has no underscore, and the text is our own
        to = ",\r\n\t".join(f"<{each}>" for each in self.to)
        lines = [
            f"From: {_phrase(self.organization)} <{self.author}>",
            f"To: {to}",
            "Subject: " + "\r\n\t".join(self.subject),
            f"Date: {date_time(int(self.time))}",
            f"Message-ID: <{self.id}@{self.author.domain}>",
            "Auto-Submitted: auto-generated",  # RFC 3834 §5
            *self.fields,
            "MIME-Version: 1.0",
            f'Content-Type: {self.content_type}; boundary="{boundary}"',
            "",
            f"--{boundary}",
            "Content-Type: text/plain; charset=us-ascii",
            "",
            *self.text,
            "",
            f"--{boundary}",
            f"Content-Type: {self.attachment_type}",
            "Content-Transfer-Encoding: base64",
            f'Content-Disposition: attachment;\r\n\tfilename="{self.file_name}"',
            "",
        ]
        head = "\r\n".join(lines).encode()
        body = encodebytes(self.attachment).replace(b"\n", b"\r\n")
        return b"%s\r\n%s--%s--\r\n" % (head, body, boundary.encode())


def day_text(begin: int) -> str:
    """Return the day of a second since the epoch, in UTC: ``1 Apr 2016``."""
    return " ".join(date_time(begin).split(" ")[1:4])


def _phrase(name: str) -> str:
    """Return a display name (RFC 5322 §3.2.5), encoded where it is not ASCII (RFC 2047)."""
    if name.isascii():
        return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return Header(name, "utf-8", header_name="From").encode(linesep="\r\n")
