"""Quoted-printable and base64, encoded in chunks."""

import base64
import quopri
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.message.mime.encoding import Base64, Encoder, QuotedPrintable


def encode(make: Callable[[], Encoder], octets: bytes, size: int) -> tuple[bytes, bytes]:
    """Return the encoded form of octets, fed ``size`` at a time, and its line end."""
    encoder = make()
    pieces = [encoder.feed(octets[at : at + size]) for at in range(0, len(octets), size)]
    return b"".join(pieces) + encoder.end(), encoder.line_end


class Encodings(TidyTestCase):
    @settings(max_examples=100, deadline=None)
    @given(st.binary(max_size=300), st.integers(1, 120))
    def test_base64_decodes_to_the_octets(self, octets: bytes, size: int) -> None:
        encoded, end = encode(Base64, octets, size)
        self.assertEqual(base64.b64decode(encoded + end), octets)
        self.assertEqual(encoded, base64.encodebytes(octets).strip().replace(b"\n", b"\r\n"))

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(
            st.sampled_from([b"x", b"=", b" ", b"\t", b".", b"\xc3\xa9", b"\r\n"]), max_size=300
        ),
        st.sampled_from([b"", b"x" * 70, b"x" * 4090, b"\xff" * 4100]),
        st.integers(1, 5000),
    )
    def test_quoted_printable_decodes_to_the_octets(
        self, words: list[bytes], start: bytes, size: int
    ) -> None:
        octets = start + b"".join(words)
        encoded, end = encode(QuotedPrintable, octets, size)
        self.assertEqual(quopri.decodestring(encoded + end), octets)
        lines = (encoded + end).split(b"\r\n")
        self.assertLessEqual(max(map(len, lines)), 76)
        self.assertEqual([line for line in lines if line != line.rstrip(b" \t\r\n")], [])

    def test_a_soft_line_break_fits_into_76_characters(self) -> None:
        for length in (*range(60, 90), *range(4097, 4180)):
            for octets in (
                b"x" * length,
                b"x" * (length - 3) + b"\xff" + b"x" * 2,
                b"\xff" * length,
            ):
                encoded, end = encode(QuotedPrintable, octets, 5000)
                self.assertLessEqual(max(map(len, (encoded + end).split(b"\r\n"))), 76)
                self.assertEqual(quopri.decodestring(encoded + end), octets)
