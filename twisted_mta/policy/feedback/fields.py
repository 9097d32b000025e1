"""The fields that ask receivers for reports of complaints: CFBL-Address and CFBL-Feedback-ID."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from ...mail.address import Mailbox
from ...message.header import field
from ..dmarc.author import author

_NAMES = ("cfbl-address", "cfbl-feedback-id")


@frozen
class FeedbackTerms:
    """Where reports go, and for which mail they are asked.

    Attributes:
        address: that gets the reports.
        signing_domains: of our keys for DKIM.
    """

    address: Mailbox
    signing_domains: frozenset[str]

    def covers(self, domain: str) -> bool:
        """Whether mail with a domain in From may ask for reports to the address.

        Receivers believe the field only if a signature of that very domain covers it, and the
        domain of the address is the same or below it (RFC 9477 §3.1.1, §3.1.2). A third party's
        address, which needs a second signature, is not written.
        """
        return domain in self.signing_domains and (f".{self.address.domain}".endswith(f".{domain}"))


def feedback_fields(header: bytes, terms: FeedbackTerms, make_id: Callable[[], str]) -> bytes:
    """Return the fields to put in front of a message of our users; empty: none.

    A message that has one of them already is left as it is.

    Args:
        header: header section of the message.
        terms: of the operator.
        make_id: returns the id of the message.
    """
    if not terms.covers(author(header).domain):
        return b""
    if any(field(header, name) is not None for name in _NAMES):
        return b""
    return (
        f"CFBL-Address: {terms.address}; report=arf\r\nCFBL-Feedback-ID: {make_id()}\r\n"
    ).encode("ascii")
