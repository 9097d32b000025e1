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
from collections.abc import Iterator, Mapping

from attrs import Factory, frozen

from ..smtp.address import AddressError, Mailbox, domain_name, folded
from ..smtp.reply import printable

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
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise AliasError(f"{printable(path)}: cannot be read: {error.strerror}") from None
    if len(content) > _LARGEST:
        raise AliasError(f"{printable(path)}: more than {_LARGEST >> 20} MiB; less would do")
    return parse_aliases(content, name=path, ours=ours)


def parse_aliases(content: bytes, *, name: str, ours: tuple[str, ...]) -> Aliases:
    """Return what the content of a file says.

    Args:
        content: UTF-8.
        name: of the file, for people.
        ours: as for `read_aliases`.

    Raises:
        AliasError: something in it cannot be.
    """
    known = dict.fromkeys(ours)
    entries: dict[str, Alias] = {}
    try:
        for tokens in _entries(content):
            alias = _alias(tokens, known)
            if alias.key in entries:
                raise _Mistake(
                    alias.line,
                    f"{_quoted(alias.key)} stands in line {entries[alias.key].line} already;"
                    " one entry with all that it leads to would do",
                )
            entries[alias.key] = alias
    except _Mistake as mistake:
        raise AliasError(f"{printable(name)}:{mistake.line}: {mistake}") from None
    return Aliases(name, entries)


def _entries(content: bytes) -> Iterator[list[_Token]]:
    """Yield the tokens of each entry, with the lines in which they stand."""
    entry: list[_Token] = []
    for line, octets in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = octets.decode("utf-8")
        except UnicodeDecodeError:
            raise _Mistake(line, "not UTF-8; names in UTF-8 would do") from None
        if not text.strip() or text.lstrip().startswith("#"):
            continue  # ends no entry: that may go on below a comment
        if text[0] not in " \t":
            if entry:
                yield entry
            entry = []
        elif not entry:
            raise _Mistake(line, "it begins with white space, and there is nothing to go on with")
        entry += _tokens(line, text)
    if entry:
        yield entry


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


def _alias(tokens: list[_Token], known: Mapping[str, None]) -> Alias:
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
    targets: dict[Target, None] = {}
    last = rest[0]
    for token in rest[1:]:
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
            targets[Target(*_name(token, _WHAT_TARGET))] = None
        last = token
    if not targets:
        raise _Mistake(first.line, f"{_quoted(first.word)} leads nowhere; {_WHAT_TARGET} would do")
    return Alias(key, tuple(targets), first.line)


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
