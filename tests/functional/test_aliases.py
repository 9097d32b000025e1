"""Aliases, virtual domains and forwarding with SRS, with smtp-sink as the next hop."""

from __future__ import annotations

import re
import signal
import smtplib

from .machine import LOOPBACK, eventually, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .sinks import SMTPSink

TOML = """\
[mta]
local_domains = ["us.example"]
virtual_domains = ["virtual.example"]
aliases = "{aliases}"
recipients = "existing"
relay_from = []
routes = {{"*" = "smtp://{host}:{port}"}}
"""

ALIASES = """\
root: bob
bob: bob, carol@else.example     # a copy elsewhere
list@virtual.example: root, dave@else.example, erin@else.example
"""


class Aliasing(ProgramTestCase):
    def setUp(self) -> None:
        need("smtp-sink")
        super().setUp()
        dumps = self.home / "dumps"
        dumps.mkdir()
        dumps.chmod(0o777)  # smtp-sink drops root's privileges before it writes
        self.dumps = dumps
        self.sink = self.enterContext(SMTPSink(self.home, "-d", f"{dumps}/%M."))
        self.aliases = self.home / "aliases"
        self.aliases.write_text(ALIASES, encoding="utf-8")
        toml = TOML.format(aliases=self.aliases, host=LOOPBACK, port=self.sink.port)
        self.mta = MTA(self.home, toml=toml)
        self.addCleanup(self.mta.kill)
        for name in ("tmp", "new", "cur"):
            (self.mta.maildir("us.example", "bob") / name).mkdir(parents=True)
        self.mta.start()

    def sunk(self, count: int) -> list[tuple[str, list[str]]]:
        """Wait for ``count`` messages at the sink; return (reverse-path, recipients) of each."""

        def look() -> list[str]:
            texts = [path.read_text("ascii", "replace") for path in self.dumps.iterdir()]
            return (
                texts
                if len(texts) == count and all("Good morning" in each for each in texts)
                else []
            )

        found = []
        for text in eventually(look, f"{count} messages at the sink"):
            (reverse_path,) = re.findall(r"^X-Mail-Args: <(.*?)>", text, re.MULTILINE)
            found.append((reverse_path, re.findall(r"^X-Rcpt-Args: <(.*?)>", text, re.MULTILINE)))
        return sorted(found)

    def clear(self) -> None:
        for path in self.dumps.iterdir():
            path.unlink()

    def assertRefused(self, recipient: str, expected: str, sender: str = "") -> None:
        with self.assertRaises(smtplib.SMTPRecipientsRefused) as raised:
            submit(self.mta.smtp, message(), recipient, sender=sender)
        ((code, text),) = raised.exception.recipients.values()
        self.assertEqual(f"{code} {text.decode()}"[: len(expected)], expected)

    def test_mail_goes_to_all_members_of_an_alias(self) -> None:
        submit(self.mta.smtp, message(), "List@virtual.example", "root@us.example")
        (mail,) = self.mta.wait_for_mail("us.example", "bob")
        self.assertRegex(
            mail,
            rb"\AReturn-Path: <ann@sender.example>\nX-Original-To: List@virtual.example\n"
            rb"Delivered-To: bob@us.example\n"
            rb"Authentication-Results: [^\n]*(?:\n [^\n]*)*\nReceived: ",
        )
        ((reverse_path, recipients),) = self.sunk(1)
        self.assertEqual(
            sorted(recipients), ["carol@else.example", "dave@else.example", "erin@else.example"]
        )
        self.assertRegex(reverse_path, r"\ASRS0=\w{6}=\w\w=sender\.example=ann@us\.example\Z")

    def test_a_notice_for_forwarded_mail_comes_back_to_the_sender(self) -> None:
        submit(self.mta.smtp, message(), "root@us.example")
        ((reverse_path, _),) = self.sunk(1)
        self.clear()
        # It still does after a restart: the key is kept, and private.
        self.assertEqual(self.mta.terminate(), 0)
        (key,) = self.mta.state.glob("srs.key")
        self.assertEqual(key.stat().st_mode & 0o777, 0o600)
        self.mta.start()
        submit(self.mta.smtp, message(), reverse_path, sender="")
        self.assertEqual(self.sunk(1), [("", ["ann@sender.example"])])
        self.assertRefused(reverse_path, "550 5.7.1", sender="eve@other.example")
        self.assertRefused(reverse_path.replace("=ann@", "=victim@"), "550 5.1.1")

    def test_an_address_without_alias_and_mailbox_is_refused(self) -> None:
        self.assertRefused("bob@virtual.example", "550 5.1.1")
        self.assertRefused("carol@us.example", "550 5.1.1")
        self.assertRefused("carol@else.example", "550 5.7.1")
        submit(self.mta.smtp, message(), "postmaster@virtual.example")
        self.mta.wait_for_mail("us.example", "postmaster")

    def reload(self, said: str) -> None:
        assert self.mta.process is not None
        self.mta.process.send_signal(signal.SIGHUP)
        self.mta.wait_for(lambda: said in self.mta.output(), said)

    def test_a_reload_applies_new_aliases_or_keeps_the_old(self) -> None:
        self.aliases.write_text(ALIASES + "new: bob@else.example\nnew: bob\n", encoding="utf-8")
        self.reload(f'{self.aliases}:5: "new" stands in line 4 already')
        submit(self.mta.smtp, message(), "root@us.example")
        self.assertRefused("new@us.example", "550 5.1.1")
        self.aliases.write_text("new: bob@else.example\n", encoding="utf-8")
        assert self.mta.process is not None
        self.mta.process.send_signal(signal.SIGHUP)

        def taken() -> bool:
            try:
                submit(self.mta.smtp, message(), "new@us.example")
            except smtplib.SMTPRecipientsRefused:
                return False
            return True

        eventually(taken, "the new aliases")
        self.assertRefused("root@us.example", "550 5.1.1")

    def test_a_start_with_an_invalid_file_of_aliases_fails(self) -> None:
        self.assertEqual(self.mta.terminate(), 0)
        self.aliases.write_text("bob: |/bin/sh\n", encoding="utf-8")
        self.mta.spawn(self.mta.command())
        self.assertNotEqual(self.mta.wait(), 0)
        self.assertIn(f'{self.aliases}:1: "|/bin/sh": no program is run', self.mta.output())
