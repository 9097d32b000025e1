"""The deny list as a policy: clients, senders and recipients of strangers that are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from ...interfaces import Clock
from ...mail.address import Mailbox
from ...mail.printable import printable
from ...mail.reply import Reply
from .. import iprev
from ..answers import EnvelopeView
from ..examination import PolicySession
from .access_list import AccessList, Entry
from .exemptions import Exemptions, within_patience

NAME = "deny"
"""The name of the policy, in the log and the counters."""

_LONGEST = 300  # characters of a stranger's text in a reply


class DenyPolicy:
    """Refuses mail of strangers by a list.

    Each is refused at RCPT, so that the log has the whole envelope, and that the postmaster can be
    asked why. What the allow list has an entry for is not refused.

    Args:
        denied: returns the list.
        exemptions: from it.
        clock: for deadlines.
    """

    _log = Logger()

    def __init__(
        self, denied: Callable[[], AccessList], exemptions: Exemptions, clock: Clock
    ) -> None:
        self._denied = denied
        self._exemptions = exemptions
        self._clock = clock

    def rcpt(self, session: PolicySession, recipient: Mailbox) -> Awaitable[Reply | None] | None:
        """Return the refusal of a recipient."""
        denied, examination = self._denied(), session.examination
        if not len(denied):
            return None
        sender = None if examination is None else examination.sender
        entry = denied.address(session.address) or denied.host("helo", session.helo)
        if entry is None and sender is not None:
            entry = denied.sender(sender)
        of_recipient = denied.recipient(recipient) if entry is None else None
        if entry or of_recipient or denied.has("client"):
            return self._refusal(session, recipient, entry, of_recipient)
        return None

    async def _refusal(
        self,
        session: PolicySession,
        recipient: Mailbox,
        entry: Entry | None,
        of_recipient: Entry | None,
    ) -> Reply | None:
        examination, denied = session.examination, self._denied()
        if not (entry or of_recipient) and examination is not None:
            await within_patience(examination, iprev.NAME, self._clock)
            entry = denied.host("client", session.reverse_name or "")
        found = entry or of_recipient
        if found is None:
            return None
        reply = _reply(session, found)
        left = await self._exemptions.refusal(
            NAME, session, recipient, reply, of_recipient=found.subject == "to"
        )
        if left is reply:
            self._log.info(
                "denied by {path}, line {line}: client {peer}",
                path=printable(denied.name),
                line=f"{found.line}: {printable(found.text)}",
                peer=session.address,
            )
        return left

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Awaitable[Reply | None]:
        """Return the refusal that has waited for the signatures of a message."""
        return self._exemptions.after_content(NAME, session)


def _reply(session: PolicySession, entry: Entry) -> Reply:
    examination = session.examination
    match entry.subject:
        case "to":
            what = "for this recipient"
        case "helo":
            what = f"of clients that call themselves {printable(session.helo)[:_LONGEST]}"
        case "sender":
            sender = None if examination is None else examination.sender
            what = f"of {printable(str(sender))[:_LONGEST]}"
        case "client":
            what = f"from {session.address}"
    return Reply.of(550, "7.1", f"Mail {what} is not accepted here")
