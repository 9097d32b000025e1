"""Mail that whole MTAs sign, as it arrives at next hops and in mailboxes; dkimpy judges it."""

from __future__ import annotations

import os
import re
from typing import Any

from tests.policy.dkim.judge import verdicts
from tests.policy.dkim.key_files import write_key
from tests.policy.dkim.keys import record
from tests.tidy import TidyTestCase
from twisted_mta.config import DKIMKey
from twisted_mta.testing.memory_mta import MemoryMTA
from twisted_mta.testing.peer import ScriptedPeer
from twisted_mta.testing.reactor import MemoryReactor

from .next_hop import NEXT, QUIT, accepting, announcing, listen

AWAY = "192.0.2.2"
MAIL = re.compile(rb"MAIL FROM:<[^>]*>[^\r]*\r\n")
CONTENT = b"From: Ann <ann@mta.example>\r\nTo: bob@next.example\r\nSubject: Hi\r\n\r\nHello\r\n"


class SigningTestCase(TidyTestCase):
    """An MTA whose host and local domain is mta.example, with keys for it."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.directory = self.mktemp()
        os.makedirs(self.directory)

    def key(self, selector: str, kind: str = "ed25519", domain: str = "mta.example") -> DKIMKey:
        path = os.path.abspath(os.path.join(self.directory, f"{selector}.pem"))
        write_key(path, kind)
        return DKIMKey(domain=domain, selector=selector, key=path)

    def started(self, **settings: Any) -> MemoryMTA:
        if "dkim_keys" not in settings:
            settings["dkim_keys"] = (self.key("s1", "rsa-2048"), self.key("s2"))
        mta = MemoryMTA(
            self.directory,
            **{
                "reactor": self.reactor,
                "local_domains": ("mta.example",),
                "routes": (("next.example", f"smtp://{NEXT}"),),
                **settings,
            },
        )
        mta.start()
        self.addCleanup(mta.stop)
        return mta

    def hop(self, *keywords: str, recipient: str = "bob@next.example") -> ScriptedPeer:
        return listen(self.reactor, *announcing(*keywords), *accepting(MAIL, recipient), *QUIT)

    def records(self, mta: MemoryMTA) -> dict[str, bytes]:
        agent = mta.mta.agent
        assert agent is not None
        return {key.record_name: record(key) for key in agent.signing_keys.of("mta.example")}

    def judged(self, mta: MemoryMTA, content: bytes) -> list[bool]:
        return verdicts(content, self.records(mta), at=mta.wall_time())

    def arrived(self, peer: ScriptedPeer) -> bytes:
        """Return the content that a next hop got, without dot-stuffing and final dot."""
        self.assertEqual(peer.problems, [])
        (content,) = peer.contents
        return content.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n.")


class Notices(SigningTestCase):
    def test_a_notice_to_a_sender_elsewhere_is_signed(self) -> None:
        mta = self.started(
            routes=(("next.example", f"smtp://{NEXT}"), ("away.example", f"smtp://{AWAY}"))
        )
        refusing = listen(
            self.reactor,
            *announcing(),
            ("expect", MAIL),
            ("send", b"550 5.7.1 Not here\r\n"),
            *QUIT,
            address=AWAY,
        )
        hop = self.hop(recipient="eve@next.example")
        mta.submit(CONTENT, "bob@away.example", sender="eve@next.example")
        mta.advance(60)
        self.assertEqual(refusing.problems, [])
        content = self.arrived(hop)
        self.assertIn(b"From: Mail Delivery System <MAILER-DAEMON@mta.example>\r\n", content)
        self.assertEqual(self.judged(mta, content), [True, True])
