"""A server session (RFC 5321), pure: octets in; steps, decisions to make, and replies out.

Theory of operation. The shell (`server.protocol`) gives all octets that arrive to `Session.receive`
and then takes steps until there are none:

    session.receive(octets)
    while (step := session.step()) is not None:
        …                            take the step, then tell the session its result
    transport.write(session.output())

A step that asks for a decision (`Mail`, `Rcpt`, `Open`, `Finish`, `Authenticate`) stops the session
until `Session.answer` is called, at once or much later. Until then nothing that follows is obeyed,
so replies keep the order of the commands even where decisions are asynchronous (RFC 2920 §3.2), and
the replies to a pipelined group leave in one write.

All framing is here, so that every split point can be tested without a socket: the end of a command
line, the end of the content, and the octets that may not follow EHLO, DATA, AUTH and STARTTLS.
`machine.TRANSITIONS` has all that each state allows, and `dialect` all in which LMTP differs.
`Session.transaction` is the one value that RSET, EHLO and STARTTLS forget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ...mail.decision import ContentDecision
from ...mail.envelope import Parameters
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from ..command import (
    GREETING_NAME,
    GREETING_NAME_WITH_SPACES,
    NOT_TEXT,
    TOO_LONG,
    CommandError,
    Greeting,
    no_argument,
    parse_bdat,
    parse_line,
    parse_mail,
    parse_rcpt,
    with_brackets,
)
from ..data import ChunkReader
from ..extension import Extension
from ..extension.views import NewClient
from ..peer import Peer
from . import replies
from .auth import Challenge, Granted, Next, ServerAuth, Verdict
from .content import Content
from .help import help_reply
from .machine import REPLACEABLE, WITHOUT_TLS, Event, State
from .refusal import why_not
from .settings import COMMAND_LINE, SessionSettings
from .step import (
    Abort,
    Authenticate,
    Close,
    Downgrade,
    Finish,
    Hello,
    Mail,
    Open,
    Question,
    Rcpt,
    Represent,
    Rest,
    StartTLS,
    Step,
    Violation,
    Write,
)
from .transaction import Accepted, Transaction

# Read for each command: an attribute of an Enum takes three times as long as a global.
_CONTENT = State.CONTENT
_HANDSHAKE = State.HANDSHAKE
_AUTH = State.AUTH
_CLOSED = State.CLOSED

_CR = ord("\r")

_AT_ONCE = 25  # commands that are obeyed without a step for the shell; each takes 10 to 50 µs


class Session:
    """A server session, from the opening to the last reply.

    Attributes:
        question: the step that `answer` or `answer_auth` is waited for; None: none is.
        state: where the session stands; see `machine.TRANSITIONS`.
        settings: of its listener.
        peer: the client, or the client that a proxy speaks for.
        proxy: the proxy that speaks for `peer` (XCLIENT); None where the client itself is
            connected.
        local_address: our own address as the client sees it; None on a UNIX socket, and where a
            proxy does not tell.
        local_port: our own port as the client sees it; 0 likewise.
        tls_ready: returns whether a handshake could begin now; None where TLS is not configured.
        greeting: the verb that the client greeted us with, after the last STARTTLS; None before.
        helo: the name in that greeting; empty before.
        tls: what the TLS handshake achieved; None in clear.
        identity: the authenticated user (RFC 4954); None without.
        auth: the AUTH exchanges.
        transaction: the mail transaction; None outside of one.
        notes: what the delivery keeps for the session; the session does not use it.
        errors: replies of 5yz since the last accepted message.
        overheard: called with each line that is read where a command may stand, without its CR LF,
            before it is obeyed: `state` tells commands from responses to AUTH. None while no trace
            is open.
        refusals: the latest replies with which the session itself refused content or ended; the
            shell takes them out for the log.
        accepted: messages so far.
        negative: replies of 4yz and 5yz so far.
        last_negative: the last ones of these.
        last_reply: the last reply; None before the first.
    """

    state: State = State.START

    def __init__(
        self,
        settings: SessionSettings,
        *,
        peer: Peer,
        local_address: str | None = None,
        local_port: int = 0,
        tls_ready: Callable[[], bool] | None = None,
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.proxy: Peer | None = None
        self.local_address = local_address
        self.local_port = local_port
        self.tls_ready = tls_ready
        self.greeting: Greeting | None = None
        self.helo = ""
        self.tls: TLSFacts | None = None
        self.identity: str | None = None
        self.auth = ServerAuth(settings, self)
        self.transaction: Transaction | None = None
        self.notes: object = None
        self.errors = 0
        self.overheard: Callable[[bytes], None] | None = None
        self.refusals: deque[Reply] = deque(maxlen=20)
        self.accepted = 0
        self.negative = 0
        self.last_negative: deque[Reply] = deque(maxlen=3)
        self.last_reply: Reply | None = None
        self._transitions = settings.dialect.transitions
        self._in = b""
        self._searched = 0  # octets at the beginning of `_in` that hold no line end
        self._out: list[bytes] = []
        self.question: Question | None = None
        self._draining_line = False  # until its CR LF: the line has its reply already
        self._draining_chunk = 0  # octets still to come of a chunk that has its reply already
        self._steps: deque[Step] = deque()  # not yet taken by the shell

    def _enter(self, event: Event) -> None:
        """Enter the next state: the only line that does."""
        self.state = self._transitions[self.state][event]

    # What the shell calls.

    def greet(self) -> None:
        """Send the opening (RFC 5321 §3.1)."""
        self._reply(self.opening)

    def receive(self, octets: bytes) -> None:
        """Take octets that arrived, for `step`; after the end of the session they are dropped."""
        if self.state is not _CLOSED:
            self._in = self._in + octets if self._in else octets

    def output(self) -> bytes:
        """Return the octets to write now."""
        if not self._out:
            return b""
        out = b"".join(self._out)
        self._out.clear()
        return out

    @property
    def opening(self) -> Reply:
        """The first reply of the session (RFC 5321 §4.3.1), and the reply to XCLIENT."""
        return Reply.fixed(220, None, f"{self.settings.hostname} {self.settings.dialect.word}")

    @property
    def content_open(self) -> bool:
        """Whether `Open` was answered, and neither `Finish` nor `Abort` has followed."""
        return self.transaction is not None and self.transaction.content_open

    @property
    def content_octets(self) -> int:
        """How many octets of the content have arrived."""
        content = self.transaction.content if self.transaction is not None else None
        return 0 if content is None else content.octets

    @property
    def content_looks_ended(self) -> bool:
        """Whether the client may believe that it has ended the content, and it has not."""
        content = self.transaction.content if self.transaction is not None else None
        return content is not None and content.looks_ended

    @property
    def deciding(self) -> bool:
        """Whether the session waits for `answer`, or for `answer_auth`."""
        return self.question is not None

    @property
    def unfinished(self) -> bool:
        """Whether `step` may return a step before more octets or an answer have come."""
        return (
            bool(self._steps or self._in)
            and self.question is None
            and self.state is not State.HANDSHAKE
            and self.state is not State.CLOSED
        )

    def step(self) -> Step | None:
        """Return the next step to take; None while more octets or an answer are needed."""
        steps = self._steps
        obeyed = 0
        while not steps and self._in and self.question is None:
            state = self.state
            if state is _CONTENT:
                self._read_content()
            elif state is _HANDSHAKE or state is _CLOSED or not self._read_command():
                break
            obeyed += 1
            if obeyed == _AT_ONCE and not steps:
                return Rest()
        return steps.popleft() if steps else None

    def answer(self, decision: ContentDecision = None) -> None:
        """Take the decision that the last step asked for.

        Args:
            decision: the reply. Its class decides whether the command is accepted; 421 ends the
                session. None accepts with the usual reply. For `Finish` it may be one reply for
                each recipient of the transaction: see `dialect.Dialect.of_content`.
        """
        question, self.question = self.question, None
        if self.state is not _CLOSED and question is not None:
            _ANSWERS[type(question)](self, question, decision)

    def answer_auth(self, verdict: Verdict) -> None:
        """Take the verdict on the evidence of the last step (`Authenticate`)."""
        question, self.question = self.question, None
        if self.state is not State.CLOSED and isinstance(question, Authenticate):
            self._go_on_with_auth(self.auth.answer(verdict))

    def tls_established(
        self, facts: TLSFacts, binding: Callable[[str], bytes | None] | None = None
    ) -> None:
        """Begin anew after a TLS handshake, by STARTTLS or at the beginning of the connection.

        Args:
            facts: what the handshake achieved.
            binding: returns the channel binding of a name, None where there is none (RFC 5929).
        """
        if self.state is State.CLOSED:
            return
        self.tls = facts
        self.auth.binding = binding
        # RFC 3207 §4.2: "The server MUST discard any knowledge obtained from the client, such as
        # the argument to the EHLO command, which was not obtained from the TLS negotiation itself."
        self.greeting = None
        self.helo = ""
        self.identity = None
        self.transaction = None
        # RFC 3207 §6: octets that came in clear after STARTTLS are dropped too: an attacker between
        # the client and us may have put commands there, to have them obeyed under TLS.
        self._in = b""
        # RFC 3207 §4.1: both sides decide whether the authentication and privacy achieved suffice.
        suffices = self.settings.tls_suffices(facts)
        self._enter(Event.TLS_SUFFICES if suffices else Event.TLS_TOO_WEAK)

    def end(self, reply: Reply) -> None:
        """End the session from our side, with a last reply (RFC 5321 §3.8: 421)."""
        if self.state is not State.CLOSED:
            self.refusals.append(reply)
            self._reply(reply)
            self._close()

    # What extensions see besides (`extension.views.SessionView`).

    @property
    def mechanism(self) -> str:
        """The SASL mechanism by which the user was authenticated; empty where it is not known."""
        return self.auth.mechanism if self.identity is not None else ""

    @property
    def mechanisms(self) -> Sequence[str]:
        """The SASL mechanisms that may be used here and now."""
        return self.auth.offered()

    @property
    def mail_parameters(self) -> Collection[str]:
        """The keywords of the parameters that MAIL takes here, in upper case."""
        return self.settings.mail_readers

    @property
    def lmtp(self) -> bool:
        """Whether the session speaks LMTP (RFC 2033)."""
        return self.settings.dialect.per_recipient

    # Leniency.

    @property
    def lenient(self) -> bool:
        """Whether the client may write commands as devices do that cannot change.

        Then the name in HELO may have spaces, and a path may lack its brackets. Since it may relay,
        nothing that it writes makes it more than it is.
        """
        return self.settings.trusts(self)

    def _normalizes(self) -> bool:
        """Whether a bare LF ends a command, and bare CR and LF in content are repaired.

        The content itself ends at CR LF ``.`` CR LF alone, whoever the client is.
        """
        return self.settings.bare_newlines != "reject" and self.lenient

    def _with_brackets(self, argument: str, error: CommandError) -> str:
        """Return an argument of MAIL or RCPT with brackets, for a lenient session.

        Raises:
            CommandError: ``error``, where that does not help.
        """
        bracketed = with_brackets(argument)
        if bracketed is None or not self.lenient:
            raise error
        return bracketed

    def _normalizes_content(self) -> bool:
        return self.settings.bare_newlines == "normalize" or self._normalizes()

    # Command lines.

    def _read_command(self) -> bool:
        """Obey a command from the octets that arrived; return whether to call again."""
        if self._draining_chunk:
            drained = min(self._draining_chunk, len(self._in))
            self._in = self._in[drained:]
            self._draining_chunk -= drained
            return bool(self._in)
        buffer = self._in
        end = buffer.find(b"\n", self._searched)
        behind = end + 1
        if end > 0 and buffer[end - 1] == _CR:
            end -= 1
        elif end >= 0 and not self._normalizes():  # RFC 5321 §2.3.8: CR LF alone ends a line
            end = buffer.find(b"\r\n", end)
            behind = end + 2
        if end < 0:
            self._give_up_on_line(buffer)
            return False
        self._searched = 0
        line, self._in = buffer[:end], buffer[behind:]
        if self.overheard is not None:
            self.overheard(line)
        if self._draining_line:
            self._draining_line = False
            return True
        if self.state is _AUTH:
            self._go_on_with_auth(self.auth.respond(line))
            return True
        try:
            if behind > COMMAND_LINE:
                self._check_length(line)
            self._obey(*parse_line(line))
        except CommandError as error:
            self._refuse_line(line, error.reply)
        return True

    def _give_up_on_line(self, buffer: bytes) -> None:
        # A line that can no longer become a command has its reply at once, and is drained to its
        # CR LF: a client that ends its lines with a bare LF would else wait for ever.
        searched, self._searched = self._searched, max(0, len(buffer) - 1)
        if not self._draining_line:
            if buffer.find(b"\n", searched) >= 0:
                self._refuse_line(buffer, NOT_TEXT)
            elif len(buffer) > self.settings.longest_line - 1:
                self._refuse_line(buffer, TOO_LONG)
            else:
                return
            self._draining_line = True
        if self.state is not State.CLOSED:
            self._in = b"\r" if buffer.endswith(b"\r") else b""
            self._searched = 0

    def _refuse_line(self, line: bytes, reply: Reply) -> None:
        if self.state is State.AUTH:
            self.auth.cancel()
            self._enter(Event.AUTH_ENDED)
            reply = replies.EXCHANGE_TOO_LONG if reply is TOO_LONG else replies.NOT_BASE64
        elif reply is TOO_LONG and self.settings.auth and line[:5].upper() == b"AUTH ":
            reply = replies.EXCHANGE_TOO_LONG  # RFC 4954 §4
        # RFC 3030 §2: a chunk follows BDAT at once. If the line cannot be read, the length of the
        # chunk is not known, and its content would be obeyed as commands.
        if line[:4].upper() == b"BDAT":
            self.end(replies.CHUNK_UNREADABLE)
        else:
            self._refuse(reply)

    def _check_length(self, line: bytes) -> None:
        verb = line[:4].decode("ascii", "replace").upper()
        if len(line) + 2 > self.settings.line_octets.get(verb, COMMAND_LINE):
            raise CommandError(TOO_LONG)

    def _obey(self, verb: str, argument: str) -> None:
        settings, in_clear = self.settings, self.tls is None
        extension = None if verb in _OWN_COMMANDS else settings.commands.get(verb)
        event = verb if extension is None else Event.EXTENSION
        # RFC 3207 §4: where TLS is required, few commands are obeyed in clear.
        needs_tls = in_clear and settings.require_tls and verb not in WITHOUT_TLS
        allowed = event in self._transitions[self.state] and not needs_tls
        if self._in and (verb in settings.dialect.last_in_group or extension is not None):
            # RFC 2920 §3.1, RFC 3207 §4, RFC 4954 §4: octets that came before the reply to the last
            # command of a group are obeyed neither before nor after it.
            self._out_of_step(verb)
        elif verb == "MAIL" and in_clear and settings.requires_tls_of(self.proxy or self.peer):
            # RFC 3207 §6: an attacker on the way may have removed STARTTLS.
            self._steps.append(Downgrade())
            self._refuse(replies.TLS_REQUIRED)
        elif allowed and extension is not None:
            self._obey_extension(extension, verb, argument)
        elif allowed and (verb != "BDAT" or settings.chunking):
            _COMMANDS[verb](self, argument)
        else:
            if verb == "BDAT":
                self._drain_chunk(argument)
            self._refuse(
                why_not(
                    verb,
                    state=self.state,
                    in_clear=in_clear,
                    settings=settings,
                    own=verb in _COMMANDS,
                )
            )

    def _obey_extension(self, extension: Extension, verb: str, argument: str) -> None:
        if extension.announcement(self) is None:
            self._refuse(extension.not_offered)
            return
        result = extension.commands[verb](self, argument)
        if isinstance(result, NewClient):
            self._begin_anew(result)
        elif result.code < 400:
            self._reply(result)
        else:
            self._refuse(result)

    def _begin_anew(self, client: NewClient) -> None:
        """Become the session of a client that the connected peer speaks for (XCLIENT).

        Of TLS all is kept but the certificate: that is the proxy's, and permissions that go by it
        are not the client's. For the same reason STARTTLS is refused from now on: RFC 3207 §4.2
        makes us forget what was learned in clear, and that would leave the client with the
        permissions of the proxy.
        """
        if self.proxy is None:
            self.proxy = self.peer
        self.peer = client.peer
        self.local_address = client.local_address
        self.local_port = client.local_port
        if self.tls is not None:
            self.tls = self.tls.without_peer
        self.greeting = client.greeting
        self.helo = client.helo
        self.identity = client.identity
        self._forget_transaction()
        self.errors = 0
        greeted = client.greeting is not None
        self._enter(Event.NEW_CLIENT_GREETED if greeted else Event.NEW_CLIENT)
        self._steps.append(Represent())
        self._reply(self.opening)

    def _drain_chunk(self, argument: str) -> None:
        # RFC 3030 §2: the chunk follows at once, so it is drained even where BDAT is refused; else
        # its content would be taken for commands.
        self._draining_chunk = parse_bdat(argument).octets

    def _ehlo(self, argument: str) -> None:
        self._hello("EHLO", argument)

    def _lhlo(self, argument: str) -> None:
        self._hello("LHLO", argument)  # RFC 2033 §4.1

    def _helo(self, argument: str) -> None:
        self._hello("HELO", argument)

    def _hello(self, verb: Greeting, argument: str) -> None:
        if not GREETING_NAME.fullmatch(argument) and not (
            GREETING_NAME_WITH_SPACES.fullmatch(argument) and self.lenient
        ):
            self._refuse(Reply.of(501, "5.4", f"Syntax: {verb} hostname"))
            return
        before = Hello(self.greeting, self.helo)
        self.greeting = verb
        self.helo = argument
        if self.settings.decides_on_helo:
            self._ask(before)
        else:
            self._answer_hello(before, None)

    def _starttls(self, argument: str) -> None:
        if argument:
            # RFC 3207 §4: "501 Syntax error (no parameters allowed)"
            self._refuse(Reply.of(501, "5.4", "Syntax error (no parameters allowed)"))
        elif self.tls is not None:
            # RFC 3207 §4.2: a TLS session must not be started while one is active.
            self._refuse(replies.TLS_ACTIVE)
        elif self.tls_ready is None:
            # RFC 5321 §4.2.4: 502 for a command that is not implemented, or not configured.
            self._refuse(replies.NOT_IMPLEMENTED)
        elif self.proxy is not None:
            self._refuse(replies.TLS_COMES_FIRST)  # see `_begin_anew`
        elif not self.tls_ready():
            # RFC 3207 §4: "454 TLS not available due to temporary reason"
            self._refuse(replies.TLS_FAILED)
        else:
            # RFC 3207 §4: "220 Ready to start TLS"; from here on the client sends its handshake.
            self._reply(replies.READY_FOR_TLS)
            self._forget_transaction()
            self._enter(Event.STARTTLS)
            self._steps.append(StartTLS())

    def _auth(self, argument: str) -> None:
        begun = self.auth.begin(argument)
        self._enter(Event.AUTH)
        self._go_on_with_auth(begun)

    def _go_on_with_auth(self, following: Next) -> None:
        if isinstance(following, Authenticate):
            self._ask(following)
        elif self._in:
            self._out_of_step("AUTH")  # RFC 4954 §4: written before the reply could be read
        elif isinstance(following, Challenge):
            self._out.append(following.wire)
        else:
            self._enter(Event.AUTH_ENDED)
            if isinstance(following, Granted):
                self.identity = following.identity
                self._reply(replies.AUTHENTICATED)
            else:
                self._refuse(following)
                if self.auth.exhausted:
                    self.end(replies.TOO_MANY_AUTH_FAILURES)

    def _mail(self, argument: str) -> None:
        if self.auth.required:
            raise CommandError(replies.AUTH_REQUIRED)  # RFC 4954 §6, RFC 6409 §4.3
        readers = self.settings.mail_readers
        try:
            path, parameters, is_ascii = parse_mail(argument, readers)
        except CommandError as error:
            argument = self._with_brackets(argument, error)
            path, parameters, is_ascii = parse_mail(argument, readers)
        self._check_ascii(is_ascii, parameters)
        if path is not None and not path.domain:
            raise CommandError(Reply.of(501, "1.7", "Bad address: an address needs a domain"))
        self._ask(Mail(path, parameters))

    def _rcpt(self, argument: str) -> None:
        readers = self.settings.rcpt_readers
        try:
            path, parameters, is_ascii = parse_rcpt(argument, readers)
        except CommandError as error:
            argument = self._with_brackets(argument, error)
            path, parameters, is_ascii = parse_rcpt(argument, readers)
        if path is None:
            raise CommandError(Reply.of(501, "1.3", "Bad address: the null path receives no mail"))
        transaction = self.transaction
        assert transaction is not None
        self._check_ascii(is_ascii, transaction.parameters)
        if len(transaction.recipients) >= self.settings.max_recipients:
            if not transaction.full:
                transaction.full = True
                self.refusals.append(replies.TOO_MANY_RECIPIENTS)
            raise CommandError(replies.TOO_MANY_RECIPIENTS)  # RFC 5321 §4.5.3.1.10
        self._ask(Rcpt(path, parameters))

    def _check_ascii(self, is_ascii: bool, parameters: Parameters) -> None:
        if not is_ascii and ("SMTPUTF8" not in parameters or self.greeting == "HELO"):
            raise CommandError(replies.NEEDS_UTF8)  # RFC 6531 §3.5

    def _data(self, argument: str) -> None:
        no_argument(argument, "DATA")
        transaction = self.transaction
        assert transaction is not None
        if transaction.binary:
            raise CommandError(replies.ONLY_CHUNKS)  # RFC 3030 §3
        transaction.content = Content(self.settings, normalizes=self._normalizes_content)
        self._ask(Open())

    def _bdat(self, argument: str) -> None:
        octets, last = parse_bdat(argument)
        transaction = self.transaction
        assert transaction is not None
        transaction.last_chunk = last
        if self.state is State.RCPT:
            content = Content(
                self.settings,
                normalizes=self._normalizes_content,
                chunked=True,
                binary=transaction.binary,
            )
            assert content.chunks is not None
            content.chunks.left = octets
            transaction.content = content
            self._ask(Open())
        else:
            assert transaction.content is not None
            chunks = transaction.content.chunks
            assert chunks is not None
            chunks.left = octets
            self._enter(Event.BDAT)
            self._end_chunk_if_complete(transaction, chunks)

    def _rset(self, argument: str) -> None:
        no_argument(argument, "RSET")
        self._forget_transaction()
        self._enter(Event.RSET)
        self._reply(replies.OK)

    def _noop(self, argument: str) -> None:
        self._reply(replies.OK)  # RFC 5321 §4.1.1.9: an argument is ignored

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise CommandError(Reply.of(501, "5.4", "Syntax: VRFY address"))
        self._reply(replies.NOT_VERIFIED)  # RFC 5321 §3.5.3, §7.3

    def _help(self, argument: str) -> None:
        self._reply(help_reply(self.settings, tls=self.tls_ready is not None))

    def _quit(self, argument: str) -> None:
        no_argument(argument, "QUIT")
        self._reply(replies.BYE)
        self._close(Event.QUIT)

    # Decisions.

    def _ask(self, question: Question) -> None:
        self.question = question
        self._steps.append(question)

    def _answer_hello(self, question: Hello, decision: Reply | None) -> None:
        if decision is not None and decision.code // 100 != 2:
            # RFC 5321 §4.1.4: "the SMTP server MUST stay in the same state".
            self.greeting, self.helo = question
            self._refuse(decision)
            return
        verb = self.greeting
        assert verb is not None
        self._forget_transaction()  # RFC 5321 §4.1.4
        self._enter(Event[verb])
        if verb == "HELO":
            self._reply(Reply.fixed(250, None, self.settings.hostname))
            return
        announced = [each.announcement(self) for each in self.settings.extensions]
        self._reply(Reply.fixed(250, None, self.settings.hostname, *filter(None, announced)))

    def _answer_mail(self, question: Mail, decision: Reply | None) -> None:
        decision = decision or replies.SENDER_OK
        if decision.code // 100 != 2:
            self._refuse(decision)
            return
        self.transaction = Transaction(question.reverse_path, question.parameters)
        self._enter(Event.MAIL)
        self._reply(decision)

    def _answer_rcpt(self, question: Rcpt, decision: Reply | None) -> None:
        decision = decision or replies.RECIPIENT_OK
        if decision.code // 100 != 2:
            self._refuse(decision)
            return
        assert self.transaction is not None
        self.transaction.recipients.append(Accepted(question.forward_path, question.parameters))
        self._enter(Event.RCPT)
        self._reply(decision)

    def _answer_open(self, question: Open, decision: Reply | None) -> None:
        transaction = self.transaction
        assert transaction is not None
        assert transaction.content is not None
        chunks = transaction.content.chunks
        if chunks is None and self._in:
            self._out_of_step("DATA")  # RFC 2920 §3.1: written before the reply could be read
        elif decision is None:
            transaction.content_open = True
            if chunks is None:
                self._enter(Event.DATA)
                self._reply(replies.SEND_CONTENT)
            else:
                self._enter(Event.BDAT)
                self._end_chunk_if_complete(transaction, chunks)
        elif chunks is None:
            self._refuse(decision)
        else:
            self._draining_chunk = chunks.left
            self._refuse_chunk(transaction, decision)

    def _answer_finish(self, question: Finish, decision: ContentDecision) -> None:
        assert self.transaction is not None
        self._end_transaction(self.transaction, decision)

    # Content.

    def _read_content(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        content = transaction.content
        assert content is not None
        passed, self._in = content.read(self._in)
        self._pass_on(transaction, passed)
        if content.chunks is not None:
            self._end_chunk_if_complete(transaction, content.chunks)
        elif content.finished:
            self._end_content(transaction)

    def _pass_on(self, transaction: Transaction, octets: bytes) -> None:
        assert transaction.content is not None
        if octets:
            self._steps.append(Write(octets))
        elif transaction.content.refusal is not None:
            self._give_up_content(transaction)

    def _give_up_content(self, transaction: Transaction) -> None:
        if transaction.content_open:
            transaction.content_open = False
            self._steps.append(Abort())

    def _end_chunk_if_complete(self, transaction: Transaction, chunks: ChunkReader) -> None:
        if chunks.left:
            return
        content = transaction.content
        assert content is not None
        if transaction.last_chunk:
            self._pass_on(transaction, content.end())
            self._end_content(transaction)
        elif content.refusal is not None:
            self.refusals.append(content.refusal)
            self._refuse_chunk(transaction, content.refusal)
        else:
            self._enter(Event.CHUNK_ACCEPTED)
            self._reply(replies.CHUNK_ACCEPTED)

    def _refuse_chunk(self, transaction: Transaction, reply: Reply) -> None:
        if transaction.last_chunk:
            # It ends the transaction anyway, and in LMTP every recipient has a reply to it.
            self._end_transaction(transaction, reply)
            return
        self.transaction = None
        self._enter(Event.CHUNK_REFUSED)  # the client may send more chunks
        self._refuse(reply)

    def _end_content(self, transaction: Transaction) -> None:
        assert transaction.content is not None
        refusal = transaction.content.refusal
        if refusal is not None:
            self.refusals.append(refusal)
            self._end_transaction(transaction, refusal)
        else:
            transaction.content_open = False
            self._ask(Finish())

    def _end_transaction(self, transaction: Transaction, decision: ContentDecision) -> None:
        self.transaction = None  # RFC 5321 §4.1.1.4: the buffers are cleared, whatever the reply
        self._enter(Event.CONTENT_ENDED)
        # RFC 2033 §4.2, §4.3: in LMTP one for each recipient, in the order of the RCPT commands.
        replied = self.settings.dialect.of_content(decision, len(transaction.recipients))
        if any(map(_accepts, replied)):
            self.errors = 0
            self.accepted += 1
            for reply in replied:
                self._reply(reply)
        else:
            self._refuse(*replied)

    def _forget_transaction(self) -> None:
        if self.transaction is not None:
            self._give_up_content(self.transaction)  # between two chunks
            self.transaction = None

    # Replies.

    def _reply(self, reply: Reply) -> None:
        self.last_reply = reply
        if reply.code >= 400:
            self.negative += 1
            self.last_negative.append(reply)
        self._out.append(reply.wire)

    def _refuse(self, *refusals: Reply) -> None:
        """Refuse one command; several replies, for as many recipients, are one error."""
        if self.state is State.CLOSED:
            return
        for reply in refusals:
            self._reply(reply)
        if any(reply.code == 421 for reply in refusals):
            self._close()
        elif any(reply.code // 100 == 5 for reply in refusals):
            self.errors += 1
            if self.errors >= self.settings.max_errors:
                self.end(replies.TOO_MANY_ERRORS)

    def _out_of_step(self, verb: str) -> None:
        self._steps.append(Violation(verb))
        self._reply(replies.OUT_OF_STEP)
        self._close()

    def _close(self, event: Event = Event.CLOSE) -> None:
        self._enter(event)
        self.transaction = None
        self.question = None
        self._in = b""
        self._steps.append(Close())


def _accepts(reply: Reply) -> bool:
    return reply.code // 100 == 2


_COMMANDS: Mapping[str, Callable[[Session, str], None]] = {
    Event.EHLO: Session._ehlo,
    Event.LHLO: Session._lhlo,
    Event.HELO: Session._helo,
    Event.STARTTLS: Session._starttls,
    Event.AUTH: Session._auth,
    Event.MAIL: Session._mail,
    Event.RCPT: Session._rcpt,
    Event.DATA: Session._data,
    Event.BDAT: Session._bdat,
    Event.RSET: Session._rset,
    Event.NOOP: Session._noop,
    Event.VRFY: Session._vrfy,
    Event.HELP: Session._help,
    Event.QUIT: Session._quit,
}

_OWN_COMMANDS = frozenset(_COMMANDS).difference(REPLACEABLE)
"""Verbs that an extension cannot replace."""

_ANSWERS: Mapping[type[Question], Callable[[Session, Any, Any], None]] = {
    Hello: Session._answer_hello,
    Mail: Session._answer_mail,
    Rcpt: Session._answer_rcpt,
    Open: Session._answer_open,
    Finish: Session._answer_finish,
}
