"""Dot-stuffing, and content in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.smtp.client.outgoing import DotStuffer

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
