"""Hand mail of the routes ``deliver:name`` to the application's own deliveries.

Exceptions and missed deadlines defer. A fault of one message must not stop the others, and a
database that is down must not be asked for each message: so the next hop is suspended after
`_FAULTS` different messages in a row, and not by one alone.
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Mapping, Sequence
from types import CoroutineType
from typing import Any, cast

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Sign, unsigned
from ..mail.message import Message
from ..mail.next_hop import NextHop, is_delivery_name
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..mail.reply import Reply
from ..message.delivery_fields import junk_fields
from ..message.trace import with_fields
from ..system.coroutines import outcome as run
from .application_delivery import ApplicationDelivery, DeliveryAnswer, QueuedMessage
from .content_file import ContentFile

DELIVERED = Reply.fixed(250, "0.0", "Delivered")
FAILED = Reply.fixed(451, "3.0", "The delivery has failed for now")
TOO_SLOW = Reply.fixed(451, "3.0", "The delivery took too long, and is tried again")
CLOSING = Reply.fixed(451, "3.2", "we are closing")
UNSIGNED = Reply.fixed(451, "3.0", "The message cannot be signed now")

_FAULTS = 3
_BUFFER = 65_536  # octets that are read from a message at a time


def checked_deliveries(deliveries: Mapping[str, object]) -> dict[str, ApplicationDelivery]:
    """Return the deliveries of an application.

    Raises:
        ValueError: a name cannot stand in a route.
        TypeError: an object does not deliver.
    """
    for name, delivery in deliveries.items():
        if not is_delivery_name(name):
            raise ValueError(
                f"deliveries: found the name {name!r}, expected letters, digits, hyphens and"
                " underscores, at most 64"
            )
        if not callable(getattr(delivery, "deliver", None)):
            raise TypeError(
                f"deliveries: found {type(delivery).__name__} for {name!r}, expected an object with"
                " the method deliver(message)"
            )
    return cast("dict[str, ApplicationDelivery]", dict(deliveries))


@define(eq=False)
class _Attempt:
    """A message that a delivery has, until there is an answer.

    Attributes:
        next_hop: of the route.
        message: as it was handed over.
        file: its content; None before it was signed.
        result: fires once with the outcomes.
        asked: the answer that is waited for, or the signature.
        deadline: the timer.
    """

    next_hop: NextHop
    message: Message
    result: Deferred[Sequence[Outcome]] = field(factory=Deferred)
    file: ContentFile | None = None
    asked: Deferred[Any] | None = None
    deadline: IDelayedCall | None = None


class ApplicationDeliveries:
    """The deliveries of an application; `deliver` is an `interfaces.Deliver`.

    Args:
        deliveries: by name (`checked_deliveries`).
        timeout: seconds for each answer.
        clock: for deadlines.
        sign: signs messages.
    """

    _log = Logger()

    def __init__(
        self,
        deliveries: Mapping[str, ApplicationDelivery],
        *,
        timeout: float,
        clock: Clock,
        sign: Sign = unsigned,
    ) -> None:
        self._deliveries = deliveries
        self._timeout = timeout
        self._clock = clock
        self._sign = sign
        self._attempts: dict[_Attempt, None] = {}
        # By delivery, the last messages in a row at which it has failed.
        self._faults: dict[str, dict[QueueId, None]] = {name: {} for name in deliveries}

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Hand a message to the delivery of a route (`interfaces.Deliver`); never fails.

        An outcome is ``uncertain`` where there was no answer in time.
        """
        attempt = _Attempt(next_hop, message)
        self._attempts[attempt] = None
        try:
            signed = self._sign(message)
            if isinstance(signed, Deferred):
                attempt.asked = signed
                signed.addCallback(self._begin, attempt)
                signed.addErrback(self._not_signed, attempt)
            else:
                self._begin(signed, attempt)
        except Exception:
            self._not_signed(Failure(), attempt)
        return attempt.result

    def cancel(self) -> None:
        """Wait for no answer any more: cancel all deliveries, and defer their recipients."""
        for attempt in tuple(self._attempts):
            self._interrupt(attempt, CLOSING)

    # An attempt.

    def _begin(self, message: Message, attempt: _Attempt) -> None:
        if attempt not in self._attempts:
            return  # it was canceled meanwhile
        attempt.asked = None
        attempt.file = ContentFile(_fields(message), message.body)
        attempt.deadline = self._clock.callLater(self._timeout, self._too_slow, attempt)
        try:
            answer: Any = self._deliveries[attempt.next_hop.delivery].deliver(
                _handed_over(message, attempt.file)
            )
            if isinstance(answer, CoroutineType):
                answer = run(answer)
            elif isinstance(answer, Awaitable) and not isinstance(answer, Deferred):
                answer = Deferred.fromCoroutine(_awaited(answer))
        except Exception:
            self._failed(Failure(), attempt)
            return
        if isinstance(answer, Deferred):
            attempt.asked = answer
            answer.addCallback(self._answered, attempt)
            answer.addErrback(self._failed, attempt)
        else:
            self._answered(answer, attempt)

    def _answered(self, answer: DeliveryAnswer, attempt: _Attempt) -> None:
        if attempt not in self._attempts:
            self._log.info(
                "{id}: the answer of {next_hop} came too late: {answer}",
                id=attempt.message.id,
                next_hop=str(attempt.next_hop),
                answer=printable(repr(answer)),
            )
            return
        try:
            replies = self._replies(answer, attempt)
        except Exception:
            self._failed(Failure(), attempt)
            return
        self._faults[attempt.next_hop.delivery].clear()
        numbers = [each.number for each in attempt.message.envelope.recipients]
        self._end(
            attempt,
            [
                Outcome(number, reply, answered=True)
                for number, reply in zip(numbers, replies, strict=True)
            ],
        )

    def _replies(self, answer: DeliveryAnswer, attempt: _Attempt) -> list[Reply]:
        """Return the reply for each recipient.

        Raises:
            TypeError: the answer is none.
        """
        recipients = [str(each.mailbox) for each in attempt.message.envelope.recipients]
        if not isinstance(answer, Mapping):
            return [_reply(answer)] * len(recipients)
        by_mailbox = {str(key): _reply(each) for key, each in answer.items()}
        missing = [each for each in recipients if each not in by_mailbox]
        if missing:
            self._log.error(
                "{id}: {next_hop} has no answer for {missing}: found {answer}; they are deferred",
                id=attempt.message.id,
                next_hop=str(attempt.next_hop),
                missing=printable(", ".join(missing)),
                answer=printable(", ".join(map(repr, answer))) or "an empty mapping",
            )
        return [by_mailbox.get(each, FAILED) for each in recipients]

    def _failed(self, failure: Failure, attempt: _Attempt) -> None:
        if attempt not in self._attempts:
            if not failure.check(CancelledError):
                self._log.info(
                    "{id}: {next_hop} ended after it was canceled: {error}",
                    id=attempt.message.id,
                    next_hop=str(attempt.next_hop),
                    error=printable(failure.getErrorMessage()),
                )
            return
        self._log.failure(
            "{id}: {next_hop} has failed",
            failure,
            id=attempt.message.id,
            next_hop=str(attempt.next_hop),
        )
        self._fault(attempt, FAILED)

    def _too_slow(self, attempt: _Attempt) -> None:
        attempt.deadline = None
        self._log.warn(
            "{id}: {next_hop} had no answer within {timeout:g} s, and was canceled",
            id=attempt.message.id,
            next_hop=str(attempt.next_hop),
            timeout=self._timeout,
        )
        self._interrupt(attempt, TOO_SLOW)

    def _not_signed(self, failure: Failure, attempt: _Attempt) -> None:
        if attempt not in self._attempts:
            return
        self._log.failure("Cannot sign {id}", failure, id=str(attempt.message.id))
        self._end(attempt, _for_all(attempt, UNSIGNED))

    def _interrupt(self, attempt: _Attempt, reply: Reply) -> None:
        """End an attempt without an answer: the message may have been delivered."""
        if reply is TOO_SLOW:
            self._fault(attempt, reply, uncertain=True)
        else:
            began = attempt.file is not None
            outcomes = _for_all(attempt, reply)
            self._end(attempt, [evolve(each, uncertain=began) for each in outcomes])
        if attempt.asked is not None:
            attempt.asked.cancel()

    def _fault(self, attempt: _Attempt, reply: Reply, *, uncertain: bool = False) -> None:
        faults = self._faults[attempt.next_hop.delivery]
        if len(faults) < _FAULTS:
            faults[attempt.message.id] = None
        unreachable = len(faults) >= _FAULTS
        self._end(
            attempt,
            [
                evolve(each, uncertain=uncertain, unreachable=unreachable)
                for each in _for_all(attempt, reply)
            ],
        )

    def _end(self, attempt: _Attempt, outcomes: Sequence[Outcome]) -> None:
        del self._attempts[attempt]
        if attempt.deadline is not None:
            attempt.deadline.cancel()
            attempt.deadline = None
        if attempt.file is not None:
            attempt.file.close()
        attempt.result.callback(outcomes)


async def _awaited(answer: Awaitable[object]) -> object:
    return await answer


def _for_all(attempt: _Attempt, reply: Reply) -> list[Outcome]:
    return [Outcome(each.number, reply) for each in attempt.message.envelope.recipients]


def _reply(answer: object) -> Reply:
    """Return the reply of an answer for one recipient.

    Raises:
        TypeError: the answer is none.
    """
    if answer is None:
        return DELIVERED
    if not isinstance(answer, Reply) or answer.code // 100 == 3:
        raise TypeError(
            f"found {answer!r}, expected None, a Reply of 2yz, 4yz or 5yz, or a mapping from"
            " recipients to these"
        )
    return answer


def _fields(message: Message) -> bytes:
    """Return the fields on top of the content, as another host would get them."""
    if not message.assessment.quarantine:
        return message.trace
    return with_fields(message.trace, junk_fields(message.assessment.quarantine))


def _handed_over(message: Message, file: ContentFile) -> QueuedMessage:
    envelope = message.envelope
    return QueuedMessage(
        id=str(message.id),
        sender="" if envelope.reverse_path is None else str(envelope.reverse_path),
        recipients=tuple(str(each.mailbox) for each in envelope.recipients),
        envelope=envelope,
        size=file.seek(0, io.SEEK_END) - file.seek(0),
        content=io.BufferedReader(file, _BUFFER),
        quarantine=message.assessment.quarantine,
        received_at=message.received_at,
    )
