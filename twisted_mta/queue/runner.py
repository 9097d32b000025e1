"""Takes what is due, hands it over, and records what came of it.

What is at work is leased and in memory, up to `_WINDOW` messages; what is beyond that waits in the
store. A message that has just been accepted is at work at once, without being read back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from attrs import evolve, frozen
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import Envelope, HeldBody, Message, NextHop, Outcome, Recipient, RecipientNumber
from ..interfaces import Clock, Deliver, Ids, Random, Route, WallTime
from ..message.dsn import Failure as FailedRecipient
from ..message.dsn import failure_notice
from ..smtp.address import Mailbox
from ..smtp.reply import Reply, printable
from .commit import GroupCommit
from .schedule import Schedule
from .store import Accept, Deferral, Lease, Leased, Settle

_WINDOW = 500  # messages at work or waiting for their turn in memory; 4 KiB each, 64 KiB at most
_READ_AGAIN = 5.0  # seconds until a lease is tried again that the store could not grant
_LONGEST_SLEEP = 3600.0  # seconds; the wall clock may be set in the meantime

DISCARDED = Reply.of(250, "0.0", "Discarded by a route")
BROKEN = Reply.of(451, "3.0", "The delivery failed for an internal reason; see the log")


@frozen(kw_only=True)
class RunnerSettings:
    """What a runner is told.

    Attributes:
        hostname: our name in DSNs.
        schedule: when to try again.
        lifetime: seconds that a DSN has before it is given up.
        concurrency: transactions with other hosts at once. What is done here, into Maildirs, does
            not wait for those who do not answer.
        per_hop: transactions at once with one next hop.
    """

    hostname: str
    schedule: Schedule
    lifetime: float = 5 * 24 * 3600.0
    concurrency: int = 300
    per_hop: int = 20


Observer = Callable[[Message, Sequence[Outcome], str], None]
"""Told of each settled attempt: the message, its outcomes, and the next hop's name."""


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
    ) -> None:
        self.active = 0
        self._settings = settings
        self._commit = commit
        self._route = route
        self._deliver = deliver
        self._clock = clock
        self._wall_time = wall_time
        self._random = random
        self._ids = ids
        self._observe = observe
        # What waits for its turn in memory: by next hop, the next hops in the order of their turn.
        self._waiting: dict[NextHop, deque[Message]] = {}
        self._active_on: dict[NextHop, int] = {}
        self._remote = 0  # transactions with other hosts under way
        self._in_memory = 0  # transactions in `_waiting`, at work, or being settled
        self._running = False
        self._reading = False
        self._more = True  # there may be something due in the store that is not leased
        self._turn: IDelayedCall | None = None
        self._alarm: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def start(self) -> None:
        """Begin with what is due."""
        self._running = True
        self._read()

    def stop(self) -> Deferred[None]:
        """Begin nothing more; fires when what is under way has been settled."""
        self._running = False
        for call in (self._turn, self._alarm):
            if call is not None and call.active():
                call.cancel()
        self._turn = self._alarm = None
        self._stopped = stopped = Deferred[None]()
        self._say_if_stopped()
        return stopped

    def accept(self, message: Message) -> Deferred[None]:
        """Put a message into the queue and begin with it (`interfaces.Accept`)."""
        lease = self._running and self._in_memory < _WINDOW
        if lease:
            self._in_memory += 1  # now, so that a burst does not run past the window
        committed = self._commit.perform(Accept(message, lease))
        return committed.addCallbacks(
            self._accepted, self._refused, callbackArgs=(message, lease), errbackArgs=(lease,)
        )

    def _accepted(self, _: Leased | None, message: Message, lease: bool) -> None:
        if lease:
            self._enqueue(message)
            self._leave()
        else:
            self._more = True
            self._wake()

    def _refused(self, failure: Failure, lease: bool) -> Failure:
        if lease:
            self._leave()
        return failure

    def _leave(self) -> None:
        """Give back a place in memory."""
        self._in_memory -= 1
        if self._more:
            self._wake()
        self._say_if_stopped()

    # Reading what is due.

    def _read(self) -> None:
        if not self._running:
            return
        if self._reading or self._in_memory >= _WINDOW:
            self._more = True  # asked again when there is room
            return
        self._reading = True
        self._more = False
        limit = _WINDOW - self._in_memory
        self._commit.perform(Lease(self._wall_time(), limit)).addCallbacks(
            self._leased, self._not_leased
        )

    def _leased(self, leased: Leased | None) -> None:
        assert leased is not None
        self._reading = False
        for message in leased.messages:
            self._enqueue(message)
        self._more = self._more or leased.more
        if self._more:
            self._wake()
        if leased.next_due is not None:
            self._set_alarm(leased.next_due)

    def _not_leased(self, failure: Failure) -> None:
        self._reading = False
        self._set_alarm(self._wall_time() + _READ_AGAIN)

    def _set_alarm(self, time: float) -> None:
        """Read again at ``time``, if nothing earlier is planned."""
        if not self._running:
            return
        delay = min(max(0.0, time - self._wall_time()), _LONGEST_SLEEP)
        if self._alarm is not None and self._alarm.active():
            if self._alarm.getTime() <= self._clock.seconds() + delay:
                return
            self._alarm.cancel()
        self._alarm = self._clock.callLater(delay, self._read)

    # Whose turn it is.

    def _enqueue(self, message: Message) -> None:
        for next_hop, part in self._parts(message):
            self._in_memory += 1
            self._waiting.setdefault(next_hop, deque()).append(part)
        self._wake()

    def _parts(self, message: Message) -> Iterator[tuple[NextHop, Message]]:
        """Yield the transactions of a message: one for all recipients of a next hop."""
        envelope = message.envelope
        if len(envelope.recipients) == 1:
            yield self._next_hop(envelope.recipients[0].mailbox), message
            return
        hops: dict[NextHop, list[Recipient]] = {}
        for recipient in envelope.recipients:
            hops.setdefault(self._next_hop(recipient.mailbox), []).append(recipient)
        for next_hop, recipients in hops.items():
            yield next_hop, evolve(message, envelope=evolve(envelope, recipients=tuple(recipients)))

    def _next_hop(self, mailbox: Mailbox) -> NextHop:
        try:
            return self._route(mailbox)
        except Exception:
            # It has been acknowledged, or is leased: it must not get lost on the way.
            self._log.failure("no next hop for <{mailbox}>", mailbox=printable(str(mailbox)))
            return NextHop("error", reply=BROKEN)

    def _wake(self) -> None:
        # In a turn of its own: those who wait for the commit get their 250 first.
        if self._turn is None and self._running:
            self._turn = self._clock.callLater(0, self._dispatch)

    def _dispatch(self) -> None:
        self._turn = None
        for next_hop, message in self._startable():
            self._start(next_hop, message)
        if self._more and self._in_memory <= _WINDOW // 2:
            self._read()

    def _startable(self) -> list[tuple[NextHop, Message]]:
        """Take from what waits all that the limits allow, next hops in turn."""
        chosen: list[tuple[NextHop, Message]] = []
        room = self._settings.concurrency - self._remote
        progress = True
        while progress:
            progress = False
            for next_hop in list(self._waiting):
                remote = next_hop.transport == "smtp"
                if remote and room <= 0:
                    continue
                active = self._active_on.get(next_hop, 0)
                if active >= self._settings.per_hop:
                    continue
                queue = self._waiting.pop(next_hop)
                chosen.append((next_hop, queue.popleft()))
                if queue:
                    self._waiting[next_hop] = queue  # behind the others
                self._active_on[next_hop] = active + 1
                room -= remote
                self._remote += remote
                progress = True
        return chosen

    # One transaction.

    def _start(self, next_hop: NextHop, message: Message) -> None:
        self.active += 1
        outcomes: Deferred[Sequence[Outcome]]
        if next_hop.transport == "discard":
            outcomes = succeed(_same_for_all(message, DISCARDED))
        elif next_hop.transport == "error":
            outcomes = succeed(_same_for_all(message, next_hop.reply or BROKEN))
        else:
            outcomes = maybeDeferred(self._deliver, next_hop, message)
        outcomes.addBoth(self._done, next_hop, message).addErrback(
            lambda failure: self._log.failure("an outcome could not be recorded", failure)
        )

    def _done(
        self, outcomes: Sequence[Outcome] | Failure, next_hop: NextHop, message: Message
    ) -> None:
        self.active -= 1
        self._remote -= next_hop.transport == "smtp"
        active = self._active_on[next_hop] - 1
        if active:
            self._active_on[next_hop] = active
        else:
            del self._active_on[next_hop]
        if isinstance(outcomes, Failure):
            self._log.failure("the delivery of {id} failed", outcomes, id=message.id)
            outcomes = ()
        settle = self._settle(message, outcomes, next_hop)
        self._commit.perform(settle).addCallbacks(
            self._settled, self._unsettled, callbackArgs=(settle,), errbackArgs=(settle,)
        )
        if self._waiting:
            self._wake()

    def _cut_short(self, outcome: Outcome) -> bool:
        """Whether an attempt came to nothing only because we are stopping."""
        undecided = not outcome.delivered and not outcome.failed
        return (
            self._stopped is not None
            and undecided
            and outcome.remote is None
            and not outcome.uncertain
        )

    def _settle(self, message: Message, outcomes: Sequence[Outcome], next_hop: NextHop) -> Settle:
        """Decide what becomes of each recipient."""
        now = self._wall_time()
        answered = {each.number: each for each in outcomes}
        done: list[RecipientNumber] = []
        deferred: list[Deferral] = []
        failed: list[FailedRecipient] = []
        final: list[Outcome] = []
        for recipient in message.envelope.recipients:
            outcome = answered.get(recipient.number) or Outcome(recipient.number, BROKEN)
            if self._cut_short(outcome):
                continue  # its lease ends with us, and at the next start it is due
            if not outcome.delivered and not outcome.failed and now >= message.expires_at:
                outcome = _expired(outcome)
            final.append(outcome)
            next_attempt: float | None = None
            if outcome.delivered:
                done.append(outcome.number)
            elif outcome.failed:
                done.append(outcome.number)
                failed.append(FailedRecipient(recipient, outcome))
            else:
                next_attempt = self._settings.schedule.next_attempt(
                    attempts=recipient.attempts + 1,
                    now=now,
                    expires_at=message.expires_at,
                    random=self._random,
                )
                deferred.append(Deferral(outcome, next_attempt))
            self._log_outcome(message, recipient, outcome, next_hop, now, next_attempt)
        try:
            self._observe(message, final, str(next_hop))
        except Exception:
            self._log.failure("an outcome of {id} was not observed", id=message.id)
        # RFC 5321 §4.5.5: a failure of a notice is never the cause of another.
        reverse_path = message.envelope.reverse_path
        notices: tuple[Message, ...] = ()
        if failed and reverse_path is not None:
            try:
                notices = (self._notice(message, reverse_path, failed, now),)
            except Exception:
                self._log.failure("no notice could be made of the failure of {id}", id=message.id)
        return Settle(
            message=message,
            done=tuple(done),
            deferred=tuple(deferred),
            notices=notices,
            unreported=() if notices else tuple(each.outcome for each in failed),
            at=now,
        )

    def _notice(
        self,
        message: Message,
        reverse_path: Mailbox,
        failed: Sequence[FailedRecipient],
        now: float,
    ) -> Message:
        id = self._ids()
        notice = failure_notice(message, failed, hostname=self._settings.hostname, id=id, time=now)
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
                recipients=(Recipient(RecipientNumber(0), reverse_path),),
                parameters={"BODY": "8BITMIME"} if notice.eight_bit else {},
            ),
            trace=b"",
            body=HeldBody(notice.content),
            received_at=now,
            expires_at=now + self._settings.lifetime,
        )

    def _settled(self, _: Leased | None, settle: Settle) -> None:
        for notice in settle.notices:
            self._enqueue(notice)
        if settle.deferred:
            self._set_alarm(min(each.next_attempt for each in settle.deferred))
        self._leave()

    def _unsettled(self, failure: Failure, settle: Settle) -> None:
        self._log.warn(
            "{id} could not be settled, and is tried again after a restart: {error}",
            id=settle.message.id,
            error=failure.getErrorMessage(),
        )
        self._leave()

    def _say_if_stopped(self) -> None:
        # What waits in memory stays in the store and is due there: leases end with the process.
        if self._stopped is None or self._in_memory > sum(map(len, self._waiting.values())):
            return
        stopped, self._stopped = self._stopped, None
        stopped.callback(None)

    def _log_outcome(
        self,
        message: Message,
        recipient: Recipient,
        outcome: Outcome,
        next_hop: NextHop,
        now: float,
        next_attempt: float | None,
    ) -> None:
        status = "delivered" if outcome.delivered else "failed" if outcome.failed else "deferred"
        if next_hop.transport == "discard":
            status = "discarded"
        self._log.info(
            "{id} {status}: to <{recipient}> by {next_hop}{remote}, delay {delay:.2f} s:"
            " {reply}{again}",
            id=message.id,
            status=status,
            recipient=printable(str(recipient.mailbox)),
            next_hop=next_hop,
            remote=f" {printable(outcome.remote)}" if outcome.remote else "",
            delay=now - message.received_at,
            reply=outcome.reply,
            again="" if next_attempt is None else f"; next attempt in {next_attempt - now:.0f} s",
        )


def _same_for_all(message: Message, reply: Reply) -> list[Outcome]:
    return [Outcome(recipient.number, reply) for recipient in message.envelope.recipients]


def _expired(outcome: Outcome) -> Outcome:
    """Return the failure that a deferral becomes at the end of a lifetime (RFC 3463 X.4.7).

    It is our own decision; what the other side said last is quoted in it.
    """
    said = f"{outcome.remote} said: {outcome.reply}" if outcome.remote else str(outcome.reply)
    return evolve(
        outcome,
        remote=None,
        reply=Reply.of(554, "4.7", "Not delivered in time. The last attempt:", said),
    )
