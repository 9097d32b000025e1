"""Delivery status notifications, read back as a mail program reads them."""

import base64
import email
import email.policy
import quopri
import re
from collections.abc import Iterator
from email.message import EmailMessage
from email.message import Message as ParsedMessage

from attrs import evolve, frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.reply import Reply
from twisted_mta.message.dsn.delivery_status import ReportedRecipient
from twisted_mta.message.dsn.notice import Notice, notice

ALICE = Mailbox("alice", "example.org")
BOB = Recipient(RecipientNumber(0), Mailbox("bob", "example.net"))
EVE = Recipient(RecipientNumber(1), Mailbox("eve", "example.com"))
REMOTE = "mx.example.net[192.0.2.7]:25"
NO_USER = Reply.of(550, "1.1", "No such user")
ORIGINAL = b"Subject: Lunch\r\nMessage-ID: <lunch@example.org>\r\n\r\nAt noon?\r\n.\r\n"
NOON = 1795341600.0  # Sun, 22 Nov 2026 10:00:00 +0000

WORDS = (
    *(b"Subject: ", "Grüße".encode(), b"\xff", b"x" * 400, b" ", b"\r\n", b"\r\n", b"\r\n\r\n"),
    *(b"\r", b"\n", b"\0", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"--=_000000000002D_0", b"."),
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
    b"Content-Type: multipart/signed; boundary=b\r\n\r\n",
    b"Content-Type: message/rfc822\r\n\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Message-ID: <lunch@example.org>\r\n",
)


@frozen
class UnreadableBody:
    size: int = 10

    def chunks(self) -> Iterator[bytes]:
        yield b"Subj"
        raise OSError("the disk is broken")


def message(content: bytes = ORIGINAL, **parameters: str | None) -> Message:
    return Message(
        id=QueueId(5),
        envelope=Envelope(ALICE, (BOB, EVE), parameters),
        trace=b"Received: from a\r\n\tby b; now\r\n",
        body=MemoryBody(content),
        received_at=NOON - 3600,
        expires_at=NOON,
    )


def failed(
    recipient: Recipient = BOB, reply: Reply = NO_USER, remote: str | None = REMOTE
) -> ReportedRecipient:
    return ReportedRecipient(recipient, Outcome(recipient.number, reply, remote))


class FailureNotice(TidyTestCase):
    def notice(
        self, original: Message, *failures: ReportedRecipient, seven_bit: bool = False
    ) -> Notice:
        made = notice(
            "failed",
            original,
            failures,
            hostname="mx.example",
            id=QueueId(77),
            time=NOON,
            seven_bit=seven_bit,
        )
        # These hold for every notice.
        self.assertNotIn(b"\x00", made.content)
        self.assertNotRegex(made.content, rb"\r(?!\n)|(?<!\r)\n")
        self.assertLessEqual(max(map(len, made.content.split(b"\r\n"))), 998)
        self.assertTrue(made.content.endswith(b"--\r\n"))
        head, _, body = made.content.partition(b"\r\n\r\n")
        self.assertEqual((head.isascii(), body.isascii()), (not made.international, True))
        return made

    def parts(
        self, notice: Notice, kind: str = "message/delivery-status"
    ) -> tuple[str, list[ParsedMessage], EmailMessage]:
        """Return the text for people, the status blocks and the returned part."""
        parsed = email.message_from_bytes(notice.content, policy=email.policy.SMTP)
        assert isinstance(parsed, EmailMessage)
        self.assertEqual(parsed.get_content_type(), "multipart/report")
        self.assertEqual(parsed.get_param("report-type"), "delivery-status")
        text, status, returned = parsed.iter_parts()
        self.assertEqual(text.get_content_type(), "text/plain")
        self.assertEqual(status.get_content_type(), kind)
        for part in (parsed, text, status, returned):
            self.assertEqual(part.defects, [])
        return text.get_content().replace("\r", ""), list(status.get_payload()), returned  # type: ignore[arg-type]

    def test_the_header_names_the_mail_system_the_sender_and_the_message(self) -> None:
        parsed = email.message_from_bytes(self.notice(message(), failed()).content)
        self.assertEqual(
            [(name, value) for name, value in parsed.items() if name != "Content-Type"],
            [
                ("From", "Mail Delivery System <MAILER-DAEMON@mx.example>"),
                ("To", "<alice@example.org>"),
                ("Subject", "Undelivered mail returned to sender"),
                ("Date", "Sun, 22 Nov 2026 10:00:00 +0000"),
                ("Message-ID", f"<{QueueId(77)}@mx.example>"),
                ("In-Reply-To", "<lunch@example.org>"),
                ("References", "<lunch@example.org>"),
                ("Auto-Submitted", "auto-replied"),
                ("MIME-Version", "1.0"),
            ],
        )

    def test_the_text_names_each_address_the_reply_and_what_happens_next(self) -> None:
        text, _, _ = self.parts(self.notice(message(), failed(), failed(EVE, remote=None)))
        self.assertIn("will not be tried again", text.replace("\n", " "))
        bob = "<bob@example.net>\n    mx.example.net[192.0.2.7]:25 answered:\n        550 5.1.1 No"
        self.assertIn(bob, text)
        self.assertIn("<eve@example.com>\n    The reason:\n        550 5.1.1 No", text)
        self.assertIn("What you sent is attached", text.replace("\n", " "))

    def test_the_status_part_has_a_block_for_each_recipient(self) -> None:
        notice = self.notice(message(), failed(), failed(EVE, Reply.of(554, None, "No"), None))
        _, blocks, _ = self.parts(notice)
        self.assertEqual(
            [list(block.items()) for block in blocks],
            [
                [
                    ("Reporting-MTA", "dns; mx.example"),
                    ("Received-From-MTA", "dns; a"),
                    ("X-Queue-ID", str(QueueId(5))),
                    ("Arrival-Date", "Sun, 22 Nov 2026 09:00:00 +0000"),
                ],
                [
                    ("Final-Recipient", "rfc822; bob@example.net"),
                    ("Action", "failed"),
                    ("Status", "5.1.1"),
                    ("Remote-MTA", "dns; mx.example.net"),
                    ("Diagnostic-Code", "smtp; 550 5.1.1 No such user"),
                    ("Last-Attempt-Date", "Sun, 22 Nov 2026 10:00:00 +0000"),
                ],
                [
                    ("Final-Recipient", "rfc822; eve@example.com"),
                    ("Action", "failed"),
                    ("Status", "5.0.0"),
                    ("Diagnostic-Code", "x-twisted-mta; 554 No"),
                    ("Last-Attempt-Date", "Sun, 22 Nov 2026 10:00:00 +0000"),
                ],
            ],
        )

    def test_the_notice_of_an_expired_recipient_quotes_the_last_reply(self) -> None:
        tried = evolve(BOB, last_reply=Reply.of(451, "4.4", "No disk"), last_remote=REMOTE)
        expired = Reply.of(554, "4.7", "Not delivered for 5 days")
        text, blocks, _ = self.parts(self.notice(message(), failed(tried, expired, None)))
        self.assertEqual(blocks[1]["Status"], "5.4.7")
        self.assertIn("The last answer, from mx.example.net[192.0.2.7]:25, was:", text)
        self.assertIn("451 4.4.4 No disk", text)

    def test_a_small_message_is_returned_whole_and_unchanged(self) -> None:
        _, _, returned = self.parts(self.notice(message(), failed()))
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        self.assertEqual(returned.get_content()["Subject"], "Lunch")
        self.assertIn(message().trace + ORIGINAL, self.notice(message(), failed()).content)

    def test_of_a_large_message_the_header_is_returned(self) -> None:
        notice = self.notice(message(ORIGINAL + b"x" * 70 + b"\r\n" * 40_000), failed())
        text, _, returned = self.parts(notice)
        self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        self.assertEqual(
            returned.get_payload(decode=True),
            message().trace + b"Subject: Lunch\r\nMessage-ID: <lunch@example.org>\r\n",
        )
        self.assertIn("header of what you sent", text.replace("\n", " "))
        self.assertNotIn(b"At noon?", notice.content)

    def test_at_most_64_kib_of_a_header_are_returned(self) -> None:
        notice = self.notice(message(b"X-Long: header\r\n" * 100_000), failed())
        self.assertLess(len(notice.content), 70_000)
        _, _, returned = self.parts(notice)
        self.assertTrue(returned.get_payload(decode=True).endswith(b"X-Long: header\r\n"))  # type: ignore[union-attr]

    def test_a_message_without_a_header_section_is_returned(self) -> None:
        self.parts(self.notice(message(b"\r\njust text\r\n"), failed()))
        self.parts(self.notice(message(b"no line end"), failed()))
        large = self.notice(message(b"\r\n" + b"just text\r\n" * 10_000), failed())
        self.assertNotIn(b"just text", large.content)

    def test_bare_cr_bare_lf_nul_and_long_lines_are_not_returned(self) -> None:
        for body in (b"bare \r here\r\n", b"bare \n here\r\n", b"\x00\r\n", b"x" * 999 + b"\r\n"):
            notice = self.notice(message(ORIGINAL + body), failed())
            _, _, returned = self.parts(notice)
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
        self.notice(message(b"X: \x00\r\nY: a\rb\nc\r\nZ: " + b"z" * 5000 + b"\r\n\r\n"), failed())

    def test_of_binary_content_only_the_header_is_returned(self) -> None:
        # RFC 3030 §3: a report has lines, and binary content never stands in one, not even mended.
        field = b"Subject: Lunch\r\n\tat noon\r\n"
        head = message().trace + field
        for content, expected in (
            (field + b"\r\nplain text\r\n", head),
            (field + b"\r\n" + bytes(range(256)), head),
            # Without the empty line of RFC 5322, content may begin at any octet.
            (field + bytes(range(256)), head),
            (field + b"secret\r\n\r\n", head),
            (field + b"X: secret\n\nsecret\r\n\r\n", head),
            (field + b"X: secret\0\r\nY: secret\r\n\r\n", head),
            (field + b"X: secret\r\r\n\r\n", head),
            (b"\r\n\0secret", message().trace),
            (b"\0secret", message().trace),
        ):
            notice = self.notice(message(content, BODY="BINARYMIME"), failed())
            _, _, returned = self.parts(notice)
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), expected)
            self.assertNotIn(b"secret", notice.content)
            self.assertNotIn(b"plain text", notice.content)
        large = message(field * 10_000 + b"\r\n" + b"\0" * 100_000, BODY="BINARYMIME")
        self.assertLess(len(self.notice(large, failed()).content), 70_000)

    def test_a_notice_is_written_without_a_body_that_cannot_be_read(self) -> None:
        original = evolve(message(), body=UnreadableBody())
        notice = self.notice(original, failed())
        parsed = email.message_from_bytes(notice.content)
        self.assertEqual(len(parsed.get_payload()), 2)
        self.assertNotIn(b"attached", notice.content)

    def test_a_content_of_8_bits_is_returned_as_7(self) -> None:
        # Any next hop must take the notice.
        notice = self.notice(message(ORIGINAL + "Grüße an alle\r\n".encode()), failed())
        self.assertEqual(notice.parameters, {})
        _, _, returned = self.parts(notice)
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        inner = returned.get_content()
        self.assertEqual(inner["Subject"], "Lunch")
        self.assertEqual(
            inner.get_payload(decode=True), "At noon?\r\n.\r\nGrüße an alle\r\n".encode()
        )

    def test_of_a_content_that_cannot_be_converted_the_header_is_returned(self) -> None:
        signed = b"Content-Type: multipart/signed; boundary=b\r\n"
        global_part = "Content-Type: message/rfc822\r\n\r\nSubject: schön\r\n".encode()
        for header, body in (
            (signed, b"\xff\r\n"),
            (b"Content-Type: multipart/mixed\r\n", b"\xff\r\n"),
            (b"Content-Type: text/plain\r\n" * 2, b"\xff\r\n"),
            (b"Content-Transfer-Encoding: base64\r\n", b"\xff\r\n"),
            (b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n" + global_part),
            # More than 100 parts are not converted for a notice.
            (b"Content-Type: multipart/mixed; boundary=b\r\n", b"--b\r\n\r\n\xff\r\n" * 101),
        ):
            header = b"Subject: Lunch\r\n" + header
            notice = self.notice(message(header + b"\r\n" + body), failed())
            self.assertEqual(notice.parameters, {})
            text, _, returned = self.parts(notice)
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), message().trace + header)
            self.assertIn("header of what you sent", text.replace("\n", " "))

    def test_a_header_of_8_bits_is_returned_unchanged(self) -> None:
        # RFC 6522 §4: the header is encoded; the body is left out (RFC 3461 §4.3).
        for subject in ("Grüße".encode(), b"Gr\xfc\xdfe", "日本語".encode() * 300, b"\xff" * 2000):
            header = b"Subject: " + subject + b"\r\nMessage-ID: <lunch@example.org>\r\n"
            notice = self.notice(message(header + b"\r\nAt noon?\r\n"), failed())
            self.assertEqual(notice.parameters, {})
            self.assertIn(b"\r\nReferences: <lunch@example.org>\r\n", notice.content)
            text, _, returned = self.parts(notice)
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), message().trace + header)
            self.assertIn("header of what you sent", text.replace("\n", " "))
        # Also with SMTPUTF8, if the header is not UTF-8.
        header = b"Subject: Gr\xfc\xdfe\r\n"
        dorte = evolve(BOB, mailbox=Mailbox("dörte", "example.net"))
        for recipient, kind in ((BOB, "delivery-status"), (dorte, "global-delivery-status")):
            original = message(header + b"\r\n", SMTPUTF8=None)
            notice = self.notice(original, failed(recipient))
            self.assertEqual(notice.parameters, {})
            _, _, returned = self.parts(notice, f"message/{kind}")
            self.assertEqual(returned.get_content_type(), "text/rfc822-headers")
            self.assertEqual(returned.get_payload(decode=True), message().trace + header)

    def test_a_long_line_of_a_header_is_returned_unchanged(self) -> None:
        header = b"Subject: x\r\nX-Long: " + b"long " * 2_000 + b"\r\n"
        _, _, returned = self.parts(self.notice(message(header + b"\r\nx\r\n"), failed()))
        self.assertEqual(returned.get_payload(decode=True), message().trace + header)

    def decoded(self, notice: Notice, kind: str) -> bytes:
        """Return a part of a type that Python's parser does not know (RFC 6533 §4)."""
        part = re.search(
            rb"\r\nContent-Type: %s\r\nContent-Transfer-Encoding: ([a-z0-9-]+)\r\n\r\n(.*?)\r\n--=_"
            % kind.encode(),
            notice.content,
            re.DOTALL,
        )
        assert part is not None, notice.content
        codec = {
            b"7bit": bytes,
            b"base64": base64.b64decode,
            b"quoted-printable": quopri.decodestring,
        }
        return codec[part[1]](part[2])

    def test_an_international_address_stands_in_the_text_and_in_the_status_part(self) -> None:
        dorte = evolve(BOB, mailbox=Mailbox("dörte+x", "example.net"))
        notice = self.notice(message(SMTPUTF8=None), failed(dorte))
        text, _, returned = self.parts(notice, "message/global-delivery-status")
        self.assertIn("<dörte+x@example.net>", text)
        self.assertIn(
            "\r\nFinal-Recipient: utf-8; dörte+x@example.net\r\n".encode(),
            self.decoded(notice, "message/global-delivery-status"),
        )
        self.assertEqual(returned.get_content_type(), "message/global")
        self.assertEqual(self.decoded(notice, "message/global"), message().trace + ORIGINAL)

    def test_a_notice_to_an_ascii_sender_needs_no_smtputf8(self) -> None:
        # RFC 6532 §3.7: the parts beyond ASCII are encoded.
        header = "Subject: Grüße\r\nFrom: <jörg@example.org>\r\n".encode()
        dorte = evolve(BOB, mailbox=Mailbox("dörte", "example.net"))
        for body in (b"Hallo\r\n", "日本語\r\n".encode() * 50, b"\xff\r\n", b"x" * 60_000):
            original = message(header + b"\r\n" + body, SMTPUTF8=None, BODY="8BITMIME")
            notice = self.notice(original, failed(dorte))
            self.assertEqual(notice.parameters, {})
            whole = len(body) < 50_000
            self.assertEqual(
                self.decoded(notice, "message/global" if whole else "message/global-headers"),
                message().trace + header + (b"\r\n" + body if whole else b""),
            )
            status = self.decoded(notice, "message/global-delivery-status")
            self.assertIn("Final-Recipient: utf-8; dörte@example.net\r\n".encode(), status)

    def test_an_ascii_message_of_an_ascii_sender_is_returned_as_message_rfc822(self) -> None:
        dorte = evolve(BOB, mailbox=Mailbox("dörte+x", "example.net"))
        notice = self.notice(message(), failed(dorte))
        text, blocks, returned = self.parts(notice)
        self.assertFalse(notice.international)
        self.assertIn("<dörte+x@example.net>", text)
        self.assertEqual(
            blocks[1]["Final-Recipient"], r"utf-8; d\x{F6}rte\x{2B}x@example.net"
        )  # RFC 6533 §3
        self.assertEqual(returned.get_content_type(), "message/rfc822")
        plain = self.notice(message(SMTPUTF8=None), failed())
        self.assertFalse(plain.international)

    def test_an_international_orcpt_is_repeated_in_ascii_or_in_utf_8(self) -> None:
        bob = evolve(BOB, parameters={"ORCPT": r"utf-8;d\x{F6}rte@example.net"})
        _, blocks, _ = self.parts(self.notice(message(), failed(bob)))
        self.assertEqual(blocks[1]["Original-Recipient"], r"utf-8; d\x{F6}rte@example.net")
        other = evolve(bob, mailbox=Mailbox("ö", "example.net"))
        notice = self.notice(message(SMTPUTF8=None), failed(other))
        self.assertEqual(notice.parameters, {})
        status = self.decoded(notice, "message/global-delivery-status")
        self.assertIn("Original-Recipient: utf-8; dörte@example.net\r\n".encode(), status)

    def test_a_notice_to_an_international_sender_needs_smtputf8(self) -> None:
        original = message("Subject: Grüße\r\n\r\nHallo\r\n".encode(), SMTPUTF8=None)
        envelope = evolve(original.envelope, reverse_path=Mailbox("jörg", "example.org"))
        notice = self.notice(evolve(original, envelope=envelope), failed())
        self.assertIn("\r\nTo: <jörg@example.org>\r\n".encode(), notice.content)
        self.assertEqual(notice.parameters, {"SMTPUTF8": None})
        _, _, returned = self.parts(notice, "message/global-delivery-status")
        self.assertEqual(returned.get_content_type(), "message/global")

    def test_a_notice_forwarded_to_an_ascii_address_names_the_sender_as_an_empty_group(
        self,
    ) -> None:
        for local_part in ("jörg", "用" * 9):
            envelope = evolve(message().envelope, reverse_path=Mailbox(local_part, "example.org"))
            notice = self.notice(evolve(message(), envelope=envelope), failed(), seven_bit=True)
            self.assertEqual(notice.parameters, {})
            parsed = email.message_from_bytes(notice.content, policy=email.policy.SMTP)
            self.assertEqual(parsed["To"].addresses, ())
            self.assertEqual(parsed["To"].groups[0].display_name, f"{local_part}@example.org")
            self.assertEqual(parsed["To"].defects, ())
        self.assertIn(b"To: <alice@", self.notice(message(), failed(), seven_bit=True).content)

    def test_a_long_word_of_a_reply_is_folded(self) -> None:
        # RFC 3464 §2.1.1: a field may be folded, and the part has no encoding.
        words = "x" * 5000
        reply = Reply.of(550, "1.1", words)
        notice = self.notice(message(), failed(reply=reply, remote=words))
        head = b"Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit\r\n"
        self.assertIn(head, notice.content)
        _, blocks, _ = self.parts(notice)
        self.assertEqual("".join(blocks[1]["Remote-MTA"].split()), f"dns;{words}")

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(st.sampled_from(WORDS), max_size=20).map(b"".join),
        st.sampled_from(({}, {"SMTPUTF8": None}, {"BODY": "8BITMIME"}, {"BODY": "BINARYMIME"})),
        st.sampled_from(("bob", "dörte", "用户")),
        st.sampled_from(("alice", "jörg")),
        st.booleans(),
    )
    def test_a_notice_about_any_message_can_be_sent(
        self,
        content: bytes,
        parameters: dict[str, str | None],
        recipient: str,
        sender: str,
        to_ascii: bool,
    ) -> None:
        original = message(content, **parameters)
        envelope = evolve(original.envelope, reverse_path=Mailbox(sender, "example.org"))
        failure = failed(evolve(BOB, mailbox=Mailbox(recipient, "example.net")))
        notice = self.notice(evolve(original, envelope=envelope), failure, seven_bit=to_ascii)
        self.assertEqual(notice.international, sender == "jörg" and not to_ascii)
        parts = list(email.message_from_bytes(notice.content).get_payload())
        self.assertIn(len(parts), (2, 3))
        self.assertIn(f"<{recipient}@example.net>".encode(), parts[0].get_payload(decode=True))

    def test_hostile_replies_cannot_add_fields_or_blocks(self) -> None:
        for words in (
            "No\r\nX-Evil: yes",
            "No\n\nAction: delivered",
            "\x00\x1b[31m\x7f",
            "caf\xe9 \u2028 \udc80",
            "x" * 5000,
            "many words " * 500,
            f"--=_{QueueId(77)}_0--",
            "",
        ):
            reply = Reply.of(550, "1.1", words, words)
            text, blocks, _ = self.parts(self.notice(message(), failed(reply=reply, remote=words)))
            self.assertEqual(len(blocks), 2)
            self.assertEqual(blocks[1].get_all("Action"), ["failed"])
            self.assertNotIn("X-Evil", blocks[1])
            self.assertIn("550 5.1.1", text)

    def test_the_boundary_does_not_occur_in_the_returned_message(self) -> None:
        first = self.notice(message(), failed())
        again = self.notice(message(first.content), failed())
        _, _, returned = self.parts(again)
        self.assertEqual(returned.get_content().is_multipart(), True)
        self.assertIn(first.content, again.content)

    def test_a_malformed_message_id_is_not_repeated(self) -> None:
        for wrong in (b"<a b>", b"<a>\r\n X: <b>", b"<\xff>", b"<" + b"a" * 999 + b">", b""):
            notice = self.notice(message(b"Message-ID: " + wrong + b"\r\n\r\n"), failed())
            self.assertIsNone(email.message_from_bytes(notice.content)["References"], wrong)

    def test_a_message_with_the_null_reverse_path_gets_no_notice(self) -> None:
        original = evolve(message(), envelope=Envelope(None, (BOB,)))
        self.assertRaises(ValueError, self.notice, original, failed())
        self.assertRaises(ValueError, self.notice, message())
