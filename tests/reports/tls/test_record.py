"""Records that ask for reports on TLS."""

from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from twisted_mta.reports.tls.record import LONGEST, ReportRecord, report_record


class Records(SynchronousTestCase):
    def read(self, *texts: str | bytes) -> ReportRecord | None:
        return report_record([each.encode() if isinstance(each, str) else each for each in texts])

    def destinations(self, *texts: str | bytes) -> Sequence[str]:
        record = self.read(*texts)
        assert record is not None
        return [*map(str, record.mailboxes), *map(str, record.collectors)]

    def test_the_examples_of_the_rfc(self) -> None:
        # RFC 8460 §3.1
        self.assertEqual(
            self.destinations("v=TLSRPTv1;rua=mailto:reports@example.com"), ["reports@example.com"]
        )
        self.assertEqual(
            self.destinations("v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt"),
            ["https://reporting.example.com/v1/tlsrpt"],
        )

    def test_several_destinations(self) -> None:
        self.assertEqual(
            self.destinations(
                "v=TLSRPTv1; rua=mailto:a@example.com , https://b.example:8443/x?y=%2C,"
                "mailto:c%2Bd@example.com?subject=x ;"
            ),
            ["a@example.com", "c+d@example.com", "https://b.example:8443/x?y=%2C"],
        )

    def test_destinations_are_named_once(self) -> None:
        self.assertEqual(
            self.destinations("v=TLSRPTv1;rua=mailto:a@b.example,mailto:a@B.example"),
            ["a@b.example"],
        )

    def test_other_texts_do_not_count(self) -> None:
        self.assertEqual(
            self.destinations("v=spf1 -all", "v=TLSRPTv1;rua=mailto:a@b.example", "v=TLSRPTv2;"),
            ["a@b.example"],
        )
        for texts in (
            (),
            ("v=TLSRPTv1;rua=mailto:a@b.example", "v=TLSRPTv1;rua=mailto:c@b.example"),
            ("V=TLSRPTv1;rua=mailto:a@b.example",),
            ("v=tlsrptv1;rua=mailto:a@b.example",),
            ("v=TLSRPTv10;rua=mailto:a@b.example",),
            (" v=TLSRPTv1;rua=mailto:a@b.example",),
        ):
            self.assertIsNone(self.read(*texts), texts)

    def test_extensions_are_ignored(self) -> None:
        record = self.read("v=TLSRPTv1; ext=some thing; rua=mailto:a@b.example; x-y_z.1=2=3")
        assert record is not None
        self.assertEqual((len(record.mailboxes), record.faults), (1, ()))

    def test_what_is_wrong_is_named_and_the_rest_is_used(self) -> None:
        for text, fault in (
            ("v=TLSRPTv1", "found no rua, expected rua=mailto: or rua=https:"),
            ("v=TLSRPTv1; rua", "found rua, expected name=value"),
            ("v=TLSRPTv1; rua=", "found rua=, expected name=value"),
            ("v=TLSRPTv1; RUA=mailto:a@b.example", "found no rua"),
            (
                "v=TLSRPTv1; rua=http://b.example/",
                "rua: found http://b.example/, expected a mailto: or https: URI",
            ),
            ("v=TLSRPTv1; rua=a@b.example", "rua: found a@b.example, expected"),
            ("v=TLSRPTv1; rua=https://", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://u@b.example/", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://b.example:0/", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://b.example:99999/", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://b..example/", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://[::1]/", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=https://b.example/a b", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=mailto:a@[127.0.0.1]", "expected a mailto: or https: URI"),
            ("v=TLSRPTv1; rua=mailto:a@b.example!10m", "expected a mailto: or https: URI"),
        ):
            record = self.read(f"{text}; rua=mailto:z@b.example" if "rua=https" in text else text)
            assert record is not None, text
            self.assertEqual((record.mailboxes, record.collectors), ((), ()), text)
            self.assertIn(fault, "; ".join(record.faults), text)
        self.assertEqual(
            self.destinations("v=TLSRPTv1; rua=ftp://x/, mailto:a@b.example"), ["a@b.example"]
        )

    def test_a_hostile_record_costs_little(self) -> None:
        many = ",".join(f"mailto:a{number}@b.example" for number in range(100))
        self.assertEqual(len(self.destinations(f"v=TLSRPTv1;rua={many}")), 10)
        record = self.read(b"v=TLSRPTv1;" + b"rua=mailto:a@b.example," * 1_000)
        assert record is not None
        self.assertEqual(record.mailboxes, ())
        self.assertIn(f"expected at most {LONGEST}", record.faults[0])
        record = self.read(b"v=TLSRPTv1;rua=\xff\x00\x1b[2J,https://\x1b/")
        assert record is not None
        self.assertTrue("".join(record.faults).isprintable())
