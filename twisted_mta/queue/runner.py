"""Takes what is due, hands it over, and records what came of it.

What is at work is leased and in memory, in places that `fair_share.FairShare` deals out; what is
beyond that waits in the store, and is read by the `backlog.Backlog`. A message that has just been
accepted is at work at once, without being read back, where there is room.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Deliver, Ids, Limits, Random, Route, WallTime
from ..mail.address import Mailbox
from ..mail.envelope import RecipientNumber
from ..mail.message import Message
from ..mail.next_hop import NextHop
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.queue_id import QueueId
from ..message.dsn.delivery_status import Action, ReportedRecipient
from ..smtp.extension.deliverby import TOO_LATE, DeliverBy
from .commit import GroupCommit
from .delays import DelayWatch
from .notices import Notices, RecipientsOf, itself
from .operator.interventions import Interventions
from .operator.operations import FIRST, Intervene, Page, Removed
from .runner_settings import RunnerSettings
from .schedule.backlog import Backlog
from .schedule.backoff import expiry
from .schedule.delivery import Delivery, split
from .schedule.fair_share import FairShare, LimitsOf, NextHopQueue
from .schedule.next_hop_status import NextHopStatus
from .schedule.next_hops import NextHopLimits, SuspendedNextHop, verdict
from .schedule.slots import Slot, Slots
from .settlement import BROKEN, DISCARDED, WAITING, Settlement, same_for_all
from .store.contract import Accept, Leased, Result, Settle

__all__ = ["BROKEN", "DISCARDED", "Observer", "Runner", "RunnerSettings"]

_PAUSE = 5.0  # seconds until limits are asked again that could not be, or what failed in here
_SLICE = 0.0005  # seconds of a turn in which transactions are begun; then acceptance has its turn
_CHOSEN = 8  # transactions that are chosen at once: what comes meanwhile waits for no more of them


Observer = Callable[[Message, Sequence[Outcome], str], None]
"""Told of each settled attempt: the message, its outcomes, and the next hop's name."""

Noticed = Callable[[str], object]
"""Told of each notice that is in the queue, by its action (RFC 3464 §2.3.3): ``failed``."""


Intervened = Callable[[str, QueueId, int], object]
"""Told of what an operator did: the action, the message, and how many of its recipients."""


def _no_limits(next_hop: NextHop) -> NextHopLimits:
    return NextHopLimits()


class Runner:
    """Works on the queue.

    Attributes:
        active: transactions under way.
    """

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
        noticed: Noticed = lambda action: None,
        intervened: Intervened = lambda action, id, recipients: None,
    ) -> None:
        """Prepare to work.

        Args:
            settings: see there.
            commit: the store.
            route: says where a mailbox goes; its domain alone decides.
            deliver: tries one transaction.
            clock: for delays.
            wall_time: for what is written down.
            random: what jitter is drawn from.
            ids: of notices.
            observe: see there.
            limits: counts transactions over all processes; None: there is only this one.
            limits_of: says what the operator said of a next hop.
            recipients_of: whom notices go to.
            noticed: see there.
            intervened: see there.
        """
        self.active = 0
        self._settings = settings
        self._commit = commit
        self._route = route
        self._deliver = deliver
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._observe = observe
        self._noticed = noticed
        self._tell_intervened = intervened
        self._interventions = Interventions()
        self._slots = Slots(limits, clock=clock)
        self._fair_share = FairShare(
            concurrency=settings.concurrency, per_hop=settings.per_hop, limits_of=limits_of
        )
        self._backlog = Backlog(
            commit=commit,
            fair_share=self._fair_share,
            clock=clock,
            wall_time=wall_time,
            hop_of=self._hop_of,
            came=self._came,
        )
        self._notices = Notices(settings.notices, ids=ids, recipients_of=recipients_of)
        self._settlement = Settlement(notices=self._notices, random=random)
        self._delays = DelayWatch(
            commit=commit,
            notices=self._notices,
            clock=clock,
            wall_time=wall_time,
            events=self._standing,
            record=self._warn,
        )
        self._beginning: deque[NextHopQueue] = deque()  # what `FairShare.startable` chose
        self._more = False  # whether it may choose more at once
        self._running = False
        self._turn: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._again: dict[IDelayedCall, Callable[[], None]] = {}

    def start(self) -> None:
        """Begin with what is due."""
        self._running = True
        self._backlog.survey()
        self._delays.start()
        self._wake()

    def stop(self) -> Deferred[None]:
        """Begin nothing more; fires when what is under way has been settled."""
        self._running = False
        for call in (self._turn, self._alarm):
            if call is not None and call.active():
                call.cancel()
        self._turn = self._alarm = None
        self._slots.stop()
        self._delays.stop()
        self._stopped = stopped = Deferred[None]()
        again, self._again = self._again, {}
        for timer, once_more in again.items():
            timer.cancel()
            once_more()
        self._say_if_stopped()
        return stopped

    def update(self, settings: RunnerSettings) -> None:
        """Go on with other settings, and with what `route` and `limits_of` say from now on.

        What is under way is not touched; what waits is sorted anew. What is known of next hops
        stays.
        """
        self._settings = settings
        if settings.notices != self._notices.settings:
            self._notices.settings = settings.notices
            if self._running:
                self._delays.start()
        waiting, domains = self._fair_share.update(
            concurrency=settings.concurrency, per_hop=settings.per_hop
        )
        for domain, due in domains.items():
            self._backlog.plan(domain, due)
        for part in waiting:
            self._put_back(part)
        self._wake()

    def suspended(self) -> Sequence[SuspendedNextHop]:
        """Return the next hops that are left alone."""
        now = self._clock.seconds()
        suspended = (hop.suspended(now) for hop in self._fair_share.suspensions())
        return [each for each in suspended if each is not None]

    def next_hop_status(self, next_hop: NextHop) -> NextHopStatus:
        """Return how things stand with a next hop; changes nothing."""
        return self._fair_share.status(
            next_hop, self._clock.seconds(), default=self._settings.backoff
        )

    def waits(self, next_hop: NextHop, id: QueueId, number: RecipientNumber) -> bool:
        """Whether a recipient is in memory and waits for its turn at a next hop."""
        return self._fair_share.waits(next_hop, id, number)

    def intervene(self, intervention: Intervene, *, by: str) -> Deferred[Page]:
        """Do to the queue what an operator asks for, in one slice (`operations.Intervene`).

        What is due then goes at once, and a next hop that is left alone is probed for it, once for
        all slices of an action. Fails with `StoreError`.

        Args:
            intervention: see there.
            by: who asks, for the log.
        """
        if intervention.after == FIRST:
            self._fair_share.act()
        return self._commit.perform(intervention).addCallback(self._intervened, intervention, by)

    def _intervened(self, page: Page, intervention: Intervene, by: str) -> Page:
        if intervention.dry_run:
            return page
        marked = self._interventions.done(intervention, page, by)
        domains: dict[str, None] = {}
        for listed in page.messages:
            gone = [
                not each.leased or intervention.action != "remove" for each in listed.recipients
            ]
            self._tell_intervened(intervention.action, listed.id, sum(gone))
            domains.update((each.recipient.mailbox.domain, None) for each in listed.recipients)
        for id, _, domain in page.more:
            self._tell_intervened(intervention.action, id, 1)
            domains[domain] = None
        if marked:
            for part, whole in self._fair_share.withdraw(self._interventions.part):
                self._put_back(part, whole=whole)
        if intervention.action in ("retry", "release"):
            now = self._clock.seconds()
            for domain in domains:
                self._backlog.plan(domain, intervention.now)
                if self._fair_share.probe(next_hop := self._hop_of(domain), now):
                    self._log.info("{next_hop} is probed before its time", next_hop=str(next_hop))
        self._wake()
        return page

    def accept(self, message: Message) -> Deferred[None]:
        """Put a message into the queue and begin with it (`interfaces.Accept`)."""
        now = self._wall_time()
        if message.received_at > now:  # the clock was set back while its content came
            message = evolve(message, received_at=now)
        if message.expanded or message.refused:
            return self._accept_with_notices(message)
        parts = self._claim(message)
        committed = self._commit.perform(Accept(message, bool(parts)))
        return committed.addCallbacks(
            self._accepted, self._refused, callbackArgs=(message, parts), errbackArgs=(parts,)
        )

    def _accept_with_notices(self, message: Message) -> Deferred[None]:
        """The same, with the notices of what is known of its recipients already."""
        now = self._wall_time()
        told = [self._notices.expanded(message, now), self._notices.refused(message, now)]
        notices = [each for written in told for each in written.messages]
        actions = [each for written in told for each in written.actions]
        unreported = [each for written in told for each in written.unreported]
        parts = self._claim(message)  # once nothing can be raised that would keep the places
        accept = Accept(message, bool(parts), tuple(notices), tuple(unreported))

        def accepted(_: Leased | None) -> None:
            self._accepted(None, message, parts)
            for action, notice in zip(actions, notices, strict=True):
                self._noticed(action)
                self._accepted(None, notice, ())
            self._settlement.say_refused(message, self._route, now)

        committed = self._commit.perform(accept)
        return committed.addCallbacks(accepted, self._refused, errbackArgs=(parts,))

    def _claim(self, message: Message) -> Sequence[Delivery]:
        """Return the parts of a message that there are places for now; all of them, or none."""
        if not self._running or message.released_at > self._wall_time():
            return ()
        parts = self._split(message)
        return parts if self._fair_share.claim(parts, self._clock.seconds()) else ()

    def _accepted(self, _: Leased | None, message: Message, parts: Sequence[Delivery]) -> None:
        try:
            self._arrive(message, parts)
        except Exception:
            # It is in the queue, so it is ours, and its client is to hear nothing else.
            self._log.failure("{id} is in the queue, and not begun with", id=message.id)

    def _arrive(self, message: Message, parts: Sequence[Delivery]) -> None:
        """A message is in the store: leased, if places were claimed for its ``parts``."""
        self._delays.arrived(message)
        for part in parts:
            self._fair_share.unclaim(part.next_hop)
            self._take_in(part)
        if not parts:
            self._backlog.note(message)
        self._wake()
        self._say_if_stopped()

    def _refused(self, failure: Failure, parts: Sequence[Delivery]) -> Failure:
        for part in parts:
            self._fair_share.unclaim(part.next_hop)
        self._say_if_stopped()
        return failure

    # Time.

    def _wake(self) -> None:
        # In a turn of its own: those who wait for the commit get their 250 first.
        if self._turn is None and self._running:
            self._turn = self._clock.callLater(0, self._dispatch)

    def _ring(self) -> None:
        self._alarm = None
        if self._turn is None:
            self._dispatch()

    def _dispatch(self) -> None:
        self._turn = None
        now = self._clock.seconds()
        try:
            next_probe = self._fair_share.next_probe(now)
            self._begin_some(now)
            next_due = self._backlog.read(self._settings)
        except Exception:
            self._log.failure("what is due could not be begun with, and is in a while")
            next_probe, next_due = None, now + _PAUSE
        times = [time for time in (next_probe, next_due) if time is not None]
        if times:
            self._look_at(min(times))

    def _begin_some(self, now: float) -> None:
        """Begin what may begin; what takes longer than its share of a turn begins in the next."""
        if not self._beginning:
            self._beginning.extend(self._fair_share.startable(now, _CHOSEN))
            self._more = len(self._beginning) == _CHOSEN
        while self._beginning:
            self._acquire(self._beginning.popleft())
            if self._clock.seconds() - now >= _SLICE:
                break
        if self._beginning or self._more:
            self._wake()

    def _look_at(self, time: float) -> None:
        """Look again at ``time``, by the clock, if that is not to be done before."""
        if not self._running:
            return
        if self._alarm is not None and self._alarm.active():
            if self._alarm.getTime() <= time:
                return
            self._alarm.cancel()
        self._alarm = self._clock.callLater(max(0.0, time - self._clock.seconds()), self._ring)

    # Parts of messages.

    def _came(self, messages: Sequence[Message]) -> dict[str, None]:
        """Take in what was read; return the domains of what has expired."""
        now = self._wall_time()
        expired: dict[str, None] = {}
        for message in messages:
            try:
                parts = self._split(message)
            except Exception:
                self._give_back_later(Delivery(NextHop("error", reply=BROKEN), message))
                continue
            for part in parts:
                if now >= self._expires_at(part):
                    for recipient in part.message.envelope.recipients:
                        expired[recipient.mailbox.domain] = None
                self._take_in(part)
        self._wake()
        self._say_if_stopped()
        return expired

    def _take_in(self, part: Delivery) -> None:
        """Let what is leased wait for its turn; where that fails, it does not stay leased."""
        try:
            self._enqueue(part)
        except Exception:
            self._give_back_later(part)

    def _give_back_later(self, part: Delivery) -> None:
        self._log.failure("{id} could not be begun with, and waits", id=part.message.id)
        self._try_again(lambda: self._put_back(part, whole=False))

    def _try_again(self, call: Callable[[], None]) -> None:
        """Do something in a while that has just failed; what stops does it for the last time."""

        def again() -> None:
            del self._again[timer]
            call()

        timer = self._clock.callLater(_PAUSE, again)
        self._again[timer] = call

    def _split(self, message: Message) -> list[Delivery]:
        return split(
            message,
            self._next_hop,
            lambda next_hop: self._fair_share.limits(next_hop).recipients_per_message,
        )

    def _next_hop(self, mailbox: Mailbox) -> NextHop:
        try:
            return self._route(mailbox)
        except Exception:
            # It has been acknowledged, or is leased: it must not get lost on the way.
            self._log.failure("no next hop for <{mailbox}>", mailbox=printable(str(mailbox)))
            return NextHop("error", reply=BROKEN)

    def _hop_of(self, domain: str) -> NextHop:
        try:
            return self._route(Mailbox("postmaster", domain))
        except Exception:
            return NextHop("error", reply=BROKEN)  # said when there is a mailbox to say it of

    def _enqueue(self, arrived: Delivery) -> None:
        part, withdrawn = self._interventions.part(arrived)
        if withdrawn is not None:
            self._put_back(withdrawn, whole=False)
        if part is None:
            return
        part.entered = part.started = self._clock.seconds()
        if not self._fair_share.arrive(part, part.entered):
            self._blocked(part)

    def _blocked(self, part: Delivery) -> None:
        """Nothing is tried at the next hop of a part now: return what has expired, or wait."""
        suspension = self._fair_share.line(part.next_hop).hop.suspension
        if suspension is not None and self._wall_time() >= self._expires_at(part):
            cause = suspension.cause
            self._settle(
                part,
                [
                    Outcome(recipient.number, cause.reply, cause.remote, cause.tls)
                    for recipient in part.message.envelope.recipients
                ],
            )
        else:
            self._put_back(part)

    def _put_back(self, part: Delivery, *, whole: bool = True) -> None:
        """End the lease of a part that was not tried; its place is free when that is done.

        Args:
            part: see there.
            whole: whether it has a place: what was taken out of a part, or never arrived, has none.
        """
        numbers = tuple(each.number for each in part.message.envelope.recipients)
        settle = Settle(part.message, untried=numbers)

        def back(result: Result) -> None:
            self._lease_ended(part.message, result)
            self._backlog.note(part.message)
            if whole:
                self._left(part)
            else:
                self._wake()

        self._commit.perform(settle).addCallbacks(back, self._unsettled, errbackArgs=(part,))

    def _lease_ended(self, message: Message, result: Result) -> None:
        struck = result.numbers if isinstance(result, Removed) else ()
        self._interventions.ended(message, struck)
        if struck:
            self._tell_intervened("remove", message.id, len(struck))

    def _left(self, part: Delivery) -> None:
        self._fair_share.leave(part)
        self._wake()
        self._say_if_stopped()

    def _expires_at(self, part: Delivery) -> float:
        return expiry(part.message, self._fair_share.limits(part.next_hop).lifetime)

    # One transaction.

    def _acquire(self, line: NextHopQueue) -> None:
        """Begin with the first of a line as soon as the limits leave room for it."""

        def refused() -> None:
            line.acquiring -= 1
            self._more = False
            self._look_at(self._clock.seconds() + _PAUSE)

        try:
            self._slots.acquire(
                line.hop,
                self._settings.concurrency,
                ready=lambda slot: self._begin(line, slot),
                refused=refused,
            )
        except Exception:
            self._log.failure("limits could not be asked for")
            refused()

    def _begin(self, line: NextHopQueue, slot: Slot | None) -> None:
        taken = self._fair_share.take(line, self._clock.seconds())
        if taken is None or not self._running:
            # Nobody is waiting any more.
            if slot is not None:
                slot.give_back()
            return
        part, attempt = taken
        kind = line.kind
        self.active += 1
        part.started = self._clock.seconds()
        if slot is not None:
            self._slots.begun(slot, line.hop)
        outcomes: Deferred[Sequence[Outcome]] = maybeDeferred(self._attempt, part)
        outcomes.addBoth(self._done, part, line, attempt, kind, slot).addErrback(
            lambda failure: self._log.failure("after the delivery of a message", failure)
        )

    def _attempt(self, part: Delivery) -> Any:
        """Return an outcome for each recipient, or a Deferred of that."""
        if part.next_hop.transport == "discard":
            return same_for_all(part, DISCARDED)
        if part.next_hop.transport == "error":
            return same_for_all(part, part.next_hop.reply or BROKEN)
        if self._is_too_late(part):
            return same_for_all(part, TOO_LATE)
        return self._deliver(part.next_hop, part.offered)

    def _is_too_late(self, part: Delivery) -> bool:
        """Whether a message is to be returned rather than tried now (RFC 2852 §4)."""
        by = DeliverBy.of(part.message.envelope.parameters)
        return by is not None and by.returned and self._wall_time() >= by.seconds

    def _done(
        self,
        outcomes: Sequence[Outcome] | Failure,
        part: Delivery,
        line: NextHopQueue,
        attempt: int,
        kind: int,
        slot: Slot | None,
    ) -> None:
        self.active -= 1
        if slot is not None:
            slot.give_back()
        if isinstance(outcomes, Failure):
            self._log.failure("the delivery of {id} failed", outcomes, id=part.message.id)
            outcomes = ()
        outcomes = part.outcomes(outcomes)
        try:
            self._learn(line, attempt, outcomes)
        finally:
            self._fair_share.ended(line, kind)
            self._settle(part, outcomes)
            self._wake()

    def _learn(self, line: NextHopQueue, attempt: int, outcomes: Sequence[Outcome]) -> None:
        hop, now = line.hop, self._clock.seconds()
        change = hop.end(
            attempt,
            # What is cut short by our own end says nothing.
            verdict(outcomes) if self._stopped is None else "silent",
            next((each for each in outcomes if each.unreachable), None),
            now=now,
            backoff=hop.limits.backoff(self._settings.backoff),
            random=self._random,
        )
        if change in ("suspended", "still suspended"):
            self._fair_share.failed(line)
        if change == "still suspended" and hop.suspension is not None:
            self._log.info(
                "{next_hop} cannot be reached yet, and is left alone as before: {reply}",
                next_hop=hop.name,
                reply=str(hop.suspension.cause.reply),
            )
        elif change == "suspended" and hop.suspension is not None:
            self._log.warn(
                "{next_hop} cannot be reached, and is left alone for {delay:.0f} s: {reply}",
                next_hop=hop.name,
                delay=hop.suspension.delay,
                times=hop.suspension.times,
                reply=str(hop.suspension.cause.reply),
            )
            for part in self._fair_share.suspended(line):
                self._blocked(part)
        elif change == "reopened":
            self._log.info("{next_hop} can be reached again", next_hop=hop.name)

    def _cut_short(self, outcome: Outcome) -> bool:
        """Whether an attempt came to nothing only because we are stopping."""
        undecided = not outcome.delivered and not outcome.failed
        return (
            self._stopped is not None
            and undecided
            and outcome.remote is None
            and not outcome.uncertain
        )

    def _settle(self, part: Delivery, outcomes: Sequence[Outcome]) -> None:
        """Record what a part came to, however often that fails."""
        try:
            settle, final, actions = self._settled_as(part, outcomes)
        except Exception:
            self._log.failure("what {id} came to cannot be written down now", id=part.message.id)
            if self._running:
                self._try_again(lambda: self._settle(part, outcomes))
            else:
                self._left(part)
            return
        try:
            self._observe(part.message, final, str(part.next_hop))
        except Exception:
            self._log.failure("an outcome of {id} was not observed", id=part.message.id)

        def settled(result: Result) -> None:
            self._lease_ended(part.message, result)
            self._settled(settle, part)

        self._record(settle, actions, settled, lambda failure: self._unsettled(failure, part))

    def _settled_as(
        self, part: Delivery, outcomes: Sequence[Outcome]
    ) -> tuple[Settle, Sequence[Outcome], Sequence[Action]]:
        limits = self._fair_share.limits(part.next_hop)
        rest, removed = self._interventions.undelivered(part, outcomes)
        settle, final, actions = self._settlement.settle(
            rest,
            outcomes,
            now=self._wall_time(),
            ended=self._clock.seconds(),
            expires_at=self._expires_at(part),
            backoff=limits.backoff(self._settings.backoff),
            cut_short=self._cut_short,
        )
        return (evolve(settle, untried=removed) if removed else settle), final, actions

    def _record(
        self,
        settle: Settle,
        actions: Sequence[Action],
        recorded: Callable[[Result], None],
        failed: Callable[[Failure], None],
    ) -> None:
        """Put what was decided into the store, and begin with its notices."""
        notices = [(notice, self._claim(notice)) for notice in settle.notices]
        if not all(parts for _, parts in notices):
            settle = evolve(settle, lease=False)
            for _, parts in notices:
                for each in parts:
                    self._fair_share.unclaim(each.next_hop)
            notices = [(notice, ()) for notice, _ in notices]

        def settled(result: Result) -> None:
            recorded(result)
            for action, (notice, parts) in zip(actions, notices, strict=True):
                self._noticed(action)
                self._arrive(notice, parts)

        def unsettled(failure: Failure) -> None:
            for _, parts in notices:
                for each in parts:
                    self._fair_share.unclaim(each.next_hop)
            failed(failure)

        self._commit.perform(settle).addCallbacks(settled, unsettled)

    # Delays.

    def _standing(self, message: Message) -> list[ReportedRecipient]:
        """Say how each recipient of a message stands, which is in the store and not due."""
        events = []
        for part in self._split(message):
            suspension = self._fair_share.suspension(part.next_hop)
            until = self._expires_at(part)
            for recipient in part.message.envelope.recipients:
                reply, remote = recipient.last_reply, recipient.last_remote
                if suspension is not None:
                    reply, remote = suspension.cause.reply, suspension.cause.remote
                outcome = Outcome(recipient.number, reply or WAITING, remote)
                events.append(ReportedRecipient(recipient, outcome, attempted=False, until=until))
        return events

    def _warn(self, settle: Settle, actions: Sequence[Action]) -> None:
        """Tell the sender of a message, which was leased for that, that it is delayed."""

        def back(result: Result) -> None:
            self._lease_ended(settle.message, result)
            self._backlog.note(settle.message)
            self._wake()

        def lost(failure: Failure) -> None:
            self._log.warn(
                "{id} is tried again after a restart: {error}",
                id=settle.message.id,
                error=failure.getErrorMessage(),
            )

        self._record(settle, actions, back, lost)

    def _settled(self, settle: Settle, part: Delivery) -> None:
        recipients = {each.number: each for each in part.message.envelope.recipients}
        for deferral in settle.deferred:
            recipient = recipients[deferral.outcome.number]
            self._backlog.plan(recipient.mailbox.domain, deferral.next_attempt)
        self._left(part)

    def _unsettled(self, failure: Failure, part: Delivery) -> None:
        self._log.warn(
            "{id} could not be settled, and is tried again after a restart: {error}",
            id=part.message.id,
            error=failure.getErrorMessage(),
        )
        self._left(part)

    def _say_if_stopped(self) -> None:
        # What waits in memory stays in the store and is due there: leases end with the process.
        if self._stopped is None or self._fair_share.under_way:
            return
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)
