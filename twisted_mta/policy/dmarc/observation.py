"""What DMARC observed of one message, for the aggregate report to its domain (RFC 9990 §3.1)."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

from .discovery import Published
from .handling import Reason
from .identifiers import Signature

MOST_SIGNATURES = 10
"""Signatures of one message that are reported; those that count most come first."""


@frozen(kw_only=True)
class Row:
    """All that messages of one row of a report have in common.

    Attributes:
        source: the IP address of the client.
        disposition: what became of them; ``pass``: they passed where others are not let through.
        dkim: whether a signature that passes is aligned.
        spf: whether SPF passes with an aligned domain.
        reasons: why it is not what the record asks for.
        header_from: the author domain.
        envelope_from: the domain of the reverse-path; empty: the null one.
        signatures: with their results, the most important first.
        spf_domain: of the MAIL FROM identity; empty: SPF was not evaluated.
        spf_result: the word of RFC 8601 §2.7.2.
    """

    source: str
    disposition: Literal["none", "pass", "quarantine", "reject"]
    dkim: bool
    spf: bool
    reasons: tuple[Reason, ...]
    header_from: str
    envelope_from: str
    signatures: tuple[Signature, ...] = ()
    spf_domain: str = ""
    spf_result: str = "none"


@frozen
class Observation:
    """One message.

    Attributes:
        published: the record that applies, and its domain: the one that gets the report.
        row: what counts it.
    """

    published: Published
    row: Row
