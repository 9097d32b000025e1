"""The client's side of ESMTP extensions: what each says for a message on its way to the next hop.

A transaction asks every piece the same questions and knows none by name: may it go there, with what
the peer has announced or has not, and what stands behind MAIL and RCPT. So one more is one more
class, and one more place in the tuple that a client session is given.

What becomes of a message whose next hop lacks the extension is the piece's to say:

- It is dropped: `OutgoingExtension.mail` and `~OutgoingExtension.rcpt` are asked only where the
  keyword is announced.
- It fails: `OutgoingExtension.refusal` returns the reply for all recipients, or
  `~OutgoingExtension.recipient_refusal` that for one of them.
- It is converted: with `OutgoingExtension.converts` beside a refusal, the content is converted to 7
  bits, the envelope has no ``BODY`` afterwards, and the questions are asked once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from ...mail.envelope import Recipient
from ...mail.reply import Reply
from .views import OutgoingView


class OutgoingExtension:
    """One extension, towards next hops; without state, for it serves all connections.

    What a client asked for is in ``transaction.message.envelope.parameters`` and in the
    ``parameters`` of each recipient, as the extension's readers left it there.

    Attributes:
        keyword: what EHLO announces it by, in upper case.
        converts: whether its `refusal` is spared to a content that is converted to 7 bits.
    """

    keyword: ClassVar[str]
    converts: ClassVar[bool] = False

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Return what keeps the whole message from going there, None where nothing does.

        Args:
            transaction: for all recipients of the message.
            announced: what stood behind the keyword; None where the peer lacks the extension.
        """
        return None

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        """Return what keeps one recipient from being asked for there; see `refusal`."""
        return None

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return what to add to MAIL where the extension is announced: ``KEYWORD=value``."""
        return ()

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        """Return what to add to RCPT where the extension is announced."""
        return ()
