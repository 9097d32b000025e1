"""SPF in the whole MTA: the results in the message, refusals at MAIL, and a DNS that is slow."""

from __future__ import annotations

import re
from typing import Literal

from twisted_mta.config import PolicySettings
from twisted_mta.testing import MemoryMTA

from .strangers import MESSAGE, STRANGER, StrangersTestCase, field

INCLUDED = '"' + "include:hostile.example " * 10 + '" '  # a string has 255 octets at most


class SPF(StrangersTestCase):
    zone = f"""
        passes.example.    TXT "v=spf1 ip4:192.0.2.0/24 -all"
        fails.example.     TXT "v=spf1 -all exp=why.fails.example"
        why.fails.example. TXT "Not from %{{i}}"
        softfails.example. TXT "v=spf1 ~all"
        wrong.example.     TXT "v=spf1 moo -all"
        hostile.example.   TXT "v=spf1 " {INCLUDED * 90} "-all"
    """

    def mta(self, spf: Literal["check", "enforce"]) -> MemoryMTA:
        return self.started(policy=PolicySettings(spf=spf, dkim="off", dmarc="off", arc="off"))

    def send(self, mta: MemoryMTA, sender: str, *, helo: str, to: str = "bob") -> str:
        """Send a message as a stranger; return the last line of the reply."""
        client = mta.connect(source=STRANGER, greet=False)
        client.say(f"EHLO {helo}")
        return client.mail(MESSAGE, f"{to}@us.example", sender=sender)[-1]

    def results(self, mta: MemoryMTA, to: str = "bob") -> list[tuple[str, str, str]]:
        """Return (result, property, value) of SPF in the message of a mailbox, in their order."""
        (mail,) = mta.mail(to)
        found = r"spf=(\w+) (?:\(.*?\) )?(smtp\.\w+)=(\S+?)(?:;|$)"
        return re.findall(found, field(mail))


class Checking(SPF):
    def test_the_greeting_comes_first_and_the_reverse_path_last(self) -> None:
        mta = self.mta("check")
        for helo, word in (("passes.example", "pass"), ("fails.example", "fail")):
            for domain, other in (
                ("passes.example", "pass"),
                ("fails.example", "fail"),
                ("softfails.example", "softfail"),
                ("wrong.example", "permerror"),
                ("nowhere.example", "none"),
                ("hostile.example", "permerror"),
            ):
                self.send(mta, f"ann@{domain}", helo=helo, to=f"{word}-{other}-{domain}")
                self.assertEqual(
                    self.results(mta, f"{word}-{other}-{domain}"),
                    [(word, "smtp.helo", helo), (other, "smtp.mailfrom", domain)],
                )

    def test_a_null_reverse_path_has_the_result_of_the_greeting_alone(self) -> None:
        mta = self.mta("check")
        self.send(mta, "", helo="fails.example")
        self.assertEqual(self.results(mta), [("fail", "smtp.helo", "fails.example")])

    def test_a_dns_that_does_not_answer_keeps_no_command_waiting(self) -> None:
        mta = self.mta("check")
        self.resolver.hold("fails.example")
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO passes.example")
        replies = client.say("MAIL FROM:<ann@fails.example>", "RCPT TO:<bob@us.example>", "DATA")
        self.assertEqual(replies[-1][:3], "354")
        client.send(MESSAGE + b".\r\n")
        mta.advance(seconds=21)
        self.assertEqual(self.results(mta)[-1], ("temperror", "smtp.mailfrom", "fails.example"))


class Enforcing(SPF):
    def test_a_fail_is_refused_with_the_words_of_the_domain(self) -> None:
        mta = self.mta("enforce")
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO passes.example")
        reply = client.say("MAIL FROM:<ann@fails.example>")
        self.assertEqual(
            [line for line in reply if line.startswith("550")],
            [
                f"550-5.7.23 {STRANGER} may not send mail of fails.example, says its SPF record",
                f"550 5.7.23 fails.example explains: Not from {STRANGER}",
            ],
        )
        # The session goes on.
        self.assertEqual(
            client.mail(MESSAGE, "bob@us.example", sender="ann@passes.example")[-1][:3], "250"
        )

    def test_no_other_result_is_refused(self) -> None:
        mta = self.mta("enforce")
        self.resolver.fail("broken.example")
        for domain in ("softfails.example", "wrong.example", "nowhere.example", "broken.example"):
            self.assertEqual(self.send(mta, f"ann@{domain}", helo=domain)[:3], "250", domain)

    def test_clients_that_may_relay_are_not_asked_about(self) -> None:
        mta = self.mta("enforce")
        client = mta.connect()
        reply = client.mail(MESSAGE, "bob@us.example", sender="ann@fails.example")[-1]
        self.assertEqual(reply[:3], "250")
        self.assertEqual(self.resolver.lookups, [])
