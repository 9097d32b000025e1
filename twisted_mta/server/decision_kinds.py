"""The kinds of answers that a connection awaits; an answer of an application may be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from ..auth.authenticator import Login
from ..mail.reply import Reply
from ..smtp.server.auth import Verdict


@frozen
class Kind:
    """A kind of answer.

    Attributes:
        expected: in words.
        fits: whether an object is of it.
        usual: the types of most; their objects fit.
    """

    expected: str
    fits: Callable[[object], bool]
    usual: tuple[type, ...] = ()

    def has(self, found: object) -> bool:
        """Whether an object is of this kind."""
        return type(found) in self.usual or self.fits(found)

    def checked(self, found: Any) -> Any:
        """Return ``found``.

        Raises:
            TypeError: it is not of this kind.
        """
        if self.has(found):
            return found
        raise TypeError(f"found {found!r}, expected {self.expected}")


def _is_decision(found: object) -> bool:
    return found is None or isinstance(found, Reply)


def _is_content_decision(found: object) -> bool:
    if isinstance(found, list | tuple):
        return all(map(_is_decision, found))
    return _is_decision(found)


def _is_opened(found: object) -> bool:
    return isinstance(found, Reply) or (
        hasattr(found, "write") and hasattr(found, "finish") and hasattr(found, "abort")
    )


_USUAL = (type(None), Reply)

DECISION = Kind("a Reply or None", _is_decision, _USUAL)
CONTENT_DECISION = Kind("a Reply, None, or a list of these", _is_content_decision, _USUAL)
OPENED = Kind("a Sink or a Reply", _is_opened)
VERDICT = Kind("a Login, a salt or a Reply", lambda found: isinstance(found, Verdict | Login))
