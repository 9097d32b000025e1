"""Binary content in a client session (RFC 3030): sent by BDAT, octet for octet, or not at all."""

from collections.abc import Iterator

from attrs import evolve, frozen

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import Body
from twisted_mta.mail.message import Message
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import Close, SendBody

from ..player import CONTENT, GROUP, PLAIN_OPENING, Player, message

TRACE = b"Received: by client.example\r\n"
EVERY_OCTET = bytes(range(256)) + b"\r\n.\r\n\n.\n\r.\r\0\r\n.\r"

BINARY_OPENING = """
    S: 220 mx.example ESMTP
    C: EHLO client.example
    S: 250-mx.example greets you
    S: 250-PIPELINING
    S: 250-SIZE 1000000
    S: 250-CHUNKING
    S: 250 BINARYMIME
"""
BINARY_GROUP = """
    C: MAIL FROM:<a@client.example> SIZE=49 BODY=BINARYMIME
    C: RCPT TO:<b@example.net>
"""
CHUNK = """
    C: BDAT 49 LAST
    C: Received: by client.example
    C: Subject: x
    C:
    C: .dot
"""
TAKEN = """
    S: 250 2.1.0 Ok
    S: 250 2.1.5 Ok
"""


@frozen
class PromisedBody:
    """A body whose octets do not have the size that it announces."""

    size: int
    pieces: tuple[bytes, ...]

    def chunks(self) -> Iterator[bytes]:
        yield from self.pieces


def binary(*recipients: str, body: Body | None = None, content: bytes | None = None) -> Message:
    parameters: dict[str, str | int | None] = {"BODY": "BINARYMIME"}
    if content is None:
        return message(*recipients, parameters=parameters, body=body)
    return message(*recipients, parameters=parameters, content=content)


def awaiting_content(mail: Message) -> ClientSession:
    """Return a session that waits for the content of ``mail``."""
    session = ClientSession(helo="client.example", remote="mx[192.0.2.1]:25", tls="none")
    session.receive(b"220 mx.example\r\n")
    session.output()
    session.receive(b"250-mx.example\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n")
    session.transact(mail)
    session.output()
    steps = session.receive(b"250 Ok\r\n250 Ok\r\n")
    assert steps == [SendBody(len(mail.trace) + mail.body.size)]
    return session


class SentTests(TidyTestCase):
    """The dialogue with a server that has CHUNKING and BINARYMIME."""

    def test_one_chunk_is_sent_after_a_recipient_was_accepted(self) -> None:
        for at_a_time in (0, 1):
            player = Player(binary(), at_a_time=at_a_time).play(f"""
                {BINARY_OPENING}
                {BINARY_GROUP}
                {TAKEN}
                {CHUNK}
                S: 250 2.0.0 Queued as 1
            """)
            self.assertEqual(player.replies, ["250 2.0.0 Queued as 1"])
            self.assertTrue(player.session.idle)

    def test_without_pipelining_the_chunk_follows_the_last_recipient(self) -> None:
        player = Player(binary("b@example.net", "c@example.net")).play(f"""
            S: 220 mx.example
            C: EHLO client.example
            S: 250-mx.example
            S: 250-BINARYMIME
            S: 250 CHUNKING
            C: MAIL FROM:<a@client.example> BODY=BINARYMIME
            S: 250 Ok
            C: RCPT TO:<b@example.net>
            S: 250 Ok
            C: RCPT TO:<c@example.net>
            S: 550 5.1.1 Nobody
            {CHUNK}
            S: 250 Queued
        """)
        self.assertEqual(player.replies, ["250 Queued", "550 5.1.1 Nobody"])

    def test_every_octet_is_sent_as_it_is_and_counted(self) -> None:
        """No dot is doubled, and no line end added."""
        for content in (EVERY_OCTET, b"", b".", b".\r\n", b"no end", EVERY_OCTET * 1000):
            mail = binary(content=content)
            whole = TRACE + content
            octets = b"".join(awaiting_content(mail).body())
            self.assertEqual(octets, b"BDAT %d LAST\r\n%s" % (len(whole), whole))

    def test_empty_content_is_a_chunk_of_no_octets(self) -> None:
        mail = evolve(binary(content=b""), trace=b"")
        self.assertEqual(b"".join(awaiting_content(mail).body()), b"BDAT 0 LAST\r\n")

    def test_large_content_is_written_in_pieces(self) -> None:
        pieces = list(awaiting_content(binary(content=EVERY_OCTET * 1000)).body())
        self.assertLess(max(map(len, pieces)), 70_000)
        self.assertGreater(len(pieces), 3)

    def test_accepted_recipients_share_the_reply_to_the_chunk(self) -> None:
        player = Player(binary("b@example.net", "c@example.net", "d@example.net")).play(f"""
            {BINARY_OPENING}
            {BINARY_GROUP}
            C: RCPT TO:<c@example.net>
            C: RCPT TO:<d@example.net>
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 250 Ok
            S: 450 4.2.0 Later
            {CHUNK}
            S: 250 Queued
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody", "250 Queued", "450 4.2.0 Later"])

    def test_without_an_accepted_recipient_there_is_no_bdat_and_rset_follows(self) -> None:
        player = Player(binary("b@example.net", "c@example.net"), message()).play(f"""
            {BINARY_OPENING}
            {BINARY_GROUP}
            C: RCPT TO:<c@example.net>
            S: 250 Ok
            S: 550 5.1.1 Nobody
            S: 450 4.2.0 Later
            C: RSET
            {GROUP}
        """)
        self.assertEqual(player.replies, ["550 5.1.1 Nobody", "450 4.2.0 Later"])

    def test_after_a_refused_mail_rset_precedes_the_next_transaction(self) -> None:
        player = Player(binary(), message()).play(f"""
            {BINARY_OPENING}
            {BINARY_GROUP}
            S: 550 5.7.1 Not you
            S: 250 Yes
            C: RSET
            {GROUP}
        """)
        self.assertEqual(player.replies, ["550 5.7.1 Not you"])

    def test_a_refused_chunk_fails_the_message_and_rset_follows(self) -> None:
        """RFC 3030 §2: the server may wait for RSET."""
        player = Player(binary(), binary()).play(f"""
            {BINARY_OPENING}
            {BINARY_GROUP}
            {TAKEN}
            {CHUNK}
            S: 552 5.3.4 Too large
            C: RSET
            {BINARY_GROUP}
        """)
        self.assertEqual(player.replies, ["552 5.3.4 Too large"])
        self.assertFalse(player.outcomes[0].uncertain)

    def test_other_content_goes_by_data_on_the_same_connection(self) -> None:
        player = Player(message(), binary(), message()).play(f"""
            {BINARY_OPENING}
            {GROUP}
            {TAKEN}
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
            {BINARY_GROUP}
            {TAKEN}
            {CHUNK}
            S: 250 Queued
            {GROUP}
            {TAKEN}
            S: 354 Go on
            {CONTENT}
            S: 250 Queued
        """)
        self.assertEqual(player.replies, ["250 Queued"] * 3)


class UnsendableTests(TidyTestCase):
    """Binary content for servers that cannot take it."""

    def test_a_server_without_chunking_or_binarymime_gets_none_of_it(self) -> None:
        """RFC 3030 §3: all recipients fail with 5.6.3."""
        for extensions in (
            "S: 250 8BITMIME",
            "S: 250 CHUNKING",
            "S: 250 BINARYMIME",
            "S: 250-8BITMIME\nS: 250-CHUNKING\nS: 250 SIZE",
        ):
            player = Player(binary("b@example.net", "c@example.net")).play(f"""
                S: 220 mx.example
                C: EHLO client.example
                S: 250-mx.example
                {extensions}
            """)
            for outcome in player.outcomes:
                self.assertEqual(outcome.reply.enhanced, "5.6.3")
                self.assertIn("CHUNKING and BINARYMIME", outcome.reply.text)
                self.assertIsNone(outcome.remote)
            self.assertEqual(len(player.outcomes), 2)
            self.assertTrue(player.session.idle)

    def test_a_server_without_extensions_gets_none_of_it(self) -> None:
        player = Player(binary()).play(PLAIN_OPENING)
        self.assertEqual(player.outcomes[0].reply.enhanced, "5.6.3")

    def test_content_whose_length_has_changed_is_never_sent_whole(self) -> None:
        """The server counts octets, and would take commands for content."""
        for size, pieces in (
            (10, (b"123456789",)),
            (10, (b"12345678901",)),
            (10, (b"12345", b"678901")),
            (10, (b"12345678901", b"2", b"3")),
            (10, ()),
            (0, (b"1",)),
            (100_000, (b"x" * 65_536, b"x" * 34_463)),
            (100_000, (b"x" * 65_536, b"x" * 34_465)),
        ):
            session = awaiting_content(binary(body=PromisedBody(size, pieces)))
            sent = []
            with self.assertRaises(OSError):
                sent.extend(session.body())
            content = b"".join(sent).partition(b" LAST\r\n")[2]
            self.assertLess(len(content), len(TRACE) + max(size, 1))
            done, close = session.body_failed("too short")
            self.assertEqual(done.outcomes[0].reply.enhanced, "4.3.0")  # type: ignore[union-attr]
            self.assertFalse(done.outcomes[0].uncertain)  # type: ignore[union-attr]
            self.assertEqual(close, Close(abort=True))


class TroubleTests(TidyTestCase):
    """Replies and ends of connections that come while a chunk is sent."""

    def test_a_refusal_while_the_chunk_is_sent_counts_and_ends_the_connection(self) -> None:
        refusal = b"552-5.3.4 Far\r\n552 5.3.4 too large\r\n"
        for cut in range(len(refusal)):
            session = awaiting_content(binary(content=b"x" * 200_000))
            pieces = session.body()
            next(pieces)
            self.assertEqual(session.receive(refusal[:cut]), [])
            next(pieces)
            done, close = session.receive(refusal[cut:])
            [outcome] = done.outcomes  # type: ignore[union-attr]
            self.assertEqual(str(outcome.reply), "552 5.3.4 Far too large")
            self.assertEqual(outcome.remote, "mx[192.0.2.1]:25")
            self.assertFalse(outcome.uncertain)
            self.assertEqual(close, Close(abort=True))
            self.assertTrue(session.closed)

    def test_success_while_the_chunk_is_sent_is_not_believed(self) -> None:
        for octets in (b"250 Ok\r\n", b"2"):
            session = awaiting_content(binary(content=b"x" * 200_000))
            next(session.body())
            done, close = session.receive(octets)
            [outcome] = done.outcomes  # type: ignore[union-attr]
            self.assertEqual(outcome.reply.code // 100, 4)
            self.assertEqual(close, Close(abort=True))

    def test_a_refusal_completed_after_the_chunk_is_its_reply(self) -> None:
        session = awaiting_content(binary(content=b"x" * 200_000))
        pieces = session.body()
        next(pieces)
        self.assertEqual(session.receive(b"452 4.3.1 No"), [])
        self.assertTrue(list(pieces))
        [done] = session.receive(b" room\r\n")
        [outcome] = done.outcomes  # type: ignore[union-attr]
        self.assertEqual(str(outcome.reply), "452 4.3.1 No room")
        self.assertTrue(session.idle)

    def test_without_a_reply_to_the_chunk_the_delivery_is_uncertain(self) -> None:
        """RFC 5321 §4.5.3.2.6: the wait may last 10 minutes."""
        for end in ("lost", "timed out"):
            player = Player(binary("b@example.net", "c@example.net")).play(f"""
                {BINARY_OPENING}
                {BINARY_GROUP}
                C: RCPT TO:<c@example.net>
                S: 250 Ok
                S: 250 Ok
                S: 550 5.1.1 Nobody
                {CHUNK}
            """)
            self.assertEqual(player.session.deadline, 600)
            if end == "lost":
                player.take(player.session.connection_lost("reset"))
            else:
                player.take(player.session.timed_out())
            first, second = player.outcomes
            self.assertEqual(first.reply.enhanced, "4.4.2")
            self.assertIn("after the last chunk", first.reply.text)
            self.assertEqual([first.uncertain, second.uncertain], [True, False])

    def test_a_connection_lost_within_the_chunk_has_delivered_nothing(self) -> None:
        session = awaiting_content(binary(content=b"x" * 200_000))
        next(session.body())
        self.assertEqual(session.deadline, 180)
        [done, _] = session.connection_lost("reset")
        [outcome] = done.outcomes  # type: ignore[union-attr]
        self.assertEqual(outcome.reply.enhanced, "4.4.2")
        self.assertFalse(outcome.uncertain)

    def test_a_surplus_reply_before_the_chunk_ends_the_connection(self) -> None:
        player = Player(binary()).play(f"""
            {BINARY_OPENING}
            {BINARY_GROUP}
            S: 250 Ok
            S: 250 Ok
            S: 250 Ok
        """)
        self.assertEqual(player.outcomes[0].reply.code // 100, 4)
        self.assertFalse(player.outcomes[0].uncertain)
        self.assertTrue(player.session.closed)
