"""Aliases: names that lead to other mailboxes, in the text format that operators know.

::

    # comment
    postmaster: root
    root:       ann, "the boss"@example.org,
                bob@elsewhere.example
    sales@example.org: carol@example.org
    @example.org:      catchall@example.net

A line that begins with white space goes on with the one before it. A key is a name, which holds in
every local domain; a mailbox of one of our domains; or ``@`` and such a domain, for all in it that
have neither an alias nor a mailbox. What it leads to is names, which stand in the domain in which
they are looked up, mailboxes anywhere, or ``@`` and a domain: the same name there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from attrs import Factory, frozen

from ..mail.address import AddressError, Mailbox, domain_name, folded
from ..mail.printable import printable
from ..system.slices import Work, finished

_LARGEST = 64 << 20  # octets; a million aliases have about that
_WHAT_KEY = "name:, name@example.org: or @example.org:"
_WHAT_TARGET = "name, name@example.org or @example.org"

# RFC 5321 §4.1.2: what is in quotes, or in the brackets of an address literal, ends no word.
_TOKENS = re.compile(
    r"""
    (?P<space> [\ \t\r\f\v]+ (?:\#.*)? ) |
    (?P<mark> [,:] ) |
    (?P<word> (?: "(?:[^"\\]|\\.)*+" | \[[^\]\s]*+\] | [^",:\s\[]++ )++ )
    """,
    re.VERBOSE,
)

# What most lines are: a name or mailbox that leads to others, without quotes, comments or anything
# that is refused. The rest is for `_TOKENS`, which takes ten times as long and knows what is wrong.
_DOTTED = r"[A-Za-z0-9!#$%&'*+=?^_`{}~-]+(?:\.[A-Za-z0-9!#$%&'*+=?^_`{}~-]+)*"
_NAMED = rf"(?:{_DOTTED}(?:@[A-Za-z0-9_.-]+)?|@[A-Za-z0-9_.-]+)"
_PLAIN = re.compile(rf"({_NAMED})[ \t]*:[ \t]*({_NAMED}(?:[ \t]*,[ \t]*{_NAMED})*)[ \t\r]*")
MOST_MEMBERS = 10_000
"""To how many others an entry leads at the most, and all that they lead to together."""

_LONGEST_PLAIN = 1000  # characters
_MOST_DOMAINS = 65_536  # that are known in their canonical form while a file is read

_LINES = 32  # that are read between two chances for others to have their turn
_REFUSED = (
    (":", ":include: and its like are not read; what stands in that file would do"),
    ("|", "no program is run; an LMTP server behind a route would do"),
    ("/", "no file is written to; a mailbox would do"),
    ("\\", "no backslash is needed; the name itself ends where it leads back to itself"),
)


class AliasError(ValueError):
    """A file of aliases that cannot be used: a printable line says where, what, what would do."""


class _Mistake(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@frozen
class _Token:
    line: int
    mark: str
    word: str


@frozen
class Target:
    """Where an alias leads.

    Attributes:
        local_part: None for that of the mailbox that was looked up.
        domain: canonical; None for that of the mailbox that was looked up.
    """

    local_part: str | None
    domain: str | None


@frozen
class Alias:
    """One entry.

    Attributes:
        key: as it is looked up: `folded`, with ``@`` and a domain, or without.
        targets: where it leads, at least one.
        line: where it stands in the file, from 1.
    """

    key: str
    targets: tuple[Target, ...]
    line: int


class Entries(Mapping[str, Alias]):
    """Entries by key, kept small: strings in tuples, which no garbage collection looks at.

    200,000 entries as objects keep every full collection busy for a tenth of a second.
    """

    def __init__(self) -> None:
        # The line, then local part and domain of each target.
        self._packed: dict[str, tuple[Any, ...]] = {}

    def __getitem__(self, key: str) -> Alias:
        line, *flat = self._packed[key]
        targets = map(Target, flat[::2], flat[1::2])
        return Alias(key, tuple(targets), line)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, key: object) -> bool:
        return key in self._packed

    def line(self, key: str) -> int:
        """Return where an entry stands in the file; 0 where there is none."""
        line: int = self._packed.get(key, (0,))[0]
        return line

    def put(self, key: str, line: int, flat: Sequence[str | None]) -> None:
        """Add an entry, with local part and domain of each target in turn."""
        self._packed[key] = (line, *flat)

    def emptying(self) -> Work[None]:
        """Let all go, a few at a time."""
        packed = self._packed
        while packed:
            for _ in range(min(_LINES * 16, len(packed))):
                packed.popitem()
            yield


@frozen
class Aliases:
    """All entries of a file.

    Attributes:
        name: the file, for people.
        entries: by key.
    """

    name: str = ""
    entries: Mapping[str, Alias] = Factory(dict)

    def find(self, mailbox: Mailbox, *, bare: bool) -> Alias | None:
        """Return the entry of a mailbox, catch-all apart: first with its tag, then without.

        Args:
            mailbox: in one of our domains.
            bare: whether names without a domain hold there.
        """
        entries = self.entries
        local_part = folded(mailbox.local_part)
        user = local_part.partition("+")[0]
        for name in dict.fromkeys((local_part, user)):
            if not name:  # '""@us.example', or nothing but a tag: not the catch-all's key
                continue
            found = entries.get(f"{name}@{mailbox.domain}")
            if found is None and bare:
                found = entries.get(name)
            if found is not None:
                return found
        return None

    def letting_go(self) -> Work[None]:
        """Let all entries go, a few at a time: nothing looks them up any more."""
        if isinstance(self.entries, Entries):
            yield from self.entries.emptying()

    def catch_all(self, domain: str) -> Alias | None:
        """Return the entry for what has neither an alias nor a mailbox in a domain."""
        return self.entries.get(f"@{domain}")


def read_aliases(path: str, *, ours: tuple[str, ...]) -> Aliases:
    """Read a file of aliases; blocks.

    Args:
        path: of the file.
        ours: all domains, canonical, for which mail is taken.

    Raises:
        AliasError: it cannot be read, or something in it cannot be.
    """
    return parse_aliases(read_content(path), name=path, ours=ours)


def read_content(path: str) -> bytes:
    """Return what a file of aliases holds; blocks.

    Raises:
        AliasError: it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise AliasError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise AliasError(f"{printable(path)}: more than {_LARGEST >> 20} MiB; less would do")
    return content


def parse_aliases(content: bytes, *, name: str, ours: tuple[str, ...]) -> Aliases:
    """Return what the content of a file says (`parsing_aliases`)."""
    return finished(parsing_aliases(content, name=name, ours=ours))


def parsing_aliases(content: bytes, *, name: str, ours: tuple[str, ...]) -> Work[Aliases]:
    """Return what the content of a file says.

    Args:
        content: UTF-8.
        name: of the file, for people.
        ours: as for `read_aliases`.

    Raises:
        AliasError: something in it cannot be.
    """
    known = dict.fromkeys(ours)
    domains: dict[str, str] = {}  # canonical, by how they are written
    entries = Entries()
    lines: list[tuple[int, str]] = []  # of the entry that is being read
    try:
        for number, octets in enumerate(BytesIO(content), 1):
            if number % _LINES == 0:
                yield
            text = _text(number, octets)
            if not text.strip() or text.lstrip().startswith("#"):
                continue  # ends no entry: that may go on below a comment
            if text[0] in " \t":
                if not lines:
                    raise _Mistake(
                        number, "it begins with white space, and there is nothing to go on with"
                    )
            elif lines:
                yield from _entry(lines, known, domains, entries)
                lines = []
            lines.append((number, text))
        if lines:
            yield from _entry(lines, known, domains, entries)
    except _Mistake as mistake:
        raise AliasError(f"{printable(name)}:{mistake.line}: {mistake}") from None
    return Aliases(name, entries)


def _text(number: int, octets: bytes) -> str:
    octets = octets.removesuffix(b"\n")
    if number == 1:
        octets = octets.removeprefix(b"\xef\xbb\xbf")
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _Mistake(number, "not UTF-8; names in UTF-8 would do") from None


def _entry(
    lines: list[tuple[int, str]],
    known: Mapping[str, None],
    domains: dict[str, str],
    entries: Entries,
) -> Work[None]:
    line, text = lines[0]
    found = _plain(text, known, domains) if len(lines) == 1 else None
    if found is None:
        found = yield from _alias(lines, known)
    key, flat = found
    if key in entries:
        raise _Mistake(
            line,
            f"{_quoted(key)} stands in line {entries.line(key)} already;"
            " one entry with all that it leads to would do",
        )
    entries.put(key, line, flat)


def _plain(
    text: str, known: Mapping[str, None], domains: dict[str, str]
) -> tuple[str, list[str | None]] | None:
    """Return the key and where it leads (`Entries.put`) of a plain line; None: it is none."""
    found = _PLAIN.fullmatch(text) if len(text) <= _LONGEST_PLAIN else None
    if not found:
        return None
    local_part, at, domain = found[1].partition("@")
    key = local_part.lower()
    flat: list[str | None] = []
    try:
        if at:
            domain = domain_name(domain)
            if domain not in known:
                return None
            key = f"{key}@{domain}"
        for name in found[2].split(","):
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
    at, start = 0, True  # whether a target may begin here
    while at < len(text):
        for sign, problem in _REFUSED if start else ():
            if text.startswith((sign, f'"{sign}'), at) and (at or text[0] != ":"):
                raise _Mistake(line, f"{_quoted(text[at:].strip())}: {problem}")
        found = _TOKENS.match(text, at)
        if not found:
            problem = "half a pair of quotation marks" if text[at] == '"' else "no name"
            raise _Mistake(
                line, f"{_quoted(text[at:].strip())}: {problem}; {_WHAT_TARGET} would do"
            )
        at = found.end()
        if found["space"] is None:
            start = found["mark"] is not None
            yield _Token(line, found["mark"] or "", found["word"] or "")


def _alias(
    lines: list[tuple[int, str]], known: Mapping[str, None]
) -> Work[tuple[str, list[str | None]]]:
    """Return the key of an entry, and where it leads (`Entries.put`)."""
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
            f"{_quoted(first.word or first.mark)}: not an entry; {_WHAT_KEY} and what"
            " that leads to would do",
        )
    local_part, domain = _name(first, _WHAT_KEY)
    if domain is not None and domain not in known:
        raise _Mistake(
            first.line,
            f"{_quoted(first.word)}: {domain} is none of our domains; one of local_domains or"
            " virtual_domains would do",
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
            targets[_name(token, _WHAT_TARGET)] = None
        last = token
    if not targets:
        raise _Mistake(first.line, f"{_quoted(first.word)} leads nowhere; {_WHAT_TARGET} would do")
    return key, [each for pair in targets for each in pair]


def _name(token: _Token, what: str) -> tuple[str | None, str | None]:
    """Return local-part and domain of a word; None for the one that it leaves out."""
    word = token.word
    try:
        if word.startswith("@"):
            return None, domain_name(word[1:])
        if "@" in re.sub(r'"(?:[^"\\]|\\.)*+"', "", word):
            mailbox = Mailbox.parse(word)
            return mailbox.local_part, mailbox.domain
        return Mailbox.parse(f"{word}@name.invalid").local_part, None
    except AddressError as error:
        raise _Mistake(token.line, f"{_quoted(word)}: {error}; {what} would do") from None


def _quoted(text: str) -> str:
    text = printable(text)
    return f'"{text if len(text) <= 80 else text[:76] + " ..."}"'
