"""The result of an SPF check (RFC 7208 §2.6)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Word = Literal["none", "neutral", "pass", "fail", "softfail", "temperror", "permerror"]


@frozen
class Result:
    """The result of a check, and where it comes from.

    All text is printable ASCII of bounded length.

    Attributes:
        result: the word.
        domain: whose record decided: the domain that was checked, or the last one that
            ``redirect=`` led to; where there is a problem, the domain that has it.
        mechanism: the one that matched, as it stands in the record of ``domain``; empty: none did.
        explanation: of a ``fail``, in the words of the owner of ``domain`` (``exp=``, §6.2);
            empty: there is none.
        problem: why the result is ``none``, ``temperror`` or ``permerror``; empty for all others.
    """

    result: Word
    domain: str = ""
    mechanism: str = ""
    explanation: str = ""
    problem: str = ""

    @property
    def reason(self) -> str:
        """What led to the result: ``ip4:192.0.2.0/24 of example.net``."""
        if self.problem:
            return self.problem
        if self.mechanism:
            return f"{self.mechanism} of {self.domain}"
        return f"no mechanism of {self.domain} matches"

    def __str__(self) -> str:
        return f"{self.result} ({self.reason})"
