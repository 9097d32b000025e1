"""The conversation on a connection, as lines for people: bounded, and without secrets.

While a connection is at work, a `Conversation` only keeps references to the octets that went by:
two entries in a list for each group of commands. They become lines when a person wants to read
them, which is when a delivery is deferred.

Of AUTH only the mechanism and the reply codes are kept, and of content only the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from attrs import frozen

from ..mail.counted import counted
from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts

MAX_OCTETS = 4096
"""Octets of a transcript."""

_MAX_LINE = 512  # characters of a line
_MAX_PIECES = 400  # pieces of a transaction; of more than these, some are left out
_FIRST = _MAX_PIECES // 4  # pieces at the beginning that are never left out
_MAX_PIECE = 4096  # octets of a piece
_BEGINNING = 4  # a transcript that is too long keeps a 4th of its length for its beginning
_REDACTED = "(taken out)"

# A word in place of a mechanism that is none of these may be a secret in the wrong place:
# AUTH PLAIN=AGFubgBz…, AUTH AGFubgBz….
_MECHANISMS = frozenset(
    (
        *("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "NTLM", "GSSAPI"),
        *("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
        *("SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "OAUTHBEARER", "XOAUTH2"),
    )
)

Speaker = Literal["client", "server", "note"]
"""The speaker of a line; a note is our own, about an event that is not a line."""

_COMMANDS = (
    *(b"HELO", b"EHLO", b"LHLO", b"STARTTLS", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET"),
    *(b"NOOP", b"QUIT", b"VRFY", b"EXPN", b"HELP", b"ETRN", b"XCLIENT"),
)

_SIGNS = {"client": "C: ", "server": "S: ", "note": "* "}


@frozen
class Line:
    """A line of a conversation; ``text`` is printable, and without its end."""

    speaker: Speaker
    text: str

    def __str__(self) -> str:
        return _SIGNS[self.speaker] + self.text


Listener = Callable[[Line], object]
"""Called with each line, as soon as it is complete."""


class Conversation:
    """The conversation of a client session: its opening, and its present transaction.

    Attributes:
        listener: called with each line at once; None while no trace is open.
    """

    __slots__ = ("_left_out", "_opening", "_pieces", "_secret", "_splitter", "listener")

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._pieces: list[tuple[Speaker, bytes | str]] = []
        self._opening = -1  # pieces before the first transaction, once that has begun
        self._left_out = 0  # transactions before the present one
        self._secret = False  # the next reply may repeat a secret
        self._splitter: LineSplitter | None = None

    def begin(self) -> None:
        """Begin a transaction; the one before it is forgotten."""
        if self._opening < 0:
            self._opening = len(self._pieces)
        else:
            self._left_out += 1
            del self._pieces[self._opening :]

    def received(self, octets: bytes) -> None:
        """Keep octets of the server, split anywhere."""
        self._keep("server", _discreet(octets) if self._secret else octets)

    def sent(self, octets: bytes, *, secret: bool = False) -> None:
        """Keep octets of our own, in whole lines.

        Args:
            octets: as they are written.
            secret: whether they belong to AUTH: of them, and of the reply, only the verb, the
                mechanism and the code are kept.
        """
        self._secret = secret
        self._keep("client", _discreet_command(octets) if secret else octets)

    def content(self, octets: int, *, binary: bool = False) -> None:
        """Keep that the content of a message was sent."""
        self._keep("client", f"{'BDAT ' if binary else ''}({octets} octets)")

    def note(self, text: str) -> None:
        """Keep a note about an event that is not a line."""
        self._keep("note", printable(text))

    def _keep(self, speaker: Speaker, piece: bytes | str) -> None:
        pieces = self._pieces
        if len(pieces) >= _MAX_PIECES:
            # The beginning shows the peers, and the end shows the outcome.
            pieces[_FIRST : 2 * _FIRST] = [("note", "...")]
            if self._opening > _FIRST:
                self._opening = max(_FIRST, self._opening - _FIRST) + 1
        if len(piece) > _MAX_PIECE and isinstance(piece, bytes):
            pieces.append((speaker, piece[: _MAX_PIECE // 2]))
            pieces.append(("note", f"({counted(len(piece) - _MAX_PIECE, 'octet')} left out)"))
            piece = piece[-(_MAX_PIECE // 2) :]
        pieces.append((speaker, piece))
        if self.listener is not None:
            self._tell(speaker, piece)

    def _tell(self, speaker: Speaker, piece: bytes | str) -> None:
        assert self.listener is not None
        if self._splitter is None:
            self._splitter = LineSplitter()
        for line in self._splitter.lines(speaker, piece):
            self.listener(line)

    def lines(self) -> list[Line]:
        """Return the opening of the session and the present transaction, as lines."""
        splitter = LineSplitter()
        lines: list[Line] = []
        for place, (speaker, piece) in enumerate(self._pieces):
            if place == self._opening and self._left_out:
                lines += splitter.rest()
                before = counted(self._left_out, "transaction")
                lines.append(Line("note", f"({before} before this one)"))
            lines += splitter.lines(speaker, piece)
        return [*lines, *splitter.rest()]


class Overhearing:
    """The conversation of a server session, passed on line by line.

    Of the client's lines only commands are passed on as they are: a line out of place may be
    content, or a password.
    """

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def received(self, line: bytes, *, secret: bool = False) -> None:
        """Pass on a line of the client that stands where a command may.

        Args:
            line: without its CR LF.
            secret: whether it is a response of AUTH.
        """
        verb = line[:12].split(b" ", 1)[0].upper()
        if secret or verb == b"AUTH":
            text = _discreet_command(line)
        elif verb in _COMMANDS:
            self._listener(_line("client", line))
            return
        else:
            octets = counted(len(line), "octet that is", "octets that are")
            text = f"({octets} not a command)"
        self._listener(Line("client", text))

    def sent(self, octets: bytes) -> None:
        """Pass on whole lines of our own."""
        for line in octets.split(b"\r\n")[:-1]:
            # RFC 4954 §4: a challenge of AUTH.
            text = _discreet(line) if line.startswith(b"334") else None
            self._listener(_line("server", line) if text is None else Line("server", text))

    def content(self, octets: int) -> None:
        """Pass on that a content is complete."""
        self._listener(Line("client", f"({octets} octets)"))

    def note(self, text: str) -> None:
        """Pass on a note about an event that is not a line."""
        self._listener(Line("note", printable(text)))


class LineSplitter:
    """A maker of lines from octets, split anywhere; a line without an end is cut off."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Speaker, bytes] = {}

    def lines(self, speaker: Speaker, piece: bytes | str) -> Iterator[Line]:
        """Yield the lines that are complete now."""
        if isinstance(piece, str):
            yield from self.rest()
            yield Line(speaker, piece)
            return
        for other in [each for each in self._open if each != speaker]:
            # An unfinished line of one side is shown before the other side speaks.
            yield _line(other, self._open.pop(other))
        *whole, rest = (self._open.pop(speaker, b"") + piece).split(b"\n")
        for octets in whole:
            yield _line(speaker, octets)
        if rest:
            self._open[speaker] = rest[:_MAX_PIECE]

    def rest(self) -> Iterator[Line]:
        """Yield the lines without an end."""
        while self._open:
            speaker = next(iter(self._open))
            yield _line(speaker, self._open.pop(speaker))


def _line(speaker: Speaker, octets: bytes) -> Line:
    text = octets.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    text = printable(text[: _MAX_LINE + 1])
    return Line(speaker, text if len(text) <= _MAX_LINE else f"{text[: _MAX_LINE - 3]}...")


def _discreet_command(octets: bytes) -> str:
    """Return the part of a line of AUTH that may be shown: the command with its mechanism."""
    words = octets.split(None, 2)
    if len(words) >= 2 and words[0].upper() == b"AUTH":
        mechanism = words[1].decode("latin-1").upper()
        if mechanism not in _MECHANISMS:
            return f"AUTH {_REDACTED}"
        return f"AUTH {mechanism}" + (f" {_REDACTED}" if len(words) > 2 else "")
    return "*" if octets.strip() == b"*" else _REDACTED


def _discreet(octets: bytes) -> str:
    """Return the part of a reply to AUTH that may be shown: its code."""
    code = octets[:3].decode("latin-1")
    return f"{code} {_REDACTED}" if code.isascii() and code.isdigit() else _REDACTED


def tls_words(facts: TLSFacts) -> str:
    """Return a line about what a TLS handshake with a server achieved: printable and bounded."""
    words = facts.negotiated
    if facts.peer_fingerprint is None:
        return printable(words)
    verdict = facts.verdict or "not verified"
    if facts.peer_problem:
        verdict += f" ({facts.peer_problem[:200]})"
    subject = (facts.peer_subject or "none")[:100]
    return printable(f"{words}, certificate {verdict}, subject {subject}")


def transcript(lines: Iterable[Line], limit: int = MAX_OCTETS) -> str:
    """Return lines as one text of at most ``limit`` octets, all of them ASCII.

    A longer text has its middle left out: the end shows the outcome.
    """
    written = [f"{line}\n" for line in lines]
    if sum(map(len, written)) <= limit:
        return "".join(written)
    head = _first(written, limit // _BEGINNING)
    left = limit - sum(map(len, head)) - 40  # for the line that says how much is missing
    tail = _first(reversed(written[len(head) :]), left)
    missing = len(written) - len(head) - len(tail)
    return "".join([*head, f"* ({counted(missing, 'line')} left out)\n", *reversed(tail)])


def _first(lines: Iterable[str], limit: int) -> list[str]:
    """Return as many of the first lines as have at most ``limit`` characters together."""
    first: list[str] = []
    for line in lines:
        limit -= len(line)
        if limit < 0:
            break
        first.append(line)
    return first
