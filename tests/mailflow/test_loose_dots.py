"""Local parts with dots at an end or in a row, through a whole MTA, as providers gave them."""

from __future__ import annotations

import os
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.reactor import MemoryReactor

from .next_hop import NEXT, QUIT, accepting, announcing, listen

CONTENT = b"Subject: x\r\n\r\nfine\r\n"


class LooseDots(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = os.path.abspath(self.mktemp())
        os.mkdir(self.directory)

    def started(self, **settings: Any) -> MemoryMTA:
        return self.enterContext(
            MemoryMTA(
                f"{self.directory}/state",
                reactor=self.reactor,
                routes=(("next.example", f"smtp://{NEXT}"),),
                **settings,
            )
        )

    def send(self, mta: MemoryMTA, sender: str, *recipients: str) -> list[str]:
        client = mta.connect()
        replies = [client.say(f"MAIL FROM:<{sender}>")[0]]
        replies += [client.say(f"RCPT TO:<{each}>")[0] for each in recipients]
        client.say("DATA")
        replies += client.send(CONTENT + b".\r\n")
        mta.advance(60)
        return [reply[:9] for reply in replies]

    def test_mail_is_relayed_with_the_addresses_as_they_came(self) -> None:
        for sender, recipient in (
            ("a..b@docomo.example", "c.@next.example"),
            (".a@docomo.example", "c..d.@next.example"),
            ('"a..b"@docomo.example', '"c."@next.example'),
        ):
            peer = listen(
                self.reactor,
                *announcing("8BITMIME"),
                *accepting(f"MAIL FROM:<{sender}>", recipient),
                *QUIT,
            )
            mta = self.started()
            self.assertEqual(
                self.send(mta, sender, recipient), ["250 2.1.0", "250 2.1.5", "250 2.0.0"]
            )
            self.assertEqual(peer.problems, [])
            self.assertEqual(len(peer.contents), 1)
            mta.stop()

    def test_an_alias_leads_to_such_an_address(self) -> None:
        path = f"{self.directory}/aliases"
        with open(path, "w", encoding="utf-8") as file:
            file.write("phone: a..b.@next.example\nold..name: bob\n")
        peer = listen(
            self.reactor,
            *announcing("8BITMIME"),
            *accepting("MAIL FROM:<ann@localhost>", "a..b.@next.example"),
            *QUIT,
        )
        mta = self.started(aliases=path)
        self.send(mta, "ann@localhost", "phone@localhost", "old..name@localhost")
        self.assertEqual(peer.problems, [])
        self.assertEqual(len(mta.mail("bob")), 1)

    def test_a_mailbox_has_such_a_name_unless_it_begins_with_a_dot(self) -> None:
        mta = self.started(recipients="any")
        self.send(mta, "ann@localhost", "a..b@localhost", "c.@localhost")
        self.assertEqual((len(mta.mail("a..b")), len(mta.mail("c."))), (1, 1))
        for name in (".", "..", ".a", "...", ".+x", "..+x"):
            replies = self.send(mta, "ann@localhost", f"{name}@localhost")
            self.assertEqual(replies[1], "550 5.1.3", name)
