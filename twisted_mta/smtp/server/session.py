"""The server's side of an SMTP session (RFC 5321), pure: octets in, steps and replies out.

Theory of operation. The shell (`server.protocol`) gives what arrives to `receive` and then takes
steps until there is none:

    session.receive(octets)
    while (step := session.step()) is not None:
        …                            do what it says, then tell the session what came of it
    transport.write(session.output())

A step that asks for a decision (`Mail`, `Rcpt`, `Open`, `Finish`) stops the session until `answer`
is called, in the same turn or years later; meanwhile nothing behind it is executed, so replies come
in order whatever is asynchronous, and a pipelined burst is answered in one piece of output.

All that has to do with framing is here, so that every split point can be tested without a socket:
the end of a command line, the end of the content, what may stand behind EHLO, DATA and STARTTLS.
`state.TRANSITIONS` is the whole of what is allowed when, and `dialect` says where LMTP differs.
`transaction` is the one value that RSET, EHLO and STARTTLS forget.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping

from ...mail.envelope import Parameters
from ...mail.reply import Reply
from ...mail.tls_facts import TLSFacts
from ..command import (
    NOT_TEXT,
    TOO_LONG,
    Command,
    CommandError,
    Greeting,
    no_argument,
    parse_bdat,
    parse_line,
    parse_mail,
    parse_rcpt,
)
from ..data import ChunkReader
from ..extension import Extension
from . import replies
from .auth import Challenge, Next, ServerAuth, Verdict
from .content import Content
from .dialect import ContentDecision
from .help import help_reply
from .refusal import why_not
from .settings import COMMAND_LINE, Peer, SessionSettings
from .state import FOR_EXTENSIONS, REPLACEABLE, WITHOUT_TLS, State
from .step import (
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
from .transaction import Accepted, Transaction

GREETING_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
"""What is taken for a name in EHLO, HELO and LHLO."""

_AT_ONCE = 25  # commands that are obeyed without a step for the shell; each takes 10 to 50 µs


class Session:
    """One session, from the greeting to its end.

    Attributes:
        settings: what its listener demands.
        peer: the client.
        proxy: who is at the other end, where that one speaks for the client (`represent`); None
            where it is the client itself.
        local_address: our own address as the client sees it; None on a UNIX socket, or if a proxy
            does not tell.
        state: see `state.TRANSITIONS`.
        greeting: the verb that greeted us (after the last STARTTLS), None before.
        helo: what it said; empty before.
        tls: what the handshake achieved, None in clear.
        tls_ready: whether a handshake could begin now; None where TLS is not configured.
        identity: who AUTH said it was, None without.
        auth: how far AUTH is.
        overheard: is told each line that is read where a command may stand, without its CR LF, and
            before it is obeyed: `state` says what it is. None: nobody wants to know.
        transaction: the mail transaction, None outside of one.
        content_open: whether `Open` was answered and neither `Finish` nor `Abort` has followed.
        errors: replies of 5yz since the last accepted message.
        refusals: what the session itself has refused or ended of late, for the log; whoever takes
            note of it takes it out.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        peer: Peer,
        local_address: str | None = None,
        tls_ready: Callable[[], bool] | None = None,
    ) -> None:
        self.settings = settings
        self.peer = peer
        self.proxy: Peer | None = None
        self.local_address = local_address
        self.tls_ready = tls_ready
        self.state = State.START
        self.greeting: Greeting | None = None
        self.helo = ""
        self.tls: TLSFacts | None = None
        self.identity: str | None = None
        self.auth = ServerAuth(self)
        self.transaction: Transaction | None = None
        self.content_open = False
        self.errors = 0
        self.overheard: Callable[[bytes], None] | None = None
        self.refusals: deque[Reply] = deque(maxlen=20)
        self._in = b""
        self._searched = 0  # how much of it has no line end
        self._out: list[bytes] = []
        self._asked: Mail | Rcpt | Open | Finish | Authenticate | None = (
            None  # what an answer is awaited for
        )
        self._draining = False  # the rest of a line that has its reply already
        self._chunk = 0  # octets still to come of a BDAT chunk that is not wanted
        self._steps: deque[Step] = deque()  # worked out, not yet taken
        # The content being read:
        self._content: Content | None = None
        self._last = False  # whether the chunk being read is the last

    # What the shell calls.

    def greet(self) -> None:
        """Begin: give the greeting."""
        self._say(self.opening)

    def receive(self, octets: bytes) -> None:
        """Take what arrived; `step` says what it comes to. After the end it is thrown away."""
        if self.state is not State.CLOSED:
            self._in = self._in + octets if self._in else octets

    def output(self) -> bytes:
        """Return what is to be written now."""
        if not self._out:
            return b""
        out = b"".join(self._out)
        self._out.clear()
        return out

    @property
    def opening(self) -> Reply:
        """The greeting."""
        return Reply.fixed(220, None, f"{self.settings.hostname} {self.settings.dialect.word}")

    @property
    def content_octets(self) -> int:
        """How much of the content has come."""
        return 0 if self._content is None else self._content.octets

    @property
    def deciding(self) -> bool:
        """Whether the session waits for `answer`."""
        return self._asked is not None

    @property
    def unfinished(self) -> bool:
        """Whether `step` may have more to say before more octets or an answer have come."""
        if self.state is State.TLS or self.state is State.CLOSED or self._asked is not None:
            return False
        return bool(self._steps or self._in)

    def step(self) -> Step | None:
        """Return the next thing to do; None while more octets or an answer are needed."""
        steps = self._steps
        obeyed = 0
        while not steps and self._in and self._asked is None:
            if self.state is State.DATA:
                self._read_content()
            elif self.state is State.TLS or self.state is State.CLOSED or not self._read_command():
                break
            obeyed += 1
            if obeyed == _AT_ONCE and not steps:
                return Rest()
        return steps.popleft() if steps else None

    def answer(self, decision: ContentDecision = None) -> None:
        """Say what was decided on the last step that asked.

        Args:
            decision: what to reply; its class decides whether the command is accepted, and 421
                ends the session. None accepts with the usual words. To `Finish` it may be one for
                each recipient of the transaction: see `dialect.Dialect.of_content`.
        """
        asked, self._asked = self._asked, None
        if self.state is State.CLOSED or asked is None:
            return
        if isinstance(asked, Finish):
            self._end_transaction(decision)
            return
        assert decision is None or isinstance(decision, Reply)
        if isinstance(asked, Mail):
            self._answer_mail(asked, decision or replies.SENDER_OK)
        elif isinstance(asked, Rcpt):
            self._answer_rcpt(asked, decision or replies.RECIPIENT_OK)
        elif isinstance(asked, Open):
            assert self._content is not None
            self._answer_open(self._content, decision)

    def answer_auth(self, verdict: Verdict) -> None:
        """Say what was judged of the evidence that the last step was about."""
        asked, self._asked = self._asked, None
        if self.state is not State.CLOSED and isinstance(asked, Authenticate):
            self._go_on_with_auth(self.auth.answer(verdict))

    def tls_established(
        self, facts: TLSFacts, binding: Callable[[str], bytes | None] | None = None
    ) -> None:
        """Begin anew after a handshake, by STARTTLS or as the first act of a connection.

        RFC 3207 §4.2: nothing that the client said before is known any more.

        Args:
            facts: what it achieved.
            binding: returns the channel binding of that name, None where there is none (RFC 5929).
        """
        self.tls = facts
        self.auth.binding = binding
        self.greeting = None
        self.helo = ""
        self.identity = None
        self.transaction = None
        self._in = b""
        # RFC 3207 §4.1: the decision whether to go on.
        self.state = State.START if self.settings.tls_suffices(facts) else State.REFUSED

    def represent(
        self,
        client: Peer,
        *,
        local_address: str | None,
        greeting: Greeting | None = None,
        helo: str = "",
    ) -> None:
        """Begin anew as the session of ``client``, for whom the one at the other end speaks.

        TLS stays what it is, but for the certificate: that is the proxy's, and whatever may be
        granted on it is not the client's. For the same reason there is no STARTTLS afterwards:
        RFC 3207 §4.2 has us forget then what was said in clear, and that would leave the client
        with whatever the proxy may do.

        Args:
            client: who it is; an address of None is not known.
            local_address: the address of ours that it connected to; None if that is not known.
            greeting: the verb that it greeted the proxy with; None: it has still to greet us.
            helo: what it said then.
        """
        if self.proxy is None:
            self.proxy = self.peer
        self.peer = client
        self.local_address = local_address
        if self.tls is not None:
            self.tls = self.tls.without_peer
        self.greeting = greeting
        self.helo = helo
        self.identity = None
        self._forget_transaction()
        self.errors = 0
        self.state = State.START if greeting is None else State.GREETED
        self._steps.append(Represent())

    def end(self, reply: Reply) -> None:
        """End the session from our side, with a last reply (RFC 5321 §3.8: 421)."""
        if self.state is not State.CLOSED:
            self.refusals.append(reply)
            self._say(reply)
            self._close()

    # Command lines.

    def _read_command(self) -> bool:
        """Obey a command from what has arrived; return whether it is worth coming back."""
        if self._chunk:
            drained = min(self._chunk, len(self._in))
            self._in = self._in[drained:]
            self._chunk -= drained
            return bool(self._in)
        buffer = self._in
        end = buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._give_up_on_line(buffer)
            return False
        self._searched = 0
        line, self._in = buffer[:end], buffer[end + 2 :]
        if self.overheard is not None:
            self.overheard(line)
        if self._draining:
            self._draining = False
            return True
        if self.state is State.AUTH:
            self._go_on_with_auth(self.auth.respond(line))
            return True
        try:
            if end + 2 > COMMAND_LINE:
                self._check_length(line)
            self._obey(parse_line(line))
        except CommandError as error:
            self._refuse_line(line, error.reply)
        return True

    def _give_up_on_line(self, buffer: bytes) -> None:
        # What can no longer become a command has its reply at once and is drained to its CR LF: a
        # client that ends its lines with a bare LF would else wait for ever.
        searched, self._searched = self._searched, max(0, len(buffer) - 1)
        if not self._draining:
            if buffer.find(b"\n", searched) >= 0:
                self._refuse_line(buffer, NOT_TEXT)
            elif len(buffer) > self.settings.longest_line - 1:
                self._refuse_line(buffer, TOO_LONG)
            else:
                return
            self._draining = True
        if self.state is not State.CLOSED:
            self._in = b"\r" if buffer.endswith(b"\r") else b""
            self._searched = 0

    def _refuse_line(self, line: bytes, reply: Reply) -> None:
        if self.state is State.AUTH:
            self.auth.cancel()
            self.state = State.GREETED
            reply = replies.EXCHANGE_TOO_LONG if reply is TOO_LONG else replies.NOT_BASE64
        elif reply is TOO_LONG and self.settings.auth and line[:5].upper() == b"AUTH ":
            reply = replies.EXCHANGE_TOO_LONG  # RFC 4954 §4
        # RFC 3030 §2: behind BDAT comes its chunk, and if the line cannot be read, nobody knows how
        # long that is: what was said in it would be obeyed.
        if line[:4].upper() == b"BDAT":
            self.end(replies.CHUNK_UNREADABLE)
        else:
            self._refuse(reply)

    def _check_length(self, line: bytes) -> None:
        verb = line[:4].decode("ascii", "replace").upper()
        if len(line) + 2 > self.settings.line_octets.get(verb, COMMAND_LINE):
            raise CommandError(TOO_LONG)

    def _obey(self, command: Command) -> None:
        verb = command.verb
        own = verb in _COMMANDS and verb not in REPLACEABLE
        extension = None if own else self.settings.commands.get(verb)
        if self._in and (verb in self.settings.dialect.last_in_group or extension is not None):
            self._out_of_step(verb)
        elif (
            verb == "MAIL"
            and self.tls is None
            and self.settings.requires_tls_of(self.proxy or self.peer)
        ):
            self._steps.append(Downgrade())
            self._refuse(replies.TLS_REQUIRED)
        elif (
            extension is None
            and verb in self.settings.dialect.transitions[self.state]
            and (self.tls is not None or not self.settings.require_tls or verb in WITHOUT_TLS)
            and (verb != "BDAT" or self.settings.chunking)
        ):
            _COMMANDS[verb](self, command.argument)
        elif (
            extension is not None
            and self.state in FOR_EXTENSIONS
            and (self.tls is not None or not self.settings.require_tls)
        ):
            self._obey_extension(extension, command)
        else:
            if verb == "BDAT":
                self._drain_chunk(command.argument)
            self._refuse(why_not(self, verb, own=verb in _COMMANDS))

    def _obey_extension(self, extension: Extension, command: Command) -> None:
        if extension.announcement(self) is None:
            self._refuse(extension.not_offered)
            return
        reply = extension.commands[command.verb](self, command.argument)
        if reply.code < 400:
            self._say(reply)
        else:
            self._refuse(reply)

    def _drain_chunk(self, argument: str) -> None:
        # RFC 3030 §2: the chunk follows at once, so it has to be drained even where it is out of
        # place or not offered; else its content would be taken for commands.
        self._chunk = parse_bdat(argument).octets

    def _ehlo(self, argument: str) -> None:
        self._extended("EHLO", argument)

    def _lhlo(self, argument: str) -> None:
        self._extended("LHLO", argument)  # RFC 2033 §4.1

    def _extended(self, verb: Greeting, argument: str) -> None:
        if self._greeted(verb, argument):
            announced = (each.announcement(self) for each in self.settings.extensions)
            lines = (self.settings.hostname, *filter(None, announced))
            self._say(Reply.fixed(250, None, *lines))

    def _helo(self, argument: str) -> None:
        if self._greeted("HELO", argument):
            self._say(Reply.of(250, None, self.settings.hostname))

    def _greeted(self, verb: Greeting, argument: str) -> bool:
        # RFC 5321 §4.1.4: a name that is not a domain or literal is no reason to refuse mail; it
        # is only kept from doing harm.
        if not GREETING_NAME.fullmatch(argument):
            self._refuse(Reply.of(501, "5.4", f"Syntax: {verb} hostname"))
            return False
        self.greeting = verb
        self.helo = argument
        self._forget_transaction()  # RFC 5321 §4.1.4
        self.state = State.GREETED
        return True

    def _starttls(self, argument: str) -> None:
        if argument:  # RFC 3207 §4
            self._refuse(Reply.of(501, "5.4", "Syntax error (no parameters allowed)"))
        elif self.tls is not None:
            self._refuse(replies.TLS_ACTIVE)
        elif self.tls_ready is None:
            self._refuse(replies.NOT_IMPLEMENTED)
        elif self.proxy is not None:
            self._refuse(replies.TLS_COMES_FIRST)
        elif not self.tls_ready():
            self._refuse(replies.TLS_FAILED)
        else:
            self._say(replies.READY_FOR_TLS)
            self._forget_transaction()
            self.state = State.TLS
            self._steps.append(StartTLS())

    def _auth(self, argument: str) -> None:
        self._go_on_with_auth(self.auth.begin(argument))

    def _go_on_with_auth(self, said: Next) -> None:
        self.state = State.GREETED
        if isinstance(said, Authenticate):
            self._ask(said)
        elif self._in:
            self._out_of_step("AUTH")  # RFC 4954 §4: written before the reply could be read
        elif isinstance(said, Challenge):
            self.state = State.AUTH
            self._out.append(said.wire)
        elif said.code < 400:
            self._say(said)
        else:
            self._refuse(said)
            if self.auth.exhausted:
                self.end(replies.TOO_MANY_AUTH_FAILURES)

    def _mail(self, argument: str) -> None:
        if self.auth.required:
            raise CommandError(replies.AUTH_REQUIRED)  # RFC 4954 §6, RFC 6409 §4.3
        path, parameters, is_ascii = parse_mail(argument, self.settings.mail_readers)
        self._check_ascii(is_ascii, parameters)
        if path is not None and not path.domain:
            raise CommandError(Reply.of(501, "1.7", "Bad address: an address needs a domain"))
        self._ask(Mail(path, parameters))

    def _rcpt(self, argument: str) -> None:
        path, parameters, is_ascii = parse_rcpt(argument, self.settings.rcpt_readers)
        if path is None:
            raise CommandError(Reply.of(501, "1.3", "Bad address: the null path receives no mail"))
        assert self.transaction is not None
        self._check_ascii(is_ascii, self.transaction.parameters)
        if len(self.transaction.recipients) >= self.settings.max_recipients:
            if not self.transaction.full:
                self.transaction.full = True
                self.refusals.append(replies.TOO_MANY_RECIPIENTS)
            raise CommandError(replies.TOO_MANY_RECIPIENTS)  # RFC 5321 §4.5.3.1.10
        self._ask(Rcpt(path, parameters))

    def _check_ascii(self, is_ascii: bool, parameters: Parameters) -> None:
        if not is_ascii and ("SMTPUTF8" not in parameters or self.greeting == "HELO"):
            raise CommandError(replies.NEEDS_UTF8)  # RFC 6531 §3.5

    def _data(self, argument: str) -> None:
        no_argument(argument, "DATA")
        assert self.transaction is not None
        if self.transaction.binary:
            raise CommandError(replies.ONLY_CHUNKS)  # RFC 3030 §3
        self._content = Content(self.settings)
        self._ask(Open())

    def _bdat(self, argument: str) -> None:
        octets, self._last = parse_bdat(argument)
        if self.state is State.RCPT:
            assert self.transaction is not None
            binary = self.transaction.binary
            self._content = content = Content(self.settings, chunked=True, binary=binary)
            assert content.chunks is not None
            content.chunks.left = octets
            self._ask(Open())
        else:
            content, chunks = self._chunked()
            chunks.left = octets
            self.state = State.DATA
            self._end_chunk_if_complete(content, chunks)

    def _chunked(self) -> tuple[Content, ChunkReader]:
        assert self._content is not None
        assert self._content.chunks is not None
        return self._content, self._content.chunks

    def _rset(self, argument: str) -> None:
        no_argument(argument, "RSET")
        self._forget_transaction()
        self.state = self.settings.dialect.transitions[self.state]["RSET"] or self.state
        self._say(replies.OK)

    def _noop(self, argument: str) -> None:
        self._say(replies.OK)  # RFC 5321 §4.1.1.9: an argument is ignored

    def _vrfy(self, argument: str) -> None:
        if not argument:
            raise CommandError(Reply.of(501, "5.4", "Syntax: VRFY address"))
        self._say(replies.NOT_VERIFIED)  # RFC 5321 §3.5.3, §7.3

    def _help(self, argument: str) -> None:
        self._say(help_reply(self.settings, tls=self.tls_ready is not None))

    def _quit(self, argument: str) -> None:
        no_argument(argument, "QUIT")
        self._say(replies.BYE)
        self._close()

    # Answers.

    def _ask(self, question: Mail | Rcpt | Open | Finish | Authenticate) -> None:
        self._asked = question
        self._steps.append(question)

    def _answer_mail(self, asked: Mail, decision: Reply) -> None:
        if decision.code // 100 != 2:
            self._refuse(decision)
            return
        self.transaction = Transaction(asked.reverse_path, asked.parameters)
        self.state = State.MAIL
        self._say(decision)

    def _answer_rcpt(self, asked: Rcpt, decision: Reply) -> None:
        if decision.code // 100 != 2:
            self._refuse(decision)
            return
        assert self.transaction is not None
        self.transaction.recipients.append(Accepted(asked.forward_path, asked.parameters))
        self.state = State.RCPT
        self._say(decision)

    def _answer_open(self, content: Content, decision: Reply | None) -> None:
        chunks = content.chunks
        if chunks is None and self._in:
            self._out_of_step("DATA")  # RFC 2920 §3.1: written before the reply could be read
        elif decision is None:
            self.state = State.DATA
            self.content_open = True
            if chunks is None:
                self._say(replies.SEND_CONTENT)
            else:
                self._end_chunk_if_complete(content, chunks)
        elif chunks is None:
            self._refuse(decision)
        else:
            self._chunk = chunks.left
            self._fail_chunk(decision)

    # Content.

    def _read_content(self) -> None:
        content = self._content
        assert content is not None
        passed, self._in = content.read(self._in)
        self._pass_on(passed)
        if content.chunks is not None:
            self._end_chunk_if_complete(content, content.chunks)
        elif content.finished:
            self._end_content(content)

    def _pass_on(self, octets: bytes) -> None:
        if octets:
            self._steps.append(Write(octets))
        elif self.content_open and self._content is not None and self._content.refusal is not None:
            self.content_open = False
            self._steps.append(Abort())

    def _end_chunk_if_complete(self, content: Content, chunks: ChunkReader) -> None:
        if chunks.left:
            return
        if self._last:
            self._pass_on(content.end())
            self._end_content(content)
        elif content.refusal is not None:
            self.refusals.append(content.refusal)
            self._fail_chunk(content.refusal)
        else:
            self.state = State.BDAT
            self._say(replies.CHUNK_TAKEN)

    def _fail_chunk(self, reply: Reply) -> None:
        if self._last:
            # It ends the transaction anyway, and in LMTP every recipient has an answer to it.
            self._end_transaction(reply)
            return
        self.transaction = None
        self.content_open = False
        self.state = State.FAILED  # the client may send more
        self._refuse(reply)

    def _end_content(self, content: Content) -> None:
        if content.refusal is not None:
            self.refusals.append(content.refusal)
            self._end_transaction(content.refusal)
        else:
            self.content_open = False
            self._ask(Finish())

    def _end_transaction(self, decision: ContentDecision) -> None:
        transaction, self.transaction = self.transaction, None  # RFC 5321 §4.1.1.4
        self._content = None
        self.content_open = False
        self.state = State.GREETED
        assert transaction is not None
        # RFC 2033 §4.2, §4.3: in LMTP one for each recipient, in the order of the RCPT commands.
        said = self.settings.dialect.of_content(decision, len(transaction.recipients))
        if any(reply.code // 100 == 2 for reply in said):
            self.errors = 0
            for reply in said:
                self._say(reply)
        else:
            self._refuse(*said)

    def _forget_transaction(self) -> None:
        self.transaction = None
        if self.content_open:  # between two chunks
            self.content_open = False
            self._steps.append(Abort())

    # Replies.

    def _say(self, reply: Reply) -> None:
        self._out.append(reply.wire)

    def _refuse(self, *said: Reply) -> None:
        """Refuse one thing; several replies are one error, for that many recipients."""
        if self.state is State.CLOSED:
            return
        for reply in said:
            self._say(reply)
        if any(reply.code == 421 for reply in said):
            self._close()
        elif any(reply.code // 100 == 5 for reply in said):
            self.errors += 1
            if self.errors >= self.settings.max_errors:
                self.end(replies.TOO_MANY_ERRORS)

    def _out_of_step(self, verb: str) -> None:
        self._steps.append(Violation(verb))
        self._say(replies.OUT_OF_STEP)
        self._close()

    def _close(self) -> None:
        self.state = State.CLOSED
        self.transaction = None
        self._asked = None
        self._in = b""
        self._steps.append(Close())


_COMMANDS: Mapping[str, Callable[[Session, str], None]] = {
    "EHLO": Session._ehlo,
    "LHLO": Session._lhlo,
    "HELO": Session._helo,
    "STARTTLS": Session._starttls,
    "AUTH": Session._auth,
    "MAIL": Session._mail,
    "RCPT": Session._rcpt,
    "DATA": Session._data,
    "BDAT": Session._bdat,
    "RSET": Session._rset,
    "NOOP": Session._noop,
    "VRFY": Session._vrfy,
    "HELP": Session._help,
    "QUIT": Session._quit,
}
