"""ESMTP extensions of an application, guarded: what one raises is logged, and the session lives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import attrs
from attrs import field
from twisted.logger import Logger

from ..mail.envelope import Recipient
from ..mail.reply import Reply
from ..smtp.command import CommandError, ParameterReader
from ..smtp.extension import Extension, Obey
from ..smtp.extension.outgoing import OutgoingExtension
from ..smtp.extension.views import NewClient, OutgoingView, SessionView
from ..smtp.server.replies import LOCAL_ERROR

_S = TypeVar("_S")
_T = TypeVar("_T")

_log = Logger()

_FAILED_ON_THE_WAY = Reply.of(451, "3.0", "internal error, see the log")


def guarded_extensions(given: Any) -> tuple[Extension, ...]:
    """Return the extensions of an application, guarded (`GuardedExtension`).

    Args:
        given: a sequence of `Extension`.

    Raises:
        TypeError: it is none.
    """
    several = tuple(given) if isinstance(given, Iterable) else (None,)
    if not all(isinstance(each, Extension) for each in several):
        raise TypeError(f"extensions: found {given!r}, expected a sequence of Extension")
    return tuple(map(_guarded, several))


@attrs.frozen
class GuardedExtension(Extension):
    """An extension whose failures harm one command alone.

    A verb, and a parameter of MAIL or RCPT, is answered with 451; an announcement is left out.

    Attributes:
        original: the extension.
    """

    original: Extension = field(kw_only=True)

    def announcement(self, session: SessionView) -> str | None:
        """Return the line of the extension; None where it fails."""
        try:
            line: object = self.original.announcement(session)
            if line is not None and not isinstance(line, str):
                raise TypeError(f"found {line!r}, expected text or None")
        except Exception:
            _log.failure("the extension {keyword} failed: EHLO", keyword=self.keyword)
            return None
        return line


def _guarded(extension: Extension) -> Extension:
    if isinstance(extension, GuardedExtension):
        return extension
    keyword = extension.keyword
    return GuardedExtension(
        keyword,
        mail={name: _reader(keyword, name, each) for name, each in extension.mail.items()},
        rcpt={name: _reader(keyword, name, each) for name, each in extension.rcpt.items()},
        mail_octets=extension.mail_octets,
        rcpt_octets=extension.rcpt_octets,
        commands={verb: _obey(keyword, verb, each) for verb, each in extension.commands.items()},
        not_offered=extension.not_offered,
        outgoing=None if extension.outgoing is None else GuardedOutgoing(extension.outgoing),
        original=extension,
    )


def _reader(keyword: str, name: str, read: ParameterReader) -> ParameterReader:
    def guarded(value: str | None) -> str | int | None:
        try:
            return read(value)
        except CommandError:
            raise
        except Exception:
            _log.failure("the extension {keyword} failed: {name}", keyword=keyword, name=name)
            raise CommandError(LOCAL_ERROR) from None

    return guarded


def _obey(keyword: str, verb: str, obey: Obey) -> Obey:
    def guarded(session: SessionView, argument: str) -> Reply | NewClient:
        try:
            answer: object = obey(session, argument)
            if not isinstance(answer, Reply | NewClient):
                raise TypeError(f"found {answer!r}, expected a Reply")
        except CommandError:
            raise
        except Exception:
            _log.failure("the extension {keyword} failed: {name}", keyword=keyword, name=verb)
            return LOCAL_ERROR
        return answer

    return guarded


class GuardedOutgoing(OutgoingExtension):
    """The client side of an application's extension: where it fails, the mail is deferred.

    Its parameters are made once before, while the message can still be deferred by itself.

    Args:
        original: the extension.
    """

    def __init__(self, original: OutgoingExtension) -> None:
        self._original = original
        self.keyword = original.keyword  # type: ignore[misc]
        self.converts = original.converts  # type: ignore[misc]

    def refusal(self, transaction: OutgoingView, announced: str | None) -> Reply | None:
        """Return the reply of the extension; 451 where that or its parameters fail."""

        def ask() -> Reply | None:
            refusal = self._original.refusal(transaction, announced)
            if refusal is None and announced is not None:
                tuple(self._original.mail(transaction, announced))
            return refusal

        return self._guarded(ask, _FAILED_ON_THE_WAY)

    def recipient_refusal(
        self, transaction: OutgoingView, recipient: Recipient, announced: str | None
    ) -> Reply | None:
        """Return the reply of the extension; 451 where that or its parameters fail."""

        def ask() -> Reply | None:
            refusal = self._original.recipient_refusal(transaction, recipient, announced)
            if refusal is None and announced is not None:
                tuple(self._original.rcpt(transaction, recipient, announced))
            return refusal

        return self._guarded(ask, _FAILED_ON_THE_WAY)

    def mail(self, transaction: OutgoingView, announced: str) -> Iterable[str]:
        """Return the parameters of the extension."""
        return self._guarded(lambda: tuple(self._original.mail(transaction, announced)), ())

    def rcpt(
        self, transaction: OutgoingView, recipient: Recipient, announced: str
    ) -> Iterable[str]:
        """Return the parameters of the extension."""
        return self._guarded(
            lambda: tuple(self._original.rcpt(transaction, recipient, announced)), ()
        )

    def _guarded(self, ask: Callable[[], _T], instead: _S) -> _T | _S:
        try:
            return ask()
        except Exception:
            _log.failure("the extension {keyword} failed: next hop", keyword=self.keyword)
            return instead
