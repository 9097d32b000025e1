"""The shell of the session: an ESMTP server on a `LineReceiver`, with its timers and its TLS.

It stays in raw mode from the beginning, because all framing is the session's (see
`smtp.session`); what is here moves octets, waits for decisions, and gives up on peers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Decision, Sink
from ..smtp.reply import Reply, printable
from ..smtp.session import (
    IDLE_TOO_LONG,
    OUT_OF_STEP,
    Peer,
    Session,
    State,
)
from ..smtp.step import Abort, Close, Finish, Mail, Open, Rcpt, StartTLS, Step, Violation, Write

if TYPE_CHECKING:
    from .factory import ESMTPFactory

LOCAL_ERROR = Reply.of(451, "3.0", "Local error, try again later")
SHUTTING_DOWN = Reply.of(421, "3.2", "Service closing, try again later")

_LINGER = 10.0  # seconds to a peer that does not read our last reply


@implementer(IHandshakeListener)
class ESMTPProtocol(LineReceiver):
    """One connection of a client."""

    _log = Logger()
    line_mode = 0  # raw from the first octet
    transport: Any

    def __init__(self, factory: ESMTPFactory, address: str | None) -> None:
        self._factory = factory
        self.address = address
        self._clock = factory.clock
        self._sink: Sink | None = None
        self._timer: IDelayedCall | None = None
        self._heard = 0.0  # when the peer last said something, by the clock
        self._limit = factory.timeouts.command  # seconds it may be silent
        self._advancing = False
        self._paused = False
        self._handshaking = False
        self._connected = False
        self.session: Session

    # Called by Twisted.

    def connectionMade(self) -> None:
        """Greet, or wait for the handshake of implicit TLS to end before greeting."""
        factory, transport = self._factory, self.transport
        peer = transport.getPeer()
        self.session = Session(
            factory.settings,
            peer=Peer(self.address, getattr(peer, "port", 0)),
            local_address=getattr(transport.getHost(), "host", None),
            tls_ready=factory.tls_ready,
        )
        self._connected = True
        self._heard = self._clock.seconds()
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        refusal = factory.opened(self)
        if ISSLTransport.providedBy(transport):
            self._await_handshake()
        else:
            self._timer = self._clock.callLater(self._limit, self._check_silence)
            self._begin(refusal)

    def _begin(self, refusal: Reply | None) -> None:
        if refusal is not None:
            self.session.end(refusal)
        elif self._spoke_early():
            self._log_violation("greeting")
            self.session.end(OUT_OF_STEP)
        else:
            self.session.greet()
        self._advance()

    def rawDataReceived(self, data: bytes) -> None:
        """Take what arrived; if the session is waiting for a decision, let no more come."""
        self._heard = self._clock.seconds()
        self.session.receive(data)
        if self.session.deciding:
            if not self._paused:
                self._paused = True
                self.transport.pauseProducing()
            return
        self._advance()

    def handshakeCompleted(self) -> None:
        """The TLS handshake has succeeded (`IHandshakeListener`)."""
        self._handshaking = False
        connection = cast(SSL.Connection, self.transport.getHandle())
        tls = self._factory.tls
        assert tls is not None
        greeting_due = self.session.state is not State.TLS
        self.session.tls_established(tls.facts(connection))
        self._heard = self._clock.seconds()
        self._set_limit(self._factory.timeouts.command)
        if greeting_due:
            self.session.greet()
        self._advance()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the transaction and its content."""
        self._connected = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._handshaking:
            self._log.info(
                "TLS handshake with {peer} failed: {reason}",
                peer=self.address,
                reason=printable(reason.getErrorMessage()),
            )
        self._drop_sink()
        self._factory.closed(self)

    # The session's steps.

    def _advance(self) -> None:
        if self._advancing:
            return
        self._advancing = True
        session = self.session
        try:
            while (step := session.step()) is not None:
                _STEPS[type(step)](self, step)
        finally:
            self._advancing = False
        output = session.output()
        if output and self._connected:
            self.transport.write(output)
        if self._paused and not session.deciding and self._connected:
            self._paused = False
            self.transport.resumeProducing()

    def _mail(self, step: Mail) -> None:
        self._ask(lambda: self._factory.delivery.mail(self.session, *step), self.session.answer)

    def _rcpt(self, step: Rcpt) -> None:
        self._ask(lambda: self._factory.delivery.rcpt(self.session, *step), self.session.answer)

    def _open(self, step: Open) -> None:
        self._ask(lambda: self._factory.delivery.open(self.session), self._opened)

    def _opened(self, opened: Sink | Reply | None) -> None:
        if opened is None or isinstance(opened, Reply):
            self.session.answer(opened or LOCAL_ERROR)
            return
        self._sink = opened
        self.session.answer()
        if self.session.state is State.DATA:
            self._limit = self._factory.timeouts.data
        else:
            self._drop_sink()

    def _write(self, step: Write) -> None:
        if self._sink is not None:
            try:
                self._sink.write(step.content)
            except Exception:
                self._log.failure("the content of a message could not be kept")
                self._drop_sink()

    def _finish(self, step: Finish) -> None:
        sink, self._sink = self._sink, None
        self._limit = self._factory.timeouts.command
        if sink is None:
            self.session.answer(LOCAL_ERROR)
        else:
            self._ask(sink.finish, self._finished)

    def _finished(self, decision: Decision) -> None:
        self.session.answer(decision)
        if self._factory.draining:
            self.session.end(SHUTTING_DOWN)

    def _abort(self, step: Abort) -> None:
        self._limit = self._factory.timeouts.command
        self._drop_sink()

    def _start_tls(self, step: StartTLS) -> None:
        tls = self._factory.tls
        assert tls is not None
        self.transport.write(self.session.output())
        self.clearLineBuffer()  # type: ignore[no-untyped-call]
        self.transport.startTLS(tls.creator)
        self._await_handshake()

    def _violation(self, step: Violation) -> None:
        self._log_violation(step.verb)

    def _close(self, step: Close) -> None:
        self._drop_sink()
        self.transport.write(self.session.output())
        self.transport.loseConnection()
        self._set_limit(_LINGER)

    def _ask(
        self,
        question: Callable[[], Any | Deferred[Any]],
        answer: Callable[[Any], None],
    ) -> None:
        try:
            result = question()
        except Exception:
            self._log.failure("a decision on mail failed")
            answer(LOCAL_ERROR)
            return
        if not isinstance(result, Deferred):
            answer(result)
            return

        def failed(failure: Failure) -> Reply:
            self._log.failure("a decision on mail failed", failure)
            return LOCAL_ERROR

        def decided(decision: Any) -> None:
            self._heard = self._clock.seconds()
            if self._connected:
                answer(decision)
                self._advance()
            elif hasattr(decision, "abort"):
                decision.abort()  # a sink for a connection that is gone

        result.addErrback(failed).addCallback(decided)

    def _drop_sink(self) -> None:
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.abort()

    # Time.

    def _await_handshake(self) -> None:
        self._handshaking = True
        self._heard = self._clock.seconds()
        self._set_limit(self._factory.timeouts.handshake)

    def _set_limit(self, seconds: float) -> None:
        self._limit = seconds
        if self._timer is not None and self._timer.active():
            self._timer.reset(seconds)
        else:
            self._timer = self._clock.callLater(seconds, self._check_silence)

    def _check_silence(self) -> None:
        # One timer that looks at the clock when it fires, and not one reset per read: a reset
        # costs more than all the rest of taking a small segment.
        silent = self._clock.seconds() - self._heard
        if self.session.state is State.CLOSED or self._handshaking:
            # loseConnection waits for a peer that may never answer; what is left is abort. RFC
            # 3207 §4: nothing is said in clear where a handshake has begun.
            self.transport.abortConnection()
        elif self.session.deciding or silent < self._limit:
            self._timer = self._clock.callLater(
                self._limit if self.session.deciding else self._limit - silent,
                self._check_silence,
            )
        else:
            self.session.end(IDLE_TOO_LONG)
            self._advance()

    # What a service asks.

    def drain(self) -> None:
        """End the session as soon as it is outside a transaction."""
        if self.session.transaction is None and not self._handshaking:
            self.session.end(SHUTTING_DOWN)
            self._advance()

    def abandon(self) -> None:
        """End the connection at once."""
        self.transport.abortConnection()

    def _spoke_early(self) -> bool:
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
    StartTLS: ESMTPProtocol._start_tls,
    Violation: ESMTPProtocol._violation,
    Close: ESMTPProtocol._close,
}
