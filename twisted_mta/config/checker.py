"""Checkers of twisted.cred, as one names them: ``file:/etc/mta/passwords``."""

from __future__ import annotations

import difflib
from typing import Any

from attrs import field, frozen
from twisted.cred.checkers import ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, findCheckerFactory

from ..mail.printable import printable
from .setting import ConfigError, quoted, text


@frozen
class CheckerSpec:
    """The name of a checker.

    Attributes:
        kind: what stands before the colon.
        argument: what stands behind it; may hold a password.
    """

    kind: str
    argument: str = field(repr=False)

    def make(self) -> ICredentialsChecker:
        """Return the checker. Blocks: it may read files.

        Raises:
            ConfigError: it cannot be made; without a word of the argument.
        """
        try:
            checker: ICredentialsChecker = findCheckerFactory(self.kind).generateChecker(
                self.argument
            )
        except Exception as error:
            raise ConfigError(
                f"auth = {self}: the checker cannot be made ({type(error).__name__})"
            ) from None
        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # strcred gives it text, and credentials are octets.
            checker.users = {_octets(name): _octets(one) for name, one in checker.users.items()}
        return checker

    def __str__(self) -> str:
        return f"{printable(self.kind)}:..."


def checker_spec(value: Any) -> CheckerSpec:
    """Return what names a checker that there is."""
    if isinstance(value, CheckerSpec):
        return value
    kind, _, argument = text("file:PATH, or another checker of twisted.cred,")(value).partition(":")
    try:
        findCheckerFactory(kind)
    except InvalidAuthType:
        known = sorted({factory.authType for factory in findCheckerFactories()})
        close = difflib.get_close_matches(kind, known, 1)
        meant = f"did you mean {close[0]}:?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"{quoted(kind)} is no kind of checker; {meant}") from None
    return CheckerSpec(kind, argument)


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
