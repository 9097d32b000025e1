"""The shell of the session: an ESMTP server on a `LineReceiver`, with its timers and its TLS.

It stays in raw mode from the beginning, because all framing is the session's (see
`smtp.server.session`); what is here moves octets, waits for decisions, and gives up on peers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
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
from ..interfaces import Clock, Decision, Delivery, Sink
from ..mail.reply import Reply
from ..smtp.conversation import Overhearing
from ..smtp.server.auth import Granted
from ..smtp.server.dialect import one_for_all
from ..smtp.server.replies import IDLE_TOO_LONG, OUT_OF_STEP
from ..smtp.server.session import Session
from ..smtp.server.settings import Peer, SessionSettings
from ..smtp.server.state import State
from ..smtp.server.step import (
    Abort,
    Authenticate,
    Close,
    Downgrade,
    Finish,
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
from ..system.outbox import Outbox, start_tls
from ..telemetry.metrics import table
from ..telemetry.metrics.table import Metric
from ..telemetry.tracing import About, Overheard, Tracing
from ..tls.certificates import openssl_reason
from ..tls.server import ServerTLS, channel_binding
from .addresses import ProxiedAddress, plain_address
from .message_delivery import NoDelivery, delivery_of
from .timeouts import Timeouts

LOCAL_ERROR = Reply.of(451, "3.0", "Local error, try again later")
SHUTTING_DOWN = Reply.of(421, "3.2", "Service closing, try again later")

TOO_SLOW = Reply.of(421, "4.2", "The message came too slowly")

_TURN = 0.005  # seconds of one client's commands, after which others have their turn
_LINGER = 10.0  # seconds to a peer that does not read our last reply
_LAST_WORDS = 1.0  # seconds, the same, where we shut down; and to a decision that is under way then


class ConnectionFactory(Protocol):
    """What a connection uses of the factory that built it.

    Attributes:
        kind: of the listener, such as ``smtp``.
        draining: whether the factory takes no new transactions.
        timeouts: read once, when a connection is made.
        outbox: where replies wait for the end of the reactor's turn.
        tracing: the traces that operators have open; None where tracing is not available.
        tls: the server's TLS; None where STARTTLS is not offered.
        violations: how often a client sent octets before its turn; raised by connections.
        downgrades: how often MAIL was refused in clear; raised by connections.
    """

    kind: str
    draining: bool
    timeouts: Timeouts
    outbox: Outbox
    tracing: Tracing | None
    tls: ServerTLS | None
    violations: int
    downgrades: int

    @property
    def tls_ready(self) -> Callable[[], bool] | None:
        """Whether a handshake could begin now; None where TLS is not configured."""
        ...

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


@implementer(IHandshakeListener, IHalfCloseableProtocol)
class ESMTPProtocol(LineReceiver):
    """One connection of a client."""

    _log = Logger()
    line_mode = 0  # raw from the first octet
    transport: Any

    def __init__(self, factory: ConnectionFactory, address: str | None) -> None:
        self._factory = factory
        self.address = address
        self.proxied: ProxiedAddress | None = None  # the client, if a balancer speaks for it
        self.spoke_early = False  # octets of the client came before the greeting
        self._greeting: IDelayedCall | None = None  # when it is due, after implicit TLS
        # As in twisted.mail, a factory of the application's may set these when it builds us.
        self.delivery: Any = None
        self.deliveryFactory: Any = None
        self.portal: Any = None
        self.challengers: Any = None
        self._delivery: Delivery = NoDelivery()
        self._authenticator: Authenticator | None = None
        self._logins: list[tuple[Login, Delivery | None]] = []  # the last one holds, if any does
        self._clock: Clock
        self._sink: Sink | None = None
        self._timer: IDelayedCall | None = None
        self._heard = 0.0  # when the peer last said something, by the clock
        self._advancing = False
        self._paused = False
        self._unread = False  # more of our replies are waiting than a buffer should hold
        self._handshaking = False
        self._gave_up = ""  # why we ended a handshake, if we did
        self._connected = False
        self._admitting = False  # whether there may be a session is being found out
        self._begun = False  # we have greeted, or said why not
        self._abandoned = False
        self._half_closed = False  # the peer has said its last
        self._refusal: Reply | None = None  # why there will be no session
        self._content_since = 0.0  # by the clock
        self._errors = 0  # of the session, when we last replied
        self._slowed: IDelayedCall | None = None  # until when replies are held back
        self._resting: IDelayedCall | None = None  # until others have had their turn
        self._timeouts: Timeouts
        self._outbox: Outbox
        self._overheard: Overheard | None = None
        self._overhearing: Overhearing | None = None  # while a trace wants to know
        self.session: Session

    # Called by Twisted.

    def connectionMade(self) -> None:
        """Greet, or wait for the handshake of implicit TLS to end before greeting."""
        factory, transport = self._factory, self.transport
        self._clock = factory.clock_for(transport)
        self._delivery = factory.delivery_for(self)
        self._authenticator = factory.authenticator_for(self)
        peer = self.proxied or transport.getPeer()
        ours = self.proxied.destination if self.proxied else plain_address(transport.getHost())
        self.session = Session(
            factory.settings_for(self._authenticator),
            peer=Peer(self.address, getattr(peer, "port", 0)),
            local_address=ours,
            tls_ready=factory.tls_ready,
        )
        self._timeouts = factory.timeouts
        self._outbox = factory.outbox
        self._connected = True
        if factory.tracing is not None and factory.tracing.traces:
            self.attach_traces(factory.tracing)
        self._heard = self._clock.seconds()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        if ISSLTransport.providedBy(transport):
            self._await_handshake()
        else:
            self._set_timer(self._longest_look)
            transport.registerProducer(self, True)
        self._admitting = True
        admitted = factory.opened(self)
        if isinstance(admitted, Deferred):
            admitted.addCallback(self._admitted)
        else:
            self._admitted(admitted)

    def _admitted(self, refusal: Reply | None) -> None:
        self._admitting = False
        self._refusal = refusal
        self._begin()

    def _begin(self) -> None:
        """Greet, or say why not, once we are under TLS if need be and know whether we may."""
        if self._factory.draining:
            self._refusal = self._refusal or SHUTTING_DOWN
        elif self._admitting:
            return
        if self._handshaking or not self._connected:
            return
        if self._greeting is not None and self._greeting.active():
            return
        self._begun = True
        if self.session.state is State.CLOSED:
            return  # a drain was faster
        if self._refusal is not None:
            self.session.end(self._refusal)
        elif self.spoke_early or self._octets_are_waiting():
            self._log_violation("greeting")
            self.session.end(OUT_OF_STEP)
        else:
            self.session.greet()
        self._advance()

    def rawDataReceived(self, data: bytes) -> None:
        """Take what arrived; if it cannot be gone into now, let no more come."""
        if not self._begun:
            self.spoke_early = True
            return
        if self.session.state is State.CLOSED:
            return
        if self.session.state is State.DATA:
            self._heard = self._clock.seconds()
        self.session.receive(data)
        if self._waiting:
            self._pause()
        else:
            self._advance()

    def pauseProducing(self) -> None:
        """The peer does not read: say no more, and so take no more, until it has caught up."""
        self._unread = True
        self._pause()

    def resumeProducing(self) -> None:
        """The peer has caught up."""
        self._unread = False
        self._advance()

    def stopProducing(self) -> None:
        """The connection is lost, as `connectionLost` will say."""

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def handshakeCompleted(self) -> None:
        """The TLS handshake has succeeded (`IHandshakeListener`)."""
        self._handshaking = False
        connection = cast(SSL.Connection, self.transport.getHandle())
        tls = self._factory.tls
        assert tls is not None
        greeting_due = self.session.state is not State.TLS
        facts = tls.facts(connection)
        self.session.tls_established(facts, channel_binding(connection, facts))
        if self._overhearing is not None:
            self._overhearing.note(f"TLS: {facts.description}")
        if self.session.state is State.REFUSED:
            self._log.info(
                "the TLS of {peer} does not suffice here: {tls}",
                peer=self.address,
                tls=facts.description,
            )
        self._heard = self._clock.seconds()
        self._set_timer(self._longest_look)
        self.transport.registerProducer(self, True)
        if greeting_due:
            # What came in one read with the end of the handshake is given to us when we return; it
            # was written before the greeting.
            self._greeting = self._clock.callLater(0, self._begin)
        else:
            self._advance()

    def readConnectionLost(self) -> None:
        """The peer has said its last, and may still read (`IHalfCloseableProtocol`)."""
        self._half_closed = True
        if not self._waiting or self.session.state is State.CLOSED:
            self._lose_connection()

    def writeConnectionLost(self) -> None:
        """Our own side was closed, as only we do (`IHalfCloseableProtocol`)."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the transaction and its content."""
        self._connected = False
        if self._overhearing is not None:
            self._overhearing.note("the connection is over")
        for timer in (self._timer, self._slowed, self._resting, self._greeting):
            if timer is not None and timer.active():
                timer.cancel()
        self._slowed = self._resting = None
        if self._handshaking:
            self._log.info(
                "TLS handshake with {peer} failed: {reason}",
                peer=self.address,
                reason=self._gave_up or openssl_reason(reason.value),
            )
            self._factory.handshake_failed()
        tls = self.session.tls
        self._factory.count(table.SESSIONS, tls.version if tls else "none")
        self._drop_sink()
        self._factory.closed(self)
        self._delivery.ended(self.session)
        for login, delivery in self._logins:
            if delivery is not None:
                delivery.ended(self.session)
            login.logout()

    # The session's steps.

    def _advance(self) -> None:
        if self._advancing or self._slowed is not None or self._resting is not None:
            return
        self._advancing = True
        until = self._clock.seconds() + _TURN
        try:
            while (step := self._next_step()) is not None:
                _STEPS[type(step)](self, step)
                if self._clock.seconds() > until and self.session.unfinished and self._connected:
                    self._resting = self._clock.callLater(0, self._rested)
                    break
        finally:
            self._advancing = False
        while self.session.refusals:
            reply = self.session.refusals.popleft()
            if reply is not OUT_OF_STEP:  # a violation has a line of its own
                self._log.info("{peer} was told: {reply}", peer=self.address, reply=reply)
        self._flush_or_slow_down()
        if self._connected and not self._waiting:
            if self._half_closed:
                self._lose_connection()
            elif self._paused:
                self._paused = False
                self.transport.resumeProducing()

    def _next_step(self) -> Step | None:
        if not self._factory.draining and not self._abandoned:
            return self.session.step()
        # Neither a command that has arrived already nor the next one begins a transaction.
        self._end_if_idle()
        step = self.session.step()
        if step is None:
            self._end_if_idle()
            step = self.session.step()
        return step

    def _end_if_idle(self) -> None:
        if self.session.transaction is None and not self._handshaking:
            self.session.end(SHUTTING_DOWN)

    @property
    def _waiting(self) -> bool:
        """Whether what arrives is not to be gone into now."""
        held_back = self._slowed is not None or self._resting is not None
        return self.session.deciding or self._unread or held_back

    def _flush_or_slow_down(self) -> None:
        # Who goes on making errors waits for each next reply: guessing becomes slow, and nobody
        # else waits with it.
        errors, timeouts = self.session.errors, self._timeouts
        more = timeouts.error_delay and errors > max(self._errors, timeouts.errors_unslowed)
        self._errors = errors
        if more and self._connected and self.session.state is not State.CLOSED:
            self._slowed = self._clock.callLater(timeouts.error_delay, self._go_on)
            self._pause()
        else:
            self._flush()

    def _go_on(self) -> None:
        self._slowed = None
        self._flush()
        self._advance()

    def _rested(self) -> None:
        self._resting = None
        self._advance()

    def _flush(self) -> None:
        output = self.session.output()
        if output and self._connected:
            # Silence is counted from our last reply, so that a command that comes octet by octet
            # keeps no connection.
            self._heard = self._clock.seconds()
            if self._overhearing is not None:
                self._overhearing.said(output)
            self._outbox.write(self.transport, output)

    def _mail(self, step: Mail) -> None:
        self._ask(lambda: self._decider.mail(self.session, *step), self.session.answer, "mail")

    def _rcpt(self, step: Rcpt) -> None:
        self._ask(lambda: self._decider.rcpt(self.session, *step), self.session.answer, "rcpt")

    def _open(self, step: Open) -> None:
        self._ask(lambda: self._decider.open(self.session), self._opened, "data")

    @property
    def _decider(self) -> Delivery:
        """Who decides on mail: the avatar of who has authenticated, where that is a delivery."""
        if self.session.identity is not None and self._logins:
            return self._logins[-1][1] or self._delivery
        return self._delivery

    def _authenticate(self, step: Authenticate) -> None:
        authenticator = self._authenticator
        assert authenticator is not None  # or AUTH would not have been obeyed
        self._ask(
            lambda: authenticator.judge(self.session, step.evidence), self._authenticated, "auth"
        )

    def _authenticated(self, verdict: Any) -> None:
        if isinstance(verdict, Login):
            delivers = not isinstance(verdict.avatar, str)
            delivery = delivery_of(verdict.avatar, self) if delivers else None
            self._logins.append((verdict, delivery))
            verdict = Granted(verdict.identity)
        self.session.answer_auth(verdict)

    def _opened(self, opened: Sink | Reply | None) -> None:
        if opened is None or isinstance(opened, Reply):
            self.session.answer(opened or LOCAL_ERROR)
            return
        self._sink = opened
        self.session.answer()
        if self.session.state is State.CLOSED:
            self._drop_sink()
            return
        self._content_since = self._clock.seconds()

    def _write(self, step: Write) -> None:
        if self._sink is not None:
            try:
                self._sink.write(step.content)
            except Exception:
                self._log.failure("the content of a message could not be kept")
                self._drop_sink()

    def _finish(self, step: Finish) -> None:
        if self._overhearing is not None:
            self._overhearing.content(self.session.content_octets)
        sink, self._sink = self._sink, None
        if sink is None:
            self.session.answer(LOCAL_ERROR)
        else:
            self._ask(sink.finish, self.session.answer, "data")

    def _abort(self, step: Abort) -> None:
        self._drop_sink()

    def _start_tls(self, step: StartTLS) -> None:
        tls = self._factory.tls
        assert tls is not None
        self._flush()
        self._outbox.release(self.transport)
        self.transport.unregisterProducer()
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        start_tls(self.transport, tls.creator)
        self._await_handshake()

    def _violation(self, step: Violation) -> None:
        self._log_violation(step.verb)

    def _downgrade(self, step: Downgrade) -> None:
        self._factory.downgrades += 1
        self._log.warn(
            "ALARM: MAIL in clear from {peer}, from where TLS is known to come: refused; somebody"
            " on the way may have taken STARTTLS out",
            peer=self.address,
        )

    def _represent(self, step: Represent) -> None:
        self._log.info(
            "{proxy} speaks for {peer}", proxy=self.address, peer=self.session.peer.address
        )

    def _rest(self, step: Rest) -> None:
        """Look at the clock, as behind each step."""

    def _close(self, step: Close) -> None:
        self._drop_sink()
        if self._connected:
            self._flush()
            self._outbox.release(self.transport)
            self._set_timer(_LAST_WORDS if self._abandoned else _LINGER)
            self.transport.unregisterProducer()  # or the connection would wait for more from us
            if self._abandoned:
                self._close_while_reading()
            else:
                self.transport.loseConnection()

    def _lose_connection(self) -> None:
        self._outbox.release(self.transport)
        self.transport.loseConnection()

    def _close_while_reading(self) -> None:
        # A socket that is closed with unread input is reset, and the reset can destroy our last
        # reply before the client, which is still busy writing its message, comes to read it. So
        # what comes is read and dropped until the client closes, or the timer fires.
        if self._paused:
            self._paused = False
            self.transport.resumeProducing()
        if self.session.tls is None and ITCPTransport.providedBy(self.transport):
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()  # TLS reads on, until its end is answered

    def _ask(
        self,
        question: Callable[[], Any | Deferred[Any]],
        answer: Callable[[Any], None],
        stage: Literal["mail", "rcpt", "data", "auth"],
    ) -> None:
        try:
            result = question()
        except Exception:
            self._log.failure("a decision on mail failed")
            result = LOCAL_ERROR
        if not isinstance(result, Deferred):
            self._count_refusal(stage, result)
            answer(result)
            return

        def failed(failure: Failure) -> Reply:
            self._log.failure("a decision on mail failed", failure)
            return LOCAL_ERROR

        def decided(decision: Any) -> None:
            self._heard = self._clock.seconds()
            self._count_refusal(stage, decision)
            if self._connected:
                answer(decision)
                self._advance()
            elif hasattr(decision, "abort"):
                decision.abort()  # a sink for a connection that is gone
            elif isinstance(decision, Login):
                decision.logout()

        result.addErrback(failed).addCallback(decided)

    def _count_refusal(self, stage: str, decision: object) -> None:
        if decision is None:
            return
        if isinstance(decision, Sequence):
            each = self.session.settings.dialect.per_recipient
            for one in decision if each else (one_for_all(decision),):
                self._count_refusal(stage, one)
        elif isinstance(decision, Reply) and decision.code >= 400 and stage != "auth":
            self._factory.refused(stage, decision)

    def _drop_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            try:
                sink.abort()
            except Exception:  # the connection has to be counted out all the same
                self._log.failure("the content of a message could not be given up")

    # Time.

    def _await_handshake(self) -> None:
        self._handshaking = True
        self._heard = self._clock.seconds()
        self._set_timer(self._timeouts.handshake)

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._clock.callLater(seconds, self._check_silence)

    @property
    def _longest_look(self) -> float:
        """After how many seconds the timer has to look at the clock, whatever comes next."""
        timeouts = self._timeouts
        return min(timeouts.command, timeouts.data, timeouts.rate_grace or timeouts.data)

    def _check_silence(self) -> None:
        # One timer that looks at the clock when it fires, and not one reset per read or message: a
        # reset costs more than all the rest of taking a small segment, and the more so the more
        # connections there are.
        timeouts = self._timeouts
        now = self._clock.seconds()
        silent = now - self._heard
        reading = self.session.state is State.DATA
        open_ = self.session.content_open  # also between two chunks
        limit = timeouts.data if reading else timeouts.command
        if self.session.state is State.CLOSED or self._handshaking:
            # loseConnection waits for a peer that may never answer; what is left is abort. RFC
            # 3207 §4: nothing is said in clear where a handshake has begun.
            if self._handshaking:
                self._gave_up = f"not completed within {timeouts.handshake:g} s"
            self.transport.abortConnection()
        elif self._abandoned:
            self._abort_connection()
        elif self.session.deciding:
            self._set_timer(min(limit, self._longest_look))
        elif silent >= limit:
            self.session.end(IDLE_TOO_LONG)
            self._advance()
        elif open_ and self._too_slow(now):
            self.session.end(TOO_SLOW)
            self._advance()
        else:
            wait = min(limit - silent, self._longest_look)
            graced = self._content_since + timeouts.rate_grace - now
            self._set_timer(min(wait, graced) if open_ and graced > 0 else wait)

    def _too_slow(self, now: float) -> bool:
        timeouts = self._timeouts
        elapsed = now - self._content_since
        return (
            elapsed >= timeouts.rate_grace
            and self.session.content_octets < elapsed * timeouts.minimum_rate
        )

    # What a service asks.

    def attach_traces(self, tracing: Tracing) -> None:
        """Tell those traces that are open now what is said from now on."""
        if not self._connected:
            return
        new = self._overheard is None
        self._overheard = overheard = tracing.attach(self._overheard, self._about)
        self._overhearing = None if overheard is None else Overhearing(overheard)
        self.session.overheard = None if overheard is None else self._overhear
        if new and self._overhearing is not None:
            begun = " (under way already)" if self._begun else ""
            self._overhearing.note(f"a client at {self._listener}{begun}")

    def _overhear(self, line: bytes) -> None:
        if self._overhearing is not None:
            self._overhearing.heard(line, secret=self.session.state is State.AUTH)

    def _about(self) -> About:
        peer = self.session.peer
        name = "a UNIX socket" if peer.address is None else f"{peer.address}:{peer.port}"
        return About(direction="in", peer=name, address=peer.address)

    @property
    def _listener(self) -> str:
        return f"a listener for {self._factory.kind}"

    def drain(self) -> None:
        """End the session as soon as it is outside a transaction; the factory is draining."""
        self._advance()

    def abandon(self, at_once: bool = False) -> None:
        """End the session with 421 wherever it is, and the connection soon after.

        Content that is not complete is given up. A complete message whose fate is being decided has
        its reply before the 421, if there is one within a second; after that nothing is said of it,
        since it might not stay true. A handshake is broken off. All is over within two seconds.

        Args:
            at_once: abort the connection now, without a word; a second call does so too.
        """
        if at_once or self._abandoned or self._handshaking:
            self._gave_up = "shutting down"
            self._abort_connection()
            return
        self._abandoned = True
        if self._slowed is not None:
            if self._slowed.active():
                self._slowed.cancel()
            self._slowed = None
        self._set_timer(_LAST_WORDS)
        if not self._finishing:
            self.session.end(SHUTTING_DOWN)
        self._advance()

    @property
    def _finishing(self) -> bool:
        """Whether a message is complete and its fate not known."""
        return self.session.state is State.DATA and self.session.deciding

    def _abort_connection(self) -> None:
        if self._connected and self._finishing:
            self._log.warn(
                "{peer} was not told what became of its message, and may send it again",
                peer=self.address,
            )
        self._outbox.release(self.transport)  # what was said already is true
        self.transport.abortConnection()

    def _octets_are_waiting(self) -> bool:
        # RFC 5321 §4.3.1: the client waits for the greeting. Octets that are there before it has
        # been written were sent by something that does not read replies.
        handle = self.transport.getHandle() if hasattr(self.transport, "getHandle") else None
        if not isinstance(handle, socket.socket):
            return False
        try:
            return bool(handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def _log_violation(self, verb: str) -> None:
        self._factory.violations += 1
        self._log.warn(
            "{peer} sent data before its turn, behind {verb}: connection closed",
            peer=self.address,
            verb=verb,
        )


_STEPS: Mapping[type[Step], Callable[[ESMTPProtocol, Any], None]] = {
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
