"""Mail of the application itself: it has no client, and goes the way of mail that a client sends.

The intake expands the recipients, and its reception completes, checks and stores the content. The
session has no greeting; that is how the trace field and the log know that there is no client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from ..interfaces import Accept, Take
from ..mail.address import Mailbox
from ..mail.decision import ContentDecision
from ..mail.envelope import RecipientNumber
from ..mail.message import Message
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..smtp.application_envelope import (
    ApplicationEnvelope,
)
from ..smtp.peer import Peer
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.transaction import Accepted, Transaction
from ..system.work import Work
from .application_content import Run
from .application_submission import Submission
from .intake import Intake
from .reception import Reception

_SHOWN = 10  # recipients in the text of an error
_PER_SLICE = 20  # recipients that are decided on in one go: less than a millisecond


@frozen
class Receipt:
    """The receipt for a message that is in the queue.

    Attributes:
        id: its queue id, as the log and the tool write it.
    """

    id: str


class SubmissionRefused(Exception):
    """A message of the application was not taken; nothing of it is stored.

    Attributes:
        reply: why, with its SMTP code: another try may succeed after ``4yz``.
        recipients: the recipients that are refused, as they were written, with the reason for each;
            empty where the reason is not about recipients.
    """

    def __init__(self, reply: Reply, recipients: Mapping[str, Reply] | None = None) -> None:
        self.reply = reply
        self.recipients = dict(recipients or {})
        reasons = [f"<{printable(each)}>: {why}" for each, why in self.recipients.items()]
        if len(reasons) > _SHOWN:
            reasons[_SHOWN:] = [f"and {len(reasons) - _SHOWN} more"]
        super().__init__(", ".join(reasons) or str(reply))


class LimitReached(SubmissionRefused):
    """The account that a message is for has sent too much in an hour (``[account_limits]``).

    Attributes:
        reply: ``450 4.7.1``, with the limit and when another try may succeed; ``550 5.5.3`` where
            the message has more recipients than the limit.
    """


class ApplicationMail:
    """Takes mail of the application.

    Args:
        make_intake: returns the intake that decides on recipients, and stores the mail; it hands
            all messages to the function that it is given.
        accept: puts a message into the queue.
        track: called before a message is queued: its id, and each recipient as it was submitted
            with the numbers of those that it leads to.
        untrack: called if it could not be queued.
        run: runs long work in slices.

    Attributes:
        intake: the intake.
    """

    def __init__(
        self,
        make_intake: Callable[[Take], Intake],
        *,
        accept: Accept,
        track: Callable[[QueueId, Mapping[str, Sequence[RecipientNumber]]], object],
        untrack: Callable[[QueueId], object],
        run: Run,
    ) -> None:
        self._accept = accept
        self._track = track
        self._untrack = untrack
        # The recipients of messages that are on their way into the queue.
        self._submitted: dict[QueueId, Sequence[tuple[str, Mailbox]]] = {}
        self.intake = make_intake(self._take)
        self._run = run

    async def submit(self, submission: Submission) -> Receipt:
        """Put a message into the queue; return after the commit.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: a value cannot be used.
            SubmissionRefused: a recipient does not exist, or the message cannot be taken.
            Exception: the content cannot be read.
        """
        reception = await self.begin(await submission.envelope())
        try:
            await submission.pass_on(reception.write)
        except BaseException:  # a cancellation too
            self.abort(reception)
            raise
        return await self.finish(reception)

    async def begin(self, envelope: ApplicationEnvelope) -> Reception:
        """Begin a message; its content is to be written, with `finish` or `abort` at the end.

        Raises:
            SubmissionRefused: a recipient does not exist, or the message cannot be taken.
            LimitReached: the account has sent too much.
        """
        session = Session(
            SessionSettings(hostname=self.intake.policy.hostname), peer=Peer(user=envelope.user)
        )
        await self._run(self._decide(session, envelope))
        await self._count(envelope)
        reception = self.intake.begin(session, envelope.account)
        if isinstance(reception, Reply):
            raise SubmissionRefused(reception)
        self._submitted[reception.id] = envelope.recipients
        return reception

    async def _count(self, envelope: ApplicationEnvelope) -> None:
        """Count a message and its recipients for the account that it is for."""
        limits, account, kind = self.intake.sending_limits, envelope.account, "application"
        if account is None and envelope.user is not None:
            account, kind = f"uid:{envelope.user}", "uid"
        if limits is None or account is None or not limits.are_set():
            return
        refusal = None
        # Recipients are not counted for a message that the other limit refuses.
        if await limits.allows(account, "messages"):
            number = len(envelope.recipients)
            refusal = await limits.add(account, "recipients", number=number, kind=kind)
        if refusal is None:
            refusal = await limits.add(account, "messages", kind=kind)
        if refusal is not None:
            raise LimitReached(refusal)

    def abort(self, reception: Reception) -> None:
        """Forget a message whose content will not be complete."""
        self._submitted.pop(reception.id, None)
        reception.abort()

    async def finish(self, reception: Reception) -> Receipt:
        """Put a complete message into the queue; return after the commit.

        Raises:
            SubmissionRefused: it cannot be taken.
        """
        try:
            await _finished(reception)
        except CancelledError:
            raise  # it may be queued all the same
        except BaseException:
            self._submitted.pop(reception.id, None)
            raise
        return Receipt(str(reception.id))

    def _take(
        self, message: Message, by_rcpt: Sequence[Sequence[RecipientNumber]]
    ) -> Deferred[None]:
        """Put a message into the queue (`interfaces.Take`)."""
        submitted = self._submitted.pop(message.id)
        leading = {
            written: [*numbers, *_refused(message, mailbox)]
            for (written, mailbox), numbers in zip(submitted, by_rcpt, strict=True)
        }
        self._track(message.id, leading)

        def not_taken(failure: Failure) -> Failure:
            self._untrack(message.id)
            return failure

        return self._accept(message).addErrback(not_taken)

    def _decide(self, session: Session, envelope: ApplicationEnvelope) -> Work[None]:
        """Begin a transaction with all recipients, or raise `SubmissionRefused`."""
        transaction = session.transaction = Transaction(envelope.sender, envelope.parameters)
        refused: dict[str, Reply] = {}
        for number, (written, mailbox) in enumerate(envelope.recipients):
            if number % _PER_SLICE == _PER_SLICE - 1:
                yield
            refusal = self.intake.may_send_to(session, mailbox)
            if refusal is not None:
                refused[written] = refusal
            transaction.recipients.append(Accepted(mailbox, envelope.recipient_parameters))
        if refused:
            raise SubmissionRefused(next(iter(refused.values())), refused)


def _refused(message: Message, rcpt: Mailbox) -> list[RecipientNumber]:
    """Return the numbers of refused recipients that a RCPT has led to."""
    return [
        each.recipient.number
        for each in message.refused
        if (each.recipient.original or each.recipient.mailbox) == rcpt
    ]


def _finished(reception: Reception) -> Deferred[None]:
    """Return a Deferred that fires once a message is taken, or fails with `SubmissionRefused`.

    To cancel it does not stop the commit.
    """
    finished: Deferred[None] = Deferred()

    def decided(decision: ContentDecision) -> None:
        if isinstance(decision, Reply) and decision.code // 100 != 2:
            raise SubmissionRefused(decision)

    taken = reception.finish()
    taking = taken if isinstance(taken, Deferred) else succeed(taken)
    taking.addCallback(decided).addBoth(finished.callback)
    return finished
