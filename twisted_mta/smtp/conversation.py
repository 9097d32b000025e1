"""What two programs said to each other, for people to read: bounded, without what is secret.

While a connection is at work a `Conversation` keeps references to the octets that went by, and no
more: that costs two entries in a list for each of our groups of commands. Lines are made of them
when somebody wants to read them, which is when a delivery is put off.

What is said for AUTH and the content of messages are never kept: in their place stands how much it
was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from attrs import frozen

from ..mail.printable import printable
from ..mail.tls_facts import TLSFacts

MOST_OCTETS = 4096
"""Of a transcript."""

_LONGEST = 512  # characters of one line
_PIECES = 400  # that are kept; who says more than that in one transaction is not quoted whole
_FIRST = _PIECES // 4
_PIECE = 4096  # octets of one of them
_SHARE = 4  # of a transcript that is too long, its beginning has one part in so many
_TAKEN_OUT = "(taken out)"

# What stands where a mechanism should, and is none of these, may be a secret in the wrong place:
# AUTH PLAIN=AGFubgBz…, AUTH AGFubgBz….
_MECHANISMS = frozenset(
    (
        *("PLAIN", "LOGIN", "CRAM-MD5", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS", "NTLM", "GSSAPI"),
        *("SCRAM-SHA-1", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"),
        *("SCRAM-SHA-512", "SCRAM-SHA-512-PLUS", "OAUTHBEARER", "XOAUTH2"),
    )
)

Who = Literal["client", "server", "note"]
"""Who says a line; a note is ours, about what cannot be said in one."""

_COMMANDS = (
    *(b"HELO", b"EHLO", b"LHLO", b"STARTTLS", b"MAIL", b"RCPT", b"DATA", b"BDAT", b"RSET"),
    *(b"NOOP", b"QUIT", b"VRFY", b"EXPN", b"HELP", b"ETRN", b"XCLIENT"),
)

_SIGNS = {"client": "C: ", "server": "S: ", "note": "* "}


@frozen
class Line:
    """One line.

    Attributes:
        who: see there.
        text: printable, without its end.
    """

    who: Who
    text: str

    def __str__(self) -> str:
        return _SIGNS[self.who] + self.text


Told = Callable[[Line], object]
"""Told of each line as it is said."""


class Conversation:
    """What is said on a connection to a server, as its client keeps it.

    Attributes:
        listener: is told of each line at once; None: nobody wants to hear it.
    """

    __slots__ = ("_hushed", "_left_out", "_opening", "_pieces", "_splitter", "listener")

    def __init__(self) -> None:
        self.listener: Told | None = None
        self._pieces: list[tuple[Who, bytes | str]] = []
        self._opening = -1  # pieces before the first transaction, once that has begun
        self._left_out = 0  # transactions before the one that is kept
        self._hushed = False  # what the server says may repeat what is secret
        self._splitter: LineSplitter | None = None

    def begin(self) -> None:
        """A transaction begins: the one before it is forgotten."""
        if self._opening < 0:
            self._opening = len(self._pieces)
        else:
            self._left_out += 1
            del self._pieces[self._opening :]

    def heard(self, octets: bytes) -> None:
        """The server has said something, cut anywhere."""
        self._keep("server", _discreet(octets) if self._hushed else octets)

    def said(self, octets: bytes, *, secret: bool = False) -> None:
        """We say something, in whole lines.

        Args:
            octets: what goes out.
            secret: whether it is for AUTH: of it, and of the answer, nothing is kept but the verb
                and the code.
        """
        self._hushed = secret
        self._keep("client", _discreet_command(octets) if secret else octets)

    def content(self, octets: int, *, binary: bool = False) -> None:
        """The content of a message goes out."""
        self._keep("client", f"{'BDAT ' if binary else ''}({octets} octets)")

    def note(self, text: str) -> None:
        """Something happens that is not said in a line."""
        self._keep("note", printable(text))

    def _keep(self, who: Who, what: bytes | str) -> None:
        pieces = self._pieces
        if len(pieces) >= _PIECES:
            # The beginning says who it was, the end what came of it.
            pieces[_FIRST : 2 * _FIRST] = [("note", "...")]
            if self._opening > _FIRST:
                self._opening = max(_FIRST, self._opening - _FIRST) + 1
        if len(what) > _PIECE and isinstance(what, bytes):
            pieces.append((who, what[: _PIECE // 2]))
            pieces.append(("note", f"({len(what) - _PIECE} octets left out)"))
            what = what[-(_PIECE // 2) :]
        pieces.append((who, what))
        if self.listener is not None:
            self._tell(who, what)

    def _tell(self, who: Who, what: bytes | str) -> None:
        assert self.listener is not None
        if self._splitter is None:
            self._splitter = LineSplitter()
        for line in self._splitter.lines(who, what):
            self.listener(line)

    def lines(self) -> list[Line]:
        """Return the opening of the session, and what was said in the last transaction."""
        splitter = LineSplitter()
        lines: list[Line] = []
        for place, (who, what) in enumerate(self._pieces):
            if place == self._opening and self._left_out:
                lines += splitter.rest()
                lines.append(Line("note", f"({self._left_out} transactions before this one)"))
            lines += splitter.lines(who, what)
        return [*lines, *splitter.rest()]


class Overhearing:
    """What is said on a connection from a client, as its server tells it on.

    Of what the client says commands alone are told as they are: what is out of place may be a
    content, or a password.

    Args:
        listener: is told of each line.
    """

    __slots__ = ("_listener",)

    def __init__(self, listener: Told) -> None:
        self._listener = listener

    def heard(self, line: bytes, *, secret: bool = False) -> None:
        """The client says a line where a command may stand.

        Args:
            line: without its CR LF.
            secret: whether it belongs to AUTH.
        """
        verb = line[:12].split(b" ", 1)[0].upper()
        if secret or verb == b"AUTH":
            text = _discreet_command(line)
        elif verb in _COMMANDS:
            self._listener(_line("client", line))
            return
        else:
            text = f"({len(line)} octets that are no command)"
        self._listener(Line("client", text))

    def said(self, octets: bytes) -> None:
        """We say whole lines."""
        for line in octets.split(b"\r\n")[:-1]:
            # RFC 4954 §4: what belongs to AUTH.
            text = _discreet(line) if line.startswith(b"334") else None
            self._listener(_line("server", line) if text is None else Line("server", text))

    def content(self, octets: int) -> None:
        """A content is complete."""
        self._listener(Line("client", f"({octets} octets)"))

    def note(self, text: str) -> None:
        """Something happens that is not said in a line."""
        self._listener(Line("note", printable(text)))


class LineSplitter:
    """Makes lines of what is said, cut anywhere; a line that does not end is cut off."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[Who, bytes] = {}

    def lines(self, who: Who, what: bytes | str) -> Iterator[Line]:
        """Yield the lines that are whole now."""
        if isinstance(what, str):
            yield from self.rest()
            yield Line(who, what)
            return
        for other in [each for each in self._open if each != who]:
            # What one side has not ended before the other speaks is shown in its place.
            yield _line(other, self._open.pop(other))
        *whole, rest = (self._open.pop(who, b"") + what).split(b"\n")
        for octets in whole:
            yield _line(who, octets)
        if rest:
            self._open[who] = rest[:_PIECE]

    def rest(self) -> Iterator[Line]:
        """Yield what has no end."""
        while self._open:
            who = next(iter(self._open))
            yield _line(who, self._open.pop(who))


def _line(who: Who, octets: bytes) -> Line:
    text = octets.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    text = printable(text[: _LONGEST + 1])
    return Line(who, text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}...")


def _discreet_command(octets: bytes) -> str:
    """Return what may be shown of a line of AUTH: the command with its mechanism, if it is one."""
    words = octets.split(None, 2)
    if len(words) >= 2 and words[0].upper() == b"AUTH":
        mechanism = words[1].decode("latin-1").upper()
        if mechanism not in _MECHANISMS:
            return f"AUTH {_TAKEN_OUT}"
        return f"AUTH {mechanism}" + (f" {_TAKEN_OUT}" if len(words) > 2 else "")
    return "*" if octets.strip() == b"*" else _TAKEN_OUT


def _discreet(octets: bytes) -> str:
    """Return what may be shown of what a server says to AUTH: its code."""
    code = octets[:3].decode("latin-1")
    return f"{code} {_TAKEN_OUT}" if code.isascii() and code.isdigit() else _TAKEN_OUT


def tls_words(facts: TLSFacts) -> str:
    """Return one line about what a handshake with a server achieved: printable, bounded."""
    words = f"{facts.version} {facts.cipher}, {facts.bits} bits"
    if facts.peer_fingerprint is None:
        return printable(words)
    verdict = "verified" if facts.peer_verified else "not verified"
    if facts.peer_problem:
        verdict += f" ({facts.peer_problem[:200]})"
    subject = (facts.peer_subject or "none")[:100]
    return printable(f"{words}, certificate {verdict}, subject {subject}")


def transcript(lines: Iterable[Line], most: int = MOST_OCTETS) -> str:
    """Return lines as one text of at most ``most`` octets, all of them ASCII.

    Where there is more, the beginning and the end are there: the end says what came of it.
    """
    written = [f"{line}\n" for line in lines]
    if sum(map(len, written)) <= most:
        return "".join(written)
    head = _first(written, most // _SHARE)
    left = most - sum(map(len, head)) - 40  # for the line that says how much is missing
    tail = _first(reversed(written[len(head) :]), left)
    missing = len(written) - len(head) - len(tail)
    return "".join([*head, f"* ({missing} lines left out)\n", *reversed(tail)])


def _first(lines: Iterable[str], most: int) -> list[str]:
    """Return as many of the first lines as have ``most`` characters together."""
    some: list[str] = []
    for line in lines:
        most -= len(line)
        if most < 0:
            break
        some.append(line)
    return some
