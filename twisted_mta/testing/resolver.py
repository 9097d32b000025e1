"""A resolver that answers from a dictionary, with failures on cue (`interfaces.Resolver`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from ..dns import LookupFailed, NoSuchDomain
from ..mail.dns_answer import Answered
from ..mail.tlsa import TLSA
from .zone_text import read_zone

_T = TypeVar("_T")

_TYPES = ("MX", "A", "AAAA", "TXT", "PTR", "TLSA")


class FakeResolver:
    """A resolver of given names, which answers at once; any other name is NXDOMAIN.

    A name that has a record of any type exists, and so do the domains above it.

    Args:
        mail_exchangers: (preference, host) of the MX records, by domain.
        addresses: the A and AAAA records, by name.
        texts: the TXT records, by name.
        pointers: the names of the PTR records, by IP address.
        tlsa: the TLSA records, by name, as usage, selector, matching type and data.
        aliases: the target of the CNAME record, by name.
        signed: domains whose records, and those of all names below them, DNSSEC proves.

    Attributes:
        lookups: (type, name) of each lookup, in order; the type is ``MX``, ``A`` (also of both
            families together), ``AAAA``, ``TXT``, ``TLSA``, or ``PTR``, whose name is the address.
        texts: the TXT records by name; may be changed at any time.
        tlsa_records: the TLSA records by name; may be changed at any time.
        signed: see the argument; may be changed at any time.
        default: the address of every name outside the zone; empty: such a name does not exist.
            Outside are the names without a record at them, above them or below them.
    """

    def __init__(
        self,
        mail_exchangers: Mapping[str, Sequence[tuple[int, str]]] | None = None,
        addresses: Mapping[str, Sequence[str]] | None = None,
        texts: Mapping[str, Sequence[bytes | str]] | None = None,
        pointers: Mapping[str, Sequence[str]] | None = None,
        tlsa: Mapping[str, Sequence[tuple[int, int, int, bytes]]] | None = None,
        aliases: Mapping[str, str] | None = None,
        signed: Sequence[str] = (),
    ) -> None:
        self.lookups: list[tuple[str, str]] = []
        self.texts: dict[str, Sequence[bytes | str]] = dict(texts or {})
        self._mail_exchangers = dict(mail_exchangers or {})
        self._addresses = dict(addresses or {})
        self._pointers = dict(pointers or {})
        self.tlsa_records = {
            name: [TLSA(*each) for each in records] for name, records in (tlsa or {}).items()
        }
        self._aliases = dict(aliases or {})
        self.signed = tuple(signed)
        self.default = ""
        self._broken: dict[tuple[str, str], str] = {}
        self._denied: dict[str, None] = {}
        self._failures: deque[str] = deque()
        self._silent: dict[str, list[Deferred[None]]] = {}

    def add_zone(self, text: str) -> None:
        """Add the records of a master file (RFC 1035 §5): MX, A, AAAA, TXT, CNAME, PTR and TLSA.

        A name is complete, with or without its last dot, unless ``$ORIGIN`` says what it is below;
        no TTL is needed. Records replace those of the same name and type that were there before.

        Raises:
            ValueError: the text cannot be read, or has records of another type.
        """
        zone = read_zone(text)
        self._mail_exchangers |= zone.mail_exchangers
        self._addresses |= zone.addresses
        self.texts |= zone.texts
        self._pointers |= zone.pointers
        self._aliases |= zone.aliases
        self.tlsa_records |= {
            name: [TLSA(*each) for each in records] for name, records in zone.tlsa.items()
        }

    def fail(self, name: str, reason: str = "SERVFAIL", *, types: Sequence[str] = _TYPES) -> None:
        """Make every lookup of ``name`` fail with `LookupFailed`, until `mend`."""
        self._broken.update(dict.fromkeys(((type, name) for type in types), reason))

    def deny(self, name: str) -> None:
        """Say that a name does not exist, whatever the zone has, until `mend`."""
        self._denied[name] = None

    def fail_next(self, reason: str = "SERVFAIL") -> None:
        """Make the next lookup, of any name, fail with `LookupFailed`."""
        self._failures.append(reason)

    def hold(self, name: str) -> None:
        """Leave lookups of ``name`` without an answer, until `release`."""
        self._silent.setdefault(name, [])

    def release(self, name: str) -> None:
        """Answer the waiting lookups of ``name``, if it is held."""
        for waiting in self._silent.pop(name, ()):
            if not waiting.called:
                waiting.callback(None)

    def mend(self, name: str) -> None:
        """Answer lookups of ``name`` again."""
        self._denied.pop(name, None)
        for type in _TYPES:
            self._broken.pop((type, name), None)

    def mend_all(self) -> None:
        """Answer all lookups again, also those that wait."""
        self._denied.clear()
        self._broken.clear()
        self._failures.clear()
        for name in list(self._silent):
            self.release(name)

    def mail_exchangers(self, domain: str) -> Deferred[Sequence[tuple[int, str]]]:
        """Return (preference, host) of all MX records."""
        return self._answer("MX", domain, self._mail_exchangers)

    def addresses(self, host: str, *, search: bool = False) -> Deferred[Sequence[str]]:
        """Return the addresses of ``host``; the search list is empty."""
        return self._answer("A", host, self._addresses)

    def exchangers(self, domain: str) -> Deferred[Answered[tuple[int, str]]]:
        """Return (preference, host) of all MX records, and whether they are secure."""
        return self._answered("MX", domain, self._mail_exchangers)

    def host(self, name: str, *, search: bool = False) -> Deferred[Answered[str]]:
        """Return the addresses of a host, and whether they are secure."""
        return self._answered("A", name, self._addresses)

    def tlsa(self, domain: str) -> Deferred[Answered[TLSA]]:
        """Return the TLSA records of a domain, and whether they are secure."""
        return self._answered("TLSA", domain, self.tlsa_records)

    def text(self, domain: str) -> Deferred[Sequence[bytes]]:
        """Return the TXT records of ``domain``."""
        return self._answer("TXT", domain, self.texts).addCallback(
            lambda texts: [each.encode() if isinstance(each, str) else each for each in texts]
        )

    def pointers(self, address: str) -> Deferred[Sequence[str]]:
        """Return the names of an IP address."""
        return self._answer("PTR", address, self._pointers)

    def family_addresses(self, host: str, family: Literal[4, 6]) -> Deferred[Sequence[str]]:
        """Return the IPv4 or the IPv6 addresses of ``host``."""
        return self._answer("A" if family == 4 else "AAAA", host, self._addresses).addCallback(
            lambda addresses: [each for each in addresses if (":" in each) == (family == 6)]
        )

    def _answer(
        self, type: str, name: str, records: Mapping[str, Sequence[_T]]
    ) -> Deferred[Sequence[_T]]:
        self.lookups.append((type, name))
        if name in self._silent:
            waiting: Deferred[None] = Deferred()
            self._silent[name].append(waiting)
            return waiting.addCallback(lambda _: self._records(type, name, records))
        try:
            return succeed(self._records(type, name, records))
        except (LookupFailed, NoSuchDomain) as failure:
            return fail(failure)

    def _answered(
        self, type: str, asked: str, records: Mapping[str, Sequence[_T]]
    ) -> Deferred[Answered[_T]]:
        names = self._followed(asked)
        secure = [self._is_signed(name) for name in names]
        return self._answer(type, asked, records).addCallback(
            lambda found: Answered(tuple(found), all(secure), asked, names[-1], secure[0])
        )

    def _followed(self, name: str) -> list[str]:
        """Return a name and the names that its alias leads to, up to the end."""
        names = [name.lower()]
        while (target := self._aliases.get(names[-1])) is not None and len(names) < 10:
            names.append(target)
        return names

    def _is_signed(self, name: str) -> bool:
        return any(name == each or name.endswith(f".{each}") for each in self.signed)

    def _records(self, type: str, name: str, records: Mapping[str, Sequence[_T]]) -> Sequence[_T]:
        if self._failures:
            raise LookupFailed(name, type, self._failures.popleft())
        if (type, name) in self._broken:
            raise LookupFailed(name, type, self._broken[type, name])
        if name in self._denied:
            raise NoSuchDomain(name, type, "no such domain")
        name = self._followed(name)[-1]
        found = records.get(name)
        if found is None and not self._exists(name):
            if self.default and type != "PTR" and self._is_outside(name):
                return (self.default,) if type in ("A", "AAAA") else ()  # type: ignore[return-value]
            raise NoSuchDomain(name, type, "no such domain")
        return found or ()

    def _is_outside(self, name: str) -> bool:
        """Whether no name above ``name``, where no name is below, has a record."""
        labels = name.split(".")
        return not any(self._exists(".".join(labels[at:])) for at in range(1, len(labels) - 1))

    def _exists(self, name: str) -> bool:
        """Whether a name, or one below it, has a record."""
        names = (self._mail_exchangers, self._addresses, self.texts, self.tlsa_records)
        return any(
            each == name or each.endswith(f".{name}") for records in names for each in records
        )


class _Powered(Protocol):
    @property
    def is_up(self) -> bool: ...


class MachineResolver:
    """The DNS as one machine sees it: lookups that wait in a crash are never answered.

    Args:
        machine: the machine (`machine.Machine`).
        resolver: has the answers.
    """

    def __init__(self, machine: _Powered, resolver: FakeResolver) -> None:
        self._machine = machine
        self._resolver = resolver

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._resolver, name)
        if not callable(value):
            return value

        def look_up(*args: Any, **kwargs: Any) -> Any:
            found = value(*args, **kwargs)
            if not isinstance(found, Deferred) or found.called:
                return found
            answer: Deferred[Any] = Deferred(lambda _: found.cancel())

            def answered(result: Any) -> None:
                if self._machine.is_up and not answer.called:
                    answer.callback(result)

            found.addBoth(answered)
            return answer

        return look_up
