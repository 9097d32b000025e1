"""An ESMTP server connection on a `LineReceiver`: octets, TLS, decisions and timeouts.

It is the shell of the pure session (`smtp.server.session`), which does all framing, so the
`LineReceiver` is in raw mode from the first octet. This file moves octets between transport and
session, carries out the session's steps, awaits decisions, and ends connections that are too slow.
`lifecycle.TRANSITIONS` has the states of a connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, cast

from attrs import define, evolve
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..auth.authenticator import Authenticator, Login
from ..interfaces import Clock, Delivery, Sink
from ..mail.decision import Decision
from ..mail.printable import printable
from ..mail.reply import Reply
from ..smtp.conversation import Overhearing
from ..smtp.peer import Peer
from ..smtp.server.auth import Granted
from ..smtp.server.dialect import one_for_all
from ..smtp.server.machine import State
from ..smtp.server.replies import (
    AUTH_UNAVAILABLE,
    BYE,
    CANNOT_SERVE,
    LOCAL_ERROR,
    NO_IMPLICIT_TLS,
    OUT_OF_STEP,
    SHUTTING_DOWN,
)
from ..smtp.server.session import Session
from ..smtp.server.settings import SessionSettings
from ..smtp.server.step import (
    Abort,
    Authenticate,
    Close,
    Downgrade,
    Finish,
    Hello,
    Mail,
    Open,
    Rcpt,
    Represent,
    Rest,
    StartTLS,
    Step,
    Violation,
    Write,
)
from ..system.outbox import Outbox
from ..telemetry.metrics import table
from ..telemetry.metrics.table import Metric
from ..telemetry.recent_sessions import EndedSession, RecentSessions
from ..telemetry.tracing import SessionEnds, TracedSession, Tracing
from ..tls.certificates import openssl_reason
from ..tls.handshake import channel_binding, server_facts
from ..tls.server import ContextFactory, ServerTLS, server_tls
from .addresses import ProxiedAddress, plain_address
from .decision_kinds import CONTENT_DECISION, DECISION, OPENED, VERDICT, Kind
from .deliveries import NoDelivery, delivery_of
from .lifecycle import HANDSHAKES, NOT_GREETED, TRANSITIONS, Event, Lifecycle
from .timeouts import ConnectionTimer, Timeouts

_MAX_TURN = 0.005  # seconds spent on the commands of one client before other clients have a turn
_READ = 65_536  # octets read from a socket at a time
_CONTENT_READ = 131_072  # likewise, of a content: each read has its cost, however small it is
_LINGER = 10.0  # seconds for a client to read our last reply, before the connection is aborted
_PEEK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)  # `|` of two flags takes 3 µs
_ABANDON_TIMEOUT = 1.0  # seconds, likewise, when this process stops; and for a pending decision

# Read for each segment: an attribute of an Enum costs 0.2 µs in Python 3.11, a global 0.03 µs.
_LOST = Lifecycle.LOST
_OPEN = Lifecycle.OPEN
_ABANDONED = Lifecycle.ABANDONED
_CLOSED = State.CLOSED
_CONTENT = State.CONTENT


class ConnectionFactory(Protocol):
    """What a connection uses of the factory that built it.

    Attributes:
        kind: of the listener, such as ``smtp``.
        user_of: returns the user id at the other end of a transport, for `Peer.user`.
        draining: whether the factory takes no new transactions.
        timeouts: read once, when a connection is made.
        outbox: where replies wait for the end of the reactor's turn.
        tracing: the traces that operators have open; None where tracing is not available.
        recent: remembers sessions that have ended; None: they are not remembered.
        tls: the server's TLS; None where STARTTLS is not offered.
        implicit_tls: whether connections begin with a handshake, by the endpoint or by us.
        violations: how often a client sent octets before its turn; raised by connections.
        downgrades: how often MAIL was refused in clear; raised by connections.
    """

    kind: str
    user_of: Callable[[Any], int | None]
    draining: bool
    timeouts: Timeouts
    outbox: Outbox
    tracing: Tracing | None
    recent: RecentSessions | None
    tls: ServerTLS | None
    implicit_tls: bool
    violations: int
    downgrades: int

    def clock_for(self, transport: Any) -> Clock:
        """Return the clock of a connection."""
        ...

    def delivery_for(self, protocol: ESMTPProtocol) -> Delivery:
        """Return what decides on the mail of a connection."""
        ...

    def authenticator_for(self, protocol: ESMTPProtocol) -> Authenticator | None:
        """Return what judges AUTH on a connection; None where there is no AUTH."""
        ...

    def settings_for(self, authenticator: Authenticator | None) -> SessionSettings:
        """Return the settings of a session whose AUTH ``authenticator`` judges."""
        ...

    def opened(self, protocol: ESMTPProtocol) -> Decision | Deferred[Decision]:
        """Count a connection in; the reply refuses it, None admits it. Never fails."""
        ...

    def closed(self, protocol: ESMTPProtocol) -> None:
        """Count a connection out."""
        ...

    def count(self, metric: Metric, *labels: str) -> None:
        """Raise a counter of this kind of listener."""
        ...

    def handshake_failed(self) -> None:
        """Count a TLS handshake that failed."""
        ...

    def refused(self, stage: str, reply: Reply) -> None:
        """Count a decision that refuses a sender, a recipient or a message."""
        ...


_Stage = Literal["client", "helo", "mail", "rcpt", "data", "auth"]


@define(eq=False)
class _Question:
    """A decision that is waited for.

    Attributes:
        result: fires with the decision.
        answer: takes it.
        stage: what it is about.
        cancelled: whether it is not waited for any more.
    """

    result: Deferred[Any]
    answer: Callable[[Any], None]
    stage: _Stage
    cancelled: bool = False

    def cancel(self) -> None:
        """Cancel the decision; what it comes to is of no use any more."""
        self.cancelled = True
        try:
            self.result.cancel()
        except Exception:
            Logger(namespace=__name__).failure("a decision on mail could not be canceled")


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class ESMTPProtocol(LineReceiver):
    """One connection of a client.

    Attributes:
        address: IP address of the client, as text; None on a UNIX socket.
        proxied: the client's address where a load balancer connected on its behalf; else None.
        spoke_early: whether octets of the client came before the greeting.
        delivery: set by an application's ``buildProtocol``, as in ``twisted.mail``; as are
            ``deliveryFactory``, ``portal``, ``challengers`` and the following.
        host: our name, text or octets; None: that of the factory.
        timeout: seconds for a command; None: as the factory says.
        ctx: a context factory for STARTTLS; None: that of the factory.
        session: the SMTP session; present once the connection is made.
    """

    _log = Logger()
    line_mode = 0  # raw from the first octet
    transport: Any
    host: str | bytes | None = None
    timeout: float | None = None
    ctx: ContextFactory | None = None

    def __init__(self, factory: ConnectionFactory, address: str | None) -> None:
        self._factory = factory
        self.address = address
        self.proxied: ProxiedAddress | None = None
        self.spoke_early = False
        self.delivery: Any = None
        self.deliveryFactory: Any = None
        self.portal: Any = None
        self.challengers: Any = None
        self.session: Session
        self._lifecycle = Lifecycle.BUILT
        self._undecided = False  # whether to admit the client
        self._refusal: Reply | None = None  # instead of the greeting
        self._handshake_fault = ""  # why we broke a handshake off
        self._delivery: Delivery = NoDelivery()
        self._authenticator: Authenticator | None = None
        self._logins: list[tuple[Login, Delivery | None]] = []
        self._login_delivery: Delivery | None = None  # of the login that is in force
        self._sink: Sink | None = None
        self._question: _Question | None = None  # the decision that is waited for
        self._errors = 0  # of the session, at our last reply
        self._advancing = False  # `_advance` is on the stack
        # Flow control.
        self._is_producer = False  # registered with the transport
        self._reading_paused = False
        self._writing_blocked = False  # the client does not read, and the write buffer is full
        self._half_closed = False  # the client has closed its side
        # Time; None: no such timer was needed so far.
        self._clock: Clock
        self._began = 0.0  # by the clock
        self._tls: ServerTLS | None
        self._timeouts: Timeouts
        self._timer: ConnectionTimer
        self._greeting: IDelayedCall | None = None  # after the handshake of implicit TLS
        self._slowed: IDelayedCall | None = None  # until it fires, replies are held back
        self._resting: IDelayedCall | None = None  # until it fires, other clients have their turn
        self._outbox: Outbox
        self._traced: TracedSession | None = None
        self._overhearing: Overhearing | None = None  # None: no trace wants this session

    def _move(self, event: Event) -> None:
        """Enter the next state of the lifecycle: nothing else writes it."""
        self._lifecycle = TRANSITIONS[self._lifecycle][event]

    # Called by Twisted.

    def connectionMade(self) -> None:
        """Ask for admission, and greet; under implicit TLS, after the handshake."""
        factory, transport = self._factory, self.transport
        self._clock = factory.clock_for(transport)
        self._began = self._clock.seconds()
        self._timeouts = factory.timeouts
        self._tls = factory.tls
        settings = factory.settings_for(None)
        user: int | None = None
        try:
            settings = self._use_attributes()
            user = factory.user_of(transport)
        except Exception:
            self._log.failure("the attributes of a protocol cannot be used")
            self._refusal = CANNOT_SERVE
        peer = self.proxied or transport.getPeer()
        host = transport.getHost()
        ours = self.proxied.destination if self.proxied else plain_address(host)
        port = self.proxied.destination_port if self.proxied else getattr(host, "port", 0)
        tls = self._tls
        self.session = Session(
            settings,
            peer=Peer(self.address, getattr(peer, "port", 0), user=user),
            local_address=ours,
            local_port=port,
            tls_ready=None if tls is None else lambda: tls.ready,
        )
        self._timer = ConnectionTimer(self._timeouts, self._clock, self._timer_fired)
        self._outbox = factory.outbox
        under_tls = ISSLTransport.providedBy(transport)
        if factory.implicit_tls and not under_tls:
            under_tls = self._start_implicit_tls()
        self._move(Event.CONNECTED_TLS if under_tls else Event.CONNECTED)
        if factory.tracing is not None and factory.tracing.traces:
            self.attach_traces(factory.tracing)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if under_tls:
            self._timer.await_handshake()
        else:
            self._timer.await_client()
            self._register()
        admission = factory.opened(self)
        if admission is not None and isinstance(admission, Deferred):  # slow: an abstract class
            self._undecided = True
            admission.addCallback(self._admitted)
        else:
            self._admitted(admission)

    def _use_attributes(self) -> SessionSettings:
        """Use what the application has set on the factory and the protocol; return the settings.

        Raises:
            Exception: one of these is of another kind.
        """
        factory = self._factory
        delivery = factory.delivery_for(self)
        authenticator = factory.authenticator_for(self)
        settings = factory.settings_for(authenticator)
        if self.host is not None:
            name = self.host.decode("ascii") if isinstance(self.host, bytes) else self.host
            settings = evolve(settings, hostname=name)
        if self.timeout is not None:
            self._timeouts = self._timeouts.idle(self.timeout)
        if self.ctx is not None:
            self._tls = server_tls(self.ctx)
        self._delivery, self._authenticator = delivery, authenticator
        return settings

    def _start_implicit_tls(self) -> bool:
        """Begin the handshake, for an endpoint that has no TLS; return whether it began."""
        tls = self._tls
        if tls is None:
            self._log.error(
                "implicit TLS: found a plain endpoint and no tls, expected"
                " ESMTPFactory(tls=..., implicit_tls=True), or an SSL4ServerEndpoint"
            )
        if tls is None or not tls.ready:
            self._refusal = NO_IMPLICIT_TLS
            return False
        self._outbox.start_tls(self.transport, tls.creator)
        return True

    def _admitted(self, refusal: Reply | None) -> None:
        self._undecided = False
        self._refusal = refusal = self._refusal or refusal
        if refusal is None and self.session.settings.decides_on_client:
            self._undecided = True
            self._ask("client", self._judged, lambda: self._delivery.client(self.session))
        else:
            self._greet()

    def _judged(self, refusal: Reply | None) -> None:
        self._undecided = False
        self._refusal = refusal if refusal is not None and refusal.code >= 400 else None
        self._greet()

    def _settled(self) -> None:
        if self._lifecycle is Lifecycle.SETTLING:  # or a drain has ended the session
            self._move(Event.TURN_ENDED)
            self._greet()

    def _greet(self) -> None:
        """Greet, or refuse the session, once admission is decided and TLS is established."""
        draining = self._factory.draining
        if self._lifecycle is not Lifecycle.ADMISSION or (self._undecided and not draining):
            return
        self._move(Event.ADMITTED)
        if self._refusal is not None or draining:
            self.session.end(self._refusal or SHUTTING_DOWN)
        elif self.spoke_early or _octets_are_waiting(self.transport):
            self._log_violation("greeting")
            self.session.end(OUT_OF_STEP)
        else:
            self.session.greet()
        self._advance()

    def rawDataReceived(self, data: bytes) -> None:
        """Hand octets to the session; stop reading while it cannot go on."""
        if self._lifecycle is not _OPEN and self._lifecycle in NOT_GREETED:
            self.spoke_early = True
            return
        session = self.session
        state = session.state
        if state is _CLOSED:
            return
        if state is _CONTENT:
            self._timer.last_activity = self._clock.seconds()
        session.receive(data)
        if self._waiting:
            self._pause_reading()
        else:
            self._advance()

    dataReceived = rawDataReceived  # without the buffer for lines: the session has its own

    def _register(self) -> None:
        self._is_producer = True
        self.transport.registerProducer(self, True)

    def _unregister(self) -> None:
        if self._is_producer:
            self._is_producer = False
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Stop reading until the client has read our replies (`IPushProducer`)."""
        self._writing_blocked = True
        self._pause_reading()

    def resumeProducing(self) -> None:
        """Go on: the client has read our replies (`IPushProducer`)."""
        self._writing_blocked = False
        self._advance()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows (`IPushProducer`)."""

    def _pause_reading(self) -> None:
        if not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def _resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self.transport.resumeProducing()

    def handshakeCompleted(self) -> None:
        """Begin the session anew under TLS (`IHandshakeListener`)."""
        connection = cast(SSL.Connection, self.transport.getHandle())
        self._move(Event.HANDSHAKE_COMPLETED)
        # Without a TLS of ours, it is that of the endpoint.
        facts = server_facts(connection) if self._tls is None else self._tls.facts(connection)
        self.session.tls_established(facts, channel_binding(connection, facts))
        if self._overhearing is not None:
            self._overhearing.note(f"TLS: {facts.description}")
        if self.session.state is State.TLS_TOO_WEAK:
            self._log.info(
                "the TLS of {peer} does not suffice here: {tls}",
                peer=self.address,
                tls=facts.description,
            )
        self._timer.last_activity = self._clock.seconds()
        self._timer.await_client()
        self._register()
        if self._lifecycle is Lifecycle.SETTLING:
            # Octets that came in one read with the end of the handshake reach us after this method
            # returns; the client wrote them before the greeting.
            self._greeting = self._clock.callLater(0, self._settled)
        else:
            self._advance()

    def readConnectionLost(self) -> None:
        """Close after the pending replies: the client has closed (`IHalfCloseableProtocol`)."""
        self._half_closed = True
        if not self._waiting or self.session.state is State.CLOSED:
            self._lose_connection()

    def writeConnectionLost(self) -> None:
        """Do nothing: only we close our side (`IHalfCloseableProtocol`)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the transaction and its content, log out, and count the connection out."""
        handshaking = self._lifecycle in HANDSHAKES
        self._move(Event.CONNECTION_LOST)
        if self._overhearing is not None:
            self._overhearing.note("the connection is over")
        self._timer.cancel()
        for timer in (self._slowed, self._resting, self._greeting):
            if timer is not None and timer.active():
                timer.cancel()
        self._slowed = self._resting = None
        if handshaking:
            self._log.info(
                "TLS handshake with {peer} failed: {reason}",
                peer=self.address,
                reason=self._handshake_fault or openssl_reason(reason.value),
            )
            self._factory.handshake_failed()
        tls = self.session.tls
        self._factory.count(table.SESSIONS, tls.version if tls else "none")
        if self._factory.recent is not None:
            self._remember(self._factory.recent, reason, handshaking)
        self._drop_sink()
        question, self._question = self._question, None
        if question is not None:
            question.cancel()
        self._factory.closed(self)
        self._end_delivery(self._delivery)
        for login, delivery in self._logins:
            if delivery is not None:
                self._end_delivery(delivery)
            self._log_out(login)

    def _remember(self, recent: RecentSessions, reason: Failure, handshaking: bool) -> None:
        """Remember this session, which has ended."""
        session, last = self.session, self.session.last_reply
        if handshaking:
            end = f"TLS failed: {self._handshake_fault or openssl_reason(reason.value)}"
        elif session.state is State.CLOSED and last is not None:
            end = "QUIT" if last.code == 221 else "closed by us"
        elif reason.check(ConnectionDone):
            end = "the client hung up"
        else:
            end = f"the connection was lost: {printable(reason.getErrorMessage())}"
        seconds = self._clock.seconds() - self._began
        peer = session.peer
        recent.ended(
            EndedSession(
                began=recent.wall_time() - seconds,
                seconds=seconds,
                kind=self._factory.kind,
                address=peer.address,
                port=peer.port,
                user=peer.user,
                helo=session.helo,
                tls="" if session.tls is None else session.tls.version,
                account=session.identity,
                accepted=session.accepted,
                refused=session.negative,
                replies=tuple(session.last_negative),
                end=end,
            )
        )

    def _end_delivery(self, delivery: Delivery) -> None:
        try:
            delivery.ended(self.session)
        except Exception:
            self._log.failure("a delivery failed at the end of a session")

    def _log_out(self, login: Login) -> None:
        try:
            login.logout()
        except Exception:
            self._log.failure("the logout of a portal failed")

    # The session's steps.

    def _advance(self) -> None:
        """Carry out the session's steps until it waits, and write its replies."""
        if self._advancing or self._slowed is not None or self._resting is not None:
            return
        session, factory = self.session, self._factory
        self._advancing = True
        until = self._clock.seconds() + _MAX_TURN
        try:
            while True:
                if factory.draining or self._lifecycle is _ABANDONED:
                    step = self._step_to_end()
                else:
                    step = session.step()
                if step is None:
                    break
                _STEPS[type(step)](self, step)
                if (
                    self._clock.seconds() > until
                    and session.unfinished
                    and self._lifecycle is not _LOST
                ):
                    self._resting = self._clock.callLater(0, self._rested)
                    break
        finally:
            self._advancing = False
        while session.refusals:
            reply = session.refusals.popleft()
            if reply is not OUT_OF_STEP:  # a violation is logged by itself
                self._log.info("{peer} was told: {reply}", peer=self.address, reply=reply)
        errors = session.errors
        if errors > self._errors:
            self._slow_down(errors)
        self._errors = errors
        if self._slowed is None:
            self._flush()
        if (
            (self._half_closed or self._reading_paused)
            and self._lifecycle is not _LOST
            and not self._waiting
        ):
            if self._half_closed:
                self._lose_connection()
            else:
                self._resume_reading()

    def _step_to_end(self) -> Step | None:
        # No transaction begins any more, by a command that has arrived already or by the next one.
        self._end_if_idle()
        step = self.session.step()
        if step is None:
            self._end_if_idle()
            step = self.session.step()
        return step

    def _end_if_idle(self) -> None:
        if self.session.transaction is None and self._lifecycle not in HANDSHAKES:
            self.session.end(SHUTTING_DOWN)

    @property
    def _waiting(self) -> bool:
        """Whether octets that arrive have to wait."""
        return (
            self.session.question is not None
            or self._writing_blocked
            or self._slowed is not None
            or self._resting is not None
        )

    def _slow_down(self, errors: int) -> None:
        # A client that goes on making errors waits for each next reply: guessing addresses or
        # passwords becomes slow, and no other client waits with it.
        timeouts = self._timeouts
        if (
            errors > timeouts.errors_unslowed
            and timeouts.error_delay
            and self._lifecycle is not _LOST
            and self.session.state is not _CLOSED
        ):
            self._slowed = self._clock.callLater(timeouts.error_delay, self._delay_ended)
            self._pause_reading()

    def _delay_ended(self) -> None:
        self._slowed = None
        self._flush()
        self._advance()

    def _rested(self) -> None:
        self._resting = None
        self._advance()

    def _flush(self) -> None:
        if (output := self.session.output()) and self._lifecycle is not _LOST:
            # The timeout runs from our last reply, so a command that comes octet by octet does not
            # keep the connection open.
            self._timer.last_activity = self._clock.seconds()
            if self._overhearing is not None:
                self._overhearing.sent(output)
            self._outbox.write(self.transport, output)

    def _hello(self, step: Hello) -> None:
        self._ask("helo", self.session.answer, lambda: self._delivery.helo(self.session))

    def _mail(self, step: Mail) -> None:
        self._ask("mail", self.session.answer, lambda: self._decider.mail(self.session, *step))

    def _rcpt(self, step: Rcpt) -> None:
        self._ask("rcpt", self.session.answer, lambda: self._decider.rcpt(self.session, *step))

    def _open(self, step: Open) -> None:
        self._ask("data", self._opened, lambda: self._decider.open(self.session), OPENED)

    @property
    def _decider(self) -> Delivery:
        """The delivery that decides on mail: the avatar of the last login, where it is one."""
        if self.session.identity is not None and self._login_delivery is not None:
            return self._login_delivery
        return self._delivery

    def _authenticate(self, step: Authenticate) -> None:
        authenticator = self._authenticator
        assert authenticator is not None  # or AUTH would not have been obeyed
        self._ask(
            "auth",
            self._authenticated,
            lambda: authenticator.judge(self.session, step.evidence),
            VERDICT,
        )

    def _authenticated(self, verdict: Any) -> None:
        if isinstance(verdict, Login):
            delivers = not isinstance(verdict.avatar, str)
            try:
                delivery = delivery_of(verdict.avatar, self) if delivers else None
            except TypeError as error:
                self._log.error("the realm of a portal: {error}", error=error)
                self._log_out(verdict)
                self.session.answer_auth(AUTH_UNAVAILABLE)
                return
            self._logins.append((verdict, delivery))
            self._login_delivery = delivery
            verdict = Granted(verdict.identity)
        self.session.answer_auth(verdict)

    def _opened(self, opened: Sink | Reply) -> None:
        if isinstance(opened, Reply):
            self.session.answer(opened)
            return
        self._sink = opened
        self.session.answer()
        if self.session.state is State.CLOSED:
            self._drop_sink()
            return
        self._timer.content_since = self._clock.seconds()
        self.transport.bufferSize = _CONTENT_READ

    def _write(self, step: Write) -> None:
        if self._sink is not None:
            try:
                self._sink.write(step.content)
            except Exception:
                self._log.failure("the content of a message could not be kept")
                self._drop_sink()

    def _finish(self, step: Finish) -> None:
        self.transport.bufferSize = _READ
        if self._overhearing is not None:
            self._overhearing.content(self.session.content_octets)
        sink, self._sink = self._sink, None
        if sink is None:
            self.session.answer(LOCAL_ERROR)
        else:
            self._ask("data", self.session.answer, sink.finish, CONTENT_DECISION)

    def _abort(self, step: Abort) -> None:
        self._drop_sink()

    def _start_tls(self, step: StartTLS) -> None:
        tls = self._tls
        assert tls is not None
        self._flush()
        self._unregister()
        self._outbox.start_tls(self.transport, tls.creator)
        self._move(Event.STARTTLS)
        self._timer.await_handshake()

    def _violation(self, step: Violation) -> None:
        self._log_violation(step.verb)

    def _downgrade(self, step: Downgrade) -> None:
        self._factory.downgrades += 1
        self._log.warn(
            "ALARM: MAIL in clear from {peer}, which is known to use TLS: refused; STARTTLS may"
            " have been removed on the way",
            peer=self.address,
        )

    def _represent(self, step: Represent) -> None:
        self._login_delivery = None  # a login before this was the proxy's own
        identity = self.session.identity
        self._log.info(
            "{proxy} speaks for {peer}" + ("" if identity is None else ", user={user}"),
            proxy=self.address,
            peer=self.session.peer.address,
            user=None if identity is None else printable(identity),
        )

    def _rest(self, step: Rest) -> None:
        """Look at the clock, as behind each step."""

    def _close(self, step: Close) -> None:
        self._drop_sink()
        if self._lifecycle is not Lifecycle.LOST:
            self._move(Event.SESSION_ENDED)
            self._flush()
            # Also for an end with this turn: a timer that is due in it would abort the connection.
            abandoned = self._lifecycle is Lifecycle.ABANDONED
            self._timer.set(_ABANDON_TIMEOUT if abandoned else _LINGER)
            if abandoned:
                self._unregister()
                self._outbox.release(self.transport)
                self._close_while_reading()
            else:
                self._lose_connection(finished=self.session.last_reply is BYE)

    def _lose_connection(self, *, finished: bool = False) -> None:
        self._unregister()  # or the connection would wait for more from us
        self._outbox.lose_connection(self.transport, finished=finished)

    def _close_while_reading(self) -> None:
        # A socket that is closed with unread input is reset, and the reset can destroy our last
        # reply before the client, which is still busy writing its message, reads it. So input is
        # read and dropped until the client closes, or the timer fires.
        self._resume_reading()
        if self.session.tls is None and ITCPTransport.providedBy(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()  # TLS reads on, until its end is answered

    def _ask(
        self,
        stage: _Stage,
        answer: Callable[[Any], None],
        decide: Callable[[], Any],
        kind: Kind = DECISION,
    ) -> None:
        """Give ``answer`` the decision of ``decide``, now or as soon as it is there."""
        try:
            result = decide()
            waits = False
            if not kind.has(result):
                # Deferred is an abstract class: where it is none, `isinstance` is slow.
                waits = isinstance(result, Deferred)
                if not waits:
                    kind.checked(result)  # fails
        except Exception:
            self._log.failure("a decision on mail failed")
            result, waits = LOCAL_ERROR, False
        if waits:
            self._await(result, answer, stage, kind)
        else:
            if result is not None:
                self._count_refusal(stage, result)
            answer(result)

    def _await(
        self, result: Deferred[Any], answer: Callable[[Any], None], stage: _Stage, kind: Kind
    ) -> None:
        asked = self._question = _Question(result, answer, stage)
        self._timer.asked_since = self._clock.seconds()

        def decided(decision: Any) -> None:
            waited_for = self._question is asked
            if waited_for:
                self._question = None
            if waited_for and self._lifecycle is not _LOST:
                self._decided(asked, decision)
            elif hasattr(decision, "abort"):
                decision.abort()  # a sink, and too late
            elif isinstance(decision, Login):
                self._log_out(decision)

        def failed(failure: Failure) -> None:
            if not asked.cancelled:
                self._log.failure("a decision on mail failed", failure)
            decided(LOCAL_ERROR)

        def found(decision: Any) -> None:
            try:
                kind.checked(decision)
            except Exception:
                failed(Failure())
            else:
                decided(decision)

        result.addCallbacks(found, failed)

    def _decided(self, question: _Question, decision: Any) -> None:
        self._timer.last_activity = self._clock.seconds()
        self._count_refusal(question.stage, decision)
        question.answer(decision)
        self._advance()

    def _give_up_decision(self, question: _Question) -> None:
        """Answer in place of a decision that takes too long."""
        self._log.error(
            "no decision for {peer} within {timeout:g} s, at {stage}: canceled",
            peer=self.address,
            timeout=self._timeouts.decision,
            stage=question.stage,
        )
        self._question = None
        question.cancel()
        self._timer.await_client()
        # RFC 4954 §6: 454 is the temporary failure of AUTH.
        self._decided(question, AUTH_UNAVAILABLE if question.stage == "auth" else LOCAL_ERROR)

    def _count_refusal(self, stage: str, decision: object) -> None:
        if decision is None:
            return
        if isinstance(decision, Reply):
            if decision.code >= 400 and stage != "auth":
                self._factory.refused(stage, decision)
        elif isinstance(decision, list | tuple):
            each = self.session.settings.dialect.per_recipient
            for one in decision if each else (one_for_all(decision),):
                self._count_refusal(stage, one)

    def _drop_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.abort()
            except Exception:  # the connection has to be counted out all the same
                self._log.failure("the content of a message could not be given up")

    def _timer_fired(self) -> None:
        handshaking = self._lifecycle in HANDSHAKES
        if self.session.state is State.CLOSED or handshaking:
            # loseConnection waits for a client that may never answer. RFC 3207 §4: nothing is
            # written in clear once a handshake has begun.
            if handshaking:
                self._handshake_fault = f"not completed within {self._timeouts.handshake:g} s"
            self.transport.abortConnection()
        elif self._lifecycle is Lifecycle.ABANDONED:
            self._abort_connection()
        elif self._question is not None:
            if self._timer.decision_is_overdue():
                self._give_up_decision(self._question)
        elif (reply := self._timer.check(self.session)) is not None:
            self.session.end(reply)
            self._advance()

    # Called by the factory.

    def attach_traces(self, tracing: Tracing) -> None:
        """Report this session, from now on, to those open traces that want it."""
        if self._lifecycle is Lifecycle.LOST:
            return
        new = self._traced is None
        self._traced = traced = tracing.attach(self._traced, self._session_ends)
        self._overhearing = None if traced is None else Overhearing(traced)
        self.session.overheard = None if traced is None else self._overhear
        if new and self._overhearing is not None:
            begun = "" if self._lifecycle in NOT_GREETED else " (under way already)"
            self._overhearing.note(f"a client at a listener for {self._factory.kind}{begun}")

    def _overhear(self, line: bytes) -> None:
        if self._overhearing is not None:
            self._overhearing.received(line, secret=self.session.state is State.AUTH)

    def _session_ends(self) -> SessionEnds:
        peer = self.session.peer
        name = "a UNIX socket" if peer.address is None else f"{peer.address}:{peer.port}"
        return SessionEnds(direction="in", peer=name, address=peer.address)

    def drain(self) -> None:
        """End the session as soon as it is outside a transaction; the factory is draining."""
        self._advance()

    def abandon(self, at_once: bool = False) -> None:
        """End the session with 421 in any state, and the connection within two seconds.

        Incomplete content is dropped. A complete message that is being decided on has its own reply
        before the 421, if it is decided within one second; later no reply is written, since it
        might turn out false. A handshake is broken off.

        Args:
            at_once: abort the connection now, without a reply; a second call does so too.
        """
        if at_once or self._lifecycle is Lifecycle.ABANDONED or self._lifecycle in HANDSHAKES:
            self._handshake_fault = "shutting down"
            self._abort_connection()
            return
        self._move(Event.ABANDONED)
        if self._slowed is not None:
            if self._slowed.active():
                self._slowed.cancel()
            self._slowed = None
        self._timer.set(_ABANDON_TIMEOUT)
        if not self._finishing:
            self.session.end(SHUTTING_DOWN)
        self._advance()

    @property
    def _finishing(self) -> bool:
        """Whether a message is complete and not yet decided on."""
        return self.session.state is State.CONTENT and self.session.deciding

    def _abort_connection(self) -> None:
        if self._lifecycle is not Lifecycle.LOST and self._finishing:
            self._log.warn(
                "{peer} was not told the outcome of its message, and may send it again",
                peer=self.address,
            )
        self._outbox.release(self.transport)  # replies that were made are true
        self.transport.abortConnection()

    def _log_violation(self, verb: str) -> None:
        self._factory.violations += 1
        self._log.warn(
            "{peer} sent data before its turn, behind {verb}: connection closed",
            peer=self.address,
            verb=verb,
        )


def _octets_are_waiting(transport: Any) -> bool:
    """Whether a client wrote before the greeting, which it has to wait for (RFC 5321 §4.3.1).

    A program that does so does not read replies.
    """
    handle = transport.getHandle() if hasattr(transport, "getHandle") else None
    if not isinstance(handle, socket.socket):
        return False
    try:
        return bool(handle.recv(1, _PEEK))
    except OSError:
        return False


_STEPS: Mapping[type[Step], Callable[[ESMTPProtocol, Any], None]] = {
    Hello: ESMTPProtocol._hello,
    Mail: ESMTPProtocol._mail,
    Rcpt: ESMTPProtocol._rcpt,
    Open: ESMTPProtocol._open,
    Write: ESMTPProtocol._write,
    Finish: ESMTPProtocol._finish,
    Abort: ESMTPProtocol._abort,
    Authenticate: ESMTPProtocol._authenticate,
    StartTLS: ESMTPProtocol._start_tls,
    Violation: ESMTPProtocol._violation,
    Downgrade: ESMTPProtocol._downgrade,
    Represent: ESMTPProtocol._represent,
    Rest: ESMTPProtocol._rest,
    Close: ESMTPProtocol._close,
}
