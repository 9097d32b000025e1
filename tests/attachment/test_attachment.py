"""Attachments are found in messages, and saved to directories."""

from __future__ import annotations

import io
import os
import random  # noqa: TID251 - seeded
import sysconfig
import time
import tracemalloc
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.base64mime import body_encode
from email.message import EmailMessage, Message
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta import Attachment, attachments
from twisted_mta.message.mime.sections import TooManyParts

Found = tuple[str | None, str, bytes]


def found(content: bytes) -> list[Found]:
    """Return (name, type, content) of each attachment."""
    return [
        (each.filename, each.content_type, b"".join(each.chunks())) for each in attachments(content)
    ]


def leaves(message: Message) -> Iterator[Message]:
    payload = message.get_payload()
    if message.get_content_maintype() == "multipart" and isinstance(payload, list):
        for part in payload:
            yield from leaves(part)
    else:
        yield message


def in_python(content: bytes) -> list[Found]:
    """Return the same as Python's parser finds it, with a message within as empty content."""
    result: list[Found] = []
    for part in leaves(message_from_bytes(content)):
        name, type = part.get_filename(), part.get_content_type()
        named = name or part.get_content_disposition() == "attachment"
        if named or type not in ("text/plain", "text/html"):
            payload = b"" if part.is_multipart() else part.get_payload(decode=True)
            assert isinstance(payload, bytes)
            result.append((name, type, payload))
    return result


def generated(draw: random.Random, depth: int = 0) -> EmailMessage:
    """Return a message with texts and attachments of all kinds."""
    message = EmailMessage(policy=policy.SMTP)
    message["Subject"] = "Grüße"
    message.set_content("Hällo\n" * draw.randrange(4))
    if draw.random() < 0.3:
        message.add_alternative("<p>Hi", subtype="html")
    names = ("a.pdf", "Größe.txt", "請求書" * 20 + ".xlsx", "two words", 'qu"ote;.txt', None)
    for _ in range(draw.randrange(5)):
        name = draw.choice(names)
        octets = draw.randbytes(draw.choice((0, 1, 100, 5000)))
        match draw.randrange(4):
            case 0 if depth < 2:
                message.add_attachment(generated(draw, depth + 1))
            case 1:
                message.add_attachment("Text — 1\n.\n--a\n" * 5, filename=name)
            case 2:
                cte = draw.choice(("base64", "quoted-printable"))
                message.add_attachment(
                    octets, maintype="image", subtype="png", filename=name, cte=cte
                )
            case _:
                message.add_attachment(
                    octets,
                    maintype="application",
                    subtype="x-y",
                    filename=name,
                    disposition="inline",
                    cid="<1@x>",
                )
    return message


def multipart(*parts: bytes, subtype: bytes = b"mixed") -> bytes:
    lines = [b'Content-Type: multipart/%s; boundary="b"\r\n\r\npreamble' % subtype]
    lines += [b"--b\r\n" + part for part in parts]
    return b"\r\n".join([*lines, b"--b--\r\nepilogue\r\n"])


class Finding(SynchronousTestCase):
    def test_python_finds_the_same_in_generated_messages(self) -> None:
        draw = random.Random(7)
        seen = 0
        for _ in range(30):
            content = bytes(generated(draw))
            for each in (content, content.replace(b"\r\n", b"\n")):
                seen += self.compare(each)
        self.assertGreater(seen, 80)

    def compare(self, content: bytes) -> int:
        wanted = in_python(content)
        ours = [(n, t, b"" if t == "message/rfc822" else c) for n, t, c in found(content)]
        self.assertEqual(ours, wanted)
        ends = policy.compat32.clone(linesep="\r\n" if b"\r\n" in content else "\n")
        nested = [
            part.get_payload(0)
            for part in leaves(message_from_bytes(content))
            if part.get_content_type() == "message/rfc822"
        ]
        messages = [each for each in attachments(content) if each.is_message]
        for one, other in zip(messages, nested, strict=True):
            inner = b"".join(one.chunks())
            self.assertEqual(in_python(inner), in_python(other.as_bytes(policy=ends)))
            self.assertEqual(
                [each.filename for each in one.attachments()],
                [name for name, _, _ in in_python(inner)],
            )
        return len(wanted)

    def test_python_finds_the_same_in_its_test_mails(self) -> None:
        folder = Path(sysconfig.get_path("stdlib"), "test/test_email/data")
        # 15, 39: delimiters of an outer multipart inside an inner one with the same boundary.
        # 17, 31: Python shows a multipart without a part as an attachment.
        others = {"msg_15.txt", "msg_17.txt", "msg_31.txt", "msg_39.txt"}
        paths = [each for each in sorted(folder.glob("*.txt")) if each.name not in others]
        if not paths:
            self.skipTest("Debian's libpython3.11-testsuite is not installed")
        for path in paths:
            lf = path.read_bytes()
            for content in (lf, lf.replace(b"\n", b"\r\n")):
                ours = [
                    (n, t, b"" if t.startswith("message/") else c) for n, t, c in found(content)
                ]
                wanted = [
                    (n, t, b"" if t.startswith("message/") else c) for n, t, c in in_python(content)
                ]
                self.assertEqual(ours, wanted, path.name)

    def test_line_ends_may_be_mixed_and_the_octets_stay(self) -> None:
        binary = b"a\nb\r\nc\rd\r\n\n"
        part = b"Content-Type: x/y\nContent-Transfer-Encoding: binary\r\n\n"
        head = b"Received: x\nContent-Type: multipart/mixed; boundary=b\r\n\n"
        content = head + b"--b\n" + part + binary + b"\n--b\r\n" + part + binary + b"\r\n--b--\n"
        for size in (1, 2, 5, 1000):
            self.assertEqual(
                [b"".join(each.chunks()) for each in attachments(_Slow(content, size))],
                [binary, binary],
            )

    def test_a_message_that_is_one_attachment_has_one(self) -> None:
        content = b"Content-Type: application/pdf\r\n\r\n%PDF"
        self.assertEqual(found(content), [(None, "application/pdf", b"%PDF")])

    def test_texts_are_no_attachments_unless_they_are_named_or_declared(self) -> None:
        content = multipart(
            b"\r\nHello",
            b"Content-Type: text/html\r\n\r\n<p>",
            b"Content-Disposition: attachment\r\n\r\n1",
            b"Content-Type: text/plain; name=a.txt\r\n\r\n2",
            b"Content-Type: nonsense\r\n\r\n3",
        )
        self.assertEqual([content for _, _, content in found(content)], [b"1", b"2"])
        self.assertEqual(found(b"Subject: Hi\r\n\r\nHello\r\n"), [])
        self.assertEqual(found(b""), [])

    def test_signed_mail_has_its_attachments(self) -> None:
        signed = multipart(
            b"Content-Type: application/pdf\r\n\r\n%PDF",
            b"Content-Type: application/pgp-signature\r\n\r\nx",
            subtype=b"signed",
        )
        self.assertEqual(
            [each.safe_name for each in attachments(signed)],
            ["attachment-1.pdf", "attachment-2.asc"],
        )

    def test_a_header_section_with_faults_is_read_as_far_as_it_can_be(self) -> None:
        content = multipart(
            b"no field\r\nContent-Type: x/y\r\nContent-Type: text/plain\r\n"
            b"Content-Transfer-Encoding: BASE64 \r\n"
            b"Content-Disposition: attachment;\r\n filename=a.pdf\r\n\r\naGk="
        )
        self.assertEqual(found(b"nor this\r\n" + content), [("a.pdf", "x/y", b"hi")])

    def test_images_of_a_text_have_their_content_id(self) -> None:
        (part,) = attachments(
            multipart(
                b"Content-Type: image/png\r\nContent-ID: <logo@x>\r\n"
                b"Content-Disposition: inline\r\n\r\nx"
            )
        )
        self.assertEqual((part.disposition, part.content_id), ("inline", "logo@x"))

    def test_a_message_within_is_one_attachment_and_has_its_own(self) -> None:
        inner = multipart(b"Content-Type: x/y; name=in.bin\r\n\r\n1").replace(b'"b"', b'"c"')
        inner = inner.replace(b"--b", b"--c")
        for encode in (False, True):
            octets = inner
            fields = b"Content-Type: message/rfc822\r\n"
            if encode:
                octets = bytes(_base64(inner))
                fields += b"Content-Transfer-Encoding: base64\r\n"
            content = multipart(fields + b"\r\n" + octets, b"Content-Type: x/z\r\n\r\n2")
            message, other = attachments(content)
            self.assertEqual(message.safe_name, "attachment-1.eml")
            self.assertEqual(b"".join(other.chunks()), b"2")
            (nested,) = message.attachments()
            self.assertEqual((nested.filename, b"".join(nested.chunks())), ("in.bin", b"1"))
            self.assertEqual(nested.attachments(), ())

    def test_a_path_is_refused(self) -> None:
        error = self.assertRaises(TypeError, attachments, "message.eml")
        self.assertIn("found str, expected octets or a file", str(error))

    def test_octets_of_any_type_are_read(self) -> None:
        content = b"Content-Type: x/y\r\n\r\n1"
        for octets in (content, bytearray(content), memoryview(content)):
            (part,) = attachments(octets)
            self.assertEqual(b"".join(part.chunks()), b"1")

    def test_a_file_of_text_is_refused(self) -> None:
        self.assertRaises(TypeError, attachments, io.StringIO("Subject: Hi\n\nHello\n"))

    def test_a_winmail_dat_is_left_as_it_is(self) -> None:
        tnef = b"Content-Type: application/ms-tnef; name=winmail.dat\r\n\r\n\x78\x9f\x3e\x22"
        self.assertEqual(
            found(multipart(tnef)), [("winmail.dat", "application/ms-tnef", b"\x78\x9f\x3e\x22")]
        )


class Hostile(SynchronousTestCase):
    def timed(self, content: bytes) -> None:
        start = time.process_time()  # a generous bound, to tell linear from quadratic
        try:
            for each in attachments(content):
                for _ in each.chunks():
                    pass
        except TooManyParts:
            pass
        self.assertLess(time.process_time() - start, 2)

    def test_reading_takes_linear_time(self) -> None:
        nested = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(4000)
        )
        message = b"Content-Type: message/rfc822\r\n\r\n"
        name = b"Content-Disposition: attachment; filename"
        for content in (
            nested,
            message * 10_000,
            multipart(*[b"Content-Type: x/y\r\n\r\n"] * 2_000),
            multipart(*[b"Content-Type: x/y\r\n\r\n"] * 2_000).replace(b"\r\n", b"\n", 1),
            multipart(b"--b" * 300_000),
            multipart(b"\r\n--" * 200_000),
            multipart(b"\n--b\r" * 200_000),
            multipart(b'%s="%s\r\n\r\n' % (name, b"\\" * 900_000)),
            multipart(b"%s=%s\r\n\r\n" % (name, b"=?utf-8?q?" * 90_000)),
            multipart(*[b"%s=%s\r\n\r\n" % (name, b"=?a?q?=?" * 2_000)] * 50),
            multipart(*[b"%s*0*=%s\r\n\r\n" % (name, b"%4" * 8_000)] * 50),
            multipart(b"Content-Type: x/y" + b";a=b" * 200_000 + b"\r\n\r\n"),
            multipart(b"Content-Type: x/y\r\n" * 40_000 + b"\r\n"),
            b"\n" * 1_000_000,
            b"a: b\n \r" * 150_000,
        ):
            self.timed(content)

    def test_too_many_parts_are_refused_before_any_is_returned(self) -> None:
        content = multipart(*[b"Content-Type: x/y\r\n\r\n1"] * 20)
        self.assertEqual(len(attachments(content, most=21)), 20)
        self.assertRaises(TooManyParts, attachments, content, most=20)

    def test_multiparts_nested_too_deeply_are_one_attachment(self) -> None:
        content = b"".join(
            b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n)
            for n in range(100)
        )
        (part,) = attachments(content)
        self.assertEqual(part.content_type, "multipart/mixed")

    def test_a_large_attachment_is_never_whole_in_memory(self) -> None:
        path = self.mktemp()
        line = b"QUJD" * 19 + b"\r\n"
        with open(path, "wb") as file:
            file.write(b"Content-Type: x/y; name=a\r\nContent-Transfer-Encoding: base64\r\n\r\n")
            for _ in range(60):
                file.write(line * 2000)
        directory = self.mktemp()
        os.mkdir(directory)
        with open(path, "rb") as file:
            tracemalloc.start()
            try:
                (part,) = attachments(file)
                saved = part.save(directory, sync=False)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        self.assertEqual(saved.stat().st_size, 57 * 2000 * 60)
        self.assertLess(peak, 1_000_000)


class Saving(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.mkdir(self.directory)

    def attachment(self, name: str, content: bytes = b"new") -> Attachment:
        message = EmailMessage(policy=policy.SMTP)
        message.add_attachment(content, maintype="a", subtype="b", filename=name)
        (part,) = attachments(bytes(message))
        return part

    def test_the_content_is_in_a_file_of_its_own_that_others_cannot_read(self) -> None:
        path = self.attachment("a.pdf", b"\0\n\r\xff").save(self.directory)
        self.assertEqual(path, Path(self.directory, "a.pdf"))
        self.assertEqual(path.read_bytes(), b"\0\n\r\xff")
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)

    def test_no_file_is_overwritten(self) -> None:
        part = self.attachment("a.pdf")
        paths = [part.save(Path(self.directory), sync=False).name for _ in range(20)]
        self.assertEqual(paths, ["a.pdf", *(f"a-{number}.pdf" for number in range(2, 21))])

    def test_many_files_of_one_name_take_few_looks(self) -> None:
        for number in range(2, 400):
            Path(self.directory, f"a-{number}").touch()
        Path(self.directory, "a").touch()
        looks = []
        real = os.lstat
        self.patch(os, "lstat", lambda *args, **kw: looks.append(args) or real(*args, **kw))
        self.assertEqual(self.attachment("a").save(self.directory).name, "a-400")
        self.assertLess(len(looks), 20)

    def test_the_directory_is_never_left(self) -> None:
        for name in ("../x", "/tmp/x", "..", "a/../../x", "..\\x", "\0", "x" * 5000):
            path = self.attachment("y").save(self.directory, sync=False)
            part = self.attachment(name.replace("\0", "%00"))
            path = part.save(self.directory, sync=False)
            self.assertEqual(path.parent, Path(self.directory))
        self.assertEqual(os.listdir(os.path.dirname(os.path.abspath(self.directory))).count("x"), 0)

    def test_a_symbolic_link_is_not_followed(self) -> None:
        target = Path(self.mktemp())
        os.symlink(target.absolute(), Path(self.directory, "a"))
        path = self.attachment("a").save(self.directory)
        self.assertEqual(path.name, "a-2")
        self.assertFalse(target.exists())

    def test_a_file_that_cannot_be_written_whole_is_removed(self) -> None:
        message = multipart(b"Content-Type: x/y; name=a\r\n\r\n" + b"1" * 50_000)
        file = io.BytesIO(message)
        (part,) = attachments(file)
        file.close()
        self.assertRaises(ValueError, part.save, self.directory)
        self.assertEqual(os.listdir(self.directory), [])

    def test_a_directory_that_is_missing_is_an_error(self) -> None:
        self.assertRaises(FileNotFoundError, self.attachment("a").save, self.mktemp())


class _Slow(io.BytesIO):
    """A file of which each reading returns few octets."""

    def __init__(self, content: bytes, size: int) -> None:
        super().__init__(content)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(self._size, 1 << 30 if size is None or size < 0 else size))


def _base64(octets: bytes) -> bytes:
    return body_encode(octets).replace("\n", "\r\n").encode("ascii")
