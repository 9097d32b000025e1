"""Identifier alignment: the examples of RFC 9989, and failures of the DNS."""

from typing import Literal

from twisted.internet.defer import Deferred

from tests.policy.dmarc.names import Names
from tests.tidy import TidyTestCase
from twisted_mta.policy.dmarc.alignment import Alignment, method_alignment
from twisted_mta.policy.dmarc.discovery import walk


class AlignmentTestCase(TidyTestCase):
    def setUp(self) -> None:
        self.names = Names({"_dmarc.example.com": "v=DMARC1; p=reject"})

    def aligned(self, author: str, *domains: str, mode: Literal["r", "s"] = "r") -> str:
        async def compare() -> str:
            alignment = Alignment(await walk(author, self.names), self.names)
            found = await method_alignment(domains, mode, alignment)
            return found.result if not found.domain else f"{found.result} {found.domain}"

        return self.successResultOf(Deferred.fromCoroutine(compare()))


class Examples(AlignmentTestCase):
    def test_table_1(self) -> None:
        """RFC 9989 §4.4."""
        self.assertEqual(
            self.aligned("news.example.com", "foo.example.com"), "pass foo.example.com"
        )
        self.assertEqual(self.aligned("news.example.com", "foo.example.com", mode="s"), "fail")
        self.assertEqual(
            self.aligned("news.example.com", "news.example.com", mode="s"), "pass news.example.com"
        )
        self.assertEqual(self.aligned("news.example.com", "foo.example.net"), "fail")

    def test_appendix_b_1(self) -> None:
        self.assertEqual(self.aligned("example.com", "example.com", mode="s"), "pass example.com")
        self.assertEqual(self.aligned("example.com", "child.example.com"), "pass child.example.com")
        self.assertEqual(self.aligned("child.example.com", "example.com"), "pass example.com")
        self.assertEqual(self.aligned("child.example.com", "example.net"), "fail")

    def test_an_attacker_below_the_organization(self) -> None:
        """RFC 9989 §11.8: psd=n separates the two."""
        self.names.texts["_dmarc.mail.example.com"] = ["v=DMARC1; p=reject; psd=n"]
        self.assertEqual(self.aligned("evil.example.com", "mail.example.com"), "fail")
        self.assertEqual(
            self.aligned("a.mail.example.com", "mail.example.com"), "pass mail.example.com"
        )
        self.assertEqual(self.aligned("a.mail.example.com", "example.com"), "fail")


class Relaxed(AlignmentTestCase):
    def test_organizations_below_a_public_suffix_are_apart(self) -> None:
        self.names = Names({"_dmarc.bank": "v=DMARC1; p=reject; psd=y"})
        self.assertEqual(self.aligned("a.one.bank", "b.one.bank"), "pass b.one.bank")
        self.assertEqual(self.aligned("one.bank", "two.bank"), "fail")
        self.assertEqual(self.aligned("one.bank", "bank"), "fail")

    def test_a_name_that_only_ends_alike_is_apart(self) -> None:
        self.assertEqual(self.aligned("example.com", "badexample.com"), "fail")

    def test_one_of_several_domains_is_enough(self) -> None:
        self.assertEqual(
            self.aligned("example.com", "example.net", "a.example.com"), "pass a.example.com"
        )

    def test_no_domain_is_no_alignment(self) -> None:
        self.assertEqual(self.aligned("example.com"), "fail")

    def test_a_domain_above_the_author_costs_no_query(self) -> None:
        self.assertEqual(self.aligned("a.b.example.com", "example.com"), "pass example.com")
        self.assertEqual(len(self.names.queries), 4)

    def test_a_domain_beside_the_author_costs_those_that_differ(self) -> None:
        self.assertEqual(self.aligned("a.example.com", "b.c.example.com"), "pass b.c.example.com")
        self.assertEqual(self.names.queries[3:], ["_dmarc.b.c.example.com", "_dmarc.c.example.com"])

    def test_a_foreign_domain_costs_no_query(self) -> None:
        self.aligned("example.com", "example.net", "evil.com", "example.com")
        self.assertEqual(self.names.queries, ["_dmarc.example.com", "_dmarc.com"])


class Failures(AlignmentTestCase):
    def test_an_identical_domain_is_aligned_all_the_same(self) -> None:
        self.names.fail("_dmarc.example.com")
        self.assertEqual(
            self.aligned("a.example.com", "b.example.com", "a.example.com"), "pass a.example.com"
        )

    def test_others_are_unknown_where_relaxed_alignment_would_do(self) -> None:
        self.names.fail("_dmarc.example.com")
        self.assertEqual(self.aligned("a.example.com", "b.example.com"), "unknown")
        self.assertEqual(self.aligned("a.example.com", "b.example.com", mode="s"), "fail")
        self.assertEqual(self.aligned("a.example.com", "example.net"), "fail")

    def test_the_walk_of_the_other_domain_may_fail_too(self) -> None:
        self.names.fail("_dmarc.a.example.com")
        self.assertEqual(self.aligned("example.com", "a.example.com"), "unknown")
