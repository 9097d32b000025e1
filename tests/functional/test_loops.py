"""Mail loops between us and Debian's Postfix: each recognizes the other's marks."""

from __future__ import annotations

import re

from .machine import LOOPBACK, eventually, free_port, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .postfix import Postfix

TOML = """\
[mta]
local_domains = ["us.example"]
aliases = "{aliases}"
relay_from = ["127.0.0.0/8"]
[mta.routes]
"them.example" = "smtp://{host}:{port}"
"behind.example" = "smtp://{host}:{port}"
"""


class WithPostfix(ProgramTestCase):
    def begin(self, ours: str, theirs: str, **settings: str) -> None:
        """Start both; ``theirs`` are aliases of them.example, the local domain of Postfix."""
        need("postfix", "postalias")
        smtp = free_port()
        their_aliases = self.home / "their-aliases"
        their_aliases.write_text(theirs, encoding="utf-8")
        transport = self.home / "transport"
        transport.write_text(f"us.example smtp:[{LOOPBACK}]:{smtp}\n", encoding="utf-8")
        self.postfix = Postfix(
            self.home,
            {
                "mydestination": "them.example",
                "alias_maps": f"texthash:{their_aliases}",
                "transport_maps": f"texthash:{transport}",
                "mail_spool_directory": f"{self.home}/boxes/",
                "default_transport": "error",
                **settings,
            },
        )
        boxes = self.home / "boxes"
        boxes.mkdir()
        boxes.chmod(0o777)
        aliases = self.home / "aliases"
        aliases.write_text(ours, encoding="utf-8")
        toml = TOML.format(aliases=aliases, host=LOOPBACK, port=self.postfix.port)
        self.mta = MTA(self.home, toml=toml)
        self.mta.smtp = smtp
        self.enterContext(self.postfix)
        self.enterContext(self.mta)

    def quiet(self) -> None:
        """Wait until no mail is in either queue."""

        def is_quiet() -> bool:
            return self.postfix.queued() == 0 and self.ended() == self.accepted()

        eventually(is_quiet, f"quiet: {self.accepted()} accepted, {self.ended()} ended")

    def accepted(self) -> int:
        return len(re.findall(r" accepted: from=", self.mta.output()))

    def ended(self) -> int:
        ids = re.findall(r"(\w{13}) accepted: from=", self.mta.output())
        return sum(
            bool(re.search(rf"{each} (?:delivered|failed)", self.mta.output())) for each in ids
        )

    def test_a_list_with_members_that_forward_back_ends(self) -> None:
        self.begin(
            "team: eve, one@them.example, two@them.example",
            "one team@us.example\ntwo team@us.example\n",
        )
        submit(self.mta.smtp, message(), "team@us.example", sender="ann@us.example")
        notices = self.mta.wait_for_mail("us.example", "ann")
        self.quiet()
        self.assertEqual(len(self.mta.mail("us.example", "eve")), 1)
        # One message, and the notices about mail that Postfix could not return to us.
        self.assertLessEqual(self.accepted(), 3)
        self.assertIn(b"5.4.6", notices[0])
        self.assertIn(b"Delivered-To: team@us.example", notices[0])

    def test_a_copy_for_the_mailbox_at_postfix_is_no_loop(self) -> None:
        """With "carol: carol, a copy" on a gateway; Delivered-To would be a loop for Postfix."""
        self.begin(
            "",
            "",
            mydestination="us.example",
            local_recipient_maps="",
            transport_maps="",
        )
        aliases = self.home / "aliases"
        aliases.write_text("nobody: nobody, copy@us.example\n", encoding="utf-8")
        self.assertEqual(self.mta.terminate(), 0)
        toml = (self.home / "mta.toml").read_text("utf-8")
        toml += f'"us.example" = "smtp://{LOOPBACK}:{self.postfix.port}"\n'
        (self.home / "mta.toml").write_text(toml, encoding="utf-8")
        self.mta.start()
        submit(self.mta.smtp, message(), "nobody@us.example", sender="ann@us.example")

        def status() -> list[str]:
            lines = self.postfix.output().splitlines()
            return [each for each in lines if "to=<nobody@us.example>" in each]

        self.assertIn("status=sent", eventually(status, "Postfix has tried")[0])
