"""A received message is read as its reader sees it."""

from __future__ import annotations

from email.message import EmailMessage
from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing import InboxMessage


def read(raw: bytes) -> InboxMessage:
    return InboxMessage("ann@sender.test", ("bob@user.test",), raw)


def sign_up() -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "Grüße aus München"
    message.set_content("Grüß Gott!\nSee https://app.test/confirm?t=1.\n")
    message.add_alternative(
        '<p>Grüß Gott! <a href="https://app.test/confirm?t=1&amp;u=2">Confirm</a>'
        " <a HREF='mailto:help@app.test'>Help</a> <a href=#top>Top</a></p>\n",
        subtype="html",
    )
    message.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="a.pdf")
    message.add_attachment("not the text", filename="notes.txt")
    return message


class Reading(SynchronousTestCase):
    def test_texts_are_decoded(self) -> None:
        message = read(sign_up().as_bytes())
        self.assertEqual(message.subject, "Grüße aus München")
        self.assertEqual(message.text, "Grüß Gott!\nSee https://app.test/confirm?t=1.\n")
        self.assertTrue(message.html.startswith("<p>Grüß Gott! <a href="))

    def test_links_are_those_of_the_html_then_those_of_the_text_without_punctuation(self) -> None:
        self.assertEqual(
            read(sign_up().as_bytes()).links,
            (
                "https://app.test/confirm?t=1&u=2",
                "mailto:help@app.test",
                "https://app.test/confirm?t=1",
            ),
        )

    def test_parentheses_belong_to_a_link_that_opens_one(self) -> None:
        message = read(b"\r\n(http://a.test/x) http://a.test/y_(z)\r\n")
        self.assertEqual(message.links, ("http://a.test/x", "http://a.test/y_(z)"))

    def test_attachments_are_not_texts(self) -> None:
        message = read(sign_up().as_bytes())
        self.assertEqual([each.filename for each in message.attachments], ["a.pdf", "notes.txt"])
        self.assertEqual(b"".join(message.attachments[0].chunks()), b"%PDF-")

    def test_octets_without_mime_are_the_text(self) -> None:
        message = read(b"Subject: Hi\r\n\r\nGood morning!\r\nSubject: no\r\n")
        self.assertEqual((message.subject, message.html), ("Hi", ""))
        self.assertEqual(message.text, "Good morning!\nSubject: no\n")

    def test_a_message_of_html_alone_has_no_plain_text(self) -> None:
        message = read(b"Content-Type: text/html; charset=iso-8859-1\r\n\r\n<b>\xfc</b>")
        self.assertEqual((message.text, message.html), ("", "<b>ü</b>"))

    def test_a_field_of_the_body_is_no_header_field(self) -> None:
        message = read(b"From: ann@sender.test\r\n\r\nSubject: no\r\n")
        self.assertEqual((message.subject, message.header("subject")), ("", None))
        self.assertEqual(message.header("FROM"), "ann@sender.test")

    def test_a_forwarded_message_is_an_attachment_and_no_text(self) -> None:
        outer = EmailMessage()
        outer.set_content("See below.\n")
        outer.add_attachment(sign_up())
        message = read(outer.as_bytes())
        self.assertEqual((message.text, message.html, message.links), ("See below.\n", "", ()))
        self.assertEqual([each.content_type for each in message.attachments], ["message/rfc822"])

    def test_lines_that_end_where_a_piece_ends_are_read(self) -> None:
        for size in range(65_530, 65_540):
            body = b"x" * size + b"\r\ny\r\n"
            self.assertEqual(read(b"\r\n" + body).text, "x" * size + "\ny\n")

    def test_links_are_found_in_linear_time(self) -> None:
        line = b"href=" * 10 + b"http://" + b"<" * 20 + b"\r\n"
        seconds = []
        for count in (2_000, 20_000):
            message = read(b"Content-Type: text/html\r\n\r\n" + line * count)
            began = process_time()
            self.assertEqual(message.links, ())
            seconds.append(process_time() - began)
        self.assertLess(seconds[1], 40 * seconds[0] + 0.1)
