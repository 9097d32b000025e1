"""What of a message needs SMTPUTF8."""

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.body import MemoryBody
from twisted_mta.message.mime.smtputf8 import needs_smtputf8

PARTS = (
    "Subject: x\r\nContent-Type: multipart/mixed; boundary=X\r\n\r\n"
    "--X\r\nContent-Type: text/plain; charset=utf-8\r\n{}\r\n{}\r\n--X--\r\n"
)


class Elsewhere:
    """A body that is not in memory."""

    size = 10

    def chunks(self) -> Iterator[bytes]:
        raise AssertionError("it would be read")


class NeedsIt(SynchronousTestCase):
    def found(self, text: str) -> bool:
        return needs_smtputf8(MemoryBody(text.encode()))

    def test_the_header_on_top_and_those_of_parts(self) -> None:
        self.assertTrue(self.found("Subject: schön\r\n\r\nx\r\n"))
        self.assertTrue(self.found(PARTS.format("Content-Description: schön\r\n", "x")))
        self.assertTrue(
            self.found(
                "Content-Type: message/rfc822\r\n\r\nSubject: schön\r\n\r\nx\r\n",
            )
        )
        self.assertTrue(
            self.found("Content-Type: message/global\r\n\r\nSubject: schön\r\n\r\nx\r\n")
        )

    def test_not_what_is_said_in_a_body(self) -> None:
        self.assertFalse(self.found("Subject: x\r\n\r\nschön: ja\r\n"))
        self.assertFalse(self.found(PARTS.format("", "schön: ja")))

    def test_what_is_not_in_memory_is_not_read_for_it(self) -> None:
        self.assertTrue(needs_smtputf8(Elsewhere()))

    def test_what_has_too_many_parts_to_look_into(self) -> None:
        many = "--X\r\n\r\nx\r\n" * 6000
        self.assertTrue(self.found(f"Content-Type: multipart/mixed; boundary=X\r\n\r\n{many}"))
