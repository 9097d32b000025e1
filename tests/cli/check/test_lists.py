"""Findings about lists in the DNS, by their test entries."""

from __future__ import annotations

from functools import partial
from typing import Any

from tests.cli.check.checking import CheckTestCase
from tests.cli.check.nameserver import NameServer
from twisted_mta.cli.check import names as names_module
from twisted_mta.cli.questions import Questions
from twisted_mta.config import DNSBL, DNSSettings

ZONE = "sesame.list.example"
LISTED, UNLISTED = f"2.0.0.127.{ZONE}. A", f"1.0.0.127.{ZONE}. A"


class Lists(CheckTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.dns = NameServer(self)
        self.dns.records["mail.example.net. A"] = ["127.0.0.1"]
        self.dns.records["1.0.0.127.in-addr.arpa. PTR"] = ["mail.example.net."]
        self.dns.records[f"{ZONE}. SOA"] = ["a. b. 1 2 3 4 5"]

    def of(self, **settings: Any) -> str:
        """Return the finding on a list; it never has the zone, and so no key."""
        table = DNSBL(**{"zone": ZONE, "name": "list.example", **settings})
        config = self.config(dns=DNSSettings(nameservers=[self.dns.host]), dnsbl=[table])
        found = self.found(config, notes=True, ask_dns=True)
        (text,) = [each for each in found if "[[dnsbl]]" in each]
        self.assertNotIn("sesame", text)
        return text

    def test_a_list_with_its_test_entries_is_sound(self) -> None:
        self.dns.records[LISTED] = ["127.0.0.4", "127.0.0.2"]
        self.assertEqual(
            self.of(),
            "note: [[dnsbl]] list.example, of client: it lists its test entry 127.0.0.2"
            " (127.0.0.2, 127.0.0.4) within 0 ms",
        )
        self.assertEqual(self.dns.asked[-2:], [LISTED, UNLISTED])

    def test_lists_of_domains_have_other_entries(self) -> None:
        self.dns.records[f"test.{ZONE}. A"] = ["127.0.1.2"]
        for of in ("sender", "helo"):
            text = self.of(of=of)
            self.assertIn(f"of {of}: it lists its test entry TEST (127.0.1.2)", text)
            self.assertEqual(self.dns.asked[-1], f"invalid.{ZONE}. A")

    def test_answers_that_the_settings_leave_out_are_said(self) -> None:
        self.dns.records[LISTED] = ["127.0.0.2"]
        self.assertIn(
            "(127.0.0.2), of which answers has none within", self.of(answers=["127.0.0.4"])
        )

    def test_a_refusal_by_its_operator_is_no_listing(self) -> None:
        for answer in ("127.255.255.254", "127.0.0.1"):
            self.dns.records[LISTED] = [answer]
            text = self.of()
            self.assertIn(f"its operator refuses our queries: it answers {answer}", text)
            self.assertTrue(text.startswith("warning: "))

    def test_a_list_without_its_test_entry_is_dead(self) -> None:
        self.assertIn("it does not list its test entry 127.0.0.2: it is empty, or a key", self.of())
        del self.dns.records[f"{ZONE}. SOA"]
        text = self.of()
        self.assertIn("its zone does not exist: its hits are missed, and mail goes on", text)

    def test_a_zone_that_somebody_has_bought_is_no_list(self) -> None:
        self.dns.records[LISTED] = self.dns.records[UNLISTED] = ["203.0.113.5"]
        self.assertIn("it is no list any more: it answers 203.0.113.5 for 127.0.0.2", self.of())

    def test_a_list_of_the_whole_world_is_an_error_where_it_refuses(self) -> None:
        self.dns.records[LISTED] = self.dns.records[UNLISTED] = ["127.0.0.2"]
        for action, words in (
            ("refuse", "the whole world, and all mail of strangers is refused; remove it"),
            ("defer", "the whole world, and all mail of strangers is deferred; remove it"),
            ("mark", "the whole world; remove it"),
        ):
            text = self.of(action=action)
            self.assertTrue(text.endswith(words), text)
            self.assertIn("it lists 127.0.0.1 (127.0.0.2), which no list may", text)
            self.assertEqual(text.partition(":")[0], "warning" if action == "mark" else "error")

    def test_a_list_that_does_not_answer_is_said(self) -> None:
        self.dns.failing = [LISTED]
        self.assertIn(
            "list.example, of client: no answer: SERVFAIL: its hits are missed", self.of()
        )
        self.dns.silent = [LISTED]
        self.patch(names_module, "Questions", partial(Questions, timeout=0.2))
        self.assertIn("no answer: no answer within 0.2 s", self.of())
