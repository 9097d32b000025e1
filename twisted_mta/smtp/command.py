"""Command lines (RFC 5321 §4.1): the verb, its argument, and its ESMTP parameters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from ..mail.address import AddressError, Mailbox, path
from ..mail.envelope import Parameters
from ..mail.reply import Reply
from .server.replies import CHUNK_UNREADABLE

ParameterReader = Callable[[str | None], str | int | None]
"""Reads the value of an ESMTP parameter (None where it has no ``=``), or raises `CommandError`."""

Greeting = Literal["HELO", "EHLO", "LHLO"]
"""The command that opens a session (RFC 5321 §4.1.1.1, RFC 2033 §4.1)."""


class CommandError(Exception):
    """A command that cannot be obeyed as it is written; ``reply`` refuses it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


NOT_TEXT = Reply.of(500, "5.2", "A command is UTF-8 text on a line ended by CR LF, with no NUL")
TOO_LONG = Reply.of(500, "5.2", "Line too long")
UNKNOWN_COMMAND = Reply.of(500, "5.2", "Command not recognized")

GREETING_NAME = re.compile(r"[^\s\x00-\x1f\x7f]{1,255}")
"""The name in EHLO, HELO and LHLO: any text that can do no harm in logs and trace fields.

RFC 5321 §4.1.4: a name that is not a domain or an address literal is no reason to refuse mail.
"""

GREETING_NAME_WITH_SPACES = re.compile(r"(?:[^\s\x00-\x1f\x7f]| ){1,255}")
"""The same with spaces, which printers and scanners write that call themselves "Office 2 West"."""

_CHUNK = re.compile(r"([0-9]{1,18})( +LAST)?", re.IGNORECASE)

# RFC 5321 §4.1.2:
#   esmtp-keyword = (ALPHA / DIGIT) *(ALPHA / DIGIT / "-")
#   esmtp-value   = 1*(%d33-60 / %d62-126)
# RFC 6531 §3.3 lets a value hold UTF8-non-ascii too.
_PARAMETER = re.compile(r"(?P<keyword>[A-Za-z0-9][A-Za-z0-9-]*)(?:=(?P<value>[^\x00-\x20=\x7f]+))?")

# RFC 5321 §3.3: no spaces around the colon. Spaces after it are a leniency, because widespread
# clients write "MAIL FROM: <…>", and it can be read in one way only.
_FROM = re.compile(r"FROM: *", re.IGNORECASE)
_TO = re.compile(r"TO: *", re.IGNORECASE)

# What devices write in place of a path in brackets: a path without brackets, with a phrase in front
# as in a header field, or with spaces inside the brackets.
_UNUSUAL_PATH = re.compile(
    r"(?P<word>FROM|TO): *"
    r"(?:(?:\"[^\"<>]*\" *|[^\"<>]*)< *(?P<inside>[^<>\s]*) *>|(?P<bare>[^<>\s]+))"
    r"(?P<parameters> .*)?",
    re.IGNORECASE,
)


def parse_line(line: bytes) -> tuple[str, str]:
    """Return the verb, in upper case, and the argument of a command line without its CR LF.

    Raises:
        CommandError: the line is not a command.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandError(NOT_TEXT) from None
    if "\r" in text or "\n" in text or "\0" in text:
        raise CommandError(NOT_TEXT)
    verb, _, argument = text.partition(" ")
    verb = verb.rstrip("\t")
    if not (verb.isascii() and verb.isalpha()):
        raise CommandError(UNKNOWN_COMMAND)
    return verb.upper(), argument.strip(" \t")  # RFC 5321 §4.1.1: trailing white space


class PathCommand(NamedTuple):
    """A MAIL or RCPT command.

    Attributes:
        path: None is the null path.
        parameters: by upper-case keyword, as their readers left them.
        is_ascii: whether the argument is ASCII as written. A domain of U-labels is not, though it
            has A-labels. RFC 6531 §3.3 allows other parameters too outside ASCII, with SMTPUTF8.
    """

    path: Mailbox | None
    parameters: Parameters
    is_ascii: bool


def parse_mail(argument: str, readers: Mapping[str, ParameterReader]) -> PathCommand:
    """Read the argument of MAIL (RFC 5321 §4.1.1.2).

    Args:
        argument: ``FROM:<…> PARAMETER=value …``.
        readers: of the ESMTP parameters that MAIL takes here, by upper-case keyword.

    Raises:
        CommandError: the argument is malformed, or the reader of a parameter refuses it.
    """
    return _parse(argument, readers, _FROM, "MAIL FROM:<address>", "1.7")


def parse_rcpt(argument: str, readers: Mapping[str, ParameterReader]) -> PathCommand:
    """Read the argument of RCPT (RFC 5321 §4.1.1.3); see `parse_mail`."""
    return _parse(argument, readers, _TO, "RCPT TO:<address>", "1.3")


def with_brackets(argument: str) -> str | None:
    """Return an argument of MAIL or RCPT with its path in brackets; None: no path is in it.

    RFC 5321 §4.1.2 demands the brackets: servers write them, and some devices do not.
    """
    match = _UNUSUAL_PATH.fullmatch(argument)
    if match is None:
        return None
    path = match["bare"] if match["inside"] is None else match["inside"]
    return f"{match['word']}:<{path}>{match['parameters'] or ''}"


class Chunk(NamedTuple):
    """The argument of BDAT: how many octets follow, and whether the chunk is the last."""

    octets: int
    last: bool


def parse_bdat(argument: str) -> Chunk:
    """Read the argument of BDAT (RFC 3030 §2).

    Raises:
        CommandError: the argument is malformed.
    """
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise CommandError(CHUNK_UNREADABLE)
    return Chunk(int(match[1]), match[2] is not None)


def no_argument(argument: str, verb: str) -> None:
    """Refuse an argument of a verb that takes none.

    Raises:
        CommandError: there is an argument.
    """
    if argument:
        raise CommandError(Reply.of(501, "5.4", f"{verb} takes no argument"))


def _parse(
    argument: str,
    readers: Mapping[str, ParameterReader],
    prefix: re.Pattern[str],
    syntax: str,
    address_status: str,
) -> PathCommand:
    match = prefix.match(argument)
    if not match:
        raise CommandError(Reply.of(501, "5.4", f"Syntax: {syntax}"))
    try:
        mailbox, end = path(argument, match.end())
    except AddressError as error:
        raise CommandError(Reply.of(501, address_status, f"Bad address: {error}")) from None
    is_ascii = argument.isascii()
    if end == len(argument):
        return PathCommand(mailbox, {}, is_ascii)
    if argument[end] != " ":
        raise CommandError(Reply.of(501, address_status, f"Bad address. Syntax: {syntax}"))
    return PathCommand(mailbox, _parameters(argument[end:], readers), is_ascii)


def _parameters(text: str, readers: Mapping[str, ParameterReader]) -> Parameters:
    parameters: dict[str, str | int | None] = {}
    for word in filter(None, text.split(" ")):  # RFC 5321 §4.1.1.11: SP, and no other white space
        match = _PARAMETER.fullmatch(word)
        if not match:
            raise CommandError(Reply.of(501, "5.4", f"Malformed parameter: {word}"))
        keyword = match["keyword"].upper()
        reader = readers.get(keyword)
        if reader is None:  # RFC 5321 §4.1.1.11
            raise CommandError(Reply.of(555, "5.4", f"Unsupported parameter: {keyword}"))
        if keyword in parameters:
            raise CommandError(Reply.of(501, "5.4", f"Parameter given twice: {keyword}"))
        parameters[keyword] = reader(match["value"])
    return parameters
