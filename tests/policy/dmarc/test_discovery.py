"""The DNS tree walk: the examples of RFC 9989 §4.10 and what it leaves to receivers."""

from twisted.internet.defer import Deferred

from tests.policy.dmarc.names import Names
from tests.tidy import TidyTestCase
from twisted_mta.policy.dmarc.discovery import Policy, Walk, exists, targets, walk


class WalkTestCase(TidyTestCase):
    def walk(self, domain: str, names: Names) -> Walk:
        return self.successResultOf(Deferred.fromCoroutine(walk(domain, names)))

    def organization(self, domain: str, records: dict[str, str]) -> str | None:
        names = Names({f"_dmarc.{name}": text for name, text in records.items()})
        return self.walk(domain, names).organizational_domain

    def policy(self, domain: str, records: dict[str, str]) -> tuple[str, str] | str | None:
        names = Names({f"_dmarc.{name}": text for name, text in records.items()})
        policy = self.walk(domain, names).policy
        if isinstance(policy, Policy):
            return policy.published.domain, policy.tag
        return policy


class Queries(WalkTestCase):
    def test_a_long_name_takes_eight_queries(self) -> None:
        self.assertEqual(
            list(targets("a.b.c.d.e.f.g.h.i.j.mail.example.com")),
            [
                "a.b.c.d.e.f.g.h.i.j.mail.example.com",
                "g.h.i.j.mail.example.com",
                "h.i.j.mail.example.com",
                "i.j.mail.example.com",
                "j.mail.example.com",
                "mail.example.com",
                "example.com",
                "com",
            ],
        )

    def test_a_name_of_eight_labels_takes_eight_queries_and_one_of_two_takes_two(self) -> None:
        self.assertEqual(len(list(targets("a.b.c.d.e.f.example.com"))), 8)
        self.assertEqual(list(targets("a.b.c.d.e.f.example.com"))[1], "b.c.d.e.f.example.com")
        self.assertEqual(list(targets("example.com")), ["example.com", "com"])
        self.assertEqual(list(targets("com")), ["com"])

    def test_names_that_are_skipped_are_not_found(self) -> None:
        """RFC 9989 §5.1.8."""
        found = self.policy(
            "mail.a.b.c.d.e.f.g.example.com",
            {
                "b.c.d.e.f.g.example.com": "v=DMARC1; p=reject; psd=n",
                "example.com": "v=DMARC1;p=none",
            },
        )
        self.assertEqual(found, ("example.com", "sp"))

    def test_a_record_with_psd_ends_the_walk(self) -> None:
        for psd in "yn":
            names = Names({"_dmarc.example.com": f"v=DMARC1; p=none; psd={psd}"})
            self.walk("a.example.com", names)
            self.assertEqual(names.queries, ["_dmarc.a.example.com", "_dmarc.example.com"])

    def test_a_name_too_long_for_the_label_is_left_out(self) -> None:
        domain = ".".join(["a" * 61] * 4)
        names = Names()
        self.assertEqual(self.walk(domain, names).found, ())
        self.assertEqual(names.queries[0], "_dmarc." + ".".join(["a" * 61] * 3))


class Organizations(WalkTestCase):
    """RFC 9989 §4.10.2."""

    def test_the_record_with_the_fewest_labels(self) -> None:
        records = dict.fromkeys(("mail.example.com", "example.com"), "v=DMARC1; p=none")
        self.assertEqual(self.organization("a.mail.example.com", records), "example.com")

    def test_a_record_with_psd_n(self) -> None:
        records = {"mail.example.com": "v=DMARC1; p=none; psd=n", "example.com": "v=DMARC1; p=none"}
        self.assertEqual(self.organization("a.mail.example.com", records), "mail.example.com")

    def test_one_label_below_a_record_with_psd_y(self) -> None:
        records = {"com": "v=DMARC1; p=none; psd=y"}
        self.assertEqual(self.organization("a.mail.example.com", records), "example.com")
        records["mail.example.com"] = "v=DMARC1; p=none"
        self.assertEqual(self.organization("a.mail.example.com", records), "example.com")

    def test_psd_y_at_the_start_is_no_suffix_of_itself(self) -> None:
        records = {"gov.example": "v=DMARC1; p=none; psd=y"}
        self.assertEqual(self.organization("gov.example", records), "gov.example")

    def test_the_label_below_may_have_been_skipped(self) -> None:
        records = {"b.c.d.e.f.example.com": "v=DMARC1; p=none; psd=y"}
        domain = "x.y.a.b.c.d.e.f.example.com"
        self.assertEqual(self.organization(domain, records), "a.b.c.d.e.f.example.com")

    def test_without_a_record_it_is_the_domain_itself(self) -> None:
        self.assertEqual(self.organization("a.example.com", {}), "a.example.com")


class KnownWalks(WalkTestCase):
    """A walk that uses the answers of another has the same result as one of its own."""

    def test_of_any_two_domains(self) -> None:
        domains = [
            "com",
            "example.com",
            "a.example.com",
            "b.a.example.com",
            "1.2.3.4.5.6.7.8.example.com",
            "x.2.3.4.5.6.7.8.example.com",
            "4.5.6.7.8.example.com",
            "other.net",
        ]
        zones = [
            {name: f"v=DMARC1; p=none{tag}"}
            for name in ("com", "example.com", "a.example.com", "5.6.7.8.example.com")
            for tag in ("", "; psd=n", "; psd=y")
        ]
        several = [{**zones[0], **zones[3], **zones[7]}, {**zones[2], **zones[4], **zones[11]}]
        for zone in (zones[5], zones[7], zones[10], *several):
            for failing in ("", "_dmarc.example.com"):
                names = Names({f"_dmarc.{name}": text for name, text in zone.items()})
                if failing:
                    names.fail(failing)
                for one in domains:
                    known = self.walk(one, names)
                    for other in domains:
                        found = self.successResultOf(
                            Deferred.fromCoroutine(walk(other, names, known=known))
                        )
                        own = self.walk(other, names)
                        self.assertEqual(
                            (found.found, found.failed, found.organizational_domain),
                            (own.found, own.failed, own.organizational_domain),
                            (zone, failing, one, other),
                        )


class Policies(WalkTestCase):
    """RFC 9989 §4.10.1."""

    def test_that_of_the_author_domain_is_first(self) -> None:
        records = dict.fromkeys(("a.example.com", "example.com"), "v=DMARC1; p=none")
        self.assertEqual(self.policy("a.example.com", records), ("a.example.com", "p"))

    def test_that_of_the_organizational_domain_is_next(self) -> None:
        records = dict.fromkeys(("b.example.com", "example.com"), "v=DMARC1; p=none")
        self.assertEqual(self.policy("a.b.example.com", records), ("example.com", "sp"))

    def test_that_of_the_public_suffix_is_last(self) -> None:
        records = {"com": "v=DMARC1; p=reject; psd=y"}
        self.assertEqual(self.policy("example.com", records), ("com", "sp"))
        # A record between the author domain and its organizational domain is not used.
        records["b.example.com"] = "v=DMARC1; p=none"
        self.assertEqual(self.policy("a.b.example.com", records), ("com", "sp"))
        records["example.com"] = "v=DMARC1; p=none"
        self.assertEqual(self.policy("a.b.example.com", records), ("example.com", "sp"))

    def test_there_may_be_none(self) -> None:
        self.assertIsNone(self.policy("example.com", {"other.com": "v=DMARC1; p=none"}))
        self.assertIsNone(self.policy("example.com", {"example.com": "v=spf1 -all"}))

    def test_a_record_without_request_and_reports_is_not_applied_nor_replaced(self) -> None:
        records = {"a.example.com": "v=DMARC1;", "example.com": "v=DMARC1; p=reject"}
        self.assertIsNone(self.policy("a.example.com", records))

    def test_several_records_at_one_name_are_discarded(self) -> None:
        names = Names(
            {
                "_dmarc.a.example.com": ["v=DMARC1; p=none", "v=DMARC1; p=reject"],
                "_dmarc.example.com": ["x", "v=DMARC1; p=none", "v=spf1 -all"],
            }
        )
        policy = self.walk("a.example.com", names).policy
        assert isinstance(policy, Policy)
        self.assertEqual(policy.published.domain, "example.com")

    def test_a_failed_query_leaves_the_policy_unknown_unless_it_was_found_below(self) -> None:
        names = Names({"_dmarc.a.example.com": "v=DMARC1; p=none"})
        names.fail("_dmarc.example.com")
        found = self.walk("a.example.com", names)
        self.assertIsInstance(found.policy, Policy)
        self.assertIsNone(found.organizational_domain)
        self.assertEqual(found.failed, "example.com")
        self.assertEqual(self.walk("b.example.com", names).policy, "unknown")

    def test_a_name_server_that_refuses_the_top_level_domain_hides_nothing(self) -> None:
        names = Names({"_dmarc.example.com": "v=DMARC1; p=reject"})
        names.fail("_dmarc.com")
        for domain in ("example.com", "a.example.com"):
            self.assertEqual(self.walk(domain, names).organizational_domain, "example.com")
        self.assertIsNone(self.walk("other.com", names).policy)
        names.fail("_dmarc.example.com")  # nothing was answered: the DNS is out of order
        self.assertEqual(self.walk("example.com", names).policy, "unknown")


class Subdomains(WalkTestCase):
    def request(self, text: str, *, exists: bool) -> str:
        policy = self.walk("a.example.com", Names({"_dmarc.example.com": text})).policy
        assert isinstance(policy, Policy)
        return policy.request(exists=exists)

    def test_existing_ones_have_sp_and_others_np(self) -> None:
        text = "v=DMARC1; p=none; sp=quarantine; np=reject"
        self.assertEqual(self.request(text, exists=True), "quarantine")
        self.assertEqual(self.request(text, exists=False), "reject")

    def test_what_is_missing_falls_back(self) -> None:
        self.assertEqual(self.request("v=DMARC1; p=reject", exists=False), "reject")
        self.assertEqual(self.request("v=DMARC1; p=none; sp=reject", exists=False), "reject")
        self.assertEqual(self.request("v=DMARC1; p=none; np=reject", exists=True), "none")

    def test_the_author_domain_itself_has_p(self) -> None:
        names = Names({"_dmarc.example.com": "v=DMARC1; p=none; sp=reject; np=reject"})
        policy = self.walk("example.com", names).policy
        assert isinstance(policy, Policy)
        self.assertEqual(policy.request(exists=False), "none")
        self.assertFalse(policy.depends_on_existence)

    def test_a_domain_exists_unless_the_answer_is_nxdomain(self) -> None:
        names = Names({"_dmarc.a.example.com": "x"})
        names.fail("broken.example.com")

        def ask(domain: str) -> bool | None:
            return self.successResultOf(Deferred.fromCoroutine(exists(domain, names)))

        self.assertTrue(ask("a.example.com"))
        self.assertTrue(ask("example.com"))
        self.assertFalse(ask("b.example.com"))
        self.assertIsNone(ask("broken.example.com"))
