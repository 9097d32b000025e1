"""The session target: framing, order of replies, content and end of a server session.

Knobs: TLS (none, ready, failed, implicit), whether TLS is required, whether it suffices, bare
newlines, long lines, size limit, recipients, errors, whether chunks are offered and binary content
with them, after which write we end the session (0: not), how late decisions are. Choices:
decisions. Pieces: what the client writes, each one when it has all replies to those before.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from random import Random

from attrs import define, field

from twisted_mta.mail.reply import Reply
from twisted_mta.mail.tls_facts import TLSFacts
from twisted_mta.smtp import command, data
from twisted_mta.smtp.extension import binarymime, eightbitmime, size, starttls
from twisted_mta.smtp.extension.binarymime import BINARYMIME
from twisted_mta.smtp.extension.chunking import CHUNKING
from twisted_mta.smtp.extension.eightbitmime import EIGHT_BIT_MIME
from twisted_mta.smtp.extension.plain import ENHANCED_STATUS_CODES, PIPELINING
from twisted_mta.smtp.extension.size import size as size_extension
from twisted_mta.smtp.extension.starttls import STARTTLS
from twisted_mta.smtp.peer import Peer
from twisted_mta.smtp.server import content, session
from twisted_mta.smtp.server.machine import State
from twisted_mta.smtp.server.replies import IDLE_TOO_LONG
from twisted_mta.smtp.server.session import Session
from twisted_mta.smtp.server.settings import SessionSettings
from twisted_mta.smtp.server.step import (
    Abort,
    Close,
    Finish,
    Mail,
    Open,
    Rcpt,
    StartTLS,
    Step,
    Write,
)

from ..case import Case
from ..reference import Demands, OutOfStep, Reader, ServerReply, Taken
from . import Broken, Target, demand, one_by_one, pieces
from .dialogue import WORDS, dialogue

TLS, REQUIRED, SUFFICES, BARE, LONG, SIZE, RECIPIENTS, ERRORS, CHUNKS, END, LATE = range(11)
_SIZES = (50 * 1024 * 1024, 1000, 10)
_RECIPIENTS = (1000, 2)
_ERRORS = (20, 3)
_FACTS = TLSFacts("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
_DECISIONS = (
    None,
    None,
    None,
    Reply.of(250, "0.0", "As you wish"),
    Reply.of(450, "2.1", "Later", "or never"),
    Reply.of(550, "7.1", "Nicht \u00fcber uns\r\n250 smuggled"),
    Reply.of(452, "3.1", "No room"),
    Reply.of(421, "3.2", "Closing"),
)
_REFUSALS = tuple(each.code for each in _DECISIONS if each and each.code >= 400)
_REPLY_LINE = re.compile(rb"(\d{3})([ -])(?:(\d\.\d{1,3}\.\d{1,3}) )?([\x20-\x7e]*)")
_LONGEST_REPLY = 512  # octets with CR LF, RFC 5321 §4.5.3.1.5

Cut = Callable[[bytes], Iterable[bytes]]


def settings(case: Case) -> SessionSettings:
    """Return the settings that the knobs of ``case`` select."""
    limit = _SIZES[case.knob(SIZE, len(_SIZES))]
    return SessionSettings(
        hostname="mx.example",
        extensions=(
            PIPELINING,
            size_extension(limit),
            EIGHT_BIT_MIME,
            ENHANCED_STATUS_CODES,
            STARTTLS,
            *((), (CHUNKING,), (CHUNKING, BINARYMIME), (CHUNKING, BINARYMIME))[
                case.knob(CHUNKS, 4)
            ],
        ),
        require_tls=case.knob(REQUIRED, 3) == 1,
        requires_tls_of=lambda peer: case.knob(REQUIRED, 3) == 2,
        tls_suffices=lambda facts: not case.knob(SUFFICES, 2),
        bare_newlines="normalize" if case.knob(BARE, 2) else "reject",
        long_lines="reject" if case.knob(LONG, 2) else "accept",
        max_message_size=limit,
        max_recipients=_RECIPIENTS[case.knob(RECIPIENTS, 2)],
        max_errors=_ERRORS[case.knob(ERRORS, 2)],
    )


@define
class Played:
    """The result of one play: replies, messages, and the number of replies up to each write."""

    replies: list[ServerReply] = field(factory=list)
    messages: list[Taken] = field(factory=list)
    after: list[int] = field(factory=list)


class Player:
    """The shell of a session that plays one case, with one cut of its writes."""

    def __init__(self, case: Case, late: int) -> None:
        ready = (None, lambda: True, lambda: False, lambda: True)[case.knob(TLS, 4)]
        self.settings = settings(case)
        self.session = Session(self.settings, peer=Peer("192.0.2.1", 50_000), tls_ready=ready)
        self.played = Played()
        self.closed = False
        self._choices = case.choices or (0,)
        self._decided = 0
        self._late = late
        self._question: Mail | Rcpt | Open | Finish | None = None
        self._content: bytearray | None = None
        self._recipients = 0
        if case.knob(TLS, 4) == 3:
            self.session.tls_established(_FACTS)
        self.session.greet()
        self._hear()

    def play(self, writes: Sequence[bytes], cut: Cut, end_after: int) -> Played:
        """Play all writes; end the session from our side after ``end_after`` writes (0: never)."""
        for number, write in enumerate(writes, 1):
            for octets in cut(write):
                self.session.receive(octets)
                self._advance()
                self._look_at_memory(len(octets))
            while self._question is not None:
                self._decide()
                self._advance()
            if number == end_after:
                self.session.end(IDLE_TOO_LONG)
                self._advance()
                demand(self.session.state is State.CLOSED, "a session that was ended is not over")
            self._hear()
            self.played.after.append(len(self.played.replies))
        demand(self.closed or self.session.state is not State.CLOSED, "closed without Close")
        return self.played

    def _advance(self) -> None:
        bound = 64 + 4 * len(self.session._in)
        while True:
            step = self.session.step()
            if step is None:
                if self._question is None or self._late:
                    break
                self._decide()
                continue
            bound -= 1
            demand(bound > 0, "steps without end")
            self._take(step)
        demand(self.session.deciding == (self._question is not None), "deciding without a question")

    def _take(self, step: Step) -> None:
        demand(not self.closed, f"{step} after Close")
        demand(self._question is None, f"{step} before the answer to {self._question}")
        if isinstance(step, Mail | Rcpt | Open | Finish):
            self._question = step
            if isinstance(step, Open):
                transaction = self.session.transaction
                demand(transaction and transaction.recipients, "content without a recipient")
        elif isinstance(step, Write):
            demand(self._content is not None, "content that was not asked for")
            assert self._content is not None
            self._content += step.content
        elif isinstance(step, Abort):
            demand(self._content is not None, "a content is given up that did not begin")
            self._content = None
        elif isinstance(step, StartTLS):
            self._hear()
            self.session.tls_established(_FACTS)
        elif isinstance(step, Close):
            self.closed = True
            demand(self.session.transaction is None, "a transaction outlives the session")

    def _decide(self) -> None:
        asked, self._question = self._question, None
        decision = _DECISIONS[self._choices[self._decided % len(self._choices)] % len(_DECISIONS)]
        self._decided += 1
        if isinstance(asked, Open):
            transaction = self.session.transaction
            self._recipients = len(transaction.recipients) if transaction else 0
            if decision is not None and decision.code < 400:
                decision = None
            if decision is None:
                self._content = bytearray()
        elif isinstance(asked, Finish):
            content, self._content = self._content, None
            assert content is not None
            if decision is None or decision.code < 400:
                self.played.messages.append(Taken(self._recipients, bytes(content)))
        self.session.answer(decision)
        if isinstance(asked, Open) and self.session.state is State.CLOSED:
            self._content = None

    def _look_at_memory(self, came: int) -> None:
        if not self.session.deciding:  # else the shell has paused the transport
            held = len(self.session._in)
            demand(held <= self.settings.longest_line, f"{held} octets are held back")
        if self.closed:
            demand(not self.session._in, "octets are kept after the end")

    def _hear(self) -> None:
        octets = self.session.output()
        demand(octets.endswith(b"\r\n") or not octets, f"half a reply: {octets[-80:]!r}")
        several: list[bytes] = []
        for line in octets.split(b"\r\n")[:-1]:
            found = _REPLY_LINE.fullmatch(line)
            demand(found, f"not a reply line: {line[:200]!r}")
            assert found is not None
            demand(len(line) + 2 <= _LONGEST_REPLY, f"a reply line of {len(line)} octets")
            demand(not several or several[0] == found[1], f"the code changes: {line!r}")
            several.append(found[1])
            if found[2] == b" ":
                several = []
                status, text = (found[3] or b"").decode(), found[4].decode()
                self.played.replies.append(ServerReply(int(found[1]), status, text))
        demand(not several, "a reply without its last line")


def probe(case: Case) -> Played:
    """Play ``case`` once, each write in one piece."""
    return Player(case, case.knob(LATE, 2)).play(case.pieces, lambda write: [write], _end(case))


def check(case: Case) -> None:
    """Play ``case`` whole, octet by octet, and cut at random, with decisions at once and late.

    Raises:
        Broken: a property does not hold.
    """
    whole = probe(case)
    ambiguous = _read(case, whole)
    draw = Random(case.size)
    ways: list[tuple[int, Cut]] = [
        (1 - case.knob(LATE, 2), lambda write: [write]),
        (case.knob(LATE, 2), one_by_one),
        (draw.randrange(2), lambda write: pieces(write, draw)),
        (draw.randrange(2), _between_lines),
    ]
    for late, cut in ways:
        played = Player(case, late).play(case.pieces, cut, _end(case))
        if ambiguous is None:
            demand(_codes(played) == _codes(whole), f"{_codes(played)} is not {_codes(whole)}")
            demand(played.messages == whole.messages, "messages depend on how TCP cut them")
            demand(len(played.after) == len(whole.after), "writes went missing")
        else:
            same = _codes(played)[:ambiguous]
            demand(same == _codes(whole)[:ambiguous], f"{same} is not {_codes(whole)}")


def _codes(played: Played) -> list[str]:
    # A content with several faults is refused for the one that is noticed first.
    return [
        "55x"
        if reply.code in (550, 552) and reply.status in ("5.6.0", "5.3.4")
        else f"{reply.code} {reply.status}"
        for reply in played.replies
    ]


def _between_lines(write: bytes) -> list[bytes]:
    return re.split(rb"(?<=\n)|(?<=\r)", write)


def _end(case: Case) -> int:
    return case.knob(END, len(case.pieces) + 1)


def _read(case: Case, played: Played) -> int | None:
    """Check the replies against the commands; return the reply from which on TCP decides."""
    listener = settings(case)
    reader = Reader(
        Demands(
            chunking=listener.chunking,
            binarymime=BINARYMIME in listener.extensions,
            normalize=listener.bare_newlines == "normalize",
            reject_long_lines=listener.long_lines == "reject",
            max_message_size=listener.max_message_size,
            max_errors=listener.max_errors,
            longest_line=listener.longest_line,
        ),
        deque(played.replies),
        decisions=_REFUSALS,
    )
    end = _end(case)
    try:
        demand(reader.replies.popleft().code == 220, "no greeting")
        reader.used = 1
        for number, (write, after) in enumerate(zip(case.pieces, played.after, strict=True), 1):
            reader.read(write)
            if number == end and not reader.closed:
                if reader.replies and reader.replies[0] != _IDLE:
                    reader.refuse_early()
                if not reader.closed:
                    demand(reader.replies and reader.replies.popleft() == _IDLE, "no last reply")
                    reader.used += 1
                    reader.closed = True
            more = after - reader.used
            # The refusal of an unfinished chunk may be one error too many.
            last = reader.owed and more == 2 and reader.replies[1].code == 421
            demand(last or more in (0, reader.owed), f"{more} replies too many")
        reader.end()
        if case.knob(RECIPIENTS, 2):
            demand(all(each.recipients <= 2 for each in played.messages), "too many recipients")
        demand(played.messages == reader.taken, "content is not what was sent")
    except OutOfStep as error:
        raise Broken(f"{error} (all replies: {', '.join(map(str, played.replies))})") from error
    return reader.ambiguous_from


_IDLE = ServerReply(421, "4.4.2", "Idle for too long")


def new(draw: Random) -> Case:
    """Return a new dialogue."""
    writes = tuple(dialogue(draw))
    knobs = [draw.randrange(draw.choice((1, 1, 4))) for _ in range(END)]
    knobs += [draw.choice((0, 0, 0, draw.randrange(len(writes) + 1))), draw.randrange(2)]
    choices = [draw.randrange(draw.choice((3, 8))) for _ in range(draw.randrange(1, 6))]
    return Case("session", tuple(knobs), tuple(choices), writes)


SESSION = Target(
    name="session",
    shows="no exception, no hang, replies in step however TCP cuts them, content as it was sent",
    modules=(session, command, content, data, binarymime, eightbitmime, size, starttls),
    new=new,
    words=WORDS,
    knobs=LATE + 1,
    probe=probe,
    check=check,
)
