"""The reverse name of a client, confirmed by a forward look-up (RFC 8601 §2.7.3, ``iprev``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..dns import LookupFailed, NoSuchDomain
from ..interfaces import Resolver
from ..mail.address import AddressError, Mailbox, domain_name
from ..message.authentication_results import MethodResult
from ..system.coroutines import started
from .answers import EnvelopeView
from .examination import Examination, PolicySession

NAME = "iprev"
"""The name of the policy, and of its method in Authentication-Results."""

NO_ANSWER = (MethodResult(NAME, "temperror", "no answer in time"),)
"""What is recorded where the look-ups take too long."""

_MOST_NAMES = 10  # RFC 8601 §2.7.3 leaves a limit to us; RFC 7208 §4.6.4 has the same for ``ptr``


@frozen
class ReverseName:
    """What the look-ups of the names of an address have led to (RFC 8601 §2.7.3).

    Attributes:
        address: of the client, as it is written; None: it has none.
        result: ``pass``: a name of the address has the address; ``fail``: none of them has;
            ``temperror``: the DNS did not answer; ``permerror``: the address has no name; ``none``:
            there is no address.
        name: the name, a valid host name in lower case; empty without ``pass``.
        reason: why it is not ``pass``, for people.
    """

    address: str | None
    result: Literal["pass", "fail", "temperror", "permerror", "none"]
    name: str = ""
    reason: str = ""

    @cached_property
    def method_result(self) -> MethodResult:
        """The same for the Authentication-Results field."""
        properties = () if self.address is None else (("policy.iprev", self.address),)
        return MethodResult(NAME, self.result, self.reason, properties, comment=self.name)


async def reverse_name(address: str | None, resolver: Resolver) -> ReverseName:
    """Look up the names of an address, and the addresses of those names; at most ten.

    The names are tried in alphabetical order, so that the result does not change with the order of
    the records.

    Args:
        address: IPv4 or IPv6; None: on a UNIX socket.
        resolver: the DNS.
    """
    client = _parsed(address)
    if client is None:
        return ReverseName(None, "none", reason="the address of the client is not known")
    written = str(client)
    try:
        pointers = await resolver.pointers(written)
    except NoSuchDomain:
        pointers = ()
    except LookupFailed as failure:
        return ReverseName(written, "temperror", reason=str(failure))
    names = sorted(filter(None, map(_host_name, pointers)))[:_MOST_NAMES]
    if not names:
        return ReverseName(written, "permerror", reason="the address has no name")
    family: Literal[4, 6] = client.version
    # All begin at once; those behind the confirmed name are not waited for.
    lookups = [(name, started(_addresses(name, family, resolver))) for name in names]
    failed: LookupFailed | None = None
    for name, lookup in lookups:
        addresses = await lookup
        if isinstance(addresses, LookupFailed):
            failed = failed or addresses
        elif any(_parsed(each) == client for each in addresses):
            return ReverseName(written, "pass", name)
    if failed is not None:
        return ReverseName(written, "temperror", reason=str(failed))
    return ReverseName(written, "fail", reason=f"{names[0]} does not have the address")


async def _addresses(
    name: str, family: Literal[4, 6], resolver: Resolver
) -> Sequence[str] | LookupFailed:
    """Return the addresses of a name, or why they are unknown."""
    try:
        return await resolver.family_addresses(name, family)
    except NoSuchDomain:
        return ()
    except LookupFailed as failure:
        return failure


def _parsed(address: str | None) -> IPv4Address | IPv6Address | None:
    """Return an address without its zone; IPv4 in IPv6 form is IPv4; None: it is none."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def _host_name(pointer: str) -> str | None:
    """Return the target of a PTR record as a host name; None: it is no name of a host."""
    try:
        name = domain_name(pointer)
    except AddressError:
        return None
    return None if name.startswith("[") else name


class ReverseNamePolicy:
    """Looks up the reverse name of a client when it connects; refuses nothing.

    The name is in `PolicySession.reverse_name` once it is confirmed. Only the end of the content
    waits for the result.

    Args:
        resolver: the DNS.
    """

    _log = Logger()

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    def client(self, session: PolicySession) -> None:
        """Begin the look-ups."""
        self._lookup(session)

    def mail(self, session: PolicySession, sender: Mailbox | None) -> None:
        """Let the result count for the transaction that begins."""
        examination = session.examination
        if examination is None:
            return
        found = self._lookup(session)
        if isinstance(found, ReverseName):
            _concluded(found, examination)
        else:
            found.addCallback(_concluded, examination)

    def message(
        self, session: PolicySession, envelope: EnvelopeView, content: object
    ) -> Deferred[None] | None:
        """Wait for the result."""
        examination = session.examination
        if examination is None or examination.is_concluded(NAME):
            return None
        return examination.concluded(NAME).addCallback(lambda _: None)

    def _lookup(self, session: PolicySession) -> ReverseName | Deferred[ReverseName]:
        """Return the result, once it is known; the look-ups are begun once in a session."""
        known = session.memory.get(self)
        if isinstance(known, ReverseName | Deferred):
            return known
        lookup = started(reverse_name(session.address, self._resolver))
        session.memory[self] = lookup
        return lookup.addErrback(self._failed, session).addCallback(self._noted, session)

    def _failed(self, failure: Failure, session: PolicySession) -> ReverseName:
        self._log.failure("the look-up of a reverse name failed", failure)
        return ReverseName(session.address, "temperror", reason="an internal error")

    def _noted(self, found: ReverseName, session: PolicySession) -> ReverseName:
        session.memory[self] = found
        session.reverse_name = found.name or None
        return found


def _concluded(found: ReverseName, examination: Examination) -> ReverseName:
    examination.conclude(NAME, [found.method_result])
    return found
