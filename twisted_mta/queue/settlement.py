"""Settlement: what becomes of each recipient after an attempt, and its line in the log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from attrs import evolve

from ..interfaces import Random, Route
from ..mail.address import Mailbox
from ..mail.classification import classify
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..message.dsn.delivery_status import Action, ReportedRecipient
from ..smtp.extension.deliverby import DeliverBy
from ..system.line_logger import LineLogger
from .notices import Notices
from .schedule.backoff import Backoff
from .schedule.delivery import Delivery
from .schedule.next_hops import NextHopLimits
from .store.contract import Deferral, Settle

DISCARDED = Reply.of(250, "0.0", "Discarded")
WAITING = Reply.of(451, "4.5", "Not tried yet: its next hop has been busy")
BROKEN = Reply.of(451, "3.0", "The delivery failed for an internal reason; see the log")

_LINE = (
    "{id} {status}: from=<{sender}> to=<{recipient}>{_original} relay={relay}{_source}{_tls}"
    ' delay={delay:.2f} delays={delays} attempt={attempts}{_class} reply="{_quoted}"{_again}'
)


class Stages(NamedTuple):
    """The stages between the acceptance of a message and the end of an attempt, in seconds.

    Attributes:
        stored: before the delivery came into memory.
        waited: in memory, until its turn.
        setup: until a connection was ready for the transaction.
        transaction: the transaction.
    """

    stored: float
    waited: float
    setup: float
    transaction: float

    def __str__(self) -> str:
        """The stages with slashes between them, as Postfix writes them."""
        return f"{self.stored:.2f}/{self.waited:.2f}/{self.setup:.2f}/{self.transaction:.2f}"


class Settlement:
    """Decides what becomes of the recipients of a delivery that was tried.

    Args:
        notices: writes the notices.
        random: the source of jitter.
    """

    _log = LineLogger()

    def __init__(self, *, notices: Notices, random: Random) -> None:
        self._notices = notices
        self._random = random

    def settle(
        self,
        delivery: Delivery,
        outcomes: Sequence[Outcome],
        *,
        now: float,
        ended: float,
        expires_at: float,
        limits: NextHopLimits,
        backoff: Backoff,
        cut_short: Callable[[Outcome], bool],
    ) -> tuple[Settle, Sequence[Outcome], Sequence[Action]]:
        """Decide what becomes of each recipient, write the notices, and log the outcomes.

        Args:
            delivery: the delivery that was tried.
            outcomes: of its recipients; a recipient without one is deferred.
            now: wall time.
            ended: the same moment by the clock.
            expires_at: wall time after which a deferred recipient has failed.
            limits: of the next hop.
            backoff: between attempts, where the limits have none.
            cut_short: whether an outcome does not count as an attempt.

        Returns:
            The operation for the store, the outcomes that count, and the action of each notice.
        """
        message = delivery.message
        answered = {each.number: each for each in outcomes}
        done: list[RecipientNumber] = []
        deferred: list[Deferral] = []
        failed: list[ReportedRecipient] = []
        delayed: list[ReportedRecipient] = []
        succeeded: list[ReportedRecipient] = []
        final: list[Outcome] = []
        # Logged when all is decided: where that fails, it is decided again.
        lines: list[tuple[Recipient, Outcome, float | None]] = []
        # Recipients with equally many attempts come back together, in one transaction.
        next_attempts: dict[tuple[int, float | None], float] = {}
        for recipient in message.envelope.recipients:
            outcome = answered.get(recipient.number) or Outcome(recipient.number, BROKEN)
            if cut_short(outcome):
                continue  # its lease ends with the process, and at the next start it is due
            last: Outcome | None = None
            if outcome.deferred and now >= expires_at:
                last, outcome = outcome, expired(outcome)
            final.append(outcome)
            next_attempt: float | None = None
            if outcome.delivered:
                done.append(outcome.number)
                # Without parameters, as most mail is, no notice is wanted (RFC 3461 §4.1).
                if recipient.parameters and not outcome.notifies:
                    succeeded.append(ReportedRecipient(recipient, outcome))
            elif outcome.failed:
                done.append(outcome.number)
                failed.append(ReportedRecipient(recipient, outcome, last=last))
            else:
                attempts = recipient.attempts + 1
                together = attempts, outcome.retry_after
                if together not in next_attempts:
                    latest = _latest(message, now, expires_at)
                    next_attempts[together] = (
                        limits.backoff(backoff).next_attempt(
                            attempts=attempts, now=now, expires_at=latest, random=self._random
                        )
                        if outcome.retry_after is None
                        else min(now + outcome.retry_after, latest)
                    )
                next_attempt = next_attempts[together]
                deferred.append(Deferral(outcome, next_attempt))
                if self._notices.is_delay_due(message, recipient, now):
                    delayed.append(ReportedRecipient(recipient, outcome, until=expires_at))
            lines.append((recipient, outcome, next_attempt))
        success = _success(delivery.next_hop)
        written = self._notices.write(
            message,
            now,
            failed=failed,
            delayed=delayed,
            succeeded=succeeded if success else (),
            success=success or "delivered",
        )
        for recipient, outcome, next_attempt in lines:
            self._log_outcome(delivery, recipient, outcome, now, ended, next_attempt)
        settle = Settle(
            message=message,
            done=tuple(done),
            deferred=tuple(deferred),
            notices=written.messages,
            unreported=written.unreported,
            warned=written.warned,
            at=now,
            next_hop=str(delivery.next_hop) if deferred else "",
        )
        return settle, final, written.actions

    def log_refused(self, message: Message, route: Route, now: float) -> None:
        """Log the recipients that a message was accepted without (`Message.refused`).

        Args:
            message: the message.
            route: returns the next hop of a mailbox.
            now: wall time.
        """
        for each in message.refused:
            delivery = Delivery(route(each.recipient.mailbox), message)
            outcome = Outcome(each.recipient.number, each.reply)
            self._log_outcome(delivery, each.recipient, outcome, now, 0.0, None)

    def _log_outcome(
        self,
        delivery: Delivery,
        recipient: Recipient,
        outcome: Outcome,
        now: float,
        ended: float,
        next_attempt: float | None,
    ) -> None:
        message, tls = delivery.message, outcome.tls
        status = "delivered" if outcome.delivered else "failed" if outcome.failed else "deferred"
        if delivery.next_hop.transport == "discard":
            status = "discarded"
        next_hop = str(delivery.next_hop)
        stages = _stages(delivery, outcome, now, ended)
        original = "" if recipient.original is None else printable(str(recipient.original))
        reply = str(outcome.reply)
        classification = classify(outcome.reply)
        remote = printable(outcome.remote) if outcome.remote else None
        self._log.info(
            _LINE,
            id=message.id,
            status=status,
            sender=_shown(recipient.reverse_path or message.envelope.reverse_path),
            recipient=printable(str(recipient.mailbox)),
            _original=f" orig_to=<{original}>" if original else "",
            orig_to=original or None,
            next_hop=next_hop,
            remote=remote,
            relay=remote or next_hop,
            delay=sum(stages),
            delays=str(stages),
            stages=tuple(stages),
            attempts=recipient.attempts + 1,
            reply=reply,
            classification=classification,
            _class="" if classification is None else f" class={classification}",
            _quoted=reply.replace('"', r"\""),
            source=outcome.source,
            _source=f" source={outcome.source}" if outcome.source else "",
            tls=None if tls is None else tls.outgoing_description,
            _tls="" if tls is None else f" tls={_tls_words(tls)}",
            next_attempt=next_attempt,
            _again="" if next_attempt is None else f" next_attempt_in={next_attempt - now:.0f}",
        )


def _success(next_hop: NextHop) -> Action | None:
    """Return the action of a notice that a next hop without DSN took a message; None: no notice."""
    if next_hop.transport == "discard":
        return None
    # RFC 3461 §5.2.2: hosts behind one without DSN send no success notice. LMTP (RFC 2033) and
    # Maildirs are the final delivery.
    return "relayed" if next_hop.transport == "smtp" else "delivered"


def _latest(message: Message, now: float, expires_at: float) -> float:
    """Return the wall time by which a message is to be tried again at the latest.

    Where the sender asked for a notice if the message is late, it is written then (RFC 2852 §4).
    """
    by = DeliverBy.of(message.envelope.parameters)
    return min(expires_at, by.seconds) if by is not None and now < by.seconds else expires_at


def _shown(mailbox: Mailbox | None) -> str:
    return "" if mailbox is None else printable(str(mailbox))


def _stages(delivery: Delivery, outcome: Outcome, now: float, ended: float) -> Stages:
    attempt = max(0.0, ended - delivery.started_at)
    setup = min(outcome.setup, attempt)
    waited = max(0.0, delivery.started_at - delivery.entered_at)
    # The wall clock may have been set since the message was accepted.
    stored = max(0.0, now - delivery.message.received_at - attempt - waited)
    return Stages(stored, waited, setup, attempt - setup)


def same_for_all(delivery: Delivery, reply: Reply) -> list[Outcome]:
    """Return an outcome with the same reply of our own for each recipient."""
    return [Outcome(recipient.number, reply) for recipient in delivery.message.envelope.recipients]


def expired(outcome: Outcome) -> Outcome:
    """Return the failure that a deferral becomes at the end of its lifetime (RFC 3463 X.4.7).

    The failure is our own; it quotes the last reply of the next hop.
    """
    last = f"{outcome.remote} said: {outcome.reply}" if outcome.remote else str(outcome.reply)
    return evolve(
        outcome,
        remote=None,
        unreachable=False,
        temporary=False,
        expired=True,
        reply=Reply.of(554, "4.7", "Not delivered in time. The last attempt:", last),
    )


def _tls_words(tls: TLSFacts) -> str:
    """Return the version, and whether the server was verified, as a value of a line."""
    if not tls.verdict:
        return printable(tls.version)
    return f'"{printable(tls.version)}, {printable(tls.verdict)}"'
