"""A connection to a next hop: the I/O around a `ClientSession`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from OpenSSL import SSL
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Executor, Sign, WallTime, unsigned
from ..mail.body import DotlessFile
from ..mail.message import Message
from ..mail.next_hop import Host, Target
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..mail.tls_policy import TLSPolicy
from ..message.mime.conversion_plan import CannotConvert
from ..smtp.client.outgoing import Piece
from ..smtp.client.session import ClientSession
from ..smtp.client.step import (
    Close,
    Derive,
    Ready,
    SendBody,
    StartTLS,
    Step,
    TransactionDone,
    Unusable,
)
from ..smtp.conversation import Conversation, Line, tls_words
from ..smtp.extension.requiretls import not_announced
from ..system.file_sender import send_file, takes_files
from ..system.outbox import Outbox
from ..telemetry.recent_sessions import EndedSession
from ..telemetry.tracing import SessionEnds, TracedSession, Tracing
from ..tls.client import ClientContexts
from ..tls.sessions import ClientSessions, KeptSession
from ..tls.small_hello import POSSIBLE, is_unanswered
from .adaptation import adapted
from .body_producer import AnyExecutor, BodyProducer
from .peer_timeout import PeerTimeout
from .terms import Terms

Convert = Callable[[Message], "Deferred[Message]"]
"""Converts a message for a next hop that takes 7 bits only (`adaptation.seven_bit`)."""

Result = TransactionDone | Unusable
"""The result of a transaction: its outcomes, or why there was none on this connection."""

_SMALL = 131_072
"""Octets of content up to which it is written at once; more goes through a producer."""


@implementer(IHandshakeListener)
class Connection(Protocol):
    """A connection; one transaction at a time.

    Its states are those of the session.

    Args:
        session: decides on commands, and parses replies.
        target: the address and port.
        terms: the terms of the connection.
        policy: the TLS that it must have.
        contexts: makes the TLS side.
        sessions: TLS sessions to resume.
        small_hello: whether the handshake begins with a small ClientHello.
        resumes: whether it may resume a session.
        clock: for timeouts.
        outbox: collects commands until the end of the reactor's turn.
        wall_time: seconds since the epoch.
        convert: converts contents; without it, a message that needs conversion is bounced.
        sign: signs messages.
        executor: runs blocking calls; without it, they run in the reactor.
        opened: called once, when the session is ready for its first transaction.
        spent: called once, when nothing can be sent any more.
        closed: called once, when the connection is lost; after ``spent``.

    Attributes:
        messages: the number of transactions so far.
        ready: whether the session was ever ready for a transaction.
        broken_off: how the handshake broke off where another one may not: it was to resume a
            session, or its large ClientHello has had no answer; empty: it did not.
        conversation: the dialogue of the opening and of the last transaction.
        made: called once, when the connection is made; None afterwards.
        source: our address; None before the connection is made, and on a UNIX socket.
    """

    log = Logger()
    transport: Any  # ITCPTransport, ITLSTransport and IConsumer in one

    def __init__(
        self,
        session: ClientSession,
        *,
        target: Target,
        terms: Terms,
        policy: TLSPolicy,
        contexts: ClientContexts,
        sessions: ClientSessions,
        small_hello: bool = False,
        resumes: bool = True,
        clock: IReactorTime,
        outbox: Outbox,
        wall_time: WallTime,
        convert: Convert | None = None,
        sign: Sign = unsigned,
        executor: Executor | None = None,
        opened: Callable[[Connection], None] | None = None,
        spent: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.session = session
        self.target = target
        self.terms = terms
        self.policy = policy
        self.messages = 0
        self.ready = False
        self.source: str | None = None
        self.conversation = Conversation()
        self.made: Callable[[], object] | None = None
        self._traced: TracedSession | None = None
        self._small_hello = small_hello
        self._resumes = resumes
        self.broken_off: Literal["", "resuming", "unanswered"] = ""
        self._contexts = contexts
        self._tls = terms.tls_under(policy)
        self._sessions = sessions
        self._session_key = (target, self._tls, policy, policy.source)
        self._resume: KeptSession | None = None
        self._clock = clock
        self._outbox = outbox
        self._wall_time = wall_time
        self._convert = convert
        self._sign = sign
        self._executor: AnyExecutor = executor or maybeDeferred
        self._converted = False  # the content is converted as it is read
        self._computing = False  # the executor converts or signs a content, or derives a key
        self._opened = opened
        self._spent: Callable[[Connection], None] | None = spent
        self._closed = closed
        self._message: Message | None = None
        self._started = 0.0  # when the attempt of the transaction began, by the clock
        self._setup = 0.0  # seconds of it until the transaction began
        self._pool_source: str | None = None
        self._proved = False
        self._probed: Callable[[Unusable | None], None] | None = None
        self._unusable: Unusable | None = None
        self._done: Callable[[Connection, Result], None] | None = None
        self._timeout = PeerTimeout(clock, self._expired)
        self._created = clock.seconds()
        self._turn = session.turn
        self._producer: BodyProducer | None = None

    # Called by the relay.

    def transact(
        self,
        message: Message,
        done: Callable[[Connection, Result], None],
        *,
        started: float,
        source: str | None = None,
        proved: bool = False,
    ) -> None:
        """Send ``message`` once the session is open.

        Args:
            message: with the recipients of this transaction.
            done: called once with the result.
            started: when the attempt began, by the clock.
            source: our address, where it is one of a pool.
            proved: whether the server is known to be one of the next hop (`wishes.is_proved`).
        """
        self.messages += 1
        self._done = done
        self._started = started
        self._pool_source = source
        self._proved = proved
        if self.session.idle:
            self._perform(self._begin(message))
        else:
            self._message = message

    def probe(self, done: Callable[[Unusable | None], None]) -> None:
        """Send QUIT once the session is open.

        Args:
            done: called once, when the connection is lost, with the reason why the session was of
                no use; None: it was ready for a transaction.
        """
        self._probed = done
        if self.session.idle:
            self.quit()

    def attach_traces(self, tracing: Tracing) -> None:
        """Write the dialogue to the open traces from now on."""
        new = self._traced is None
        self._traced = self.conversation.listener = tracing.attach(self._traced, self._session_ends)
        if new and self._traced is not None:
            begun = " (under way already)" if self._timeout.running else ""
            self._traced(Line("note", printable(f"to {self.target}{begun}")))

    def unconnected(self, failure: Failure) -> None:
        """Write to the traces why connecting failed."""
        if self._traced is not None:
            self._traced(Line("note", f"no connection: {_why(failure)}"))

    def ended_session(self, failure: Failure | None = None) -> EndedSession:
        """Return what is remembered of this connection, which is over.

        Args:
            failure: why connecting failed; None: it was established.
        """
        session, target = self.session, self.target
        tls, seconds = session.tls, self._clock.seconds() - self._created
        verdict = ""
        if tls is not None:
            verdict = tls.verdict or f"not verified ({tls.peer_problem or 'not checked'})"
        return EndedSession(
            direction="out",
            began=self._wall_time() - seconds,
            seconds=seconds,
            kind=self.terms.dialect,
            address=target.address,
            port=target.port,
            host=target.name,
            tls="" if tls is None else tls.version,
            verdict=verdict,
            accepted=session.delivered,
            refused=session.negative,
            replies=session.last_negative,
            end=session.end if failure is None else f"no connection: {_why(failure)}",
        )

    def _session_ends(self) -> SessionEnds:
        target = self.target
        names = target.name, target.address
        places = (str(Host(name, target.port)) for name in names)
        return SessionEnds(direction="out", peer=str(target), names=(*names, *places))

    def quit(self) -> None:
        """Send QUIT in an idle session, and close."""
        self._be_spent()
        self._perform(self.session.quit())

    def abort(self, reason: str = "we are closing") -> None:
        """Close at once; an open transaction ends; ``reason`` is for people."""
        self._perform(self.session.connection_lost(reason))
        self.transport.abortConnection()  # an orderly close may be under way

    # Called by Twisted.

    def connectionMade(self) -> None:
        """Wait for the greeting."""
        if not self.target.address.startswith("/"):
            self.transport.setTcpNoDelay(True)  # each write is a whole group of commands
            self.source = self.transport.getHost().host
        self._timeout.start(self.session.deadline)
        if self.terms.implicit_tls:
            self._start_tls()
        made, self.made = self.made, None
        if made is not None:
            made()

    def dataReceived(self, data: bytes) -> None:
        """Pass replies to the session."""
        self.conversation.received(data)
        self._perform(self.session.receive(data))

    def handshakeCompleted(self) -> None:
        """Verify the server before the next command (RFC 3207 §4.1)."""
        handle = self.transport.getHandle()
        problem = None
        facts = None if self._resume is None else self._resume.resumed(handle)
        if facts is None:
            self._resume = None
            facts, problem = self._contexts.verify(handle, self.target, self._tls, self.policy)
        self.conversation.note(tls_words(facts))
        self._perform(self.session.handshake_completed(facts, problem))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End an open transaction."""
        self._timeout.stop()
        if self.session.handshaking:
            self._note_broken_handshake(alert=reason.check(SSL.Error) is not None)
        if self._traced is not None:
            self._traced(Line("note", printable(f"the connection is over: {_why(reason)}")))
        if not self.session.closed:
            self._perform(self.session.connection_lost(_why(reason)))
        self._be_spent()
        self._closed(self)
        if self._probed is not None:
            probed, self._probed = self._probed, None
            probed(None if self.ready else self._unusable)

    # Steps of the session.

    def _perform(self, steps: list[Step]) -> None:
        result: Result | None = None
        for step in steps:
            act = _ACTS.get(type(step))
            if act is not None:
                act(self, step)
            elif isinstance(step, TransactionDone):
                result = step
            elif isinstance(step, Unusable):
                result = self._unusable = step
        session = self.session
        if self._probed is not None and session.idle:
            self.quit()
        if self._message is not None and session.idle:
            message, self._message = self._message, None
            self._perform(self._begin(message))
        self._write()
        if session.turn != self._turn:
            self._turn = session.turn
            self._timeout.restart(session.deadline)
        if result is not None and self._done is not None:
            done, self._done = self._done, None
            self._message = None
            done(self, result)

    def _opened_by(self, _: Ready) -> None:
        self.ready = True
        if self.session.tls is not None:
            # Tickets of TLS 1.3 come before the first reply.
            self._sessions.keep(
                self._session_key, self.transport.getHandle(), self.session.tls, self._resume
            )
        if self._opened is not None:
            self._opened(self)

    def _handshake(self, _: StartTLS) -> None:
        self._write()
        self._start_tls()

    def _start_tls(self) -> None:
        self._outbox.release(self.transport)
        creator = self._contexts.creator(self.target, self._tls, self.policy)
        if self._resumes:
            self._resume = self._sessions.find(self._session_key, creator.context)
        creator.resume, creator.small = self._resume, self._small_hello
        self._outbox.start_tls(self.transport, creator)

    def _note_broken_handshake(self, *, alert: bool) -> None:
        """Take note of a handshake that ends without a result.

        Args:
            alert: whether it ends with a TLS alert, which says that the server has read our hello.
        """
        if self._resume is not None:
            self._sessions.forget(self._session_key)
            self.broken_off = "resuming"
        elif POSSIBLE and not self._small_hello and not alert:
            handle = self.transport.getHandle()
            if handle is not None and is_unanswered(handle):
                self.broken_off = "unanswered"

    def _begin(self, message: Message) -> list[Step]:
        self._setup = self._clock.seconds() - self._started
        self._converted = False
        self.conversation.begin()
        message = self.session.fitting(message)
        if not message.envelope.recipients:
            # RFC 9422 §4: the limit of the session is reached. The message was not tried.
            self.session.quit()
            text = f"{self.target} takes no more in this session"
            return [Unusable(Reply.of(451, "4.5", text))]
        requires_tls = message.envelope.requires_tls
        protects = requires_tls and self._protects
        if requires_tls and not protects and self.terms.wish == "required":
            # RFC 8689 §4.2.1: QUIT, and the next host.
            self.session.quit()
            return [Unusable(not_announced(str(self.target)))]
        message = adapted(
            message,
            self.session.capabilities,
            now=self._wall_time(),
            final=self.terms.dialect == "lmtp",
            protects=protects,
        )
        if self._convert is None or not self.session.needs_conversion(message):
            return self._transact_signed(message)
        # The only conversion of a content on its way out (RFC 6152 §3, RFC 3030 §3).
        self._computing = True
        self._convert(message).addBoth(self._use_converted, message)
        return []

    @property
    def _protects(self) -> bool:
        """Whether the session is good enough for REQUIRETLS (RFC 8689 §2)."""
        tls = self.session.tls
        verified = tls is not None and tls.peer_verified
        return verified and self._proved and "REQUIRETLS" in self.session.capabilities

    def _use_converted(self, result: Message | Failure, message: Message) -> None:
        self._computing = False
        if self._done is None or not self.session.idle:
            return  # the connection has ended meanwhile
        if isinstance(result, Message):
            self._converted = True
            self._perform(self._transact_signed(result))
            return
        self._perform(self._not_begun("convert", message, result))

    def _transact_signed(self, message: Message) -> list[Step]:
        """Begin the transaction once the message is signed: nothing changes it from here on."""
        try:
            signed = self._sign(message)
        except Exception:
            return self._not_begun("sign", message, Failure())
        if isinstance(signed, Message):
            return self._transact(signed)
        self._computing = True
        signed.addBoth(self._use_signed, message)
        return []

    def _use_signed(self, result: Message | Failure, message: Message) -> None:
        self._computing = False
        if self._done is None or not self.session.idle:
            return  # the connection has ended meanwhile
        if isinstance(result, Message):
            self._perform(self._transact(result))
            return
        self._perform(self._not_begun("sign", message, result))

    def _transact(self, message: Message) -> list[Step]:
        return self.session.transact(message, setup=self._setup, source=self._pool_source)

    def _not_begun(self, verb: str, message: Message, failure: Failure) -> list[Step]:
        """Return the end of a transaction whose content could not be made ready."""
        error = failure.value
        if isinstance(error, CannotConvert):
            reply = error.reply
        elif isinstance(error, OSError):
            reply = Reply.of(451, "3.0", f"the message cannot be read: {printable(str(error))}")
        else:
            self.log.failure("Cannot {verb} {id}", failure, verb=verb, id=str(message.id))
            reply = Reply.of(451, "3.0", "internal error, see the log")
        setup, source = self._setup, self._pool_source
        outcomes = (
            Outcome(each.number, reply, setup=setup, source=source)
            for each in message.envelope.recipients
        )
        return [TransactionDone(tuple(outcomes))]

    def _derive(self, step: Derive) -> None:
        self._computing = True
        self._executor(step.respond).addCallbacks(self._derived, self._not_derived)

    def _derived(self, response: bytes) -> None:
        self._computing = False
        self._perform(self.session.derived(response))

    def _not_derived(self, failure: Failure) -> None:
        self._computing = False
        self.log.failure("Cannot derive the keys of SCRAM", failure)
        self._perform(self.session.connection_lost("internal error, see the log"))

    def _write(self) -> None:
        secret = self.session.secret
        octets = self.session.output()
        if octets:
            self.conversation.sent(octets, secret=secret)
            self._outbox.write(self.transport, octets)

    def _expired(self) -> None:
        if self.session.handshaking:
            self._note_broken_handshake(alert=False)
        if self._computing:
            self._timeout.start(self.session.deadline)
        elif self.session.idle and self._done is None:
            self._timeout.start(self.session.deadline)
            self.quit()
        elif self.session.closed:
            self.transport.abortConnection()  # an orderly close took too long
        else:
            self._perform(self.session.timed_out())

    def _close(self, step: Close) -> None:
        if self._producer is not None:
            self._producer.stopProducing()
            self._producer = None
            self.transport.unregisterProducer()
        self._be_spent()
        if step.abort:
            self.transport.abortConnection()
        else:
            # The timeout ends a TLS shutdown that the peer never finishes.
            self._outbox.lose_connection(self.transport)

    def _be_spent(self) -> None:
        spent, self._spent = self._spent, None
        if spent is not None:
            spent(self)

    # The content.

    def _send_body(self, step: SendBody) -> None:
        self.conversation.content(step.size, binary=self.session.binary)
        if step.size <= _SMALL and not self._converted:
            try:
                octets = self.session.whole_body()
            except OSError as error:
                self._perform(self.session.body_failed(printable(str(error))))
            else:
                self._outbox.write(self.transport, octets)
            return
        self._outbox.release(self.transport)
        # Converting a content takes longer than reading it.
        executor = self._executor if self._converted else None
        content = self.session.content(files=takes_files(self.transport))
        self._producer = BodyProducer(self, content, executor, self._clock)
        self.transport.registerProducer(self._producer, True)
        self._producer.resumeProducing()

    def send_piece(self, piece: Piece | None) -> Deferred[None] | None:
        """Write a piece of the content (`body_producer.BodySender`)."""
        ready = self.session.body_read(piece)
        if isinstance(ready, DotlessFile):
            self.transport.unregisterProducer()
            return send_file(self.transport, ready.open(), ready.size, self.body_progressed)
        if ready:
            self._outbox.write_now(self.transport, ready)
        return None

    def body_progressed(self) -> None:
        """Restart the timeout: the peer has taken data (RFC 5321 §4.5.3.2.5)."""
        self._timeout.restart(self.session.deadline)

    def body_ended(self, error: OSError | None) -> None:
        """Go on after the content, or fail where it cannot be read to its end."""
        self._producer = None
        self.transport.unregisterProducer()
        self._perform(self.session.body_failed(printable(str(error))) if error else [])


def _why(reason: Failure) -> str:
    text = printable(reason.getErrorMessage())
    return text or type(reason.value).__name__


_ACTS: Mapping[type[Step], Callable[[Connection, Any], None]] = {
    SendBody: Connection._send_body,
    Ready: Connection._opened_by,
    StartTLS: Connection._handshake,
    Derive: Connection._derive,
    Close: Connection._close,
}
"""What a step of the session does, besides the results of transactions."""
