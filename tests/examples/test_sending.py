"""The example that sends a file straight to a server, run as a program."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from twisted.internet.utils import getProcessOutputAndValue

from twisted_mta import MailTransferAgent

from .running import EXAMPLES, MESSAGE, ExampleTestCase, maildir


class SendMail(ExampleTestCase):
    async def run_example(self, *words: str) -> tuple[str, str, int]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        out, err, status = await getProcessOutputAndValue(
            sys.executable, (str(EXAMPLES / "send_mail.py"), *words), environment
        )
        return out.decode(), err.decode(), status

    async def test_a_file_is_sent_and_each_recipient_has_its_reply(self) -> None:
        agent = MailTransferAgent(self.config(relay_from=[]), reactor=self.reactor)
        await self.start(agent)
        path = Path(self.mktemp())
        path.write_bytes(MESSAGE)
        words = (
            *("--port", str(agent.ports["smtp"]), "127.0.0.1", str(path), "ann@sender.example"),
            *("bob@box.example", "eve@elsewhere.example"),
        )
        out, err, status = await self.run_example(*words)
        lines = out.splitlines()
        self.assertTrue(lines[0].startswith("under TLSv1.3 "), (out, err))
        self.assertTrue(lines[1].startswith("bob@box.example: 250 2.0.0 "), out)
        self.assertTrue(lines[2].startswith("eve@elsewhere.example: 550 5.7.1 "), out)
        self.assertEqual((err, status), ("", 1))
        await self.steps("Delivered")
        (mail,) = maildir(str(agent.config.maildir), "box.example", "bob")
        self.assertTrue(mail.endswith(b"\n\nHello.\n"), mail)

    async def test_a_server_that_cannot_be_reached_is_named(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(MESSAGE)
        words = ("--port", "1", "127.0.0.1", str(path), "a@x.example", "b@x.example")
        out, err, status = await self.run_example(*words)
        self.assertIn("ConnectionFailed: 127.0.0.1[127.0.0.1]:1: ", err)
        self.assertEqual((out, status), ("", 1))

    async def test_a_file_that_is_not_there_is_named(self) -> None:
        out, err, status = await self.run_example("127.0.0.1", "gone", "a@x.example", "b@x.example")
        self.assertEqual(err, "FileNotFoundError: [Errno 2] No such file or directory: 'gone'\n")
        self.assertEqual((out, status), ("", 1))
