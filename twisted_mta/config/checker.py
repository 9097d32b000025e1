"""Credential checkers of twisted.cred, as strcred names them: ``file:/etc/mta/passwords``."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from attrs import field, frozen

from ..mail.printable import printable
from .readers import text
from .setting import HIDDEN, ConfigError, quoted
from .unreadable import unreadable

if TYPE_CHECKING:  # few installations have a checker
    from twisted.cred.checkers import ICredentialsChecker


@frozen
class CheckerSpec:
    """The description of a checker.

    Attributes:
        kind: the part before the colon.
        argument: the part after the colon; may contain a password.
    """

    kind: str
    argument: str = field(repr=False)

    def make(self) -> ICredentialsChecker:
        """Return the checker. Blocks: it may read files.

        Raises:
            ConfigError: making it failed; the error does not show the argument.
        """
        from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
        from twisted.cred.strcred import findCheckerFactory

        if self.kind == "file":  # its checker reads the file at the first login
            try:
                with open(self.argument, "rb"):
                    pass
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"auth = {self}: the file {unreadable(self.argument, error)}"
                ) from None
        try:
            checker: ICredentialsChecker = findCheckerFactory(self.kind).generateChecker(
                self.argument
            )
        except Exception as error:
            raise ConfigError(
                f"auth = {self}: the checker cannot be made ({type(error).__name__})"
            ) from None
        if isinstance(checker, InMemoryUsernamePasswordDatabaseDontUse):
            # strcred gives it text, but credentials are octets.
            checker.users = {
                _octets(name): _octets(password) for name, password in checker.users.items()
            }
        return checker

    def __str__(self) -> str:
        return f"{printable(self.kind)}:{HIDDEN}"


def checker_spec(value: CheckerSpec | str) -> CheckerSpec:
    """Read the description of a checker whose kind is installed."""
    if isinstance(value, CheckerSpec):
        return value
    from twisted.cred.checkers import ICredentialsChecker
    from twisted.cred.strcred import InvalidAuthType, findCheckerFactories, findCheckerFactory

    if ICredentialsChecker.providedBy(value):
        raise ValueError(
            "found a checker, expected its description, such as file:PATH; a checker that is an"
            " object goes to MailTransferAgent(checkers=[...])"
        )
    kind, _, argument = text("file:PATH, or another checker of twisted.cred")(value).partition(":")
    try:
        findCheckerFactory(kind)
    except InvalidAuthType:
        known = sorted({factory.authType for factory in findCheckerFactories()})
        close = difflib.get_close_matches(kind, known, 1)
        hint = f"did you mean {close[0]}:?" if close else f"expected {', '.join(known)}"
        raise ValueError(f"{quoted(kind)} is not a kind of checker; {hint}") from None
    return CheckerSpec(kind, argument)


def _octets(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
