"""Bodies of a shared queue: nothing is sent to its end once the lease is not certain."""

from __future__ import annotations

from tests.tidy import TidyTestCase
from twisted_mta.agent.shared_queue import GuardedBody
from twisted_mta.mail.body import MemoryBody
from twisted_mta.smtp.client.outgoing import chunked, stuffed

from ..queue.mail import message


class Guarded(TidyTestCase):
    def setUp(self) -> None:
        self.leased = True
        self.body = GuardedBody(
            MemoryBody(b"Subject: Hello\r\n\r\nHello.\r\n"), lambda: self.leased
        )
        self.message = message(1, body=self.body)

    def test_content_is_the_same_as_long_as_the_lease_lasts(self) -> None:
        self.assertEqual(self.body.size, 26)
        self.assertTrue(b"".join(stuffed(self.message)).endswith(b"\r\n\r\nHello.\r\n.\r\n"))

    def test_without_a_lease_no_final_dot_is_sent(self) -> None:
        pieces = stuffed(self.message)
        sent = next(pieces) + next(pieces)
        self.leased = False
        with self.assertRaisesRegex(OSError, "lease"):
            sent += b"".join(pieces)
        self.assertFalse(sent.endswith(b"\r\n.\r\n"))

    def test_without_a_lease_no_last_piece_of_a_chunk_is_sent(self) -> None:
        pieces = chunked(self.message)
        next(pieces)  # the trace fields
        self.leased = False
        with self.assertRaisesRegex(OSError, "lease"):
            next(pieces)
