"""Mail of the application itself: it has no client, and goes the way of mail that a client sends.

The intake expands the recipients, and its reception completes, checks and stores the content. The
session has no greeting; that is how the trace field and the log know that there is no client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from ..interfaces import Accept, Executor, Take, WallTime
from ..mail.address import Mailbox
from ..mail.decision import ContentDecision
from ..mail.envelope import RecipientNumber
from ..mail.message import Message
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.application_content import Content, check_type
from ..smtp.application_envelope import (
    ApplicationEnvelope,
    HoldUntil,
    Notify,
    read_envelope,
)
from ..smtp.peer import Peer
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.transaction import Accepted, Transaction
from ..system.slices import Work
from .application_content import Run, pass_on
from .intake import Intake
from .reception import Reception

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
        super().__init__(", ".join(reasons) or str(reply))


class ApplicationMail:
    """Takes mail of the application.

    Args:
        make_intake: returns the intake that decides on recipients, and stores the mail; it hands
            all messages to the function that it is given.
        accept: puts a message into the queue.
        track: called before a message is queued: its id, and each recipient as it was submitted
            with the numbers of those that it leads to.
        untrack: called if it could not be queued.
        executor: where files are read.
        run: runs long work in slices.
        wall_time: the time of day.
        longest_hold: seconds that a message may be held.

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
        executor: Executor,
        run: Run,
        wall_time: WallTime,
        longest_hold: float,
    ) -> None:
        self._accept = accept
        self._track = track
        self._untrack = untrack
        self._submitted: dict[QueueId, list[str]] = {}  # recipients of what is being queued
        self.intake = make_intake(self._take)
        self._executor = executor
        self._run = run
        self._wall_time = wall_time
        self._longest_hold = longest_hold

    async def submit(
        self,
        message: Content,
        *,
        sender: str | Mailbox,
        recipients: Iterable[str | Mailbox],
        notify: Notify = None,
        hold_until: HoldUntil = None,
    ) -> Receipt:
        """Put a message into the queue; return after the commit.

        Args:
            message: the content.
            sender: the reverse-path; empty: the null one.
            recipients: mailboxes, of any domain.
            notify: of which events the sender wants notice.
            hold_until: when delivery begins.

        Raises:
            TypeError: a value has the wrong type.
            ValueError: a value cannot be used (`read_envelope`).
            SubmissionRefused: a recipient does not exist, or the message cannot be taken.
            Exception: the content cannot be read.
        """
        check_type(message)
        envelope = read_envelope(
            sender,
            recipients,
            notify=notify,
            hold_until=hold_until,
            now=self._wall_time(),
            longest=self._longest_hold,
        )
        session = Session(SessionSettings(hostname=self.intake.policy.hostname), peer=Peer(None))
        await self._run(self._decide(session, envelope))
        reception = self.intake.begin(session)
        if isinstance(reception, Reply):
            raise SubmissionRefused(reception)
        try:
            await pass_on(message, reception.write, executor=self._executor, run=self._run)
        except BaseException:  # a cancellation too
            reception.abort()
            raise
        self._submitted[reception.id] = [written for written, _ in envelope.recipients]
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
    ) -> Deferred[ContentDecision]:
        """Put a message into the queue (`interfaces.Take`)."""
        written = self._submitted.pop(message.id)
        self._track(message.id, dict(zip(written, by_rcpt, strict=True)))

        def not_taken(failure: Failure) -> Failure:
            self._untrack(message.id)
            return failure

        return self._accept(message).addCallbacks(lambda _: None, not_taken)

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
