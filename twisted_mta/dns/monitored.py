"""A resolver that reports when lookups fail one after the other, as if the DNS were down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Resolver
from ..mail.dns_answer import Answered
from ..mail.printable import printable
from ..mail.tlsa import TLSA
from . import LookupFailed

_FAILURES = 3  # in a row before it is trouble: a single domain may be broken

_T = TypeVar("_T")


class MonitoredResolver:
    """A resolver (`interfaces.Resolver`) that counts lookups that fail in a row.

    Lookups of TXT, PTR and single families are about strangers, who choose the names and may have
    name servers that do not answer. Their failures say nothing about our name servers, and do not
    count; an answer to them shows that our name servers work.

    Args:
        resolver: does the lookups.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._failures = 0
        self._last_failure = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    @property
    def trouble(self) -> str:
        """A line on the lookups that failed in a row; empty where the last ones were answered.

        NXDOMAIN is an answer.
        """
        if self._failures < _FAILURES:
            return ""
        return f"the last {self._failures:,} DNS lookups have failed: {self._last_failure}"

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records."""
        return self._monitored(self._resolver.mail_exchangers(domain))

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of ``host`` as text."""
        return self._monitored(self._resolver.addresses(host, search=search))

    def exchangers(self, domain: str) -> Deferred[Answered[tuple[int, str]]]:
        """Return (preference, host) of all MX records, and whether they are secure."""
        return self._monitored(self._resolver.exchangers(domain))

    def host(self, name: str, *, search: bool = False) -> Deferred[Answered[str]]:
        """Return the addresses of a host, and whether they are secure."""
        return self._monitored(self._resolver.host(name, search=search))

    def tlsa(self, domain: str) -> Deferred[Answered[TLSA]]:
        """Return the TLSA records of ``domain``."""
        return self._heard(self._resolver.tlsa(domain))

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of ``domain``."""
        return self._heard(self._resolver.text(domain))

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names of an IP address."""
        return self._heard(self._resolver.pointers(address))

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        """Return the A or the AAAA records of ``host``."""
        return self._heard(self._resolver.family_addresses(host, family))

    def _monitored(self, lookup: Deferred[_T]) -> Deferred[_T]:
        return lookup.addCallbacks(self._answered, self._failed)

    def _heard(self, lookup: Deferred[_T]) -> Deferred[_T]:
        if lookup.called and not isinstance(lookup.result, Failure):
            self._failures = 0  # as with an answer in the cache
            return lookup
        return lookup.addCallbacks(self._answered, self._failed_for_stranger)

    def _failed_for_stranger(self, failure: Failure) -> Failure:
        if not isinstance(failure.value, LookupFailed):
            self._failures = 0
        return failure

    def _answered(self, result: _T) -> _T:
        self._failures = 0
        return result

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(LookupFailed):
            self._failures += 1
            self._last_failure = printable(failure.getErrorMessage())
        else:
            self._failures = 0
        return failure
