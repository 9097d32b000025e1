"""Questions of a check as an `interfaces.Resolver`: for evaluations that are written for one."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

import dns.exception
import dns.reversename
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from ...dns import LookupFailed, NoSuchDomain
from ...mail.dns_answer import Answered
from ...mail.tlsa import TLSA
from ..questions import NoAnswer, Questions

_T = TypeVar("_T")

_MOST_TURNS = 100_000  # of the clock: an evaluation takes a turn now and then


class BlockingResolver:
    """Looks up records, and blocks until they are there; every Deferred has fired.

    Args:
        questions: to name servers. Their `TooLate` comes through.
    """

    def __init__(self, questions: Questions) -> None:
        self._questions = questions

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records."""
        return _fired(self._mail_exchangers(domain))

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the AAAA and A records of a host as text."""
        return _fired(self._addresses(host))

    def exchangers(self, domain: str) -> Deferred[Answered[tuple[int, str]]]:
        """Return (preference, host) of all MX records; none is taken for secure."""
        return self.mail_exchangers(domain).addCallback(lambda found: Answered(tuple(found)))

    def host(self, name: str, *, search: bool = False) -> Deferred[Answered[str]]:
        """Return the addresses of a host; none is taken for secure."""
        return self.addresses(name).addCallback(lambda found: Answered(tuple(found)))

    def tlsa(self, domain: str) -> Deferred[Answered[TLSA]]:
        """Return the TLSA records of a domain; none is taken for secure."""
        return _fired(self._tlsa(domain))

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of a domain, the strings of each joined."""
        return _fired(self._text(domain))

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names that PTR records give an IP address."""
        return _fired(self._pointers(address))

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        """Return the A records (4) or the AAAA records (6) of a host as text."""
        return _fired(self._family_addresses(host, family))

    async def _mail_exchangers(self, domain: str) -> Sequence[tuple[int, str]]:
        records = self._records(domain, "MX")
        return [(each.preference, _name(each.exchange)) for each in records]

    async def _addresses(self, host: str) -> Sequence[str]:
        types = ("AAAA", "A")
        return [record.address for type in types for record in self._records(host, type)]

    async def _tlsa(self, domain: str) -> Answered[TLSA]:
        records = self._records(domain, "TLSA")
        return Answered(tuple(TLSA(e.usage, e.selector, e.mtype, e.cert) for e in records))

    async def _text(self, domain: str) -> Sequence[bytes]:
        return [b"".join(record.strings) for record in self._records(domain, "TXT")]

    async def _pointers(self, address: str) -> Sequence[str]:
        try:
            domain = dns.reversename.from_address(address).to_text().removesuffix(".")
        except dns.exception.SyntaxError:
            raise NoSuchDomain(address, "PTR", "not an IP address") from None
        return [_name(record.target) for record in self._records(domain, "PTR")]

    async def _family_addresses(self, host: str, family: Literal[4, 6]) -> Sequence[str]:
        return [each.address for each in self._records(host, "A" if family == 4 else "AAAA")]

    def _records(self, domain: str, type: str) -> Sequence[Any]:
        try:
            answer = self._questions.lookup(f"{domain}.", type)
        except NoAnswer as error:
            raise LookupFailed(domain, type, str(error)) from None
        if not answer.exists:
            raise NoSuchDomain(domain, type, "no such domain")
        return answer.records


def _name(name: Any) -> str:
    text: str = name.to_text()
    return text.lower().removesuffix(".")


def _fired(coroutine: Coroutine[Any, Any, _T]) -> Deferred[_T]:
    return Deferred.fromCoroutine(coroutine)


def finished(evaluation: Awaitable[_T], clock: Clock) -> _T:
    """Return the result of a look-up or an evaluation over a `BlockingResolver`.

    Args:
        evaluation: a Deferred or a coroutine.
        clock: that it takes turns of.

    Raises:
        Exception: as the evaluation does.
    """
    results: list[Any] = []
    Deferred.fromCoroutine(_awaited(evaluation)).addBoth(results.append)
    for _ in range(_MOST_TURNS):
        if results:
            break
        clock.advance(0)
    result = results[0]
    if isinstance(result, Failure):
        result.raiseException()
    value: _T = result
    return value


async def _awaited(evaluation: Awaitable[_T]) -> _T:
    return await evaluation
