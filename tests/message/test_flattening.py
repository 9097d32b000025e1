"""Message objects of Python's `email` become octets, as `email.generator` would write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from itertools import count
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.flattening import fold, pieces, snapshot

ATTACHED = bytes(range(256)) * 300

PARSED = (
    b"Subject: plain\n\ntext\n",
    b"Subject: 8 bits \xe4\nContent-Type: text/plain; charset=iso-8859-1\n\nt\xe4xt\n",
    b"Subject: no end of line\n\ntext",
    b"Subject: no text\n\n",
    b'Content-Type: multipart/mixed; boundary="b"\n\npreamble\n--b\n\none\n--b\n'
    b"Content-Type: text/html\n\n<p>two</p>\n--b--\nepilogue\n",
    b'Content-Type: multipart/mixed; boundary="b"\n\nno boundary in it\n',
    b'Content-Type: multipart/mixed; boundary="b"\n\n--b\nContent-Type: multipart/mixed;'
    b' boundary="c"\n\n--c\n\ndeep\n--c--\n--b--\n',
    b'Content-Type: multipart/signed; boundary="b"\n\n--b\nX-Long: '
    + b"word " * 40
    + b"\n\nsigned\n--b\nContent-Type: application/pgp-signature\n\nseal\n--b--\n",
    b"Content-Type: message/rfc822\n\nSubject: inside\n\ntext\n",
    b'Content-Type: multipart/report; boundary="b"\n\n--b\nContent-Type: message/delivery-status'
    b"\n\nReporting-MTA: dns; x\n\nAction: failed\nStatus: 5.1.1\n\nAction: failed\n\n--b--\n",
)


def flattened(message: Message) -> bytes:
    numbers = count()
    whole = snapshot(message, lambda: f"=_{next(numbers)}")
    fold(whole)
    return b"".join(pieces(whole))


def generated(message: Message) -> bytes:
    """Return what `email.generator` writes; it does not unify the line ends of each text."""
    octets = message.as_bytes(policy=message.policy.clone(linesep="\r\n"))
    return re.sub(rb"\r?\n", b"\r\n", octets)


def with_attachment() -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ann <ann@a.example>"
    message["To"] = ", ".join(f"User {number} <user{number}@b.example>" for number in range(20))
    message["Subject"] = "Grüße an alle"
    message.set_content("Hällo.\n")
    message.add_alternative("<p>Hällo.</p>\n", subtype="html")
    message.add_attachment(
        ATTACHED, maintype="application", subtype="octet-stream", filename="ä.bin"
    )
    return message


class AsPythonWrites(SynchronousTestCase):
    def test_messages_that_were_parsed(self) -> None:
        for octets in PARSED:
            for how in (policy.compat32, policy.default, policy.SMTP):
                message: Message = message_from_bytes(octets, policy=how)  # type: ignore[arg-type]
                self.assertEqual(flattened(message), generated(message), octets)

    def test_messages_that_were_made(self) -> None:
        message = with_attachment()
        inside = EmailMessage()
        inside["Subject"] = "inside"
        inside.set_content("text\n")
        message.add_attachment(inside)
        for number, part in enumerate(message.walk()):
            if part.is_multipart() and part.get_content_maintype() == "multipart":
                part.set_boundary(f"boundary-{number}")
        self.assertEqual(flattened(message), generated(message))
        old = MIMEText("Hällo.\n")
        old["Subject"] = "old"
        self.assertEqual(flattened(old), generated(old))

    def test_line_ends_of_all_kinds_are_cr_lf_wherever_the_pieces_end(self) -> None:
        for text in ("a\r\nb\rc\nd", "\r\n" * 40_000, "x" * 32_767 + "\r\ny", "x" * 32_768 + "\ny"):
            message = Message()
            message.set_payload(text)
            wanted = re.sub("\r\n|\r|\n", "\r\n", text).encode()
            self.assertEqual(flattened(message).partition(b"\r\n")[2], wanted)


class Reading(SynchronousTestCase):
    def test_a_multipart_without_boundary_gets_one_and_its_object_none(self) -> None:
        message = with_attachment()
        octets = flattened(message)
        self.assertIsNone(message.get_boundary())
        back = message_from_bytes(octets, policy=policy.default)
        text, attached = back.iter_parts()
        self.assertEqual(attached.get_content(), ATTACHED)
        self.assertEqual(
            [each.get_content_subtype() for each in text.iter_parts()], ["plain", "html"]
        )

    def test_changes_after_the_reading_have_no_effect(self) -> None:
        message = with_attachment()
        numbers = count()
        whole = snapshot(message, lambda: f"=_{next(numbers)}")
        before = flattened(message)
        message.replace_header("Subject", "another")
        message["Bcc"] = "eve@c.example"
        list(message.iter_parts())[1].set_payload("another")
        message.clear_content()
        fold(whole)
        self.assertEqual(b"".join(pieces(whole)), before)

    def test_blind_recipients_are_left_out(self) -> None:
        message = with_attachment()
        message["Bcc"] = "eve@c.example"
        message["Resent-Bcc"] = "eve@c.example"
        self.assertNotIn(b"eve@", flattened(message))
        self.assertEqual(message["Bcc"], "eve@c.example")

    def test_a_field_that_would_begin_another_one_is_refused(self) -> None:
        class Unchecked(policy.EmailPolicy):
            def fold_binary(self, name: str, value: str) -> bytes:
                return f"{name}: {value}\r\n".encode()

        message = Message(policy=Unchecked())  # type: ignore[arg-type]
        message._headers = [("Subject", "x\r\nBcc: eve@c.example")]  # type: ignore[attr-defined]
        with self.assertRaisesRegex(ValueError, "found a line end in the field Subject"):
            flattened(message)

    def test_what_is_no_text_is_a_type_error(self) -> None:
        for payload in ([b"bytes"], 7):
            message: Any = Message()
            message._payload = payload
            with self.assertRaises(TypeError):
                flattened(message)
        message = Message()
        message["Content-Type"] = "multipart/mixed"
        message._payload = ["text"]
        with self.assertRaisesRegex(TypeError, "found a part that is str"):
            flattened(message)

    def test_no_piece_is_large(self) -> None:
        message = with_attachment()
        message.add_attachment(bytes(1 << 20), maintype="application", subtype="octet-stream")
        whole = snapshot(message, lambda: "=_b")
        fold(whole)
        sizes: Iterator[int] = map(len, pieces(whole))
        self.assertLessEqual(max(sizes), 70_000)
