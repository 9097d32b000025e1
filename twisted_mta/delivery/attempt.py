"""One attempt: try a message at the targets of its next hop until one of them answers for it.

The targets are tried in order (RFC 5321 §5.1) until one of them replies about the message. A
target that replies about itself (no connection, a refused greeting, no TLS where it is required,
``421`` before the first reply to a transaction) is followed by the next one. The addresses of one
host are tried beside each other (`race`), one host after another.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from functools import partial

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectBindError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.destination import is_below
from ..interfaces import Locate, NoTarget
from ..mail.message import Message
from ..mail.next_hop import NextHop, Target
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_facts import TLSFacts
from ..mail.tls_policy import TLSPolicy
from ..smtp.client.step import TransactionDone, Unusable
from ..smtp.conversation import Line, transcript
from .connection import Connection, Result
from .connections import Connections
from .race import Race, Winner
from .session_results import host_results, session_results
from .terms import HostTerms, Terms, terms_for
from .tokens.token import NoToken
from .wishes import fitted, is_proved, judged, refusal

# Errors of connecting for which this system is to blame, and no target.
_LOCAL_ERRORS = (errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class State(StrEnum):
    """A state of an attempt."""

    NEW = "new"
    LOOKUP = "lookup"
    POLICY = "TLS policy"
    CONNECTING = "connecting"
    TRANSACTION = "transaction"
    ENDED = "ended"


class Event(StrEnum):
    """An event that changes the state of an attempt."""

    LOOK_UP = "look up targets"
    FIND_POLICY = "look up the TLS policy of a host"
    CONNECT = "connect"
    TRANSACT = "transact"
    END = "end"


TRANSITIONS: Mapping[State, Mapping[Event, State]] = {
    # An idle connection that served the next hop before needs no lookup.
    State.NEW: {
        Event.TRANSACT: State.TRANSACTION,
        Event.LOOK_UP: State.LOOKUP,
        Event.END: State.ENDED,
    },
    State.LOOKUP: {
        Event.FIND_POLICY: State.POLICY,
        Event.END: State.ENDED,
    },
    # An idle connection to one of the targets needs no connecting. A host whose policy cannot be
    # looked up is not used: the next one; or the lookup, where an idle connection had been tried.
    State.POLICY: {
        Event.TRANSACT: State.TRANSACTION,
        Event.CONNECT: State.CONNECTING,
        Event.FIND_POLICY: State.POLICY,
        Event.LOOK_UP: State.LOOKUP,
        Event.END: State.ENDED,
    },
    # After a failure: the next host; or the lookup, where an idle connection had been tried first.
    State.CONNECTING: {
        Event.TRANSACT: State.TRANSACTION,
        Event.CONNECT: State.CONNECTING,
        Event.FIND_POLICY: State.POLICY,
        Event.LOOK_UP: State.LOOKUP,
        Event.END: State.ENDED,
    },
    # The target did not answer for the message: the next target, or the same one in clear.
    State.TRANSACTION: {
        Event.TRANSACT: State.TRANSACTION,
        Event.CONNECT: State.CONNECTING,
        Event.FIND_POLICY: State.POLICY,
        Event.LOOK_UP: State.LOOKUP,
        Event.END: State.ENDED,
    },
    State.ENDED: {},
}


@define(eq=False)
class Attempt:
    """One transaction for the recipients of a message, from the lookup of targets to the outcomes.

    Attributes:
        connections: open and keep the connections that serve it.
        locate: looks up the targets of the next hop.
        next_hop: where the message goes.
        message: the message, with the recipients of this attempt only.
        host_terms: the terms with the hosts of ``next_hop``.
        ended: called once, with this attempt and the outcomes of those recipients that the server
            has taken in one transaction, which may not be all; None: nothing was tried, since the
            limits of another next hop apply (`Regrouped`).
        result: fired by ``ended``: of an attempt that `Attempts.begin` returns, with an outcome for
            each recipient, in the order of the envelope; fails with `Regrouped` where nothing was
            tried.
        state: see `TRANSITIONS`; only `_enter` changes it.
        targets: those not tried yet; None before they are looked up.
        failures: the reply of each target that was tried, about itself.
        waiting: the lookup, of targets or a policy, or the connecting under way; None in other
            states.
        connection: the connection of the transaction; None in other states.
        started: when it began, by the reactor's clock.
        answered: whether a target, or our own preparation for it, decided on the message; else
            `failures` say why there was no transaction.
        reached: whether a target had a session for us, though none for the message.
        source: the address of a pool that the last transaction was tried from; None: there is none.
        lacking: whether this system had no descriptor, memory, local port or token for a
            connection.
        dialogue: of the targets that were tried, for the transcript.
    """

    log = Logger()

    connections: Connections
    locate: Locate
    next_hop: NextHop
    message: Message
    host_terms: HostTerms
    ended: Callable[[Attempt, Sequence[Outcome] | None], None]
    result: Deferred[Sequence[Outcome]] = field(factory=Deferred)
    state: State = State.NEW
    targets: list[Target] | None = None
    failures: dict[Target, Unusable] = field(factory=dict)
    waiting: Deferred[object] | None = None
    connection: Connection | None = None
    started: float = 0.0
    answered: bool = False
    reached: bool = False
    lacking: bool = False
    source: str | None = None
    dialogue: list[Line] = field(factory=list)

    def start(self) -> None:
        """Begin on an idle connection that served the next hop before, or with the lookup."""
        connections = self.connections
        self.started = connections.reactor.seconds()
        try:
            connection = None
            if connections.stopped is None:
                connection = connections.pool.take(self.next_hop, self.host_terms)
            if connection is not None:
                self._transact(connection, reused=True)
            else:
                self._try_next()
        except Exception:
            self._lookup_failed(Failure())  # an internal error defers, and loses nothing

    def abort_unsent(self) -> None:
        """End at once, unless the final dot may have been sent."""
        connection, waiting = self.connection, self.waiting
        if connection is not None:
            if not connection.session.dot_sent:
                connection.abort()  # its result ends the attempt
        elif waiting is not None:
            self._try_next()
            waiting.cancel()

    def _enter(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    # The lookup.

    def _try_next(self) -> None:
        stopped = self.connections.stopped
        if stopped is not None:
            self._end(stopped)
        elif self.targets is None:
            self._look_up()
        elif not self.targets:
            self._give_up()
        else:
            self._try_host(self._take_host())

    def _look_up(self, before: Connection | None = None) -> None:
        """Look up the targets, and try them.

        Args:
            before: a connection that died while it was idle: its target comes first, if it still is
                one of them.
        """
        self._enter(Event.LOOK_UP)
        hosts = self.next_hop.hosts
        if hosts and all(host.name.startswith("/") for host in hosts):
            self._located([Target(host.name, host.name, 0) for host in hosts], before)
            return
        locating = self.locate(self.next_hop)
        self.waiting = locating  # type: ignore[assignment]
        locating.addCallback(self._located, before).addErrback(self._lookup_failed)

    def _located(self, targets: Sequence[Target], before: Connection | None) -> None:
        self.waiting = None
        if self.state is State.ENDED:
            return
        untried = [target for target in targets if target not in self.failures]
        self.targets = self.connections.order(untried)
        if self.connections.grouped(self.next_hop) != self.next_hop:
            self._enter(Event.END)
            self.ended(self, None)
            return
        if targets and not self._keep_reached():
            return
        stopped = self.connections.stopped is not None
        if before is None or stopped or before.target not in self.targets:
            self._try_next()
            return
        # Equal, but with what DNSSEC proves of it now.
        target = self.targets.pop(self.targets.index(before.target))
        self._replace(before, target)

    def _keep_reached(self) -> bool:
        """Keep the targets that there is a source address for; end where that is none of them."""
        assert self.targets is not None
        terms = [terms_for(each, self.next_hop, self.host_terms) for each in self.targets]
        pools = {each.source_pool for each in terms if each.source_pool}
        if not pools:
            return True
        reached = [
            target for target, each in zip(self.targets, terms, strict=True) if each.reaches(target)
        ]
        if self.targets and not reached:
            families = {"IPv6" if ":" in each.address else "IPv4" for each in self.targets}
            text = (
                f"Source pool {', '.join(sorted(pools))} has no address left for"
                f" {' and '.join(sorted(families))}, by which {self.next_hop} is reached"
            )
            self._end(Reply.of(451, "4.5", text))
            return False
        self.targets = reached
        return True

    def _lookup_failed(self, failure: Failure) -> None:
        """End with the reply of the lookup; any other error is internal."""
        self.waiting = None
        if self.state is State.ENDED:
            return
        if isinstance(failure.value, NoTarget):
            self._end(failure.value.reply, unreachable=True)
            return
        self.log.failure("Cannot deliver {id}", failure, id=str(self.message.id))
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

    # The TLS policy.

    def _try_host(self, host: list[Target]) -> None:
        def found(terms: Terms, policy: TLSPolicy) -> None:
            reply = refusal(self.next_hop, host[0], terms, policy)
            if reply is None:
                self._connect(host, terms, policy)
            else:
                for each in host_results(self.next_hop, host[0], policy):
                    self.connections.note_tls_result(each)
                self._refuse(host, reply)

        self._find_policy(host[0], found)

    def _find_policy(self, target: Target, found: Callable[[Terms, TLSPolicy], None]) -> None:
        """Look up the TLS that ``target`` must have, then call ``found``, unless it is over."""
        self._enter(Event.FIND_POLICY)
        terms = terms_for(target, self.next_hop, self.host_terms)
        try:
            policy = self.connections.policies.policy(self.next_hop, target, terms)
        except Exception:
            self._lookup_failed(Failure())  # an internal error
            return
        policy = (
            self._prepared(policy, terms)
            if isinstance(policy, TLSPolicy)
            else policy.addCallback(self._prepared, terms)
        )
        if isinstance(policy, TLSPolicy):
            found(terms, policy)
            return

        def looked_up(policy: TLSPolicy) -> None:
            self.waiting = None
            if self.state is State.ENDED:
                return
            if self.connections.stopped is not None:
                self._try_next()
            else:
                found(terms, policy)

        def no_token(failure: Failure) -> None:
            failure.trap(NoToken)
            self.waiting = None
            if self.state is State.ENDED:
                return
            # RFC 4954 §6: 454 4.7.0 is a temporary failure of authentication.
            reply = Reply.of(454, "7.0", f"{target}: no token to log in: {_text(failure)}")
            self.dialogue.append(Line("note", reply.text))
            self.lacking = True
            self.failures[target] = Unusable(reply, stage="auth")
            self._try_next()

        self.waiting = policy  # type: ignore[assignment]
        policy.addCallbacks(looked_up, no_token).addErrback(self._lookup_failed)

    def _prepared(self, policy: TLSPolicy, terms: Terms) -> TLSPolicy | Deferred[TLSPolicy]:
        """Return the policy as the sender demands it, when a connection can be made under it."""
        policy = fitted(policy, terms)
        preparing = self.connections.prepare(terms, policy)
        return policy if preparing is None else preparing.addCallback(lambda _: policy)

    def _refuse(self, host: Sequence[Target], reply: Reply) -> None:
        """Pass over a host: there is no way to it that is safe enough."""
        self.dialogue.append(Line("note", reply.text))
        self._note_unsafe(host[0], reply)
        self.failures.update((each, Unusable(reply, stage="tls")) for each in host)
        self._try_next()

    # Connecting.

    def _connect(self, host: list[Target], terms: Terms, policy: TLSPolicy) -> None:
        for target in host:
            connection = self.connections.pool.take_to(target, terms, policy)
            if connection is not None:
                self.targets = [
                    *(other for other in host if other != target),
                    *(self.targets or ()),
                ]
                self._transact(connection, reused=True, done=partial(self._reused, target=target))
                return
        self._enter(Event.CONNECT)
        race = Race(
            host,
            lambda target: self.connections.open(target, terms, policy),
            clock=self.connections.reactor,
            head_start=self.connections.settings.head_start,
            failed=self._connecting_failed,
        )
        self.waiting = race.result  # type: ignore[assignment]
        race.start().addCallback(self._raced).addErrback(self._lookup_failed)

    def _raced(self, winner: Winner[Target, Connection] | None) -> None:
        self.waiting = None
        if winner is None:
            self._try_next()
            return
        self.targets = [*winner.rest, *(self.targets or ())]
        self._transact(winner.connection)

    def _connect_again(
        self,
        target: Target,
        terms: Terms,
        policy: TLSPolicy,
        *,
        in_clear: bool = False,
        small_hello: bool = False,
        done: Callable[[Connection, Result], None] | None = None,
        refused: Callable[[], None] | None = None,
    ) -> None:
        """Open another connection to a target.

        Args:
            target: the address and port.
            terms: the terms of the connection.
            policy: the TLS that it must have.
            in_clear: see `Connections.open`.
            small_hello: likewise.
            done: takes the result of the transaction; None: `_fresh`.
            refused: called where it cannot be opened; None: that is why the target is of no use,
                unless there is a reason already.
        """
        self._enter(Event.CONNECT)
        connecting = self.connections.open(
            target, terms, policy, in_clear=in_clear, small_hello=small_hello
        )
        self.waiting = connecting  # type: ignore[assignment]

        def connected(connection: Connection) -> None:
            self.waiting = None
            self._transact(connection, done=done)

        def failed(failure: Failure) -> None:
            self.waiting = None
            if self.state is not State.ENDED:
                if refused is not None or (in_clear and target in self.failures):
                    self.dialogue.append(Line("note", f"{target}: {_text(failure)}"))
                else:
                    self._connecting_failed(target, failure)
                if refused is not None:
                    refused()
                self._try_next()

        connecting.addCallbacks(connected, failed).addErrback(self._lookup_failed)

    def _connecting_failed(self, target: Target, failure: Failure) -> None:
        text = f"{target}: {_text(failure)}"
        bind_failed = isinstance(failure.value, ConnectBindError)
        source = terms_for(target, self.next_hop, self.host_terms).source(target)
        if bind_failed and source is not None:
            text = f"{target}: this system cannot connect from {source}: {_text(failure)}"
        self.dialogue.append(Line("note", text))
        if bind_failed or self._is_local(target, getattr(failure.value, "osError", None)):
            self.lacking = True
            self.failures[target] = Unusable(Reply.of(451, "3.0", text), stage="connection")
        else:
            self.failures[target] = Unusable(Reply.of(451, "4.1", text), stage="connection")
            self.connections.note_unreachable(target)

    def _is_local(self, target: Target, error: int | None) -> bool:
        """Whether connecting failed for want of a resource of this system."""
        source_of = self.connections.source_of
        if error == errno.EADDRNOTAVAIL and source_of is not None:
            # No port is left; or, without IPv6, no address: then the target is of no use here.
            return source_of(target.address) is not None
        return error in _LOCAL_ERRORS

    # The transaction.

    def _transact(
        self,
        connection: Connection,
        *,
        reused: bool = False,
        done: Callable[[Connection, Result], None] | None = None,
    ) -> None:
        self._enter(Event.TRANSACT)
        self.connection = connection
        if reused:
            self.connections.traffic.reused += 1
        if connection.terms.source_pool:
            self.source = connection.terms.source(connection.target)
        connection.transact(
            self.message,
            done or (self._reused if reused else self._fresh),
            started=self.started,
            source=self.source,
            proved=is_proved(self.next_hop, connection.target, connection.policy),
        )

    def _reused(
        self, connection: Connection, result: Result, *, target: Target | None = None
    ) -> None:
        """Take the result of a connection that was idle.

        It may have died while it was idle, which tells nothing about the host. Another connection
        needs a look-up: otherwise a server that ends its connections would keep the mail of a next
        hop, long after its time to live in DNS.

        Args:
            connection: the connection.
            result: of the transaction.
            target: as it was looked up in this attempt; None: it was not.
        """
        if not isinstance(result, Unusable):
            self._done(connection, result)
            return
        self.connection = None
        self._keep_dialogue(connection)
        if self.connections.stopped is not None:
            self._try_next()
        elif target is None:
            self._look_up(connection)
        else:
            self._replace(connection, target)

    def _replace(self, before: Connection, target: Target) -> None:
        """Open a connection to the target of one that died while it was idle."""

        def found(terms: Terms, policy: TLSPolicy) -> None:
            reply = refusal(self.next_hop, target, terms, policy)
            if reply is not None:
                self._refuse([target], reply)
                return
            in_clear = before.policy.level == "none" and policy.level == "may"
            self._connect_again(target, terms, policy, in_clear=in_clear)

        self._find_policy(target, found)

    def _fresh(self, connection: Connection, result: Result) -> None:
        """Take the result of a connection that was opened for this attempt."""
        if isinstance(result, Unusable):
            self.connections.note_failed_session(connection, result)
            if self._shakes_hands_again(connection, result):
                return
        for each in session_results(self.next_hop, connection, result):
            self.connections.note_tls_result(each)
        if isinstance(result, TransactionDone):
            self._done(connection, result)
            return
        self.connection = None
        self._keep_dialogue(connection)
        connections, target = self.connections, connection.target
        self.reached |= connection.ready
        if result.remote is None and result.reply.status == "7.5":
            connections.traffic.handshake_failures += 1
        if result.credentials_refused:
            connections.traffic.credentials_refused += 1
            connections.note_refused_credentials(connection, result.reply)
            connections.note_token(connection, accepted=False)
            self.log.error(
                "ALARM: {target} does not take our account: {reply}",
                target=str(target),
                reply=str(result.reply),
            )
        if result.clear_retry and connections.stopped is None:
            # RFC 3207 §6, RFC 7435 §4: TLS was optional, so once more without it.
            self.log.warn("STARTTLS failed, trying in clear: {reply}", reply=str(result.reply))
            connections.traffic.clear_retries += 1
            self.failures[target] = result
            self._connect_again(target, connection.terms, connection.policy, in_clear=True)
            return
        self._note_failure(connection, result)
        self._try_next()

    def _note_failure(self, connection: Connection, result: Unusable) -> None:
        if result.tls_missing:
            reason = self.connections.note_missing_tls(connection)
            if reason is not None and result.remote is None:
                reply = result.reply
                lines = (*reply.lines, reason)
                result = evolve(result, reply=Reply.of(reply.code, reply.status, *lines))
        if result.stage == "tls":
            self._note_unsafe(connection.target, result.reply)
        self.failures[connection.target] = judged(result, connection.terms)

    def _shakes_hands_again(self, before: Connection, result: Unusable) -> bool:
        """Try a handshake that broke off once more, if there is a better way to begin it."""
        connections = self.connections
        small_hello = connections.may_try_small_hello(before)
        if connections.stopped is not None or not (small_hello or before.broken_off == "resuming"):
            return False
        if small_hello:
            self.log.info("{reply}; trying a small ClientHello", reply=str(result.reply))
        else:
            self.log.info("{reply}; trying a new session", reply=str(result.reply))
        self.connection = None
        self._keep_dialogue(before)
        connections.traffic.handshake_retries += 1

        def tried(connection: Connection, result: Result) -> None:
            if small_hello:
                connections.note_small_hello(connection)
            self._fresh(connection, result)

        self._connect_again(
            before.target,
            before.terms,
            before.policy,
            small_hello=small_hello,
            done=tried,
            refused=lambda: self._note_failure(before, result),
        )
        return True

    def _note_unsafe(self, target: Target, reply: Reply) -> None:
        """Log that a host is passed over for its TLS: another one may take the message."""
        self.connections.note_unsafe(target, reply)
        self.log.warn(
            "{target} is not safe enough for {id}: {reply}",
            target=str(target),
            id=str(self.message.id),
            reply=str(reply),
        )

    # The outcomes.

    def _done(self, connection: Connection, result: TransactionDone) -> None:
        self.connection = None
        self.answered = True
        self.connections.keep(connection, self.next_hop, self.host_terms)
        outcomes: Sequence[Outcome] = result.outcomes
        for each in outcomes:
            if not each.delivered:
                outcomes = self._with_dialogue(connection, outcomes)
                break
        self._settle(outcomes)

    def _with_dialogue(
        self, connection: Connection, outcomes: Sequence[Outcome]
    ) -> Sequence[Outcome]:
        """Return outcomes with the transcript where they are deferred."""
        for outcome in outcomes:
            if outcome.uncertain:
                self.log.warn(
                    "Possible duplicate of {id}: {reply}",
                    id=str(self.message.id),
                    reply=str(outcome.reply),
                )
                break
        if not any(each.deferred for each in outcomes):
            return outcomes
        self._keep_dialogue(connection)
        dialogue = transcript(self.dialogue)
        return [evolve(each, transcript=dialogue) if each.deferred else each for each in outcomes]

    def _keep_dialogue(self, connection: Connection) -> None:
        self.dialogue.append(Line("note", str(connection.target)))
        self.dialogue += connection.conversation.lines()

    def _give_up(self) -> None:
        """End with the last reply of a target, or why there is none: none had one for the message.

        The log names the other targets, and the transcript has the dialogue with each.
        """
        failures = list(self.failures.items())
        said = [each for _, each in failures if each.remote is not None]
        deferring = [each for _, each in failures if each.reply.code < 500 or each.temporary]
        # What the sender demands of the TLS tells nothing about other messages.
        unreachable = not any(terms.wish == "required" for terms in self.host_terms) or all(
            each.stage == "connection" for _, each in failures
        )
        if not failures:
            reply = Reply.of(451, "4.4", f"{self.next_hop} has no address to connect to")
            self._end(reply, unreachable=True)
        elif len(failures) == 1 or said or not deferring:
            last = said[-1] if said else failures[-1][1]
            for target, each in failures:
                if each is not last:
                    self.log.info(
                        "{id} was not taken by {target} either: {reply}",
                        id=str(self.message.id),
                        target=str(target),
                        reply=str(each.reply),
                    )
            # One that may take the message later is enough to defer it.
            temporary = last.reply.code >= 500 and bool(deferring)
            self._end(
                last.reply, last.remote, last.tls, unreachable=unreachable, temporary=temporary
            )
        else:
            lines = (each.reply.text for _, each in failures)
            # RFC 3463 X.7: a target that is not safe enough tells more than those that are down.
            statuses = [each.reply.detail or "" for _, each in failures]
            unsafe = [status for status in statuses if status.startswith("7.")]
            reply = Reply.of(451, unsafe[-1] if unsafe else "4.1", *lines)
            self._end(reply, unreachable=unreachable)

    def _end(
        self,
        reply: Reply,
        remote: str | None = None,
        tls: TLSFacts | None = None,
        *,
        unreachable: bool = False,
        temporary: bool = False,
    ) -> None:
        setup = self.connections.reactor.seconds() - self.started
        # The next hop counts as unreachable where the failure is temporary, no target had a
        # session for us, and this system lacked nothing.
        deferred = temporary or reply.code // 100 == 4
        unreachable = unreachable and deferred and not self.reached and not self.lacking
        unreachable = unreachable and self._tried_shared_hosts()
        dialogue = transcript(self.dialogue) if deferred else ""
        self._settle(
            [
                Outcome(
                    recipient.number,
                    reply,
                    remote,
                    tls,
                    setup=setup,
                    unreachable=unreachable,
                    transcript=dialogue,
                    temporary=temporary,
                    source=self.source if remote is not None else None,
                )
                for recipient in self.message.envelope.recipients
            ]
        )

    def _tried_shared_hosts(self) -> bool:
        """Whether a failure is about the next hop that shares its suspension with others.

        The domain may name other hosts too, and its DNS may fail: that must not keep the mail of
        all other domains at the same provider.
        """
        exchanger = self.next_hop.exchanger
        return not exchanger or any(is_below(exchanger, each.name) for each in self.failures)

    def _settle(self, outcomes: Sequence[Outcome]) -> None:
        if self.state is not State.ENDED:
            self._enter(Event.END)
            self.ended(self, outcomes)


def _text(failure: Failure) -> str:
    return printable(failure.getErrorMessage())
