"""LIMITS (RFC 9422): a server says beforehand how much it takes, and a client keeps to that."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from attrs import frozen

from ...mail.envelope import Recipient
from . import Extension

_MOST = 999_999
_VALUE = re.compile(r"[1-9][0-9]{0,5}")  # RFC 9422 §4: %x31-39 0*5DIGIT, for all three


def limits(max_recipients: int) -> Extension:
    """Return the extension that says how many RCPT commands a transaction may have.

    There is no limit on the transactions of a session or the domains in it, so neither is said.
    """
    return Extension(f"LIMITS RCPTMAX={min(max_recipients, _MOST)}")


@frozen
class Limits:
    """What a server has announced, each None where it has not.

    Attributes:
        mails: MAIL commands of a session, refused ones included (MAILMAX).
        recipients: RCPT commands of a transaction (RCPTMAX).
        domains: different domains in the RCPT commands of a session (RCPTDOMAINMAX).
    """

    mails: int | None = None
    recipients: int | None = None
    domains: int | None = None

    @classmethod
    def announced(cls, text: str) -> Limits:
        """Return what stands behind the keyword; what is unknown or malformed is as if not there.

        Of a limit that is given twice, the smaller one holds.
        """
        found: dict[str, int] = {}
        for word in text.split():
            name, _, value = word.upper().partition("=")
            if name in _NAMES and _VALUE.fullmatch(value):
                found[_NAMES[name]] = min(int(value), found.get(_NAMES[name], _MOST))
        return cls(**found)

    def fitting(
        self, recipients: Sequence[Recipient], domains: Collection[str]
    ) -> Sequence[Recipient]:
        """Return those who may come next, in their order.

        Args:
            recipients: of a message.
            domains: those that the session has had in RCPT commands already.
        """
        if self.domains is not None:
            recipients = tuple(self._of_few_domains(recipients, domains))
        return recipients if self.recipients is None else recipients[: self.recipients]

    def _of_few_domains(
        self, recipients: Iterable[Recipient], domains: Collection[str]
    ) -> Iterable[Recipient]:
        assert self.domains is not None
        left = self.domains - len(domains)
        added: dict[str, None] = {}
        for recipient in recipients:
            domain = recipient.mailbox.domain
            if domain not in domains and domain not in added:
                if len(added) >= left:
                    continue
                added[domain] = None
            yield recipient


_NAMES = {"MAILMAX": "mails", "RCPTMAX": "recipients", "RCPTDOMAINMAX": "domains"}
