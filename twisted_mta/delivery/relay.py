"""Delivery to other hosts by SMTP or LMTP.

A `Relay` holds what all deliveries share: connections, terms, memories. What one message goes
through is a `delivery.attempt.Attempt`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

from attrs import evolve, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config import Destination
from ..interfaces import Executor, Locate, WallTime
from ..mail.message import Message
from ..mail.next_hop import Host, NextHop, Target
from ..mail.outcome import Outcome
from ..mail.reply import Reply
from ..smtp.client.session import ClientSession
from ..smtp.client.step import TLSLevel
from ..smtp.extension.outgoing import OutgoingExtension
from ..smtp.extension.standard import OUTGOING
from ..smtp.sasl.client import Nonce
from ..system.outbox import Outbox
from ..system.slices import Work, finished
from ..telemetry.tracing import Tracing
from ..tls.client import ClientContexts
from ..tls.memory import TLSFact, TLSMemory
from .address_order import SourceOf, in_order_of_hosts
from .attempt import Attempt
from .connection import Connection, Convert, seven_bit
from .pool import Pool
from .settings import RelaySettings, Traffic
from .terms import DestinationFor, Prepared, Terms, TermsBook, preparing

__all__ = ["Relay", "RelaySettings"]


class Relay:
    """Delivers to other hosts; `deliver` is an `interfaces.Deliver`.

    Args:
        reactor: for connections and time: `IReactorTCP`, `IReactorTime`, and `IReactorUNIX` where
            routes name UNIX sockets.
        locate: says which addresses a next hop has.
        helo: our name in EHLO.
        contexts: what to start TLS with.
        tls_level: what TLS a connection must have, without ``destination_for``.
        source_address: addresses to connect from, likewise; each for targets of its own family,
            None leaves it to the system.
        settings: see there.
        destination_for: what holds where; without it, one thing everywhere. Where a destination
            names files, `update` with what `prepare` read comes before the first delivery.
        memory: of hosts that TLS was had with.
        nonce: makes nonces for AUTH; without it the mechanisms of the SCRAM family are not used.
        source_of: see `address_order.in_order`.
        executor: where keys for AUTH are derived, if that takes long, and a content is converted
            that a next hop does not take as it is; without it, such mail fails.
        extensions: what may be said for a message where a server knows it.
        wall_time: what time it is where messages have one; without it, the reactor's.
        outbox: where commands wait for the end of the reactor's turn; without it, one of its own.

    Attributes:
        traffic: see there.
        tracing: who wants to read along; None: nobody ever does.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Any,
        locate: Locate,
        helo: str,
        contexts: ClientContexts | None = None,
        tls_level: TLSLevel = "may",
        source_address: str | Sequence[str] | None = None,
        settings: RelaySettings | None = None,
        destination_for: DestinationFor | None = None,
        memory: TLSMemory | None = None,
        nonce: Nonce | None = None,
        source_of: SourceOf | None = None,
        executor: Executor | None = None,
        extensions: Sequence[OutgoingExtension] = OUTGOING,
        wall_time: WallTime | None = None,
        outbox: Outbox | None = None,
    ) -> None:
        self.settings = settings or RelaySettings()
        self.locate = locate
        self.source_of = source_of
        self.reactor = reactor
        self.traffic = Traffic()
        self.tracing: Tracing | None = None
        self.ended: Reply | None = None  # what attempts get that have no transaction yet
        self.pool: Pool[Connection] = Pool(connections=self.settings.idle_connections)
        self._helo = helo
        self._contexts = contexts or ClientContexts()
        self._memory = memory
        self._nonce = nonce
        self._extensions = extensions
        self._wall_time: WallTime = wall_time or reactor.seconds
        self._outbox = Outbox() if outbox is None else outbox
        self._executor = executor
        self._convert = None if executor is None else _converter(executor)
        if destination_for is None:
            sources = (source_address,) if isinstance(source_address, str) else source_address
            everywhere = Destination(
                domain="*",
                tls=tls_level,
                source_address=None if sources is None else tuple(sources),
                messages_per_connection=self.settings.messages_per_connection,
            )
            destination_for = _Everywhere(everywhere)
        self._destination_for = destination_for
        self.terms = TermsBook(destination_for)
        self._generation = 0
        self._attempts: dict[Attempt, None] = {}
        self._connections: dict[Connection, int] = {}
        self._connecting: dict[Connection, Deferred[Connection]] = {}
        self._down: dict[tuple[str, int], float] = {}
        self._closing: list[Deferred[None]] | None = None

    # Settings.

    def prepare(self, destinations: Iterable[Destination]) -> Prepared:
        """Read the files of all destinations, without any effect. Blocks.

        Args:
            destinations: each complete (`Config.all_destinations`).

        Raises:
            CertificateError: a certificate, key or authority cannot be used.
            ConfigError: a password file cannot.
        """
        return finished(self.preparing(destinations))

    def preparing(self, destinations: Iterable[Destination]) -> Work[Prepared]:
        """Do the same in slices."""
        return preparing(self._contexts, destinations)

    def update(
        self,
        prepared: Prepared,
        *,
        destination_for: DestinationFor | None = None,
        helo: str | None = None,
    ) -> list[str]:
        """Put settings in force, for connections from now on; idle ones are closed.

        A transaction that is under way goes on as it began, and its connection is closed then.

        Args:
            prepared: what the files held.
            destination_for: what holds where from now on; None: as before.
            helo: our name in EHLO; None: as before.

        Returns:
            Lines that say what changed, printable.
        """
        self._destination_for = destination_for or self._destination_for
        self._helo = helo or self._helo
        self.terms = TermsBook(self._destination_for, prepared.credentials)
        self._generation += 1
        for connection in self.pool.idle:
            connection.quit()
        return self._contexts.use(prepared.contexts)

    # Deliveries.

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Try a transaction for all recipients of ``message``.

        Recipients with whom we do business on different terms have one each, one after the other.

        Returns:
            An outcome for each recipient, in the order of the envelope. It never fails: whatever
            goes wrong defers the recipients.
        """
        try:
            parts = self.terms.parts(next_hop, message)
        except Exception:
            self.log.failure("Cannot deliver {id}", id=str(message.id))
            done: Deferred[Sequence[Outcome]] = Deferred()
            reply = Reply.of(451, "3.0", "internal error, see the log")
            done.callback([Outcome(one.number, reply) for one in message.envelope.recipients])
            return done
        if len(parts) == 1:
            return self._attempt(next_hop, message, parts[0].ways)
        return Deferred.fromCoroutine(self._deliver_parts(next_hop, message, parts))

    async def _deliver_parts(
        self, next_hop: NextHop, message: Message, parts: Iterable[Any]
    ) -> Sequence[Outcome]:
        outcomes: dict[int, Outcome] = {}
        for part in parts:
            some = await self._attempt(next_hop, message.for_recipients(part.recipients), part.ways)
            outcomes.update((outcome.number, outcome) for outcome in some)
        return [outcomes[recipient.number] for recipient in message.envelope.recipients]

    def _attempt(
        self, next_hop: NextHop, message: Message, ways: tuple[Terms, ...]
    ) -> Deferred[Sequence[Outcome]]:
        attempt = Attempt(self, next_hop, message, ways)
        self._attempts[attempt] = None
        attempt.start()
        return attempt.result.addCallback(self._whole, next_hop, message, ways)

    def _whole(
        self,
        outcomes: Sequence[Outcome],
        next_hop: NextHop,
        message: Message,
        ways: tuple[Terms, ...],
    ) -> Sequence[Outcome] | Deferred[Sequence[Outcome]]:
        """Go on with the recipients that were more than the server takes at once (RFC 9422)."""
        if len(outcomes) == len(message.envelope.recipients):
            return outcomes
        return Deferred.fromCoroutine(self._deliver_rest(outcomes, next_hop, message, ways))

    async def _deliver_rest(
        self,
        outcomes: Sequence[Outcome],
        next_hop: NextHop,
        message: Message,
        ways: tuple[Terms, ...],
    ) -> Sequence[Outcome]:
        found = {outcome.number: outcome for outcome in outcomes}
        recipients = message.envelope.recipients
        rest = tuple(each for each in recipients if each.number not in found)
        last = outcomes[-1]
        if last.reply.code == 421 or last.uncertain:
            # It is closing, or does not answer: to connect for each of them would not be polite.
            some: Sequence[Outcome] = [
                evolve(last, number=each.number, uncertain=False) for each in rest
            ]
        else:
            some = await self._attempt(next_hop, message.for_recipients(rest), ways)
        found.update((outcome.number, outcome) for outcome in some)
        return [found[each.number] for each in recipients]

    # The end.

    def close(self) -> Deferred[None]:
        """Say QUIT on idle connections, and on the others when their transaction is over.

        Returns:
            Fires when no connection is left.
        """
        closed: Deferred[None] = Deferred()
        self._closing = [*(self._closing or ()), closed]
        for connection in self.pool.idle:
            connection.quit()
        self._check_closed()
        return closed

    def abort_unsent(self) -> None:
        """End every transaction whose content is not yet sent to its end; start no new one.

        Those recipients are deferred, by ourselves. What waits for the answer to its final dot goes
        on waiting: to end that would make second copies.
        """
        self.ended = Reply.of(451, "3.2", "we are closing")
        for attempt in tuple(self._attempts):
            attempt.abort_unsent()

    def abort(self) -> None:
        """Drop every connection at once; what was under way is deferred."""
        before = self.ended
        self.abort_unsent()
        for connecting in tuple(self._connecting.values()):
            connecting.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        self.ended = before

    # What attempts ask.

    def connect(
        self, target: Target, terms: Terms, *, in_clear: bool = False
    ) -> Deferred[Connection]:
        """Open a connection; fails as endpoints do, with silence if it is cancelled.

        Args:
            target: where to.
            terms: on which.
            in_clear: TLS has just failed there, and was only wished for.
        """
        if in_clear:
            terms = evolve(terms, level="none")
        session = ClientSession(
            helo=self._helo,
            remote=str(target),
            tls=self.level(target, terms),
            implicit_tls=terms.implicit_tls,
            deadlines=self.settings.deadlines,
            dialect=terms.dialect,
            credentials=terms.credentials,
            nonce=self._nonce,
            extensions=self._extensions,
        )
        connection = Connection(
            session,
            target=target,
            terms=terms,
            contexts=self._contexts,
            clock=self.reactor,
            outbox=self._outbox,
            wall_time=self._wall_time,
            convert=self._convert,
            executor=self._executor,
            opened=self._alarmed if in_clear else self._opened,
            spent=self.pool.discard,
            closed=self._closed,
        )
        if self.tracing is not None and self.tracing.traces:
            connection.attach_traces(self.tracing)
        dialling: Deferred[IProtocol] = self._endpoint(target, terms).connect(_Once(connection))

        def connected(_: IProtocol) -> Connection:
            self._connecting.pop(connection, None)
            self.traffic.connections += 1
            return connection

        def unconnected(failure: Failure) -> Failure:
            self._connecting.pop(connection, None)
            self._connections.pop(connection, None)
            connection.unconnected(failure)
            self._check_closed()
            return failure

        self._connections[connection] = self._generation
        connecting = dialling.addCallbacks(connected, unconnected)
        if not connecting.called:
            self._connecting[connection] = connecting
        return connecting

    def attach_traces(self) -> None:
        """Have all connections tell what they say to the traces that are open now."""
        if self.tracing is not None:
            for connection in tuple(self._connections):
                connection.attach_traces(self.tracing)

    def unconnected(self, target: Target) -> None:
        """Take note that a target cannot be connected to."""
        self.traffic.unconnected += 1
        now = self.reactor.seconds()
        down = self._down
        if len(down) >= 1000:
            self._down = down = {key: until for key, until in down.items() if until > now}
        down[target.address, target.port] = now + self.settings.shun

    def shunned_for(self, target: Target) -> float:
        """Return for how many seconds yet a target is passed over where there are others."""
        until = self._down.get((target.address, target.port), 0.0)
        now: float = self.reactor.seconds()
        return max(0.0, until - now)

    def order(self, targets: Sequence[Target]) -> list[Target]:
        """Return which targets to try, in their order.

        That is without those that have just failed, unless all have, and so many at most.

        Args:
            targets: of a next hop, host by host.
        """
        ordered = list(in_order_of_hosts(targets, self.source_of))
        up = [target for target in ordered if not self.shunned_for(target)] or ordered
        return up[: self.settings.targets]

    def keep(self, connection: Connection, next_hop: NextHop, ways: tuple[Terms, ...]) -> None:
        """Take back a connection whose transaction is over."""
        if not connection.session.idle:
            return
        outdated = self._connections.get(connection) != self._generation
        if self._closing is not None or outdated or connection.session.spent:
            connection.quit()
            return
        surplus = self.pool.keep(connection, next_hop, ways)
        if surplus is not None:
            surplus.quit()

    def over(self, attempt: Attempt) -> None:
        """Forget an attempt that has its outcomes."""
        self._attempts.pop(attempt, None)

    def lacked_tls(self, target: Target, terms: Terms) -> str | None:
        """Sound the alarm where a target was given up because it had TLS before (RFC 3207 §6).

        Returns:
            What to add to the reason, None where nothing was asked of it but what always is.
        """
        if not self._must_have_again(target, terms):
            return None
        self._sound(target, "deferred")
        return "TLS was had with it before, and tls_memory requires it"

    # TLS that was had before.

    def level(self, target: Target, terms: Terms) -> TLSLevel:
        """Return what TLS a connection to ``target`` must have, with what is known of it."""
        return "encrypt" if self._must_have_again(target, terms) else terms.level

    def known_tls(self, target: Target) -> TLSFact | None:
        """Return what is known of the TLS of a target."""
        return None if self._memory is None else self._memory.known(target.name, target.port)

    def _must_have_again(self, target: Target, terms: Terms) -> bool:
        return (
            self._memory is not None
            and terms.require_memory
            and terms.level == "may"
            and self._memory.known(target.name, target.port) is not None
        )

    def _opened(self, connection: Connection) -> None:
        if connection.session.tls is not None:
            self.traffic.handshakes += 1
            if self._memory is not None and not connection.terms.implicit_tls:
                self._memory.remember(connection.target.name, connection.target.port)
        elif connection.terms.level != "none":
            self._alarmed(connection)

    def _alarmed(self, connection: Connection) -> None:
        self._sound(connection.target, "delivered in clear")

    def _sound(self, target: Target, what: str) -> None:
        fact = self._memory and self._memory.known(target.name, target.port)
        if not fact or not self._memory:
            return
        self._memory.alarm(target.name, target.port)
        self.log.error(
            "ALARM: {target} has no TLS now, and had before; {what}: somebody may be listening in",
            target=str(target),
            what=what,
        )

    # Connections.

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing is not None and not self._connections:
            closing, self._closing = self._closing, []
            for closed in closing:
                closed.callback(None)

    def _endpoint(self, target: Target, terms: Terms) -> Any:
        timeout = self.settings.deadlines.connect
        if target.address.startswith("/"):
            return UNIXClientEndpoint(self.reactor, target.address, timeout=timeout)
        endpoint = TCP6ClientEndpoint if ":" in target.address else TCP4ClientEndpoint
        return endpoint(
            self.reactor,
            target.address,
            target.port,
            timeout=timeout,
            bindAddress=_source(target, terms.source_addresses),
        )


def _converter(executor: Executor) -> Convert:
    def convert(message: Message) -> Deferred[Message]:
        return executor(seven_bit, message)

    return convert


@frozen
class _Everywhere:
    """A `DestinationFor` that knows one answer."""

    destination: Destination

    def __call__(self, domain: str, hosts: tuple[Host, ...]) -> Destination:
        return self.destination


def _source(target: Target, sources: Iterable[str]) -> tuple[str, int] | None:
    version = ip_address(target.address.partition("%")[0]).version
    for source in sources:
        if ip_address(source).version == version:
            return source, 0
    return None


class _Once(Factory):
    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection
