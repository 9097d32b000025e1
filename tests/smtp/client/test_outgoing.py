"""Dot-stuffing, and content in pieces."""

from collections.abc import Iterator
from io import BytesIO
from typing import IO

from attrs import evolve, frozen
from hypothesis import example, given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import DotlessFile, MemoryBody
from twisted_mta.smtp.client.outgoing import PIECE, DotStuffer, in_one_piece, stuffed

from ..player import PLAIN_OPENING, Player, message


def naively_stuffed(content: bytes) -> bytes:
    """Return ``content`` dot-stuffed line by line (RFC 5321 §4.5.2)."""
    if not content.endswith(b"\r\n") and content:
        content += b"\r\n"
    lines = content.split(b"\r\n")[:-1]
    return b"".join(b"." * line.startswith(b".") + line + b"\r\n" for line in lines) + b".\r\n"


class DotStufferTests(TidyTestCase):
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"x"]), max_size=12).map(
            b"".join
        )
    )
    def test_the_result_does_not_depend_on_where_content_is_split(self, content: bytes) -> None:
        expected = naively_stuffed(content)
        for first in range(len(content) + 1):
            for second in range(first, len(content) + 1):
                stuffer = DotStuffer()
                parts = (content[:first], content[first:second], content[second:])
                octets = b"".join(map(stuffer.feed, parts)) + stuffer.end()
                self.assertEqual(octets, expected, parts)

    def test_content_may_come_one_octet_at_a_time(self) -> None:
        content = b".\r\n..\r\n\r.\r\n.\n.\r\n\r\n.x"
        stuffer = DotStuffer()
        octets = b"".join(stuffer.feed(bytes([octet])) for octet in content) + stuffer.end()
        self.assertEqual(octets, naively_stuffed(content))

    def test_large_content_is_yielded_in_pieces(self) -> None:
        content = b"x" * 100 + b"\r\n.\r\n" * 100_000
        session = (
            Player(message(content=content))
            .play(f"""
            {PLAIN_OPENING}
            C: MAIL FROM:<a@client.example>
            S: 250 Ok
            C: RCPT TO:<b@example.net>
            S: 250 Ok
            C: DATA
        """)
            .session
        )
        session.receive(b"354 Go on\r\n")
        pieces = list(session.body())
        trace = b"Received: by client.example\r\n"
        self.assertEqual(b"".join(pieces), naively_stuffed(trace + content))
        self.assertLess(max(map(len, pieces)), 100_000)


class InOnePiece(TidyTestCase):
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"x"]), max_size=12).map(b"".join),
        st.sampled_from([b"", b"A: x\r\n", b"..\r\n", b"A: x", b"A: x\r", b"\r\n", b"\n", b"."]),
    )
    def test_small_content_has_the_octets_of_its_pieces(self, content: bytes, trace: bytes) -> None:
        mail = evolve(message(body=MemoryBody(content)), trace=trace)
        self.assertEqual(in_one_piece(mail), naively_stuffed(trace + content))

    def test_content_of_more_than_a_piece_has_them_too(self) -> None:
        """Wherever a line begins: the octets before the end of a piece are CR LF, or CR alone."""
        for before in (b"", b"\r", b"\r\n"):
            content = before.rjust(PIECE, b"x") + b"\n.\r\n.y"
            mail = message(body=MemoryBody(content))
            self.assertEqual(in_one_piece(mail), naively_stuffed(mail.trace + content))


@frozen
class Dotless(DotlessFile):
    """A content without dots, in pieces of some octets."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, len(self.content), 3):
            yield self.content[start : start + 3]

    def open(self) -> IO[bytes]:
        return BytesIO(self.content)


class WithoutDots(TidyTestCase):
    """A body without dots is not looked through, and the octets on the wire are the same."""

    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b".", b"x", b"\r\n"]), max_size=12).map(b"".join),
        st.sampled_from([b"", b"A: x\r\n", b"..\r\n", b"A: x", b"A: x\r", b"\r\n", b"\n", b"."]),
    )
    @example(b"\n.\r\n", b"A: x\r")
    def test_the_octets_are_those_of_a_body_that_is_looked_through(
        self, text: bytes, trace: bytes
    ) -> None:
        content = text.replace(b"\r\n.", b"\r\n").lstrip(b".") + b"\r\n"
        if b"\r\n." in content:
            return
        looked_through = evolve(message(body=MemoryBody(content)), trace=trace)
        expected = b"".join(piece for piece in stuffed(looked_through) if isinstance(piece, bytes))
        dotless = evolve(looked_through, body=Dotless(content))
        for files in (False, True):
            wire = b""
            for piece in stuffed(dotless, files=files):
                self.assertTrue(files or isinstance(piece, bytes))
                wire += piece.content if isinstance(piece, Dotless) else bytes(piece)  # type: ignore[arg-type]
            self.assertEqual(wire, expected)
        self.assertEqual(in_one_piece(dotless), expected)

    def test_a_file_is_a_piece_only_where_that_is_asked_for(self) -> None:
        dotless = message(body=Dotless(b"Subject: x\r\n\r\nHello\r\n"))
        self.assertEqual(
            list(stuffed(dotless, files=True)), [dotless.trace, dotless.body, b".\r\n"]
        )
        self.assertGreater(len(list(stuffed(dotless))), 3)

    def test_the_dot_is_not_sent_before_the_file(self) -> None:
        session = (
            Player(message(body=Dotless(b"Subject: x\r\n\r\nHello\r\n")))
            .play(f"""
            {PLAIN_OPENING}
            C: MAIL FROM:<a@client.example>
            S: 250 Ok
            C: RCPT TO:<b@example.net>
            S: 250 Ok
            C: DATA
        """)
            .session
        )
        session.receive(b"354 Go on\r\n")
        ready = []
        for piece in (*session.content(files=True), None):
            ready.append((session.body_read(piece), session.dot_sent))
        self.assertEqual([sent for _, sent in ready], [False, False, False, True])
        self.assertIsInstance(ready[2][0], Dotless)
        self.assertEqual(ready[3][0], b".\r\n")
