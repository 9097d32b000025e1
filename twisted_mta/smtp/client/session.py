"""A client session of SMTP or LMTP, pure: octets of the server in, steps and octets out.

Theory of operation (RFC 5321). The shell (`delivery.connection`) gives all octets that arrive to
`ClientSession.receive`, takes the steps that it returns, and writes `ClientSession.output`; the
session does no I/O and knows no clock. The phase of the connection is `ClientSession.state`: see
`machine.TRANSITIONS`. Within a phase the session waits for replies, in a queue (``_awaited``): one
entry for each reply that is due, in order. So a pipelined group (RFC 2920) is several entries, and
all else is one. Each reply takes the first entry, and ``_ACTIONS`` below says what follows. Five
rules stand outside the table because they hold everywhere:

- ``421`` ends the connection (RFC 5321 §3.8).
- A reply is taken only for a command that `output` has already handed out. Octets beyond that were
  sent before the server could know the next command: a reply injected in clear behind the ``220``
  to STARTTLS (RFC 3207 §6), or a server out of step. They end the connection and are never used.
- Only a refusal may come while content is being sent: it is the reply to that content, of which
  nothing more is sent.
- Octets that cannot be read as a reply, and replies that RFC 5321 §4.3.2 does not know for the
  command, end the connection: from then on it is not known which reply belongs to which command.
- A reply whose lines are of different classes defers its command
  (`ClientSession._take_contradiction`).

When a connection ends, every recipient that had its own final reply keeps it, and the others are
deferred. If the transaction had no reply yet, nothing is known about the message at all: then the
step is `Unusable`, and another host or a new connection may be tried at once.

``HANDSHAKE`` and ``BODY`` stand in the queue without a reply being due: there the shell is at work.

Binary content (RFC 3030 §3) goes by BDAT: no ``DATA`` stands in the queue for it. As soon as all
RCPT have their replies, and one of them is accepted, ``BODY`` is next: the command, followed by the
content as one chunk. The reply to that is awaited as ``DOT``.

LMTP differs in its greeting, LHLO, and after the content: there it has one reply, and one ``DOT``
in the queue, for each accepted recipient (RFC 2033 §4.2).

With credentials, AUTH comes before MAIL, and never without TLS. The lines of AUTH never share a
write with other commands, so that `ClientSession.secret` can tell them apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ...mail.message import Message
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from ...mail.tls_policy import TLSLevel
from ..extension.limits import NO_LIMITS
from ..extension.outgoing import OutgoingExtension
from ..extension.standard import OUTGOING
from ..sasl.client import Credentials, Derivation, TokenCredentials
from ..sasl.exchange import Nonce
from .agreement import Agreement
from .auth import CANCEL, AuthEnd, ClientAuth
from .awaited import DEADLINE_OF, Awaited, Deadlines, situation
from .machine import TRANSITIONS, Event, State
from .outgoing import OutgoingTransaction, Piece, chunked, in_one_piece, stuffed
from .reply_reader import BrokenReply, Contradiction, ReplyReader
from .step import (
    Close,
    Derive,
    Dialect,
    Ready,
    SendBody,
    Stage,
    StartTLS,
    Step,
    TransactionDone,
    Unusable,
)

# Read several times for each reply: the attribute of an enumeration takes ten times as long.
_IDLE, _CLOSED = State.IDLE, State.CLOSED

# Nothing depends on these replies, or anyone on the way may have sent them in clear.
_INDIFFERENT = (Awaited.HANDSHAKE, Awaited.CANCEL, Awaited.NOTHING, Awaited.QUIT)


class ClientSession:
    """A client session, from the server's greeting to QUIT.

    Args:
        helo: our name, or an address literal.
        remote: the server, as outcomes and replies of our own name it.
        tls: the level of TLS that the connection must have.
        implicit_tls: whether a handshake comes first, before the greeting (RFC 8314 §3).
        deadlines: how long each wait may last.
        dialect: SMTP or LMTP.
        credentials: ours at the server. They need TLS, whatever the level, and no mail is sent
            without them. None: no AUTH.
        nonce: returns a new nonce; without it the mechanisms of the SCRAM family are not used.
        extensions: those that may add parameters where the server announces them.
        tls_failed: whether the session is in clear since STARTTLS was of no use before.

    Attributes:
        state: the phase of the connection; see `machine.TRANSITIONS`.
        tls: what the TLS handshake achieved; None in clear.
        credentials: see the argument.
        secret: whether what `output` is about to return must not be shown.
        turn: grows with every reply taken and command sent; while it stays the same, the time of
            `deadline` runs.
        delivered: messages that the server has taken, for all recipients that it accepted.
        negative: replies of 4yz and 5yz so far.
        last_negative: the last three of these.
        end: how the session ended, for people, not printable yet; empty: it goes on.
    """

    state: State = State.OPENING

    def __init__(
        self,
        *,
        helo: str,
        remote: str,
        tls: TLSLevel = "may",
        implicit_tls: bool = False,
        deadlines: Deadlines | None = None,
        dialect: Dialect = "smtp",
        credentials: Credentials | TokenCredentials | None = None,
        nonce: Nonce | None = None,
        extensions: Sequence[OutgoingExtension] = OUTGOING,
        tls_failed: bool = False,
    ) -> None:
        self.tls: TLSFacts | None = None
        self.secret = False
        self.turn = 0
        self.delivered = 0
        self.negative = 0
        self.last_negative: tuple[Reply, ...] = ()
        self.end = ""
        self._helo = helo
        self._remote = remote
        self._tls_level: TLSLevel = tls
        self._deadlines = deadlines or Deadlines()
        self._lmtp = dialect == "lmtp"
        self._ehlo = f"{'LHLO' if self._lmtp else 'EHLO'} {helo}"
        self.credentials = credentials
        self._nonce = nonce
        self._extensions = tuple(extensions)
        self._agreement = _NOTHING_OFFERED
        self._auth: ClientAuth | None = None
        # From STARTTLS until EHLO is accepted under TLS; it stays where STARTTLS is of no use.
        self._tls_unproven = tls_failed
        self._bare_newline_at = -1  # the turn in which a line of the server ended in LF alone
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._held_back: deque[tuple[Awaited, bytes]] = deque()  # commands, for want of PIPELINING
        self._awaited: deque[Awaited] = deque([Awaited.GREETING])
        self._due = 1  # replies to what `output` has handed out; the greeting is one
        self._greeting_follows = implicit_tls
        if implicit_tls:
            self._awaited, self._due = deque([Awaited.HANDSHAKE]), 0
        self._transaction: OutgoingTransaction | None = None
        self._prepared: OutgoingTransaction | None = None  # of the message asked about last
        self._reset_first = False
        self._mails = 0  # MAIL commands so far
        self._domains: dict[str, None] = {}  # of RCPT commands so far

    def _enter(self, event: Event) -> None:
        """Enter the next state: the only line that does."""
        self.state = TRANSITIONS[self.state][event]

    # What the shell asks.

    @property
    def idle(self) -> bool:
        """Whether `transact` may be called."""
        return self.state is _IDLE

    @property
    def capabilities(self) -> Mapping[str, str]:
        """What the server announced in reply to the last EHLO: parameters by upper-case keyword."""
        return self._agreement.capabilities

    @property
    def closed(self) -> bool:
        """Whether nothing more is to be read or sent."""
        return self.state is _CLOSED

    @property
    def spent(self) -> bool:
        """Whether the server takes no further transaction in this session (RFC 9422 §4.1)."""
        most = self._agreement.limits.mails
        return most is not None and self._mails >= most

    def fitting(self, message: Message) -> Message:
        """Return ``message`` with those of its recipients that fit into the next transaction.

        They fit into the limits that the server announced (RFC 9422). There are none where the
        server takes no further recipient in this session.
        """
        limits = self._agreement.limits
        if limits is NO_LIMITS:
            return message
        recipients = message.envelope.recipients
        fitting = () if self.spent else limits.fitting(recipients, self._domains)
        if len(fitting) == len(recipients):
            return message
        return message.for_recipients(fitting)

    @property
    def dot_sent(self) -> bool:
        """Whether the end of a content may have been sent, and the reply to it is still due."""
        return self._transaction is not None and self._transaction.dot_sent

    @property
    def handshaking(self) -> bool:
        """Whether a TLS handshake is under way."""
        return self._awaits(Awaited.HANDSHAKE)

    @property
    def binary(self) -> bool:
        """Whether the content of this transaction goes by BDAT."""
        return self._transaction is not None and self._transaction.binary

    @property
    def deadline(self) -> float:
        """How long the present wait may last, in seconds."""
        seconds = DEADLINE_OF[self._awaited[0] if self._awaited else None](self._deadlines)
        if self._bare_newline_at == self.turn:
            return min(seconds, self._deadlines.newline)
        return seconds

    def output(self) -> bytes:
        """Return the octets to write now; from here on the server may reply to them."""
        if not self._output:
            return b""
        self._due = len(self._awaited)
        octets = b"".join(self._output)
        self._output.clear()
        self.secret = False
        return octets

    # What the shell reports.

    def receive(self, octets: bytes) -> list[Step]:
        """Take octets of the server, split anywhere."""
        steps: list[Step] = []
        if self.state is _CLOSED:
            return steps
        reader = self._reader
        reader.feed(octets)
        try:
            while self.state is not _CLOSED and (reply := reader.next()) is not None:
                if isinstance(reply, Contradiction):
                    self._take_contradiction(reply, steps)
                else:
                    self._take(reply, steps)
        except BrokenReply as error:
            self._unreadable(error, steps)
        if reader.pending:
            if reader.bare_newline and not self._bare_newline:
                self.turn += 1
                self._bare_newline_at = self.turn
            early = self._due == 0 and self.state is not _CLOSED
            if early and not self._being_refused:
                self._out_of_step(None, steps)
        return steps

    def handshake_completed(self, facts: TLSFacts, objection: str | None = None) -> list[Step]:
        """Go on after a TLS handshake.

        Args:
            facts: what the handshake achieved.
            objection: why that does not suffice for the level of TLS; None if it does.
        """
        steps: list[Step] = []
        if self.state is State.CLOSED:
            return steps
        self.tls = facts
        self._awaited.clear()
        # RFC 3207 §4.2: "The client MUST discard any knowledge obtained from the server, such as
        # the list of SMTP service extensions, which was not obtained from the TLS negotiation
        # itself."
        self._agreement = _NOTHING_OFFERED
        if objection:
            # RFC 3207 §4.1: a client that decides not to go on SHOULD send QUIT immediately.
            self._give_up(self._own_reply(454, "7.5", objection), steps, stage="tls")
        elif self._greeting_follows:
            self._greeting_follows = False
            self._awaited.append(Awaited.GREETING)
            self._due = 1
            self.turn += 1
        else:
            self._send(Awaited.EHLO, self._ehlo)  # RFC 3207 §4.2: EHLO as the first command
        return steps

    def derived(self, response: bytes) -> list[Step]:
        """Go on with the response that `Derive` asked for."""
        steps: list[Step] = []
        if self.state is not State.CLOSED and self._auth is not None:
            self._authenticate(self._auth.derived(response), steps)
        return steps

    def connection_lost(self, reason: str) -> list[Step]:
        """Take note that the connection is lost; ``reason`` is for people."""
        return self._stop(f"connection lost {self._situation()}: {reason}")

    def timed_out(self) -> list[Step]:
        """Take note that `deadline` has passed."""
        if self._bare_newline:
            text = f"its lines end in LF alone {self._situation()}, expected CR LF"
            return self._stop(text, detail="5.0")
        return self._stop(f"timed out after {self.deadline:g} s {self._situation()}")

    def quit(self) -> list[Step]:
        """Send QUIT in an idle session; `Close` follows with the reply (RFC 5321 §4.1.1.10)."""
        if not self.idle:
            raise RuntimeError("the session is not idle")
        self._leave()
        return []

    def needs_conversion(self, message: Message) -> bool:
        """Whether the server takes ``message`` after conversion to 7 bits, and not as it is.

        All recipients fail where it is not converted, with 5.6.3.
        """
        self._prepared = self._outgoing(message)
        return self._prepared.needs_conversion()

    def transact(
        self, message: Message, *, setup: float = 0.0, source: str | None = None
    ) -> list[Step]:
        """Begin a transaction for all recipients of ``message``.

        Args:
            message: with the recipients of the transaction.
            setup: see `Outcome`.
            source: likewise.
        """
        if not self.idle:
            raise RuntimeError("the session is not idle")
        self._transaction = transaction = self._outgoing(message)
        self._prepared = None
        transaction.setup, transaction.source = setup, source
        self._enter(Event.BEGUN)
        transaction.offer()
        steps: list[Step] = []
        if not transaction.offered:
            self._done(steps)
            return steps
        if self._reset_first:
            self._held_back.append((Awaited.RSET, b"RSET\r\n"))
        self._mails += 1
        self._held_back.append((Awaited.MAIL, transaction.mail()))
        for place in transaction.offered:
            self._domains[message.envelope.recipients[place].mailbox.domain] = None
            self._held_back.append((Awaited.RCPT, transaction.rcpt(place)))
        if not transaction.binary:
            self._held_back.append((Awaited.DATA, b"DATA\r\n"))  # RFC 2920 §3.1: last in its group
        self._release()
        return steps

    def _outgoing(self, message: Message) -> OutgoingTransaction:
        if self._prepared is not None and self._prepared.message is message:
            return self._prepared
        return OutgoingTransaction(message, self._remote, self._agreement)

    def body(self) -> Iterator[bytes]:
        """Yield the content, ready for the wire: up to the final dot, or as a chunk.

        Raises:
            OSError: the content cannot be read; to be reported by `body_failed`.
        """
        held = b""
        for piece in self.content():
            assert isinstance(piece, bytes)
            if held:
                yield held
            held = piece
        self._content_sent()
        if held:
            yield held

    def whole_body(self) -> bytes:
        """Return in one piece what `body` yields; for a small content.

        Raises:
            OSError: the content cannot be read; to be reported by `body_failed`.
        """
        message = self._sending().message
        octets = b"".join(chunked(message)) if self.binary else in_one_piece(message)
        self._content_sent()
        return octets

    def content(self, *, files: bool = False) -> Iterator[Piece]:
        """Return the pieces of the content; each one, and None at the end, is for `body_read`.

        They may be read in a thread: reading them does not touch the session.

        Args:
            files: whether a body that can go to the wire as it is may be a piece, and not its
                octets.

        Raises:
            OSError: (while iterating) the content cannot be read; to be reported by `body_failed`.
        """
        transaction = self._sending()
        transaction.held = b""
        if transaction.binary:
            return chunked(transaction.message)
        return stuffed(transaction.message, files=files)

    def body_read(self, piece: Piece | None) -> Piece:
        """Return what is to be written after a piece of the content was read; None is its end."""
        transaction = self._sending()
        octets, transaction.held = transaction.held, piece or b""
        if piece is None:
            self._content_sent()
        return octets

    def _content_sent(self) -> None:
        """Wait for the reply to the content: with its last piece the message may be delivered."""
        transaction = self._sending()
        transaction.dot_sent = True
        self._awaited[0] = Awaited.DOT
        if self._lmtp:
            # RFC 2033 §4.2: a reply for each accepted recipient, repeated ones included.
            self._awaited.extend([Awaited.DOT] * (len(transaction.accepted) - 1))
        self._due = len(self._awaited)
        self.turn += 1

    def body_failed(self, reason: str) -> list[Step]:
        """End the connection: the content cannot be read, so its end must not be sent."""
        transaction = self._sending()
        reply = Reply.of(451, "3.0", f"the message cannot be read: {reason}")
        transaction.settle(transaction.accepted, reply, ours=True)
        return self._stop(reason)

    # How a connection ends.

    def _take(self, reply: Reply, steps: list[Step]) -> None:
        if self._due == 0:
            self._out_of_step(reply, steps)
            return
        self.turn += 1
        if reply.code >= 400:
            self._note_negative(reply)
            if reply.code == 421:
                self._close_down(reply, steps)
                return
        self._due -= 1
        row = _ACTIONS[self._awaited.popleft()]
        row[reply.code // 100 - 2](self, reply, steps)  # rows begin with 2yz

    def _note_negative(self, reply: Reply) -> None:
        if self._awaits(Awaited.DATA) and not self._current.accepted:
            return  # it was sent together with the recipients, all of which are refused
        if self._auth is not None:
            reply = self._auth.discreet(reply)
        self.negative += 1
        self.last_negative = (*self.last_negative[-2:], reply)

    def _take_contradiction(self, contradiction: Contradiction, steps: list[Step]) -> None:
        """Take a reply of several classes: its command is deferred, whatever the server meant."""
        awaited = self._awaited[0] if self._awaited else None
        text = f"its reply contradicts itself ({self._situation()}): {contradiction.text}"
        reply = self._own_reply(451, "5.0", text)
        refuses = contradiction.reply.code >= 400
        in_step = False
        if awaited in _INDIFFERENT:
            reply, in_step = contradiction.reply, True
        elif awaited is Awaited.DOT and self._due:
            transaction, in_step = self._current, self._lmtp
            places = transaction.accepted[transaction.answers :][: 1 if self._lmtp else None]
            transaction.settle(places, reply, ours=True, uncertain=contradiction.consents)
        elif awaited is Awaited.RCPT and self._due and refuses:
            # Not if the last line accepts: each attempt would leave one more copy there.
            transaction, in_step = self._current, True
            transaction.settle([transaction.offered[transaction.replied]], reply, ours=True)
        elif awaited is Awaited.STARTTLS and self._due:  # the server may wait for a handshake
            in_step = refuses
        if in_step:
            self._take(reply, steps)
        else:
            self._end(reply, steps)

    def _close_down(self, reply: Reply, steps: list[Step]) -> None:
        if self._lmtp and self._awaits(Awaited.DOT):
            # It is the reply for one recipient, and the recipients that follow have none.
            self._settle_next(reply)
            if len(self._awaited) > 1:
                self._end(self._own_reply(451, "4.2", f"closed down: {reply}"), steps, abort=False)
                return
        self._end(reply, steps, remote=self._remote, abort=False)

    def _out_of_step(self, reply: Reply | None, steps: list[Step]) -> None:
        awaited = self._awaited[0] if self._awaited else None
        if awaited is Awaited.HANDSHAKE:
            # RFC 3207 §4.2, §6: sent in clear, perhaps by an attacker between us and the server.
            text = "octets in clear behind the 220 reply to STARTTLS"
            self._end(self._own_reply(454, "7.0", text), steps)
        elif reply and (reply.code == 421 or (awaited is Awaited.BODY and reply.code >= 400)):
            # The server closes an idle connection, or refuses the content before its end.
            if self._lmtp and self._transaction is not None and reply.code != 421:
                self._settle_next(reply)  # the recipients that follow have none
                text = f"the content was refused while it was sent: {reply}"
                self._end(self._own_reply(451, "4.2", text), steps)
            else:
                self._end(reply, steps, remote=self._remote)
        else:
            self._end(self._own_reply(451, "5.0", "a reply to no command"), steps)

    def _unreadable(self, error: BrokenReply, steps: list[Step]) -> None:
        ours = self._own_reply(451, "5.0", f"{error} ({self._situation()})")
        reply = error.reply
        if self._due == 0:
            self._out_of_step(None, steps)
        elif reply is None or reply.code < 400 or self._transaction is None:
            self._end(ours, steps)
        else:
            # A refusal without an end is a refusal all the same, and the last reply we read.
            self._take(reply, steps)
            if self.state is not State.CLOSED:
                self._end(ours, steps)

    def _unexpected(self, reply: Reply, steps: list[Step]) -> None:
        self._end(self._own_reply(451, "5.0", f"not a reply to the command: {reply}"), steps)

    def _stop(self, text: str, *, detail: str = "4.2") -> list[Step]:
        steps: list[Step] = []
        if self.state is State.CLOSED:
            return steps
        if self._awaits(Awaited.HANDSHAKE):
            self._end(self._own_reply(454, "7.5", text), steps)
        else:
            self._end(self._own_reply(451, detail, text), steps)
        return steps

    def _end(
        self,
        reply: Reply,
        steps: list[Step],
        *,
        remote: str | None = None,
        abort: bool = True,
    ) -> None:
        # Steps on this connection are void; outcomes so far are not.
        steps[:] = [step for step in steps if isinstance(step, TransactionDone | Unusable)]
        if self._auth is not None:
            reply = self._auth.discreet(reply)
        self.end = self.end or (reply.text if remote is None else str(reply))
        transaction, self._transaction = self._transaction, None
        if transaction is not None and (transaction.answered or transaction.dot_sent):
            ours = remote is None
            if transaction.dot_sent and ours:
                transaction.settle(transaction.accepted, reply, ours=True, uncertain=True)
            all_places = range(len(transaction.message.envelope.recipients))
            transaction.settle(all_places, reply, ours=ours)
            steps.append(TransactionDone(transaction.outcomes(self.tls)))
        elif not steps:
            steps.append(self._unusable(reply, remote, stage=self._stage))
        self._enter(Event.CLOSE)
        self._awaited.clear()
        self._held_back.clear()
        self._output.clear()
        self.secret = False
        steps.append(Close(abort))

    def _give_up(
        self,
        reply: Reply,
        steps: list[Step],
        remote: str | None = None,
        *,
        temporary: bool = False,
        stage: Stage | None = None,
    ) -> None:
        stage = stage or self._stage
        if remote is None:
            self.end = reply.text
        steps.append(self._unusable(reply, remote, temporary=temporary, stage=stage))
        self._leave()

    def _unusable(
        self, reply: Reply, remote: str | None, *, temporary: bool = False, stage: Stage
    ) -> Unusable:
        return Unusable(
            reply,
            remote,
            self.tls,
            # RFC 7435 §4: whatever made STARTTLS of no use, mail in clear is better than none.
            clear_retry=self._tls_unproven and self._tls_level == "may" and not self._needs_tls,
            tls_missing=self._tls_unproven and self.tls is None,
            temporary=temporary,
            stage=stage,
        )

    @property
    def _stage(self) -> Stage:
        """What has been reached, before any transaction."""
        if self._auth is not None:
            return "auth"
        if self._awaits(Awaited.HANDSHAKE) or (self._tls_unproven and self._needs_tls):
            return "tls"
        return "session"

    def _leave(self) -> None:
        self._enter(Event.QUIT)
        self.end = self.end or "QUIT"
        self._send(Awaited.QUIT, "QUIT")

    def _cancel_answered(self, reply: Reply, steps: list[Step]) -> None:
        self._leave()

    def _quit_answered(self, reply: Reply, steps: list[Step]) -> None:
        self._enter(Event.CLOSE)
        steps.append(Close())

    # Opening.

    def _greeted(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code != 220:
            self._unexpected(reply, steps)
        else:
            self._send(Awaited.EHLO, self._ehlo)

    def _turned_away(self, reply: Reply, steps: list[Step]) -> None:
        # RFC 5321 §3.1: 554 means no SMTP service at this host, and nothing about the next host. As
        # many servers say it for a while as for good, so the recipients are deferred. Where TLS is
        # mandatory, they always are: in clear, an attacker on the way may have refused.
        temporary = reply.code == 554 or (self._needs_tls and self.tls is None)
        # RFC 5321 §3.1: the server waits for QUIT.
        self._give_up(reply, steps, self._remote, temporary=temporary)

    def _ehlo_refused(self, reply: Reply, steps: list[Step]) -> None:
        if self._lmtp:
            # RFC 2033 §4.1: there is no HELO to fall back on. An SMTP server at the end of a route
            # for LMTP is the operator's mistake, and no reason to bounce mail.
            self._give_up(reply, steps, self._remote, temporary=True)
        else:
            self._send(Awaited.HELO, f"HELO {self._helo}")  # RFC 5321 §3.2

    def _ehlo_accepted(self, reply: Reply, steps: list[Step]) -> None:
        self._prove_tls()
        self._agreement = Agreement.by_reply(reply, self._extensions)
        if self.tls is None and self._tls_level != "none" and "STARTTLS" in self.capabilities:
            self._tls_unproven = True
            self._send(Awaited.STARTTLS, "STARTTLS")  # RFC 3207 §4: last in its group
        else:
            self._end_opening(steps)

    def _helo_accepted(self, reply: Reply, steps: list[Step]) -> None:
        self._prove_tls()
        self._agreement = Agreement({}, self._extensions)
        self._end_opening(steps)

    def _begin_tls(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code != 220:
            self._no_starttls(reply, steps)
            return
        # RFC 3207 §4: after 220 the client MUST start the TLS negotiation before any other command.
        self._awaited.append(Awaited.HANDSHAKE)
        steps.append(StartTLS())

    def _no_starttls(self, reply: Reply, steps: list[Step]) -> None:
        self._end_opening(steps, reply)

    def _end_opening(self, steps: list[Step], answer: Reply | None = None) -> None:
        """Go on after EHLO, or after an answer to STARTTLS that begins no TLS."""
        if self._needs_tls and self.tls is None:
            # RFC 3207 §4: the client decides whether to go on in clear. Deferred even if STARTTLS
            # got a 5yz: that is a refusal of TLS, not of the message.
            self._tls_unproven = True
            if answer is not None and answer.code >= 400:
                self._give_up(answer, steps, self._remote, temporary=True)
                return
            reason = f"not a reply to STARTTLS: {answer}" if answer else "STARTTLS is not offered"
            if self.credentials is not None:
                reason += ", and our credentials are never sent in clear"
            self._give_up(self._own_reply(454, "7.4", reason), steps)
        elif self.credentials is not None:
            self._auth = ClientAuth(
                self.credentials, self.capabilities.get("AUTH"), nonce=self._nonce
            )
            self._authenticate(self._auth.begin(), steps)
        else:
            self._opened(steps)

    def _prove_tls(self) -> None:
        if self.tls is not None:
            self._tls_unproven = False

    def _opened(self, steps: list[Step]) -> None:
        self._enter(Event.OPENED)
        steps.append(Ready())

    @property
    def _needs_tls(self) -> bool:
        return self.credentials is not None or self._tls_level not in ("none", "may")

    def _auth_answered(self, reply: Reply, steps: list[Step]) -> None:
        assert self._auth is not None
        self._reader.challenged = False
        self._authenticate(self._auth.take(reply), steps)

    def _authenticate(self, following: bytes | Derivation | AuthEnd, steps: list[Step]) -> None:
        if isinstance(following, bytes):
            self._reader.challenged = True
            self._send_secret(Awaited.AUTH, following)
            return
        if isinstance(following, Derivation):
            steps.append(Derive(following.respond))
            return
        self._auth = None
        if following.accepted:
            self._opened(steps)
        elif following.reply is not None and following.reply.code < 500:
            # RFC 4954 §6: 4yz is about the state of the server.
            self._give_up(following.reply, steps, self._remote, stage="auth")
        else:
            # A matter for the operator, and no reason to bounce mail: deferred.
            reply, remote = following.reply, self._remote if following.reply else None
            steps.append(
                Unusable(
                    reply or self._own_reply(454, "7.8", following.text),
                    remote,
                    self.tls,
                    credentials_refused=True,
                    temporary=True,
                    stage="auth",
                )
            )
            if following.cancel:
                self._send_secret(Awaited.CANCEL, CANCEL)
            else:
                self._leave()

    # The transaction.

    def _rset_accepted(self, reply: Reply, steps: list[Step]) -> None:
        self._release()

    def _mail_accepted(self, reply: Reply, steps: list[Step]) -> None:
        self._current.answered = True
        if self._held_back:
            self._release()

    def _mail_refused(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        transaction.answered = True
        transaction.settle(transaction.offered, reply, temporary=self._requires_tls(reply))
        self._held_back.clear()
        self._go_on(steps)

    def _rcpt_accepted(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        place = transaction.offered[transaction.replied]
        transaction.replied += 1
        if not transaction.is_settled(place):
            transaction.accepted.append(place)
        self._go_on(steps)

    def _rcpt_refused(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        place = transaction.offered[transaction.replied]
        temporary = _is_too_many_recipients(reply) or self._requires_tls(reply)
        transaction.settle([place], reply, temporary=temporary)
        transaction.replied += 1
        if transaction.replied == len(transaction.offered) and not transaction.accepted:
            self._held_back.clear()
        self._go_on(steps)

    def _data_accepted(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        if transaction.accepted:
            self._begin_content(steps)
        elif self._lmtp:
            # RFC 2033 §4.2: a 503 is due here, and no reply would follow the final dot.
            self._unexpected(reply, steps)
        else:
            # RFC 2920 §3.1: 354 although no recipient was accepted; a lone dot ends it.
            self._send(Awaited.NOTHING, ".")

    def _begin_content(self, steps: list[Step]) -> None:
        self._awaited.append(Awaited.BODY)
        steps.append(SendBody(self._current.size))

    def _data_refused(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        transaction.settle(transaction.accepted, reply, temporary=self._requires_tls(reply))
        self._done(steps)

    def _content_ended(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        if self._lmtp:
            self._settle_next(reply)
        else:
            transaction.settle(transaction.accepted, reply)
        if not self._awaited:
            delivered = transaction.delivered
            self.delivered += delivered
            self._done(steps, reset=not delivered)

    def _settle_next(self, reply: Reply) -> None:
        # RFC 2033 §4.2: the replies come in the order of the RCPT commands.
        transaction = self._current
        transaction.settle([transaction.accepted[transaction.answers]], reply)
        transaction.answers += 1

    def _nothing_answered(self, reply: Reply, steps: list[Step]) -> None:
        self._done(steps)

    def _done(self, steps: list[Step], *, reset: bool = True) -> None:
        transaction, self._transaction = self._current, None
        self._enter(Event.ENDED)
        # Where the content was accepted, the server has cleared its buffers (RFC 5321 §4.1.1.4).
        self._reset_first = reset if transaction.answered else self._reset_first
        steps.append(TransactionDone(transaction.outcomes(self.tls)))

    # Speaking.

    def _send(self, awaited: Awaited, line: str) -> None:
        self._awaited.append(awaited)
        self._output.append(f"{line}\r\n".encode())
        self.turn += 1

    def _send_secret(self, awaited: Awaited, line: bytes) -> None:
        self._awaited.append(awaited)
        self._output.append(line)
        self.secret = True
        self.turn += 1

    def _release(self) -> None:
        """Send what is held back: all commands; without PIPELINING the next, if none is open."""
        held_back = self._held_back
        if self._agreement.pipelining:
            released, self._held_back = held_back, deque()
        elif held_back and not self._awaited:
            released = deque([held_back.popleft()])
        else:
            return
        for awaited, line in released:
            self._awaited.append(awaited)
            self._output.append(line)
        self.turn += len(released)

    def _go_on(self, steps: list[Step]) -> None:
        if self._held_back:
            self._release()
        if self._awaited:
            return
        if self._current.binary and self._current.accepted:
            # RFC 3030 §2: no reply asks for BDAT, so it waits until a recipient is accepted.
            self._begin_content(steps)
        else:
            self._done(steps)

    @property
    def _current(self) -> OutgoingTransaction:
        assert self._transaction is not None
        return self._transaction

    def _sending(self) -> OutgoingTransaction:
        if self._transaction is None or Awaited.BODY not in self._awaited:
            raise RuntimeError("no content is to be sent now")
        return self._transaction

    def _requires_tls(self, reply: Reply) -> bool:
        """Whether a server that requires TLS refuses mail in clear, and its STARTTLS is of no use.

        RFC 3207 §4: 530 to every command but EHLO, NOOP, STARTTLS and QUIT. RFC 8689 §4.2.2: the
        sender of mail with ``TLS-Required: No`` is told.
        """
        optional = self._transaction is not None and self._transaction.message.envelope.tls_optional
        return reply.code == 530 and self._tls_unproven and self.tls is None and not optional

    @property
    def _bare_newline(self) -> bool:
        return self._bare_newline_at == self.turn

    @property
    def _being_refused(self) -> bool:
        # Part of the reply to content that is still being sent has come: the rest will follow.
        return self._awaits(Awaited.BODY) and self._reader.refusing

    def _awaits(self, awaited: Awaited) -> bool:
        return bool(self._awaited) and self._awaited[0] is awaited

    def _situation(self) -> str:
        binary = self._transaction is not None and self._transaction.binary
        awaited = self._awaited[0] if self._awaited else None
        return situation(awaited, binary=binary, lmtp=self._lmtp)

    def _own_reply(self, code: int, status: str, text: str) -> Reply:
        return Reply.of(code, status, f"{self._remote}: {text}")


# Subject and detail of a 552 to RCPT that may mean too many recipients, or storage that is short
# for now. All others are about the mailbox (X.2.2, full), the message (X.3.4, too big) or a policy.
_TOO_MANY = (None, "0.0", "3.0", "3.1", "4.5", "5.0", "5.3")


def _is_too_many_recipients(reply: Reply) -> bool:
    """Whether 552 to RCPT means 452, too many recipients (RFC 5321 §4.5.3.1.10)."""
    if reply.code != 552:
        return False
    return reply.detail in _TOO_MANY or (reply.status is None and reply.text.startswith("4."))


_NOTHING_OFFERED = Agreement({})
"""The agreement before EHLO; no transaction begins under it."""

_Action: TypeAlias = Callable[[ClientSession, Reply, list[Step]], None]

_S = ClientSession
_ACTIONS: Mapping[Awaited, tuple[_Action, _Action, _Action, _Action]] = {
    # RFC 5321 §4.2.1: completion (2yz), intermediate (3yz), transient (4yz), permanent (5yz)
    Awaited.GREETING: (_S._greeted, _S._unexpected, _S._turned_away, _S._turned_away),
    Awaited.EHLO: (_S._ehlo_accepted, _S._unexpected, _S._turned_away, _S._ehlo_refused),
    Awaited.HELO: (_S._helo_accepted, _S._unexpected, _S._turned_away, _S._turned_away),
    Awaited.STARTTLS: (_S._begin_tls, _S._no_starttls, _S._no_starttls, _S._no_starttls),
    Awaited.AUTH: (_S._auth_answered,) * 4,
    Awaited.CANCEL: (_S._cancel_answered,) * 4,
    Awaited.RSET: (_S._rset_accepted, _S._unexpected, _S._unexpected, _S._unexpected),
    Awaited.MAIL: (_S._mail_accepted, _S._unexpected, _S._mail_refused, _S._mail_refused),
    Awaited.RCPT: (_S._rcpt_accepted, _S._unexpected, _S._rcpt_refused, _S._rcpt_refused),
    Awaited.DATA: (_S._unexpected, _S._data_accepted, _S._data_refused, _S._data_refused),
    Awaited.DOT: (_S._content_ended, _S._unexpected, _S._content_ended, _S._content_ended),
    Awaited.NOTHING: (_S._nothing_answered,) * 4,
    Awaited.QUIT: (_S._quit_answered,) * 4,
}
"""What follows a reply: by the command, and by the class of the reply.

Not here are the waits for the shell (``HANDSHAKE``, ``BODY``).
"""
