"""Records and policies of MTA-STS (RFC 8461 §3), as their domains write them."""

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.system.real_world import system_random
from twisted_mta.tls.mta_sts.policy import LARGEST, Policy, PolicyError, record_id

# RFC 8461 §3.2 and Appendix A.
EXAMPLE = (
    b"version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\n"
    b"mx: backupmx.example.com\nmax_age: 604800\n"
)


class RecordTests(SynchronousTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        self.assertEqual(record_id([b"v=STSv1; id=20160831085700Z;"]), "20160831085700Z")

    def test_the_last_semicolon_is_optional(self) -> None:
        self.assertEqual(record_id([b"v=STSv1;id=1"]), "1")

    def test_unknown_fields_are_ignored(self) -> None:
        self.assertEqual(record_id([b"v=STSv1; x-y.z=a:b/c; id=1; more=2"]), "1")

    def test_other_records_are_discarded_before_they_are_counted(self) -> None:
        texts = [b"v=spf1 -all", b"v=STSv1; id=1;", b"v=STSv12; id=2;", b"v=stsv1; id=3;"]
        self.assertEqual(record_id(texts), "1")

    def test_a_domain_without_a_record(self) -> None:
        self.assertIsNone(record_id([]))
        self.assertIsNone(record_id([b"v=spf1 -all", b"", b"v=STSv1"]))

    def test_of_an_id_that_is_there_twice_the_first_counts(self) -> None:
        self.assertEqual(record_id([b"v=STSv1; id=1; id=2;"]), "1")

    def test_several_records_are_none(self) -> None:
        with self.assertRaisesRegex(PolicyError, "found 2 records with v=STSv1, expected one"):
            record_id([b"v=STSv1; id=1;", b"v=STSv1; id=1;"])

    def test_records_that_cannot_be_read(self) -> None:
        for record in (
            b"v=STSv1;",
            b"v=STSv1; id=;",
            b"v=STSv1; id=a-b;",
            b"v=STSv1; id=" + b"1" * 33,
            b"v=STSv1; id=\xe9;",
            b"v=STSv1; id;",
            b"v=STSv1; id=1;; x=2",
            b"v=STSv1; id=1\0;",
            b"v=STSv1; -x=1; id=1",
            b"v=STSv1; id=1; x=" + b"y" * 60_000,
        ):
            with self.subTest(record=record[:40]), self.assertRaises(PolicyError) as caught:
                record_id([record])
            self.assertTrue(str(caught.exception).isascii() or "…" in str(caught.exception))


class PolicyTests(SynchronousTestCase):
    def refused(self, body: bytes) -> str:
        with self.assertRaises(PolicyError) as caught:
            Policy.parse(body)
        text = str(caught.exception)
        self.assertTrue(text.isprintable(), text)
        self.assertLess(len(text), 200)
        return text

    def test_the_example_of_the_rfc(self) -> None:
        policy = Policy.parse(EXAMPLE)
        self.assertEqual(policy.mode, "enforce")
        self.assertEqual(policy.max_age, 604_800)
        self.assertEqual(
            policy.patterns, ("mail.example.com", "*.example.net", "backupmx.example.com")
        )

    def test_lines_end_with_lf_or_crlf(self) -> None:
        self.assertEqual(Policy.parse(EXAMPLE.replace(b"\n", b"\r\n")), Policy.parse(EXAMPLE))
        self.assertEqual(Policy.parse(EXAMPLE.rstrip()), Policy.parse(EXAMPLE))

    def test_space_behind_the_colon_and_the_value(self) -> None:
        loose = EXAMPLE.replace(b": ", b":\t  ").replace(b"\n", b" \t\r\n")
        self.assertEqual(Policy.parse(loose), Policy.parse(EXAMPLE))

    def test_what_is_published_reads_the_same(self) -> None:
        policy = Policy.parse(EXAMPLE)
        self.assertEqual(Policy.parse(policy.body), policy)

    def test_unknown_fields_are_ignored(self) -> None:
        more = "future: ä: b\nx.y-z_1:\n".encode()
        self.assertEqual(Policy.parse(more + EXAMPLE), Policy.parse(EXAMPLE))

    def test_of_fields_that_are_there_twice_the_first_counts(self) -> None:
        twice = EXAMPLE + b"mode: none\nversion: STSv2\nmax_age: 1\n"
        self.assertEqual(Policy.parse(twice), Policy.parse(EXAMPLE))

    def test_names_of_hosts_are_compared_in_lower_case_a_labels(self) -> None:
        policy = Policy.parse(
            b"version: STSv1\nmode: testing\nmax_age: 1\nmx: MX.xn--Bcher-kva.Example.\n"
        )
        self.assertEqual(policy.patterns, ("mx.xn--bcher-kva.example",))
        self.assertTrue(policy.allows("MX.xn--bcher-kva.example."))

    def test_mode_none_needs_no_hosts(self) -> None:
        policy = Policy.parse(b"version: STSv1\nmode: none\nmax_age: 86400\n")
        self.assertEqual((policy.mode, policy.patterns), ("none", ()))

    def test_the_age_has_a_limit(self) -> None:
        body = EXAMPLE.replace(b"604800", b"9999999999")
        self.assertEqual(Policy.parse(body).max_age, 31_557_600)

    def test_policies_that_are_none(self) -> None:
        for change, expected in (
            ((b"version: STSv1\n", b""), "found no version"),
            ((b"STSv1", b"STSv2"), "found version: STSv2"),
            ((b"STSv1", b"stsv1"), "found version: stsv1"),
            ((b"mode: enforce\n", b""), "found no mode"),
            ((b"enforce", b"ENFORCE"), "found mode: ENFORCE"),
            ((b"enforce", b"report"), "found mode: report"),
            ((b"max_age: 604800\n", b""), "found no max_age"),
            ((b"604800", b"-1"), "found max_age: -1"),
            ((b"604800", b"1.5"), "found max_age: 1.5"),
            ((b"604800", b"1 day"), "found max_age: 1 day"),
            ((b"604800", b"99999999999"), "found max_age: 99999999999"),
            ((b"604800", "²".encode()), r"found max_age: \xb2"),
            ((b"604800", b""), "found max_age: "),
            ((b"mx: ", b"x-mx: "), "found no mx"),
            ((b"*.example.net", b"*"), "found mx: *"),
            ((b"*.example.net", b"*."), "found mx: *."),
            ((b"*.example.net", b"a.*.b"), "found mx: a.*.b"),
            ((b"*.example.net", b"*.*.b"), "found mx: *.*.b"),
            ((b"*.example.net", b"a*.b"), "found mx: a*.b"),
            ((b"*.example.net", b".b"), "found mx: .b"),
            ((b"*.example.net", b"[192.0.2.1]"), "found mx: [192.0.2.1]"),
            ((b"*.example.net", b""), "found mx: "),
            ((b"*.example.net", "bücher.example".encode()), r"found mx: b\xfccher.example"),
            ((b"*.example.net", b"x" * 64 + b".b"), "found mx: xxx"),
            ((b"mx: *", b"mx *"), "found the line mx *.example.net"),
            ((b"mode: ", b"mode : "), "found the line mode : enforce"),
            ((b"mode: ", b" mode: "), "found the line  mode: enforce"),
            ((b"mode: enforce", b"mode: enforce\0"), r"found the line mode: enforce\x00"),
            ((b"\n", b"\r"), r"found the line version: STSv1\rmode"),
            ((b"version", b"\xff"), "found octets that are not UTF-8"),
            ((b"version", "\ufeffversion".encode()), r"found the line \ufeffversion"),
            ((EXAMPLE, b"<html></html>"), "found the line <html></html>"),
            ((EXAMPLE, b""), "found no version"),
            ((EXAMPLE, EXAMPLE + b"\n" * LARGEST), "expected 65536 at most"),
            ((EXAMPLE, EXAMPLE + b"mx: a\n" * 2_000), "expected 2000 at most"),
        ):
            with self.subTest(change=change):
                self.assertIn(expected, self.refused(EXAMPLE.replace(*change)))

    def test_anything_is_a_policy_or_a_reason(self) -> None:
        random = system_random()
        random.seed(8461)
        pieces = [*EXAMPLE.splitlines(keepends=True), b"*", b".", b"\0", b"\r", b":", b" ", b"\xff"]
        for _ in range(2_000):
            octets = bytearray(b"".join(random.choices(pieces, k=random.randrange(12))))
            for _ in range(random.randrange(4)):
                if octets:
                    octets[random.randrange(len(octets))] = random.randrange(256)
            try:
                policy = Policy.parse(bytes(octets))
            except PolicyError as error:
                self.assertTrue(str(error).isprintable())
            else:
                self.assertEqual(Policy.parse(policy.body), policy)


class HostTests(SynchronousTestCase):
    def allowed(self, *patterns: str) -> Policy:
        return Policy("enforce", 1, patterns)

    def test_a_name_stands_for_itself(self) -> None:
        policy = self.allowed("mail.example.com")
        self.assertTrue(policy.allows("mail.example.com"))
        self.assertTrue(policy.allows("Mail.Example.COM."))
        for other in ("a.mail.example.com", "example.com", "mail.example.com.b", "", "."):
            self.assertFalse(policy.allows(other), other)

    def test_an_asterisk_stands_for_one_label(self) -> None:
        # RFC 8461 §4.1 has these three.
        policy = self.allowed("*.example.com")
        self.assertTrue(policy.allows("mail.example.com"))
        self.assertFalse(policy.allows("example.com"))
        self.assertFalse(policy.allows("foo.bar.example.com"))
        self.assertFalse(policy.allows(".example.com"))

    def test_a_wildcard_below_a_top_level_domain_is_taken_as_it_is(self) -> None:
        policy = self.allowed("*.com")
        self.assertTrue(policy.allows("example.com"))
        self.assertFalse(policy.allows("mail.example.com"))
