"""From the final dot to the next hop: the DNS, lists of hosts, aliases, conversion."""

from __future__ import annotations

import email
import re

from .hop import Hop
from .machine import LOOPBACK, eventually, free_port, need
from .mail import ProgramTestCase, message, submit
from .mta import MTA
from .nsd import NSD
from .test_next_hops import status

ALIASES = """\
team: carol, dave
boss@virtual.example: team
"""


class WayOut(ProgramTestCase):
    def line(self, mta: MTA, recipient: str) -> str:
        """Return the first line of the log about a recipient."""
        line = rf"(?:delivered|deferred|failed): from=.* to=<{re.escape(recipient)}>.*"
        return eventually(
            lambda: next(iter(re.findall(line, mta.output())), ""), f"an outcome for {recipient}"
        )


class Names(WayOut):
    """Delivery by a real name server; all exchangers listen on one port of loopback."""

    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf")
        hop = self.hop = self.enterContext(Hop())
        zone = """\
best     MX 10 here
best     MX 20 away
second   MX 10 gone
second   MX 20 here
null     MX 0 .
implicit A 127.0.0.1
none     TXT "nothing"
loop     MX 10 mta
loop     MX 20 here
after    MX 10 here
after    MX 20 mta
alias    CNAME best
here     A 127.0.0.1
gone     A 127.0.0.9
away     A 127.0.0.8
mta      A 127.0.0.1
"""
        zones = {"z.example": zone, "broken.example": None}
        server = self.enterContext(NSD(self.home, zones))
        toml = (
            f'[mta]\nhostname = "mta.z.example"\n[delivery]\nport = {hop.port}\n'
            f'[dns]\nnameservers = ["{LOOPBACK}:{server.port}"]\ntimeout = "3 s"\n'
        )
        self.mta = self.enterContext(MTA(self.home, "--hostname", "mta.z.example", toml=toml))

    def test_outcomes_of_mail_by_the_records_of_its_domain(self) -> None:
        expected = {
            "best.z": r"delivered: .* relay=here\.z\.example\[127\.0\.0\.1\]",
            "second.z": r"delivered: .* relay=here\.z\.example\[127\.0\.0\.1\]",
            "alias.z": r"delivered: .* relay=here\.z\.example",
            "implicit.z": r"delivered: .* relay=implicit\.z\.example",
            "null.z": r'failed: .* reply="556 5\.1\.10 ',
            "none.z": r'failed: .* reply="550 5\.4\.4 ',
            "gone-for-good.z": r'failed: .* reply="550 5\.1\.2 ',
            "loop.z": r'failed: .* reply="554 5\.4\.6 ',
            "after.z": r"delivered: .* relay=here\.z\.example",
            "broken": r'deferred: .* reply="451 4\.4\.3 .*SERVFAIL',
            "elsewhere": r'deferred: .* reply="451 4\.4\.3 .*REFUSED',
        }
        for name in expected:
            submit(
                self.mta.smtp,
                message(),
                f"bob@{name}.example",
                starttls=False,
            )
        for name, pattern in expected.items():
            self.assertRegex(self.line(self.mta, f"bob@{name}.example"), pattern)
        delivered = [f"bob@{n}.example" for n, line in expected.items() if line[:9] == "delivered"]
        self.assertEqual(self.hop.recipients(), sorted(delivered))


class Lists(WayOut):
    def test_the_next_host_of_a_list_takes_over(self) -> None:
        second = self.enterContext(Hop())
        for broken in ("", "421 4.3.2 not today", "454 4.3.0 no", "554 5.3.2 never"):
            first = Hop()
            first.greeting = broken
            with first:
                route = f"next.example=smtp://{LOOPBACK}:{first.port},{LOOPBACK}:{second.port}"
                with MTA(self.home, "--route", route) as mta:
                    submit(mta.smtp, message(), "bob@next.example", starttls=False)
                    self.assertRegex(self.line(mta, "bob@next.example"), rf"del.*:{second.port} ")
                    # If it were killed now, the next one might deliver a duplicate.
                    self.assertEqual(mta.terminate(), 0, mta.output())
                    self.assertEqual(first.connections, 1)
        down = free_port()
        route = f"next.example=smtp://{LOOPBACK}:{down},{LOOPBACK}:{second.port}"
        with MTA(self.home, "--route", route) as mta:
            submit(mta.smtp, message(), "bob@next.example", starttls=False)
            self.assertRegex(self.line(mta, "bob@next.example"), rf"delivered.*:{second.port} ")

    def test_a_reply_about_the_message_does_not_lead_to_the_next_host(self) -> None:
        first, second = self.enterContext(Hop()), self.enterContext(Hop())
        first.replies["RCPT"] = "550 5.1.1 nobody"
        route = f"next.example=smtp://{LOOPBACK}:{first.port},{LOOPBACK}:{second.port}"
        with MTA(self.home, "--route", route) as mta:
            submit(mta.smtp, message(), "bob@next.example", starttls=False)
            self.assertRegex(self.line(mta, "bob@next.example"), r"failed.*550 5\.1\.1 ")
        self.assertEqual(second.connections, 0)

    def test_settings_of_one_domain_do_not_delay_mail_for_others(self) -> None:
        """At a host without TLS, mail that requires TLS waits, and other mail is delivered."""
        hop = self.enterContext(Hop())
        toml = (
            f'[mta]\nroutes = {{"*" = "smtp://{LOOPBACK}:{hop.port}"}}\n'
            '[[destination]]\ndomain = "strict.example"\ntls = "encrypt"\n'
        )
        with MTA(self.home, toml=toml) as mta:
            submit(mta.smtp, message(), "bob@strict.example", starttls=False)
            self.assertRegex(self.line(mta, "bob@strict.example"), r"deferred.* 4\.7\.4 ")
            for number in range(3):
                submit(mta.smtp, message(), f"bob@other{number}.example", starttls=False)
            hop.wait_for(3, patience=10)
            (alone,) = status(mta)["suspended"]
            self.assertEqual(
                alone["next_hop"], f"smtp:{LOOPBACK}:{hop.port} (mail for strict.example)"
            )


class Ours(WayOut):
    def start(self, hop: Hop) -> MTA:
        aliases = self.home / "aliases"
        aliases.write_text(ALIASES, encoding="utf-8")
        toml = (
            f'[mta]\nlocal_domains = ["us.example"]\nvirtual_domains = ["virtual.example"]\n'
            f'aliases = "{aliases}"\nroutes = {{"*" = "smtp://{LOOPBACK}:{hop.port}"}}\n'
        )
        return self.enterContext(MTA(self.home, toml=toml))

    def test_a_notice_to_an_alias_is_forwarded(self) -> None:
        hop = self.enterContext(Hop())
        hop.replies["RCPT"] = "550 5.1.1 nobody"
        mta = self.start(hop)
        for sender in ("team@us.example", "boss@virtual.example"):
            submit(mta.smtp, message(), "bob@next.example", sender=sender, starttls=False)
        for reader in ("carol", "dave"):
            for mail in mta.wait_for_mail("us.example", reader, 2):
                self.assertIn(b"multipart/report", mail)
        self.assertEqual(mta.mail("us.example", "team"), [])

    def test_mail_with_a_tag_is_delivered_into_the_mailbox(self) -> None:
        hop = self.enterContext(Hop())
        mta = self.start(hop)
        submit(mta.smtp, message(), "Carol+news@us.example", starttls=False)
        mta.wait_for_mail("us.example", "carol")


class Content(WayOut):
    EIGHT = (
        "From: Ann <ann@sender.example>\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
        "Grüße aus Łódź\r\n"
    ).encode()

    def start(self, hop: Hop) -> MTA:
        return self.enterContext(
            MTA(self.home, "--route", f"next.example=smtp://{LOOPBACK}:{hop.port}")
        )

    def test_8_bit_content_is_converted_only_for_hosts_without_8bitmime(self) -> None:
        hop = self.enterContext(Hop())
        mta = self.start(hop)
        submit(mta.smtp, self.EIGHT, "bob@next.example", starttls=False)
        (kept,) = hop.wait_for(1)
        self.assertTrue(kept.content.endswith(self.EIGHT))
        self.assertIn("BODY=8BITMIME", kept.mail)
        mta.terminate()
        hop.extensions.remove("8BITMIME")
        mta.start()
        submit(mta.smtp, self.EIGHT, "bob@next.example", starttls=False)
        converted = hop.wait_for(2)[1]
        self.assertTrue(converted.content.isascii(), converted.content)
        self.assertNotIn("BODY", converted.mail)
        text = email.message_from_bytes(converted.content).get_payload(decode=True)
        self.assertEqual(text, "Grüße aus Łódź\r\n".encode())

    def test_a_message_above_the_next_hops_size_is_not_sent(self) -> None:
        hop = self.enterContext(Hop())
        hop.extensions = ["SIZE 1000"]
        mta = self.start(hop)
        large = message(text="x" * 70 + "\r\n") + b"y\r\n" * 2000
        submit(mta.smtp, large, "bob@next.example", sender="ann@localhost", starttls=False)
        self.assertRegex(self.line(mta, "bob@next.example"), r"failed.* 5\.3\.4 ")
        self.assertFalse(any(command[:4] == b"MAIL" for command in hop.commands))
        (notice,) = mta.wait_for_mail("localhost", "ann")
        self.assertIn(b"Status: 5.3.4", notice)
