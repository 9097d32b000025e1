"""The DNS, watched: whether its name servers answer at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Resolver
from ..mail.printable import printable
from . import LookupFailed

_FAILURES = 3  # in a row, after which this is said: one domain may be broken

_T = TypeVar("_T")


class WatchedResolver:
    """A resolver (`interfaces.Resolver`) that remembers how its last look-ups went.

    Args:
        resolver: what looks up.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._failures = 0
        self._last = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    @property
    def trouble(self) -> str:
        """Say that look-ups fail, and why; empty while they do not.

        That a domain does not exist is an answer.
        """
        if self._failures < _FAILURES:
            return ""
        return f"the last {self._failures:,} look-ups in the DNS have failed: {self._last}"

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records."""
        return self._watched(self._resolver.mail_exchangers(domain))

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text."""
        return self._watched(self._resolver.addresses(host, search=search))

    def _watched(self, lookup: Deferred[_T]) -> Deferred[_T]:
        return lookup.addCallbacks(self._answered, self._failed)

    def _answered(self, result: _T) -> _T:
        self._failures = 0
        return result

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(LookupFailed):
            self._failures += 1
            self._last = printable(failure.getErrorMessage())
        else:
            self._failures = 0
        return failure
