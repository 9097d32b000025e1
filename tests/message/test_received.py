"""The Received field and its with types."""

import re

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.message.received import received, with_type, without_utf8_recipient

# RFC 3848 and RFC 6531 §4.3, row by row: greeting, TLS, authenticated, SMTPUTF8.
WITH_TYPES = """
    HELO - - -  SMTP            HELO T - -  SMTP
    EHLO - - -  ESMTP           EHLO - - U  UTF8SMTP
    EHLO - A -  ESMTPA          EHLO - A U  UTF8SMTPA
    EHLO T - -  ESMTPS          EHLO T - U  UTF8SMTPS
    EHLO T A -  ESMTPSA         EHLO T A U  UTF8SMTPSA
    LHLO - - -  LMTP            LHLO - - U  UTF8LMTP
    LHLO - A -  LMTPA           LHLO - A U  UTF8LMTPA
    LHLO T - -  LMTPS           LHLO T - U  UTF8LMTPS
    LHLO T A -  LMTPSA          LHLO T A U  UTF8LMTPSA
"""

TLS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)

# RFC 5321 §4.4, with comments (RFC 5322 §3.2.2) wherever it has CFWS.
COMMENT = r"\((?:[^()\\\x00-\x1f\x7f]|\\[\x20-\x7e])*\)"
CFWS = rf"(?: {COMMENT})* "
DOMAIN = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*"
LITERAL = r"\[(?:IPv6:)?[0-9a-fA-F.:]+\]"
STAMP = re.compile(
    rf"Received: from (?P<from>{DOMAIN}(?: \((?P<tcp_info>(?:{DOMAIN} )?{LITERAL})\))?"
    rf"|{LITERAL} \((?P<tcp_info_2>(?:{DOMAIN} )?{LITERAL})\))"
    rf"{CFWS}by (?P<by>{DOMAIN}){CFWS}with (?P<with>[A-Z0-9]+) id (?P<id>[0-9A-Z]+)"
    r"(?: for (?P<for><[^ ]+@[^ ]+>))?; (?P<date>.+)"
)


class WithTypes(SynchronousTestCase):
    def test_each_state_of_a_session_has_its_type(self) -> None:
        words = WITH_TYPES.split()
        rows = [words[at : at + 5] for at in range(0, len(words), 5)]
        self.assertEqual(len(rows), 18)
        for greeting, tls, authenticated, smtputf8, expected in rows:
            found = with_type(
                greeting,  # type: ignore[arg-type]
                tls=tls == "T",
                authenticated=authenticated == "A",
                smtputf8=smtputf8 == "U",
            )
            self.assertEqual(found, expected, (greeting, tls, authenticated, smtputf8))

    def test_a_session_without_extensions_has_one_type(self) -> None:
        for authenticated in (False, True):
            for smtputf8 in (False, True):
                found = with_type("HELO", tls=True, authenticated=authenticated, smtputf8=smtputf8)
                self.assertEqual(found, "SMTP")


class Received(SynchronousTestCase):
    def setUp(self) -> None:
        self.arguments: dict[str, object] = {
            "greeting": "EHLO",
            "helo": "client.example",
            "peer_address": "192.0.2.1",
            "peer_name": "host.example",
            "by": "mx.example",
            "queue_id": QueueId(77),
            "recipient": Mailbox("bob", "example.net"),
            "tls": None,
            "authenticated": False,
            "smtputf8": False,
            "time": 1795341600.9,
        }

    def field(self, **changes: object) -> re.Match[str]:
        """Return the field, which must be whole, folded, and within the grammar."""
        raw = received(**{**self.arguments, **changes})  # type: ignore[arg-type]
        self.assertTrue(raw.endswith(b"\r\n"))
        lines = raw[:-2].split(b"\r\n")
        for line in lines:
            self.assertLessEqual(len(line), 998)
            self.assertNotRegex(line, rb"[\x00-\x08\x0a-\x1f\x7f]")
        for line in lines[1:]:
            self.assertRegex(line, rb"\A[\t ][^\t ]")
        found = STAMP.fullmatch(raw[:-2].decode().replace("\r\n\t", " "))
        self.assertIsNotNone(found, raw)
        assert found is not None
        return found

    def test_the_field_says_who_where_how_what_for_whom_and_when(self) -> None:
        found = self.field()
        self.assertEqual(found["from"], "client.example (host.example [192.0.2.1])")
        self.assertEqual(found["by"], "mx.example")
        self.assertEqual(found["with"], "ESMTP")
        self.assertEqual(found["id"], str(QueueId(77)))
        self.assertEqual(found["for"], "<bob@example.net>")
        self.assertEqual(found["date"], "Sun, 22 Nov 2026 10:00:00 +0000")

    def test_lines_are_short_where_the_names_are(self) -> None:
        tls = evolve(TLS, peer_subject="CN=client.example,O=Example", peer_issuer="CN=Example CA")
        raw = received(**{**self.arguments, "tls": tls})  # type: ignore[arg-type]
        self.assertLessEqual(max(map(len, raw.split(b"\r\n"))), 78)

    def test_none_of_several_recipients_is_named(self) -> None:
        self.assertIsNone(self.field(recipient=None)["for"])

    def test_a_peer_without_a_name_is_its_address(self) -> None:
        found = self.field(peer_name=None, peer_address="2001:db8::1")
        self.assertEqual(found["from"], "client.example ([IPv6:2001:db8::1])")
        found = self.field(peer_name=None, helo="[192.0.2.1]")
        self.assertEqual(found["from"], "[192.0.2.1] ([192.0.2.1])")

    def test_a_peer_on_a_unix_socket_has_neither(self) -> None:
        found = self.field(peer_name=None, peer_address=None, greeting="LHLO")
        self.assertEqual((found["from"], found["with"]), ("client.example", "LMTP"))
        found = self.field(peer_name=None, peer_address=None, helo="[192.0.2.1]")
        self.assertEqual(found["from"], "unknown")

    def test_what_tls_achieved_stands_in_a_comment(self) -> None:
        found = self.field(tls=TLS)
        self.assertEqual(found["with"], "ESMTPS")
        self.assertIn("(TLSv1.3 with cipher TLS_AES_256_GCM_SHA384, 256 bits)", found[0])
        self.assertNotIn("certificate", found[0])
        # RFC 3848 has no type for TLS without EHLO.
        found = self.field(tls=TLS, greeting="HELO")
        self.assertEqual(found["with"], "SMTP")
        self.assertIn("(TLSv1.3 ", found[0])

    def test_what_a_client_certificate_said_stands_in_a_comment(self) -> None:
        tls = evolve(TLS, peer_subject="CN=a (b", peer_issuer="CN=ca", peer_fingerprint="ab" * 32)
        names = rf"SHA-256 {'ab' * 32}, subject CN=a \(b, issuer CN=ca)"
        field = self.field(tls=tls)[0]
        self.assertIn(f"(client certificate not verified, {names}", field)
        field = self.field(tls=evolve(tls, peer_verified=True))[0]
        self.assertIn(f"(client certificate verified, {names}", field)

    def test_names_of_other_scripts_are_a_labels(self) -> None:
        found = self.field(helo="bücher.example", smtputf8=True)
        self.assertTrue(found["from"].startswith("xn--bcher-kva.example "))

    def test_a_recipient_in_utf_8_is_named_only_where_the_message_may_hold_it(self) -> None:
        dorte = Mailbox("dörte", "example.net")
        self.assertEqual(self.field(recipient=dorte, smtputf8=True)["for"], "<dörte@example.net>")
        self.assertIsNone(self.field(recipient=dorte)["for"])

    def test_its_domain_is_written_as_people_write_it_in_a_message_of_utf_8(self) -> None:
        bob = Mailbox("bob", "xn--bcher-kva.example")
        self.assertEqual(self.field(recipient=bob)["for"], "<bob@xn--bcher-kva.example>")
        self.assertEqual(self.field(recipient=bob, smtputf8=True)["for"], "<bob@bücher.example>")

    def test_a_priority_stands_behind_all_other_clauses(self) -> None:
        for changes in ({}, {"recipient": None}, {"recipient": Mailbox("b" * 80, "example.net")}):
            raw = received(**{**self.arguments, **changes, "priority": -3})  # type: ignore[arg-type]
            plain = received(**{**self.arguments, **changes})  # type: ignore[arg-type]
            self.assertIn(b"\r\n\tpriority -3; ", raw)
            self.assertLessEqual(max(map(len, raw.split(b"\r\n"))), 110)
            self.assertEqual(
                b" ".join(raw.split()), b" ".join(plain.replace(b";", b" priority -3;").split())
            )
        dorte = {"recipient": Mailbox("dörte", "example.net"), "smtputf8": True, "priority": 3}
        raw = received(**{**self.arguments, **dorte})  # type: ignore[arg-type]
        without = received(**{**self.arguments, **dorte, "recipient": None})  # type: ignore[arg-type]
        self.assertEqual(without_utf8_recipient(raw), without)

    def test_for_next_hops_without_utf_8_such_a_recipient_is_left_out(self) -> None:
        for local_part in ("dörte", 'dö>;"rte', "ö" * 300):
            dorte = Mailbox(local_part, "example.net")
            there = {**self.arguments, "recipient": dorte, "smtputf8": True}
            without = {**there, "recipient": None}
            made = received(**there)  # type: ignore[arg-type]
            self.assertFalse(made.isascii())
            self.assertEqual(without_utf8_recipient(made), received(**without))  # type: ignore[arg-type]
        plain = received(**self.arguments)  # type: ignore[arg-type]
        self.assertIs(without_utf8_recipient(plain), plain)

    def test_nothing_that_a_peer_says_gets_out_of_its_place(self) -> None:
        hostile = (
            "a\r\nX-Evil: yes",
            "a) by evil with ESMTPSA id 1 (",
            "((((",
            "))))",
            "\\",
            "a\\",
            "\x00\x01\x7f\x9b",
            "host_name",
            "-",
            "a..b",
            "",
            " ",
            "  a  b  ",
            "[192.0.2.1",
            "[IPv6:x]",
            "é" * 300,
            "\udc80\ud800",
            "x" * 2000,
            "(" * 2000,
            "a " * 1000,
            "\u2028\u202e",
        )
        for text in hostile:
            tls = evolve(TLS, version=text, cipher=text, peer_subject=text, peer_issuer=text)
            found = self.field(helo=text, peer_name=text, tls=tls)
            self.assertEqual((found["by"], found["with"]), ("mx.example", "ESMTPS"))
            self.field(helo=text, peer_name=text, peer_address=None)
            for smtputf8 in (False, True):
                self.field(recipient=Mailbox("a\r\n" + text, "example.net"), smtputf8=smtputf8)

    def test_a_name_that_is_no_domain_is_told_in_a_comment(self) -> None:
        found = self.field(helo="my_host", peer_name=None)
        self.assertEqual(found["from"], "[192.0.2.1] ([192.0.2.1])")
        self.assertIn(" (greeted as my_host) ", found[0])

    def test_the_recipient_is_part_of_what_is_remembered(self) -> None:
        # The clauses are cached by value: no message shows another's.
        first, second = self.field(), self.field(recipient=Mailbox("eve", "example.net"))
        self.assertNotEqual(first["for"], second["for"])
        self.assertNotEqual(self.field(tls=TLS)[0], self.field(tls=evolve(TLS, bits=128))[0])
