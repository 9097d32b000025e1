"""Messages from test suites of other software, converted to 7 bits, read by other parsers."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.body import MemoryBody
from twisted_mta.message.mime.conversion import to_seven_bit
from twisted_mta.message.mime.conversion_plan import CannotConvert
from twisted_mta.message.mime.entity import IDENTITY
from twisted_mta.message.mime.sections import Header, Piece, sections

from .machine import need, path_of

FORMS = ("é".encode(), b"\xe9", b"\0", b"e")
"""Replacements of each e in a text: UTF-8, Latin-1, binary, or unchanged."""


def shipped() -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the messages of CPython's tests of its parser."""
    # Debian: libpython3.11-testsuite
    for path in sorted(Path(sysconfig.get_path("stdlib"), "test/test_email/data").glob("*.txt")):
        yield path.name, path.read_bytes()


def eight_bit(content: bytes, form: bytes) -> bytes:
    """Return a content with each e replaced in its texts and around its parts."""
    changed: list[bytes] = []
    plain = False
    for section in sections([content]):
        octets = section.octets
        if isinstance(section, Header):
            plain = section.entity.kind == "leaf" and section.entity.encoding in IDENTITY
        elif isinstance(section, Piece) and (plain or section.ignored):
            octets = octets.replace(b"e", form)
        changed.append(octets)
    return b"".join(changed)


def in_python(content: bytes) -> list[tuple[str, bytes]]:
    """Return (type, octets) of each leaf part, as Python's parser decodes it."""
    parts: list[tuple[str, bytes]] = []
    for part in message_from_bytes(content).walk():
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            parts.append((part.get_content_type(), payload.rstrip(b"\r\n")))
    return parts


def in_reformime(content: bytes) -> list[tuple[str, bytes]]:
    """Return the same by Courier's parser."""

    def ask(*arguments: str) -> bytes:
        command = [path_of("reformime"), *arguments]
        return subprocess.run(command, input=content, capture_output=True, check=False).stdout

    parts: list[tuple[str, bytes]] = []
    for about in ask("-i").decode("latin-1").split("\n\n"):
        fields = dict(re.findall(r"^(section|content-type): (\S+)", about, re.MULTILINE))
        if fields and not fields["content-type"].startswith(("multipart/", "message/")):
            octets = ask("-e", "-s", fields["section"])
            parts.append((fields["content-type"], octets.replace(b"\r\n", b"\n").rstrip(b"\n")))
    return parts


class ShippedMails(SynchronousTestCase):
    def setUp(self) -> None:
        need("reformime")
        self.mails = [
            # Without this field, some parsers see no parts.
            (name, b"MIME-Version: 1.0\r\n" + re.sub(rb"\r?\n|\r", b"\r\n", content))
            for name, content in shipped()
        ]
        if not self.mails:
            if os.environ.get("CI"):
                self.fail("CPython's own tests are not installed")
            raise SkipTest("CPython's own tests are not installed")

    def test_converted_parts_decode_to_the_original_octets(self) -> None:
        converted = 0
        for name, mail in self.mails:
            for form in FORMS:
                content = eight_bit(mail, form)
                try:
                    result = b"".join(to_seven_bit(MemoryBody(content)).chunks())
                except CannotConvert:
                    continue
                self.assertTrue(result.isascii(), name)
                if result == content:
                    continue
                converted += 1
                about = (name, form)
                if b"\nX-Original-Content-Type: " not in result:
                    self.assertEqual(in_python(result), in_python(content), about)
                    self.assertEqual(in_reformime(result), in_reformime(content), about)
                    continue
                # A multipart without a part is a text now, which Courier has not seen before.
                texts = [octets for _, octets in in_python(content)]
                self.assertEqual([octets for _, octets in in_python(result)], texts, about)
                lines = [octets.replace(b"\r\n", b"\n") for octets in texts]
                self.assertEqual([octets for _, octets in in_reformime(result)], lines, about)
        self.assertGreater(converted, 50)
