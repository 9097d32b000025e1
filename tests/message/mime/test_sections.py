"""Cutting a content into its MIME sections while it streams by."""

from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tidy import TidyTestCase
from twisted_mta.message.mime.entity import Entity, read_entity
from twisted_mta.message.mime.sections import (
    Delimiter,
    Header,
    Piece,
    Section,
    TooManyParts,
    sections,
)

NESTED = (
    b"Subject: two levels\r\n"
    b'Content-Type: multipart/mixed; boundary="out er"\r\n'
    b"\r\n"
    b"preamble\r\n"
    b"--out er  \r\n"
    b"Content-Type: Multipart/Alternative;\r\n\tboundary=out\r\n"
    b"\r\n"
    b"--out\r\n"
    b"\r\n"
    b"one\r\n--not one\r\n--out-\r\n"
    b"--out\r\n"
    b"Content-Type: text/html\r\n"
    b"\r\n"
    b"two\r\n"
    b"--out--\r\n"
    b"inner epilogue\r\n"
    b"--out er\r\n"
    b"Content-Type: message/rfc822\r\n"
    b"\r\n"
    b"Subject: inside\r\n"
    b"\r\n"
    b"three\r\n"
    b"--out er--\r\n"
    b"epilogue\r\n"
)


def shown(content: bytes | Iterable[bytes]) -> list[str]:
    """Return a line for each section, the pieces of a body joined."""
    lines: list[str] = []
    last: Section | None = None
    for section in sections([content] if isinstance(content, bytes) else content):
        if isinstance(section, Header):
            lines.append(f"{section.number} {section.entity.kind} {section.entity.type}")
        elif isinstance(section, Delimiter):
            lines.append(section.octets.strip().decode("latin-1"))
        else:
            if isinstance(last, Piece):
                lines[-1] += section.octets.decode("latin-1")
            else:
                kind = "ignored" if section.ignored else "body"
                lines.append(f"{section.number} {kind}: {section.octets.decode('latin-1')}")
        last = section
    return lines


def joined(chunks: Iterable[bytes]) -> bytes:
    return b"".join(section.octets for section in sections(chunks))


class Structure(TidyTestCase):
    def test_nested_multiparts_are_cut_into_numbered_sections(self) -> None:
        self.assertEqual(
            shown(NESTED),
            [
                "0 multipart multipart/mixed",
                "1 ignored: preamble",
                "--out er",
                "3 multipart multipart/alternative",
                "--out",
                "6 leaf text/plain",
                "6 body: one\r\n--not one\r\n--out-",
                "--out",
                "8 leaf text/html",
                "8 body: two",
                "--out--",
                "10 ignored: inner epilogue",
                "--out er",
                "12 message message/rfc822",
                "13 leaf text/plain",
                "13 body: three",
                "--out er--",
                "15 ignored: epilogue\r\n",
            ],
        )

    def test_the_sections_are_the_same_for_every_cut_of_the_content(self) -> None:
        whole = shown(NESTED)
        for at in range(len(NESTED) + 1):
            self.assertEqual(shown([NESTED[:at], NESTED[at:]]), whole, at)
        self.assertEqual(shown(bytes([octet]) for octet in NESTED), whole)

    def test_an_outer_delimiter_ends_an_inner_multipart(self) -> None:
        # RFC 2046 §5.1.2: the closing delimiter of the inner multipart is missing.
        content = NESTED.replace(b"\r\n--out--\r\ninner epilogue", b"")
        self.assertEqual(
            shown(content)[8:13],
            [
                "8 leaf text/html",
                "8 body: two",
                "--out er",
                "10 message message/rfc822",
                "11 leaf text/plain",
            ],
        )

    def test_the_boundary_of_an_ended_multipart_is_plain_text(self) -> None:
        part = b"--out er\r\n\r\nx\r\n--out\r\ny"
        for end in (b"\r\n--out--\r\ninner epilogue", b""):
            content = NESTED.replace(b"\r\n--out--\r\ninner epilogue", end)
            content = content[: content.index(b"--out er\r\nContent-Type: message")] + part
            self.assertEqual(shown(content)[-1].partition(": ")[2], "x\r\n--out\r\ny")

    def test_the_closing_delimiter_may_be_missing(self) -> None:
        content = NESTED[: NESTED.index(b"--out er--")]
        self.assertEqual(shown(content)[-1], "13 body: three\r\n")
        self.assertEqual(shown(content + b"--out er--")[-1], "--out er--")

    def test_parts_without_header_or_body_are_parts(self) -> None:
        start = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        self.assertEqual(
            shown(start + b"--b\r\n\r\n--b\r\n--b\r\nA: x\r\n--b--"),
            [
                "0 multipart multipart/mixed",
                "--b",
                "3 leaf text/plain",
                "--b",
                "5 leaf text/plain",
                "--b",
                "7 leaf text/plain",
                "--b--",
            ],
        )
        for content in (b"", b"\r\n", b"A: x", b"A: x\r\n", start, start[:-2]):
            self.assertEqual(joined([content]), content)

    def test_a_delimiter_needs_a_line_of_its_own(self) -> None:
        start = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
        for text in (
            b"x--b\r\n",
            b"--bb\r\n",
            b"\n--b\n",
            b"\r--b\r",
            b"--b" + b" " * 901 + b"\r\n",
        ):
            self.assertEqual(len(shown(start + text)), 4, text)

    def test_a_delimiter_names_its_multipart_and_whether_it_closes_it(self) -> None:
        delimiters = [each for each in sections([NESTED]) if isinstance(each, Delimiter)]
        self.assertEqual(
            [(each.multipart, each.closing) for each in delimiters],
            [(0, False), (3, False), (3, False), (3, True), (0, False), (0, True)],
        )

    def test_a_header_section_over_1_mib_is_not_parsed(self) -> None:
        # Its cut depends on the chunks, so nothing may depend on the cut.
        header = b"Content-Type: message/rfc822\r\n" + b"X: y\r\n" * 200_000
        for size in (6_000, 65_536, 1 << 21):
            chunks = [header[at : at + size] for at in range(0, len(header), size)]
            header_section, *_ = sections([*chunks, b"\r\nbody"])
            assert isinstance(header_section, Header)
            self.assertEqual(header_section.entity.kind, "opaque")
            self.assertEqual(joined([*chunks, b"\r\nbody"]), header + b"\r\nbody")

    def test_parts_of_a_digest_are_messages_by_default(self) -> None:
        # RFC 2046 §5.1.5
        content = (
            b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: x\r\n\r\ny"
        )
        self.assertEqual(
            shown(content)[2:], ["3 message message/rfc822", "4 leaf text/plain", "4 body: y"]
        )

    def test_the_number_and_the_depth_of_parts_are_limited(self) -> None:
        start = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        self.assertRaises(TooManyParts, shown, start + b"--b\r\n\r\n" * 5001)
        deep = b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (level, level)
            for level in range(200)
        )
        self.assertIn("opaque multipart/mixed", "".join(shown(deep)))
        self.assertEqual(joined([deep]), deep)

    def test_a_header_section_over_1_mib_is_opaque_and_kept(self) -> None:
        field = b"X: " + b"x" * 995 + b"\r\n"
        content = field * 1100 + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n"
        chunks = [content[at : at + 65536] for at in range(0, len(content), 65536)]
        header, *rest = sections(chunks)
        assert isinstance(header, Header)
        self.assertEqual(header.entity.kind, "opaque")
        self.assertIn("1048576 octets", header.entity.reason)
        self.assertTrue(header.octets.endswith(b"x\r\n"))
        self.assertEqual(header.octets + b"".join(each.octets for each in rest), content)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_the_joined_sections_are_the_content(self, data: st.DataObject) -> None:
        words = st.sampled_from(
            [
                *(b"--b", b"--c", b"--", b"-", b"\r\n", b"\r", b"\n", b" ", b"x", b"\xff", b"\0"),
                b"Content-Type: multipart/mixed; boundary=b\r\n",
                b"Content-Type: multipart/mixed; boundary=c\r\n\r\n",
                b"Content-Type: message/rfc822\r\n\r\n",
                b"\r\n--b\r\n",
                b"\r\n--c--\r\n",
                b"\r\n\r\n",
            ]
        )
        chunks = data.draw(st.lists(words, max_size=40))
        content = b"".join(chunks)
        self.assertEqual(joined(chunks), content)
        self.assertEqual(shown(chunks), shown(content))


class Entities(TidyTestCase):
    def entity(self, *lines: bytes) -> Entity:
        return read_entity(b"".join(line + b"\r\n" for line in (*lines, b"")))

    def of_type(self, value: bytes) -> Entity:
        return self.entity(b"Content-Type: " + value)

    def test_a_boundary_is_read_in_each_of_its_forms(self) -> None:
        for value, boundary in (
            (b"boundary=x", b"x"),
            (b'Boundary="a b"', b"a b"),
            (rb'boundary="a\"b\\"', rb'a"b' + b"\\"),
            (b'charset=x; boundary = x ;; name="; boundary=y"', b"x"),
            (b"(comment) boundary=x (another)", b"x"),
            (b"\r\n boundary=x\r\n\t;y=z", b"x"),
            (b'boundary="a\r\n b"', b"a b"),
            (b"boundary=" + b"x" * 70, b"x" * 70),
            (b'boundary="x  "', b"x"),
            (b'boundary="a\r\n b"', b"a b"),
            # RFC 2231: cut into sections, and percent-encoded.
            (b"boundary*0=a; boundary*1=b", b"ab"),
            (b'Boundary*1*=%20c; boundary*0="a b"', b"a b c"),
            (b"boundary*0*=us-ascii'en'a%27; boundary*1='b", b"a''b"),
            (b"boundary*=us-ascii''a%3Db", b"a=b"),
        ):
            entity = self.of_type(b"multipart/mixed; " + value)
            self.assertEqual((entity.kind, entity.boundary), ("multipart", boundary), value)

    def test_signed_encrypted_and_ambiguous_types_are_opaque(self) -> None:
        for value in (
            b"multipart/mixed",
            b'multipart/mixed; boundary=""',
            b"multipart/mixed; boundary=" + b"x" * 71,
            b"multipart/mixed; boundary=x; boundary=y",
            b"multipart/mixed; boundary=x; boundary*=us-ascii''y",
            b"multipart/mixed; boundary=x; boundary*0=y",
            b"multipart/mixed; boundary*=us-ascii''x; boundary*0=y",
            b"multipart/mixed; boundary*0=x; boundary*0=y",
            b"multipart/mixed; boundary*1=x",
            b"multipart/mixed; boundary*0=x; boundary*2=y",
            b"multipart/mixed; boundary*x=y",
            b"multipart/mixed; boundary*=us-ascii''%0D%0A",
            b"multipart/mixed; boundary*=us-ascii''%FF",
            b'multipart/mixed; boundary="\x01"',
            b"multipart/mixed;" + b"".join(b" boundary*%d=x;" % number for number in range(71)),
            b'multipart/mixed; boundary="x',
            b"multipart/signed; boundary=x",
            b"Multipart/Encrypted; boundary=x",
            b"message/partial",
            b"message/external-body",
            b"message/delivery-status",
            b"text",
            b"",
        ):
            entity = self.of_type(value)
            self.assertEqual(entity.kind, "opaque", value)
            self.assertTrue(entity.reason)

    def test_an_encoded_multipart_or_message_is_opaque(self) -> None:
        for type in (b"multipart/mixed; boundary=x", b"message/rfc822"):
            field = b"Content-Type: " + type
            for encoding, opaque in ((b"8BIT", False), (b"binary", False), (b"Base64", True)):
                entity = self.entity(field, b"content-transfer-encoding:" + encoding)
                self.assertEqual(entity.kind == "opaque", opaque)

    def test_a_body_behind_an_unreadable_header_is_opaque(self) -> None:
        for lines in (
            (b"From a@b Thu Jan  1 00:00:00 1970", b"Subject: x"),
            (b" folded: at once",),
            (b"A: b\rc",),
            (b"Content-Type: text/plain", b"Content-Type: text/html"),
            (b"Content-Transfer-Encoding: 8 bit",),
            (b"Content-Transfer-Encoding: 8bit" + 27 * (b"\r\n" + b" " * 900) + b" x",),
            (b"Content-Type: text/plain;" + 27 * (b"\r\n" + b" " * 900),),
        ):
            self.assertEqual(self.entity(*lines).kind, "opaque", lines)

    def test_message_global_is_a_leaf(self) -> None:
        # RFC 6532 §3.7: any encoding is allowed.
        self.assertEqual(self.of_type(b"message/global").kind, "leaf")
