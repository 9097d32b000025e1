"""The client's side of an SMTP or LMTP connection: octets of the peer in, steps to take out.

Theory of operation (RFC 5321). A `ClientSession` is fed with `receive` and asked with `output`; it
does no I/O and knows no clock. What it waits for is a queue, ``_awaited``: one entry for each reply
that is due, in order, so a pipelined group (RFC 2920) is several entries and everything else is
one. Every reply takes the first entry, and the table below says what happens. Three rules stand
outside the table because they hold everywhere:

- ``421`` ends the connection (RFC 5321 §3.8).
- A reply is taken only for a command that `output` has already handed out. Octets beyond that were
  sent before the peer could know what we would say: a reply injected in clear behind the ``220`` to
  STARTTLS (RFC 3207 §6), or a peer out of step. They end the connection and are never used.
  Only a refusal may come while content is being sent: it is the answer to that content, of which
  nothing more is sent.
- What cannot be read as a reply, or is not one of those that RFC 5321 §4.3.2 knows for a command,
  ends the connection: it cannot be told any more which reply belongs to which command.
- A reply whose lines are of different classes defers what it is about (`ClientSession._doubt`).

When a connection ends, every recipient that had its own final reply keeps it, the others are
deferred. If the transaction had no reply yet, nothing is known about the message at all: the step
is then `Unusable`, and another host or a new connection may be tried at once.

``HANDSHAKE`` and ``BODY`` stand in the queue without a reply being due: there the shell is at work.

Binary content (RFC 3030 §3) goes by BDAT: no ``DATA`` stands in the queue for it, but as soon as
all RCPT are answered, and one of them with yes, it is ``BODY``'s turn: the command, and behind it
the content as one chunk. The reply to that is awaited as ``DOT``.

LMTP differs in its greeting, LHLO, and behind the content: there it has one reply, and one ``DOT``
in the queue, for each recipient that was taken (RFC 2033 §4.2).

With credentials, AUTH comes before anything else, and never without TLS. What is said for it never
shares a write with other commands, so `ClientSession.secret` can tell it apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ...mail.message import Message
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from ..extension.limits import Limits
from ..extension.outgoing import OutgoingExtension
from ..extension.standard import OUTGOING
from ..sasl.client import Credentials, Derivation, Nonce
from .auth import CANCEL, AuthEnd, ClientAuth
from .outgoing import DotStuffer, OutgoingTransaction, chunked, stuffed
from .reply_reader import BrokenReply, Contradiction, ReplyReader
from .step import (
    Awaited,
    Close,
    Deadlines,
    Derive,
    Dialect,
    NeedsConversion,
    Ready,
    SendBody,
    StartTLS,
    Step,
    TLSLevel,
    TransactionDone,
    Unusable,
    situation,
)

__all__ = ["Awaited", "ClientSession", "Deadlines", "DotStuffer", "Step", "TLSLevel"]

# What each class of reply does.  NOTHING is the dot that ends a DATA for which no recipient was
# taken (RFC 2920 §3.1).
_TABLE: dict[Awaited, tuple[str, str, str, str]] = {
    #                   2yz            3yz           4yz              5yz
    Awaited.GREETING: ("_greeted", "_confused", "_turned_away", "_turned_away"),
    Awaited.EHLO: ("_extended", "_confused", "_turned_away", "_say_helo"),
    Awaited.HELO: ("_plain", "_confused", "_turned_away", "_turned_away"),
    Awaited.STARTTLS: ("_start_tls", "_stay_clear", "_stay_clear", "_stay_clear"),
    Awaited.AUTH: ("_auth_answered", "_auth_answered", "_auth_answered", "_auth_answered"),
    Awaited.CANCEL: ("_leave", "_leave", "_leave", "_leave"),
    Awaited.RSET: ("_proceed", "_confused", "_confused", "_confused"),
    Awaited.MAIL: ("_mail_taken", "_confused", "_mail_refused", "_mail_refused"),
    Awaited.RCPT: ("_rcpt_taken", "_confused", "_rcpt_refused", "_rcpt_refused"),
    Awaited.DATA: ("_confused", "_send_body", "_data_refused", "_data_refused"),
    Awaited.DOT: ("_content_answered", "_confused", "_content_answered", "_content_answered"),
    Awaited.NOTHING: ("_finish", "_finish", "_finish", "_finish"),
    Awaited.QUIT: ("_bye", "_bye", "_bye", "_bye"),
}

# Nothing depends on what is answered here, or anybody may have said it in clear.
_INDIFFERENT = (Awaited.HANDSHAKE, Awaited.CANCEL, Awaited.NOTHING, Awaited.QUIT)


class ClientSession:
    """One connection to a server, from its greeting to QUIT.

    Args:
        helo: our name, or an address literal.
        remote: the peer, as outcomes and replies of our own name it.
        tls: what the connection must have.
        implicit_tls: whether it begins with a handshake, before the greeting (RFC 8314 §3).
        deadlines: how long each wait may last.
        dialect: what the server speaks.
        credentials: who we are to the server. They need TLS, whatever the level, and no mail goes
            without them.
        nonce: makes nonces; without it the mechanisms of the SCRAM family are not used.
        extensions: what may be said for a message where the server knows it.

    Attributes:
        capabilities: what the last EHLO announced: parameters by upper-case keyword.
        tls: facts of the handshake, None in clear.
        closed: nothing more is to be read or sent.
        secret: what `output` is about to return must not be shown.
        turn: grows with every reply taken and command sent; while it stays the same, the time of
            `deadline` runs.
    """

    def __init__(
        self,
        *,
        helo: str,
        remote: str,
        tls: TLSLevel = "may",
        implicit_tls: bool = False,
        deadlines: Deadlines | None = None,
        dialect: Dialect = "smtp",
        credentials: Credentials | None = None,
        nonce: Nonce | None = None,
        extensions: Sequence[OutgoingExtension] = OUTGOING,
    ) -> None:
        self.capabilities: Mapping[str, str] = {}
        self.tls: TLSFacts | None = None
        self.closed = False
        self.secret = False
        self.turn = 0
        self._helo = helo
        self._remote = remote
        self._level: TLSLevel = tls
        self._deadlines = deadlines or Deadlines()
        self._lmtp = dialect == "lmtp"
        self._held = b""  # a piece of the content, until it is known whether it is the last
        self._hello = f"{'LHLO' if self._lmtp else 'EHLO'} {helo}"
        self._credentials = credentials
        self._nonce = nonce
        self._extensions = extensions
        self._auth: ClientAuth | None = None
        self._reader = ReplyReader()
        self._output: list[bytes] = []
        self._unsent: deque[tuple[Awaited, bytes]] = deque()
        self._awaited: deque[Awaited] = deque([Awaited.GREETING])
        self._due = 1  # replies to what has left `output`, the greeting being one
        self._greeting_follows = implicit_tls
        if implicit_tls:
            self._awaited, self._due = deque([Awaited.HANDSHAKE]), 0
        self._ready = False
        self._pipelining = False
        self._transaction: OutgoingTransaction | None = None
        self._reset_first = False
        self._limits = Limits()
        self._mails = 0  # MAIL commands so far
        self._domains: dict[str, None] = {}  # of RCPT commands so far

    # What the shell asks.

    @property
    def idle(self) -> bool:
        """Whether `transact` may be called."""
        return self._ready and not (self._awaited or self._transaction or self.closed)

    @property
    def spent(self) -> bool:
        """Whether the server takes no further transaction in this session (RFC 9422 §4.1)."""
        return self._limits.mails is not None and self._mails >= self._limits.mails

    def fitting(self, message: Message) -> Message:
        """Return what the server takes of ``message`` in one transaction, by what it announced.

        RFC 9422: with the recipients that may come next, in a session that is open; none where it
        takes no further one of them in this session.
        """
        recipients = message.envelope.recipients
        fitting = () if self.spent else self._limits.fitting(recipients, self._domains)
        if len(fitting) == len(recipients):
            return message
        return message.for_recipients(fitting)

    @property
    def dot_sent(self) -> bool:
        """Whether the end of a content may be on its way, and its answer is still due."""
        return self._transaction is not None and self._transaction.dot_sent

    @property
    def binary(self) -> bool:
        """Whether the content of this transaction goes by BDAT."""
        return self._transaction is not None and self._transaction.binary

    @property
    def deadline(self) -> float:
        """How long the present wait may last, in seconds."""
        awaited = self._awaited[0].value if self._awaited else "idle"
        seconds: float = getattr(self._deadlines, awaited)
        return seconds

    def output(self) -> bytes:
        """Return the octets to write now; from here on the peer may answer them."""
        if not self._output:
            return b""
        self._due = len(self._awaited)
        octets = b"".join(self._output)
        self._output.clear()
        self.secret = False
        return octets

    # What the shell reports.

    def receive(self, octets: bytes) -> list[Step]:
        """Take octets from the peer, cut anywhere."""
        steps: list[Step] = []
        if self.closed:
            return steps
        self._reader.feed(octets)
        try:
            while not self.closed and (reply := self._reader.next()) is not None:
                if isinstance(reply, Contradiction):
                    self._doubt(reply, steps)
                else:
                    self._take(reply, steps)
                self._reader.challenged = self._awaits(Awaited.AUTH)
        except BrokenReply as error:
            self._broken(error, steps)
        if not (self.closed or self._due) and self._reader.pending and not self._being_refused:
            self._out_of_turn(None, steps)
        return steps

    def handshake_completed(self, facts: TLSFacts, objection: str | None = None) -> list[Step]:
        """Go on under TLS; ``objection`` says what ``facts`` lack for the level that is asked."""
        self.tls = facts
        self._awaited.clear()
        self._know({})  # RFC 3207 §4.2: what was learnt in clear is forgotten
        steps: list[Step] = []
        if objection:
            self._part(self._ours(454, "7.5", objection), steps)  # RFC 3207 §4.1: QUIT right away
        elif self._greeting_follows:
            self._greeting_follows = False
            self._awaited.append(Awaited.GREETING)
            self._due = 1
            self.turn += 1
        else:
            self._say(Awaited.EHLO, self._hello)
        return steps

    def derived(self, response: bytes) -> list[Step]:
        """Go on with the response that `Derive` asked for."""
        steps: list[Step] = []
        if not self.closed and self._auth is not None:
            self._authenticate(self._auth.derived(response), steps)
            self._reader.challenged = self._awaits(Awaited.AUTH)
        return steps

    def connection_lost(self, reason: str) -> list[Step]:
        """Take note that the peer is gone; ``reason`` is for people."""
        return self._stop(f"connection lost {self._situation()}: {reason}")

    def timed_out(self) -> list[Step]:
        """Take note that `deadline` has passed."""
        return self._stop(f"timed out after {self.deadline:g} s {self._situation()}")

    def quit(self) -> list[Step]:
        """Leave an idle session politely; `Close` follows with the answer."""
        if not self.idle:
            raise RuntimeError("the session is not idle")
        self._say(Awaited.QUIT, "QUIT")
        return []

    def transact(self, message: Message, *, convertible: bool = False) -> list[Step]:
        """Begin the transaction for all recipients of ``message``.

        Args:
            message: what is to be sent.
            convertible: where the server does not take the content as it is, the only step is
                `NeedsConversion`; else all recipients fail with 5.6.3 then.
        """
        if not self.idle:
            raise RuntimeError("the session is not idle")
        transaction = OutgoingTransaction(
            message, self._remote, self.capabilities, self._extensions
        )
        if convertible and (reply := transaction.needs_conversion()):
            return [NeedsConversion(reply)]
        self._transaction = transaction
        transaction.offer()
        steps: list[Step] = []
        if not transaction.offered:
            self._done(steps)
            return steps
        if self._reset_first:
            self._unsent.append((Awaited.RSET, b"RSET\r\n"))
        self._mails += 1
        self._unsent.append((Awaited.MAIL, transaction.mail()))
        for place in transaction.offered:
            self._domains[message.envelope.recipients[place].mailbox.domain] = None
            self._unsent.append((Awaited.RCPT, transaction.rcpt(place)))
        if not transaction.binary:
            self._unsent.append((Awaited.DATA, b"DATA\r\n"))  # RFC 2920 §3.1: last in its group
        self._release()
        return steps

    def body(self) -> Iterator[bytes]:
        """Yield the content, ready for the wire: up to the final dot, or as a chunk.

        Raises:
            OSError: the content cannot be read; to be reported by `body_failed`.
        """
        for piece in self.content():
            if octets := self.body_read(piece):
                yield octets
        yield self.body_read(None)

    def content(self) -> Iterator[bytes]:
        """Return the pieces of the content; each one, and None at the end, is for `body_read`.

        They may be read in a thread: nothing of the session has a part in it.

        Raises:
            OSError: (as they are read) the content cannot be; to be reported by `body_failed`.
        """
        transaction = self._sending()
        self._held = b""
        content = chunked if transaction.binary else stuffed
        return content(transaction.message)

    def body_read(self, piece: bytes | None) -> bytes:
        """Return what is to be written when a piece of the content was read; None: that was all."""
        transaction = self._sending()
        octets, self._held = self._held, piece or b""
        if piece is None:
            # The last piece ends the content: from here on the message may be delivered.
            transaction.dot_sent = True
            self._awaited[0] = Awaited.DOT
            if self._lmtp:
                # RFC 2033 §4.2: a reply for each recipient that was taken, repeated ones included.
                self._awaited.extend([Awaited.DOT] * (len(transaction.taken) - 1))
            self._due = len(self._awaited)
            self.turn += 1
        return octets

    def body_failed(self, reason: str) -> list[Step]:
        """Break off: the content cannot be read to its end, so its end may not be sent."""
        transaction = self._sending()
        reply = Reply.of(451, "3.0", f"the message cannot be read: {reason}")
        transaction.settle(transaction.taken, reply, ours=True)
        return self._stop(reason)

    # How a connection ends.

    def _take(self, reply: Reply, steps: list[Step]) -> None:
        if self._due == 0:
            self._out_of_turn(reply, steps)
            return
        self.turn += 1
        if reply.code == 421:
            self._close_down(reply, steps)
            return
        self._due -= 1
        _ACTIONS[self._awaited.popleft()][reply.code // 100 - 2](self, reply, steps)

    def _doubt(self, contradiction: Contradiction, steps: list[Step]) -> None:
        """Take a reply of several classes: what it is about is deferred, whatever was meant."""
        awaited = self._awaited[0] if self._awaited else None
        text = f"its reply contradicts itself ({self._situation()}): {contradiction.said}"
        reply = self._ours(451, "5.0", text)
        refuses = contradiction.reply.code >= 400
        in_step = clear_retry = False
        if awaited in _INDIFFERENT:
            reply, in_step = contradiction.reply, True
        elif awaited is Awaited.DOT and self._due:
            transaction, in_step = self._current, self._lmtp
            places = transaction.taken[transaction.answers :][: 1 if self._lmtp else None]
            transaction.settle(places, reply, ours=True, uncertain=contradiction.consents)
        elif awaited is Awaited.RCPT and self._due and refuses:
            # Not if the last line takes it: each attempt's content would be one more copy there.
            transaction, in_step = self._current, True
            transaction.settle([transaction.offered[transaction.asked]], reply, ours=True)
        elif awaited is Awaited.STARTTLS and self._due:  # perhaps it waits for a handshake
            in_step, clear_retry = refuses, self._level == "may" and self._credentials is None
        if in_step:
            self._take(reply, steps)
        else:
            self._end(reply, steps, clear_retry=clear_retry)

    def _close_down(self, reply: Reply, steps: list[Step]) -> None:
        if self._lmtp and self._awaits(Awaited.DOT):
            # It stands where the reply for one recipient is due, and those behind it have none.
            self._settle_next(reply)
            if len(self._awaited) > 1:
                self._end(self._ours(451, "4.2", f"closed down: {reply}"), steps, abort=False)
                return
        self._end(reply, steps, remote=self._remote, abort=False)

    def _out_of_turn(self, reply: Reply | None, steps: list[Step]) -> None:
        awaited = self._awaited[0] if self._awaited else None
        if awaited is Awaited.HANDSHAKE:
            # RFC 3207 §4.2, §6: sent in clear, perhaps by someone between us and the server.
            text = "octets in clear behind the 220 reply to STARTTLS"
            self._end(self._ours(454, "7.0", text), steps)
        elif reply and (reply.code == 421 or (awaited is Awaited.BODY and reply.code >= 400)):
            # A server that closes an idle connection, or will not hear the content to its end.
            if self._lmtp and self._transaction is not None and reply.code != 421:
                self._settle_next(reply)  # and no word about those behind it
                text = f"the content was refused while it was sent: {reply}"
                self._end(self._ours(451, "4.2", text), steps)
            else:
                self._end(reply, steps, remote=self._remote)
        else:
            self._end(self._ours(451, "5.0", "a reply that nothing was asked for"), steps)

    def _broken(self, error: BrokenReply, steps: list[Step]) -> None:
        ours = self._ours(451, "5.0", f"{error} ({self._situation()})")
        reply = error.reply
        if self._due == 0:
            self._out_of_turn(None, steps)
        elif reply is None or reply.code < 400 or self._transaction is None:
            self._end(ours, steps)
        else:
            # A refusal that does not end is a refusal all the same, and the last we hear.
            self._take(reply, steps)
            if not self.closed:
                self._end(ours, steps)

    def _confused(self, reply: Reply, steps: list[Step]) -> None:
        self._end(self._ours(451, "5.0", f"not an answer to what was said: {reply}"), steps)

    def _stop(self, text: str) -> list[Step]:
        steps: list[Step] = []
        if self.closed:
            return steps
        if self._awaits(Awaited.HANDSHAKE):
            clear_retry = self._level == "may" and self._credentials is None
            self._end(self._ours(454, "7.5", text), steps, clear_retry=clear_retry)
        else:
            self._end(self._ours(451, "4.2", text), steps)
        return steps

    def _end(
        self,
        reply: Reply,
        steps: list[Step],
        *,
        remote: str | None = None,
        clear_retry: bool = False,
        abort: bool = True,
    ) -> None:
        # Whatever was to be done on this connection is void; what came of it so far is not.
        steps[:] = [step for step in steps if isinstance(step, TransactionDone | Unusable)]
        if self._auth is not None:
            reply = self._auth.discreet(reply)
        transaction, self._transaction = self._transaction, None
        if transaction is not None and (transaction.answered or transaction.dot_sent):
            ours = remote is None
            if transaction.dot_sent and ours:
                transaction.settle(transaction.taken, reply, ours=True, uncertain=True)
            everyone = range(len(transaction.message.envelope.recipients))
            transaction.settle(everyone, reply, ours=ours)
            steps.append(TransactionDone(transaction.outcomes(self.tls)))
        elif not steps:
            steps.append(Unusable(reply, remote, self.tls, clear_retry))
        self.closed = True
        self._awaited.clear()
        self._unsent.clear()
        self._output.clear()
        self.secret = False
        steps.append(Close(abort))

    def _part(self, reply: Reply, steps: list[Step], remote: str | None = None) -> None:
        steps.append(Unusable(reply, remote, self.tls))
        self._leave(reply, steps)

    def _leave(self, reply: Reply, steps: list[Step]) -> None:
        self._ready = False
        self._say(Awaited.QUIT, "QUIT")

    def _bye(self, reply: Reply, steps: list[Step]) -> None:
        self.closed = True
        steps.append(Close())

    # Opening.

    def _greeted(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code != 220:
            self._confused(reply, steps)
        else:
            self._say(Awaited.EHLO, self._hello)

    def _turned_away(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code == 554:
            # RFC 5321 §3.1: no SMTP service at this host; says nothing about the next one, and as
            # many servers say it for a while as do for good.
            reply = Reply(454, reply.status, reply.lines)
        self._part(reply, steps, self._remote)  # RFC 5321 §3.1: it waits for our QUIT

    def _say_helo(self, reply: Reply, steps: list[Step]) -> None:
        if self._lmtp:
            # RFC 2033 §4.1: there is nothing to fall back on. A server of SMTP at the end of a
            # route for LMTP is the operator's mistake, and no reason to return mail.
            self._part(self._ours(451, "5.1", f"LHLO was refused: {reply}"), steps)
        else:
            self._say(Awaited.HELO, f"HELO {self._helo}")  # RFC 5321 §3.2

    def _extended(self, reply: Reply, steps: list[Step]) -> None:
        capabilities = {}
        for line in reply.lines[1:]:
            keyword, _, parameters = line.partition(" ")
            capabilities[keyword.upper()] = parameters.strip()
        self._know(capabilities)
        if self.tls is None and self._level != "none" and "STARTTLS" in capabilities:
            self._say(Awaited.STARTTLS, "STARTTLS")  # RFC 3207 §4: alone, so last in its group
        else:
            self._open(steps)

    def _plain(self, reply: Reply, steps: list[Step]) -> None:
        self._know({})
        self._open(steps)

    def _start_tls(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code != 220:
            self._stay_clear(reply, steps)
            return
        self._awaited.append(Awaited.HANDSHAKE)
        steps.append(StartTLS())

    def _stay_clear(self, reply: Reply, steps: list[Step]) -> None:
        self._open(steps, f"STARTTLS was refused: {reply}")

    def _open(self, steps: list[Step], reason: str = "STARTTLS is not offered") -> None:
        if self._needs_tls and self.tls is None:
            # RFC 3207 §4: whether to go on in clear is ours to decide. Deferred even when refused
            # by a 5yz: the refusal is of TLS, not of the message.
            if self._credentials is not None:
                reason += ", and our credentials are never sent in clear"
            self._part(self._ours(454, "7.4", reason), steps)
        elif self._credentials is not None:
            self._auth = ClientAuth(
                self._credentials, self.capabilities.get("AUTH"), nonce=self._nonce
            )
            self._authenticate(self._auth.begin(), steps)
        else:
            self._be_ready(steps)

    def _be_ready(self, steps: list[Step]) -> None:
        self._ready = True
        steps.append(Ready())

    @property
    def _needs_tls(self) -> bool:
        return self._credentials is not None or self._level not in ("none", "may")

    def _know(self, capabilities: Mapping[str, str]) -> None:
        self.capabilities = capabilities
        self._pipelining = "PIPELINING" in capabilities
        self._limits = Limits.announced(capabilities.get("LIMITS", ""))

    def _auth_answered(self, reply: Reply, steps: list[Step]) -> None:
        assert self._auth is not None
        self._authenticate(self._auth.take(reply), steps)

    def _authenticate(self, going: bytes | Derivation | AuthEnd, steps: list[Step]) -> None:
        if isinstance(going, bytes):
            self._say_secret(Awaited.AUTH, going)
            return
        if isinstance(going, Derivation):
            steps.append(Derive(going.respond))
            return
        self._auth = None
        if going.known:
            self._be_ready(steps)
        elif going.reply is not None:
            self._part(going.reply, steps, self._remote)
        else:
            # For the operator to mend, and no reason to return mail: deferred.
            ours = self._ours(454, "7.8", going.text)
            steps.append(Unusable(ours, None, self.tls, credentials_refused=True))
            if going.cancel:
                self._say_secret(Awaited.CANCEL, CANCEL)
            else:
                self._leave(ours, steps)

    # The transaction.

    def _proceed(self, reply: Reply, steps: list[Step]) -> None:
        self._release()

    def _mail_taken(self, reply: Reply, steps: list[Step]) -> None:
        self._current.answered = True
        self._release()

    def _mail_refused(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        transaction.answered = True
        transaction.settle(transaction.offered, reply)
        self._unsent.clear()
        self._go_on(steps)

    def _rcpt_taken(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        place = transaction.offered[transaction.asked]
        transaction.asked += 1
        if not transaction.is_settled(place):
            transaction.taken.append(place)
        self._go_on(steps)

    def _rcpt_refused(self, reply: Reply, steps: list[Step]) -> None:
        if reply.code == 552:  # RFC 5321 §4.5.3.1.10: means 452, too many recipients
            reply = Reply(452, reply.status, reply.lines)
        transaction = self._current
        transaction.settle([transaction.offered[transaction.asked]], reply)
        transaction.asked += 1
        if transaction.asked == len(transaction.offered) and not transaction.taken:
            self._unsent.clear()
        self._go_on(steps)

    def _send_body(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        if transaction.taken:
            self._begin_content(steps)
        elif self._lmtp:
            self._confused(reply, steps)  # RFC 2033 §4.2: a 503 is due; no reply follows the dot
        else:
            self._say(Awaited.NOTHING, ".")  # RFC 2920 §3.1: 354 although no recipient was taken

    def _begin_content(self, steps: list[Step]) -> None:
        self._awaited.append(Awaited.BODY)
        steps.append(SendBody(self._current.size))

    def _data_refused(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        transaction.settle(transaction.taken, reply)
        self._done(steps)

    def _content_answered(self, reply: Reply, steps: list[Step]) -> None:
        transaction = self._current
        if self._lmtp:
            self._settle_next(reply)
        else:
            transaction.settle(transaction.taken, reply)
        if not self._awaited:
            self._done(steps, reset=not transaction.delivered)

    def _settle_next(self, reply: Reply) -> None:
        # RFC 2033 §4.2: the replies come in the order of the RCPT commands.
        transaction = self._current
        transaction.settle([transaction.taken[transaction.answers]], reply)
        transaction.answers += 1

    def _finish(self, reply: Reply, steps: list[Step]) -> None:
        self._done(steps)

    def _done(self, steps: list[Step], *, reset: bool = True) -> None:
        transaction, self._transaction = self._current, None
        # Where the content was taken, the server has cleared its buffers (RFC 5321 §4.1.1.4).
        self._reset_first = reset if transaction.answered else self._reset_first
        steps.append(TransactionDone(transaction.outcomes(self.tls)))

    # Speaking.

    def _say(self, awaited: Awaited, line: str) -> None:
        self._awaited.append(awaited)
        self._output.append(f"{line}\r\n".encode())
        self.turn += 1

    def _say_secret(self, awaited: Awaited, line: bytes) -> None:
        self._awaited.append(awaited)
        self._output.append(line)
        self.secret = True
        self.turn += 1

    def _release(self) -> None:
        unsent = self._unsent
        while unsent and (self._pipelining or not self._awaited):
            awaited, line = unsent.popleft()
            if awaited is Awaited.RSET:
                self._reset_first = False
            self._awaited.append(awaited)
            self._output.append(line)
            self.turn += 1

    def _go_on(self, steps: list[Step]) -> None:
        self._release()
        if self._awaited:
            return
        if self._current.binary and self._current.taken:
            # RFC 3030 §2: BDAT is asked for by nobody, so only now, when somebody is to have it.
            self._begin_content(steps)
        else:
            self._done(steps)

    @property
    def _current(self) -> OutgoingTransaction:
        assert self._transaction is not None
        return self._transaction

    def _sending(self) -> OutgoingTransaction:
        if self._transaction is None or Awaited.BODY not in self._awaited:
            raise RuntimeError("no content is asked for")
        return self._transaction

    @property
    def _being_refused(self) -> bool:
        # The answer to content that is still being sent has come in part: the rest will follow.
        return self._awaits(Awaited.BODY) and self._reader.refusing

    def _awaits(self, awaited: Awaited) -> bool:
        return bool(self._awaited) and self._awaited[0] is awaited

    def _situation(self) -> str:
        binary = self._transaction is not None and self._transaction.binary
        awaited = self._awaited[0] if self._awaited else None
        return situation(awaited, binary=binary, lmtp=self._lmtp)

    def _ours(self, code: int, status: str, text: str) -> Reply:
        return Reply.of(code, status, f"{self._remote}: {text}")


_Action: TypeAlias = Callable[[ClientSession, Reply, list[Step]], None]

_ACTIONS: dict[Awaited, tuple[_Action, ...]] = {
    awaited: tuple(getattr(ClientSession, name) for name in names)
    for awaited, names in _TABLE.items()
}
