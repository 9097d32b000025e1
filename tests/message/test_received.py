"""The Received field and its with types."""

import re

from attrs import evolve

from tests.tidy import TidyTestCase
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


class WithTypes(TidyTestCase):
    def test_greeting_tls_auth_and_smtputf8_make_the_with_type(self) -> None:
        words = WITH_TYPES.split()
        rows = [words[at : at + 5] for at in range(0, len(words), 5)]
        self.assertEqual(len(rows), 18)
        for greeting, tls, authenticated, smtputf8, expected in rows:
            protocol = with_type(
                greeting,  # type: ignore[arg-type]
                tls=tls == "T",
                authenticated=authenticated == "A",
                smtputf8=smtputf8 == "U",
            )
            self.assertEqual(protocol, expected, (greeting, tls, authenticated, smtputf8))

    def test_a_helo_session_is_always_smtp(self) -> None:
        for authenticated in (False, True):
            for smtputf8 in (False, True):
                protocol = with_type(
                    "HELO", tls=True, authenticated=authenticated, smtputf8=smtputf8
                )
                self.assertEqual(protocol, "SMTP")


class Received(TidyTestCase):
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
        """Return the field as a match of the grammar, after checks of its lines."""
        raw = received(**{**self.arguments, **changes})  # type: ignore[arg-type]
        self.assertTrue(raw.endswith(b"\r\n"))
        lines = raw[:-2].split(b"\r\n")
        for line in lines:
            self.assertLessEqual(len(line), 998)
            self.assertNotRegex(line, rb"[\x00-\x08\x0a-\x1f\x7f]")
        for line in lines[1:]:
            self.assertRegex(line, rb"\A[\t ][^\t ]")
        field = STAMP.fullmatch(raw[:-2].decode().replace("\r\n\t", " "))
        self.assertIsNotNone(field, raw)
        assert field is not None
        return field

    def test_received_names_client_server_protocol_queue_id_recipient_and_date(self) -> None:
        field = self.field()
        self.assertEqual(field["from"], "client.example (host.example [192.0.2.1])")
        self.assertEqual(field["by"], "mx.example")
        self.assertEqual(field["with"], "ESMTP")
        self.assertEqual(field["id"], str(QueueId(77)))
        self.assertEqual(field["for"], "<bob@example.net>")
        self.assertEqual(field["date"], "Sun, 22 Nov 2026 10:00:00 +0000")

    def test_lines_have_at_most_78_characters_if_names_are_short(self) -> None:
        tls = evolve(TLS, peer_subject="CN=client.example,O=Example", peer_issuer="CN=Example CA")
        raw = received(**{**self.arguments, "tls": tls})  # type: ignore[arg-type]
        self.assertLessEqual(max(map(len, raw.split(b"\r\n"))), 78)

    def test_mail_of_a_local_user_names_the_user_id_and_no_host(self) -> None:
        raw = received(**{**self.arguments, "user": 1000})  # type: ignore[arg-type]
        first, second, *_ = raw.decode().split("\r\n")
        self.assertEqual(first, "Received: by mx.example (from user id 1000)")
        self.assertEqual(second, f"\twith ESMTP id {QueueId(77)}")

    def test_of_several_recipients_none_is_named(self) -> None:
        self.assertIsNone(self.field(recipient=None)["for"])

    def test_a_client_without_a_host_name_is_named_by_its_address(self) -> None:
        field = self.field(peer_name=None, peer_address="2001:db8::1")
        self.assertEqual(field["from"], "client.example ([IPv6:2001:db8::1])")
        field = self.field(peer_name=None, helo="[192.0.2.1]")
        self.assertEqual(field["from"], "[192.0.2.1] ([192.0.2.1])")

    def test_a_client_on_a_unix_socket_has_no_address_and_no_host_name(self) -> None:
        field = self.field(peer_name=None, peer_address=None, greeting="LHLO")
        self.assertEqual((field["from"], field["with"]), ("client.example", "LMTP"))
        field = self.field(peer_name=None, peer_address=None, helo="[192.0.2.1]")
        self.assertEqual(field["from"], "unknown")

    def test_a_comment_names_the_tls_version_and_cipher(self) -> None:
        field = self.field(tls=TLS)
        self.assertEqual(field["with"], "ESMTPS")
        self.assertIn("(TLSv1.3 with cipher TLS_AES_256_GCM_SHA384, 256 bits)", field[0])
        self.assertNotIn("certificate", field[0])
        # RFC 3848 has no type for TLS without EHLO.
        field = self.field(tls=TLS, greeting="HELO")
        self.assertEqual(field["with"], "SMTP")
        self.assertIn("(TLSv1.3 ", field[0])

    def test_a_comment_names_the_client_certificate_behind_our_verdict(self) -> None:
        tls = evolve(TLS, peer_subject="CN=a (b", peer_issuer="CN=ca", peer_fingerprint="ab" * 32)
        names = rf"SHA-256 {'ab' * 32}, subject CN=a \(b, issuer CN=ca)"
        field = self.field(tls=tls)[0]
        self.assertIn(f"(client certificate not verified, {names}", field)
        field = self.field(tls=evolve(tls, peer_verified=True))[0]
        self.assertIn(f"(client certificate verified, {names}", field)

    def test_an_international_domain_in_ehlo_is_written_in_a_labels(self) -> None:
        field = self.field(helo="bücher.example", smtputf8=True)
        self.assertTrue(field["from"].startswith("xn--bcher-kva.example "))

    def test_a_utf_8_recipient_is_named_only_in_a_message_with_smtputf8(self) -> None:
        dorte = Mailbox("dörte", "example.net")
        self.assertEqual(self.field(recipient=dorte, smtputf8=True)["for"], "<dörte@example.net>")
        self.assertIsNone(self.field(recipient=dorte)["for"])

    def test_the_recipients_domain_has_u_labels_only_with_smtputf8(self) -> None:
        bob = Mailbox("bob", "xn--bcher-kva.example")
        self.assertEqual(self.field(recipient=bob)["for"], "<bob@xn--bcher-kva.example>")
        self.assertEqual(self.field(recipient=bob, smtputf8=True)["for"], "<bob@bücher.example>")

    def test_the_priority_clause_stands_behind_all_others(self) -> None:
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

    def test_without_utf8_recipient_removes_a_for_clause_beyond_ascii(self) -> None:
        for local_part in ("dörte", 'dö>;"rte', "ö" * 300):
            dorte = Mailbox(local_part, "example.net")
            there = {**self.arguments, "recipient": dorte, "smtputf8": True}
            without = {**there, "recipient": None}
            made = received(**there)  # type: ignore[arg-type]
            self.assertFalse(made.isascii())
            self.assertEqual(without_utf8_recipient(made), received(**without))  # type: ignore[arg-type]
        plain = received(**self.arguments)  # type: ignore[arg-type]
        self.assertIs(without_utf8_recipient(plain), plain)

    def test_hostile_text_of_a_peer_cannot_leave_its_comment_or_clause(self) -> None:
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
            field = self.field(helo=text, peer_name=text, tls=tls)
            self.assertEqual((field["by"], field["with"]), ("mx.example", "ESMTPS"))
            self.field(helo=text, peer_name=text, peer_address=None)
            for smtputf8 in (False, True):
                self.field(recipient=Mailbox("a\r\n" + text, "example.net"), smtputf8=smtputf8)

    def test_a_greeting_that_is_no_domain_stands_in_a_comment(self) -> None:
        field = self.field(helo="my_host", peer_name=None)
        self.assertEqual(field["from"], "[192.0.2.1] ([192.0.2.1])")
        self.assertIn(" (greeted as my_host) ", field[0])

    def test_cached_clauses_differ_for_other_recipients_and_tls_sessions(self) -> None:
        # The clauses are cached by value: no message shows another's.
        first, second = self.field(), self.field(recipient=Mailbox("eve", "example.net"))
        self.assertNotEqual(first["for"], second["for"])
        self.assertNotEqual(self.field(tls=TLS)[0], self.field(tls=evolve(TLS, bits=128))[0])
