"""What a check found: how bad it is, where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from attrs import frozen

from ...mail.printable import printable

Severity = Literal["error", "warning", "note"]


@frozen
class Finding:
    """Something that a start would stumble over, or that an operator would want to know.

    Attributes:
        severity: with an error a start fails, or mail is refused or lost; a warning lets it go on;
            a note only tells.
        where: the setting, the file or the place, printable.
        what: what is so there, printable.
        do: what to do about it; empty where there is nothing to do.
    """

    severity: Severity
    where: str
    what: str
    do: str = ""

    def __str__(self) -> str:
        words = f"{self.where}: {self.what}" if self.where else self.what
        return f"{words}; {self.do}" if self.do else words

    @classmethod
    def said(cls, severity: Severity, text: str, where: str = "") -> Finding:
        """Return a finding of the text of an error, which says what to do behind a semicolon.

        Args:
            severity: see the class.
            text: one line; made printable.
            where: what ``text`` begins with, if it does, or else what goes before it; empty: all
                up to its first colon and space.
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
class Report:
    """All findings of one check.

    Attributes:
        of: what was checked: a file, or the defaults.
        findings: in the order in which they were made.
    """

    of: str
    findings: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        """Return how many findings are that bad."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def good(self) -> bool:
        """Whether a start would work."""
        return not self.count("error")

    @property
    def verdict(self) -> str:
        """One line that says what came of it."""
        counts = [
            f"{number} {severity}{'s' if number > 1 else ''}"
            for severity in ("error", "warning")
            if (number := self.count(severity))
        ]
        words = "a start would work" if self.good else "not ready to start"
        return f"{self.of}: {words}" + (f" ({', '.join(counts)})" if counts else "")

    def as_json(self) -> Mapping[str, Any]:
        """Return what `--json` writes."""
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
                }
                for finding in self.findings
            ],
        }
