"""Delivery without a queue in between: what LMTP is for (RFC 2033 §1).

A message is answered when it is in the Maildirs, each recipient by what became of it there: 250
comes after the same syncs as for mail from the queue. What fails is the client's to try again or to
return, so nothing is kept here, and no notice is written.

Not everything can be done at once. A recipient who is more than one mailbox here (an alias that
leads elsewhere, or to several; a route to another host; somebody who is to be told of success) goes
into the queue as a whole, for if half of it failed, the client would send the other half again. So
does a message of which notices are to be written, since those come with the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import Accept, ContentDecision, Deliver, Refused, Route
from ..mail.body import Body
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from ..smtp.server.replies import LOCAL_ERROR

_MAILDIR = NextHop("maildir")


class Direct:
    """Takes messages by delivering them (`interfaces.Take`).

    Args:
        accept: puts a message into the queue.
        deliver: delivers to Maildirs.
        route: says which mailboxes have one.
        forget: leaves nothing of a body that the queue has never seen.
        observe: told what was delivered: the message with those recipients, their outcomes, and
            whether all of the message is done with.
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
    ) -> None:
        self._accept = accept
        self._deliver = deliver
        self._route = route
        self._forget = forget
        self._observe = observe

    def __call__(
        self, message: Message, places: Sequence[Sequence[RecipientNumber]]
    ) -> Deferred[ContentDecision]:
        """Deliver or queue (`interfaces.Take`)."""
        return Deferred.fromCoroutine(self._take(message, places))

    async def _take(
        self, message: Message, places: Sequence[Sequence[RecipientNumber]]
    ) -> ContentDecision:
        recipients = message.envelope.recipients
        # Whoever is queued for one RCPT is queued for all, and has one copy.
        queued = dict.fromkeys(
            number
            for numbers in places
            if len(numbers) != 1 or message.refused or not self._at_once(recipients[numbers[0]])
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
            if not queued:  # or it is the queue's, whatever has come of the commit
                self._forget(message.body)
        # Where one RCPT led to several, they were queued together, and share their fate.
        return [replies[numbers[0]] for numbers in places]

    def _at_once(self, recipient: Recipient) -> bool:
        # RFC 3461 §4.1: notices of success are written from the queue.
        notify = str(recipient.parameters.get("NOTIFY", "")).upper()
        return "SUCCESS" not in notify and self._route(recipient.mailbox).transport == "maildir"

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
            there = [each for each in recipients if each.number in numbers]
            self._observe(message.for_recipients(there), delivered, not more)
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
            # What was delivered meanwhile stays delivered, and has to be said.
            self._log.failure("{id} could not be queued", id=str(message.id))
            return LOCAL_ERROR
        return Reply.of(250, "0.0", f"Queued as {message.id}")
