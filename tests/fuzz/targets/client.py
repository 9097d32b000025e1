"""The client target: a client session sends nothing too early and forgets no recipient.

Knobs: TLS level, recipients, transactions, whether handshakes succeed, their objection, content,
BODY, how it ends (connection lost, timed out, quit), whether a body breaks off, the dialect,
whether it has credentials. Pieces: what the server writes, each one when the client has said all
that it has to say.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random

from attrs import define, field, frozen

from twisted_mta.mail import reply
from twisted_mta.mail.address import Mailbox
from twisted_mta.mail.body import MemoryBody
from twisted_mta.mail.envelope import Envelope, Recipient, RecipientNumber
from twisted_mta.mail.message import Message
from twisted_mta.mail.outcome import Outcome
from twisted_mta.mail.queue_id import QueueId
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.mail.tls_policy import TLSLevel
from twisted_mta.smtp.client import auth, outgoing, reply_reader, session
from twisted_mta.smtp.client.reply_reader import (
    CHALLENGE_LIMIT,
    LINE_LIMIT,
    LINES_LIMIT,
    TEXT_LIMIT,
)
from twisted_mta.smtp.client.session import ClientSession
from twisted_mta.smtp.client.step import (
    Close,
    Derive,
    Dialect,
    Ready,
    SendBody,
    StartTLS,
    Step,
    TransactionDone,
    Unusable,
)
from twisted_mta.smtp.sasl import client
from twisted_mta.smtp.sasl.client import Credentials

from ..case import Case
from ..reference import without_dots
from . import Target, demand, one_by_one, pieces

LEVEL, RECIPIENTS, TRANSACTIONS, HANDSHAKE, OBJECTION, CONTENT, BODY, END, BREAK = range(9)
DIALECT, CREDENTIALS = range(9, 11)
_LEVELS: tuple[TLSLevel, ...] = ("may", "none", "encrypt")
_DIALECTS: tuple[Dialect, ...] = ("smtp", "lmtp")
_USER = Credentials("user", "pencil")
_NONCE = "rOprNGfwEbeRWgbNEkqO"
_SECRETS = (b"pencil", b64encode(b"\0user\0pencil"), b64encode(b"pencil"))
_SECRET = re.compile(rb"(?:AUTH [A-Z0-9-]+(?: [A-Za-z0-9+/=]+)?|\*|[A-Za-z0-9+/=]*)\r\n")
_MARK = b"X-Mark: content\r\n"
_CONTENTS = (
    _MARK + b"\r\n.\r\nhello\r\n",
    _MARK + b"no line end",
    _MARK + b"\r\n" + b".\r\n" * 40_000,
    _MARK + b"\r\n" + bytes(range(256)) + b"\r\n.\r\n\n.\n\r",
)
_FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
_MAILBOXES = ("b@example.net", '"c d"@example.net', "\u00e9@example.net", "b@example.net")
_COMMAND = re.compile(rb"(?:[A-Z]{4}(?: [^\r\n\0]*)?|STARTTLS|\.)\r\n")

Cut = Callable[[bytes], Iterable[bytes]]


@frozen
class _BreakingBody:
    """A body whose file cannot be read to its end."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def chunks(self) -> Iterator[bytes]:
        yield self.content
        raise OSError(5, "Input/output error")


def _message(case: Case, number: int) -> Message:
    content = _CONTENTS[case.knob(CONTENT, len(_CONTENTS))]
    recipients = _MAILBOXES[: case.knob(RECIPIENTS, len(_MAILBOXES)) + 1]
    parameters: tuple[dict[str, str | int | None], ...] = (
        {},
        {"BODY": "8BITMIME"},
        {"SMTPUTF8": None},
        {"BODY": "BINARYMIME"},
    )
    return Message(
        id=QueueId(number),
        envelope=Envelope(
            Mailbox.parse("a@client.example"),
            tuple(
                Recipient(RecipientNumber(10 + place), Mailbox.parse(each))
                for place, each in enumerate(recipients)
            ),
            parameters[case.knob(BODY, 4)],
        ),
        trace=b"Received: by client.example\r\n",
        body=_BreakingBody(content) if case.knob(BREAK, 4) == 3 else MemoryBody(content),
        received_at=0.0,
        expires_at=1.0,
    )


@define
class Transaction:
    """One transaction, as the outside sees it."""

    message: Message
    content_sent: bool = False
    heard_after: int = 0
    replies_after: int = 0
    outcomes: tuple[Outcome, ...] | None = None
    void: bool = False


@define
class Played:
    """The result of one play."""

    transactions: list[Transaction] = field(factory=list)
    out_of_turn: bool = False

    def outcomes(self) -> list[tuple[str, ...]]:
        """Return the replies of all transactions."""
        return [
            tuple(str(outcome.reply) for outcome in each.outcomes or ())
            for each in self.transactions
        ]


class Player:
    """The shell of a session that plays one case, with one cut of the server's writes."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._lmtp = case.knob(DIALECT, 2) == 1
        self._credentials = _USER if case.knob(CREDENTIALS, 2) else None
        self._known = False
        self.session = ClientSession(
            helo="client.example",
            remote="mx[192.0.2.1]:25",
            tls=_LEVELS[case.knob(LEVEL, len(_LEVELS))],
            dialect=_DIALECTS[case.knob(DIALECT, 2)],
            credentials=self._credentials,
            nonce=lambda: _NONCE,
        )
        self.played = Played()
        self._left = case.knob(TRANSACTIONS, 3) + 1
        self._heard = b""
        self._said = b""
        self._owed = 1  # replies: the greeting
        self._ahead = b""  # octets of the next reply, unfinished
        self._closed = False
        self._finished = False

    def play(self, writes: Sequence[bytes], cut: Cut) -> Played:
        """Play all writes, then the end."""
        for write in writes:
            for octets in cut(write):
                if self.session.closed:
                    break
                self._heard = (self._heard + octets)[-2 * LINE_LIMIT :]
                if self._current is not None and self._current.content_sent:
                    self._current.heard_after += len(octets)
                self._count(octets)
                self._take(self.session.receive(octets))
                self._look_at_memory()
        end = self.case.knob(END, 3)
        if end == 2 and self.session.idle:
            self._take(self.session.quit())
        self._take(
            self.session.timed_out() if end == 1 else self.session.connection_lost("reset by peer")
        )
        demand(self.session.closed, "not closed after the end")
        self._take(self.session.receive(b"250 late\r\n"))
        for each in self.played.transactions:
            demand(each.outcomes or each.void, "a transaction without an outcome")
        return self.played

    @property
    def _current(self) -> Transaction | None:
        transactions = self.played.transactions
        if transactions and not (transactions[-1].outcomes or transactions[-1].void):
            return transactions[-1]
        return None

    def _count(self, octets: bytes) -> None:
        # Whether a reply arrives before its command depends on TCP.
        *lines, self._ahead = (self._ahead + octets).split(b"\r\n")
        for line in lines:
            if self._owed == 0:
                self.played.out_of_turn = True
            elif line[3:4] != b"-":
                self._owed -= 1
                if self._current is not None and self._current.content_sent:
                    self._current.replies_after += 1
                if line[:3] == b"235" and self.session.tls:
                    self._known = True
        if self._ahead and self._owed == 0:
            self.played.out_of_turn = True

    def _take(self, steps: list[Step]) -> None:
        demand(len(steps) < 8, "steps without end")
        for step in steps:
            demand(not self._closed, f"{step} after Close")
            if isinstance(step, SendBody):
                self._send_body()
            elif isinstance(step, StartTLS):
                self._shake_hands()
            elif isinstance(step, Derive):
                self._take(self.session.derived(step.respond()))
            elif isinstance(step, TransactionDone):
                self._done(step)
            elif isinstance(step, Unusable):
                if self._current is not None:
                    demand(not self._current.content_sent, "the content is out, its fate forgotten")
                    self._current.void = True
            elif isinstance(step, Close):
                self._closed = True
            else:
                demand(isinstance(step, Ready), f"what is {step}?")
        self._say()
        if self.session.idle and self._left and not self._finished:
            self._left -= 1
            self.played.transactions.append(
                Transaction(_message(self.case, len(self.played.transactions)))
            )
            self._take(self.session.transact(self.played.transactions[-1].message))

    def _say(self) -> None:
        secret = self.session.secret
        octets = self.session.output()
        if secret:
            self._say_secret(octets)
            return
        demand(not any(each in octets for each in _SECRETS), "a secret that is not marked")
        demand(not (octets and self._closed), f"{octets[:80]!r} after Close")
        demand(_MARK not in octets, "content among the commands")
        rest = octets
        while rest:
            found = _COMMAND.match(rest)
            demand(found, f"not a command: {rest[:80]!r}")
            assert found is not None
            verb = found[0][:4]
            demand(verb != b"AUTH", "AUTH that is not marked as secret")
            demand(
                verb not in ((b"EHLO", b"HELO") if self._lmtp else (b"LHLO",)), "not our dialect"
            )
            if verb == b"MAIL" and self._credentials is not None:
                demand(self.session.tls and self._known, "mail before the server knows us")
            if found[0] in (b"DATA\r\n", b"STARTTLS\r\n") or verb in (b"EHLO", b"LHLO"):
                demand(found.end() == len(rest), "something behind the last of a group")
            self._said = found[0]
            self._owed += 1
            rest = rest[found.end() :]

    def _say_secret(self, octets: bytes) -> None:
        demand(_SECRET.fullmatch(octets), f"not a line of AUTH: {octets[:80]!r}")
        demand(self.session.tls and self._credentials, "AUTH without TLS or without credentials")
        demand(len(octets) <= 512, "a line of AUTH that is too long for these credentials")
        self._said = octets
        self._owed += 1

    def _send_body(self) -> None:
        transaction = self._current
        demand(transaction is not None, "content of no transaction")
        assert transaction is not None
        demand(not transaction.content_sent, "the content twice")
        body = transaction.message.body
        assert isinstance(body, MemoryBody | _BreakingBody)
        whole = transaction.message.trace + body.content
        binary = transaction.message.envelope.binary
        if binary:
            offered = self.session.capabilities
            demand("BINARYMIME" in offered and "CHUNKING" in offered, f"a chunk after {offered}")
            demand(self._said.startswith(b"RCPT TO:"), f"a chunk after {self._said!r}")
        else:
            demand(self._said == b"DATA\r\n", f"content after {self._said!r}")
            last = self._heard.split(b"\r\n")[-2:-1]
            demand(self._ahead or last[0][:1] == b"3", f"content after {last}")
        content = b""
        try:
            for octets in self.session.body():
                ended = not binary and content.endswith(b"\r\n.\r\n")
                demand(not ended, "content behind the final dot")
                content += octets
        except OSError as error:
            self._take(self.session.body_failed(str(error)))
            if binary:
                demand(len(content) < len(whole), "half a content is a whole chunk")
            else:
                demand(not content.endswith(b"\r\n.\r\n"), "half a content has a final dot")
            return
        transaction.content_sent = True
        self._owed += self.session._due
        if binary:  # RFC 3030 §2
            demand(content == b"BDAT %d LAST\r\n%s" % (len(whole), whole), "not the message")
            return
        if not whole.endswith(b"\r\n"):
            whole += b"\r\n"
        demand(content.endswith(b".\r\n"), "no final dot")
        demand(without_dots(content[:-3]) == whole, "what is sent is not the message")

    def _shake_hands(self) -> None:
        self._say()
        demand(self._said == b"STARTTLS\r\n", f"a handshake after {self._said!r}")
        if self.case.knob(HANDSHAKE, 3) == 2:
            self._take(self.session.connection_lost("handshake failed"))
        else:
            objection = "too weak" if self.case.knob(OBJECTION, 3) == 2 else None
            self._take(self.session.handshake_completed(_FACTS, objection))

    def _done(self, step: TransactionDone) -> None:
        transaction = self._current
        demand(transaction is not None, "outcomes of no transaction")
        assert transaction is not None
        recipients = transaction.message.envelope.recipients
        numbers = [outcome.number for outcome in step.outcomes]
        demand(numbers == [each.number for each in recipients], f"outcomes for {numbers}")
        if self._lmtp:
            delivered = sum(outcome.delivered for outcome in step.outcomes)
            demand(delivered <= transaction.replies_after, "delivered without a reply of its own")
        for outcome in step.outcomes:
            demand(outcome.reply.code // 100 in (2, 4, 5), f"no outcome: {outcome}")
            if outcome.delivered:
                demand(transaction.content_sent, "delivered without content")
                demand(transaction.heard_after, "delivered without an answer to the final dot")
                demand(outcome.remote is not None, "delivered without a remote server")
            if outcome.uncertain:
                demand(transaction.content_sent, "uncertain without content")
            demand(not re.search(r"[^\x20-\x7e]", str(outcome.reply)), "unsafe text")
        transaction.outcomes = step.outcomes

    def _look_at_memory(self) -> None:
        reader = self.session._reader
        held = sum(map(len, (*reader._whole, reader._rest))) if not self.session.closed else 0
        limit = CHALLENGE_LIMIT + 4 if reader.challenged else LINE_LIMIT
        demand(held <= limit, f"{held} octets are held back")
        lines = reader._lines
        demand(len(lines) <= LINES_LIMIT, f"{len(lines)} lines are held back")
        demand(all(len(line) <= 4 * TEXT_LIMIT for line in lines), "a line is held whole")


def probe(case: Case) -> Played:
    """Play ``case`` once, each write in one piece."""
    return Player(case).play(case.pieces, lambda write: [write])


def check(case: Case) -> None:
    """Play ``case`` whole, octet by octet and cut at random.

    Raises:
        Broken: a property does not hold.
    """
    whole = probe(case)
    draw = Random(case.size)
    for cut in (one_by_one, lambda write: pieces(write, draw)):
        played = Player(case).play(case.pieces, cut)
        if not (whole.out_of_turn or played.out_of_turn):
            demand(
                played.outcomes() == whole.outcomes(),
                f"{played.outcomes()} is not {whole.outcomes()}",
            )


_SERVER_NONCE = f"{_NONCE}%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
_AUTH_FIRST = b"334 %s\r\n" % b64encode(
    f"r={_SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".encode()
)
_AUTH_FINAL = b"334 %s\r\n" % b64encode(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
_WORDS = (
    *(b"220 mx.example ESMTP\r\n", b"250 OK\r\n", b"354 go on\r\n", b"421 closing\r\n"),
    *(b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n", b"554 5.7.1 no\r\n", b"552 5.3.4 large\r\n"),
    *(b"250-mx\r\n250-PIPELINING\r\n250-SIZE 100\r\n250 STARTTLS\r\n", b"250-SIZE 1\r\n250 X\r\n"),
    *(b"250-mx\r\n250-PIPELINING\r\n250 8BITMIME\r\n", b"250-mx\r\n250 SMTPUTF8\r\n"),
    *(b"250-mx\r\n250-PIPELINING\r\n250-CHUNKING\r\n250 BINARYMIME\r\n", b"250\r\n"),
    *(b"220 go\r\n", b"251 fwd\r\n", b"299 ?\r\n", b"150 pre\r\n", b"600 ?\r\n", b"25", b"250 x\n"),
    *(b"250-a\r\n", b"250-a\r\n350 b\r\n", b"250 \xff\0\x1b[2J\r\n", b"x" * 600, b"x" * 4100),
    *(b"\r\n", b"\n", b"\r", b"250 5.1.1 mixed\r\n", b"550-5.1.1 a\r\n550 5.1.1 b\r\n", b"-", b" "),
    *(b"250 2.1.0 OK\r\n250 2.1.5 OK\r\n354 go\r\n", b"250 a\r\n550 b\r\n354 go\r\n", b"\xb2\xb3"),
    *(b"235 2.7.0 known\r\n", b"535 5.7.8 wrong\r\n", b"504 5.5.4 not this one\r\n", b"334\r\n"),
    *(b"334 VXNlcm5hbWU6\r\n", b"334 ???\r\n", b"454 4.7.0 later\r\n", b"421 4.3.2 down\r\n"),
    *(_AUTH_FIRST, _AUTH_FINAL, _AUTH_FIRST + _AUTH_FINAL, b"334 " + b"x" * 12_289),
    *(
        b"250-mx\r\n250-PIPELINING\r\n250 AUTH SCRAM-SHA-256 PLAIN\r\n",
        b"250-AUTH LOGIN\r\n250 X\r\n",
    ),
    *(
        b"250-mx\r\n250-CHUNKING\r\n250-BINARYMIME\r\n250 AUTH PLAIN CRAM-MD5\r\n",
        b"550 5.2.2 full\r\n",
    ),
    *(b"250-SIZE \xd9\xa1\r\n250 OK\r\n", b"250-SIZE 999999999999999999999\r\n250 OK\r\n"),
)


def new(draw: Random) -> Case:
    """Return the writes of a new server, mostly a sensible one."""
    writes = [_WORDS[0]] if draw.random() < 0.9 else []
    writes.append(draw.choice(_WORDS[1:2] + _WORDS[8:13]))
    if b"STARTTLS" in writes[-1]:
        writes += [draw.choice((b"220 go\r\n", b"454 no\r\n", b"220 go\r\n250 injected\r\n"))]
        writes += [draw.choice(_WORDS[8:13])]
    auth = draw.random() < 0.3
    if auth:
        offers = [word for word in _WORDS if b"AUTH" in word]
        writes = [_WORDS[0], _WORDS[8], b"220 go\r\n", draw.choice(offers)]
        writes += draw.choice(
            (
                (_AUTH_FIRST, _AUTH_FINAL, b"235 2.7.0 known\r\n"),
                (b"235 2.7.0 known\r\n",),
                (b"504 5.5.4 not this one\r\n", b"235 2.7.0 known\r\n"),
                (b"334\r\n", b"334\r\n", b"235 2.7.0 known\r\n"),
                (b"535 5.7.8 wrong\r\n", b"221 bye\r\n"),
            )
        )
    for _ in range(draw.randrange(1, 8)):
        kind = draw.random()
        if kind < 0.4:
            writes.append(b"250 OK\r\n" * draw.randrange(1, 5) + draw.choice((b"", b"354 go\r\n")))
        elif kind < 0.9:
            writes.append(b"".join(draw.choice(_WORDS) for _ in range(draw.randrange(1, 4))))
        else:
            writes.append(b"250-x\r\n" * draw.choice((3, 99, 101)) + b"250 x\r\n")
    knobs = [draw.randrange(draw.choice((1, 1, 2, 4))) for _ in range(CREDENTIALS + 1)]
    knobs[DIALECT] = draw.randrange(2)
    knobs[CREDENTIALS] = int(auth) if draw.random() < 0.9 else int(not auth)
    if auth and draw.random() < 0.9:
        knobs[LEVEL] = knobs[HANDSHAKE] = knobs[OBJECTION] = 0
    if any(b"BINARYMIME" in write for write in writes):
        knobs[BODY] = draw.choice((3, 3, knobs[BODY]))
    return Case("client", tuple(knobs), (), tuple(writes))


CLIENT = Target(
    name="client",
    shows="no exception, no content before 354, an outcome for every recipient, for any replies",
    modules=(session, auth, outgoing, reply, reply_reader, client),
    new=new,
    words=_WORDS,
    knobs=CREDENTIALS + 1,
    probe=probe,
    check=check,
)
