"""The message on standard input, as ``twisted-mta-sendmail`` reads and completes it."""

import io

from tests.tidy import TidyTestCase
from twisted_mta.submitter.content import Header, TooLarge, display_name, read


class Reading(TidyTestCase):
    def read(self, octets: bytes, *, dot_ends: bool = True, limit: int = 1000) -> bytes:
        return read(io.BytesIO(octets), dot_ends=dot_ends, limit=limit)

    def test_lines_end_in_cr_lf_whatever_they_ended_in(self) -> None:
        self.assertEqual(self.read(b"a\nb\r\nc"), b"a\r\nb\r\nc\r\n")

    def test_a_line_with_a_dot_ends_the_message_unless_it_does_not(self) -> None:
        octets = b"a\n..\n.b\n.\nc\n"
        self.assertEqual(self.read(octets), b"a\r\n..\r\n.b\r\n")
        self.assertEqual(self.read(octets, dot_ends=False), b"a\r\n..\r\n.b\r\n.\r\nc\r\n")

    def test_a_message_that_is_too_large_is_not_read_to_its_end(self) -> None:
        for dot_ends in (True, False):
            endless = io.BytesIO(b"a" * 5000)
            self.assertRaises(TooLarge, read, endless, dot_ends=dot_ends, limit=1000)
            self.assertLess(endless.tell(), 2000)


class Headers(TidyTestCase):
    def test_recipients_are_those_of_to_cc_and_bcc_and_bcc_is_removed(self) -> None:
        header = Header(
            b"From mbox Mon Nov 30\r\nTo: Ann <a@x>,\r\n b@x\r\nbcc: c@x\r\n\td@x\r\nX: y\r\n"
            b"CC : e@x\r\n\r\nTo: f@x\r\n"
        )
        self.assertRaises(ValueError, header.recipients)  # no comma between c and d
        header = Header(
            b"From mbox Mon Nov 30\r\nTo: Ann <a@x>,\r\n b@x\r\nbcc: c@x,\r\n\td@x\r\nX: y\r\n"
            b"CC : e@x\r\n\r\nTo: f@x\r\n"
        )
        self.assertEqual(header.recipients(), ["a@x", "b@x", "c@x", "d@x", "e@x"])
        self.assertEqual(
            header.message({"Date": "now", "X": "no"}),
            b"Date: now\r\nTo: Ann <a@x>,\r\n b@x\r\nX: y\r\nCC : e@x\r\n\r\nTo: f@x\r\n",
        )

    def test_of_a_resent_message_the_resent_fields_hold(self) -> None:
        header = Header(b"To: a@x\r\nResent-From: r@x\r\nResent-To: b@x\r\nResent-Bcc: c@x\r\n\r\n")
        self.assertEqual(header.recipients(), ["b@x", "c@x"])
        self.assertNotIn(b"c@x", header.message({}))

    def test_a_text_without_a_header_is_all_body(self) -> None:
        for text in (b"hello world\r\n", b" leading: space\r\n", b"\r\nTo: a@x\r\n"):
            header = Header(text)
            self.assertEqual(header.fields, [])
            self.assertTrue(header.message({}).startswith(b"\r\n"))
            self.assertTrue(header.message({}).endswith(text.removeprefix(b"\r\n")))


class Names(TidyTestCase):
    def test_a_name_cannot_end_its_field(self) -> None:
        self.assertEqual(display_name('Ann "A"\r\nBcc: x'), '"Ann \\"A\\"Bcc: x" ')
        self.assertEqual(display_name("Jürgen"), "=?utf-8?b?SsO8cmdlbg==?= ")
        self.assertEqual(display_name(" "), "")
