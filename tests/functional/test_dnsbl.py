"""A list in the DNS, served by NSD: clients behind a proxy are refused by it."""

from __future__ import annotations

import smtplib

from .machine import LOOPBACK, need
from .mail import ProgramTestCase, message
from .mta import MTA
from .nsd import NSD

LISTED, REFUSED, GOOD = "198.51.100.7", "198.51.100.8", "198.51.100.9"
ZONES = {
    "sesame.list.example": (
        '7.100.51.198 A 127.0.0.4\n7.100.51.198 TXT "see https://list.example/7"\n'
        "8.100.51.198 A 127.255.255.254\n"
        f"1.{'0.' * 23}8.b.d.0.1.0.0.2 A 127.0.0.2\n"
        "*.bad.example A 127.0.1.2\n"
    ),
}
SETTINGS = f"""\
[mta]
local_domains = ["example.net"]
recipients = "any"
smtp = "off"
relay_from = ["{LOOPBACK}/32"]
[policy]
spf = "off"
dkim = "off"
dmarc = "off"
arc = "off"
[[listener]]
endpoint = "tcp:0:interface={LOOPBACK}"
xclient_from = ["{LOOPBACK}"]
[[dnsbl]]
zone = "sesame.list.example"
name = "list.example"
[[dnsbl]]
zone = "sesame.list.example"
name = "list.example"
of = "sender"
action = "mark"
"""


class Lists(ProgramTestCase):
    def setUp(self) -> None:
        super().setUp()
        need("nsd", "nsd-checkconf")
        nsd = NSD(self.home, ZONES)
        settings = f'{SETTINGS}[dns]\nnameservers = ["{LOOPBACK}:{nsd.port}"]\n'
        self.mta = MTA(self.home, toml=settings)
        self.enterContext(nsd)
        self.enterContext(self.mta)

    def reply(self, client: str, sender: str = "ann@good.example") -> str:
        """Send a message as another client; return the reply to RCPT, or else to the content."""
        with smtplib.SMTP(LOOPBACK, self.mta.smtp, timeout=60) as session:
            session.ehlo("proxy.example")
            name = f"IPV6:{client}" if ":" in client else client
            self.assertEqual(session.docmd("XCLIENT", f"ADDR={name}")[0], 220)
            session.ehlo("client.example")
            session.mail(sender)
            code, text = session.rcpt("bob@example.net")
            if code == 250:
                code, text = session.data(message())
            return f"{code} {text.decode()}"

    def test_answers_of_a_list_refuse_mark_or_are_refusals_of_the_list_itself(self) -> None:
        self.assertEqual(
            self.reply(LISTED),
            f"550 5.7.1 {LISTED} is listed by list.example\n"
            "5.7.1 list.example says: see https://list.example/7",
        )
        self.assertIn("550 5.7.1 2001:db8::1 is listed by", self.reply("2001:db8::1"))
        self.assertEqual(self.reply(GOOD)[:9], "250 2.0.0")
        self.assertEqual(self.reply(REFUSED)[:9], "250 2.0.0")
        self.assertEqual(self.reply(GOOD, sender="x@very.bad.example")[:9], "250 2.0.0")
        output = self.mta.output()
        self.assertIn("list.example refuses our queries: it answers 127.255.255.254", output)
        self.assertIn("dnsbl=mark (very.bad.example is listed by list.example: 127.0.1.2)", output)
        self.assertNotIn("sesame", output)
