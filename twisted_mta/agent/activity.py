"""Activity: counts of messages and outcomes, and the last messages."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from ..interfaces import WallTime
from ..mail.classification import classify
from ..mail.envelope import Envelope, RecipientNumber
from ..mail.message import Message
from ..mail.outcome import Outcome
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..telemetry.metrics import Metrics, table

MOST_REMEMBERED = 50
"""How many of the last messages are remembered."""


@define
class Progress:
    """The outcomes of one message so far.

    Attributes:
        id: its queue id.
        envelope: as it was accepted.
        size: octets of its body.
        received_at: wall time.
        delivered: number of recipients.
        failed: number of recipients.
        removed: number of recipients that the operator removed.
        held: number of recipients on hold, as far as this process knows.
    """

    id: QueueId
    envelope: Envelope
    size: int
    received_at: float
    delivered: int = 0
    failed: int = 0
    removed: int = 0
    held: int = 0
    _last: Reply | None = field(default=None, init=False)
    _deferred: dict[RecipientNumber, None] = field(factory=dict, init=False)

    @property
    def deferred(self) -> int:
        """The number of recipients that their last attempt deferred, as far as is known here."""
        return len(self._deferred)

    def settled(self, outcome: Outcome) -> None:
        """Record the outcome for one recipient."""
        self._deferred.pop(outcome.number, None)
        if outcome.delivered:
            self.delivered += 1
        elif outcome.failed:
            self.failed += 1
        else:
            self._deferred[outcome.number] = None
        self._last = outcome.reply

    @property
    def last(self) -> str:
        """The last reply, printable; empty before the first."""
        return "" if self._last is None else str(self._last)

    @property
    def state(self) -> str:
        """One word: ``queued``, ``deferred``, ``held``, ``delivered``, ``failed``, ``removed``."""
        if self.delivered + self.failed + self.removed >= len(self.envelope.recipients):
            return "failed" if self.failed else "removed" if self.removed else "delivered"
        if self.held:
            return "held"
        return "deferred" if self.deferred else "queued"


class Activity:
    """Counts messages and outcomes, and remembers the last messages.

    Args:
        metrics: where they are counted.
        wall_time: for the time that deliveries took; None: they are not timed.
    """

    def __init__(
        self, metrics: Metrics | None = None, *, wall_time: WallTime | None = None
    ) -> None:
        self.metrics = metrics or Metrics()
        self._wall_time = wall_time
        self._recent: dict[QueueId, Progress] = {}
        # Read for a snapshot: to count each in `metrics` takes four times as long.
        self._messages = 0
        self._recipients = 0
        self._octets = 0
        self.metrics.read(table.MESSAGES_ACCEPTED, lambda: self._messages)
        self.metrics.read(table.RECIPIENTS_ACCEPTED, lambda: self._recipients)
        self.metrics.read(table.OCTETS_ACCEPTED, lambda: self._octets)

    @property
    def accepted(self) -> int:
        """The number of messages."""
        return self._messages

    @property
    def delivered(self) -> int:
        """The number of recipients."""
        return self._outcomes("delivered")

    @property
    def deferred(self) -> int:
        """The number of attempts for a recipient that were deferred."""
        return self._outcomes("deferred")

    @property
    def failed(self) -> int:
        """The number of recipients that failed."""
        return self._outcomes("failed")

    def message_accepted(self, message: Message) -> None:
        """Count a message that was accepted."""
        envelope, size = message.envelope, message.body.size
        self._messages += 1
        self._recipients += len(envelope.recipients)
        self._octets += size
        self._recent[message.id] = Progress(message.id, envelope, size, message.received_at)
        if len(self._recent) > MOST_REMEMBERED:
            del self._recent[next(iter(self._recent))]

    def attempt_settled(self, message: Message, outcomes: Sequence[Outcome], next_hop: str) -> None:
        """Count the outcomes of an attempt (`runner.Observer`)."""
        metrics = self.metrics
        progress = self._recent.get(message.id)
        transport = next_hop.partition(":")[0]
        if transport == "smtps":
            transport = "smtp"
        delay: float | None = None
        if self._wall_time is not None:
            delay = max(0.0, self._wall_time() - message.received_at)
        for outcome in outcomes:
            status = outcome.reply.detail
            subject = status.partition(".")[0] if status else "none"
            if outcome.delivered:
                metrics.count(table.OUTCOMES, transport, "delivered", subject)
                if delay is not None:
                    metrics.observe(table.DELIVERY_DELAY, delay, transport)
            elif outcome.failed:
                metrics.count(table.OUTCOMES, transport, "failed", subject)
                metrics.count(table.FAILURES, "failed", classify(outcome.reply) or table.OTHER)
            else:
                metrics.count(table.OUTCOMES, transport, "deferred", subject)
                metrics.count(table.FAILURES, "deferred", classify(outcome.reply) or table.OTHER)
            if progress is not None:
                progress.settled(outcome)

    def intervened(self, action: str, id: QueueId, recipients: int) -> None:
        """Count an operator's action on recipients of a message (`runner.Intervened`)."""
        self.metrics.count(table.OPERATED, action, by=recipients)
        progress = self._recent.get(id)
        if progress is not None:
            if action == "remove":
                progress.removed += recipients
            elif action == "hold":
                progress.held += recipients
            elif action == "release":
                progress.held = max(0, progress.held - recipients)

    def recent(self) -> Sequence[Progress]:
        """Return the last messages, the newest first."""
        return list(reversed(self._recent.values()))

    def _outcomes(self, outcome: str) -> int:
        return int(self.metrics.snapshot().total(table.OUTCOMES, outcome=outcome))
