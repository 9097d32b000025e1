"""The example of a service that saves attachments as mail arrives."""

from __future__ import annotations

import os
from email import policy
from email.message import EmailMessage
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from twisted.mail.smtp import SMTPDeliveryError

from tests.applications.test_console import RunningTestCase
from twisted_mta import ESMTPFactory

EXAMPLE = Path(__file__).resolve().parent.parent.parent / "docs/examples/save_attachments.py"


def example() -> Any:
    spec = spec_from_file_location("save_attachments", EXAMPLE)
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def message(**files: bytes) -> bytes:
    mail = EmailMessage(policy=policy.SMTP)
    mail.set_content("See the files.\n.\n")
    for name, content in files.items():
        mail.add_attachment(content, maintype="a", subtype="b", filename=name)
    return bytes(mail).replace(b"\r\n", b"\n")


class SaveAttachments(RunningTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.directory = self.mktemp()
        os.mkdir(self.directory)
        delivery = example().SaveAttachments(Path(self.directory), "box.example")
        self.factory = ESMTPFactory(delivery)

    def files(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in Path(self.directory).iterdir()}

    async def test_attachments_of_mail_are_in_the_directory_when_it_is_accepted(self) -> None:
        content = message(one=b"1" * 100_000, two=b".\r\n", three=b"")
        result = await self.send(self.factory, "ann@x.example", ["any@BOX.example"], content)
        self.assertEqual(result[0], 1)
        self.assertEqual(self.files(), {"one": b"1" * 100_000, "two": b".\r\n", "three": b""})

    async def test_other_domains_are_refused(self) -> None:
        with self.assertRaises(SMTPDeliveryError) as caught:
            await self.send(self.factory, "ann@x.example", ["any@y.example"], message(one=b"1"))
        self.assertEqual(caught.exception.code, 550)
        self.assertEqual(self.files(), {})

    async def test_mail_that_cannot_be_saved_is_deferred(self) -> None:
        os.rmdir(self.directory)
        with self.assertRaises(SMTPDeliveryError) as caught:
            await self.send(self.factory, "a@x.example", ["b@box.example"], message(one=b"1"))
        self.assertEqual(caught.exception.code, 451)
        self.assertEqual(len(self.flushLoggedErrors(FileNotFoundError)), 1)
