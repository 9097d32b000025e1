"""The policy protocol: when a policy is asked about a session and its mail."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import IO, Protocol

from ..mail.address import Mailbox
from ..message.header import Header
from .answers import Answers, EnvelopeView
from .examination import PolicySession


class Policy(Protocol):
    """Decides on sessions and their mail, beside the rules of the program.

    Each method returns an `Answer`, several of them, or a Deferred or coroutine with that. A method
    that is missing answers None. An exception, or no answer before the deadline, refuses with 451,
    unless the policy was added with another default.

    A policy may have two more methods. ``data(session, envelope)`` decides on a message before its
    content: a refusal is the reply to DATA. ``body(session, envelope, header)`` returns a function
    that takes the octets behind the header section while they stream, in pieces; or None.
    """

    def client(self, session: PolicySession) -> Answers | Awaitable[Answers]:
        """Decide on a client before it is greeted; a refusal stands in place of the greeting."""
        ...

    def helo(self, session: PolicySession) -> Answers | Awaitable[Answers]:
        """Decide on the name in EHLO, HELO or LHLO: ``session.helo``."""
        ...

    def mail(self, session: PolicySession, sender: Mailbox | None) -> Answers | Awaitable[Answers]:
        """Decide on a reverse-path; None is the null one."""
        ...

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Answers | Awaitable[Answers]:
        """Decide on one recipient, which the program's own rules accept."""
        ...

    def header(
        self, session: PolicySession, envelope: EnvelopeView, header: Header
    ) -> Answers | Awaitable[Answers]:
        """Decide at the end of the header section; a refusal is told at the end of the content."""
        ...

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: IO[bytes]
    ) -> Answers | Awaitable[Answers]:
        """Decide on the whole message.

        Args:
            session: that it came in.
            envelope: of the message.
            content: the message, header and body, to be read as often as needed until the answer.
        """
        ...
