"""The JSON of reports on TLS, its file, and the mail that carries it."""

import gzip
import json
from email import message_from_bytes, policy

from twisted.trial.unittest import SynchronousTestCase

from tests.reports.tls.results import report, result
from twisted_mta.mail.address import Mailbox
from twisted_mta.reports.tls.report import report_mail
from twisted_mta.reports.tls.rows import ROWS, row_of


class Reports(SynchronousTestCase):
    def test_the_example_of_the_rfc(self) -> None:
        self.assertEqual(
            report().values(),
            {
                "organization-name": "Company-X",
                "date-range": {
                    "start-datetime": "2016-04-01T00:00:00Z",
                    "end-datetime": "2016-04-01T23:59:59Z",
                },
                "contact-info": "sts-reporting@company-x.example",
                "report-id": "5065427c@company-x.example",
                "policies": [
                    {
                        "policy": {
                            "policy-type": "sts",
                            "policy-string": [
                                "version: STSv1",
                                "mode: testing",
                                "mx: *.mail.company-y.example",
                                "max_age: 86400",
                            ],
                            "policy-domain": "company-y.example",
                            "mx-host": ["*.mail.company-y.example"],
                        },
                        "summary": {
                            "total-successful-session-count": 5326,
                            "total-failure-session-count": 303,
                        },
                        "failure-details": [
                            {
                                "result-type": "certificate-expired",
                                "sending-mta-ip": "2001:db8:abcd:12::1",
                                "receiving-mx-hostname": "mx1.mail.company-y.example",
                                "failed-session-count": 100,
                            },
                            {
                                "result-type": "starttls-not-supported",
                                "sending-mta-ip": "2001:db8:abcd:13::1",
                                "receiving-mx-hostname": "mx2.mail.company-y.example",
                                "receiving-ip": "203.0.113.56",
                                "failed-session-count": 200,
                            },
                            {
                                "result-type": "validation-failure",
                                "sending-mta-ip": "198.51.100.62",
                                "receiving-mx-hostname": "mx-backup.mail.company-y.example",
                                "receiving-ip": "203.0.113.58",
                                "failed-session-count": 3,
                                "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED",
                            },
                        ],
                    }
                ],
            },
        )

    def test_each_policy_has_its_own_counts(self) -> None:
        dane = result(
            policy_type="tlsa",
            policy_domain="mx.company-y.example",
            policy_strings=("3 1 1 ABCDEF",),
            mx_patterns=(),
        )
        refused = result(
            policy_type="no-policy-found",
            policy_strings=(),
            mx_patterns=(),
            result="starttls-not-supported",
        )
        values = report([(dane, 2), (refused, 1)]).values()
        self.assertEqual(
            [(each["policy"], each["summary"]) for each in values["policies"]],
            [
                (
                    {
                        "policy-type": "tlsa",
                        "policy-domain": "mx.company-y.example",
                        "policy-string": ["3 1 1 ABCDEF"],
                    },
                    {"total-successful-session-count": 2, "total-failure-session-count": 0},
                ),
                (
                    {"policy-type": "no-policy-found", "policy-domain": "company-y.example"},
                    {"total-successful-session-count": 0, "total-failure-session-count": 1},
                ),
            ],
        )
        self.assertNotIn("failure-details", values["policies"][0])

    def test_the_file_has_the_name_of_the_rfc(self) -> None:
        # §5.1: sender "!" policy-domain "!" begin "!" end "!" unique-id "." extension
        self.assertEqual(
            report().file_name,
            "company-x.example!company-y.example!1459468800!1459555199!5065427c.json.gz",
        )

    def test_the_same_report_is_the_same_octets(self) -> None:
        self.assertEqual(report().compressed(), report().compressed())

    def test_rows_survive_the_way_to_the_disk(self) -> None:
        for row, _ in report().rows:
            self.assertEqual(ROWS.row(ROWS.text(row)), row)

    def test_texts_of_peers_are_cut(self) -> None:
        huge = result(
            policy_strings=("x" * 65_536,) * 5_000,
            mx_patterns=("*.a.example",) * 5_000,
            result="validation-failure",
            reason_code="y" * 65_536,
            information="z" * 65_536,
        )
        self.assertLess(len(ROWS.text(row_of(huge))), 8_000)

    def test_sessions_that_succeeded_share_a_row(self) -> None:
        rows = {
            row_of(result(receiving_mx=f"mx{number}", receiving_ip="192.0.2.1"))
            for number in (1, 2)
        }
        self.assertEqual(rows, {result()})


class Mail(SynchronousTestCase):
    def content(self, domain: str = "company-y.example") -> bytes:
        to = [Mailbox.parse("tls@company-y.example"), Mailbox.parse("b@reports.example")]
        return report_mail(report(domain=domain), to, time=1_459_556_000).content()

    def test_programs_find_what_they_need_in_the_header(self) -> None:
        message = message_from_bytes(self.content(), policy=policy.default)
        self.assertEqual(message["From"], "Company-X <sts-reporting@company-x.example>")
        self.assertEqual(message["To"], "tls@company-y.example, b@reports.example")
        self.assertEqual(
            " ".join(message["Subject"].split()),
            "Report Domain: company-y.example Submitter: company-x.example"
            " Report-ID: <5065427c@company-x.example>",
        )
        self.assertEqual(message["TLS-Report-Domain"], "company-y.example")
        self.assertEqual(message["TLS-Report-Submitter"], "company-x.example")
        self.assertEqual(message["TLS-Required"], "No")
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message["Content-Type"].params["report-type"], "tlsrpt")
        self.assertEqual(message.defects, [])

    def test_the_report_is_its_second_part(self) -> None:
        message = message_from_bytes(self.content(), policy=policy.default)
        text, data = message.iter_parts()
        self.assertIn("5,326 sessions succeeded, 303 failed.", text.get_content())
        self.assertEqual(data.get_content_type(), "application/tlsrpt+gzip")
        self.assertEqual(data.get_filename(), report().file_name)
        self.assertEqual(json.loads(gzip.decompress(data.get_content())), report().values())

    def test_lines_stay_within_their_limit(self) -> None:
        label = "a" * 60
        content = self.content(f"{label}.{label}.{label}.{label}.example")
        self.assertLess(max(map(len, content.split(b"\r\n"))), 998)
        self.assertNotIn(b"\n\n", content.replace(b"\r\n", b""))
