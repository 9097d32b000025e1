"""What has happened lately, for the status page: counters, and the last messages."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from ..envelope import Envelope, Message, Outcome, QueueId, RecipientNumber

_KEPT = 50  # messages


@define
class Progress:
    """What became of one message so far.

    Attributes:
        id: its queue id.
        envelope: as it was accepted.
        size: octets of the body, which is not kept in memory for the sake of a page.
        received_at: wall time.
        delivered: recipients.
        failed: recipients.
        last: the last reply, safe to show; empty before the first.
    """

    id: QueueId
    envelope: Envelope
    size: int
    received_at: float
    delivered: int = 0
    failed: int = 0
    last: str = ""
    _deferred: dict[RecipientNumber, None] = field(factory=dict, init=False)

    @property
    def deferred(self) -> int:
        """How many recipients were deferred by their last attempt, as far as is known."""
        return len(self._deferred)

    def settled(self, outcome: Outcome) -> None:
        """Take in what became of one recipient."""
        self._deferred.pop(outcome.number, None)
        if outcome.delivered:
            self.delivered += 1
        elif outcome.failed:
            self.failed += 1
        else:
            self._deferred[outcome.number] = None
        self.last = str(outcome.reply)

    @property
    def state(self) -> str:
        """One word: ``queued``, ``deferred``, ``delivered`` or ``failed``."""
        if self.delivered + self.failed >= len(self.envelope.recipients):
            return "failed" if self.failed else "delivered"
        return "deferred" if self.deferred else "queued"


@define
class Activity:
    """Counts what passes, and remembers the last of it.

    Attributes:
        accepted: messages.
        delivered: recipients, as all that follow.
        deferred: attempts that are to be made again.
        failed: given up.
    """

    accepted: int = 0
    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    _recent: dict[QueueId, Progress] = field(factory=dict, init=False)

    def message_accepted(self, message: Message) -> None:
        """A message was taken responsibility for."""
        self.accepted += 1
        self._recent[message.id] = Progress(
            message.id, message.envelope, message.body.size, message.received_at
        )
        if len(self._recent) > _KEPT:
            del self._recent[next(iter(self._recent))]

    def attempt_settled(self, message: Message, outcomes: Sequence[Outcome], next_hop: str) -> None:
        """An attempt has ended (`runner.Observer`)."""
        progress = self._recent.get(message.id)
        delivered = sum(1 for outcome in outcomes if outcome.delivered)
        failed = sum(1 for outcome in outcomes if outcome.failed)
        deferred = len(outcomes) - delivered - failed
        self.delivered += delivered
        self.failed += failed
        self.deferred += deferred
        if progress is not None:
            for outcome in outcomes:
                progress.settled(outcome)

    def recent(self) -> Sequence[Progress]:
        """Return what is remembered, the newest first."""
        return list(reversed(self._recent.values()))
