"""The deliveries of a runner: how mail enters memory, and how it leaves when it is settled.

A message is leased as it is accepted, or is read from the backlog later. It is split into
deliveries, each of which has a place in memory (`fair_share`) until its outcomes are in the store.
Whatever fails in between, a leased delivery is tried, settled or put back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import evolve, frozen
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Route, WallTime
from ..mail.address import Mailbox
from ..mail.envelope import Recipient, RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..message.dsn.delivery_status import Action, ReportedRecipient
from .commit import GroupCommit
from .delays import DelayWatch
from .events_outbox import EventsOutbox
from .lifecycle import Lifecycle
from .notices import Notices
from .operator.interventions import Interventions
from .operator.operations import Removed
from .operator.suspended import SuspendedDestinations
from .runner_settings import RunnerSettings
from .schedule.backlog import Backlog
from .schedule.backoff import expiry
from .schedule.delivery import Delivery, split
from .schedule.fair_share import FairShare
from .schedule.next_hop_queue import NextHopQueue
from .settlement import BROKEN, WAITING, Settlement
from .store.contract import LostBody, Result, SetAside, Settle
from .store.spool import FileBody
from .store.webhook_events import NewEvent

_PAUSE = 5.0  # seconds until a step that failed is tried again

Observer = Callable[[Message, Sequence[Outcome], str], None]
"""Called with each settled attempt: the message, its outcomes, and the name of the next hop."""

Noticed = Callable[[str, Message], object]
"""Called with each notice that is in the queue: its action, as in RFC 3464 §2.3.3, and itself."""


@frozen
class Changed:
    """Recipients of a message that an intervention has changed.

    Attributes:
        action: of the intervention (`operations.Action`).
        id: of the message.
        reverse_path: of the message, if ``recipients`` are known; None is the null one.
        recipients: those that were read.
        unread: the numbers of further ones, where there were too many to read each.
    """

    action: str
    id: QueueId
    reverse_path: Mailbox | None = None
    recipients: tuple[Recipient, ...] = ()
    unread: tuple[RecipientNumber, ...] = ()


Intervened = Callable[[Changed], object]
"""Called after each intervention, for each message."""


@frozen
class Observers:
    """Callbacks for events in the queue."""

    settled: Observer
    noticed: Noticed
    intervened: Intervened


class Deliveries:
    """The deliveries in memory.

    Args:
        settings: of the runner; for a reload to replace.
        lifecycle: of the runner.
        commit: the store.
        fair_share: of places in memory.
        route: returns the next hop of a mailbox; only its domain matters.
        clock: for pauses and the length of stages.
        wall_time: for due times.
        notices: writes notices.
        settlement: decides what becomes of recipients.
        interventions: of the operator, on leased recipients.
        suspended: the destinations that the operator has suspended.
        observers: hear of settled attempts, notices and removals.
        outbox: writes events along with what they tell of.
        wake: called where something may begin.
        left: called where a delivery has left memory.

    Attributes:
        settings: those in force.
        backlog: the mail that waits in the store.
        delays: looks for mail whose delay is to be reported.
    """

    _log = Logger()

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        lifecycle: Lifecycle,
        commit: GroupCommit,
        fair_share: FairShare,
        route: Route,
        clock: Clock,
        wall_time: WallTime,
        notices: Notices,
        settlement: Settlement,
        interventions: Interventions,
        suspended: SuspendedDestinations,
        observers: Observers,
        outbox: EventsOutbox,
        wake: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        self.settings = settings
        self._lifecycle = lifecycle
        self._commit = commit
        self._fair_share = fair_share
        self._route = route
        self._clock = clock
        self._wall_time = wall_time
        self._settlement = settlement
        self._interventions = interventions
        self._suspended = suspended
        self._observers = observers
        self._outbox = outbox
        self._wake = wake
        self._tell_left = left
        self._retries: dict[IDelayedCall, Callable[[], None]] = {}
        self.backlog = Backlog(
            commit=commit,
            fair_share=fair_share,
            clock=clock,
            wall_time=wall_time,
            next_hop_of=self.next_hop_of_domain,
            take_in=self.take_in,
            is_suspended=lambda domain, hop: suspended.find(domain, hop) is not None,
        )
        self.delays = DelayWatch(
            commit=commit,
            notices=notices,
            clock=clock,
            wall_time=wall_time,
            events=self._delay_events,
            record=self._record_warning,
        )

    def stop(self) -> None:
        """Make the calls that wait for another try, for the last time."""
        retries, self._retries = self._retries, {}
        for timer, call in retries.items():
            timer.cancel()
            call()

    # Routes.

    def next_hop_of_domain(self, domain: str) -> NextHop:
        """Return the next hop of the mailboxes of a domain."""
        try:
            return self._route(Mailbox("postmaster", domain))
        except Exception:
            return NextHop("error", reply=BROKEN)  # logged when a mailbox is routed

    def _next_hop_of(self, mailbox: Mailbox) -> NextHop:
        try:
            return self._route(mailbox)
        except Exception:
            # The message is acknowledged, or leased: it must not get lost here.
            self._log.failure("no next hop for <{mailbox}>", mailbox=printable(str(mailbox)))
            return NextHop("error", reply=BROKEN)

    def _next_hop_without_tls(self, mailbox: Mailbox) -> NextHop:
        return self._next_hop_of(mailbox).for_mail(tls_optional=True)

    def _split(self, message: Message) -> list[Delivery]:
        optional = message.envelope.tls_optional
        return split(
            message,
            self._next_hop_without_tls if optional else self._next_hop_of,
            lambda next_hop: self._fair_share.limits(next_hop).recipients_per_message,
        )

    def _expires_at(self, delivery: Delivery) -> float:
        return expiry(delivery.message, self._fair_share.limits(delivery.next_hop).lifetime)

    # Into memory.

    def claim(self, message: Message) -> Sequence[Delivery]:
        """Return the deliveries of a message that is to be committed, each with a place claimed.

        Returns:
            None of them where there is not a place for each now; the message waits in the store.
        """
        if not self._lifecycle.is_running or message.released_at > self._wall_time():
            return ()
        if message.assessment.hold:
            return ()
        deliveries = self._split(message)
        if self._suspended and any(self._suspended.divide(each)[1] for each in deliveries):
            return ()  # its other recipients are read back at once
        return deliveries if self._fair_share.claim(deliveries, self._clock.seconds()) else ()

    def leave(self, deliveries: Sequence[Delivery]) -> None:
        """Give back the places of deliveries that do not arrive: their commit has failed."""
        for delivery in deliveries:
            self._fair_share.leave(delivery)

    def arrive(self, message: Message, deliveries: Sequence[Delivery]) -> None:
        """Take in a message that was committed: leased, if places were claimed for it.

        Args:
            message: the message.
            deliveries: its deliveries that have claimed a place; if none, it waits in the store.
        """
        self.delays.arrived(message)
        for delivery in deliveries:
            self._take_in(delivery)
        if not deliveries:
            self.backlog.note(message)
        self._wake()
        if self._lifecycle.is_stopping:  # it waits for claimed places
            self._tell_left()

    def take_in(self, messages: Sequence[Message]) -> dict[str, None]:
        """Take in messages that were leased; return the domains of those that have expired."""
        now = self._wall_time()
        expired: dict[str, None] = {}
        for message in messages:
            try:
                deliveries = self._split(message)
                late = [each for each in deliveries if now >= self._expires_at(each)]
            except Exception:
                self._put_back_later(Delivery(NextHop("error", reply=BROKEN), message))
                continue
            for delivery in late:
                for recipient in delivery.message.envelope.recipients:
                    expired[recipient.mailbox.domain] = None
            for delivery in deliveries:
                self._take_in(delivery)
        self._wake()
        self._tell_left()
        return expired

    def _take_in(self, delivery: Delivery) -> None:
        """Let a leased delivery wait for its turn; where that fails, it does not stay leased."""
        try:
            self._enqueue(delivery)
        except Exception:
            self._put_back_later(delivery)

    def _enqueue(self, delivery: Delivery) -> None:
        stays, goes = self._interventions.divide(delivery)
        if goes is not None:
            self.put_back(goes)
        if stays is not None:
            stays, goes = self._suspended.divide(stays)
            if goes is not None:
                self._wait_for_operator(goes)
        if stays is None:
            return
        stays.entered_at = stays.started_at = self._clock.seconds()
        if not self._fair_share.arrive(stays, stays.entered_at):
            self.blocked(stays)

    def blocked(self, delivery: Delivery) -> None:
        """Return a delivery whose next hop is suspended: to its sender if it has expired."""
        try:
            suspension = self._fair_share.suspension(delivery.next_hop)
            expired = suspension is not None and self._wall_time() >= self._expires_at(delivery)
        except Exception:  # others that waited for the next hop are returned all the same
            self._put_back_later(delivery)
            return
        if suspension is not None and expired:
            cause = suspension.cause
            self.settle(
                delivery,
                [
                    Outcome(recipient.number, cause.reply, cause.remote, cause.tls)
                    for recipient in delivery.message.envelope.recipients
                ],
            )
        else:
            self.put_back(delivery)

    def _wait_for_operator(self, delivery: Delivery) -> None:
        """Return a delivery that the operator has suspended: to its sender if it has expired."""
        outcomes = [
            Outcome(recipient.number, found.reply)
            for recipient in delivery.message.envelope.recipients
            if (found := self._suspended.find(recipient.mailbox.domain, delivery.next_hop))
        ]
        if len(outcomes) == len(delivery.message.envelope.recipients) and (
            self._wall_time() >= self._expires_at(delivery)
        ):
            self.settle(delivery, outcomes)
        else:
            self.put_back(delivery)

    def regrouped(self, delivery: Delivery, queue: NextHopQueue) -> None:
        """Route mail again whose next hop has turned out to share the limits of others, or not to.

        Args:
            delivery: which was not tried.
            queue: of that next hop until now. The queue of a group keeps the mail of other domains.
        """
        self.put_back(delivery)
        if queue.next_hop == delivery.next_hop:
            waiting, domains = self._fair_share.regroup(queue)
            for domain, due in domains.items():
                self.backlog.plan(domain, due)
            for each in waiting:
                self.put_back(each)

    # Out of memory.

    def put_back(self, delivery: Delivery) -> None:
        """End the lease of a delivery that was not tried; it keeps its place until that is done."""
        numbers = tuple(each.number for each in delivery.message.envelope.recipients)

        def is_back(result: Result) -> None:
            self._lease_ended(delivery.message, result)
            self.backlog.note(delivery.message)
            self._wake()
            self._leave(delivery)

        self._commit.perform(Settle(delivery.message, untried=numbers)).addCallbacks(
            is_back, self._not_settled, errbackArgs=(delivery,)
        )

    def _put_back_later(self, delivery: Delivery) -> None:
        self._log.failure("{id} could not be begun, and waits", id=delivery.message.id)
        self._try_again(lambda: self.put_back(delivery))

    def _try_again(self, call: Callable[[], None]) -> None:
        """Call ``call`` after a pause, or at the stop if that comes before."""

        def again() -> None:
            del self._retries[timer]
            call()

        timer = self._clock.callLater(_PAUSE, again)
        self._retries[timer] = call

    def _lease_ended(self, message: Message, result: Result) -> None:
        removed = result.numbers if isinstance(result, Removed) else ()
        self._interventions.ended(message, removed)
        if removed:
            envelope = message.envelope
            gone = tuple(each for each in envelope.recipients if each.number in removed)
            self.tell_of_change(Changed("remove", message.id, envelope.reverse_path, gone))

    def tell_of_change(self, changed: Changed) -> None:
        """Tell the observer of recipients that an intervention has changed."""
        try:
            self._observers.intervened(changed)
        except Exception:
            self._log.failure("an intervention in {id} was not observed", id=changed.id)

    def _leave(self, delivery: Delivery) -> None:
        self._fair_share.leave(delivery)
        self._tell_left()

    def settle(self, delivery: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Record the outcomes of a delivery, however often that fails."""
        try:
            settle, final, actions = self._decide(delivery, outcomes)
        except Exception:
            self._log.failure("the outcomes of {id} cannot be recorded now", id=delivery.message.id)
            if self._lifecycle.is_running:
                self._try_again(lambda: self.settle(delivery, outcomes))
            else:
                self._leave(delivery)
            return
        next_hop = str(delivery.next_hop)
        try:
            self._observers.settled(delivery.message, final, next_hop)
        except Exception:
            self._log.failure("an outcome of {id} was not observed", id=delivery.message.id)
        try:
            if events := self._outbox.settled(delivery.message, final, next_hop):
                settle = evolve(settle, events=tuple(events))
        except Exception:
            self._log.failure("an outcome of {id} has no event", id=delivery.message.id)

        def settled(result: Result) -> None:
            self._lease_ended(delivery.message, result)
            if settle.deferred:
                self._plan(delivery.message, settle)
                self._wake()
                if _may_have_lost_body(settle):
                    self._look_at_body(delivery.message)
            self._leave(delivery)

        self._record(settle, actions, settled, lambda failure: self._not_settled(failure, delivery))

    def _look_at_body(self, message: Message) -> None:
        """Set a message aside if its body is lost: it is not tried for days in vain."""

        def looked(lost: LostBody | None) -> None:
            if lost is not None:
                self._log.error(
                    "{id} has lost its body file; it is kept and not delivered: {reason}",
                    id=message.id,
                    reason=lost.reason,
                )

        # Where the store is closed now, the next attempt fails as well.
        self._commit.perform(SetAside(message.id)).addCallbacks(looked, lambda failure: None)

    def _decide(
        self, delivery: Delivery, outcomes: Sequence[Outcome]
    ) -> tuple[Settle, Sequence[Outcome], Sequence[Action]]:
        limits = self._fair_share.limits(delivery.next_hop)
        rest, removed = self._interventions.undelivered(delivery, outcomes)
        settle, final, actions = self._settlement.settle(
            rest,
            outcomes,
            now=self._wall_time(),
            ended=self._clock.seconds(),
            expires_at=expiry(delivery.message, limits.lifetime),
            limits=limits,
            backoff=self.settings.backoff,
            cut_short=self._was_cut_short,
        )
        return (evolve(settle, untried=removed) if removed else settle), final, actions

    def _was_cut_short(self, outcome: Outcome) -> bool:
        """Whether an attempt ended without an answer only because the runner is stopping."""
        return (
            self._lifecycle.is_stopping
            and outcome.deferred
            and outcome.remote is None
            and not outcome.answered
            and not outcome.uncertain
        )

    def _record(
        self,
        settle: Settle,
        actions: Sequence[Action],
        recorded: Callable[[Result], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Commit a settle, and take in its notices."""
        if not settle.notices and not settle.events:  # nearly always
            self._commit.perform(settle).addCallbacks(recorded, failed)
            return
        notices = [(notice, self.claim(notice)) for notice in settle.notices]
        if not all(deliveries for _, deliveries in notices):
            # The notices of a settle are leased all together, or not.
            settle = evolve(settle, lease=False)
            for _, deliveries in notices:
                self.leave(deliveries)
            notices = [(notice, ()) for notice, _ in notices]
        if settle.notices and (events := self.events_of(settle.notices)):
            settle = evolve(settle, events=(*settle.events, *events))

        def settled(result: Result) -> None:
            recorded(result)
            self.tell_of_events(settle.events)
            for action, (notice, deliveries) in zip(actions, notices, strict=True):
                self.tell_of_notice(action, notice)
                self.arrive(notice, deliveries)

        def not_settled(failure: Failure) -> None:
            for _, deliveries in notices:
                self.leave(deliveries)
            failed(failure)

        self._commit.perform(settle).addCallbacks(settled, not_settled)

    def events_of(self, messages: Sequence[Message]) -> tuple[NewEvent, ...]:
        """Return the events of messages that are to be accepted."""
        try:
            return tuple([event for each in messages for event in self._outbox.accepted(each)])
        except Exception:
            self._log.failure("{id} is accepted without an event", id=messages[0].id)
            return ()

    def tell_of_events(self, events: Sequence[NewEvent]) -> None:
        """Tell the outbox of events that are in the store."""
        try:
            if events:
                self._outbox.written(events)
        except Exception:  # they are found there after the next start
            self._log.failure("the outbox was not told of events")

    def tell_of_notice(self, action: str, notice: Message) -> None:
        """Tell the observer of a notice that is in the queue."""
        try:
            self._observers.noticed(action, notice)
        except Exception:
            self._log.failure("the notice {id} was not observed", id=notice.id)

    def _plan(self, message: Message, settle: Settle) -> None:
        recipients = {each.number: each for each in message.envelope.recipients}
        for deferral in settle.deferred:
            recipient = recipients[deferral.outcome.number]
            self.backlog.plan(recipient.mailbox.domain, deferral.next_attempt)

    def _not_settled(self, failure: Failure, delivery: Delivery) -> None:
        self._log.warn(
            "{id} could not be settled, and is tried again after a restart: {error}",
            id=delivery.message.id,
            error=failure.getErrorMessage(),
        )
        self._leave(delivery)

    # Delays (`DelayWatch`).

    def _delay_events(self, message: Message) -> list[ReportedRecipient]:
        """Return why each recipient of a message in the store was not delivered yet."""
        events = []
        for delivery in self._split(message):
            suspension = self._fair_share.suspension(delivery.next_hop)
            until = self._expires_at(delivery)
            for recipient in delivery.message.envelope.recipients:
                reply, remote = recipient.last_reply, recipient.last_remote
                by_operator = self._suspended.find(recipient.mailbox.domain, delivery.next_hop)
                if by_operator is not None:
                    reply, remote = by_operator.reply, None
                elif suspension is not None:
                    reply, remote = suspension.cause.reply, suspension.cause.remote
                outcome = Outcome(recipient.number, reply or WAITING, remote)
                events.append(ReportedRecipient(recipient, outcome, attempted=False, until=until))
        return events

    def _record_warning(self, settle: Settle, actions: Sequence[Action]) -> None:
        """Commit a settle that ends the leases of a message whose delay it reports."""
        message = settle.message

        def is_back(result: Result) -> None:
            self._lease_ended(message, result)
            self.backlog.note(message)
            self._wake()

        self._record(
            settle,
            actions,
            is_back,
            lambda failure: self._not_settled(failure, Delivery(NextHop("error"), message)),
        )


def _may_have_lost_body(settle: Settle) -> bool:
    """Whether an attempt may have been deferred since the body file could not be read."""
    return isinstance(settle.message.body, FileBody) and any(
        each.outcome.remote is None and not each.outcome.unreachable for each in settle.deferred
    )
