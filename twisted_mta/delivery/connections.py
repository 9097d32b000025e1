"""The connections of one process to its next hops: opened, kept idle, reused and closed.

What a server does to connections outlives any message: targets that could not be connected to are
passed over for some seconds, and a host that is known to do TLS (`tls.memory`) is not spoken to in
clear without an alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectingCancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.token_account import TokenAccount
from ..health.lately import Lately
from ..interfaces import Executor, NoteTLSResult, Sign, TLSPolicies, WallTime, unsigned
from ..mail.message import Message
from ..mail.next_hop import NextHop, Target
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_policy import TLSPolicy
from ..smtp.client.session import ClientSession
from ..smtp.client.step import Unusable
from ..smtp.extension.outgoing import OutgoingExtension
from ..smtp.extension.standard import OUTGOING
from ..smtp.sasl.client import Credentials, TokenCredentials
from ..smtp.sasl.exchange import Nonce
from ..system.outbox import Outbox
from ..telemetry.recent_sessions import RecentSessions
from ..telemetry.tracing import Tracing
from ..tls.client import ClientContexts
from ..tls.handshakes import Handshakes
from ..tls.memory import TLSHost, TLSMemory
from ..tls.sessions import ClientSessions
from ..tls.small_hello import SmallHellos
from .adaptation import seven_bit
from .address_order import SourceOf, in_order_of_hosts
from .connecting import connect
from .connection import Connection, Convert
from .host_policies import HostPolicies
from .pool import Pool
from .settings import RelaySettings, Traffic
from .terms import HostTerms, Terms
from .tokens.accounts import TokenAccounts
from .tokens.token import NoToken
from .unreachable_targets import UnreachableTargets

_QUITTING = 1.0  # seconds for an idle connection to end in order, where others wait for that


def _alone(next_hop: NextHop) -> NextHop:
    return next_hop


class Connections:
    """Opens connections to targets, and keeps those that are idle for the next message.

    Args:
        reactor: for connections and time: `IReactorTCP`, `IReactorTime`, and `IReactorUNIX` where
            routes name UNIX sockets.
        helo: our name in EHLO.
        settings: the limits and timeouts for all next hops.
        contexts: makes the TLS side of connections.
        memory: the hosts known to do TLS; None: no host is known.
        policies: decides on the TLS with each host; None: by the settings and ``memory``.
        note_tls_result: takes note of sessions with mail exchangers, for reports on TLS.
        nonce: makes nonces for AUTH; without it SCRAM mechanisms are not used.
        source_of: see `address_order.in_order`.
        executor: runs the derivation of SCRAM keys and the conversion of contents; without it,
            a message that needs conversion is bounced.
        sign: signs messages.
        extensions: the SMTP extensions that are used where a server announces them.
        wall_time: seconds since the epoch; without it, the reactor's time.
        outbox: collects commands until the end of the reactor's turn; without it, a new one.
        tokens: the tokens of accounts; None: no account has any.
        grouped: returns a next hop with the group whose limits it shares, as far as it is known.

    Attributes:
        tokens: see the argument.
        grouped: see the argument.
        traffic: counts since the start.
        policies: see the argument.
        note_tls_result: see the argument.
        pool: the idle connections.
        unreachable: the targets that connecting to failed lately.
        small_hellos: the hosts that were sent a small ClientHello lately.
        handshakes: the last handshake with each host.
        refused_credentials: the hosts that did not take our credentials lately.
        count_session: counts a session, by its level of TLS and its version, or ``none``.
        unsafe_hosts: the hosts that were passed over lately for their TLS.
        tracing: the open traces; None: there can be none.
        recent: remembers connections that are over; None: they are not remembered.
        stopped: the reply that ends attempts without a transaction; None: attempts may begin.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        helo: str,
        settings: RelaySettings,
        contexts: ClientContexts | None = None,
        memory: TLSMemory | None = None,
        policies: TLSPolicies | None = None,
        note_tls_result: NoteTLSResult = lambda result: None,
        nonce: Nonce | None = None,
        source_of: SourceOf | None = None,
        executor: Executor | None = None,
        sign: Sign = unsigned,
        extensions: Sequence[OutgoingExtension] = OUTGOING,
        wall_time: WallTime | None = None,
        outbox: Outbox | None = None,
        tokens: TokenAccounts | None = None,
        grouped: Callable[[NextHop], NextHop] = _alone,
    ) -> None:
        self.reactor = reactor
        self.tokens = tokens
        self.grouped = grouped
        self.settings = settings
        self.contexts = contexts or ClientContexts()
        self.source_of = source_of
        self.traffic = Traffic()
        self.pool: Pool[Connection] = Pool(most=settings.idle_connections)
        self.unreachable = UnreachableTargets(reactor, seconds=settings.shun)
        self.tracing: Tracing | None = None
        self.recent: RecentSessions | None = None
        self.refused_credentials = Lately("credentials", reactor)
        self.unsafe_hosts = Lately("tls", reactor)
        self.count_session: Callable[[str, str], object] = lambda level, version: None
        self.stopped: Reply | None = None
        self._helo = helo
        self._memory = memory
        self._sessions = ClientSessions(reactor.seconds)
        self.small_hellos = SmallHellos(reactor.seconds)
        self.handshakes = Handshakes(wall_time or reactor.seconds)
        self.policies: TLSPolicies = policies or HostPolicies(memory=memory)
        self.note_tls_result = note_tls_result
        self._nonce = nonce
        self._extensions = extensions
        self._wall_time: WallTime = wall_time or reactor.seconds
        self._outbox = Outbox() if outbox is None else outbox
        self._executor = executor
        self._sign = sign
        self._convert = None if executor is None else _converter(executor, raw_headers=False)
        self._convert_body = None if executor is None else _converter(executor, raw_headers=True)
        self._generation = 0
        self._generations: dict[Connection, int] = {}  # of all connections, also those to come
        self._connecting: dict[Connection, Deferred[Connection]] = {}
        self._closing: list[Deferred[None]] | None = None
        self._served: dict[Connection, NextHop] = {}  # the last one of each that was kept so far
        self._releasing: dict[Connection, Callable[[Connection], None]] = {}

    # Opening.

    def prepare(self, terms: Terms, policy: TLSPolicy) -> Deferred[None] | None:
        """Get ready for a connection; None: it can be opened now.

        Returns:
            Fails with `NoToken` where its account has none.
        """
        with_tls = self._make_context(terms, policy)
        account = terms.credentials
        if not isinstance(account, TokenAccount):
            return with_tls
        if self.tokens is None:
            return fail(NoToken("tokens are not configured"))
        with_token = self.tokens.ready(account)
        if with_tls is None:
            return with_token
        return with_tls.addCallback(lambda _: with_token)

    def _make_context(self, terms: Terms, policy: TLSPolicy) -> Deferred[None] | None:
        """Make the TLS context of a connection in a thread; None: there is one, or none is needed.

        Reading the authorities of the system takes longer than a turn of the reactor may.
        """
        tls = terms.tls_under(policy)
        if self._executor is None or policy.level == "none" or policy.patterns or not tls.verify:
            return None  # of hosts under MTA-STS, it was made with the policy
        return None if self.contexts.has(tls) else self._executor(self.contexts.make, tls)

    def open(
        self,
        target: Target,
        terms: Terms,
        policy: TLSPolicy,
        *,
        in_clear: bool = False,
        small_hello: bool = False,
        resumes: bool = True,
    ) -> Deferred[Connection]:
        """Open a connection; fails as reactors do.

        Args:
            target: the address and port.
            terms: the terms of the connection.
            policy: the TLS that it must have.
            in_clear: whether to do without TLS, since STARTTLS was optional and of no use.
            small_hello: whether to begin TLS with a small ClientHello, since a large one has had no
                answer.
            resumes: whether a TLS session may be resumed.
        """
        if in_clear:
            policy = evolve(policy, level="none")
        try:
            connection = self._connection(
                target, terms, policy, in_clear=in_clear, small_hello=small_hello, resumes=resumes
            )
        except NoToken:  # it has expired since `prepare`
            return fail()
        if self.tracing is not None and self.tracing.traces:
            connection.attach_traces(self.tracing)

        def connected(connection: Connection) -> Connection:
            self._connecting.pop(connection, None)
            self.traffic.connections += 1
            return connection

        def unconnected(failure: Failure) -> Failure:
            self._connecting.pop(connection, None)
            self._generations.pop(connection, None)
            connection.unconnected(failure)
            if self.recent is not None and not failure.check(ConnectingCancelledError):
                self.recent.ended(connection.ended_session(failure))
            self._check_closed()
            return failure

        self._generations[connection] = self._generation
        connecting = connect(
            self.reactor,
            connection,
            target,
            timeout=self.settings.deadlines.connect,
            source=terms.source(target),
        )
        connecting.addCallbacks(connected, unconnected)
        if not connecting.called:
            self._connecting[connection] = connecting
        return connecting

    def _connection(
        self,
        target: Target,
        terms: Terms,
        policy: TLSPolicy,
        *,
        in_clear: bool,
        small_hello: bool,
        resumes: bool,
    ) -> Connection:
        session = ClientSession(
            helo=terms.helo(target) or self._helo,
            remote=str(target),
            tls=policy.level,
            implicit_tls=terms.implicit_tls,
            deadlines=self.settings.deadlines,
            dialect=terms.dialect,
            credentials=self._credentials(terms),
            nonce=self._nonce,
            extensions=self._extensions,
            tls_failed=in_clear,
        )
        return Connection(
            session,
            target=target,
            terms=terms,
            policy=policy,
            contexts=self.contexts,
            sessions=self._sessions,
            resumes=resumes,
            small_hello=small_hello or self.small_hellos.helps(target.name, target.port) is True,
            clock=self.reactor,
            outbox=self._outbox,
            wall_time=self._wall_time,
            convert=self._convert_body if terms.raw_headers else self._convert,
            sign=self._sign,
            executor=self._executor,
            opened=self._opened_after_failure if in_clear else self._opened,
            spent=self.pool.discard,
            closed=self._closed,
        )

    def _credentials(self, terms: Terms) -> Credentials | TokenCredentials | None:
        account = terms.credentials
        if not isinstance(account, TokenAccount):
            return account
        assert self.tokens is not None  # it is ready (`prepare`)
        return self.tokens.credentials(account)

    def attach_traces(self) -> None:
        """Write the dialogue of all connections to the open traces from now on."""
        if self.tracing is not None:
            for connection in tuple(self._generations):
                connection.attach_traces(self.tracing)

    def note_token(self, connection: Connection, *, accepted: bool) -> None:
        """Take note of what the server has said of the token of a connection, if it has one."""
        account, credentials = connection.terms.credentials, connection.session.credentials
        if isinstance(account, TokenAccount) and isinstance(credentials, TokenCredentials):
            assert self.tokens is not None
            self.tokens.judged(account, credentials.token, accepted=accepted)

    # The order of targets.

    def order(self, targets: Sequence[Target]) -> list[Target]:
        """Return the targets to try, in order: `RelaySettings.targets` of them at most.

        Targets that could not be connected to lately are left out, unless that leaves none.

        Args:
            targets: of a next hop, host by host.
        """
        ordered = list(in_order_of_hosts(targets, self.source_of))
        reachable = [target for target in ordered if not self.unreachable.seconds_left(target)]
        return (reachable or ordered)[: self.settings.targets]

    def note_unreachable(self, target: Target) -> None:
        """Count a failure to connect, and pass over ``target`` for some seconds."""
        self.traffic.unconnected += 1
        self.unreachable.add(target)

    # Idle connections.

    def keep(self, connection: Connection, next_hop: NextHop, host_terms: HostTerms) -> None:
        """Take back a connection whose transaction has ended; it is kept idle or closed."""
        if not connection.session.idle:
            return
        outdated = self._generations.get(connection) != self._generation
        if self._closing is not None or outdated or connection.session.spent:
            connection.quit()
            return
        self._served[connection] = next_hop
        surplus = self.pool.keep(connection, next_hop, host_terms)
        if surplus is not None:
            surplus.quit()

    def renew(self, helo: str | None = None) -> None:
        """Close idle connections now, and the others after their transaction.

        Args:
            helo: our name in EHLO from now on; None: as before.
        """
        self._helo = helo or self._helo
        self._generation += 1
        for connection in self.pool.idle:
            connection.quit()

    def release(self, name: tuple[str, ...], left: int) -> Deferred[None] | None:
        """Close idle connections to a next hop, to which other machines may open some then.

        Args:
            name: of the next hop (`NextHop.limit_name`) that they served last.
            left: how many may stay idle.

        Returns:
            Fires when they are closed; None: there are none.
        """
        idle = [each for each in self.pool.idle if self._served[each].limit_name == name]
        surplus = idle[: max(0, len(idle) - left)]  # the longest idle
        if not surplus:
            return None
        released: Deferred[None] = Deferred()
        open_ones = dict.fromkeys(surplus)

        def abort() -> None:
            for each in tuple(open_ones):
                each.abort()

        timer = self.reactor.callLater(_QUITTING, abort)

        def closed(connection: Connection) -> None:
            open_ones.pop(connection, None)
            if not open_ones and not released.called:
                if timer.active():
                    timer.cancel()
                released.callback(None)

        for each in surplus:
            self._releasing[each] = closed
        for each in surplus:
            each.quit()
        return released

    # Closing.

    def close(self) -> Deferred[None]:
        """Send QUIT on idle connections, and on the others after their transaction.

        Returns:
            Fires when no connection is left.
        """
        closed: Deferred[None] = Deferred()
        self._closing = [*(self._closing or ()), closed]
        for connection in self.pool.idle:
            connection.quit()
        self._check_closed()
        return closed

    def abort(self) -> None:
        """Drop every connection at once."""
        for connecting in tuple(self._connecting.values()):
            connecting.cancel()
        for connection in tuple(self._generations):
            connection.abort()

    def _closed(self, connection: Connection) -> None:
        self._generations.pop(connection, None)
        if self.recent is not None:
            self.recent.ended(connection.ended_session())
        self._served.pop(connection, None)
        released = self._releasing.pop(connection, None)
        if released is not None:
            released(connection)
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing is not None and not self._generations:
            closing, self._closing = self._closing, []
            for closed in closing:
                closed.callback(None)

    # The TLS memory.

    def known_tls(self, target: Target) -> TLSHost | None:
        """Return the entry of a target's host in the TLS memory, None where it has none."""
        return None if self._memory is None else self._memory.known(target.name, target.port)

    def note_missing_tls(self, connection: Connection) -> str | None:
        """Raise the alarm where mail is deferred since a host that did TLS has none now.

        RFC 3207 §6: a man in the middle can take STARTTLS out of the dialogue.

        Returns:
            A line for the reply; None where the TLS memory required nothing.
        """
        if not connection.policy.remembered:
            return None
        self._raise_alarm(connection.target, "deferred")
        return "TLS was used with it before, and tls_memory requires it"

    def may_try_small_hello(self, connection: Connection) -> bool:
        """Whether a handshake that broke off is worth one with a small ClientHello."""
        target = connection.target
        helps = self.small_hellos.helps(target.name, target.port)
        return connection.broken_off == "unanswered" and helps is not False

    def note_small_hello(self, connection: Connection) -> None:
        """Take note of what has come of a small ClientHello after a large one had no answer."""
        target, helped = connection.target, connection.session.tls is not None
        self.small_hellos.note(target.name, target.port, helped=helped)
        if helped:
            self.log.info(
                "{target} completes a TLS handshake with a small ClientHello, and none with a"
                " large one: it gets small ones for a while",
                target=str(target),
            )

    def note_failed_session(self, connection: Connection, unusable: Unusable) -> None:
        """Take note of a session that was of no use, if it was so because of its TLS."""
        if unusable.stage == "tls" or unusable.tls_missing or unusable.clear_retry:
            self._note_handshake(connection, unusable.reply.text)

    def _note_handshake(self, connection: Connection, problem: str | None = None) -> None:
        policy = connection.policy
        self.handshakes.note(
            connection.target,
            level=policy.level,
            source=policy.source,
            tls=connection.session.tls,
            problem=problem,
        )

    def _opened(self, connection: Connection) -> None:
        self._note_handshake(connection)
        self.unsafe_hosts.succeeded(_host(connection.target))
        if connection.terms.credentials is not None:
            self.refused_credentials.succeeded(_host(connection.target))
        tls = connection.session.tls
        self.count_session(connection.policy.level, "none" if tls is None else tls.version)
        self.note_token(connection, accepted=True)
        if connection.session.tls is not None:
            self.traffic.handshakes += 1
            self.traffic.resumed += connection.session.tls.resumed
            self._note_fault(connection)
            if self._memory is not None and not connection.terms.implicit_tls:
                self._memory.remember(connection.target.name, connection.target.port)
        elif connection.policy.level != "none":
            self._opened_in_clear(connection)

    def _note_fault(self, connection: Connection) -> None:
        """Tell of a host that an MTA-STS policy in testing mode would keep the mail from."""
        policy, tls = connection.policy, connection.session.tls
        if not policy.testing:
            return
        fault = policy.fault or ("it has no TLS" if tls is None else tls.peer_problem)
        if fault:
            self.log.info(
                "{target} gets mail all the same: the policy is {source}, and not fulfilled:"
                " {error}",
                target=str(connection.target),
                source=policy.source,
                error=fault,
            )

    def _opened_after_failure(self, connection: Connection) -> None:
        self.count_session("none", "none")
        self._opened_in_clear(connection)

    def _opened_in_clear(self, connection: Connection) -> None:
        self._note_fault(connection)
        self._raise_alarm(connection.target, "delivered in clear")

    def _raise_alarm(self, target: Target, consequence: str) -> None:
        fact = self._memory and self._memory.known(target.name, target.port)
        if not fact or not self._memory:
            return
        self._memory.alarm(target.name, target.port)
        self.log.error(
            "ALARM: {target} has no TLS now, and had before; {what}: the connection may be"
            " tampered with",
            target=str(target),
            what=consequence,
        )

    def note_unsafe(self, target: Target, reply: Reply) -> None:
        """Take note that a host is passed over for its TLS."""
        self.unsafe_hosts.failed(_host(target), f"{_host(target)} is passed over: {reply}")

    def note_refused_credentials(self, connection: Connection, reply: Reply) -> None:
        """Take note that a host did not take our credentials."""
        host = _host(connection.target)
        with_token = isinstance(connection.session.credentials, TokenCredentials)
        secret = "token" if with_token else "password"
        text = f"{host} does not take our account and {secret}: {reply}"
        self.refused_credentials.failed(host, text)


def _host(target: Target) -> str:
    """Return the name by which the troubles of a host are known: its addresses change."""
    return printable(f"{target.name}:{target.port}")


def _converter(executor: Executor, *, raw_headers: bool) -> Convert:
    def convert(message: Message) -> Deferred[Message]:
        return executor(seven_bit, message, raw_headers)

    return convert
