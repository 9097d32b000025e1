"""The file of aliases: parse the text format that operators know from aliases(5).

::

    # comment
    postmaster: root
    root:       ann, "the boss"@example.org,
                bob@elsewhere.example
    sales@example.org: carol@example.org
    @example.org:      catchall@example.net
    noreply:    /dev/null

A line that begins with white space continues the one before it. A key is a name, which applies to
every local domain; a mailbox of one of our domains; or ``@`` and such a domain, for all of its
mailboxes that have no alias and do not exist. The targets are names, in the domain of the mailbox
that is looked up; mailboxes anywhere; ``@`` and a domain: the same name there; or ``/dev/null``,
which discards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from io import BytesIO

from attrs import frozen

from ..config.text_file import without_mark
from ..config.unreadable import unreadable
from ..mail.address import AddressError, Mailbox, domain_name, folded
from ..mail.printable import printable
from ..system.work import Work, finished
from .aliases import AliasEntries, Aliases
from .routes import DISCARD

_LARGEST = 64 << 20  # octets: about a million aliases
_KEYS = "name:, name@example.org: or @example.org:"
_TARGETS = "name, name@example.org, @example.org or /dev/null"

# RFC 5321 §4.1.2: a word does not end within quotes, nor within an address literal.
_TOKENS = re.compile(
    r"""
    (?P<space> [\ \t\r\f\v]+ (?:\#.*)? ) |
    (?P<mark> [,:] ) |
    (?P<word> (?: "(?:[^"\\]|\\.)*+" | \[[^\]\s]*+\] | [^",:\s\[]++ )++ )
    """,
    re.VERBOSE,
)

# Most lines: a name or mailbox with targets, without quotes or comments. Other lines are for
# `_TOKENS`, which takes ten times as long and finds the mistakes.
_DOTTED = r"[A-Za-z0-9!#$%&'*+=?^_`{}~-]+(?:\.[A-Za-z0-9!#$%&'*+=?^_`{}~-]+)*"
_NAMED = rf"(?:{_DOTTED}(?:@[A-Za-z0-9_.-]+)?|@[A-Za-z0-9_.-]+)"
_PLAIN = re.compile(rf"({_NAMED})[ \t]*:[ \t]*({_NAMED}(?:[ \t]*,[ \t]*{_NAMED})*)[ \t\r]*")

MOST_MEMBERS = 10_000
"""Targets of an entry at the most, and of all entries that they lead to together."""

# A target, never a key.
_DISCARD = re.compile(rf'(?<=.)(?:{DISCARD}|"{DISCARD}")(?=[\s,]|\Z)')

_LONGEST_PLAIN = 1000  # characters
_MOST_DOMAINS = 65_536  # whose canonical form is remembered while a file is parsed
_LINES = 32  # parsed between two yields

_REFUSED = (
    (":blackhole:", f"expected {DISCARD}"),
    (":", ":include: and the like are not read; expected the content of that file"),
    ("|", "no program is run; expected a mailbox, with a route to an LMTP server"),
    ("/", f"no file is written to; expected a mailbox, or {DISCARD} to discard"),
    ("\\", "no backslash is needed; a name that leads to itself is the mailbox of that name"),
)


class AliasError(ValueError):
    """A file of aliases that cannot be used; the text has file, line, mistake and expectation."""


class _Mistake(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@frozen
class _Token:
    line: int
    mark: str
    word: str


def read_aliases(path: str, *, ours: tuple[str, ...]) -> Aliases:
    """Read a file of aliases. Blocks.

    Args:
        path: of the file.
        ours: all our domains, canonical.

    Raises:
        AliasError: the file cannot be read or parsed.
    """
    return parse_aliases(read_content(path), name=path, ours=ours)


def read_content(path: str) -> bytes:
    """Return the content of a file of aliases. Blocks.

    Raises:
        AliasError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise AliasError(f"{printable(path)}: {unreadable(path, error)}") from None
    if len(content) > _LARGEST:
        raise AliasError(
            f"{printable(path)}: found more than {_LARGEST >> 20} MiB; expected no more"
        )
    return content


def parse_aliases(content: bytes, *, name: str, ours: tuple[str, ...]) -> Aliases:
    """Return the aliases of a file at once (`parse_in_slices`)."""
    return finished(parse_in_slices(content, name=name, ours=ours))


def parse_in_slices(content: bytes, *, name: str, ours: tuple[str, ...]) -> Work[Aliases]:
    """Return the aliases of a file; yields every 32 lines.

    Args:
        content: UTF-8.
        name: of the file, for people.
        ours: all our domains, canonical.

    Raises:
        AliasError: a line is wrong.
    """
    our_domains = dict.fromkeys(ours)
    domains: dict[str, str] = {}  # canonical, by their spelling
    entries = AliasEntries()
    lines: list[tuple[int, str]] = []  # of the current entry
    try:
        for number, octets in enumerate(BytesIO(content), 1):
            if number % _LINES == 0:
                yield
            text = _text(number, octets)
            if not text.strip() or text.lstrip().startswith("#"):
                continue  # an entry may continue below a comment
            if text[0] in " \t":
                if not lines:
                    raise _Mistake(
                        number, "it begins with white space, and there is no entry to continue"
                    )
            elif lines:
                yield from _entry(lines, our_domains, domains, entries)
                lines = []
            lines.append((number, text))
        if lines:
            yield from _entry(lines, our_domains, domains, entries)
    except _Mistake as mistake:
        raise AliasError(f"{printable(name)}:{mistake.line}: {mistake}") from None
    return Aliases(name, entries)


def _text(number: int, octets: bytes) -> str:
    octets = octets.removesuffix(b"\n")
    if number == 1:
        octets = without_mark(octets)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _Mistake(number, "not UTF-8; expected names in UTF-8") from None


def _entry(
    lines: list[tuple[int, str]],
    our_domains: Mapping[str, None],
    domains: dict[str, str],
    entries: AliasEntries,
) -> Work[None]:
    line, text = lines[0]
    alias = _plain(text, our_domains, domains) if len(lines) == 1 else None
    if alias is None:
        alias = yield from _alias(lines, our_domains)
    key, flat = alias
    if key in entries:
        raise _Mistake(
            line,
            f"{_quoted(key)} stands in line {entries.line(key)} already;"
            " expected one entry with all targets",
        )
    entries.put(key, line, flat)


def _plain(
    text: str, our_domains: Mapping[str, None], domains: dict[str, str]
) -> tuple[str, list[str | None]] | None:
    """Return the key and the targets (`AliasEntries.put`) of a plain line, None for others."""
    match = _PLAIN.fullmatch(text) if len(text) <= _LONGEST_PLAIN else None
    if not match:
        return None
    local_part, at, domain = match[1].partition("@")
    key = local_part.lower()
    flat: list[str | None] = []
    try:
        if at:
            domain = domain_name(domain)
            if domain not in our_domains:
                return None
            key = f"{key}@{domain}"
        for name in match[2].split(","):
            local_part, at, domain = name.strip().partition("@")
            if at and domain not in domains:
                if len(domains) >= _MOST_DOMAINS:
                    domains.clear()
                domains[domain] = domain_name(domain)
            flat += (local_part or None, domains[domain] if at else None)
    except AddressError:
        return None
    if len(flat) > 2:
        pairs = dict.fromkeys(zip(flat[::2], flat[1::2], strict=True))
        flat = [each for pair in pairs for each in pair]
    return key, flat


def _tokens(line: int, text: str) -> Iterator[_Token]:
    at, start = 0, True  # start: whether a target may begin here
    while at < len(text):
        for sign, problem in _REFUSED if start and not _DISCARD.match(text, at) else ():
            if text.startswith((sign, f'"{sign}'), at) and (at or text[0] != ":"):
                raise _Mistake(line, f"{_quoted(text[at:].strip())}: {problem}")
        match = _TOKENS.match(text, at)
        if not match:
            problem = "half a pair of quotation marks" if text[at] == '"' else "no name"
            raise _Mistake(line, f"{_quoted(text[at:].strip())}: {problem}; expected {_TARGETS}")
        at = match.end()
        if match["space"] is None:
            start = match["mark"] is not None
            yield _Token(line, match["mark"] or "", match["word"] or "")


def _alias(
    lines: list[tuple[int, str]], our_domains: Mapping[str, None]
) -> Work[tuple[str, list[str | None]]]:
    """Return the key and the targets (`AliasEntries.put`) of an entry."""
    tokens: list[_Token] = []
    for line, text in lines:
        for token in _tokens(line, text):
            tokens.append(token)
            if len(tokens) % _LINES == 0:
                yield
            if len(tokens) > 2 * MOST_MEMBERS + 1:  # a name and a mark for each
                raise _Mistake(
                    lines[0][0],
                    f"{_quoted(tokens[0].word)} leads to more than {MOST_MEMBERS:,} others;"
                    " expected no more, or a list of lists",
                )
    first, *rest = tokens
    if not first.word or not rest or rest[0].mark != ":":
        raise _Mistake(
            first.line,
            f"{_quoted(first.word or first.mark)}: not an entry; expected {_KEYS} and targets",
        )
    local_part, domain = _name(first, _KEYS)
    if domain is not None and domain not in our_domains:
        raise _Mistake(
            first.line,
            f"{_quoted(first.word)}: {domain} is none of our domains; expected one of"
            " local_domains or virtual_domains",
        )
    key = folded(local_part or "") + ("" if domain is None else f"@{domain}")
    targets: dict[tuple[str | None, str | None], None] = {}
    last = rest[0]
    for number, token in enumerate(rest[1:], 1):
        if number % _LINES == 0:
            yield
        if bool(token.word) != bool(last.mark):
            missing = "comma" if token.word else "name"
            raise _Mistake(
                token.line,
                f"{_quoted(token.word or token.mark)}: a {missing} is missing before it",
            )
        if token.mark == ":":
            raise _Mistake(
                token.line, f"{_quoted(last.word)}: a key stands at the beginning of its line"
            )
        if token.word:
            targets[_name(token, _TARGETS)] = None
        last = token
    if not targets:
        raise _Mistake(first.line, f"{_quoted(first.word)} has no target; expected {_TARGETS}")
    return key, [each for pair in targets for each in pair]


def _name(token: _Token, expected: str) -> tuple[str | None, str | None]:
    """Return local part and domain of a word; None for an omitted one."""
    word = token.word
    try:
        if word in (DISCARD, f'"{DISCARD}"'):
            return None, DISCARD
        if word.startswith("@"):
            return None, domain_name(word[1:])
        if "@" in re.sub(r'"(?:[^"\\]|\\.)*+"', "", word):
            mailbox = Mailbox.parse(word)
            return mailbox.local_part, mailbox.domain
        return Mailbox.parse(f"{word}@name.invalid").local_part, None
    except AddressError as error:
        raise _Mistake(token.line, f"{_quoted(word)}: {error}; expected {expected}") from None


def _quoted(text: str) -> str:
    text = printable(text)
    return f'"{text if len(text) <= 80 else text[:76] + " ..."}"'
