"""What becomes of each recipient after an attempt, and the line in the log that says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.logger import Logger

from ..envelope import Envelope, HeldBody, Message, Outcome, Recipient, RecipientNumber
from ..interfaces import Ids, Random
from ..message.dsn import Failure as FailedRecipient
from ..message.dsn import failure_notice
from ..smtp.address import Mailbox
from ..smtp.reply import Reply, printable
from .part import Part
from .schedule import Schedule
from .store import Deferral, Settle

DISCARDED = Reply.of(250, "0.0", "Discarded by a route")
BROKEN = Reply.of(451, "3.0", "The delivery failed for an internal reason; see the log")

_LINE = (
    "{id} {status}: from=<{sender}> to=<{recipient}>{_original} relay={relay}{_tls}"
    ' delay={delay:.2f} delays={delays} attempt={attempts} reply="{_quoted}"{_again}'
)

RecipientsOf = Callable[[Mailbox], Sequence[Recipient]]
"""Says whom a message of our own goes to that is for a mailbox, numbered from 0; at least one."""


def itself(mailbox: Mailbox) -> Sequence[Recipient]:
    """Return a mailbox as the only recipient (`RecipientsOf`)."""
    return (Recipient(RecipientNumber(0), mailbox),)


@frozen
class Stages:
    """Where the time between acceptance and the answer went, in seconds.

    Attributes:
        stored: before this attempt was in memory.
        waited: in memory, for its turn.
        setup: until a connection was ready for the transaction.
        transaction: the rest.
    """

    stored: float
    waited: float
    setup: float
    transaction: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.stored + self.waited + self.setup + self.transaction

    def __str__(self) -> str:
        """The four, as Postfix writes them: by slashes."""
        parts = (self.stored, self.waited, self.setup, self.transaction)
        return "/".join(f"{each:.2f}" for each in parts)


class Settlement:
    """Decides what becomes of the recipients of an attempt.

    Args:
        hostname: our name in notices.
        lifetime: seconds that a notice has before it is given up.
        ids: of notices.
        random: what the jitter is drawn from.
        recipients_of: whom a notice goes to.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        hostname: str,
        lifetime: float,
        ids: Ids,
        random: Random,
        recipients_of: RecipientsOf = itself,
    ) -> None:
        self.hostname = hostname
        self.lifetime = lifetime
        self._ids = ids
        self._random = random
        self._recipients_of = recipients_of

    def settle(
        self,
        part: Part,
        outcomes: Sequence[Outcome],
        *,
        now: float,
        ended: float,
        expires_at: float,
        schedule: Schedule,
        cut_short: Callable[[Outcome], bool],
    ) -> tuple[Settle, Sequence[Outcome]]:
        """Decide, and say so in the log.

        Args:
            part: what was attempted.
            outcomes: what it came to; a recipient without one is deferred.
            now: wall time.
            ended: the same by the clock.
            expires_at: wall time after which what is deferred has failed.
            schedule: when it is tried again.
            cut_short: whether an outcome is not to count as an attempt.

        Returns:
            What is to be recorded, and the outcomes that counted.
        """
        message = part.message
        answered = {each.number: each for each in outcomes}
        done: list[RecipientNumber] = []
        deferred: list[Deferral] = []
        failed: list[FailedRecipient] = []
        final: list[Outcome] = []
        # One delay for all that were tried as often: they come back together, in one transaction.
        delays: dict[int, float] = {}
        for recipient in message.envelope.recipients:
            outcome = answered.get(recipient.number) or Outcome(recipient.number, BROKEN)
            if cut_short(outcome):
                continue  # its lease ends with us, and at the next start it is due
            if not outcome.delivered and not outcome.failed and now >= expires_at:
                outcome = expired(outcome)
            final.append(outcome)
            next_attempt: float | None = None
            if outcome.delivered:
                done.append(outcome.number)
            elif outcome.failed:
                done.append(outcome.number)
                failed.append(FailedRecipient(recipient, outcome))
            else:
                attempts = recipient.attempts + 1
                if attempts not in delays:
                    delays[attempts] = schedule.next_attempt(
                        attempts=attempts, now=now, expires_at=expires_at, random=self._random
                    )
                next_attempt = delays[attempts]
                deferred.append(Deferral(outcome, next_attempt))
            self._say(part, recipient, outcome, now, ended, next_attempt)
        # RFC 5321 §4.5.5: a failure of a notice is never the cause of another.
        reverse_path = message.envelope.reverse_path
        notices: tuple[Message, ...] = ()
        if failed and reverse_path is not None:
            try:
                notices = (self._notice(message, reverse_path, failed, now),)
            except Exception:
                self._log.failure("no notice could be made of the failure of {id}", id=message.id)
        settle = Settle(
            message=message,
            done=tuple(done),
            deferred=tuple(deferred),
            notices=notices,
            unreported=() if notices else tuple(each.outcome for each in failed),
            at=now,
            next_hop=str(part.next_hop) if deferred else "",
        )
        return settle, final

    def _notice(
        self,
        message: Message,
        reverse_path: Mailbox,
        failed: Sequence[FailedRecipient],
        now: float,
    ) -> Message:
        id = self._ids()
        notice = failure_notice(message, failed, hostname=self.hostname, id=id, time=now)
        self._log.info(
            "{id} is the notice of failure for {message} to <{reverse_path}>",
            id=id,
            message=message.id,
            reverse_path=printable(str(reverse_path)),
        )
        return Message(
            id=id,
            envelope=Envelope(
                reverse_path=None,
                recipients=tuple(self._readers(reverse_path)),
                parameters={"BODY": "8BITMIME"} if notice.eight_bit else {},
            ),
            trace=b"",
            body=HeldBody(notice.content),
            received_at=now,
            expires_at=now + self.lifetime,
        )

    def _readers(self, reverse_path: Mailbox) -> Sequence[Recipient]:
        """Return whom a notice goes to: where the aliases lead, if it is one of our mailboxes."""
        try:
            return self._recipients_of(reverse_path) or itself(reverse_path)
        except Exception:
            mailbox = printable(str(reverse_path))
            self._log.failure("whom notices to <{mailbox}> go to is not known", mailbox=mailbox)
            return itself(reverse_path)

    def _say(
        self,
        part: Part,
        recipient: Recipient,
        outcome: Outcome,
        now: float,
        ended: float,
        next_attempt: float | None,
    ) -> None:
        message = part.message
        status = "delivered" if outcome.delivered else "failed" if outcome.failed else "deferred"
        if part.next_hop.transport == "discard":
            status = "discarded"
        stages = _stages(part, outcome, now, ended)
        original = "" if recipient.original is None else printable(str(recipient.original))
        reply = str(outcome.reply)
        remote = printable(outcome.remote) if outcome.remote else None
        self._log.info(
            _LINE,
            id=message.id,
            status=status,
            sender=_shown(recipient.reverse_path or message.envelope.reverse_path),
            recipient=printable(str(recipient.mailbox)),
            _original=f" orig_to=<{original}>" if original else "",
            orig_to=original or None,
            next_hop=str(part.next_hop),
            remote=remote,
            relay=remote or str(part.next_hop),
            delay=stages.total,
            delays=str(stages),
            stages=(stages.stored, stages.waited, stages.setup, stages.transaction),
            attempts=recipient.attempts + 1,
            reply=reply,
            _quoted=reply.replace('"', r"\""),
            tls=None if outcome.tls is None else outcome.tls.description,
            _tls="" if outcome.tls is None else f" tls={printable(outcome.tls.version)}",
            next_attempt=next_attempt,
            _again="" if next_attempt is None else f" next_attempt_in={next_attempt - now:.0f}",
        )


def _shown(mailbox: Mailbox | None) -> str:
    return "" if mailbox is None else printable(str(mailbox))


def _stages(part: Part, outcome: Outcome, now: float, ended: float) -> Stages:
    attempt = max(0.0, ended - part.started)
    setup = min(outcome.setup, attempt)
    waited = max(0.0, part.started - part.entered)
    # What the wall clock says of the time before may be anything.
    stored = max(0.0, now - part.message.received_at - attempt - waited)
    return Stages(stored, waited, setup, attempt - setup)


def same_for_all(part: Part, reply: Reply) -> list[Outcome]:
    """Return one outcome of our own for all recipients."""
    return [Outcome(recipient.number, reply) for recipient in part.message.envelope.recipients]


def expired(outcome: Outcome) -> Outcome:
    """Return the failure that a deferral becomes at the end of a lifetime (RFC 3463 X.4.7).

    It is our own decision; what the other side said last is quoted in it.
    """
    said = f"{outcome.remote} said: {outcome.reply}" if outcome.remote else str(outcome.reply)
    return evolve(
        outcome,
        remote=None,
        unreachable=False,
        reply=Reply.of(554, "4.7", "Not delivered in time. The last attempt:", said),
    )
