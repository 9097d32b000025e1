"""A resolver that reports when lookups fail one after the other, as if the DNS were down."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..interfaces import Clock, Resolver
from ..mail.dns_answer import Answered
from ..mail.printable import printable
from ..mail.tlsa import TLSA
from . import LookupFailed

_FAILURES = 3  # in a row before it is trouble: a single domain may be broken
_SLICE = 30.0  # seconds; lookups are counted by slices of time
_SLICES = 10  # that are remembered
_ENOUGH = 10  # lookups in these, before their rate of failures says something
_MANY = 0.25  # of them, that fail

_T = TypeVar("_T")


class MonitoredResolver:
    """A resolver (`interfaces.Resolver`) that counts lookups that fail in a row.

    Lookups of TXT, PTR and single families are about strangers, who choose the names and may have
    name servers that do not answer. Their failures say nothing about our name servers, and do not
    count; an answer to them shows that our name servers work.

    Args:
        resolver: does the lookups.
        clock: for the rate of failures.

    Attributes:
        answered: lookups of all kinds since the start that had an answer.
        failed: those that had none.
    """

    def __init__(self, resolver: Resolver, clock: Clock) -> None:
        self.answered = 0
        self.failed = 0
        self._resolver = resolver
        self._clock = clock
        # Number of the slice of time, lookups that were answered in it, and that failed.
        self._slices: deque[list[int]] = deque(maxlen=_SLICES)
        self._failures = 0
        self._last_failure = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)

    @property
    def trouble(self) -> str:
        """A line on lookups that failed in a row, or a quarter of all lately; empty: they did not.

        NXDOMAIN is an answer. Failures in a row that an answer has ended do not count any more.
        """
        if self._failures >= _FAILURES:
            return f"the last {self._failures:,} DNS lookups have failed: {self._last_failure}"
        first = self._slice_now() - _SLICES
        recent = [each for each in self._slices if each[0] > first]
        failed = sum(each[2] for each in recent)
        lookups = failed + sum(each[1] for each in recent)
        if lookups < _ENOUGH or failed < _MANY * lookups:
            return ""
        minutes = _SLICE * _SLICES / 60
        return (
            f"{failed:,} of {lookups:,} DNS lookups of the last {minutes:.0f} min have failed:"
            f" {self._last_failure}"
        )

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
            self._answered_stranger(None)  # as with an answer in the cache
            return lookup
        return lookup.addCallbacks(self._answered_stranger, self._failed_for_stranger)

    def _answered_stranger(self, result: _T) -> _T:
        self.answered += 1
        self._end_run()
        return result

    def _failed_for_stranger(self, failure: Failure) -> Failure:
        if isinstance(failure.value, LookupFailed):
            self.failed += 1
        else:
            self._answered_stranger(None)
        return failure

    def _answered(self, result: _T) -> _T:
        self.answered += 1
        self._end_run()
        self._count(answered=1)
        return result

    def _failed(self, failure: Failure) -> Failure:
        if failure.check(LookupFailed):
            self.failed += 1
            self._failures += 1
            self._last_failure = printable(failure.getErrorMessage())
        else:
            self._answered(None)
        return failure

    def _end_run(self) -> None:
        if 0 < self._failures < _FAILURES:
            self._count(failed=self._failures)
        self._failures = 0

    def _count(self, *, answered: int = 0, failed: int = 0) -> None:
        now = self._slice_now()
        if not self._slices or self._slices[-1][0] != now:
            self._slices.append([now, 0, 0])
        self._slices[-1][1] += answered
        self._slices[-1][2] += failed

    def _slice_now(self) -> int:
        return int(self._clock.seconds() / _SLICE)
