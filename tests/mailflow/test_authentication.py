"""What is found out about mail of strangers stands in one field above our Received."""

from __future__ import annotations

from typing import Any

from twisted_mta import Quarantine
from twisted_mta.config import PolicySettings
from twisted_mta.testing import MemoryMTA

from .strangers import MESSAGE, OFF, STRANGER, StrangersTestCase, field


class WithDNS(StrangersTestCase):
    zone = f"""
        mx.sender.example.      A   {STRANGER}
        mx.sender.example.      TXT "v=spf1 a -all"
        7.2.0.192.in-addr.arpa. PTR mx.sender.example.
        sender.example.         TXT "v=spf1 ip4:{STRANGER} -all"
    """

    def delivered(
        self, mta: MemoryMTA, content: bytes = MESSAGE, *, sender: str = "ann@sender.example"
    ) -> bytes:
        """Return a stranger's message as bob's mailbox has it."""
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO mx.sender.example")
        self.assertEqual(client.mail(content, "bob@us.example", sender=sender)[-1][:3], "250")
        return mta.mail("bob")[-1]


class TheField(WithDNS):
    def test_it_is_the_first_below_the_fields_of_the_delivery(self) -> None:
        mail = self.delivered(self.started())
        names = [line.partition(b":")[0] for line in mail.split(b"\n") if line[:1] not in b"\t "]
        self.assertEqual(
            names[:4],
            [b"Return-Path", b"Delivered-To", b"Authentication-Results", b"Received"],
        )
        self.assertEqual(field(mail).count("Authentication-Results:"), 1)
        self.assertTrue(field(mail).startswith("Authentication-Results: mta.example;"))

    def test_the_confirmed_name_of_the_client_stands_in_our_received_too(self) -> None:
        mail = self.delivered(self.started())
        self.assertIn(f"iprev=pass (mx.sender.example) policy.iprev={STRANGER}", field(mail))
        self.assertIn(f"from mx.sender.example (mx.sender.example [{STRANGER}])", mail.decode())

    def test_fields_in_our_own_name_are_removed_from_mail_of_strangers(self) -> None:
        forged = (
            b"Authentication-Results: mta.example; spf=pass\r\n"
            b"Authentication-Results: (x)\r\n MTA.example 1; dkim=pass\r\n"
            b"Authentication-Results: other.example; spf=fail\r\n"
        )
        mail = self.delivered(self.started(), forged + MESSAGE)
        self.assertEqual(mail.count(b"Authentication-Results:"), 2)
        self.assertIn(b"\nAuthentication-Results: other.example; spf=fail\n", mail)

    def test_the_domain_of_a_sender_beyond_ascii_is_shown(self) -> None:
        mta = self.started()
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO mx.sender.example")
        client.say("MAIL FROM:<j\xfcrgen@sender.example> SMTPUTF8")
        client.say("RCPT TO:<bob@us.example>", "DATA")
        client.send(MESSAGE + b".\r\n")
        shown = field(mta.mail("bob")[-1])
        self.assertIn("spf=pass", shown)
        self.assertIn("smtp.mailfrom=sender.example", shown)

    def test_clients_that_may_relay_skip_all_of_it(self) -> None:
        mta = self.started()
        client = mta.connect()
        client.mail(MESSAGE, "bob@us.example")
        self.assertEqual(field(mta.mail("bob")[0]), "")
        self.assertEqual(self.resolver.lookups, [])

    def test_nothing_is_looked_up_where_all_is_off(self) -> None:
        self.assertEqual(field(self.delivered(self.started(policy=OFF))), "")
        self.assertEqual(self.resolver.lookups, [])

    def test_authserv_id_is_a_setting(self) -> None:
        mta = self.started(policy=PolicySettings(authserv_id="mx.here.example"))
        self.assertIn("Authentication-Results: mx.here.example;", field(self.delivered(mta)))

    def test_an_application_sees_what_was_found(self) -> None:
        found: list[str] = []

        class Policy:
            def message(self, session: Any, *about: Any) -> Quarantine:
                found.extend(str(each) for each in session.examination.verdicts)
                return Quarantine("all of it")

        mta = self.started(application_policy=Policy())
        client = mta.connect(source=STRANGER)
        client.mail(MESSAGE, "bob@us.example")
        self.assertIn("dkim=none", found)
        self.assertTrue(any(each.startswith("spf=pass") for each in found), found)

    def test_the_header_is_kept_as_it_came_however_it_is_cut(self) -> None:
        mta = self.started()
        expected = self.delivered(mta)
        client = mta.connect(source=STRANGER, greet=False)
        client.say("EHLO mx.sender.example")
        client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@us.example>", "DATA")
        for octet in MESSAGE + b".\r\n":
            client.send(bytes([octet]))
        tail = expected[expected.index(b"\nFrom:") :]
        self.assertEqual(mta.mail("bob")[-1][-len(tail) :], tail)

    def test_a_content_that_begins_with_a_folded_line_continues_no_field_of_ours(self) -> None:
        mta = self.started()
        for chunks in ((b" x: forged\r\n",), (b"", b" x: forged\r\n"), (b"", b"", b"\tx\r\n")):
            client = mta.connect(source=STRANGER, greet=False)
            client.say("EHLO mx.sender.example")
            client.say("MAIL FROM:<ann@sender.example>", "RCPT TO:<bob@us.example>")
            for chunk in chunks:
                client.send(b"BDAT %d\r\n" % len(chunk) + chunk)
            client.send(b"BDAT 0 LAST\r\n")
            self.assertTrue(mta.mail("bob")[-1].endswith(b"\n\n" + chunk.replace(b"\r", b"")))

    def test_a_message_without_a_body_or_without_a_header_is_taken(self) -> None:
        mta = self.started()
        for content in (b"Subject: no body\r\n", b"\r\nno header\r\n", b""):
            mail = self.delivered(mta, content)
            self.assertIn("dkim=none", field(mail))
