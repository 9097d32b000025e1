"""Content arrives unchanged, below the fields that we add."""

from .machine import LOOPBACK
from .mail import (
    MIB,
    ProgramTestCase,
    as_stored,
    message_full_of_dots,
    message_with_attachment,
    submit,
)
from .mta import MTA
from .sinks import Sink


class Content(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.sink = self.enterContext(Sink(self.home))
        route = f"relay.example=smtp://{LOOPBACK}:{self.sink.port}"
        self.mta = self.enterContext(MTA(self.home, "--route", route))

    def assertArrives(self, content: bytes) -> None:
        submit(self.mta.smtp, content, "bob@localhost", "bob@relay.example")
        (stored,) = self.mta.wait_for_mail("localhost", "bob")
        (relayed,) = self.sink.wait_for_messages()
        # No assertEqual: its message would be megabytes of difference.
        self.assertTrue(stored.endswith(as_stored(content)), "changed on the way to the Maildir")
        self.assertTrue(relayed.endswith(content), "changed on the way to the next hop")
        above = relayed[: -len(content)]
        self.assertTrue(above.startswith(b"Received: "), above)
        self.assertEqual(above.count(b"\nReceived: "), 0)
        self.assertTrue(above.endswith(b"\r\n"), above)

    def test_a_large_attachment_arrives_byte_for_byte(self) -> None:
        self.assertArrives(message_with_attachment(5 * MIB))

    def test_dots_at_the_beginning_of_lines_arrive_byte_for_byte(self) -> None:
        self.assertArrives(message_full_of_dots(2 * MIB))

    def test_a_message_of_one_line_arrives_byte_for_byte(self) -> None:
        self.assertArrives(b"Subject: nothing else\r\n")
