"""Transfer encodings are undone, wherever the octets are cut."""

from __future__ import annotations

from binascii import b2a_base64, b2a_qp, b2a_uu
from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.message.mime.decoding import decoded_chunks

OCTETS = bytes(range(256)) * 3


def cuts(octets: bytes) -> Iterator[list[bytes]]:
    """Yield the octets in pieces of several sizes."""
    for size in (1, 2, 3, 7, 64, len(octets) or 1):
        yield [octets[at : at + size] for at in range(0, len(octets), size)]


class Decoding(SynchronousTestCase):
    def expect(self, encoding: str, encoded: bytes, wanted: bytes) -> None:
        for pieces in cuts(encoded):
            self.assertEqual(b"".join(decoded_chunks(encoding, pieces)), wanted, encoded[:80])

    def test_base64(self) -> None:
        for length in (0, 1, 2, 3, 57, 58, 700):
            self.expect("base64", b2a_base64(OCTETS[:length]), OCTETS[:length])

    def test_wrong_base64_yields_what_is_there(self) -> None:
        for encoded, wanted in (
            (b"aGk\r\n", b"hi"),
            (b"a G\0k=!", b"hi"),
            (b"aGk=\r\naGk=", b"hi"),
            (b"=aGk", b"hi"),
            (b"a", b""),
            (b"", b""),
        ):
            self.expect("base64", encoded, wanted)

    def test_quoted_printable(self) -> None:
        text = "Grüße = ".encode() * 50 + b"\r\nend\r\n"
        self.expect("quoted-printable", b2a_qp(text).replace(b"=\n", b"=\r\n"), text)
        self.expect("quoted-printable", b"a=\nb=", b"ab")
        self.expect("quoted-printable", b"=zz=4", b"=zz=4")

    def test_a_line_without_end_is_decoded_in_pieces(self) -> None:
        pieces = list(decoded_chunks("quoted-printable", [b"=C3=A9ab" * 2000] * 20))
        self.assertEqual(b"".join(pieces), "éab".encode() * 40_000)
        self.assertLess(max(map(len, pieces)), 70_000)

    def test_uuencode(self) -> None:
        lines = b"".join(b2a_uu(OCTETS[at : at + 45]) for at in range(0, len(OCTETS), 45))
        encoded = b"text\r\nbegin 644 a.bin\n" + lines + b"`\nend\nmore\n"
        for name in ("x-uuencode", "uuencode", "x-uue", "uue"):
            self.expect(name, encoded, OCTETS)
            self.expect(name, encoded.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"), OCTETS)

    def test_uuencoded_lines_do_not_grow(self) -> None:
        encoded = b"begin 644 a\n" + b"_\n" * 1000 + b"end\n"
        self.assertLess(len(b"".join(decoded_chunks("x-uuencode", [encoded]))), len(encoded))

    def test_others_are_left_as_they_are(self) -> None:
        for encoding in ("7bit", "8bit", "binary", "x-gzip64"):
            self.expect(encoding, OCTETS, OCTETS)
