"""Bearer tokens of programs: names, scopes and digests, one token on a line of a file.

A line is an object of JSON:

    {"name": "billing", "sha256": "9f86…", "scopes": ["read", "submit"]}

A token has 256 random bits. So a single SHA-256 is enough to store it: nothing can be tried that is
likelier than any other value, which is what the slow hashes of passwords are for; and a request is
not delayed by one. The tokens themselves are in no file, and are shown once.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any

from attrs import field, frozen

from ..mail.printable import printable
from ..system.work import Work, finished
from .accounts import AccountsError, account_name
from .entry_file import EntryFile

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


_FILE = EntryFile(Token.parse, TokensError, _MADE_BY)
read_content = _FILE.read
changing = _FILE.changing


def digest_of(text: str) -> str:
    """Return the digest that a token is stored as."""
    return sha256(text.encode("utf-8", "replace")).hexdigest()


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
    for number, (_, token) in enumerate(_FILE.lines(content, path)):
        if number % _PER_SLICE == 0:
            yield
        if token is not None:
            by_digest[token.digest] = token
    return Tokens(by_digest)


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
