"""Mail with a priority (MT-PRIORITY, RFC 6710) through whole MTAs."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from tests.tidy import TidyTestCase
from twisted_mta.testing import MemoryMTA

from .next_hop import mail_commands

PLAIN = b"Subject: x\r\n\r\nfine\r\n"


class Priorities(TidyTestCase):
    def started(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(MemoryMTA(**settings))

    def submit(self, mta: MemoryMTA, priority: int, recipient: str = "bob@next.example") -> str:
        client = mta.connect()
        self.assertIn(b"MT-PRIORITY\r\n", client.received)
        [answer] = client.say(f"MAIL FROM:<ann@localhost> MT-PRIORITY={priority}")
        self.assertRegex(client.say(f"RCPT TO:<{recipient}>")[0], "^250 ")
        client.say("DATA")
        self.assertRegex(client.send(PLAIN + b".\r\n")[0], "^250 2.0.0 Queued as")
        mta.advance(1)
        return answer

    def test_a_next_hop_with_mt_priority_gets_the_priority(self) -> None:
        for announced, parameter in (
            ("MT-PRIORITY MIXER", " MT-PRIORITY=-4"),
            ("MT-PRIORITY", " MT-PRIORITY=-4"),
            ("8BITMIME", ""),
        ):
            mta = self.started()
            hop = mta.hop()
            hop.extensions = [announced]
            self.submit(mta, -4)
            self.assertEqual(mail_commands(hop), [f"<ann@localhost>{parameter}"])

    def test_the_received_field_names_the_priority(self) -> None:
        mta = self.started()
        self.assertRegex(self.submit(mta, 3, "bob@localhost"), "^250 2.1.0 ")
        self.submit(mta, 0, "bob@localhost")
        first, second = mta.inbox_of("bob@localhost")
        self.assertRegex(first.raw, rb"\n\tfor <bob@localhost>\n\tpriority 3; \w\w\w, ")
        self.assertNotIn(b"priority", second.raw)

    def test_a_high_priority_of_a_stranger_becomes_0(self) -> None:
        mta = self.started(relay_from=(ip_network("203.0.113.0/24"),))
        self.assertRegex(self.submit(mta, 9, "bob@localhost"), "^250 2.3.6 0 ")
        self.assertRegex(self.submit(mta, -9, "bob@localhost"), "^250 2.1.0 ")
        first, second = mta.inbox_of("bob@localhost")
        self.assertNotIn(b"priority", first.raw)
        self.assertIn(b"priority -9;", second.raw)
