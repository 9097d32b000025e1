"""Direct delivery of LMTP mail to Maildirs, without the queue (RFC 2033 §1).

Each recipient is answered with the outcome at its Maildir: 250 comes after the same syncs as for
mail from the queue. A failed recipient is the client's to retry or bounce, so nothing is kept here,
and no notice is written.

Some recipients are queued instead: an alias with several members, since if one of them failed the
client would send to all of them again; a mailbox that is routed to another host; a recipient that
asked for a notice of success. A message with refused recipients is queued whole, since the commit
writes their bounces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Accept, Deliver, Refused, Route
from ..mail.address import Mailbox
from ..mail.body import Body
from ..mail.decision import ContentDecision
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from ..smtp.server.replies import LOCAL_ERROR

_MAILDIR = NextHop("maildir")


class DirectDelivery:
    """Takes messages by delivering them at once (`interfaces.Take`).

    Args:
        accept: puts a message into the queue.
        deliver: delivers to Maildirs.
        route: returns the next hop of a mailbox.
        is_suspended: whether the operator has suspended the destination of a mailbox.
        forget: removes the body of a message that the queue does not know.
        observe: called with the message of the delivered recipients, their outcomes, and whether no
            part of the message is queued.
    """

    _log = Logger()

    def __init__(
        self,
        *,
        accept: Accept,
        deliver: Deliver,
        route: Route,
        forget: Callable[[Body], object],
        observe: Callable[[Message, Sequence[Outcome], bool], object] = lambda *_: None,
        is_suspended: Callable[[Mailbox], bool] = lambda mailbox: False,
    ) -> None:
        self._accept = accept
        self._deliver = deliver
        self._route = route
        self._forget = forget
        self._is_suspended = is_suspended
        self._observe = observe

    def __call__(
        self, message: Message, by_rcpt: Sequence[Sequence[RecipientNumber]]
    ) -> Deferred[ContentDecision]:
        """Deliver or queue (`interfaces.Take`)."""
        return Deferred.fromCoroutine(self._take(message, by_rcpt))

    async def _take(
        self, message: Message, by_rcpt: Sequence[Sequence[RecipientNumber]]
    ) -> ContentDecision:
        recipients = message.envelope.recipients
        # A recipient that is queued for one RCPT is queued for all, so that it has one copy.
        queued = dict.fromkeys(
            number
            for numbers in by_rcpt
            if len(numbers) != 1
            or message.refused
            or message.assessment.hold
            or not self._at_once(recipients[numbers[0]])
            for number in numbers
        )
        direct = [each for each in recipients if each.number not in queued]
        replies: dict[RecipientNumber, Reply] = {}
        try:
            if direct:
                replies.update(await self._delivered(message, direct, bool(queued)))
            if queued:
                reply = await self._queued(message, [recipients[number] for number in queued])
                replies.update(dict.fromkeys(queued, reply))
        finally:
            if not queued:  # otherwise the body is the queue's, even if the commit failed
                self._forget(message.body)
        # The recipients of one RCPT were queued together, and have one reply.
        return [replies[numbers[0]] for numbers in by_rcpt]

    def _at_once(self, recipient: Recipient) -> bool:
        # RFC 3461 §4.1: notices of success are written from the queue.
        notify = str(recipient.parameters.get("NOTIFY", "")).upper()
        if "SUCCESS" in notify or self._is_suspended(recipient.mailbox):
            return False
        return self._route(recipient.mailbox).transport == "maildir"

    async def _delivered(
        self, message: Message, recipients: Sequence[Recipient], more: bool
    ) -> dict[RecipientNumber, Reply]:
        part = message.for_recipients(recipients)
        outcomes = await self._deliver(_MAILDIR, part)
        if any(outcome.uncertain for outcome in outcomes):
            self._log.warn(
                "Possible duplicate of {id}: it may be in a mailbox, and the client was told to"
                " send it again",
                id=str(message.id),
            )
        delivered = [outcome for outcome in outcomes if outcome.delivered]
        if delivered:
            numbers = [outcome.number for outcome in delivered]
            reached = [each for each in recipients if each.number in numbers]
            self._observe(message.for_recipients(reached), delivered, not more)
        return {outcome.number: outcome.reply for outcome in outcomes}

    async def _queued(self, message: Message, recipients: Sequence[Recipient]) -> Reply:
        numbered = [
            evolve(each, number=RecipientNumber(place)) for place, each in enumerate(recipients)
        ]
        try:
            await self._accept(message.for_recipients(numbered))
        except Refused as refused:
            return refused.reply
        except Exception:
            # The other recipients are delivered, and their replies have to say so.
            self._log.failure("{id} could not be queued", id=str(message.id))
            return LOCAL_ERROR
        return Reply.of(250, "0.0", f"Queued as {message.id}")
