"""Whether a content needs SMTPUTF8."""

from collections.abc import Iterator

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import MemoryBody
from twisted_mta.message.mime.smtputf8 import needs_smtputf8

PARTS = (
    "Subject: x\r\nContent-Type: multipart/mixed; boundary=X\r\n\r\n"
    "--X\r\nContent-Type: text/plain; charset=utf-8\r\n{}\r\n{}\r\n--X--\r\n"
)


class BodyFile:
    """A body that is not in memory."""

    size = 10

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("the body file is read")


class Need(TidyTestCase):
    def needs(self, text: str) -> bool:
        return needs_smtputf8(MemoryBody(text.encode()))

    def test_utf_8_in_any_header_section_needs_smtputf8(self) -> None:
        self.assertTrue(self.needs("Subject: schön\r\n\r\nx\r\n"))
        self.assertTrue(self.needs(PARTS.format("Content-Description: schön\r\n", "x")))
        self.assertTrue(
            self.needs(
                "Content-Type: message/rfc822\r\n\r\nSubject: schön\r\n\r\nx\r\n",
            )
        )
        self.assertTrue(
            self.needs("Content-Type: message/global\r\n\r\nSubject: schön\r\n\r\nx\r\n")
        )

    def test_utf_8_in_a_body_needs_no_smtputf8(self) -> None:
        self.assertFalse(self.needs("Subject: x\r\n\r\nschön: ja\r\n"))
        self.assertFalse(self.needs(PARTS.format("", "schön: ja")))

    def test_a_body_file_is_not_read_and_counts_as_needing_smtputf8(self) -> None:
        self.assertTrue(needs_smtputf8(BodyFile()))

    def test_a_content_with_over_100_parts_counts_as_needing_smtputf8(self) -> None:
        many = "--X\r\n\r\nx\r\n" * 6000
        self.assertTrue(self.needs(f"Content-Type: multipart/mixed; boundary=X\r\n\r\n{many}"))
