"""The client side of ESMTP extensions: parameters and refusals for messages to a next hop.

A transaction asks every extension the same questions and knows none by name: may the message go
there, by what the server has announced or has not, and which parameters go to MAIL and RCPT. So a
new extension is a new class, and a new entry in the tuple that a client session is given.

The extension decides what happens to a message whose next hop lacks it:

- The parameters are dropped: `OutgoingExtension.mail` and `~OutgoingExtension.rcpt` are called only
  where the keyword is announced.
- The message fails: `OutgoingExtension.refusal` returns the reply for all recipients, or
  `~OutgoingExtension.recipient_refusal` the reply for one of them.
- The content is converted: with `OutgoingExtension.converts` beside a refusal, the content is
  converted to 7 bits, the envelope has no ``BODY`` afterwards, and the questions are asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ...mail.envelope import Recipient
from ...mail.reply import Reply
from .views import OutgoingView


class OutgoingExtension:
    """The client side of one extension; without state, because it serves all connections.

    The parameters that the message came with are in ``transaction.message.envelope.parameters`` and
    in the ``parameters`` of each recipient, as the extension's readers left them.

    Attributes:
        keyword: its EHLO keyword, in upper case.
        converts: whether conversion of the content to 7 bits avoids its `refusal`.
    """

    keyword: ClassVar[str]
    converts: ClassVar[bool] = False

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Return the reply that fails the whole message; None if it may be sent.

        Args:
            transaction: with all recipients of the message.
            announced: the parameters of the keyword; None where the server lacks the extension.
        """
        return None

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        """Return the reply that fails one recipient; None if RCPT may be sent. See `refusal`."""
        return None

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return parameters for MAIL, as ``KEYWORD=value``, where the extension is announced."""
        return ()

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        """Return parameters for RCPT where the extension is announced."""
        return ()
