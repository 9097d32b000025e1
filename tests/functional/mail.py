"""Messages, their submission by smtplib, and the base of tests that start programs."""

from __future__ import annotations

import random
import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .machine import LOOPBACK, folder

MIB = 1024 * 1024


class ProgramTestCase(SynchronousTestCase):
    """A test with a folder for its programs."""

    home: Path

    def setUp(self) -> None:
        self.home = self.enterContext(folder(self.id().rsplit(".", 1)[-1][:40]))


def message(subject: str = "Greetings", text: str = "Good morning!\r\n") -> bytes:
    """Return a small message with CR LF line ends."""
    return (
        "From: Ann <ann@sender.example>\r\n"
        "To: Bob <bob@localhost>\r\n"
        f"Subject: {subject}\r\n"
        "Date: Mon, 02 Nov 2026 10:00:00 +0000\r\n"  # Postfix adds a missing one
        "Message-ID: <1@sender.example>\r\n"
        "\r\n"
        f"{text}"
    ).encode("ascii")


def message_with_attachment(size: int) -> bytes:
    """Return a message with ``size`` random octets attached, in base64."""
    mail = EmailMessage(policy=SMTP)
    mail["From"] = "Ann <ann@sender.example>"
    mail["To"] = "Bob <bob@localhost>"
    mail["Subject"] = "The plans"
    mail["Date"] = "Mon, 02 Nov 2026 10:00:00 +0000"
    mail["Message-ID"] = "<2@sender.example>"
    mail.set_content("Attached.\r\n")
    mail.add_attachment(
        random.Random(size).randbytes(size),
        maintype="application",
        subtype="octet-stream",
        filename="plans.bin",
    )
    return mail.as_bytes()


def message_full_of_dots(size: int) -> bytes:
    """Return a message of ``size`` octets with lines that begin with dots, at varying distances.

    Code that stuffs dots in pieces of a fixed size meets one at an edge of a piece.
    """
    draw = random.Random(size)
    lines = [message("Dots", "")]
    while size > 0:
        line = b"." * draw.randrange(4) + b"x" * draw.choice((0, 1, 2, 3, 61, 995)) + b"\r\n"
        size -= len(line)
        lines.append(line)
    return b"".join(lines)


def trusting() -> ssl.SSLContext:
    """Return a TLS context that accepts any certificate, like opportunistic senders."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's authorities
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def submit(
    port: int,
    content: bytes,
    *recipients: str,
    sender: str = "ann@sender.example",
    starttls: bool = True,
) -> None:
    """Send a message to ``port``, under STARTTLS unless told otherwise.

    Raises:
        smtplib.SMTPException: it was not accepted for every recipient.
    """
    with smtplib.SMTP(LOOPBACK, port, timeout=120.0) as client:
        client.ehlo("client.example")
        if starttls:
            client.starttls(context=trusting())
            client.ehlo("client.example")
        refused = client.sendmail(sender, recipients, content, mail_options=["BODY=8BITMIME"])
    if refused:
        raise smtplib.SMTPRecipientsRefused(refused)


def as_stored(content: bytes) -> bytes:
    """Return ``content`` as stored in a Maildir, with LF line ends."""
    return content.replace(b"\r\n", b"\n")
