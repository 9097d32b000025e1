"""The runner: accept mail into the queue, deliver due mail, and record the outcomes.

Mail that is being delivered, or is about to be, is leased and in memory (`deliveries`), in places
that `fair_share.FairShare` shares out. All other mail waits in the store, and is read by the
`backlog`. A message that has just been accepted begins at once, without being read back, where
there is a place for it. `attempts` begins the transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from itertools import islice

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Deliver, Ids, Limits, Random, Route, WallTime
from ..mail.address import Mailbox
from ..mail.envelope import RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..system.slices import Pace
from ..system.work import Work
from .attempts import Attempts
from .commit import GroupCommit
from .deliveries import Changed, Deliveries, Intervened, Noticed, Observer, Observers
from .events_outbox import EventsOutbox, NoEvents
from .lifecycle import Event, Lifecycle
from .notices import Notices, RecipientsOf, itself
from .operator.interventions import Interventions
from .operator.operations import FIRST, Intervene, ListedMessage, Page, Retry
from .operator.selection import Selection
from .operator.suspended import SuspendedDestination, SuspendedDestinations, destination_names
from .runner_settings import RunnerSettings
from .schedule.delivery import Delivery
from .schedule.fair_share import FairShare, LimitsOf
from .schedule.next_hop_status import NextHopStatus
from .schedule.next_hops import NextHopLimits, SuspendedNextHop
from .schedule.slots import Slots
from .settlement import BROKEN, DISCARDED, Settlement
from .store.contract import Accept, Leased
from .store.webhook_events import NewEvent

__all__ = [
    "BROKEN",
    "DISCARDED",
    "Changed",
    "Intervened",
    "Noticed",
    "Observer",
    "Runner",
    "RunnerSettings",
]

Waiting = dict[tuple[QueueId, RecipientNumber], float | None]
"""Recipients that wait for their turn, with the wall time that it is expected at by the rate of
their next hop; None: the rate does not delay it."""

_LOOKED_UP = 16  # next hops of domains that are looked up in a slice
_NAMED = 10  # suspended next hops whose domains are named
_SEARCHED = 100  # domains among which those of suspended next hops are found
_NAMED_DESTINATIONS = 100  # destinations that the operator has suspended whose mail is counted
_PAUSE = 5.0  # seconds until a dispatch that failed is tried again
_LONGEST_SLEEP = 60.0  # seconds to the next look at suspensions that end by the wall clock


def _no_limits(next_hop: NextHop) -> NextHopLimits:
    return NextHopLimits()


class Runner:
    """Runs the queue of one store."""

    _log = Logger()

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        commit: GroupCommit,
        route: Route,
        deliver: Deliver,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
        ids: Ids,
        observe: Observer = lambda message, outcomes, next_hop: None,
        limits: Limits | None = None,
        limits_of: LimitsOf = _no_limits,
        recipients_of: RecipientsOf = itself,
        noticed: Noticed = lambda action, notice: None,
        intervened: Intervened = lambda changed: None,
        outbox: EventsOutbox | None = None,
    ) -> None:
        """Prepare to run.

        Args:
            settings: those in force until `update`.
            commit: the store.
            route: returns the next hop of a mailbox; only its domain matters.
            deliver: attempts one transaction.
            clock: for delays.
            wall_time: for due times.
            random: the source of jitter.
            ids: of notices.
            observe: called with each settled attempt.
            limits: counts transactions over all processes; None: there is only this one.
            limits_of: returns the limits of a next hop from the configuration.
            recipients_of: returns the recipients of a notice.
            noticed: called with each notice that is in the queue.
            intervened: called after each intervention.
            outbox: writes events along with what they tell of; None: there are none.
        """
        self._settings = settings
        self._commit = commit
        self._route = route
        self._clock = clock
        self._wall_time = wall_time
        self._lifecycle = Lifecycle()
        self._interventions = Interventions()
        self._suspended = SuspendedDestinations(wall_time)
        self._slots = Slots(limits, clock=clock)
        self._fair_share = FairShare(
            concurrency=settings.concurrency, per_hop=settings.per_hop, limits_of=limits_of
        )
        self._notices = Notices(settings.notices, ids=ids, recipients_of=recipients_of)
        self._settlement = Settlement(notices=self._notices, random=random)
        self._deliveries = Deliveries(
            settings,
            lifecycle=self._lifecycle,
            commit=commit,
            fair_share=self._fair_share,
            route=route,
            clock=clock,
            wall_time=wall_time,
            notices=self._notices,
            settlement=self._settlement,
            interventions=self._interventions,
            suspended=self._suspended,
            observers=Observers(observe, noticed, intervened),
            outbox=outbox or NoEvents(),
            wake=self._wake,
            left=self._left,
        )
        self._attempts = Attempts(
            settings,
            lifecycle=self._lifecycle,
            fair_share=self._fair_share,
            slots=self._slots,
            deliver=deliver,
            clock=clock,
            wall_time=wall_time,
            random=random,
            wake=self._wake,
            freed=self._wake_for_rest,
            look_at=self._look_at,
            settle=self._deliveries.settle,
            blocked=self._deliveries.blocked,
            regrouped=self._deliveries.regrouped,
        )
        self._backlog = self._deliveries.backlog
        self._turn: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._stopped: list[Deferred[None]] = []
        self._waiting_for_idle: list[Deferred[None]] = []

    @property
    def active(self) -> int:
        """Transactions under way."""
        return self._attempts.active

    @property
    def is_running(self) -> bool:
        """Whether deliveries may begin."""
        return self._lifecycle.is_running

    @property
    def is_idle(self) -> bool:
        """Whether no mail is in memory, and none is due but for suspended next hops."""
        return not self._fair_share.has_work and not self._backlog.has_work

    def when_idle(self) -> Deferred[None]:
        """Return a Deferred that fires in a turn in which the runner `is_idle`, or has stopped."""
        idle: Deferred[None] = Deferred(lambda each: self._waiting_for_idle.remove(each))
        self._waiting_for_idle.append(idle)
        if self._lifecycle.is_running:
            self._wake()
        elif not self._lifecycle.is_stopping:
            self._fire_idle()
        return idle

    def _fire_idle(self) -> None:
        waiting, self._waiting_for_idle = self._waiting_for_idle, []
        for each in waiting:
            each.callback(None)

    # Starting, stopping, and new settings.

    def start(self) -> None:
        """Begin to deliver."""
        self._lifecycle.enter(Event.START)
        self._backlog.survey()
        self._deliveries.delays.start()
        self._wake()

    def survey(self) -> None:
        """Look for mail that others have put into the store or left in it."""
        if self._lifecycle.is_running:
            self._backlog.survey()
            self._wake()

    def stop(self) -> Deferred[None]:
        """Begin no more deliveries; fires when those under way are settled."""
        self._lifecycle.enter(Event.STOP)
        for call in (self._turn, self._alarm):
            if call is not None and call.active():
                call.cancel()
        self._turn = self._alarm = None
        self._slots.stop()
        self._deliveries.delays.stop()
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._deliveries.stop()
        self._report_if_stopped()
        return stopped

    def _report_if_stopped(self) -> None:
        # Mail that waits in memory is left to the next start: leases end with the process.
        if not self._lifecycle.is_stopping or self._fair_share.under_way:
            return
        self._lifecycle.enter(Event.NOTHING_UNDER_WAY)
        self._fire_idle()
        stopped, self._stopped = self._stopped, []
        for each in stopped:
            each.callback(None)

    def update(self, settings: RunnerSettings) -> None:
        """Take over new settings, and what ``route`` and ``limits_of`` return from now on.

        Transactions under way are not touched; mail that waits is routed again. The state of next
        hops is kept.
        """
        self._settings = self._deliveries.settings = self._attempts.settings = settings
        if settings.notices != self._notices.settings:
            self._notices.settings = settings.notices
            if self._lifecycle.is_running:
                self._deliveries.delays.start()
        self._route_again()

    def _route_again(self) -> None:
        """Route all mail that waits, in memory and in the store, and put it where it belongs."""
        settings = self._settings
        waiting, domains = self._fair_share.update(
            concurrency=settings.concurrency, per_hop=settings.per_hop
        )
        for domain, due in domains.items():
            self._backlog.plan(domain, due)
        self._backlog.reconsider()
        for delivery in waiting:
            self._deliveries.put_back(delivery)
        self._wake()

    # Accepting.

    def accept(self, message: Message) -> Deferred[None]:
        """Put a message into the queue and begin to deliver it (`interfaces.Accept`)."""
        now = self._wall_time()
        if message.received_at > now:  # the clock was set back during the transfer
            message = evolve(message, received_at=now)
        if message.expanded or message.refused:
            return self._accept_with_notices(message)
        deliveries = self._deliveries.claim(message)
        events = self._deliveries.events_of((message,))
        accept = Accept(message, bool(deliveries), events=events)
        return self._commit.perform(accept).addCallbacks(
            self._accepted,
            self._refused,
            callbackArgs=(message, deliveries, events),
            errbackArgs=(deliveries,),
        )

    def _accept_with_notices(self, message: Message) -> Deferred[None]:
        """Put a message into the queue along with notices about some of its recipients."""
        now = self._wall_time()
        written = [self._notices.expanded(message, now), self._notices.refused(message, now)]
        notices = [notice for each in written for notice in each.messages]
        actions = [action for each in written for action in each.actions]
        unreported = [outcome for each in written for outcome in each.unreported]
        # Nothing between the claim and the commit may raise, or the places stay claimed.
        events = self._deliveries.events_of((message, *notices))
        deliveries = self._deliveries.claim(message)
        accept = Accept(message, bool(deliveries), tuple(notices), tuple(unreported), events)

        def accepted(_: Leased | None) -> None:
            self._accepted(None, message, deliveries, events)
            for action, notice in zip(actions, notices, strict=True):
                self._deliveries.tell_of_notice(action, notice)
                self._accepted(None, notice, ())
            self._settlement.log_refused(message, self._route, now)

        committed = self._commit.perform(accept)
        return committed.addCallbacks(accepted, self._refused, errbackArgs=(deliveries,))

    def _accepted(
        self,
        _: Leased | None,
        message: Message,
        deliveries: Sequence[Delivery],
        events: Sequence[NewEvent] = (),
    ) -> None:
        if events:
            self._deliveries.tell_of_events(events)
        try:
            self._deliveries.arrive(message, deliveries)
        except Exception:
            # The message is in the queue: its client gets 250 in any case.
            self._log.failure("{id} is in the queue, and could not be begun", id=message.id)

    def _refused(self, failure: Failure, deliveries: Sequence[Delivery]) -> Failure:
        self._deliveries.leave(deliveries)
        self._left()
        return failure

    # Time.

    def _wake(self) -> None:
        # In a turn of its own: clients that wait for the commit get their 250 first.
        if self._turn is None and self._lifecycle.is_running:
            self._turn = self._clock.callLater(0, self._dispatch)

    def _wake_for_rest(self) -> None:
        # Nearly always nothing waits for the transaction or the place that has become free.
        if self._fair_share.has_rest or self._waiting_for_idle:
            self._wake()

    def _left(self) -> None:
        self._wake_for_rest()
        if self._lifecycle.is_stopping:
            self._report_if_stopped()

    def _ring(self) -> None:
        self._alarm = None
        if self._turn is None:
            self._dispatch()

    def _dispatch(self) -> None:
        """Begin transactions, read due mail, and set the alarm for the next time."""
        self._turn = None
        now = self._clock.seconds()
        try:
            next_end = self._end_suspensions(now)
            next_probe = self._fair_share.next_probe(now)
            self._attempts.begin_some(now)
            next_due = self._backlog.read(self._settings)
        except Exception:
            self._log.failure("due mail could not be begun, and is tried again")
            next_end, next_probe, next_due = None, None, now + _PAUSE
        times = [time for time in (next_end, next_probe, next_due) if time is not None]
        if times:
            self._look_at(min(times))
        if self._waiting_for_idle and self.is_idle:
            self._fire_idle()

    def _look_at(self, time: float) -> None:
        """Dispatch at ``time``, by the clock, unless that is to happen before."""
        if not self._lifecycle.is_running:
            return
        if self._alarm is not None and self._alarm.active():
            if self._alarm.getTime() <= time:
                return
            self._alarm.cancel()
        self._alarm = self._clock.callLater(max(0.0, time - self._clock.seconds()), self._ring)

    # The operator.

    @property
    def suspended_destinations(self) -> Sequence[SuspendedDestination]:
        """The destinations that the operator has suspended, by name."""
        return self._suspended.in_force()

    def suspended_destination(self, mailbox: Mailbox) -> SuspendedDestination | None:
        """Return the destination of a mailbox that the operator has suspended; None: it is not."""
        if not self._suspended:
            return None
        next_hop = self._deliveries.next_hop_of_domain(mailbox.domain)
        return self._suspended.find(mailbox.domain, next_hop)

    def take_suspended(self, destinations: Sequence[SuspendedDestination]) -> None:
        """Take over from the store which destinations the operator has suspended.

        Transactions under way are not touched; mail that waits for a suspended destination does not
        begin any more, and mail of one that was resumed is due as before.
        """
        if self._suspended.replace(destinations) and self._lifecycle.is_running:
            self._route_again()

    def _end_suspensions(self, now: float) -> float | None:
        """End those whose time is over; return when to look again, by the clock."""
        ended = self._suspended.expire()
        for each in ended:
            self._log.info(
                "{destination} is no longer suspended by the operator: its time is over",
                destination=printable(each.name),
            )
        if ended:
            self._route_again()
        end = self._suspended.next_end()
        # The wall clock may be set ahead meanwhile.
        return None if end is None else now + min(max(0.0, end - self._wall_time()), _LONGEST_SLEEP)

    def domains_of_suspended(self) -> Mapping[str, Sequence[str]]:
        """Return domains with mail for each suspended destination, by name; not all of many."""
        destinations = self._suspended.in_force()[:_NAMED_DESTINATIONS]
        found: dict[str, list[str]] = {
            each.name: [each.name] if each.is_domain else [] for each in destinations
        }
        if not all(each.is_domain for each in destinations):
            for domain in islice(self._backlog.suspended_domains(), _SEARCHED):
                next_hop = self._deliveries.next_hop_of_domain(domain)
                by = self._suspended.find(domain, next_hop)
                if by is not None and not by.is_domain and by.name in found:
                    found[by.name].append(domain)
        return found

    def domains_of_destinations(self, names: Collection[str]) -> Work[list[str]]:
        """Return the domains with mail in the store for destinations, in slices of work.

        Args:
            names: of destinations, suspended or not.
        """
        domains = []
        for number, domain in enumerate(self._backlog.domains()):
            if number % _LOOKED_UP == 0:
                yield
            next_hop = self._deliveries.next_hop_of_domain(domain)
            if any(name in names for name in destination_names(domain, next_hop)):
                domains.append(domain)
        return domains

    def suspended(self) -> Sequence[SuspendedNextHop]:
        """Return the next hops that are suspended."""
        now = self._clock.seconds()
        suspended = (state.suspended(now) for state in self._fair_share.suspended_next_hops())
        return [each for each in suspended if each is not None]

    def next_hop_status(self, next_hop: NextHop) -> NextHopStatus:
        """Return the status of a next hop, without a change to it."""
        now = self._clock.seconds()
        status = self._fair_share.status(next_hop, now, default=self._settings.backoff)
        queue = self._fair_share.queues.get(next_hop.shared)
        if queue is None:
            return status
        time = self._slots.next_by_rate(
            queue.state, len(queue.waiting), asking=bool(queue.acquiring)
        )
        return status if time is None else evolve(status, next_by_rate=max(0.0, time - now))

    def waiting(self, ids: Container[QueueId]) -> Waiting:
        """Return which recipients of messages are leased and wait for their turn.

        Args:
            ids: of the messages.
        """
        waiting: Waiting = {}
        since_epoch = self._wall_time() - self._clock.seconds()
        for queue, position, delivery in self._fair_share.waiting():
            if delivery.message.id not in ids:
                continue
            time = self._slots.next_by_rate(queue.state, position, asking=bool(queue.acquiring))
            for recipient in delivery.message.envelope.recipients:
                key = delivery.message.id, recipient.number
                waiting[key] = None if time is None else since_epoch + time
        return waiting

    def intervene(self, intervention: Intervene, *, by: str) -> Deferred[Page]:
        """Change recipients of one slice of the queue (`operations.Intervene`).

        Mail that is due then begins at once, and a suspended next hop is probed for it, once for
        all slices of an intervention. Fails with `StoreError`.

        Args:
            intervention: the operation.
            by: the operator's name, for the log.
        """
        if intervention.after == FIRST:
            self._fair_share.intervention_begins()
        return self._commit.perform(intervention).addCallback(self._changed, intervention, by)

    def suspended_next_hops(self) -> Sequence[NextHop]:
        """Return the next hops that are suspended."""
        return [state.next_hop for state in self._fair_share.suspended_next_hops()]

    def suspended_domains(self) -> Mapping[str, Sequence[str]]:
        """Return domains with mail for each suspended next hop, by its name; not all of many."""
        states = self._fair_share.suspended_next_hops()[:_NAMED]
        domains = {
            state.next_hop: [state.next_hop.domain] if state.next_hop.domain else []
            for state in states
        }
        if not all(domains.values()):  # several domains have one route, or one provider
            for domain in islice(self._backlog.domains(), _SEARCHED):
                next_hop = self._deliveries.next_hop_of_domain(domain).shared
                if next_hop in domains and not next_hop.domain:
                    domains[next_hop].append(domain)
        return {state.name: domains[state.next_hop] for state in states}

    async def retry_next_hops(self, next_hops: Collection[NextHop], pace: Pace, *, by: str) -> None:
        """Make all mail for suspended next hops due now, and probe each of them once.

        Args:
            next_hops: of which the settings have changed.
            pace: how their domains are looked up.
            by: the cause, for the log.

        Raises:
            StoreError: the queue cannot be read or written.
        """
        await self.retry_domains(await pace.work(self._domains_of(next_hops)), by=by)

    async def retry_domains(self, domains: Sequence[str], *, by: str) -> None:
        """Make all mail of domains due now.

        Args:
            domains: of recipients.
            by: the operator, or the cause, for the log.

        Raises:
            StoreError: the queue cannot be read or written.
        """
        first = FIRST  # the intervention begins, also for other processes of a shared queue
        for domain in domains:
            after: int | None = first
            first = FIRST + 1
            while after is not None and self._lifecycle.is_running:
                selection = Selection(domain=domain)
                intervention = Intervene("retry", selection, self._wall_time(), after)
                after = (await self.intervene(intervention, by=by)).next

    def _domains_of(self, next_hops: Collection[NextHop]) -> Work[list[str]]:
        """Return the domains with mail in the store for next hops, in slices of work."""
        found = []
        for number, domain in enumerate(self._backlog.domains()):
            if number % _LOOKED_UP == 0:
                yield
            if self._deliveries.next_hop_of_domain(domain).shared in next_hops:
                found.append(domain)
        return found

    def _changed(self, page: Page, intervention: Intervene, by: str) -> Page:
        """Act on changed recipients; return them, only those under way as leased."""
        waiting = self.waiting({listed.id for listed in page.messages})
        shown = evolve(
            page, messages=tuple(_without_leases(each, waiting) for each in page.messages)
        )
        if intervention.dry_run:
            return shown
        any_leased = self._interventions.changed(intervention, page, by, waiting)
        for listed in page.messages:
            # A leased recipient that is removed is counted when it leaves the queue.
            changed = tuple(
                each.recipient
                for each in listed.recipients
                if not each.leased or intervention.action != "remove"
            )
            self._deliveries.tell_of_change(
                Changed(intervention.action, listed.id, listed.reverse_path, changed)
            )
        unread: dict[QueueId, list[RecipientNumber]] = {}
        for id, number, _ in page.more:
            unread.setdefault(id, []).append(number)
        for id, numbers in unread.items():
            self._deliveries.tell_of_change(Changed(intervention.action, id, unread=tuple(numbers)))
        if any_leased:
            for delivery in self._fair_share.withdraw(self._interventions.divide):
                self._deliveries.put_back(delivery)
        if intervention.action in ("retry", "release"):
            self._try_again(page.domains, intervention.now)
        self._wake()
        return shown

    def take_retried(self, retries: Sequence[Retry]) -> None:
        """Act on retries that other processes of a shared queue have done, one in each turn.

        Their mail is due in the store, where all processes find it. But each has its own view of
        which next hops are suspended.
        """
        if not retries or not self._lifecycle.is_running:
            return
        first, *others = retries
        if first.begins:
            self._fair_share.intervention_begins()
        self._try_again(first.domains, self._wall_time())
        self._wake()
        if others:
            self._clock.callLater(0, self.take_retried, others)

    def _try_again(self, domains: Sequence[str], due: float) -> None:
        """Read mail of domains, which is due since ``due``, and probe next hops for it."""
        now = self._clock.seconds()
        for domain in domains:
            self._backlog.plan(domain, due)
            next_hop = self._deliveries.next_hop_of_domain(domain)
            if self._fair_share.probe(next_hop, now):
                self._log.info("{next_hop} is probed before its time", next_hop=str(next_hop))


def _without_leases(listed: ListedMessage, waiting: Waiting) -> ListedMessage:
    """Return a message whose waiting recipients are shown as not leased."""
    if not any((listed.id, each.recipient.number) in waiting for each in listed.recipients):
        return listed
    return evolve(
        listed,
        recipients=tuple(
            evolve(each, leased=False) if (listed.id, each.recipient.number) in waiting else each
            for each in listed.recipients
        ),
    )
