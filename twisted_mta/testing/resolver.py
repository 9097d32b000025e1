"""DNS from a dictionary, with failures on cue (`interfaces.Resolver`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from ..dns import LookupFailed, NoSuchDomain

_T = TypeVar("_T")


class FakeResolver:
    """Answers at once, from what it was given; a name that it was not given is NXDOMAIN.

    Args:
        mail_exchangers: (preference, host) of the MX records by domain.
        addresses: A and AAAA records by name; a name with an MX record exists without them.

    Attributes:
        asked: (type, name) of every lookup, in order; the type is ``MX`` or ``A``.
    """

    def __init__(
        self,
        mail_exchangers: Mapping[str, Sequence[tuple[int, str]]] | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.asked: list[tuple[str, str]] = []
        self._mail_exchangers = dict(mail_exchangers or {})
        self._addresses = dict(addresses or {})
        self._broken: dict[tuple[str, str], str] = {}
        self._failures: deque[str] = deque()
        self._silent: dict[str, list[Deferred[None]]] = {}

    def fail(
        self, name: str, reason: str = "SERVFAIL", *, types: Sequence[str] = ("MX", "A")
    ) -> None:
        """Let every lookup of ``name`` fail with `LookupFailed` until `mend`."""
        self._broken.update(dict.fromkeys(((type, name) for type in types), reason))

    def fail_next(self, reason: str = "SERVFAIL") -> None:
        """Let the next lookup, of whatever name, fail with `LookupFailed`."""
        self._failures.append(reason)

    def hold(self, name: str) -> None:
        """Let lookups of ``name`` get no answer before `release`."""
        self._silent[name] = []

    def release(self, name: str) -> None:
        """Answer the lookups of ``name`` that wait."""
        for waiting in self._silent.pop(name):
            if not waiting.called:
                waiting.callback(None)

    def mend(self, name: str) -> None:
        """Let lookups of ``name`` be answered again."""
        for type in ("MX", "A"):
            self._broken.pop((type, name), None)

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records."""
        return self._answer("MX", domain, self._mail_exchangers)

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the addresses of ``host``; there is no search list."""
        return self._answer("A", host, self._addresses)

    def _answer(
        self, type: str, name: str, records: Mapping[str, Sequence[_T]]
    ) -> Deferred[Sequence[_T]]:
        self.asked.append((type, name))
        if name in self._silent:
            waiting: Deferred[None] = Deferred()
            self._silent[name].append(waiting)
            return waiting.addCallback(lambda _: self._records(type, name, records))
        try:
            return succeed(self._records(type, name, records))
        except (LookupFailed, NoSuchDomain) as failure:
            return fail(failure)

    def _records(self, type: str, name: str, records: Mapping[str, Sequence[_T]]) -> Sequence[_T]:
        if self._failures:
            raise LookupFailed(name, type, self._failures.popleft())
        if (type, name) in self._broken:
            raise LookupFailed(name, type, self._broken[type, name])
        if name not in self._mail_exchangers and name not in self._addresses:
            raise NoSuchDomain(name, type, "no such domain")
        return records.get(name, ())
