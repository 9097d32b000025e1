"""Conversion to 7 bits: what is changed, what is not, and what cannot be converted."""

import base64
import email
import email.policy
import quopri
import re
from collections.abc import Iterator
from email.message import EmailMessage
from unittest.mock import patch

from attrs import define, evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.mail.body import Body, MemoryBody
from twisted_mta.mail.envelope import Envelope
from twisted_mta.mail.message import Message
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.message.mime.conversion import converted, needs_conversion, to_seven_bit
from twisted_mta.message.mime.conversion_plan import CannotConvert
from twisted_mta.message.mime.encoding import Base64, QuotedPrintable

MIME = b"Subject: x\r\nMIME-Version: 1.0\r\n"
TEXT = "Grüße aus Köln, und sonst ist alles ganz gewöhnlicher Text wie dieser hier.\r\n".encode()


@define
class Chunks:
    """A body in given chunks."""

    parts: list[bytes]

    @property
    def size(self) -> int:
        return sum(map(len, self.parts))

    def chunks(self) -> Iterator[bytes]:
        yield from self.parts


def convert(content: bytes) -> bytes:
    body = to_seven_bit(MemoryBody(content))
    octets = b"".join(body.chunks())
    assert body.size == len(octets)
    return octets


def multipart(*parts: bytes, type: bytes = b"mixed", boundary: bytes = b"b") -> bytes:
    """Return header and body of a multipart; each part begins with its header section."""
    delimited = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    head = b"Content-Type: multipart/" + type + b'; boundary="' + boundary + b'"\r\n\r\n'
    return head + delimited + b"--" + boundary + b"--\r\n"


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    """Return type and octets of all leaves, as Python decodes them."""
    decoded: list[tuple[str, bytes]] = []
    message = email.message_from_bytes(content, policy=email.policy.default)
    for part in message.walk():
        if not part.is_multipart():
            payload = part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            decoded.append((part.get_content_type(), payload))
    return decoded


class Conversion(TidyTestCase):
    def assertRefused(self, content: bytes, reason: str) -> None:
        error = self.assertRaises(CannotConvert, to_seven_bit, MemoryBody(content))
        self.assertIn(reason, str(error))
        self.assertEqual((error.reply.code, error.reply.enhanced), (554, "5.6.3"))
        self.assertIn(reason, error.reply.lines[0])

    def test_a_content_of_7_bits_is_not_touched(self) -> None:
        for content in (
            b"",
            b"Subject: x\r\n\r\ny\r\n",
            MIME + b"Content-Transfer-Encoding: 8bit\r\n\r\nASCII all the same\r\n",
            MIME + multipart(b"\r\nx", type=b"signed"),
        ):
            body = MemoryBody(content)
            self.assertIs(to_seven_bit(body), body)

    def test_8_bit_text_becomes_quoted_printable(self) -> None:
        head = b"Content-Type: text/plain; charset=utf-8\r\n"
        content = MIME + head + b"Content-transfer-encoding: 8BIT\r\nX: y\r\n\r\n"
        self.assertEqual(
            convert(content + b"Caf\xc3\xa9 = ordinary text, and more of it \r\n.\r\n\r\nend\r\n"),
            MIME
            + head
            + b"Content-Transfer-Encoding: quoted-printable\r\nX: y\r\n\r\n"
            + b"Caf=C3=A9 =3D ordinary text, and more of it=20\r\n=2E\r\n\r\nend\r\n",
        )

    def test_other_8_bit_content_becomes_base64(self) -> None:
        png = b"Content-Type: image/png\r\n"
        head = MIME + png + b"Content-Transfer-Encoding: binary\r\n\r\n"
        octets = bytes(range(256)) * 2
        lines = convert(head + octets).split(b"\r\n")
        self.assertIn(b"Content-Transfer-Encoding: base64", lines)
        self.assertEqual(leaves(b"\r\n".join(lines)), [("image/png", octets)])
        self.assertEqual(lines[-1], b"")
        # So does text that is mostly beyond ASCII, or not in lines.
        for text in (("Здравствуй, мир! " * 9).encode(), b"a\nb\xe4c\n"):
            result = convert(MIME + b"Content-Type: text/plain\r\n\r\n" + text)
            self.assertIn(b"Content-Transfer-Encoding: base64\r\n", result)
            self.assertEqual(leaves(result), [("text/plain", text)])

    def test_parts_of_7_bits_are_not_encoded(self) -> None:
        ascii_part = b"Content-Type: text/plain\r\n\r\nASCII = ASCII \r\n"
        encoded = b"Content-Transfer-Encoding: base64\r\n\r\nAAECAwQ=\r\n"
        content = MIME + multipart(ascii_part, b"\r\n" + TEXT, encoded)
        result = convert(content)
        self.assertIn(b"\r\n--b\r\n" + ascii_part + b"\r\n--b\r\n", result)
        self.assertIn(b"\r\n--b\r\n" + encoded + b"\r\n--b--\r\n", result)
        self.assertIn(
            b"\r\n--b\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe", result
        )
        self.assertTrue(result.startswith(content[: content.index(b"--b")]))
        self.assertEqual(leaves(result), leaves(content))

    def test_a_multipart_or_message_of_converted_parts_is_declared_7bit(self) -> None:
        # RFC 2045 §6.4
        inner = multipart(b"\r\n" + TEXT, boundary=b"c")
        content = (
            MIME
            + b"Content-Transfer-Encoding: 8bit\r\n"
            + multipart(
                b"Content-Transfer-Encoding: binary\r\n" + inner,
                b"Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                + MIME
                + b"\r\n"
                + TEXT,
            )
        )
        result = convert(content)
        self.assertEqual(result.count(b"Content-Transfer-Encoding: 7bit\r\n"), 3)
        self.assertNotIn(b"8bit", result)
        self.assertEqual(leaves(result), leaves(content))

    def test_text_without_mime_fields_gets_them(self) -> None:
        for text, charset in (
            (TEXT, b"utf-8"),
            (b"Caf\xe9, and ordinary text\r\n", b"unknown-8bit"),
        ):
            result = convert(b"Subject: x\r\n\r\n" + text)
            head = result.partition(b"\r\n\r\n")[0]
            self.assertEqual(
                head,
                b"Subject: x\r\nMIME-Version: 1.0\r\n"
                b"Content-Type: text/plain; charset=" + charset + b"\r\n"
                b"Content-Transfer-Encoding: quoted-printable",
            )
            self.assertEqual(leaves(result), [("text/plain", text)])
        # A message inside the message gets them too; parts need no MIME-Version.
        content = MIME + multipart(b"Content-Type: message/rfc822\r\n\r\nA: b\r\n\r\n" + TEXT)
        self.assertIn(b"\r\n\r\nA: b\r\nMIME-Version: 1.0\r\nContent-Type: text", convert(content))
        result = convert(b"Subject: x\r\n" + multipart(b"\r\n" + TEXT))
        self.assertEqual(result.count(b"MIME-Version: 1.0\r\n"), 1)
        self.assertEqual(result.count(b"charset"), 0)

    def test_preamble_and_epilogue_become_readable_quoted_printable(self) -> None:
        # No field can declare their encoding, and a person can read quoted-printable undecoded.
        text = "Dies ist eine mehrteilige Nachricht für MIME.".encode()
        before, part = MIME + multipart(b"\r\nx").split(b"--b")[0], b"--b\r\n\r\nx\r\n--b--\r\n"
        encoded = text.replace("ü".encode(), b"=C3=BC")
        self.assertEqual(
            convert(before + text + b"\r\n" + part + text),
            before + encoded + b"\r\n" + part + encoded + b"=\r\n",
        )
        kept = before + b"ASCII =\r\n" + part + b"ASCII"
        result = convert(kept.replace(b"\r\nx\r\n", b"\r\n\xc3\xa9\r\n"))
        self.assertEqual((result.count(b"ASCII =\r\n"), result[-5:]), (1, b"ASCII"))
        for odd, seen in ((b"a\nb\rc\0", b"a=0Ab=0Dc=00"), (b"x" * 999, b"x" * 75 + b"=\r\n")):
            self.assertIn(b"\r\n\r\n" + seen, convert(before + odd + b"\r\n" + part))

    def test_a_multipart_without_parts_becomes_plain_text(self) -> None:
        # RFC 2046 §5.1 demands a part, so it is no multipart.
        head = b'Content-Type: multipart/mixed; boundary="b"\r\n'
        declared = head + b"Content-Transfer-Encoding: 8bit\r\n\r\n"
        for text, charset in (
            (TEXT, b"utf-8"),
            (b"--c\r\n\r\n" + TEXT + b"\r\n--c--\r\n", b"utf-8"),  # of another boundary
            (b"--b \xe9\r\n\r\nCaf\xe9\r\n", b"unknown-8bit"),
            (TEXT + b"\r\n--b--\r\n" + TEXT, b"utf-8"),  # only a closing delimiter
            (b"--b--\r\n\xe9", b"unknown-8bit"),
            (b"a\n\0\n", b"utf-8"),
            (b"x" * 999 + b"\r\n", b"utf-8"),
        ):
            expected = (
                b"X-Original-" + head + b"Content-Type: text/plain; charset=" + charset + b"\r\n"
            )
            result = convert(MIME + declared + text)
            self.assertTrue(result.startswith(MIME + expected), result)
            self.assertEqual(leaves(result), [("text/plain", text)])
            self.assertNotIn(b"8bit\r\n", result.replace(b"unknown-8bit", b""))
            # The same for a part, and for a message in a part.
            for type in (b"", b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n"):
                part = type + declared.replace(b'"b"', b"inner") + text.replace(b"--b", b"--inner")
                result = convert(MIME + multipart(part, b"\r\nASCII"))
                first, second = leaves(result)
                self.assertEqual(first, ("text/plain", text.replace(b"--b", b"--inner")))
                self.assertEqual(second, ("text/plain", b"ASCII"))
        whole = MIME + declared + b"ASCII, so that nothing is changed\r\n"
        self.assertEqual(convert(whole), whole)

    def test_encoding_makes_no_new_delimiter(self) -> None:
        # The rest of a broken long line may look like one.
        for text in (
            "ü".encode() + b"x" * 69 + b"--b\r\nX: evil\r\n\r\nevil\r\n",
            "ü".encode() + b"x" * 4000 + b"--b--",
            *(b"x" * length + b"--b\r\n\xc3\xbc" for length in range(60, 90)),
            *(b"\xc3\xbc" + b"x" * length + b"--b" for length in range(60, 90)),
            *(b"--" + b"-" * length + b"b\r\n\xc3\xbc" for length in range(60, 90)),
        ):
            for part in (b"\r\n", b"Content-Type: text/html\r\n\r\n"):
                content = MIME + multipart(part + text, b"\r\nlast")
                result = convert(content)
                self.assertEqual(leaves(result), leaves(content))
                self.assertEqual(result.count(b"\r\n--"), 3)
                self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 76)

    def test_an_endless_header_section_is_not_taken_for_a_body(self) -> None:
        header = MIME + b"X-Field: y\r\n" * 100_000
        for size in (6_000, 1 << 21):
            content = header + b"\r\n" + TEXT
            body = Chunks([content[at : at + size] for at in range(0, len(content), size)])
            self.assertRaises(CannotConvert, to_seven_bit, body)

    def test_a_content_that_has_changed_since_the_plan_is_not_sent(self) -> None:
        content = MIME + b"\r\n" + TEXT * 10_000
        for other in (content[:-1], content + b"x", MIME + b"\r\n"):
            source = Chunks([content])
            body = to_seven_bit(source)
            source.parts = [other]
            error = self.assertRaises(OSError, getattr, body, "size")
            self.assertIn(f"it had {len(content)} octets, and has {len(other)}", str(error))
            self.assertRaises(OSError, list, body.chunks())

    def test_octets_lost_by_an_encoder_fail_the_conversion(self) -> None:
        # The fault is injected: the encoder returns no last line.
        for encoder, text in ((Base64, b"\xff" * 100), (QuotedPrintable, b"x" * 100 + b"\xff")):
            for end in (b"", b"\r\n--b--\r\n"):
                head = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
                body = to_seven_bit(MemoryBody(MIME + head + text + end))
                with patch.object(encoder, "end", lambda self: b""):
                    error = self.assertRaises(CannotConvert, getattr, body, "size")
                self.assertEqual((error.reply.code, error.reply.enhanced), (554, "5.6.3"))

    def test_a_multipart_without_closing_delimiter_is_converted(self) -> None:
        content = MIME + multipart(b"\r\n" + TEXT)
        for end in (b"--b--\r\n", b"\r\n--b--\r\n"):
            result = convert(content.removesuffix(end))
            self.assertTrue(result.endswith(b"\r\n"))
            self.assertEqual(leaves(result)[0][1].rstrip(), TEXT.rstrip())

    def test_binary_content_is_converted(self) -> None:
        # RFC 3030 §3: long lines, NUL, and line ends of other kinds.
        text, octets = b"x" * 5000, b"\0\r\n--b--\n--b\n\r\xff"
        content = MIME + multipart(
            b"Content-Transfer-Encoding: binary\r\n\r\n" + text,
            b"Content-Type: x/y\r\nContent-Transfer-Encoding: binary\r\n\r\n" + octets,
        )
        result = convert(content)
        self.assertLessEqual(max(map(len, result.split(b"\r\n"))), 76)
        self.assertEqual(leaves(result), [("text/plain", text), ("x/y", octets)])

    def test_a_content_that_cannot_be_converted_is_refused_with_the_reason(self) -> None:
        self.assertRefused("Subject: Grüße\r\n\r\nx\r\n".encode(), "octets over 127 (RFC 6532)")
        part = b"Content-Disposition: attachment; filename=\xe9\r\n\r\nx"
        self.assertRefused(MIME + multipart(part), "octets over 127 (RFC 6532)")
        self.assertRefused(b"Subject: a\rb\r\n\r\n" + TEXT, "CR or LF outside line ends")
        high = b"\r\n\xe9"
        for type in (b"signed", b"encrypted"):
            self.assertRefused(
                MIME + multipart(high, type=type), f"multipart/{type.decode()} must not be changed"
            )
        for header, reason in (
            (b"Content-Type: message/partial; id=x\r\n", "message/partial has 7 bits"),
            (b"Content-Type: multipart/mixed\r\n", "multipart without a usable boundary"),
            (b"Content-Type: ?\r\n", "a Content-Type that cannot be read"),
            (
                b"Content-Transfer-Encoding: base64\r\n",
                "as base64 has octets that are not",
            ),
            (b"Content-Transfer-Encoding: x-uu\x1b\r\n", "Content-Transfer-Encoding that cannot"),
            (b"no header\r\n", "a header that cannot be read"),
        ):
            self.assertRefused(MIME + multipart(header + high), reason)
        self.assertRefused(MIME + multipart(*[b"\r\n\xe9"] * 5001), "more than 5000 parts")

    def test_a_signed_part_of_7_bits_passes_beside_a_converted_part(self) -> None:
        signed = multipart(
            b"Content-Transfer-Encoding: 8bit\r\n\r\nASCII", type=b"signed", boundary=b"c"
        )
        result = convert(MIME + multipart(signed, b"\r\n" + TEXT))
        self.assertIn(signed, result)

    def test_a_converted_message_has_no_body_parameter(self) -> None:
        message = Message(
            id=QueueId(1),
            envelope=Envelope(None, (), {"BODY": "8BITMIME", "RET": "HDRS"}),
            trace=b"Received: from a\r\n",
            body=MemoryBody(MIME + b"\r\n" + TEXT),
            received_at=0.0,
            expires_at=1.0,
        )
        result = converted(message)
        self.assertEqual(result.envelope.parameters, {"RET": "HDRS"})
        self.assertTrue(b"".join(result.body.chunks()).isascii())
        self.assertEqual((result.id, result.trace), (message.id, message.trace))
        traced = evolve(message, trace=b"Received: from \xc3\xa9\r\n")
        self.assertIn("trace", str(self.assertRaises(CannotConvert, converted, traced)))


class Need(TidyTestCase):
    def test_a_line_over_998_octets_needs_conversion(self) -> None:
        short = b"x" * 998 + b"\r\n"
        for needs, content in (
            (False, short * 3 + b"x" * 998),
            (True, short + b"x" * 999),
            (True, short + b"x" + short * 2),
            (True, b"x" + short),
            (True, b"y\r\n" + b"x" * 999 + b"\r\nz\r\n" + short),
        ):
            for size in (1, 7, 999, 5000):
                chunks = [content[at : at + size] for at in range(0, len(content), size)]
                self.assertEqual(needs_conversion(Chunks(chunks)), needs, (content[:5], size))

    def test_nul_bare_cr_bare_lf_and_octets_over_127_need_conversion(self) -> None:
        for content in (b"\x80", b"\0", b"\r", b"\n", b"\n\r", b"\r\r\n", b"a\r\nb\r"):
            self.assertTrue(needs_conversion(Chunks([bytes([octet]) for octet in content])))
        self.assertFalse(needs_conversion(Chunks([b"a\r", b"\n\x7f\t\r\n"])))


class Streams(TidyTestCase):
    def test_the_conversion_is_the_same_for_every_cut_of_the_content(self) -> None:
        content = MIME + multipart(
            b"\r\n" + TEXT, b"Content-Type: x/y\r\n\r\n\xff\r\n--\r\n", b"\r\nASCII"
        )
        whole = convert(content)
        for at in range(len(content) + 1):
            body = to_seven_bit(Chunks([content[:at], content[at:]]))
            self.assertEqual(b"".join(body.chunks()), whole, at)
        body = to_seven_bit(Chunks([bytes([octet]) for octet in content]))
        self.assertEqual(b"".join(body.chunks()), whole)
        self.assertEqual(list(body.chunks()), list(body.chunks()))

    def test_a_large_message_is_never_whole_in_memory(self) -> None:
        class Large:
            size = 0
            read = 0

            def chunks(self) -> Iterator[bytes]:
                yield MIME + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n" + TEXT
                yield b"--b\r\nContent-Type: x/y\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                for _ in range(50):
                    self.read += 65536
                    yield b"QUJDREVG" * 8191 + b"ABCDEF\r\n"
                yield b"--b\r\nContent-Type: x/y\r\n\r\n"
                for _ in range(50):
                    self.read += 65536
                    yield bytes(range(256)) * 256

        source = Large()
        body: Body = to_seven_bit(source)
        source.read = written = 0
        for chunk in body.chunks():
            self.assertLess(len(chunk), 300_000)
            written += len(chunk)
            self.assertLess(source.read - written, 300_000)
        self.assertGreater(written, 7_000_000)
        self.assertEqual(body.size, written)


WORDS = [
    *(
        "text",
        "Ünïcödé",
        "日本語",
        "a b ",
        "\t",
        " ",
        "=",
        ".",
        "..",
        "\r\n",
        "\r\n\r\n",
        "--",
        "--b",
    ),
    *("From here", "x" * 80, "ä" * 30, "y" * 1200),
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(lambda words: "".join(words).encode())
OCTETS = st.binary(max_size=200).map(lambda octets: octets.replace(b"\r", b"").replace(b"\n", b""))
TYPES = st.sampled_from([b"", b"Content-Type: text/plain; charset=utf-8\r\n"])
OTHER_TYPES = st.sampled_from([b"Content-Type: image/gif\r\n", b"Content-Type: x/y; a=b\r\n"])
ENCODINGS = st.sampled_from([b"", b"Content-Transfer-Encoding: 8bit\r\n"])


def _leaf(type: bytes, encoding: bytes, body: bytes) -> bytes:
    return type + encoding + b"\r\n" + body


LEAVES = st.builds(_leaf, TYPES, ENCODINGS, TEXTS) | st.builds(
    _leaf, OTHER_TYPES, ENCODINGS, OCTETS
)


def _composite(children: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    boundaries = st.sampled_from([b"one", b"two two", b"three:3", b"one1", b"'+_,-./:=?"])
    multiparts = st.builds(
        lambda parts, boundary, encoding: encoding + multipart(*parts, boundary=boundary),
        st.lists(children, min_size=1, max_size=4),
        boundaries,
        ENCODINGS,
    )
    messages = st.builds(
        lambda child: b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\n" + child, children
    )
    return multiparts | messages


MESSAGES = st.recursive(LEAVES, _composite, max_leaves=6).map(lambda entity: MIME + entity)


class Generated(TidyTestCase):
    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(MESSAGES, st.integers(1, 40))
    def test_a_converted_message_keeps_its_meaning(self, content: bytes, piece: int) -> None:
        chunks = [content[at : at + piece] for at in range(0, len(content), piece)]
        body = to_seven_bit(Chunks(chunks))
        result = b"".join(body.chunks())
        self.assertEqual(body.size, len(result))
        self.assertTrue(result.isascii())
        self.assertEqual(result.count(b"\r"), result.count(b"\r\n"))
        self.assertEqual(result.count(b"\n"), result.count(b"\r\n"))
        self.assertFalse(needs_conversion(MemoryBody(result)))
        before, after = leaves(content), leaves(result)
        self.assertEqual(
            [(type, octets.removesuffix(b"\r\n")) for type, octets in after],
            [(type, octets.removesuffix(b"\r\n")) for type, octets in before],
        )
        parsed = email.message_from_bytes(result, policy=email.policy.default)
        for part in parsed.walk():
            assert isinstance(part, EmailMessage)
            if part["content-transfer-encoding"] in ("base64", "quoted-printable"):
                payload = part.get_payload()
                assert isinstance(payload, str)
                lines = payload.split("\r\n")
                self.assertLessEqual(max(map(len, lines)), 76)
                # RFC 2045 §6.7: a decoder drops white space at the end of a line.
                self.assertEqual([line for line in lines if line != line.rstrip(" \t")], [])


def _damaged(content: bytes, how: int, at: int) -> bytes:
    """Return a content in which delimiters are missing, or have an unknown boundary."""
    boundary = re.findall(b'boundary="([^"]*)"', content)
    if how == 0 or not boundary:
        return content[: at % (len(content) + 1)].removesuffix(b"\r")
    name = boundary[at % len(boundary)]
    line = b"--" + re.escape(name) + b"(?:--)?\r\n"
    match how:
        case 1:
            return re.sub(line, b"", content)
        case 2:
            return re.sub(line, b"--other\r\n", content)
        case 3:
            return content.replace(b'boundary="' + name, b'boundary="other')
        case 4:
            return content.replace(b"--" + name + b"--\r\n", b"")
    return content.replace(b"--" + name + b"\r\n", b"")


DAMAGED = st.builds(_damaged, MESSAGES, st.integers(0, 5), st.integers(0, 10_000))


class Damaged(TidyTestCase):
    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(DAMAGED, st.integers(1, 40))
    def test_a_damaged_message_keeps_its_meaning_or_is_refused(
        self, content: bytes, piece: int
    ) -> None:
        chunks = [content[at : at + piece] for at in range(0, len(content), piece)]
        try:
            result = b"".join(to_seven_bit(Chunks(chunks)).chunks())
        except CannotConvert as error:
            self.assertRegex(str(error), "header|Content-Type|octets over 127")
            return
        before, after = leaves(content), leaves(result)
        self.assertEqual(len(before), len(after))
        for (type, octets), (new_type, new_octets) in zip(before, after, strict=True):
            octets, new_octets = octets.rstrip(b"\r\n"), new_octets.rstrip(b"\r\n")
            if type.startswith("multipart/") and new_type == "text/plain":
                # A multipart without parts. Python drops the text behind its closing delimiter.
                self.assertTrue(new_octets.startswith(octets))
            else:
                self.assertEqual((new_type, new_octets), (type, octets))


MARK = "«{}»"
"""A numbered mark for every place where octets may be lost."""

LINES = [
    *("", "x", "ASCII", "{}", "ü {} = ü ", "a\nb{}", "a\r{}", "\0{}", "From {}", "    ", "."),
    *("--", "-", "{}--b", "{}" + "x" * 72 + "--b", "y" * 1200 + "{}", "{}" + "-" * 75, "ü" * 80),
]
DELIMITERS = [
    *("--b", "--b", "--c", "--b  ", "--b--", "--c--", "--bb", "--bb--", "--B", "--b {}", "--b-- {}")
]
FIELDS = [
    *("Subject: {}", "Subject: ASCII", "MIME-Version: 1.0", "no field {}", " folded"),
    *(f"Content-Transfer-Encoding: {each}" for each in ("8bit", "7bit", "binary", "base64", "x-u")),
    "Content-Transfer-Encoding: quoted-printable (comment)",
    *(
        f"Content-Type: {each}"
        for each in ("text/plain", "text/html; charset=utf-8", "x/y", "text")
    ),
    *(f"Content-Type: message/{each}" for each in ("rfc822", "global", "partial; id=a; number=1")),
    *(
        f"Content-Type: multipart/{each}"
        for each in ("mixed", "signed; boundary=b", "x; boundary=c")
    ),
    'Content-Type: multipart/mixed; boundary="b"; charset=utf-8',
    'Content-Type: multipart/mixed; boundary="b  "',
    "Content-Type: multipart/digest; (a comment) boundary=b",
    "Content-Type: multipart/mixed; boundary*0=b; boundary*1=b",
    "Content-Type: multipart/mixed; boundary*=us-ascii''b",
    "Content-Type: multipart/mixed; boundary=b; boundary=c",
    "Content-Type: multipart/mixed;\r\n boundary=bb",
]
HEADERS = st.tuples(
    st.lists(st.sampled_from(FIELDS), max_size=2), st.sampled_from([[""], [""], [""], []])
).map(lambda both: both[0] + both[1])
PARTS = st.tuples(
    st.lists(st.sampled_from(LINES), max_size=3),
    st.lists(st.sampled_from(DELIMITERS), max_size=1),
    HEADERS,
).map(lambda each: each[0] + each[1] + each[2])
DISORDERED = st.tuples(HEADERS, st.lists(PARTS, max_size=8)).map(
    lambda both: "\r\n".join(
        line.replace("{}", MARK.format(number)) for number, line in enumerate(sum(both[1], both[0]))
    ).encode()
)
BASE64 = re.compile(
    rb"(?:^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?(?:\r\n|\Z))+",
    re.MULTILINE,
)


def with_all_decoded(content: bytes) -> bytes:
    """Return a content with everything in it decoded, whatever its headers declare."""
    blocks = b"".join(map(base64.b64decode, BASE64.findall(content)))
    return content + quopri.decodestring(content) + blocks


class Disordered(TidyTestCase):
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(DISORDERED, st.integers(1, 100))
    def test_no_octet_of_a_disordered_message_is_lost(self, content: bytes, piece: int) -> None:
        chunks = [content[at : at + piece] for at in range(0, len(content), piece)]
        try:
            body = to_seven_bit(Chunks(chunks))
        except CannotConvert:
            return
        result = b"".join(body.chunks())
        self.assertTrue(result.isascii())
        self.assertEqual(result.count(b"\r"), result.count(b"\r\n"))
        self.assertEqual(result.count(b"\n"), result.count(b"\r\n"))
        everything = with_all_decoded(result)
        for mark in re.findall("«\\d+»".encode(), content):
            self.assertIn(mark, everything)
