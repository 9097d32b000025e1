"""Destinations of reports: those outside of the organization have to agree (RFC 9990 §4)."""

from twisted.internet.defer import Deferred

from tests.policy.dmarc.names import Names
from tests.reports.dmarc.rows import published
from tests.tidy import TidyTestCase
from twisted_mta.reports.dmarc.destinations import Destinations, destinations


class DestinationsTests(TidyTestCase):
    def setUp(self) -> None:
        self.names = Names({"_dmarc.example.com": "v=DMARC1; p=none"})

    def find(self, rua: str, domain: str = "example.com") -> Destinations:
        record = published(f"v=DMARC1; p=none; rua={rua}".encode(), domain)
        return self.successResultOf(Deferred.fromCoroutine(destinations(record, self.names)))

    def agreed(self, rua: str, domain: str = "example.com") -> list[str]:
        found = self.find(rua, domain)
        self.assertFalse(found.unknown)
        return [str(each) for each in found.agreed]

    def test_the_own_domain_and_organization_need_no_agreement(self) -> None:
        rua = "mailto:a@example.com,mailto:b@mail.example.com"
        self.assertEqual(self.agreed(rua), ["a@example.com", "b@mail.example.com"])
        self.assertEqual(self.agreed("mailto:a@example.com", "news.example.com"), ["a@example.com"])

    def test_others_have_to_publish_a_record(self) -> None:
        rua = "mailto:reports@red.example.net"
        self.assertEqual(self.agreed(rua, "blue.example.com"), [])
        name = "blue.example.com._report._dmarc.red.example.net"
        for text, agrees in (
            ("v=DMARC1", True),
            ("v=DMARC1;", True),
            ("v=DMARC1; p=none", True),
            ("v=DMARC2", False),
            ("p=none; v=DMARC1", False),
            ("x", False),
        ):
            self.names.texts[name] = ["y", text]
            found = self.agreed(rua, "blue.example.com")
            self.assertEqual(found, ["reports@red.example.net"] if agrees else [], text)

    def test_a_record_may_name_another_mailbox_at_the_same_host(self) -> None:
        """RFC 9989, Appendix B.2.4."""
        self.names.texts["example.com._report._dmarc.thirdparty.example.net"] = [
            "v=DMARC1; rua=mailto:aggregate-reports@thirdparty.example.net;"
        ]
        self.assertEqual(
            self.agreed("mailto:x@thirdparty.example.net"),
            ["aggregate-reports@thirdparty.example.net"],
        )

    def test_a_record_that_names_another_host_gets_nothing(self) -> None:
        for rua in ("mailto:a@victim.example", "https://red.example.net", "mailto:a@[192.0.2.1]"):
            name = "example.com._report._dmarc.red.example.net"
            self.names.texts[name] = [f"v=DMARC1; rua={rua}"]
            self.assertEqual(self.agreed("mailto:x@red.example.net"), [], rua)

    def test_a_name_that_is_too_long_cannot_agree(self) -> None:
        domain = ".".join(["a" * 61] * 4)
        self.assertEqual(self.agreed("mailto:x@red.example.net", domain), [])

    def test_a_failure_of_the_dns_leaves_it_open(self) -> None:
        self.names.fail("example.com._report._dmarc.red.example.net")
        found = self.find("mailto:x@red.example.net,mailto:a@example.com")
        self.assertEqual([str(each) for each in found.agreed], ["a@example.com"])
        self.assertTrue(found.unknown)
        self.names.fail("_dmarc.blue.example.net")
        self.assertTrue(self.find("mailto:x@blue.example.net").unknown)
