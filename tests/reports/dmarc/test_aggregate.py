"""The XML of aggregate reports, and the mail that carries them."""

import gzip
import re
from collections.abc import Sequence
from email import message_from_bytes, policy
from typing import Any
from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from tests.reports.dmarc.rows import published, row
from twisted_mta.mail.address import Mailbox
from twisted_mta.policy.dmarc.handling import Reason
from twisted_mta.policy.dmarc.identifiers import Signature
from twisted_mta.reports.dmarc.aggregate import (
    NAMESPACE,
    AggregateReport,
    report_mail,
    xml,
)

# RFC 9990, Appendix A: the elements of each type, in their order; "?": optional, "*": any number,
# "+": one or more.
SCHEMA: dict[str, Sequence[str]] = {
    "feedback": ("version?", "report_metadata", "policy_published", "extension?", "record+"),
    "report_metadata": (
        "org_name",
        "email",
        "extra_contact_info?",
        "report_id",
        "date_range",
        "error?",
        "generator?",
    ),
    "date_range": ("begin", "end"),
    "policy_published": (
        "domain",
        "discovery_method?",
        "p",
        "sp?",
        "np?",
        "fo?",
        "adkim?",
        "aspf?",
        "testing?",
    ),
    "record": ("row", "identifiers", "auth_results"),
    "row": ("source_ip", "count", "policy_evaluated"),
    "policy_evaluated": ("disposition", "dkim", "spf", "reason*"),
    "reason": ("type", "comment?"),
    "identifiers": ("header_from", "envelope_from?", "envelope_to?"),
    "auth_results": ("dkim*", "spf?"),
    "auth_results/dkim": ("domain", "selector", "result", "human_result?"),
    "auth_results/spf": ("domain", "scope?", "result", "human_result?"),
}
REQUEST = "none|quarantine|reject"
VALUES = {
    "version": r"1\.0",
    "begin": r"\d+",
    "end": r"\d+",
    "count": r"[1-9]\d*",
    "p": REQUEST,
    "sp": REQUEST,
    "np": REQUEST,
    "adkim": "r|s",
    "aspf": "r|s",
    "testing": "n|y",
    "discovery_method": "psl|treewalk",
    "disposition": "none|pass|quarantine|reject",
    "policy_evaluated/dkim": "pass|fail",
    "policy_evaluated/spf": "pass|fail",
    "type": "local_policy|mailing_list|other|policy_test_mode|trusted_forwarder",
    "scope": "mfrom",
    "auth_results/dkim/result": "none|pass|fail|policy|neutral|temperror|permerror",
    "auth_results/spf/result": "none|neutral|pass|fail|softfail|temperror|permerror",
    "report_id": r"[A-Za-z0-9.-]+",
    "source_ip": r"[0-9.]+|[0-9a-f:]+",
}


def name(element: ElementTree.Element) -> str:
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")


def check(test: SynchronousTestCase, element: ElementTree.Element, path: str = "") -> None:
    """Check an element and all below it against the schema."""
    test.assertTrue(element.tag.startswith(f"{{{NAMESPACE}}}"), element.tag)
    path = f"{path}/{name(element)}"

    def known(table: Any) -> Any:
        parts = path.split("/")
        for start in range(1, len(parts)):
            if "/".join(parts[start:]) in table:
                return table["/".join(parts[start:])]
        return None

    kinds = known(SCHEMA)
    if kinds is None:
        test.assertEqual(list(element), [], path)
        test.assertRegex(element.text or "", rf"\A(?:{known(VALUES) or '.*'})\Z", path)
        return
    pattern = "".join(
        f"(?:{kind.rstrip('?*+')} ){kind[-1] if kind[-1] in '?*+' else ''}" for kind in kinds
    )
    test.assertRegex("".join(f"{name(child)} " for child in element), rf"\A{pattern}\Z", path)
    for child in element:
        check(test, child, path)


def report(**values: Any) -> AggregateReport:
    settings: dict[str, Any] = {
        "id": "0123abc",
        "organization": "Example & Söhne",
        "contact": Mailbox.parse("postmaster@mx.example"),
        "day": 20_000,
        "published": published(),
        "rows": [(row(), 3)],
    }
    return AggregateReport(**{**settings, **values})


class Reports(SynchronousTestCase):
    def parse(self, **values: Any) -> ElementTree.Element:
        root = ElementTree.fromstring(xml(report(**values)))
        check(self, root)
        return root

    def text(self, root: ElementTree.Element, path: str) -> str | None:
        return root.findtext("/".join(f"{{{NAMESPACE}}}{part}" for part in path.split("/")))

    def test_every_element_is_where_the_schema_has_it(self) -> None:
        full = row(
            "2001:db8::1",
            disposition="quarantine",
            reasons=(
                Reason("policy_test_mode", "lower"),
                Reason("mailing_list", "a <list> & more"),
            ),
            envelope_from="",
            signatures=(
                Signature("example.com", "s1", "pass"),
                Signature("a.example", "s", "fail"),
            ),
            spf_domain="mx.example.com",
            spf_result="softfail",
        )
        root = self.parse(rows=[(row(dkim=True, disposition="pass"), 3), (full, 123)], omitted=7)
        self.assertEqual(len(root.findall(f"{{{NAMESPACE}}}record")), 2)

    def test_the_period_is_a_day_in_utc(self) -> None:
        root = self.parse()
        self.assertEqual(self.text(root, "report_metadata/date_range/begin"), "1728000000")
        self.assertEqual(self.text(root, "report_metadata/date_range/end"), "1728086399")

    def test_tags_that_are_missing_have_their_defaults(self) -> None:
        root = self.parse(published=published(b"v=DMARC1; p=reject; sp=none; t=y; adkim=s"))
        found = [
            self.text(root, f"policy_published/{tag}")
            for tag in ("domain", "p", "sp", "np", "fo", "adkim", "aspf", "testing")
        ]
        self.assertEqual(found, ["example.com", "reject", "none", "none", "0", "s", "r", "y"])

    def test_faults_of_the_record_are_told_to_its_owner(self) -> None:
        root = self.parse(published=published(b"v=DMARC1; p=none; adkim=<strict>"), omitted=2)
        self.assertEqual(
            self.text(root, "report_metadata/error"),
            "adkim: found <strict>, expected r or s; 2 messages in further rows are left out",
        )

    def test_text_of_strangers_is_escaped(self) -> None:
        hostile = Signature("example.com", "</selector>\x00\x1b\ufffe\u2028&", "pass")
        root = self.parse(rows=[(row(signatures=(hostile,)), 1)])
        self.assertEqual(
            self.text(root, "record/auth_results/dkim/selector"),
            "</selector>\\x00\\x1b\\ufffe\\u2028&",
        )


class Mails(SynchronousTestCase):
    def mail(self, **values: Any) -> bytes:
        its_report = report(**values)
        to = [Mailbox.parse("reports@example.com"), Mailbox.parse("dmarc@other.example")]
        return report_mail(its_report, to, time=1_728_090_000).content()

    def test_subject_and_file_name_have_their_form(self) -> None:
        parsed = message_from_bytes(self.mail(), policy=policy.default)
        # RFC 9990 §3.5.2
        self.assertRegex(
            parsed["Subject"],
            r"\AReport Domain:\s+example\.com\s+Submitter:\s+mx\.example\s+Report-ID:\s+0123abc\Z",
        )
        self.assertEqual(parsed["From"].addresses[0].display_name, "Example & Söhne")
        self.assertEqual(parsed["From"].addresses[0].addr_spec, "postmaster@mx.example")
        self.assertEqual(
            [each.addr_spec for each in parsed["To"].addresses],
            ["reports@example.com", "dmarc@other.example"],
        )
        self.assertEqual(parsed["Auto-Submitted"], "auto-generated")
        text, data = parsed.iter_parts()
        self.assertEqual(data.get_content_type(), "application/gzip")
        self.assertEqual(
            data.get_filename(), "mx.example!example.com!1728000000!1728086399!0123abc.xml.gz"
        )
        self.assertEqual(gzip.decompress(data.get_content()), xml(report()))
        self.assertIn("4 Oct 2024", text.get_content())

    def test_names_with_quotes_are_quoted(self) -> None:
        parsed = message_from_bytes(self.mail(organization='A "b" \\ c'), policy=policy.default)
        self.assertEqual(parsed["From"].addresses[0].display_name, 'A "b" \\ c')

    def test_lines_are_short_and_end_with_cr_lf(self) -> None:
        domain = ".".join(["a" * 61] * 4)
        content = self.mail(published=published(domain=domain), rows=[(row(), 1)] * 500)
        self.assertIsNone(re.search(rb"(?<!\r)\n|\r(?!\n)", content))
        self.assertLess(max(map(len, content.split(b"\r\n"))), 998)
        self.assertTrue(content.isascii())
