"""A strict and naive reader of one session, by RFC 5321: the reference for the session target.

It is slow, keeps everything, and shares no code with the code under test. It takes the writes of a
client and the replies of the server, in order, and reports where they disagree: one reply too many
or too few, a command accepted out of order, content other than what was sent.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence

from attrs import define, field, frozen


class OutOfStep(AssertionError):
    """Replies and commands disagree; the message says how."""


@frozen
class ServerReply:
    """A reply of the server.

    Attributes:
        code: the reply code.
        status: the enhanced status code; empty without one.
        text: the text of the last line.
    """

    code: int
    status: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.code} {self.status} {self.text}"


@frozen
class Taken:
    """A message that the server accepted."""

    recipients: int
    content: bytes


@frozen(kw_only=True)
class Demands:
    """The settings of the listener that the reader needs."""

    chunking: bool = False
    binarymime: bool = False
    normalize: bool = False
    reject_long_lines: bool = False
    max_message_size: int = 0
    max_errors: int = 20
    longest_line: int = 512
    long_verbs: tuple[str, ...] = ("MAIL", "RCPT")


_LAST_IN_GROUP = ("EHLO", "DATA", "STARTTLS", "AUTH")  # RFC 2920 §3.1
_BINARY = re.compile(rb"\sBODY=BINARYMIME(?:\s|$)", re.IGNORECASE)  # RFC 3030 §3
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n)|\0")

# The reply codes of each command, besides those of decisions and those of `_ANYWHERE`.
_ANSWERS = {
    "EHLO": (250, 501),
    "HELO": (250, 501),
    "NOOP": (250,),
    "HELP": (214,),
    "VRFY": (252, 501),
    "RSET": (250, 501),
    "QUIT": (221, 501),
    "STARTTLS": (220, 454, 501, 502),
    "MAIL": (250, 501, 552, 553, 555),
    "RCPT": (250, 452, 501, 553, 555),
    "DATA": (354, 501),
    "BDAT": (501, 502, 503),
}
_ANYWHERE = (421, 500, 503, 530, 554)


def without_dots(stuffed: bytes) -> bytes:
    """Return a content without its dot-stuffing, line by line (RFC 5321 §4.5.2)."""
    return b"\r\n".join(line.removeprefix(b".") for line in stuffed.split(b"\r\n"))


def is_broken(content: bytes) -> bool:
    """Whether a CR or LF stands outside CR LF, or a NUL anywhere."""
    return _BARE.search(content) is not None


def has_long_line(content: bytes) -> bool:
    """Whether a line has more than 998 octets (RFC 5321 §4.5.3.1.6); a CR or LF alone ends one."""
    return any(len(line) > 998 for line in re.split(rb"\r\n|\r|\n", content))


def normalized(content: bytes) -> bytes:
    """Return ``content`` without NUL, and then with CR LF for each CR and each LF with its CRs."""
    return re.sub(rb"(?<!\r)\r++\n|\r|\n", b"\r\n", content.replace(b"\0", b""))


@define
class Reader:
    """A reader of one session.

    Attributes:
        taken: the messages that the server accepted, with the content that they must have.
        ambiguous_from: the number of replies before the first command that has octets behind it
            out of turn: from there on it depends on TCP what the server sees. None: there is none.
    """

    demands: Demands
    replies: deque[ServerReply]
    decisions: Sequence[int] = ()
    taken: list[Taken] = field(factory=list)
    ambiguous_from: int | None = None
    closed: bool = False
    used: int = 0
    _greeted: bool = False
    _sender: bool = False
    _binary: bool = False  # the content of this transaction is octets, not lines
    _recipients: int = 0
    _errors: int = 0
    _chunk: int = 0
    _chunk_due: bool = False  # the reply to the current chunk is still to come
    _last: bool = False
    _chunks: bytes | None = None  # the content of the chunks so far
    _first: bool = False
    _failed: bool = False
    _content: bool = False
    _spoiled: bool = False
    _buffer: bytes = b""

    def read(self, write: bytes) -> None:
        """Read one write of the client, after all earlier replies.

        Raises:
            OutOfStep: a reply is missing or wrong.
        """
        self._buffer += write
        while (self._buffer or self._chunk_is_complete) and not self.closed and self._go_on():
            pass

    def end(self) -> None:
        """End the session.

        Raises:
            OutOfStep: there is another reply.
        """
        self.refuse_early()
        if self.replies:
            raise OutOfStep(f"a reply without a command: {self.replies[0]}")

    def refuse_early(self) -> None:
        """Take the refusal of an unfinished chunk, if there is one."""
        early = self._chunk_due and self._first and self.replies
        if early and self.replies[0].code in self.decisions:
            self._chunk_due = False
            self._expect("a chunk", tuple(self.decisions), b"BDAT")

    @property
    def _chunk_is_complete(self) -> bool:
        return self._chunk_due and self._chunk == 0

    @property
    def owed(self) -> int:
        """The number of replies that may come early: the refusal of a chunk."""
        return int(self._chunk_due)

    def _go_on(self) -> bool:
        if self._chunk or self._chunk_due:
            chunk, self._buffer = self._buffer[: self._chunk], self._buffer[self._chunk :]
            self._chunk -= len(chunk)
            if self._chunk_due:
                assert self._chunks is not None
                self._chunks += chunk
                if self._chunk == 0:
                    self._end_of_chunk(self._chunks)
            return True
        if self._content:
            return self._end_of_content()
        line, end, rest = self._buffer.partition(b"\r\n")
        if not end:
            hopeless = b"\n" in line or len(line) >= self.demands.longest_line
            if hopeless and not self._spoiled:
                self._spoiled = True
                self._no_command("a line that is none", line)
            return False
        self._buffer = rest
        if self._spoiled:
            self._spoiled = False
        else:
            self._command(line)
        return True

    # Commands.

    def _no_command(self, what: str, line: bytes) -> None:
        # RFC 3030 §2: a chunk of unknown size follows BDAT.
        if line[:4].upper() == b"BDAT":
            self._expect("BDAT", (501,), line, error=False)
            self.closed = True
        else:
            self._expect(what, (500,), line)

    def _command(self, line: bytes) -> None:
        verb = self._verb(line)
        if verb is None:
            self._no_command("a line that is no command", line)
            return
        if verb in _LAST_IN_GROUP and self._buffer:
            if self.ambiguous_from is None:
                self.ambiguous_from = self.used
            if self.replies and self.replies[0].code == 554 and "turn" in self.replies[0].text:
                self._next(line)
                self.closed = True
                return
        elif self.replies and self.replies[0].text == "Data was sent before its turn":
            raise OutOfStep(f"nothing was out of turn: {line!r}")
        chunk = re.fullmatch(rb"BDAT *[ \t]*(\d{1,18})( +LAST)?[ \t]*", line, re.IGNORECASE)
        if verb == "BDAT" and not chunk:
            self._expect("BDAT", (501,), line, error=False)
            self.closed = True
            return
        self._chunk = int(chunk[1]) if chunk else 0
        if chunk and self._chunk_in_place():
            self._chunk_due = True
            self._last = chunk[2] is not None
            return
        reply = self._expect(verb, _ANSWERS.get(verb, (500, 502, 503)), line)
        if reply.code < 400:
            self._accepted(verb, line)

    def _chunk_in_place(self) -> bool:
        if not self.demands.chunking or self._failed or not self._recipients:
            return False
        if self._chunks is None:
            self._chunks = b""
            self._first = True
        return True

    def _end_of_chunk(self, content: bytes) -> None:
        self._chunk_due = False
        binary = self._binary
        seen = content if self._last else content.removesuffix(b"\r")
        codes = self._faults(seen)
        if not codes:
            codes = (250, *self.decisions) if self._first or self._last else (250,)
        elif self._first:
            codes += tuple(self.decisions)
        self._first = False
        recipients = self._recipients
        reply = self._expect("a chunk", codes, b"BDAT")
        if reply.code != 250 or self._last:
            self._forget()
            self._failed = not self._last
        if reply.code == 250 and self._last:
            self._take(recipients, content, binary=binary)

    def _verb(self, line: bytes) -> str | None:
        """Return the verb; None: the line cannot be a command."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if re.search(r"[\r\n\0]", text):
            return None
        verb = text.split(" ")[0].rstrip("\t")
        if not re.fullmatch(r"[A-Za-z]+", verb):
            return None
        verb = verb.upper()
        longest = self.demands.longest_line if verb in self.demands.long_verbs else 512
        # Lines of MAIL may be longer than lines of RCPT, so RCPT may be too long too.
        if len(line) + 2 > longest:
            return None
        if len(line) + 2 > 512 and self.replies and self.replies[0].code == 500:
            return None
        return verb

    def _accepted(self, verb: str, line: bytes) -> None:
        if verb in ("EHLO", "HELO"):
            self._greeted = True
            self._forget()
        elif verb == "RSET":
            self._forget()
        elif verb == "MAIL":
            self._demand(self._greeted and not self._sender and not self._failed, verb, line)
            self._sender = True
            # The path may hold anything, and no accepted parameter has a bracket.
            self._binary = _BINARY.search(line.rpartition(b">")[2]) is not None
            self._demand(self.demands.binarymime or not self._binary, verb, line)
        elif verb == "RCPT":
            self._demand(self._sender and self._chunks is None, verb, line)
            self._recipients += 1
        elif verb == "DATA":
            self._demand(self._recipients > 0 and self._chunks is None, verb, line)
            self._demand(not self._binary, verb, line)
            self._content = True
            self._buffer = b"\r\n" + self._buffer  # RFC 5321 §4.1.1.4: the line end of DATA counts
        elif verb == "STARTTLS":
            self._greeted = False
            self._forget()
            self._buffer = b""
        elif verb == "QUIT":
            self.closed = True

    def _forget(self) -> None:
        self._sender = False
        self._binary = False
        self._recipients = 0
        self._chunks = None
        self._failed = False

    def _demand(self, condition: bool, verb: str, line: bytes) -> None:
        if not condition:
            raise OutOfStep(f"{verb} was accepted out of order: {line!r}")

    # Content.

    def _end_of_content(self) -> bool:
        end = self._buffer.find(b"\r\n.\r\n")
        if end < 0:
            return False
        content = without_dots(self._buffer[: end + 2])[2:]
        self._buffer = self._buffer[end + 5 :]
        self._content = False
        recipients = self._recipients
        self._forget()
        faults = self._faults(content)
        reply = self._expect("the end of the content", faults or (250, *self.decisions), b".")
        if reply.code == 250:
            self._take(recipients, content)
        return True

    def _take(self, recipients: int, content: bytes, *, binary: bool = False) -> None:
        if self.demands.normalize and not binary:
            content = normalized(content)
        self.taken.append(Taken(recipients, content))
        self._errors = 0

    def _faults(self, content: bytes) -> tuple[int, ...]:
        faults = []
        if self.demands.max_message_size and len(content) > self.demands.max_message_size:
            faults.append(552)
        if self._binary:
            return tuple(faults)
        if is_broken(content) and not self.demands.normalize:
            faults.append(550)
        if self.demands.reject_long_lines and has_long_line(content):
            faults.append(550)
        return tuple(faults)

    # Replies.

    def _next(self, line: bytes) -> ServerReply:
        if not self.replies:
            raise OutOfStep(f"no reply to {line[:80]!r}")
        self.used += 1
        return self.replies.popleft()

    def _expect(
        self, what: str, codes: tuple[int, ...], line: bytes, *, error: bool = True
    ) -> ServerReply:
        reply = self._next(line)
        decided = what in ("MAIL", "RCPT", "DATA") and reply.code in self.decisions
        everywhere = reply.code in _ANYWHERE and what not in ("the end of the content", "a chunk")
        if not (reply.code in codes or decided or everywhere):
            raise OutOfStep(f"{what} was answered {reply}: {line[:80]!r}")
        if reply.code == 421:
            self.closed = True
        elif reply.code >= 500 and error:
            self._errors += 1
            if self._errors >= self.demands.max_errors:
                last = self._next(line)
                if last.code != 421:
                    raise OutOfStep(f"after {self._errors} errors: found {last}, expected 421")
                self.closed = True
        return reply
