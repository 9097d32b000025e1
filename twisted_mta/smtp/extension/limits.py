"""LIMITS (RFC 9422): a server announces how much it takes, and a client keeps to it."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from attrs import frozen

from ...mail.envelope import Recipient
from . import Extension

_MAXIMUM = 999_999
_VALUE = re.compile(r"[1-9][0-9]{0,5}")  # RFC 9422 §4: %x31-39 0*5DIGIT, for all three


def limits(max_recipients: int) -> Extension:
    """Return the extension that announces how many RCPT commands a transaction may have.

    We limit neither the transactions of a session nor the domains in it, so neither is announced.
    """
    return Extension(f"LIMITS RCPTMAX={min(max_recipients, _MAXIMUM)}")


@frozen
class Limits:
    """The limits that a server has announced; None where it has not.

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
        """Return the limits in parameters of the keyword; unknown and malformed ones are ignored.

        Of a limit that is given twice, the smaller value holds.
        """
        values: dict[str, int] = {}
        for word in text.split():
            name, _, value = word.upper().partition("=")
            if name in _NAMES and _VALUE.fullmatch(value):
                values[_NAMES[name]] = min(int(value), values.get(_NAMES[name], _MAXIMUM))
        return cls(**values)

    def fitting(
        self, recipients: Sequence[Recipient], domains: Collection[str]
    ) -> Sequence[Recipient]:
        """Return those recipients that may be in the next transaction, in their order.

        Args:
            recipients: of a message.
            domains: of the RCPT commands of this session so far.
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


NO_LIMITS = Limits()

_NAMES = {"MAILMAX": "mails", "RCPTMAX": "recipients", "RCPTDOMAINMAX": "domains"}
