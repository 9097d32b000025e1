"""Attempts: transactions that begin as limits allow, and what they show about their next hops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..interfaces import Clock, Deliver, Random, Regrouped, WallTime
from ..mail.failed_step import failed_step
from ..mail.outcome import Outcome, checked_outcomes
from ..smtp.extension.deliverby import TOO_LATE, DeliverBy
from .lifecycle import Lifecycle
from .runner_settings import RunnerSettings
from .schedule.delivery import Delivery
from .schedule.fair_share import FairShare
from .schedule.next_hop_queue import Kind, NextHopQueue
from .schedule.next_hops import verdict
from .schedule.slots import Slot, Slots
from .settlement import BROKEN, DISCARDED, same_for_all

_PAUSE = 5.0  # seconds until a slot that could not be acquired is tried again
_SLICE = 0.001  # seconds of a reactor turn in which transactions begin; then others have theirs
_CHOSEN = 16  # transactions that are chosen at once: mail that comes meanwhile waits for no more


class Attempts:
    """Begins transactions in the order of `FairShare`, and passes their outcomes on.

    Args:
        settings: of the runner; for a reload to replace.
        lifecycle: of the runner.
        fair_share: chooses the deliveries.
        slots: of transactions, over all processes.
        deliver: attempts one transaction.
        clock: for the length of a slice.
        wall_time: for return times (RFC 2852).
        random: the source of jitter.
        wake: called where a transaction may begin.
        freed: called where a transaction has ended, so that another may begin.
        look_at: called with the time, by the clock, at which one may begin.
        settle: called with each delivery that was tried and its outcomes.
        blocked: called with each delivery that waited for a next hop which was suspended.
        regrouped: called with each delivery that was not tried, since its next hop has turned out
            to share the limits of others, or to share them no more; and with its queue.

    Attributes:
        settings: those in force.
        active: transactions under way.
    """

    _log = Logger()

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        lifecycle: Lifecycle,
        fair_share: FairShare,
        slots: Slots,
        deliver: Deliver,
        clock: Clock,
        wall_time: WallTime,
        random: Random,
        wake: Callable[[], None],
        freed: Callable[[], None],
        look_at: Callable[[float], None],
        settle: Callable[[Delivery, Sequence[Outcome]], None],
        blocked: Callable[[Delivery], None],
        regrouped: Callable[[Delivery, NextHopQueue], None],
    ) -> None:
        self.settings = settings
        self.active = 0
        self._lifecycle = lifecycle
        self._fair_share = fair_share
        self._slots = slots
        self._deliver = deliver
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._wake = wake
        self._freed = freed
        self._look_at = look_at
        self._settle = settle
        self._blocked = blocked
        self._regrouped = regrouped
        self._chosen: deque[NextHopQueue] = deque()  # by `FairShare.startable`
        self._more = False  # whether it may choose more at once

    def begin_some(self, now: float) -> None:
        """Begin transactions for a slice of a reactor turn; the rest begins in the next turns."""
        if not self._chosen:
            self._chosen.extend(self._fair_share.startable(now, _CHOSEN))
            self._more = len(self._chosen) == _CHOSEN
        while self._chosen:
            self._acquire(self._chosen.popleft())
            if self._clock.seconds() - now >= _SLICE:
                break
        if self._chosen or self._more:
            self._wake()

    def _acquire(self, queue: NextHopQueue) -> None:
        """Begin the first delivery of a queue when it has a slot."""

        def refused() -> None:
            queue.acquiring -= 1
            self._more = False
            self._look_at(self._clock.seconds() + _PAUSE)

        try:
            waits = self._slots.acquire(
                queue.state,
                self.settings.concurrency,
                ready=partial(self._begin, queue),
                refused=refused,
            )
        except Exception:
            self._log.failure("a delivery slot could not be acquired")
            refused()
        else:
            # It was chosen in the place of others, which need not wait as long.
            self._more = self._more or waits

    def _begin(self, queue: NextHopQueue, slot: Slot | None) -> None:
        now = self._clock.seconds()
        begun = self._fair_share.begin(queue, now)
        if begun is None or not self._lifecycle.is_running:
            if slot is not None:
                slot.give_back()
            return
        delivery, attempt = begun
        kind = queue.kind
        self.active += 1
        delivery.started_at = now
        try:
            if slot is not None:
                self._slots.begun(slot, queue.state)
            outcomes = self._attempt(delivery)
        except BaseException:  # an application may call sys.exit
            outcomes = Failure()
        if isinstance(outcomes, Deferred):
            outcomes.addBoth(self._done, delivery, queue, attempt, kind, slot)
        else:
            self._done(outcomes, delivery, queue, attempt, kind, slot)

    def _attempt(self, delivery: Delivery) -> Any:
        """Return an outcome for each recipient of the copy, or a Deferred of them."""
        if delivery.next_hop.transport == "discard":
            return same_for_all(delivery, DISCARDED)
        if delivery.next_hop.transport == "error":
            return same_for_all(delivery, delivery.next_hop.reply or BROKEN)
        if self._is_too_late(delivery):
            return same_for_all(delivery, TOO_LATE)
        return self._deliver(delivery.next_hop, delivery.copy)

    def _is_too_late(self, delivery: Delivery) -> bool:
        """Whether the message is to be returned instead of tried now (RFC 2852 §4)."""
        by = DeliverBy.of(delivery.message.envelope.parameters)
        return by is not None and by.returned and self._wall_time() >= by.seconds

    def _done(
        self,
        outcomes: Sequence[Outcome] | Failure,
        delivery: Delivery,
        queue: NextHopQueue,
        attempt: int,
        kind: Kind,
        slot: Slot | None,
    ) -> None:
        try:
            self._end(outcomes, delivery, queue, attempt, kind, slot)
        except Exception:
            self._log.failure("after the delivery of a message")

    def _end(
        self,
        outcomes: Sequence[Outcome] | Failure,
        delivery: Delivery,
        queue: NextHopQueue,
        attempt: int,
        kind: Kind,
        slot: Slot | None,
    ) -> None:
        self.active -= 1
        if slot is not None:
            slot.give_back()
        if isinstance(outcomes, Failure) and outcomes.check(Regrouped):
            try:
                self._learn(queue, attempt, (), delivery)
            finally:
                self._fair_share.ended(queue, kind)
                self._regrouped(delivery, queue)
                self._wake()
            return
        if not isinstance(outcomes, Failure):
            try:
                outcomes = delivery.outcomes(checked_outcomes(outcomes))
            except TypeError:  # the recipients stay in the queue, and their place becomes free
                outcomes = Failure()
        if isinstance(outcomes, Failure):
            self._log.failure("the delivery of {id} failed", outcomes, id=delivery.message.id)
            outcomes = ()
        try:
            self._learn(queue, attempt, outcomes, delivery)
        finally:
            self._fair_share.ended(queue, kind)
            self._settle(delivery, outcomes)
            self._freed()

    def _learn(
        self,
        queue: NextHopQueue,
        attempt: int,
        outcomes: Sequence[Outcome],
        delivery: Delivery,
    ) -> None:
        """Change the state of a next hop by the outcomes of one transaction."""
        state, now = queue.state, self._clock.seconds()
        shown = verdict(outcomes)
        if shown == "unreachable" and delivery.next_hop.exchanger and state.suspension is None:
            shown = shown if state.confirms(delivery.next_hop.domain) else "silent"
        cause: Outcome | None = None
        if shown == "unreachable":
            cause = next(each for each in outcomes if each.unreachable)
        change = state.end(
            attempt,
            # A transaction that the stop cut short shows nothing.
            "silent" if self._lifecycle.is_stopping else shown,
            cause,
            now=now,
            backoff=self.settings.backoff,
            random=self._random,
        )
        by_action = [(each.suspends, each) for each in outcomes if each.suspends]
        if by_action and queue.limited:
            state.suspend(*max(by_action, key=itemgetter(0)), now=now)
            change = "suspended"
        if change is None:
            return
        if change in ("suspended", "still suspended"):
            self._fair_share.unreached(queue)
        if change == "still suspended" and state.suspension is not None:
            self._log.info(
                "{next_hop} stays suspended as before, since {failed}: {reply}",
                next_hop=state.name,
                failed=failed_step(state.suspension.cause),
                reply=str(state.suspension.cause.reply),
            )
        elif change == "suspended" and state.suspension is not None:
            self._log.warn(
                "{next_hop} is suspended for {delay:.0f} s, since {failed}: {reply}",
                next_hop=state.name,
                failed=failed_step(state.suspension.cause),
                delay=state.suspension.delay,
                times=state.suspension.times,
                reply=str(state.suspension.cause.reply),
            )
            for delivery in self._fair_share.suspended(queue):
                self._blocked(delivery)
        elif change == "reopened":
            self._log.info("{next_hop} is no longer suspended", next_hop=state.name)
