"""ESMTP extensions (RFC 5321 §2.2), one per file.

An extension announces itself in the reply to EHLO, reads the parameters it adds to MAIL and RCPT,
and says how much longer it makes those lines. The session knows none of them by name, so one more
is one more file and one more place in the tuple that the session is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import field, frozen

from ..command import ParameterReader

if TYPE_CHECKING:
    from ..session import Session


@frozen
class Extension:
    """An ESMTP extension; those that do more than stand in the list override `announcement`.

    Attributes:
        keyword: its EHLO keyword.
        mail: the readers of the parameters it adds to MAIL, by upper-case keyword.
        rcpt: likewise for RCPT.
        mail_octets: how much longer it allows the MAIL line to be.
        rcpt_octets: likewise for RCPT.
    """

    keyword: str
    mail: Mapping[str, ParameterReader] = field(factory=dict)
    rcpt: Mapping[str, ParameterReader] = field(factory=dict)
    mail_octets: int = 0
    rcpt_octets: int = 0

    def announcement(self, session: Session) -> str | None:
        """Return the line for the EHLO reply, or None where it is not on offer now."""
        return self.keyword
