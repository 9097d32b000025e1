"""DMARC beside an independent judge: Debian's library of OpenDMARC, which follows RFC 7489.

Both are asked about the same generated cases. What RFC 9989 decides in another way, and what the
library does in another way than both standards, is a test of its own, with the section that makes
the difference.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from tests.functional import opendmarc_judge
from tests.functional.machine import PATIENCE, cannot_run, run
from tests.policy.dmarc.names import Names
from tests.tidy import TidyTestCase
from twisted_mta.policy.dmarc.discovery import walk
from twisted_mta.policy.dmarc.evaluation import evaluate
from twisted_mta.policy.dmarc.identifiers import Identifiers
from twisted_mta.policy.dmarc.record import lowered

Verdict = Sequence[str]
"""The result or the policy to enforce, and the alignment of DKIM and SPF."""

SUFFIXES = "com\nnet\n"
RESULTS = ("pass", "fail", "none")


class Judged(TidyTestCase):
    def setUp(self) -> None:
        try:
            ctypes.CDLL(opendmarc_judge.LIBRARY)
        except OSError as error:
            cannot_run(str(error))

    def judge(
        self, records: Mapping[str, str], cases: Sequence[Mapping[str, Any]]
    ) -> Sequence[Verdict]:
        """Return what OpenDMARC says."""
        suffixes = Path(self.mktemp())
        suffixes.write_text(SUFFIXES, encoding="ascii")
        named = {f"_dmarc.{domain}": text for domain, text in records.items()}
        question = {"suffixes": str(suffixes), "records": named, "cases": cases}
        answer = run(
            sys.executable, opendmarc_judge.__file__, text=json.dumps(question), timeout=PATIENCE
        )
        self.assertEqual(answer.returncode, 0, answer)
        return [tuple(each) for each in json.loads(answer.stdout)]

    def ours(self, records: Mapping[str, str], case: Mapping[str, Any]) -> Verdict:
        """Return what we say, in the words of the judge."""
        names = Names({f"_dmarc.{domain}": text for domain, text in records.items()})

        def passed(*found: Sequence[str]) -> Identifiers:
            return Identifiers(tuple(domain for domain, result in found if result == "pass"))

        async def evaluated() -> Verdict:
            evaluation = await evaluate(
                await walk(case["author"], names),
                passed(case["spf"]),
                passed(*case["dkim"]),
                names,
            )
            if evaluation.policy is None:
                return ("absent", "", "")
            testing = evaluation.policy.published.record.testing
            request = lowered(evaluation.request) if testing else evaluation.request
            return (
                "pass" if evaluation.result == "pass" else request,
                evaluation.dkim.result,
                evaluation.spf.result,
            )

        return self.successResultOf(Deferred.fromCoroutine(evaluated()))

    def compare(self, records: Mapping[str, str], **case: Any) -> tuple[str, str]:
        """Return the judge's policy or result, and ours, for one case."""
        whole = {"author": "example.com", "spf": ("", "none"), "dkim": [], **case}
        (theirs,) = self.judge(records, [whole])
        return theirs[0], self.ours(records, whole)[0]


class Agreement(Judged):
    def test_on_generated_cases(self) -> None:
        draw = random.Random(1)
        agreed: set[str] = set()
        for _ in range(8):
            records = {"example.com": record(draw)}
            if draw.random() < 0.5:
                records["mail.example.com"] = record(draw)
            cases = [case(draw) for _ in range(100)]
            for each, theirs in zip(cases, self.judge(records, cases), strict=True):
                self.assertEqual(self.ours(records, each), theirs, (records, each))
                agreed.add(theirs[0])
        self.assertEqual(agreed, {"pass", "absent", "none", "quarantine", "reject"})


class Disagreement(Judged):
    """The judge's answer, then ours."""

    def test_the_test_mode_is_new(self) -> None:
        """RFC 9989 §4.7."""
        self.assertEqual(
            self.compare({"example.com": "v=DMARC1; p=reject; t=y"}), ("reject", "quarantine")
        )

    def test_domains_that_do_not_exist_have_a_request_of_their_own(self) -> None:
        """RFC 9989 §4.7."""
        records = {"example.com": "v=DMARC1; p=none; np=reject"}
        self.assertEqual(self.compare(records, author="gone.example.com"), ("none", "reject"))

    def test_a_record_may_end_an_organization(self) -> None:
        """RFC 9989 §4.10.2: psd=n; a list of suffixes has no such entry."""
        records = {
            "example.com": "v=DMARC1; p=none",
            "mail.example.com": "v=DMARC1; p=reject; psd=n",
        }
        case = {"author": "mail.example.com", "spf": ("evil.example.com", "pass")}
        self.assertEqual(self.compare(records, **case), ("pass", "reject"))

    def test_a_public_suffix_may_have_a_policy(self) -> None:
        """RFC 9989 §4.10.1."""
        records = {"com": "v=DMARC1; p=reject; psd=y"}
        self.assertEqual(self.compare(records), ("absent", "reject"))

    def test_organizations_end_at_records_and_not_at_a_list(self) -> None:
        """RFC 9989 §4.10.2: without a record above, each name is its own organization."""
        records = {"mail.example.com": "v=DMARC1; p=reject"}
        case = {"author": "mail.example.com", "spf": ("example.com", "pass")}
        self.assertEqual(self.compare(records, **case), ("pass", "reject"))

    def test_a_public_suffix_is_not_aligned_with_what_is_below_it(self) -> None:
        """RFC 7489 §3.1.1 says so too; the library takes every domain above for aligned."""
        records = {"example.com": "v=DMARC1; p=reject"}
        self.assertEqual(self.compare(records, spf=("com", "pass")), ("pass", "reject"))

    def test_strict_alignment_is_strict(self) -> None:
        """RFC 7489 §3.1 says so too; the library reads the tags, and compares as for relaxed."""
        records = {"example.com": "v=DMARC1; p=reject; adkim=s; aspf=s"}
        for case in ({"spf": ("a.example.com", "pass")}, {"dkim": [("a.example.com", "pass")]}):
            self.assertEqual(self.compare(records, **case), ("pass", "reject"))
        self.assertEqual(self.compare(records, spf=("example.com", "pass")), ("pass", "pass"))

    def test_a_record_without_a_request_is_p_none_if_it_asks_for_reports(self) -> None:
        """RFC 9989 §4.10.1; RFC 7489 §6.6.3 asks for the same, and the library does not."""
        records = {"example.com": "v=DMARC1; rua=mailto:a@example.com"}
        self.assertEqual(self.compare(records)[1], "none")


def record(draw: random.Random) -> str:
    """Return a record that both read alike."""
    requests = ("none", "quarantine", "reject")
    tags = [f"p={draw.choice(requests)}"]
    if draw.random() < 0.5:
        tags.append(f"sp={draw.choice(requests)}")
    for name in ("adkim", "aspf"):
        if draw.random() < 0.5:
            tags.append(f"{name}=r")
    for extra in ("pct=100", "rf=afrf", "ri=3600", "fo=1", "rua=mailto:a@example.com"):
        if draw.random() < 0.3:
            tags.append(extra)
    separator = draw.choice((";", "; ", " ; "))
    return f"v=DMARC1{separator}{separator.join(tags)}{draw.choice(('', ';'))}"


def case(draw: random.Random) -> Mapping[str, Any]:
    """Return a message; of several signatures the library keeps one, whatever its result."""
    authors = ("example.com", "mail.example.com", "a.mail.example.com", "other.net")
    domains = (*authors, "b.example.com", "badexample.com")
    return {
        "author": draw.choice(authors),
        "spf": (draw.choice(domains), draw.choice(RESULTS)),
        "dkim": [
            (draw.choice(domains), draw.choice(("pass", "fail"))) for _ in range(draw.randrange(2))
        ],
    }
