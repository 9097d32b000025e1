"""The delivery of a connection: our own kind, or one that was written for ``twisted.mail``."""

from __future__ import annotations

from typing import cast

from twisted.cred.portal import Portal
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory

from ..interfaces import Delivery
from ..mail.address import Mailbox
from ..mail.decision import Decision
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from ..smtp.server.session import Session

NO_DELIVERY = Reply.of(550, "7.1", "Sender not acceptable")


class NoDelivery:
    """The delivery of a factory that has none (`interfaces.Delivery`): it refuses all mail."""

    def client(self, session: Session) -> Decision:
        """Accept."""
        return None

    def helo(self, session: Session) -> Decision:
        """Accept."""
        return None

    def mail(
        self, session: Session, reverse_path: Mailbox | None, parameters: Parameters
    ) -> Decision:
        """Refuse."""
        return NO_DELIVERY

    def rcpt(self, session: Session, forward_path: Mailbox, parameters: Parameters) -> Decision:
        """Refuse."""
        return NO_DELIVERY

    def open(self, session: Session) -> Reply:
        """Refuse."""
        return NO_DELIVERY

    def ended(self, session: Session) -> None:
        """Do nothing."""


AnyDelivery = Delivery | IMessageDelivery | IMessageDeliveryFactory | Portal
"""Any object that can decide on the mail of a connection."""


def delivery_of(provider: AnyDelivery, protocol: object) -> Delivery:
    """Return the delivery of one connection.

    Args:
        provider: a delivery, or what makes one.
        protocol: of the connection.

    Raises:
        TypeError: ``provider`` is none of `AnyDelivery`.
    """
    own = getattr(provider, "own_delivery", None)
    if own is not None:  # our queue, as `IMessageDelivery`
        return cast(Delivery, own)
    if isinstance(provider, Portal) or not hasattr(provider, "open"):
        # twisted.mail.smtp imports the reactor, which an application that imports us may choose
        # later.
        from .message_delivery import MessageDelivery

        return MessageDelivery(provider, protocol=protocol)
    return cast(Delivery, provider)
