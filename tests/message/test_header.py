"""Fields of a header section: names and values."""

from tests.tidy import TidyTestCase
from twisted_mta.message.header import field, fields


class Fields(TidyTestCase):
    def test_fields_are_read_in_order_and_unfolded(self) -> None:
        header = (
            b"Subject: one\r\n  two\r\n\tthree\r\nTo:bob\r\nsubject : again\r\n\r\nFrom: body\r\n"
        )
        self.assertEqual(
            list(fields(header)),
            [("Subject", "one  two\tthree"), ("To", "bob"), ("subject", "again")],
        )

    def test_a_field_name_matches_in_any_case(self) -> None:
        header = b"message-ID: <a@b>\r\nMessage-Id: <c@d>\r\n"
        self.assertEqual(field(header, "Message-ID"), "<a@b>")
        self.assertIsNone(field(header, "Subject"))

    def test_lines_that_are_no_field_are_skipped(self) -> None:
        header = (
            b"no field\nSubject: caf\xe9\n: empty\n\xff: eight\nX Y: space\nTo: bob\n\nFrom: eve"
        )
        self.assertEqual(list(fields(header)), [("Subject", "caf\ufffd"), ("To", "bob")])
        self.assertEqual(list(fields(b"")), [])
        self.assertEqual(list(fields(b" folded: first")), [])
