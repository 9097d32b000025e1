"""What is kept of the replies of servers, for later connections."""

from __future__ import annotations

import gc
import tracemalloc

from tests.tidy import TidyTestCase
from twisted_mta.mail.reply import Reply
from twisted_mta.smtp.client.agreement import Agreement
from twisted_mta.smtp.client.reply_reader import LINES_LIMIT, TEXT_LIMIT, ReplyReader
from twisted_mta.smtp.extension.outgoing import OutgoingExtension
from twisted_mta.smtp.extension.standard import OUTGOING

from ..player import FACTS, Player, message


def read(*lines: bytes) -> Reply:
    """Return the reply of code 250 with these lines."""
    reader = ReplyReader()
    reader.feed(b"".join(b"250-%b\r\n" % line for line in lines[:-1]) + b"250 %b\r\n" % lines[-1])
    reply = reader.next()
    assert isinstance(reply, Reply)
    return reply


class Kept(TidyTestCase):
    def test_servers_that_offer_the_same_share_an_agreement(self) -> None:
        one = Agreement.by_reply(read(b"mx1.example", b"SIZE 100", b"DSN"), OUTGOING)
        other = Agreement.by_reply(read(b"mx2.example", b"SIZE 100", b"DSN"), OUTGOING)
        self.assertIs(one, other)

    def test_a_change_of_what_a_server_offers_is_seen(self) -> None:
        before = Agreement.by_reply(read(b"mx.example", b"SIZE 100", b"LIMITS MAILMAX=5"), OUTGOING)
        after = Agreement.by_reply(read(b"mx.example", b"SIZE 200", b"LIMITS MAILMAX=6"), OUTGOING)
        self.assertEqual((before.limits.mails, after.limits.mails), (5, 6))
        self.assertEqual(after.capabilities["SIZE"], "200")

    def test_other_extensions_make_another_agreement(self) -> None:
        class Ticket(OutgoingExtension):
            keyword = "XTICKET"

        reply = read(b"mx.example", b"XTICKET")
        self.assertIsNot(
            Agreement.by_reply(reply, OUTGOING), Agreement.by_reply(reply, (Ticket(), *OUTGOING))
        )

    def test_what_is_offered_in_clear_does_not_count_under_tls(self) -> None:
        player = Player(message("b@example.net"), tls="may")
        player.receive(b"220 mx.example\r\n")
        player.receive(
            b"250-mx.example\r\n250-SIZE 100\r\n250-LIMITS MAILMAX=1\r\n250 STARTTLS\r\n"
        )
        player.receive(b"220 Go\r\n")
        player.take(player.session.handshake_completed(FACTS))
        self.assertEqual(player.session.capabilities, {})
        player.receive(b"250-mx.example\r\n250 DSN\r\n")
        self.assertEqual(player.session.capabilities, {"DSN": ""})
        self.assertFalse(player.session.spent)

    def test_servers_cannot_fill_the_memory_with_long_replies(self) -> None:
        """Each text is as long as possible, takes four octets a character, and comes once."""
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        for number in range(300):
            start = f"\N{GRINNING FACE}{number}".encode()
            long = (start + b" %d " % line for line in range(LINES_LIMIT))
            Agreement.by_reply(read(*(line.ljust(TEXT_LIMIT, b"x") for line in long)), OUTGOING)
            many = (start + b" %d" % line for line in range(LINES_LIMIT))
            Agreement.by_reply(read(*many), OUTGOING)
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
        self.assertLess(kept, 5_000_000)
