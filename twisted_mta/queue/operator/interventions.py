"""Interventions of the operator on leased recipients, until their leases end.

A delivery that waits in memory for its turn does not begin any more. A transaction under way ends
first; then a recipient that was removed leaves the queue without a notice, unless it was delivered.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ...mail.address import Mailbox
from ...mail.counted import counted
from ...mail.envelope import Recipient, RecipientNumber
from ...mail.message import Message
from ...mail.outcome import Outcome
from ...mail.printable import printable
from ...mail.queue_id import QueueId
from ..schedule.delivery import Delivery, Place
from .operations import FEW, Action, Intervene, Page

Key = tuple[QueueId, RecipientNumber]

_TOGETHER = 100  # recipients that share a log line

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
    """Marks on leased recipients that were held or removed, and the log of interventions."""

    _log = Logger()

    def __init__(self) -> None:
        self._marks: dict[Key, _Mark] = {}

    def changed(
        self, intervention: Intervene, page: Page, by: str, waiting: Container[Key] = ()
    ) -> bool:
        """Log an intervention, and mark the leased recipients that it changed.

        Args:
            intervention: the operation.
            page: its result.
            by: the operator's name.
            waiting: leased recipients that wait for their turn: they are taken out at once.

        Returns:
            Whether any recipient was marked.
        """
        any_marked = False
        together: list[QueueId] = []  # of recipients that share log lines
        many = sum(len(listed.recipients) for listed in page.messages) > FEW
        for listed in page.messages:
            for each in listed.recipients:
                key = listed.id, each.recipient.number
                leased = each.leased and intervention.action in ("hold", "remove")
                waits = leased and key not in waiting
                if leased and not each.elsewhere:  # a lease of another machine ends there
                    self._marks[key] = _Mark(intervention.action, by)
                    any_marked = True
                else:
                    self._marks.pop(key, None)
                if many and not waits:
                    together.append(listed.id)
                    continue
                self._say(
                    listed.id,
                    listed.reverse_path,
                    each.recipient,
                    _WORDS[intervention.action],
                    by,
                    ", when the attempt under way has ended without delivering it" if waits else "",
                )
        for id, number, _ in page.more:
            self._marks.pop((id, number), None)
            together.append(id)
        for start in range(0, len(together), _TOGETHER):
            ids = together[start : start + _TOGETHER]
            self._log.info(
                "{_recipients} {status} by the operator: by={by} ids={_ids}",
                recipients=len(ids),
                _recipients=counted(len(ids), "recipient"),
                status=_WORDS[intervention.action],
                by=printable(by or "unknown"),
                ids=list(map(str, ids)),
                _ids=",".join(map(str, dict.fromkeys(ids))),
            )
        return any_marked

    def divide(self, delivery: Delivery) -> tuple[Delivery | None, Delivery | None]:
        """Return what of a delivery may begin, and what may not.

        The place of the delivery stays with what may begin, if anything may.
        """
        if not self._marks:
            return delivery, None
        id, recipients = delivery.message.id, delivery.message.envelope.recipients
        marked = [each for each in recipients if (id, each.number) in self._marks]
        if not marked:
            return delivery, None
        rest = [each for each in recipients if (id, each.number) not in self._marks]
        if not rest:
            return None, delivery
        return delivery.for_recipients(rest), evolve(
            delivery.for_recipients(marked), place=Place.NONE
        )

    def undelivered(
        self, delivery: Delivery, outcomes: Sequence[Outcome]
    ) -> tuple[Delivery, tuple[RecipientNumber, ...]]:
        """Separate removed recipients from a delivery that was tried.

        Returns:
            The delivery without them, and those of them that were not delivered.
        """
        if not self._marks:
            return delivery, ()
        message = delivery.message
        delivered = {each.number: None for each in outcomes if each.delivered}
        removed = {
            each.number: None
            for each in message.envelope.recipients
            if self._is_removed((message.id, each.number)) and each.number not in delivered
        }
        if not removed:
            return delivery, ()
        rest = [each for each in message.envelope.recipients if each.number not in removed]
        return delivery.for_recipients(rest), tuple(removed)

    def ended(self, message: Message, removed: Sequence[RecipientNumber]) -> None:
        """Drop the marks on recipients whose leases have ended.

        Args:
            message: with those recipients.
            removed: those that left the queue because they had been removed; they are logged.
        """
        if not self._marks and not removed:
            return
        for recipient in message.envelope.recipients:
            mark = self._marks.pop((message.id, recipient.number), None)
            if recipient.number in removed:
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
            by=printable(by or "unknown"),
        )
