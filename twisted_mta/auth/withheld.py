"""Failures of an application's checkers and challengers: their text may quote a secret."""

from __future__ import annotations

from twisted.python.failure import Failure


class Withheld(Exception):
    """Stands for another exception; its text is the type of that one."""


def withheld(error: BaseException) -> Failure:
    """Return a failure with the traceback of an exception, and without its text."""
    return Failure(Withheld(type(error).__name__), Withheld, error.__traceback__)
