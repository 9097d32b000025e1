"""One connection to a next hop: the shell around a `ClientSession`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from ..interfaces import Executor, WallTime
from ..mail.message import Message
from ..mail.next_hop import Host, Target
from ..mail.outcome import Outcome
from ..mail.printable import printable
from ..mail.reply import Reply
from ..message.mime.conversion_plan import CannotConvert
from ..smtp.client.session import ClientSession
from ..smtp.client.step import (
    Close,
    Derive,
    NeedsConversion,
    Ready,
    SendBody,
    StartTLS,
    Step,
    TransactionDone,
    Unusable,
)
from ..smtp.conversation import Conversation, Line, tls_words
from ..system.outbox import Outbox, start_tls
from ..telemetry.tracing import About, Overheard, Tracing
from ..tls.client import ClientContexts
from .adaptation import adapted
from .terms import Terms

Convert = Callable[[Message], "Deferred[Message]"]
"""Makes a message of 7 bits of one that a next hop does not take as it is."""


_Executor = Callable[[Callable[[], Any]], "Deferred[Any]"]

Result = TransactionDone | Unusable
"""What became of a message on a connection."""

_LONGEST_LOOK = 5.0  # seconds: few deadlines are shorter

SMALL = 65_536
"""Octets of content up to which it is written at once; more goes at the pace of the connection."""


@implementer(IHandshakeListener)
class Connection(Protocol):
    """A connection; one transaction at a time.

    Args:
        session: what to say.
        target: where it leads.
        terms: on which it serves.
        contexts: what to start TLS with.
        clock: for the one timer.
        outbox: where commands wait for the end of the reactor's turn.
        wall_time: what time it is where messages have one.
        convert: makes a content that the peer takes; without it, mail that would need that fails.
        executor: where what blocks is called; without it, that is here.
        opened: called once, when the session is ready for its first transaction.
        spent: called once, when nothing can be sent on it any more.
        closed: called once, when it is gone; after ``spent``.

    Attributes:
        messages: how many transactions were begun.
        began: when the last of them was, by the clock.
        ready: whether the session was good enough for a transaction.
        conversation: what was said on it.
    """

    log = Logger()
    transport: Any  # ITCPTransport, ITLSTransport and IConsumer in one

    def __init__(
        self,
        session: ClientSession,
        *,
        target: Target,
        terms: Terms,
        contexts: ClientContexts,
        clock: IReactorTime,
        outbox: Outbox,
        wall_time: WallTime,
        convert: Convert | None = None,
        executor: Executor | None = None,
        opened: Callable[[Connection], None] | None = None,
        spent: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.session = session
        self.target = target
        self.terms = terms
        self.messages = 0
        self.began = 0.0
        self.ready = False
        self.conversation = Conversation()
        self._overheard: Overheard | None = None
        self._contexts = contexts
        self._clock = clock
        self._outbox = outbox
        self._wall_time = wall_time
        self._convert = convert
        self._executor: _Executor = executor or maybeDeferred
        self._made = False  # the content is one that is made as it is read
        self._working = False  # a content or a response is being made
        self._opened = opened
        self._spent: Callable[[Connection], None] | None = spent
        self._closed = closed
        self._message: Message | None = None
        self._done: Callable[[Connection, Result], None] | None = None
        self._timer: IDelayedCall | None = None
        self._due = 0.0  # by the clock: for how long the peer may say nothing
        self._turn = session.turn
        self._producer: BodyProducer | None = None

    # What the relay asks.

    def transact(self, message: Message, done: Callable[[Connection, Result], None]) -> None:
        """Send ``message`` as soon as the session is open; ``done`` is called once."""
        self.messages += 1
        self._done = done
        if self.session.idle:
            self._perform(self._begin(message))
        else:
            self._message = message

    def attach_traces(self, tracing: Tracing) -> None:
        """Tell those traces that are open now what is said from now on."""
        new = self._overheard is None
        self._overheard = self.conversation.listener = tracing.attach(self._overheard, self._about)
        if new and self._overheard is not None:
            begun = " (under way already)" if self._timer is not None else ""
            self._overheard(Line("note", printable(f"to {self.target}{begun}")))

    def unconnected(self, failure: Failure) -> None:
        """It did not come to be: tell those who read along."""
        if self._overheard is not None:
            self._overheard(Line("note", f"no connection: {_why(failure)}"))

    def _about(self) -> About:
        target = self.target
        names = target.name, target.address
        places = (str(Host(name, target.port)) for name in names)
        return About(direction="out", peer=str(target), names=(*names, *places))

    def quit(self) -> None:
        """Leave an idle session, and close."""
        self._be_spent()
        self._perform(self.session.quit())

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self._perform(self.session.connection_lost("we are closing"))
        self.transport.abortConnection()  # it may have been closing in order

    # What Twisted calls.

    def connectionMade(self) -> None:
        """The greeting is due now."""
        if not self.target.address.startswith("/"):
            self.transport.setTcpNoDelay(True)  # each write is a whole group of commands
        self._wait_anew()
        if self.terms.implicit_tls:
            self._start_tls()

    def dataReceived(self, data: bytes) -> None:
        """Let the session read."""
        self.conversation.received(data)
        self._perform(self.session.receive(data))

    def handshakeCompleted(self) -> None:
        """Judge what the handshake achieved before anything is said (RFC 3207 §4.1)."""
        facts, objection = self._contexts.verify(
            self.transport.getHandle(),
            self.target,
            self.terms.tls,
        )
        self.conversation.note(tls_words(facts))
        self._perform(self.session.handshake_completed(facts, objection))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Whatever was under way ends."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._overheard is not None:
            self._overheard(Line("note", printable(f"the connection is over: {_why(reason)}")))
        self._perform(self.session.connection_lost(_why(reason)))
        self._be_spent()
        self._closed(self)

    # How steps are taken.

    def _perform(self, steps: list[Step]) -> None:
        result: Result | None = None
        for step in steps:
            if isinstance(step, TransactionDone | Unusable):
                result = step
            elif isinstance(step, SendBody):
                self._send_body(step)
            elif isinstance(step, StartTLS):
                self._write()
                self._start_tls()
            elif isinstance(step, Derive):
                self._derive(step)
            elif isinstance(step, Ready):
                self.ready = True
                if self._opened is not None:
                    self._opened(self)
            elif isinstance(step, Close):
                self._close(step)
        session = self.session
        if self._message is not None and session.idle:
            message, self._message = self._message, None
            self._perform(self._begin(message))
        self._write()
        if session.turn != self._turn:
            self._turn = session.turn
            self._rearm()
        if result is not None and self._done is not None:
            done, self._done = self._done, None
            self._message = None
            done(self, result)

    def _start_tls(self) -> None:
        self._outbox.release(self.transport)
        start_tls(self.transport, self._contexts.creator(self.target, self.terms.tls))

    def _begin(self, message: Message) -> list[Step]:
        self.began = self._clock.seconds()
        self._made = False
        self.conversation.begin()
        message = self.session.fitting(message)
        if not message.envelope.recipients:
            # RFC 9422 §4: no more in this session. Nothing was said of the message.
            self.session.quit()
            text = f"{self.target} takes no more in this session"
            return [Unusable(Reply.of(451, "4.5", text))]
        message = adapted(
            message,
            self.session.capabilities,
            now=self._wall_time(),
            final=self.terms.dialect == "lmtp",
        )
        if self._convert is None:
            return self.session.transact(message)
        steps = self.session.transact(message, convertible=True)
        if not any(isinstance(step, NeedsConversion) for step in steps):
            return steps
        # The one place where a content is changed on its way out (RFC 6152 §3, RFC 3030 §3).
        self._working = True
        self._convert(message).addBoth(self._converted, message)
        return []

    def _converted(self, result: Message | Failure, message: Message) -> None:
        self._working = False
        if self._done is None or not self.session.idle:
            return  # the connection has ended meanwhile
        if isinstance(result, Message):
            self._made = True
            self._perform(self.session.transact(result))
            return
        error = result.value
        if isinstance(error, CannotConvert):
            reply = error.reply
        elif isinstance(error, OSError):
            reply = Reply.of(451, "3.0", f"the message cannot be read: {printable(str(error))}")
        else:
            self.log.failure("Cannot convert {id}", result, id=str(message.id))
            reply = Reply.of(451, "3.0", "internal error, see the log")
        outcomes = (Outcome(each.number, reply) for each in message.envelope.recipients)
        self._perform([TransactionDone(tuple(outcomes))])

    def _derive(self, step: Derive) -> None:
        self._working = True
        self._executor(step.respond).addCallbacks(self._derived, self._not_derived)

    def _derived(self, response: bytes) -> None:
        self._working = False
        self._perform(self.session.derived(response))

    def _not_derived(self, failure: Failure) -> None:
        self._working = False
        self.log.failure("Cannot derive the keys of SCRAM", failure)
        self._perform(self.session.connection_lost("internal error, see the log"))

    def _write(self) -> None:
        secret = self.session.secret
        octets = self.session.output()
        if octets:
            self.conversation.sent(octets, secret=secret)
            self._outbox.write(self.transport, octets)

    def _rearm(self) -> None:
        self._due = self._clock.seconds() + self.session.deadline
        if self._timer is not None and self._due < self._timer.getTime():
            self._timer.reset(self.session.deadline)

    def _wait_anew(self) -> None:
        self._rearm()
        self._look_later()

    def _look_later(self) -> None:
        # It looks at the clock when it fires, and is hardly ever moved: to move one to an earlier
        # time, as for each reply to RCPT, costs the more, the more connections there are.
        left = self._due - self._clock.seconds()
        self._timer = self._clock.callLater(min(left, _LONGEST_LOOK), self._look)

    def _look(self) -> None:
        self._timer = None
        if self._clock.seconds() < self._due:
            self._look_later()
        else:
            self._expired()

    def _expired(self) -> None:
        if self._working:
            self._wait_anew()
        elif self.session.idle and self._done is None:
            self._wait_anew()
            self.quit()
        elif self.session.closed:
            self.transport.abortConnection()  # it had its time to close in order
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
            self._outbox.release(self.transport)
            # A peer that never finishes the shutdown of TLS is left behind by the timer.
            self.transport.loseConnection()

    def _be_spent(self) -> None:
        spent, self._spent = self._spent, None
        if spent is not None:
            spent(self)

    # The content.

    def _send_body(self, step: SendBody) -> None:
        self.conversation.content(step.size, binary=self.session.binary)
        if step.size <= SMALL and not self._made:
            try:
                octets = b"".join(self.session.body())
            except OSError as error:
                self._perform(self.session.body_failed(printable(str(error))))
            else:
                self._outbox.write(self.transport, octets)
            return
        self._outbox.release(self.transport)
        # What is made of a content as it is read takes longer than to read it.
        executor = self._executor if self._made else maybeDeferred
        self._producer = BodyProducer(self, self.session.content(), executor)
        self.transport.registerProducer(self._producer, True)
        self._producer.resumeProducing()

    def body_progressed(self) -> None:
        """A piece was written: the peer has taken those before it (RFC 5321 §4.5.3.2.5)."""
        self._rearm()

    def body_ended(self, error: OSError | None) -> None:
        """The content is written, or cannot be read to its end."""
        self._producer = None
        self.transport.unregisterProducer()
        self._perform(self.session.body_failed(printable(str(error))) if error else [])


@implementer(IPushProducer)
class BodyProducer:
    """Writes a content no faster than the connection takes it.

    Args:
        connection: see there.
        content: its pieces.
        executor: where they are read, one after the other.
    """

    def __init__(
        self, connection: Connection, content: Iterator[bytes], executor: _Executor
    ) -> None:
        self._connection = connection
        self._content: Iterator[bytes] | None = content
        self._executor = executor
        self._paused = True
        self._reading = False
        self._going = False  # within `_go_on`, which is enough

    def resumeProducing(self) -> None:
        """Write until the transport has enough."""
        if self._paused:
            self._paused = False
            self._connection.body_progressed()
            self._go_on()

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def stopProducing(self) -> None:
        """Nothing more can be sent."""
        self._content = None

    def _go_on(self) -> None:
        if self._going:
            return
        self._going = True
        while not (self._paused or self._reading or self._content is None):
            self._reading = True
            read = partial(next, self._content, None)
            written = self._executor(read).addCallbacks(self._write, self._failed)
            written.addErrback(lambda failure: self._connection.log.failure("a content", failure))
        self._going = False

    def _write(self, piece: bytes | None) -> None:
        self._reading = False
        if self._content is None:
            return  # the connection has ended meanwhile
        connection = self._connection
        octets = connection.session.body_read(piece)
        if octets:
            connection.transport.write(octets)
        if piece is None:
            self._content = None
            connection.body_ended(None)
        else:
            self._go_on()

    def _failed(self, failure: Failure) -> None:
        self._reading = False
        if self._content is None:
            return
        self._content = None
        error = failure.value
        if not isinstance(error, OSError):
            self._connection.log.failure("Cannot read a content", failure)
            error = OSError("internal error, see the log")
        self._connection.body_ended(error)


def _why(reason: Failure) -> str:
    text = printable(reason.getErrorMessage())
    return text or type(reason.value).__name__
