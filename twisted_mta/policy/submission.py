"""Submission (RFC 6409): rules for mail of authenticated clients, and the Sender field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from attrs import frozen

from ..mail.address import Mailbox
from ..mail.decision import Decision
from ..mail.reply import Reply
from ..smtp.server.session import Session
from .originators import Originators, authors
from .sending_limits import NO_LIMITS, HourlyLimits

SENDER_NOT_ALLOWED = Reply.of(550, "7.1", "Not an address that you may send as")
HEADER_SENDER_NOT_ALLOWED = Reply.of(
    550, "7.1", "From or Sender has an address that you may not send as"
)


@frozen(kw_only=True)
class SubmissionPolicy:
    """The rules of a listener for authenticated clients.

    Attributes:
        own_addresses: where an account is restricted to its own addresses: nowhere, in the
            envelope, or in the header too.
        adds_sender: whether Sender is added if From is not an address of the account (RFC 6409
            §8.1).
        hides_client: whether the Received field leaves out the name and address of the client.
        limits: of an account without limits of its own.
    """

    own_addresses: Literal["off", "envelope", "header"] = "envelope"
    adds_sender: bool = False
    hides_client: bool = False
    limits: HourlyLimits = NO_LIMITS

    @property
    def reads_header(self) -> bool:
        """Whether the header of a message matters."""
        return self.adds_sender or self.own_addresses == "header"


@frozen(kw_only=True)
class Submission:
    """Decides on the mail of authenticated clients.

    Attributes:
        may_send_as: returns whether an account may use an address.
        address_of: returns the address of an account for a Sender field; None if it has none.
    """

    may_send_as: Callable[[str, Mailbox], bool]
    address_of: Callable[[str], Mailbox | None]

    def mail(
        self, policy: SubmissionPolicy, session: Session, reverse_path: Mailbox | None
    ) -> Decision:
        """Decide on a reverse-path (RFC 6409 §6.1); the null one is always allowed."""
        identity = session.identity
        if identity is None or reverse_path is None or policy.own_addresses == "off":
            return None
        return None if self.may_send_as(identity, reverse_path) else SENDER_NOT_ALLOWED

    def header(self, policy: SubmissionPolicy, identity: str, header: bytes) -> bytes | Reply:
        """Return the Sender field to prepend to a message, if any, or the reply that refuses it.

        Args:
            policy: of the listener.
            identity: name of the account.
            header: header section of the message.
        """
        if not policy.reads_header:
            return b""
        originators = Originators.read(header)
        own = all(self._is_own(identity, address) for address in originators.addresses)
        if policy.own_addresses == "header" and not (own and originators.has_from):
            return HEADER_SENDER_NOT_ALLOWED
        if policy.adds_sender and not own and not originators.has_sender:
            sender = self.address_of(identity)
            if sender is not None:
                return f"Sender: <{sender}>\r\n".encode()
        return b""

    def is_author(self, identity: str, header: bytes) -> bool:
        """Whether the From field names addresses of an account, and no others.

        Args:
            identity: name of the account.
            header: header section of the message.
        """
        named = authors(header)
        return bool(named) and all(self._is_own(identity, address) for address in named)

    def _is_own(self, identity: str, address: Mailbox | None) -> bool:
        return address is not None and self.may_send_as(identity, address)
