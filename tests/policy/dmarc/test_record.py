"""Policy records: examples of RFC 9989, records of RFC 7489, and hostile ones."""

from time import process_time

from twisted.trial.unittest import SynchronousTestCase

from tests.processor_time import collect_nothing
from twisted_mta.policy.dmarc.record import LONGEST, Record, lowered, mailto


def parse(text: str) -> Record | None:
    return Record.parse(text.encode("latin-1"))


def record(text: str) -> Record:
    found = parse(text)
    assert found is not None, text
    return found


def destinations(text: str) -> list[str]:
    return [str(mailbox) for mailbox in record(text).rua]


class Examples(SynchronousTestCase):
    """RFC 9989, Appendix B.2."""

    def test_monitoring_mode(self) -> None:
        found = record("v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com")
        self.assertEqual((found.p, found.sp, found.np, found.testing), ("none", None, None, False))
        self.assertEqual([str(one) for one in found.rua], ["dmarc-feedback@example.com"])
        self.assertEqual((found.psd, found.adkim, found.aspf, found.faults), ("u", "r", "r", ()))

    def test_failure_reports_change_nothing(self) -> None:
        found = record(
            "v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com;"
            " ruf=mailto:auth-reports@thirdparty.example.net"
        )
        self.assertEqual(found, record("v=DMARC1; p=none; rua=mailto:dmarc-feedback@example.com"))

    def test_subdomain_in_test_mode_with_two_destinations(self) -> None:
        text = (
            "v=DMARC1; p=quarantine; rua=mailto:dmarc-feedback@example.com,"
            "mailto:tld-test@thirdparty.example.net; t=y"
        )
        found = record(text)
        self.assertEqual((found.p, found.testing), ("quarantine", True))
        self.assertEqual(
            destinations(text),
            ["dmarc-feedback@example.com", "tld-test@thirdparty.example.net"],
        )


class Reading(SynchronousTestCase):
    def test_the_version_has_to_be_first_and_exact(self) -> None:
        for text in (
            "",
            "p=none; v=DMARC1",
            "v=DMARC1x; p=none",
            "v=DMARC1 p=none",
            "v=dmarc1; p=none",
            "v=DMARC2; p=none",
            "=DMARC1",
            ";v=DMARC1; p=none",
            "v=spf1 -all",
            "v\x00=DMARC1; p=none",
        ):
            self.assertIsNone(parse(text), text)
        for text in ("v=DMARC1;p=reject", " V = DMARC1 ; P = Reject ; ", "v=DMARC1;\r\n p=reject"):
            self.assertEqual(record(text).p, "reject", text)

    def test_every_tag_is_read_in_any_order(self) -> None:
        found = record(
            "v=DMARC1; t=y; psd=n; aspf=s; adkim=S; np=reject; sp=quarantine; p=none;"
            " fo=1:d:s; ruf=mailto:a@b.example; rua=mailto:c@d.example"
        )
        self.assertEqual((found.p, found.sp, found.np), ("none", "quarantine", "reject"))
        self.assertEqual((found.psd, found.adkim, found.aspf), ("n", "s", "s"))
        self.assertEqual((found.testing, found.fo), (True, "1:d:s"))

    def test_tags_of_the_older_standard_and_unknown_ones_are_ignored(self) -> None:
        old = record(
            "v=DMARC1; p=reject; pct=20; rf=afrf; ri=3600; x-new=1; rua=mailto:a@b.example"
        )
        self.assertEqual(old, record("v=DMARC1; p=reject; rua=mailto:a@b.example"))

    def test_what_cannot_be_read_counts_as_absent(self) -> None:
        found = record("v=DMARC1; p=reject; adkim=strict; aspf; t=yes; psd=maybe; fo=0:1; ;;=;x=")
        self.assertEqual((found.p, found.adkim, found.aspf), ("reject", "r", "r"))
        self.assertEqual((found.testing, found.psd, found.fo), (False, "u", "0"))
        self.assertEqual(
            found.faults,
            (
                "psd: found maybe, expected y or n or u",
                "t: found yes, expected y or n",
                "adkim: found strict, expected r or s",
            ),
        )

    def test_a_second_tag_of_one_name_is_ignored(self) -> None:
        self.assertEqual(record("v=DMARC1; p=quarantine; p=reject").p, "quarantine")

    def test_failure_options_need_a_place_for_failure_reports(self) -> None:
        self.assertEqual(record("v=DMARC1; p=none; fo=1").fo, "0")
        self.assertEqual(record("v=DMARC1; p=none; fo=1; ruf=mailto:a@b.example").fo, "1")
        self.assertEqual(record("v=DMARC1; p=none; fo=d:d; ruf=mailto:a@b.example").fo, "0")

    def test_faults_name_the_tag(self) -> None:
        self.assertEqual(
            record("v=DMARC1; p=none; rua=a; fo=2; ruf=mailto:a@b.example").faults,
            (
                "rua: found a, expected a list of URIs",
                "fo: found 2, expected 0, 1, d and s, with colons between them",
            ),
        )

    def test_a_record_without_a_valid_request_applies_only_if_it_asks_for_reports(self) -> None:
        for tags in ("", "p=hard;", "p=reject; sp=strict;", "p=reject; np=;np=x;"):
            found = record(f"v=DMARC1; {tags} rua=mailto:a@b.example")
            self.assertEqual((found.p, found.sp, found.np), ("none", None, None), tags)
            self.assertTrue(found.applies)
            self.assertFalse(record(f"v=DMARC1; {tags}").applies, tags)
            self.assertFalse(record(f"v=DMARC1; {tags} rua=a@b.example").applies, tags)
        # RFC 9989 §4.10.1: any URI will do.
        self.assertTrue(record("v=DMARC1; rua=https://b.example/reports").applies)

    def test_the_test_mode_is_one_level_lower(self) -> None:
        lower = [lowered("reject"), lowered("quarantine"), lowered("none")]
        self.assertEqual(lower, ["quarantine", "none", "none"])


class Destinations(SynchronousTestCase):
    def test_size_limits_and_other_schemes_are_ignored(self) -> None:
        text = (
            "v=DMARC1; p=none; rua= mailto:a@b.example!10m , https://b.example/x,MAILTO:c@d.example"
        )
        self.assertEqual(destinations(text), ["a@b.example", "c@d.example"])

    def test_addresses_are_decoded_and_given_once(self) -> None:
        text = "v=DMARC1; p=none; rua=mailto:a%2Bb%21@c.example?subject=x,mailto:a+b%21@C.example"
        self.assertEqual(destinations(text), ["a+b!@c.example"])

    def test_what_is_no_address_is_left_out(self) -> None:
        for uri in (
            "mailto:",
            "mailto:a",
            "mailto:a@[192.0.2.1]",
            "mailto:a@b.example%0D%0ABcc:x@y.example",
            "mailto:%C3%A9@b.example",
            "mailto:%FF@b.example",
            "mailto:<a@b.example>",
            "https://b.example",
            "sip:a@b.example",
        ):
            self.assertIsNone(mailto(uri), uri)

    def test_ten_destinations_are_read(self) -> None:
        uris = ",".join(f"mailto:a{number}@b.example" for number in range(50))
        self.assertEqual(len(destinations(f"v=DMARC1; p=none; rua={uris}")), 10)


class Hostile(SynchronousTestCase):
    def test_a_record_that_is_too_long_is_none(self) -> None:
        text = "v=DMARC1; p=reject; x="
        self.assertIsNotNone(parse(text + "y" * (LONGEST - len(text))))
        self.assertIsNone(parse(text + "y" * (LONGEST - len(text) + 1)))

    def test_no_record_takes_long(self) -> None:
        collect_nothing(self)
        room = LONGEST - 40
        for filler in (
            ";",
            "; ",
            "a=",
            "a=b;",
            " ",
            "=",
            "\t=",
            "p=none;",
            "mailto:a@b,",
            "!",
            "%",
        ):
            for head in ("v=DMARC1;", "v", "v=DMARC1; rua="):
                text = (head + filler * (room // len(filler))).encode()
                started = process_time()
                Record.parse(text)
                self.assertLess(process_time() - started, 0.02, (head, filler))

    def test_octets_that_are_not_ascii_are_never_an_error(self) -> None:
        for octets in (
            b"\xff",
            b"v=DMARC1; p=\xff; rua=\xff",
            b"v=DMARC1;p=none;rua=mailto:\xff@b",
        ):
            found = Record.parse(octets)
            if found:
                self.assertTrue(all(fault.isprintable() for fault in found.faults))
