"""Mail that whole MTAs sign, as it arrives at next hops and in mailboxes; dkimpy judges it."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from typing import Any

from attrs import evolve

from tests.policy.dkim.judge import verdicts
from tests.policy.dkim.key_files import write_key
from tests.policy.dkim.keys import record
from tests.tidy import TidyTestCase
from twisted_mta.auth.accounts import Account
from twisted_mta.auth.accounts_file import changing
from twisted_mta.config import DKIMKey, Listener
from twisted_mta.system.real_world import secret_octets
from twisted_mta.testing import FakeHop, MemoryMTA

from .next_hop import NEXT, QUIT, accepting, announcing, listen

AWAY = "192.0.2.2"
CONTENT = b"From: Ann <ann@mta.example>\r\nTo: bob@next.example\r\nSubject: Hi\r\n\r\nHello\r\n"


class SigningTestCase(TidyTestCase):
    """An MTA whose host and local domain is mta.example, with keys for it."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)

    def key(self, selector: str, kind: str = "ed25519", domain: str = "mta.example") -> DKIMKey:
        path = write_key(os.path.join(self.directory, f"{selector}.pem"), kind)
        return DKIMKey(domain=domain, selector=selector, key=path)

    def started(self, **settings: Any) -> MemoryMTA:
        if "dkim_keys" not in settings:
            settings["dkim_keys"] = (self.key("s1", "rsa-2048"), self.key("s2"))
        defaults = {
            "local_domains": ("mta.example",),
            "routes": (("next.example", f"smtp://{NEXT}"),),
        }
        return self.enterContext(MemoryMTA(**{**defaults, **settings}))

    def relaying(self, *keywords: str, **settings: Any) -> tuple[MemoryMTA, FakeHop]:
        """Return an MTA and its next hop, which announces ``keywords``."""
        mta = self.started(**settings)
        hop = mta.hop(NEXT)
        hop.extensions = list(keywords)
        return mta, hop

    def submit(self, mta: MemoryMTA, content: bytes, parameters: str) -> None:
        client = mta.connect()
        client.say(f"MAIL FROM:<ann@mta.example>{parameters}", "RCPT TO:<bob@next.example>")
        client.say("DATA")
        self.assertRegex(client.send(content + b".\r\n")[0], "^250 ")
        mta.advance(60)

    def records(self, mta: MemoryMTA) -> dict[str, bytes]:
        agent = mta.mta.agent
        assert agent is not None
        return {key.record_name: record(key) for key in agent.signing_keys.of("mta.example")}

    def judged(self, mta: MemoryMTA, content: bytes) -> list[bool]:
        return verdicts(content, self.records(mta), at=mta.wall_time())

    def arrived(self, hop: FakeHop, recipient: str = "bob@next.example") -> bytes:
        """Return the content of the only message that a next hop got."""
        (message,) = hop.received
        self.assertEqual(message.to, (recipient,))
        return message.raw


class RelayClients(SigningTestCase):
    """Clients that may relay by their network."""

    def test_mail_to_a_next_hop_is_signed_by_each_key(self) -> None:
        mta, hop = self.relaying()
        mta.submit_by_smtp(CONTENT, "bob@next.example")
        content = self.arrived(hop)
        self.assertEqual(self.judged(mta, content), [True, True])
        self.assertEqual(self.judged(mta, content.replace(b"Hello", b"Hallo")), [False, False])

    def test_mail_to_a_mailbox_is_signed(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(CONTENT, "bob@mta.example", "eve@mta.example")
        for name in ("bob", "eve"):
            (stored,) = mta.mail(name, "mta.example")
            content = stored.replace(b"\n", b"\r\n")
            self.assertEqual(self.judged(mta, content), [True, True])
            self.assertEqual(
                re.findall(rb"(?m)^[A-Z][-\w]*(?=:)", content)[:5],
                [b"Return-Path", b"Delivered-To", *[b"DKIM-Signature"] * 2, b"Received"],
            )

    def test_content_that_is_converted_for_a_next_hop_is_valid_there(self) -> None:
        mta, hop = self.relaying()
        content = b"From: ann@mta.example\r\nSubject: x\r\n\r\nf\xc3\xbcr dich\r\n"
        self.submit(mta, content, " BODY=8BITMIME")
        arrived = self.arrived(hop)
        self.assertTrue(arrived.isascii())
        self.assertEqual(self.judged(mta, arrived), [True, True])

    def test_content_of_8_bits_and_headers_in_utf8_are_valid(self) -> None:
        mta, hop = self.relaying("8BITMIME", "SMTPUTF8")
        content = "From: J\u00f6rg <j\u00f6rg@mta.example>\r\nSubject: \u20ac\r\n\r\nf\u00fcr\r\n"
        self.submit(mta, content.encode(), " BODY=8BITMIME SMTPUTF8")
        self.assertEqual(self.judged(mta, self.arrived(hop)), [True, True])

    def test_a_large_content_is_valid(self) -> None:
        mta, hop = self.relaying()
        mta.submit_by_smtp(
            CONTENT + b".dot and  spaces \r\n" * 10_000 + b"\r\n\r\n", "bob@next.example"
        )
        self.assertEqual(self.judged(mta, self.arrived(hop)), [True, True])

    def test_fields_that_we_add_are_signed(self) -> None:
        mta, hop = self.relaying()
        mta.submit_by_smtp(CONTENT, "bob@next.example")
        arrived = self.arrived(hop)
        self.assertEqual(arrived.count(b"\r\nDate: "), 1)
        changed = arrived.replace(b"\r\nDate: ", b"\r\nDate: x")
        self.assertEqual(self.judged(mta, changed), [False, False])

    def test_binary_content_is_valid_in_the_mailbox_of_another_host(self) -> None:
        mta = self.started(routes=())
        other = self.enterContext(MemoryMTA(domain="next.example", beside=mta))
        content = b"From: ann@mta.example\r\n\r\n" + bytes(
            octet
            for octet in range(256)
            if octet != 10  # dkimpy takes a bare LF for a line end
        )
        client = mta.connect()
        client.say("MAIL FROM:<ann@mta.example> BODY=BINARYMIME", "RCPT TO:<bob@next.example>")
        client.send(b"BDAT %d LAST\r\n%s" % (len(content), content))
        mta.advance(60)
        (stored,) = other.inbox_of("bob@next.example")
        self.assertTrue(stored.raw.endswith(content))
        self.assertEqual(self.judged(mta, stored.raw), [True, True])

    def test_mail_from_other_domains_is_not_signed(self) -> None:
        mta, hop = self.relaying()
        mta.submit_by_smtp(CONTENT.replace(b"ann@mta", b"ann@other"), "bob@next.example")
        self.assertNotIn(b"DKIM-Signature", self.arrived(hop))

    def test_mail_is_signed_after_a_restart(self) -> None:
        mta = self.started()
        mta.submit_by_smtp(CONTENT, "bob@next.example")  # it waits: no server listens there
        mta.restart()
        hop = mta.hop(NEXT)
        mta.advance(days=1)
        self.assertEqual(self.judged(mta, self.arrived(hop)), [True, True])

    def test_mail_for_an_lmtp_server_is_signed(self) -> None:
        mta = self.started(routes=(("next.example", f"lmtp://{NEXT}:24"),))
        peer = listen(
            mta.reactor,
            *announcing(hello="LHLO"),
            *accepting(re.compile(rb"MAIL FROM:.*\r\n"), "bob@next.example"),
            *QUIT,
            port=24,
        )
        mta.submit_by_smtp(CONTENT, "bob@next.example")
        self.assertEqual(peer.problems, [])
        (content,) = peer.contents
        content = content.removesuffix(b".\r\n")
        self.assertEqual(self.judged(mta, content), [True, True])


class Users(SigningTestCase):
    """Clients that have authenticated themselves."""

    def sent(self, content: bytes, sender: str = "ann@mta.example") -> tuple[MemoryMTA, bytes]:
        users = os.path.join(self.directory, "users")
        with changing(users) as accounts:
            accounts["ann"] = Account.of(
                "ann", "open sesame", addresses=["sales@mta.example"], secret=secret_octets
            )
        listener = Listener(endpoint="tcp:25:interface=127.0.0.1", auth="any")
        mta, hop = self.relaying(users=users, listeners=(listener,))
        client = mta.connect()
        login = b64encode(b"\0ann\0open sesame").decode()
        self.assertEqual(client.say(f"AUTH PLAIN {login}")[0][:3], "235")
        client.mail(content, "bob@next.example", sender=sender)
        return mta, self.arrived(hop)

    def test_mail_from_an_address_of_the_account_is_signed(self) -> None:
        for address in (b"ann@mta.example", b"Sales <sales@mta.example>, ann@mta.example"):
            mta, content = self.sent(b"From: " + address + b"\r\n\r\nHi\r\n")
            self.assertEqual(self.judged(mta, content), [True, True])
            self.assertRegex(content, rb"^Authentication-Results: [^;]*;\s+auth=pass")

    def test_results_that_an_account_forges_in_our_name_are_removed(self) -> None:
        forged = (
            b"Authentication-Results: mta.example; dmarc=pass header.from=bank.example\r\n"
            b"authentication-results : (x) MTA.example 1; dkim=pass\r\n"
        )
        others = b"Authentication-Results: mx.other.example; dkim=pass\r\n"
        for body in (b"\r\nHi\r\n", b""):
            header = b"From: ann@mta.example\r\n" + others
            _, content = self.sent(forged + header + body)
            names = re.findall(rb"(?im)^authentication-results\s*:\s*([^;]*)", content)
            self.assertEqual(names, [b"mta.example", b"mx.other.example"])
            self.assertTrue(content.rstrip().endswith((header + body).rstrip()))

    def test_mail_from_the_address_of_another_is_not_signed(self) -> None:
        for header in (
            b"From: bob@mta.example\r\n",
            b"From: ann@mta.example, bob@mta.example\r\n",
            b"From: ann@mta.example\r\nFrom: ann@mta.example\r\n",
            b"Subject: x\r\n",
        ):
            _, content = self.sent(header + b"\r\nHi\r\n")
            self.assertNotIn(b"DKIM-Signature", content)


class Strangers(SigningTestCase):
    def test_mail_of_strangers_is_never_signed(self) -> None:
        aliases = os.path.join(self.directory, "aliases")
        with open(aliases, "w", encoding="utf-8") as file:
            file.write("team: bob@next.example, ann\n")
        mta, hop = self.relaying(relay_from=(), aliases=aliases)
        answer = mta.submit_by_smtp(CONTENT, "team@mta.example")
        self.assertEqual(answer[:3], "250")
        self.assertNotIn(b"DKIM-Signature", self.arrived(hop))
        (stored,) = mta.mail("ann", "mta.example")
        self.assertNotIn(b"DKIM-Signature", stored)


class Reloads(SigningTestCase):
    def test_another_key_signs_from_the_next_transaction_on(self) -> None:
        old, new = self.key("s1"), self.key("s2")
        mta = self.started(dkim_keys=(old,))
        mta.submit_by_smtp(CONTENT, "bob@next.example")  # it waits: no server listens there
        mta.advance(1)
        for keys, selectors in (((old, new), [b"s1", b"s2"]), ((new,), [b"s2"]), ((), [])):
            mta.mta.config = evolve(mta.mta.config, dkim_keys=keys)
            reloaded = mta.mta.reload()
            mta.reactor.settle()
            self.successResultOf(reloaded)
            mta.submit_by_smtp(CONTENT, "bob@mta.example")
            mta.advance(1)
            stored = mta.mail("bob", "mta.example")[-1]
            self.assertEqual(re.findall(rb" s=(\w+);", stored), selectors)
        hop = mta.hop(NEXT)
        mta.advance(days=1)
        self.assertNotIn(b"DKIM-Signature", self.arrived(hop))


class Notices(SigningTestCase):
    def test_a_notice_to_a_sender_elsewhere_is_signed(self) -> None:
        routes = (("next.example", f"smtp://{NEXT}"), ("away.example", f"smtp://{AWAY}"))
        mta, hop = self.relaying(routes=routes)
        mta.hop(AWAY).refuse(reply="550 5.7.1 Not here", at="mail")
        mta.submit_by_smtp(CONTENT, "bob@away.example", sender="eve@next.example")
        mta.advance(60)
        content = self.arrived(hop, "eve@next.example")
        self.assertIn(b"From: Mail Delivery System <MAILER-DAEMON@mta.example>\r\n", content)
        self.assertEqual(self.judged(mta, content), [True, True])
