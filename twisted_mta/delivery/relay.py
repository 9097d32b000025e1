"""Delivery to other hosts by SMTP: one transaction for a message's recipients at one next hop.

A delivery tries the targets of its next hop in order until one of them has said something about the
message. What a target says about itself (no connection, a refused greeting, no TLS where it must
be, ``421`` before the first reply to a transaction) leads to the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IAddress, IProtocol, IReactorTCP, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..envelope import Message, NextHop, Outcome, Target, TLSFacts
from ..interfaces import Locate, NoTarget
from ..smtp.client import ClientSession
from ..smtp.client_step import Deadlines, TLSLevel, TransactionDone, Unusable
from ..smtp.reply import Reply, printable
from .connection import Connection, Result
from .pool import Pool
from .tls import ClientContexts


class Reactor(IReactorTCP, IReactorTime):
    """What is needed of a reactor."""


@frozen(kw_only=True)
class RelaySettings:
    """How a relay delivers.

    Attributes:
        deadlines: how long it waits for what.
        messages_per_connection: transactions after which a connection is closed.
        idle_connections: how many may be kept for later.
        targets: how many addresses of a next hop are tried in one delivery.
    """

    deadlines: Deadlines = field(factory=Deadlines)
    messages_per_connection: int = 100
    idle_connections: int = 100
    targets: int = 10  # RFC 5321 §5.1: at least two; some domains have dozens, all of them down


class Relay:
    """Delivers to other hosts; `deliver` is an `interfaces.Deliver`.

    Args:
        reactor: for connections and time.
        locate: says which addresses a next hop has.
        helo: our name in EHLO.
        contexts: what to start TLS with.
        tls_level: what TLS a connection must have.
        source_address: an address to connect from, None leaves it to the system; used for targets
            of its own family.
        settings: see there.
    """

    log = Logger()

    def __init__(
        self,
        *,
        reactor: Reactor,
        locate: Locate,
        helo: str,
        contexts: ClientContexts,
        tls_level: TLSLevel = "may",
        source_address: str | None = None,
        settings: RelaySettings | None = None,
    ) -> None:
        self.settings = settings or RelaySettings()
        self.locate = locate
        self.tls_level: TLSLevel = tls_level
        self.pool: Pool[Connection] = Pool(
            messages=self.settings.messages_per_connection,
            connections=self.settings.idle_connections,
        )
        self._reactor = reactor
        self._helo = helo
        self._contexts = contexts
        self._source_address = source_address
        self._connections: dict[Connection, Deferred[IProtocol] | None] = {}
        self._closing: list[Deferred[None]] | None = None

    def deliver(self, next_hop: NextHop, message: Message) -> Deferred[Sequence[Outcome]]:
        """Try one transaction for all recipients of ``message``.

        Returns:
            An outcome for each recipient, in the order of the envelope. It never fails: whatever
            goes wrong defers the recipients.
        """
        delivery = _Delivery(self, next_hop, message)
        delivery.start()
        return delivery.result

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

    def abort(self) -> None:
        """Drop every connection at once; what was under way is deferred."""
        for connection, connecting in tuple(self._connections.items()):
            if connecting is not None:
                connecting.cancel()
            else:
                connection.abort()

    # What deliveries ask.

    def connect(self, target: Target, level: TLSLevel) -> Deferred[Connection]:
        """Open a connection; fails as endpoints do."""
        session = ClientSession(
            helo=self._helo, remote=str(target), tls=level, deadlines=self.settings.deadlines
        )
        connection = Connection(
            session,
            target=target,
            level=level,
            contexts=self._contexts,
            clock=self._reactor,
            spent=self.pool.discard,
            closed=self._closed,
        )
        endpoint_type = TCP6ClientEndpoint if ":" in target.address else TCP4ClientEndpoint
        endpoint = endpoint_type(
            self._reactor,
            target.address,
            target.port,
            timeout=self.settings.deadlines.connect,
            bindAddress=self._source(target),
        )
        connecting = endpoint.connect(_Once(connection))
        self._connections[connection] = connecting

        def connected(_: IProtocol) -> Connection:
            if connection in self._connections:  # else it is gone already
                self._connections[connection] = None
            return connection

        def unconnected(failure: Failure) -> Failure:
            self._closed(connection)
            return failure

        return connecting.addCallbacks(connected, unconnected)

    def keep(self, connection: Connection, next_hop: NextHop) -> None:
        """Take back a connection whose transaction is over."""
        if not connection.session.idle:
            return
        if self._closing is not None:
            connection.quit()
            return
        surplus = self.pool.keep(connection, next_hop, self.tls_level)
        if surplus is not None:
            surplus.quit()

    def _closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._check_closed()

    def _check_closed(self) -> None:
        if self._closing is not None and not self._connections:
            closing, self._closing = self._closing, []
            for closed in closing:
                closed.callback(None)

    def _source(self, target: Target) -> tuple[str, int] | None:
        source = self._source_address
        if source is None or ip_address(source).version != ip_address(target.address).version:
            return None
        return source, 0


class _Once(Factory):
    noisy = False

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        return self._connection


@define(eq=False)
class _Delivery:
    """One message on its way through the targets of its next hop.

    Attributes:
        targets: those not tried yet, None while it is not known which there are.
        failures: what the targets that were tried said of themselves.
    """

    relay: Relay
    next_hop: NextHop
    message: Message
    result: Deferred[Sequence[Outcome]] = field(factory=Deferred)
    targets: Iterator[Target] | None = None
    failures: dict[Target, Unusable] = field(factory=dict)

    def start(self) -> None:
        connection = self.relay.pool.take(self.next_hop, self.relay.tls_level)
        if connection is not None:
            connection.transact(self.message, self.reused)
        else:
            self.next()

    def located(self, targets: Sequence[Target]) -> None:
        tried = self.failures
        self.targets = iter(targets[: self.relay.settings.targets])
        self.targets = (target for target in self.targets if target not in tried)
        self.next()

    def unlocated(self, failure: Failure) -> None:
        if isinstance(failure.value, NoTarget):
            self.end(failure.value.reply)
            return
        self.relay.log.failure("Cannot deliver {id}", failure, id=self.message.id)
        self.end(Reply.of(451, "3.0", "internal error, see the log"))

    def next(self) -> None:
        if self.targets is None:
            locating = self.relay.locate(self.next_hop)
            locating.addCallback(self.located).addErrback(self.unlocated)
            return
        target = next(self.targets, None)
        if target is None:
            self.give_up()
            return
        level = self.relay.tls_level
        connection = self.relay.pool.take_to(target, level)
        if connection is not None:
            connection.transact(self.message, self.reused)
        else:
            self.connect(target, level)

    def connect(self, target: Target, level: TLSLevel) -> None:
        connecting = self.relay.connect(target, level)
        connecting.addCallbacks(self.connected, self.unconnected, errbackArgs=(target,))
        connecting.addErrback(self.unlocated)

    def connected(self, connection: Connection) -> None:
        connection.transact(self.message, self.fresh)

    def unconnected(self, failure: Failure, target: Target) -> None:
        text = f"{target}: {printable(failure.getErrorMessage())}"
        self.failures[target] = Unusable(Reply.of(451, "4.1", text))
        self.next()

    def reused(self, connection: Connection, result: Result) -> None:
        """A connection that was idle may have died meanwhile; that says nothing of the host."""
        if isinstance(result, Unusable):
            self.connect(connection.target, self.relay.tls_level)
        else:
            self.done(connection, result)

    def fresh(self, connection: Connection, result: Result) -> None:
        if isinstance(result, TransactionDone):
            self.done(connection, result)
            return
        if result.clear_retry:
            # RFC 3207 §6, RFC 7435 §4: TLS was only wished for, so once more without it.
            self.relay.log.warn(
                "TLS handshake failed, trying in clear: {reply}", reply=str(result.reply)
            )
            self.connect(connection.target, "none")
            return
        self.failures[connection.target] = result
        self.next()

    def done(self, connection: Connection, result: TransactionDone) -> None:
        self.relay.keep(connection, self.next_hop)
        for outcome in result.outcomes:
            if outcome.uncertain:
                self.relay.log.warn(
                    "Possible duplicate of {id}: {reply}",
                    id=str(self.message.id),
                    reply=str(outcome.reply),
                )
                break
        self.result.callback(result.outcomes)

    def give_up(self) -> None:
        """No target would have the message: say what each of them did last."""
        failures = list(self.failures.items())
        if not failures:
            self.end(Reply.of(451, "4.4", f"{self.next_hop} has no address to connect to"))
        elif len(failures) == 1 or all(each.reply.code >= 500 for _, each in failures):
            _, last = failures[-1]
            self.end(last.reply, last.remote, last.tls)
        else:
            lines = (
                f"{target}: {each.reply}" if each.remote else each.reply.text
                for target, each in failures
            )
            self.end(Reply.of(451, "4.1", *lines))

    def end(self, reply: Reply, remote: str | None = None, tls: TLSFacts | None = None) -> None:
        self.result.callback(
            tuple(
                Outcome(recipient.number, reply, remote, tls)
                for recipient in self.message.envelope.recipients
            )
        )
