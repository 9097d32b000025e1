"""One message on its way through the targets of its next hop.

The targets are tried in order until one of them has said something about the message. What a target
says about itself (no connection, a refused greeting, no TLS where it must be, ``421`` before the
first reply to a transaction) leads to the next one. The addresses of one host are tried beside each
other (`race`), one host after another.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import NoTarget
from ..mail.message import Message
from ..mail.next_hop import NextHop, Target
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..smtp.client.step import TransactionDone, Unusable
from ..smtp.conversation import Line, transcript
from .connection import Connection, Result
from .race import Race, Winner
from .terms import Terms, way_to

if TYPE_CHECKING:
    from .relay import Relay

# How connecting fails where this system is to blame, and no target.
_OURS = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@define(eq=False)
class Attempt:
    """One transaction for the recipients of a message, from the search for a host to its outcomes.

    Attributes:
        relay: whose connections serve it.
        next_hop: where it goes.
        message: what goes.
        ways: on which terms; see `terms.Part`.
        result: fires with an outcome for each recipient, in the order of the envelope.
        targets: those not tried yet, None while it is not known which there are.
        failures: what the targets that were tried said of themselves.
        waiting: what is under way before there is a connection.
        connection: what serves it now.
        started: when it began, by the clock.
        reached: whether a target had a session for us, if none for the message.
        lacking: whether this system had no descriptor, memory or local port for a connection.
        spoken: what was said to the targets that were tried.
    """

    relay: Relay
    next_hop: NextHop
    message: Message
    ways: tuple[Terms, ...]
    result: Deferred[Sequence[Outcome]] = field(factory=Deferred)
    targets: list[Target] | None = None
    failures: dict[Target, Unusable] = field(factory=dict)
    waiting: Deferred[object] | None = None
    connection: Connection | None = None
    started: float = 0.0
    reached: bool = False
    lacking: bool = False
    spoken: list[Line] = field(factory=list)

    def start(self) -> None:
        """Begin, with a connection that served the next hop before if there is one."""
        self.started = self.relay.reactor.seconds()
        try:
            connection = None
            if self.relay.ended is None:
                connection = self.relay.pool.take(self.next_hop, self.ways)
            if connection is not None:
                self._transact(connection, reused=True)
            else:
                self._next()
        except Exception:
            self._unlocated(Failure())  # a mistake of ours defers, and loses nothing

    def abort_unsent(self) -> None:
        """End at once, unless the end of the content may have been sent."""
        connection, waiting = self.connection, self.waiting
        if connection is not None:
            if not connection.session.dot_sent:
                connection.abort()  # its result ends this
        elif waiting is not None:
            self._next()
            waiting.cancel()

    # Where to.

    def _next(self) -> None:
        ended = self.relay.ended
        if ended is not None:
            self._end(ended)
        elif self.targets is None:
            self._locate()
        elif not self.targets:
            self._give_up()
        else:
            self._try_host(self._take_host())

    def _locate(self) -> None:
        hosts = self.next_hop.hosts
        if hosts and all(host.name.startswith("/") for host in hosts):
            self._located([Target(host.name, host.name, 0) for host in hosts])
            return
        locating = self.relay.locate(self.next_hop)
        self.waiting = locating  # type: ignore[assignment]
        locating.addCallback(self._located).addErrback(self._unlocated)

    def _located(self, targets: Sequence[Target]) -> None:
        self.waiting = None
        if self.result.called:
            return
        untried = [target for target in targets if target not in self.failures]
        self.targets = self.relay.order(untried)
        self._next()

    def _unlocated(self, failure: Failure) -> None:
        self.waiting = None
        if self.result.called:
            return
        if isinstance(failure.value, NoTarget):
            self._end(failure.value.reply, unreachable=True)
            return
        self.relay.log.failure("Cannot deliver {id}", failure, id=str(self.message.id))
        self._end(Reply.of(451, "3.0", "internal error, see the log"))

    def _take_host(self) -> list[Target]:
        """Take out the first targets, as far as they are addresses of one host."""
        assert self.targets
        first = self.targets[0]
        host = [
            target
            for target in self.targets
            if (target.name, target.port) == (first.name, first.port)
        ]
        self.targets = [target for target in self.targets if target not in host]
        return host

    # A connection.

    def _try_host(self, host: list[Target]) -> None:
        terms = way_to(host[0], self.next_hop, self.ways)
        for target in host:
            connection = self.relay.pool.take_to(target, terms)
            if connection is not None:
                self.targets = [
                    *(other for other in host if other != target),
                    *(self.targets or ()),
                ]
                self._transact(connection, reused=True)
                return
        race = Race(
            host,
            lambda target: self.relay.connect(target, terms),
            clock=self.relay.reactor,
            head_start=self.relay.settings.head_start,
            failed=self._unconnected,
        )
        self.waiting = race.result  # type: ignore[assignment]
        race.start().addCallback(self._raced).addErrback(self._unlocated)

    def _raced(self, winner: Winner[Target, Connection] | None) -> None:
        self.waiting = None
        if winner is None:
            self._next()
            return
        self.targets = [*winner.rest, *(self.targets or ())]
        self._transact(winner.connection)

    def _connect_again(self, target: Target, *, in_clear: bool = False) -> None:
        terms = way_to(target, self.next_hop, self.ways)
        connecting = self.relay.connect(target, terms, in_clear=in_clear)
        self.waiting = connecting  # type: ignore[assignment]

        def connected(connection: Connection) -> None:
            self.waiting = None
            self._transact(connection)

        def unconnected(failure: Failure) -> None:
            self.waiting = None
            if not self.result.called:
                self._unconnected(target, failure)
                self._next()

        connecting.addCallbacks(connected, unconnected).addErrback(self._unlocated)

    def _unconnected(self, target: Target, failure: Failure) -> None:
        text = f"{target}: {printable(failure.getErrorMessage())}"
        self.spoken.append(Line("note", text))
        if self._is_ours(target, getattr(failure.value, "osError", None)):
            self.lacking = True
            self.failures[target] = Unusable(Reply.of(451, "3.0", text))
        else:
            self.failures[target] = Unusable(Reply.of(451, "4.1", text))
            self.relay.unconnected(target)

    def _is_ours(self, target: Target, error: int | None) -> bool:
        """Whether a connection could not be made for want of something that this system has."""
        source_of = self.relay.source_of
        if error == errno.EADDRNOTAVAIL and source_of is not None:
            # No port is left; or, without IPv6, no address: then this target is none for us.
            return source_of(target.address) is not None
        return error in _OURS

    # A transaction.

    def _transact(self, connection: Connection, *, reused: bool = False) -> None:
        self.connection = connection
        if reused:
            self.relay.traffic.reused += 1
        connection.transact(self.message, self._reused if reused else self._fresh)

    def _reused(self, connection: Connection, result: Result) -> None:
        """A connection that was idle may have died meanwhile; that says nothing of the host."""
        if not isinstance(result, Unusable):
            self._done(connection, result)
            return
        self.connection = None
        self._keep(connection)
        if self.relay.ended is not None:
            self._next()
        else:
            in_clear = connection.terms.level == "none"
            way = way_to(connection.target, self.next_hop, self.ways)
            self._connect_again(connection.target, in_clear=in_clear and way.level != "none")

    def _fresh(self, connection: Connection, result: Result) -> None:
        if isinstance(result, TransactionDone):
            self._done(connection, result)
            return
        self.connection = None
        self._keep(connection)
        relay, target = self.relay, connection.target
        self.reached |= connection.ready
        if result.reply.status == "7.5":
            relay.traffic.handshake_failures += 1
        if result.credentials_refused:
            relay.traffic.credentials_refused += 1
            relay.log.error(
                "ALARM: {target} does not take our account and password: {reply}",
                target=str(target),
                reply=str(result.reply),
            )
        if result.clear_retry and relay.ended is None:
            # RFC 3207 §6, RFC 7435 §4: TLS was only wished for, so once more without it.
            relay.log.warn(
                "TLS handshake failed, trying in clear: {reply}", reply=str(result.reply)
            )
            relay.traffic.clear_retries += 1
            self._connect_again(target, in_clear=True)
            return
        if result.tls is None and result.reply.status in ("7.4", "7.5"):
            why = relay.lacked_tls(target, connection.terms)
            if why is not None:
                reply = result.reply
                result = evolve(result, reply=Reply(reply.code, reply.status, (*reply.lines, why)))
        self.failures[target] = result
        self._next()

    # The outcomes.

    def _done(self, connection: Connection, result: TransactionDone) -> None:
        self.connection = None
        self.relay.keep(connection, self.next_hop, self.ways)
        for outcome in result.outcomes:
            if outcome.uncertain:
                self.relay.log.warn(
                    "Possible duplicate of {id}: {reply}",
                    id=str(self.message.id),
                    reply=str(outcome.reply),
                )
                break
        setup = connection.began - self.started
        said = ""
        if any(_deferred(outcome.reply) for outcome in result.outcomes):
            self._keep(connection)
            said = transcript(self.spoken)
        self._settle(
            [
                evolve(outcome, setup=setup, transcript=said if _deferred(outcome.reply) else "")
                for outcome in result.outcomes
            ]
        )

    def _keep(self, connection: Connection) -> None:
        """Keep what was said on a connection, until it is known what becomes of the message."""
        self.spoken.append(Line("note", str(connection.target)))
        self.spoken += connection.conversation.lines()

    def _give_up(self) -> None:
        """No target would have the message: say what each of them did last."""
        failures = list(self.failures.items())
        if not failures:
            reply = Reply.of(451, "4.4", f"{self.next_hop} has no address to connect to")
            self._end(reply, unreachable=True)
        elif len(failures) == 1 or all(each.reply.code >= 500 for _, each in failures):
            _, last = failures[-1]
            self._end(last.reply, last.remote, last.tls, unreachable=True)
        else:
            lines = (
                f"{target}: {each.reply}" if each.remote else each.reply.text
                for target, each in failures
            )
            # RFC 3463 X.7: that one is there and not safe enough tells more than that others are
            # not there.
            statuses = [each.reply.status or "" for _, each in failures]
            unsafe = [status for status in statuses if status.startswith("7.")]
            self._end(Reply.of(451, unsafe[-1] if unsafe else "4.1", *lines), unreachable=True)

    def _end(
        self,
        reply: Reply,
        remote: str | None = None,
        tls: TLSFacts | None = None,
        *,
        unreachable: bool = False,
    ) -> None:
        setup = self.relay.reactor.seconds() - self.started
        # What is final has no other try; where a host spoke to us, the next hop is there; and what
        # this system lacks says nothing of any.
        unreachable = unreachable and reply.code < 500 and not self.reached and not self.lacking
        said = transcript(self.spoken) if _deferred(reply) else ""
        self._settle(
            [
                Outcome(
                    recipient.number,
                    reply,
                    remote,
                    tls,
                    setup=setup,
                    unreachable=unreachable,
                    transcript=said,
                )
                for recipient in self.message.envelope.recipients
            ]
        )

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if not self.result.called:
            self.relay.over(self)
            self.result.callback(outcomes)


def _deferred(reply: Reply) -> bool:
    return reply.code // 100 == 4
