"""Filters of Debian, asked by the MTA itself."""

from __future__ import annotations

from pathlib import Path

from tests.policy.dkim.key_files import write_key
from tests.policy.dkim.keys import key, record

from .machine import need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .opendkim import OpenDKIM

KEY = key("rsa", "sender.example", "r")


def table(filter: OpenDKIM) -> str:
    """Return the table of a filter."""
    return f'[[milter]]\nendpoint = "{filter.endpoint}"\n'


class WithOpenDKIM(ProgramTestCase):
    """OpenDKIM signs, and another verifies what the first has signed."""

    def setUp(self) -> None:
        super().setUp()
        need("opendkim")

    def folder(self, name: str) -> Path:
        made = self.home / name
        made.mkdir()
        return made

    def test_one_verifies_what_the_other_signs(self) -> None:
        file = Path(write_key(str(self.home / "key.pem"), "rsa-2048"))
        signer = self.enterContext(
            OpenDKIM(self.folder("signer"), signs=("sender.example", "r", file))
        )
        records = {KEY.record_name: record(KEY)}
        verifier = self.enterContext(OpenDKIM(self.folder("verifier"), records))
        mta = self.enterContext(MTA(self.home, toml=table(signer) + table(verifier)))
        for number in range(3):
            submit(mta.smtp, message(f"Number {number}"), "bob@localhost")
        for mail in mta.wait_for_mail("localhost", "bob", 3):
            header = b" ".join(mail.split(b"\n\n", 1)[0].split())
            self.assertIn(b"DKIM-Signature: v=1; a=rsa-sha256;", header)
            self.assertIn(b"Authentication-Results: opendkim.example; dkim=pass", header)
        self.assertIn("checked: client=127.0.0.1 milter=rewrite (tcp:127.0.0.1:", mta.output())

    def test_a_filter_that_is_restarted_is_asked_again(self) -> None:
        verifier = self.enterContext(OpenDKIM(self.folder("verifier")))
        mta = self.enterContext(MTA(self.home, toml=table(verifier)))
        submit(mta.smtp, message("One"), "bob@localhost")
        verifier.stop()
        with self.assertRaisesRegex(Exception, "451"):
            submit(mta.smtp, message("Two"), "bob@localhost")
        verifier.start()
        submit(mta.smtp, message("Three"), "bob@localhost")
        self.assertEqual(len(mta.wait_for_mail("localhost", "bob", 2)), 2)
