"""A finding of a check, and the report of all findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from ...mail.counted import counted
from ...mail.printable import printable

if TYPE_CHECKING:
    from ...agent.expiry import Expiry

Severity = Literal["error", "warning", "note", "pass", "fail"]


@frozen
class Finding:
    """A problem of the configuration or the machine, or a fact that an operator should know.

    Attributes:
        severity: error: a start fails, or mail is refused or lost; warning: a start succeeds;
            note: a fact, and no problem. Of records of the DNS: pass: it is as it should be; fail:
            other hosts will refuse mail, or send none.
        where: the setting, file or place; printable.
        what: the problem or fact; printable.
        do: the remedy, or what was expected; empty: none.
        records: lines of a zone file to publish; printable.
    """

    severity: Severity
    where: str
    what: str
    do: str = ""
    records: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = f"{self.where}: {self.what}" if self.where else self.what
        return f"{words}; {self.do}" if self.do else words

    @classmethod
    def from_error(cls, severity: Severity, text: str, where: str = "") -> Finding:
        """Return a finding for an error whose text has the form ``WHERE: WHAT; DO``.

        Args:
            severity: of the finding.
            text: one line; made printable.
            where: the place, with which ``text`` may begin; empty: all of ``text`` up to its first
                colon and space.
        """
        text = printable(text)
        if not where:
            where, colon, rest = text.partition(": ")
            text = rest if colon else text
            where = where if colon else ""
        else:
            text = text.removeprefix(where).removeprefix(": ")
        what, semicolon, do = text.rpartition("; ")
        return cls(severity, where, what, do) if semicolon else cls(severity, where, text)


@frozen
class Topic:
    """A kind of record of a domain, about which there is a finding.

    Attributes:
        domain: the domain.
        kind: the kind, in one word.
    """

    domain: str
    kind: str

    def finding(
        self, severity: Severity, what: str, do: str = "", records: Sequence[str] = ()
    ) -> Finding:
        """Return a finding about it."""
        return Finding(severity, f"{self.domain} {self.kind}", what, do, tuple(records))

    def failed(self, failure: object) -> Finding:
        """Return the finding of a look-up that has failed."""
        return self.finding("warning", f"cannot be looked up now: {failure}", "check again later")


@frozen
class Report:
    """All findings of one check.

    Attributes:
        of: the file that was checked, or "the defaults".
        findings: in the order of the check.
        expiries: what expires, the first first.
        now: wall time of the check.
    """

    of: str
    findings: Sequence[Finding]
    expiries: Sequence[Expiry] = ()
    now: float = 0.0

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def good(self) -> bool:
        """Whether a start would succeed."""
        return not self.count("error")

    @property
    def passed(self) -> bool:
        """Whether a start would succeed, and the DNS has what it should have, if it was asked."""
        return self.good and not self.count("fail")

    @property
    def verdict(self) -> str:
        """The result in one line."""
        counts = [
            f"{number} {severity}{'s' if number > 1 else ''}"
            for severity in ("error", "warning")
            if (number := self.count(severity))
        ]
        if failures := self.count("fail"):
            counts.append(f"{failures} to correct in the DNS")
        words = "a start would work" if self.good else "not ready to start"
        return f"{self.of}: {words}" + (f" ({', '.join(counts)})" if counts else "")

    @property
    def expiry_lines(self) -> Sequence[str]:
        """A line for each certificate and key that expires."""
        lines = []
        for each in self.expiries:
            left = each.days_left(self.now)
            when = f"in {counted(left, 'day')}" if left >= 0 else f"{counted(-left, 'day')} ago"
            lines.append(f"{each.day} ({when}): {each.kind} of {each.of}, {each.file}; {each.do}")
        return lines

    def as_json(self) -> Mapping[str, Any]:
        """Return the object that ``--json`` writes."""
        return {
            "version": 1,
            "of": self.of,
            "good": self.good,
            "findings": [
                {
                    "severity": finding.severity,
                    "where": finding.where,
                    "what": finding.what,
                    "do": finding.do,
                    **({"records": finding.records} if finding.records else {}),
                }
                for finding in self.findings
            ],
            "expiries": [each.to_json() for each in self.expiries],
        }
