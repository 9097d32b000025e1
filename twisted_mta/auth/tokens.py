"""Bearer tokens of programs: names, scopes and digests, one token on a line of a file.

A line is an object of JSON:

    {"name": "billing", "sha256": "9f86…", "scopes": ["read", "submit"]}

A token has 256 random bits. So a single SHA-256 is enough to store it: nothing can be tried that is
likelier than any other value, which is what the slow hashes of passwords are for; and a request is
not delayed by one. The tokens themselves are in no file, and are shown once.
"""

from __future__ import annotations

import contextlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from typing import Any

from attrs import field, frozen

from ..config.text_file import without_mark
from ..mail.printable import printable
from ..system.slices import Work, finished
from .accounts import AccountsError, account_key, account_name
from .private_file import locked, read_private, replace

SCOPES = ("read", "act", "submit")
"""What a token may be for: reading, the actions of an operator, and handing over mail."""

PREFIX = "tmta_"
"""The beginning of every token, by which programs find lost ones in logs and repositories."""

_SECRET = 32  # octets
_FIELDS = ("name", "sha256", "scopes")
_MADE_BY = "twisted-mta users token"
_PER_SLICE = 64  # tokens read before other work may have its turn


class TokensError(ValueError):
    """A token, or a file of tokens, that cannot be used; one printable line says why."""


@frozen
class Token:
    """A token, without its secret.

    Attributes:
        name: of the program that has it.
        digest: SHA-256 of the token, lower-case hex.
        scopes: of `SCOPES`.
    """

    name: str
    digest: str = field(repr=False)
    scopes: tuple[str, ...]

    @classmethod
    def new(
        cls, name: str, scopes: Iterable[str], secret: Callable[[int], bytes]
    ) -> tuple[Token, str]:
        """Return a new token, and its text, which is not stored.

        Args:
            name: of the program.
            scopes: of `SCOPES`.
            secret: returns that many random octets.

        Raises:
            TokensError: an argument is not valid.
        """
        text = PREFIX + urlsafe_b64encode(secret(_SECRET)).decode("ascii").rstrip("=")
        return cls(_name(name), digest_of(text), _scopes(list(scopes))), text

    @classmethod
    def parse(cls, line: str) -> Token:
        """Return the token that `line` has written.

        Raises:
            TokensError: the line is not valid.
        """
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        if not isinstance(entry, dict):
            raise TokensError(f"not an object of JSON, as {_MADE_BY} writes it to the file")
        for key in entry:
            if key not in _FIELDS:
                raise TokensError(
                    f"found field {printable(key)}, expected one of {', '.join(_FIELDS)}"
                )
        digest = entry.get("sha256")
        if not isinstance(digest, str) or len(digest) != 64 or digest.strip("0123456789abcdef"):
            raise TokensError("sha256: expected 64 hex digits in lower case")
        return cls(_name(entry.get("name")), digest, _scopes(entry.get("scopes")))

    def line(self) -> str:
        """Return the line of the file, without its end."""
        return json.dumps({"name": self.name, "sha256": self.digest, "scopes": list(self.scopes)})


@frozen
class Tokens:
    """All tokens of a file.

    Attributes:
        by_digest: by their digests.
    """

    by_digest: Mapping[str, Token] = field(factory=dict)

    def find(self, text: str) -> Token | None:
        """Return the token of that text; None if there is none.

        The time shows nothing of use: it depends on the digest of the text, which a client cannot
        choose digit by digit.
        """
        digest = digest_of(text)
        token = self.by_digest.get(digest)
        return token if token is not None and hmac.compare_digest(token.digest, digest) else None


def digest_of(text: str) -> str:
    """Return the digest that a token is stored as."""
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def read_content(path: str) -> bytes:
    """Return the content of a file of tokens. Blocks.

    Raises:
        TokensError: it cannot be read, or others than its owner and group can access it.
    """
    return read_private(path, TokensError, _MADE_BY)


def read_tokens(path: str) -> Tokens:
    """Return the tokens of a file. Blocks.

    Raises:
        TokensError: the file cannot be used.
    """
    return finished(parse_in_slices(read_content(path), path))


def parse_in_slices(content: bytes, path: str) -> Work[Tokens]:
    """Return the tokens in the content of a file, in slices of work.

    Args:
        content: UTF-8.
        path: of the file, for error texts.

    Raises:
        TokensError: a line is not valid.
    """
    by_digest: dict[str, Token] = {}
    for number, (_, token) in enumerate(_lines(content, path)):
        if number % _PER_SLICE == 0:
            yield
        if token is not None:
            by_digest[token.digest] = token
    return Tokens(by_digest)


@contextlib.contextmanager
def changing(path: str) -> Iterator[dict[str, Token]]:
    """Change a file: yields its tokens by `account_key` of the name, to be changed. Blocks.

    Comments are kept. Two changes at once wait for each other. A reader sees all or nothing of a
    change, after a crash too.

    Raises:
        TokensError: the file cannot be used.
        OSError: the file cannot be written.
    """
    with locked(path, TokensError) as (descriptor, status):
        with open(descriptor, "rb", closefd=False) as file:
            entries = list(_lines(file.read(), path))
        tokens = {account_key(each.name): each for _, each in entries if each is not None}
        before = dict(tokens)
        yield tokens
        lines: list[str] = []
        for line, token in entries:
            now = None if token is None else tokens.get(account_key(token.name))
            if token == now:  # a comment, or a token that was not changed
                lines.append(line)
            elif now is not None:
                lines.append(now.line())
        lines += [each.line() for key, each in tokens.items() if key not in before]
        replace(path, "".join(f"{line}\n" for line in lines), status)


def _lines(content: bytes, path: str) -> Iterator[tuple[str, Token | None]]:
    """Yield each line, and its token; None for an empty line or a comment.

    Raises:
        TokensError: a line is not valid.
    """
    seen: dict[str, int] = {}
    for number, octets in enumerate(BytesIO(without_mark(content)), 1):
        try:
            line = octets.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise TokensError(f"{printable(path)}: not UTF-8") from None
        if not line.strip() or line.startswith("#"):
            yield line, None
            continue
        where = f"{printable(path)}: line {number}"
        try:
            token = Token.parse(line)
        except TokensError as error:
            raise TokensError(f"{where}: {error}") from None
        key = account_key(token.name)
        if key in seen:
            raise TokensError(
                f"{where}: found {printable(token.name)} again, which is in line {seen[key]}"
                " already"
            )
        seen[key] = number
        yield line, token


def _name(value: Any) -> str:
    try:
        return account_name(value)
    except AccountsError:
        raise TokensError("name: expected 1 to 255 printable characters, such as billing") from None


def _scopes(value: Any) -> tuple[str, ...]:
    chosen = value if isinstance(value, list) else []
    for each in chosen:
        if each not in SCOPES:
            raise TokensError(
                f"scopes: found {printable(str(each))}, expected some of {', '.join(SCOPES)}"
            )
    if not chosen:
        raise TokensError(f"scopes: found none, expected some of {', '.join(SCOPES)}")
    return tuple(each for each in SCOPES if each in chosen)
