"""What the operator has decided about recipients that are at work, until their leases end.

What waits in memory for its turn is not begun any more. What is under way ends first: then what was
removed leaves the queue, unless it was delivered, and nobody gets a notice of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ...mail.address import Mailbox
from ...mail.envelope import Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ..schedule.delivery import Delivery
from .operations import FEW, Action, Intervene, Page

Key = tuple[QueueId, RecipientNumber]

_TOGETHER = 100  # recipients that share a line

_WORDS: dict[Action, str] = {
    "retry": "is to be tried now",
    "hold": "held",
    "release": "released",
    "remove": "removed",
}


@frozen
class _Mark:
    action: Action
    by: str


class Interventions:
    """Marks on what is leased, and the lines in the log."""

    _log = Logger()

    def __init__(self) -> None:
        self._marks: dict[Key, _Mark] = {}

    def done(self, intervention: Intervene, page: Page, by: str) -> bool:
        """An action was done: say so, and mark what of it is at work.

        Args:
            intervention: the action.
            page: what it was done to.
            by: who asked for it.

        Returns:
            Whether something was marked.
        """
        marked = False
        quiet: list[QueueId] = []  # many that can be said together
        many = sum(len(listed.recipients) for listed in page.messages) > FEW
        for listed in page.messages:
            for entry in listed.recipients:
                key = listed.id, entry.recipient.number
                waits = entry.leased and intervention.action in ("hold", "remove")
                if waits:
                    self._marks[key] = _Mark(intervention.action, by)
                    marked = True
                else:
                    self._marks.pop(key, None)
                if many and not waits:
                    quiet.append(listed.id)
                    continue
                self._say(
                    listed.id,
                    listed.reverse_path,
                    entry.recipient,
                    _WORDS[intervention.action],
                    by,
                    ", when what is under way has ended without delivering it" if waits else "",
                )
        for id, number, _ in page.more:
            self._marks.pop((id, number), None)
            quiet.append(id)
        for start in range(0, len(quiet), _TOGETHER):
            together = quiet[start : start + _TOGETHER]
            self._log.info(
                "{recipients} recipients {status} by the operator: by={by} ids={_ids}",
                recipients=len(together),
                status=_WORDS[intervention.action],
                by=printable(by or "nobody known"),
                ids=list(map(str, together)),
                _ids=",".join(map(str, dict.fromkeys(together))),
            )
        return marked

    def part(self, part: Delivery) -> tuple[Delivery | None, Delivery | None]:
        """Return what of a part is to be begun, and what is not any more."""
        if not self._marks:
            return part, None
        id, recipients = part.message.id, part.message.envelope.recipients
        marked = [each for each in recipients if (id, each.number) in self._marks]
        if not marked:
            return part, None
        rest = [each for each in recipients if (id, each.number) not in self._marks]
        return (_with(part, rest) if rest else None), _with(part, marked)

    def undelivered(
        self, part: Delivery, outcomes: Sequence[Outcome]
    ) -> tuple[Delivery, tuple[RecipientNumber, ...]]:
        """Return what of a part that was tried is to be settled as ever, and what was removed."""
        if not self._marks:
            return part, ()
        message = part.message
        delivered = {each.number: None for each in outcomes if each.delivered}
        removed = {
            each.number: None
            for each in message.envelope.recipients
            if self._is_removed((message.id, each.number)) and each.number not in delivered
        }
        if not removed:
            return part, ()
        rest = [each for each in message.envelope.recipients if each.number not in removed]
        return _with(part, rest), tuple(removed)

    def ended(self, message: Message, struck: Sequence[RecipientNumber]) -> None:
        """The leases of the recipients of a message have ended.

        Args:
            message: see there.
            struck: those that left the queue because they had been removed.
        """
        if not self._marks and not struck:
            return
        for recipient in message.envelope.recipients:
            mark = self._marks.pop((message.id, recipient.number), None)
            if recipient.number in struck:
                by = "" if mark is None else mark.by
                reverse_path = message.envelope.reverse_path
                self._say(message.id, reverse_path, recipient, _WORDS["remove"], by)

    def _is_removed(self, key: Key) -> bool:
        mark = self._marks.get(key)
        return mark is not None and mark.action == "remove"

    def _say(
        self,
        id: QueueId,
        reverse_path: Mailbox | None,
        recipient: Recipient,
        word: str,
        by: str,
        when: str = "",
    ) -> None:
        self._log.info(
            "{id} {status} by the operator{_when}: from=<{sender}> to=<{recipient}> by={by}",
            id=id,
            status=word,
            _when=when,
            sender="" if reverse_path is None else printable(str(reverse_path)),
            recipient=printable(str(recipient.mailbox)),
            by=printable(by or "nobody known"),
        )


def _with(part: Delivery, recipients: Sequence[Recipient]) -> Delivery:
    return evolve(part, message=part.message.for_recipients(recipients))
